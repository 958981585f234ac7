//! A broker that goes away: the node says that it cannot accept, and can again by itself.

use crate::kafka::brokers;
use crate::nodes::{Cluster, ask};
use crate::process::{Server, bootstrap_with};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Runs `scripts/services` on a broker of the test's own.
fn services(state: &Path, arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/services");
    let output = Command::new(script).args(arguments).env("HIGHWATER_TEST_SERVICES_STATE", state).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Ends the test's own broker, also when the test fails.
struct Own(tempfile::TempDir);

impl Drop for Own {
    fn drop(&mut self) {
        services(self.0.path(), &["kill", "kafka"]);
    }
}

async fn wait_until(server: &Server, fits: impl Fn(u16, &Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..600 {
        let (status, ready) = ask(server, "", "GET", "/readyz", None).await;
        if fits(status, &ready) {
            return ready;
        }
        last = ready;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{last:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_does_not_answer_is_told() {
    if brokers().is_none() {
        return;
    }
    let own = Own(tempfile::tempdir().unwrap());
    let said = services(own.0.path(), &["up", "kafka"]);
    let exported = said.lines().find_map(|line| line.strip_prefix("export HIGHWATER_TEST_KAFKA="));
    let broker = exported.unwrap().to_owned();
    let cluster = Cluster::new(&broker);
    let key = bootstrap_with(&cluster.data(), &cluster.arguments());
    let server = cluster.start();
    let event = json!({"account_id": "acme", "metric": "m"});
    let (status, answer) = ask(&server, &key, "POST", "/v1/events", Some(event.clone())).await;
    assert_eq!(status, 202, "{answer}");
    wait_until(&server, |status, ready| {
        status == 200 && ready["checks"]["intake"].as_object().is_some_and(|of| of.len() == 4)
    })
    .await;
    services(own.0.path(), &["kill", "kafka"]);
    let ready =
        wait_until(&server, |status, ready| status == 503 && ready["checks"]["intake"]["unknown_since"].is_string())
            .await;
    assert_eq!((&ready["status"], &ready["checks"]["log"]), (&json!("unreachable"), &json!("unreachable")), "{ready}");
    let metrics = server.metrics().await;
    assert_eq!(metrics["highwater_log_answers"], 0.0);
    // What is not known is not told.
    assert!(!metrics.keys().any(|name| name.starts_with("highwater_intake_lag_messages")), "{metrics:#?}");
    services(own.0.path(), &["up", "kafka"]);
    wait_until(&server, |status, ready| status == 200 && ready["checks"]["intake"]["p0"]["lag_messages"] == 0).await;
    let (status, answer) = ask(&server, &key, "POST", "/v1/events", Some(event)).await;
    assert_eq!(status, 202, "{answer}");
    server.stop();
}
