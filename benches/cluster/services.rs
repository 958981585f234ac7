//! The broker and the engine that scripts/services started.

use highwater::runtime::clock::Stopwatch;
use std::time::Duration;

const PATIENCE: usize = 2_400;
/// Asking costs the engine time that it would spend on the work.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Services {
    pub(super) brokers: String,
    pub(super) clickhouse: String,
    http: reqwest::Client,
}

impl Services {
    pub(super) fn found() -> Self {
        #[expect(clippy::disallowed_methods, reason = "where services are is no configuration of the product")]
        let named = |name: &str| std::env::var(name).expect("scripts/services up starts what this needs");
        drop(rustls::crypto::ring::default_provider().install_default());
        Self {
            brokers: named("HIGHWATER_TEST_KAFKA"),
            clickhouse: named("HIGHWATER_TEST_CLICKHOUSE"),
            http: reqwest::Client::builder().no_proxy().build().expect("a client"),
        }
    }

    pub(super) async fn ask(&self, query: &str) -> Result<String, String> {
        let asked = self.http.post(&self.clickhouse).body(query.to_owned()).send().await;
        let answer = asked.map_err(|error| error.to_string())?;
        let (status, text) = (answer.status(), answer.text().await.map_err(|error| error.to_string())?);
        if status.is_success() { Ok(text) } else { Err(text) }
    }

    /// Waits until a query answers with at least a number; returns the seconds on the stopwatch.
    pub(super) async fn wait(&self, query: &str, number: u64, stopwatch: &Stopwatch) -> f64 {
        let mut last = String::new();
        for _ in 0..PATIENCE {
            match self.ask(query).await {
                Ok(text) if text.trim().parse::<f64>().is_ok_and(|found| found as u64 >= number) => {
                    return stopwatch.elapsed().as_secs_f64();
                }
                Ok(text) | Err(text) => last = text,
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("{query} did not reach {number}: {last}");
    }
}
