//! The intake loses messages before they are read: reading goes on, and says what is gone, once.

use crate::kafka::{Producer, brokers, cut, made_anew};
use crate::nodes::{Cluster, ask, verify, wait_for};
use crate::process::{Server, bootstrap_with};
use crate::receiver::Receiver;
use serde_json::{Value, json};
use std::time::Duration;

/// A node whose intake has one partition, and who hears of gaps.
struct Stage {
    cluster: Cluster,
    brokers: String,
    key: String,
    receiver: Receiver,
    secret: String,
}

impl Stage {
    async fn new(brokers: &str) -> (Self, Server) {
        let mut cluster = Cluster::new(brokers);
        cluster.journal.push_str("&intake_partitions=1");
        let key = bootstrap_with(&cluster.data(), &cluster.arguments());
        let receiver = Receiver::start().await;
        let server = cluster.start();
        let body = json!({"url": receiver.url(), "event_types": ["ingest.gap"]});
        let (status, made) = ask(&server, &key, "POST", "/v1/webhooks", Some(body)).await;
        assert_eq!(status, 201, "{made}");
        // The log has to be at the version that has a place for gaps.
        wait_for(&server, &key, "/readyz", |ready| ready["checks"]["engine"]["control_version"] == 3).await;
        let secret = made["secret"].as_str().unwrap().to_owned();
        (Self { cluster, brokers: brokers.to_owned(), key, receiver, secret }, server)
    }

    fn topic(&self) -> String {
        format!("{}.usage", self.cluster.prefix)
    }

    async fn send(&self, messages: usize) {
        let producer = Producer::new(&self.brokers, &self.topic());
        let event = json!({"account_id": "acme", "metric": "m"}).to_string();
        for _ in 0..messages {
            producer.send(None, &[], Some(event.as_bytes())).await;
        }
    }

    /// Waits until as many events are counted, and looks whether it stays so; returns the usage.
    async fn counts(&self, server: &Server, wanted: f64) -> Value {
        let path = "/v1/accounts/acme/usage?metric=m&agg=count&window=1h";
        let count = |usage: &Value| crate::nodes::total(usage, "count");
        let mut usage = Value::Null;
        for _ in 0..900 {
            usage = ask(server, &self.key, "GET", path, None).await.1;
            if usage["items"].is_array() && count(&usage) >= wanted {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(count(&usage), wanted, "{usage:#}");
        usage
    }

    /// Waits until a gap is the newest of so many, and that it is told once.
    async fn found(&mut self, server: &Server, recorded: usize, cause: &str) -> Value {
        let path = "/readyz";
        let is_there = |ready: &Value| ready["checks"]["intake_gaps"]["recorded"] == recorded;
        let ready = wait_for(server, &self.key, path, is_there).await;
        let newest = ready["checks"]["intake_gaps"]["newest"].clone();
        assert_eq!((&newest["cause"], &newest["partition"]), (&json!(cause), &json!(0)), "{ready:#}");
        let told = self.receiver.next().await.signed_by(&self.secret);
        let (data, wanted) = (&told["data"], json!("ingest.gap"));
        assert_eq!((&told["type"], &data["id"], &data["cause"]), (&wanted, &newest["id"], &newest["cause"]), "{told}");
        assert_eq!((&data["from"], &data["to"]), (&newest["from"], &newest["to"]), "{told}");
        newest
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_removed_is_said_once_and_reading_goes_on() {
    let Some(brokers) = brokers() else { return };
    let (mut stage, server) = Stage::new(&brokers).await;
    stage.send(3).await;
    stage.counts(&server, 3.0).await;
    server.stop();
    stage.send(10).await;
    cut(&brokers, &stage.topic(), 0, 8).await;
    let server = stage.cluster.start();
    stage.counts(&server, 8.0).await;
    let gap = stage.found(&server, 1, "removed").await;
    assert_eq!((&gap["from_offset"], &gap["to_offset"]), (&json!(3), &json!(8)), "{gap}");
    assert!(gap["from"].as_str().unwrap() < gap["to"].as_str().unwrap(), "{gap}");
    let usage = stage.counts(&server, 8.0).await;
    let warning = usage["warnings"].as_array().unwrap().iter().find(|warning| warning["code"] == "intake_gap").unwrap();
    assert_eq!((&warning["since"], &warning["metric"]), (&gap["to"], &Value::Null), "{warning}");
    let before = "/v1/accounts/acme/usage?metric=m&from=2026-01-01T00:00:00Z&to=2026-01-01T01:00:00Z";
    let (_, before) = ask(&server, &stage.key, "GET", before, None).await;
    assert!(!before["warnings"].to_string().contains("intake_gap"), "{before}");
    let metrics = server.metrics().await;
    assert_eq!((metrics["highwater_intake_gaps_total"], metrics["highwater_intake_lost_messages_total"]), (1.0, 5.0));
    assert!(metrics["highwater_intake_last_gap_seconds"] > 1.7e9);
    server.stop();
    // All that was left is removed while it runs: nothing more was lost, and nothing is said. Then what comes is read on.
    let server = stage.cluster.start();
    cut(&brokers, &stage.topic(), 0, 13).await;
    stage.send(2).await;
    stage.counts(&server, 10.0).await;
    let (_, ready) = ask(&server, &stage.key, "GET", "/readyz", None).await;
    assert_eq!(ready["checks"]["intake_gaps"]["recorded"], 1, "{ready:#}");
    assert!(stage.receiver.rest().is_empty(), "a gap is told once");
    server.stop();
    verify(&stage.cluster, &stage.cluster.data());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_made_anew_is_read_from_its_beginning() {
    let Some(brokers) = brokers() else { return };
    let (mut stage, server) = Stage::new(&brokers).await;
    stage.send(3).await;
    stage.counts(&server, 3.0).await;
    // While it runs; the new topic has more messages than were read of the old one.
    made_anew(&brokers, &stage.topic()).await;
    stage.send(5).await;
    stage.counts(&server, 8.0).await;
    let (_, ready) = ask(&server, &stage.key, "GET", "/readyz", None).await;
    let cause = ready["checks"]["intake_gaps"]["newest"]["cause"].as_str().unwrap().to_owned();
    assert!(["replaced", "forgotten"].contains(&cause.as_str()), "{ready:#}");
    stage.found(&server, 1, &cause).await;
    // While it does not run: the brokers have forgotten the group's offsets along with the topic.
    server.stop();
    made_anew(&brokers, &stage.topic()).await;
    stage.send(4).await;
    let server = stage.cluster.start();
    stage.counts(&server, 12.0).await;
    stage.found(&server, 2, "forgotten").await;
    server.stop();
    assert!(stage.receiver.rest().is_empty(), "a gap is told once");
    verify(&stage.cluster, &stage.cluster.data());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_may_want_to_decide() {
    let Some(brokers) = brokers() else { return };
    let (mut stage, server) = Stage::new(&brokers).await;
    stage.send(2).await;
    stage.counts(&server, 2.0).await;
    server.stop();
    stage.send(4).await;
    cut(&brokers, &stage.topic(), 0, 5).await;
    let going_on = stage.cluster.journal.clone();
    stage.cluster.journal.push_str("&on_intake_gap=stop");
    let server = stage.cluster.start();
    stage.found(&server, 1, "removed").await;
    let is_stopped = |ready: &Value| ready["checks"]["intake_gaps"]["stopped_partitions"] == json!([0]);
    wait_for(&server, &stage.key, "/readyz", is_stopped).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    stage.counts(&server, 2.0).await;
    assert_eq!(server.metrics().await["highwater_intake_stopped_partitions"], 1.0);
    server.stop();
    stage.cluster.journal = going_on;
    let server = stage.cluster.start();
    stage.counts(&server, 3.0).await;
    let (_, ready) = ask(&server, &stage.key, "GET", "/readyz", None).await;
    let gaps = &ready["checks"]["intake_gaps"];
    assert_eq!((&gaps["recorded"], &gaps["stopped_partitions"]), (&json!(1), &json!([])), "{ready:#}");
    server.stop();
    assert!(stage.receiver.rest().is_empty(), "a gap is told once");
}
