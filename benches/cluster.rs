//! The cluster shape on one machine: a million JSON events that wait in a topic become windows in ClickHouse.
//!
//! `make bench-cluster`. Beside it, in the same run, what one would otherwise pick: ClickHouse's own Kafka engine with a
//! materialized view into 5-minute sums, which removes no duplicates.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench says what it found, or that it cannot run")]

#[cfg(not(all(feature = "kafka", feature = "clickhouse")))]
fn main() {}

#[cfg(all(feature = "kafka", feature = "clickhouse"))]
fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime").block_on(cluster::run());
}

#[cfg(all(feature = "kafka", feature = "clickhouse"))]
mod cluster {
    use highwater::runtime::clock::{self, Stopwatch};
    use rdkafka::ClientConfig;
    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    use rdkafka::client::DefaultClientContext;
    use rdkafka::error::RDKafkaErrorCode;
    use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    const EVENTS: u64 = 1_000_000;
    const ACCOUNTS: u64 = 1_000;
    const METRICS: [&str; 5] = ["api.requests", "storage.bytes", "compute.ms", "egress.bytes", "jobs.run"];
    const PATIENCE: usize = 1_200;

    struct Services {
        brokers: String,
        clickhouse: String,
        http: reqwest::Client,
    }

    pub(super) async fn run() {
        #[expect(clippy::disallowed_methods, reason = "where services are is no configuration of the product")]
        let named = |name: &str| std::env::var(name).expect("scripts/services up starts what this needs");
        drop(rustls::crypto::ring::default_provider().install_default());
        let services = Services {
            brokers: named("HIGHWATER_TEST_KAFKA"),
            clickhouse: named("HIGHWATER_TEST_CLICKHOUSE"),
            http: reqwest::Client::builder().no_proxy().build().expect("a client"),
        };
        let prefix = format!("bench-{}", ulid::Ulid(clock::ulid()));
        let topic = format!("{prefix}.usage");
        services.fill(&topic).await;
        services.ours(&prefix).await;
        services.theirs(&topic).await;
    }

    impl Services {
        /// Puts the events into a topic of four partitions, as a service would send them.
        async fn fill(&self, topic: &str) {
            let client = || {
                let mut config = ClientConfig::new();
                config.set("bootstrap.servers", &self.brokers);
                config
            };
            let admin: AdminClient<DefaultClientContext> = client().create().expect("an admin");
            let new =
                NewTopic::new(topic, 4, TopicReplication::Fixed(1)).set("message.timestamp.type", "LogAppendTime");
            admin.create_topics([&new], &AdminOptions::new()).await.expect("a topic");
            let producer: ThreadedProducer<DefaultProducerContext> = client()
                .set("linger.ms", "50")
                .set("queue.buffering.max.messages", "500000")
                .create()
                .expect("a producer");
            let stopwatch = Stopwatch::start();
            let mut bytes = 0;
            for number in 0..EVENTS {
                let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
                let (account, metric) = (mixed % ACCOUNTS, METRICS[(mixed >> 13) as usize % METRICS.len()]);
                let event = format!(
                    r#"{{"id":"bench-{number:012}","account_id":"acc_{account:05}","metric":"{metric}","value":{},"dimensions":{{"region":"eu-west-1","service":"checkout"}}}}"#,
                    1 + mixed % 9
                );
                bytes += event.len();
                let mut record = BaseRecord::<(), String>::to(topic).payload(&event);
                while let Err((error, back)) = producer.send(record) {
                    assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    record = back;
                }
            }
            producer.flush(Duration::from_secs(60)).expect("all are delivered");
            println!(
                "{EVENTS} events of {} bytes produced in {:.1} s",
                bytes / EVENTS as usize,
                stopwatch.elapsed().as_secs_f64()
            );
        }

        async fn ours(&self, prefix: &str) {
            let folder = tempfile::tempdir().expect("a folder");
            let key = folder.path().join("master.key");
            std::fs::write(&key, "ab".repeat(32)).expect("a key");
            let database = prefix.replace('-', "_");
            let journal = format!("kafka://{}?partitions=4&prefix={prefix}", self.brokers);
            let store = format!("clickhouse+{}/{database}", self.clickhouse);
            let command = |name: &str| {
                let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
                command.arg(name).args(["--journal", &journal, "--store", &store]).arg("--master-key-file").arg(&key);
                command
                    .arg("--data")
                    .arg(folder.path().join("node"))
                    .arg("--snapshots")
                    .arg(folder.path().join("snaps"));
                command.stdout(Stdio::null()).stderr(Stdio::null());
                command
            };
            assert!(command("bootstrap").status().expect("bootstrap runs").success());
            let stopwatch = Stopwatch::start();
            let mut serve = command("serve");
            serve.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
            let mut child = serve.spawn().expect("serve runs");
            let query = format!("SELECT sum(events) FROM {database}.usage_5m");
            let begun = self.wait(&query, 1, &stopwatch).await;
            let ended = self.wait(&query, EVENTS, &stopwatch).await;
            let (cpu, rss) = used(&child);
            println!(
                "highwater, dedup included: all windows in ClickHouse {ended:.1} s behind the start of the process ({:.0} events/s), \
                 first ones behind {begun:.1} s ({:.0} events/s from there); {cpu:.2} CPU-seconds, {rss} MiB at most",
                EVENTS as f64 / ended,
                EVENTS as f64 / (ended - begun).max(0.001)
            );
            end(&mut child);
        }

        /// ClickHouse's Kafka engine with a materialized view; it removes no duplicates.
        async fn theirs(&self, topic: &str) {
            let database = format!("peer_{}", ulid::Ulid(clock::ulid()));
            let table = format!("{database}.sums");
            for statement in [
                format!("CREATE DATABASE {database}"),
                format!(
                    "CREATE TABLE {table} (account_id String, metric String, start DateTime, events UInt64, total Int64)
                     ENGINE = SummingMergeTree ORDER BY (account_id, metric, start)"
                ),
                format!(
                    "CREATE TABLE {database}.queue (account_id String, metric String, value Int64)
                     ENGINE = Kafka SETTINGS kafka_broker_list = '{}', kafka_topic_list = '{topic}',
                       kafka_group_name = '{database}', kafka_format = 'JSONEachRow', kafka_num_consumers = 2,
                       input_format_skip_unknown_fields = 1",
                    self.brokers
                ),
            ] {
                self.ask(&statement).await.expect("the statement runs");
            }
            let stopwatch = Stopwatch::start();
            let view = format!(
                "CREATE MATERIALIZED VIEW {database}.view TO {table} AS
                 SELECT account_id, metric, toStartOfFiveMinutes(_timestamp) AS start, count() AS events, sum(value) AS total
                 FROM {database}.queue GROUP BY account_id, metric, start"
            );
            self.ask(&view).await.expect("a view");
            let query = format!("SELECT sum(events) FROM {table}");
            let begun = self.wait(&query, 1, &stopwatch).await;
            let ended = self.wait(&query, EVENTS, &stopwatch).await;
            println!(
                "ClickHouse's Kafka engine, no dedup: {ended:.1} s behind the creation of the view ({:.0} events/s), \
                 first ones behind {begun:.1} s ({:.0} events/s from there)",
                EVENTS as f64 / ended,
                EVENTS as f64 / (ended - begun).max(0.001)
            );
            self.ask(&format!("DROP DATABASE {database}")).await.expect("the end");
        }

        async fn ask(&self, query: &str) -> Result<String, String> {
            let asked = self.http.post(&self.clickhouse).body(query.to_owned()).send().await;
            let answer = asked.map_err(|error| error.to_string())?;
            let (status, text) = (answer.status(), answer.text().await.map_err(|error| error.to_string())?);
            if status.is_success() { Ok(text) } else { Err(text) }
        }

        /// Waits until a query answers with at least a number; returns the seconds on the stopwatch.
        async fn wait(&self, query: &str, number: u64, stopwatch: &Stopwatch) -> f64 {
            let mut last = String::new();
            for _ in 0..PATIENCE {
                match self.ask(query).await {
                    Ok(text) if text.trim().parse::<f64>().is_ok_and(|found| found as u64 >= number) => {
                        return stopwatch.elapsed().as_secs_f64();
                    }
                    Ok(text) | Err(text) => last = text,
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            panic!("{query} did not reach {number}: {last}");
        }
    }

    /// CPU-seconds and the most MiB that a process used.
    fn used(child: &Child) -> (f64, u64) {
        let folder = Path::new("/proc").join(child.id().to_string());
        let stat = std::fs::read_to_string(folder.join("stat")).expect("a process");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        let status = std::fs::read_to_string(folder.join("status")).expect("a process");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
        ((ticks(11) + ticks(12)) / 100.0, kib / 1_024)
    }

    fn end(child: &mut Child) {
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        assert!(child.wait().expect("an end").success());
    }
}
