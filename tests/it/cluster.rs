//! The node on Kafka: the journal in topics, and services that produce straight into the intake.

use crate::kafka::{Producer, brokers, fresh_name};
use crate::process::{Server, bootstrap_with, call, highwater};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

struct Cluster {
    folder: tempfile::TempDir,
    prefix: String,
    journal: String,
    key_file: PathBuf,
}

impl Cluster {
    fn new(brokers: &str) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let folder = tempfile::tempdir().unwrap();
        let prefix = fresh_name("cluster");
        let journal = format!("kafka://{brokers}?partitions=4&prefix={prefix}");
        let key_file = folder.path().join("master.key");
        std::fs::write(&key_file, "ab".repeat(32)).unwrap();
        Self { folder, prefix, journal, key_file }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("node")
    }

    fn arguments(&self) -> Vec<&str> {
        vec!["--journal", &self.journal, "--master-key-file", self.key_file.to_str().unwrap()]
    }

    fn start(&self) -> Server {
        Server::start_with(&self.data(), &self.arguments())
    }
}

async fn ask(server: &Server, key: &str, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    call(&http, (method, &format!("{}{path}", server.base), key), body.as_ref()).await.unwrap()
}

/// Asks until the answer fits.
async fn wait_for(server: &Server, key: &str, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..600 {
        let (status, answer) = ask(server, key, "GET", path, None).await;
        if status == 200 && fits(&answer) {
            return answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{path}: {:?}", ask(server, key, "GET", path, None).await);
}

fn total(usage: &Value, name: &str) -> f64 {
    usage["items"].as_array().unwrap().iter().map(|item| item[name].as_f64().unwrap_or(0.0)).sum()
}

fn verify(cluster: &Cluster, data: &Path) {
    let verified = highwater(&[&["verify", "--data", data.to_str().unwrap()], &cluster.arguments()[..]].concat());
    let said = [verified.stdout, verified.stderr].concat();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_services_produce_is_counted_or_set_aside() {
    let Some(brokers) = brokers() else { return };
    let cluster = Cluster::new(&brokers);
    let key = bootstrap_with(&cluster.data(), &cluster.arguments());
    let server = cluster.start();
    let intake = Producer::new(&brokers, &format!("{}.usage", cluster.prefix));
    let native = json!({"account_id": "acme", "metric": "m", "value": 1}).to_string();
    // No id: each message is an event of its own.
    intake.send(None, &[], Some(native.as_bytes())).await;
    intake.send(Some("any key"), &[("unknown", "header")], Some(native.as_bytes())).await;
    let with_id = json!({"account_id": "acme", "metric": "m", "value": 10, "id": "e1"}).to_string();
    for _ in 0..3 {
        intake.send(Some("acme"), &[], Some(with_id.as_bytes())).await;
    }
    let structured = json!({"specversion": "1.0", "id": "c1", "source": "s", "type": "m", "subject": "acme",
        "data": {"value": 100}});
    intake
        .send(None, &[("content-type", "application/cloudevents+json")], Some(structured.to_string().as_bytes()))
        .await;
    let binary =
        [("ce_specversion", "1.0"), ("ce_id", "100%"), ("ce_source", "s"), ("ce_type", "m"), ("ce_subject", "acme")];
    intake.send(None, &binary, Some(br#"{"value": 1000}"#)).await;
    // What cannot be counted.
    intake.send(Some("acme"), &[], None).await;
    intake.send(None, &[], Some(b"")).await;
    intake.send(None, &[], Some(b"\xff\xfe garbage")).await;
    intake.send(None, &[], Some(&vec![b'x'; 1_000_000])).await;
    intake.send(None, &[("hw-workspace", "ws_nobody")], Some(native.as_bytes())).await;
    intake.send(None, &[], Some(br#"{"account_id":"acme","metric":"m","timestamp":"2001-01-01T00:00:00Z"}"#)).await;
    intake.send(None, &[], Some(br#"{"account_id":"acme","metric":"m","extra":1}"#)).await;
    // And the partition goes on.
    intake.send(None, &[], Some(native.as_bytes())).await;
    let usage = "/v1/accounts/acme/usage?window=1h&metric=m";
    let counted = wait_for(&server, &key, usage, |usage| total(usage, "value") >= 1_113.0).await;
    assert_eq!((total(&counted, "count"), total(&counted, "value")), (6.0, 1_113.0), "{counted}");
    let aside =
        wait_for(&server, &key, "/v1/quarantine?page_size=100", |list| list["items"].as_array().unwrap().len() >= 7)
            .await;
    let mut codes: Vec<&str> = aside["items"].as_array().unwrap().iter().map(|e| e["code"].as_str().unwrap()).collect();
    codes.sort_unstable();
    let wanted = [
        "event_too_large",
        "invalid_event",
        "invalid_event",
        "invalid_event",
        "malformed_json",
        "timestamp_too_old",
        "unknown_field",
    ];
    assert_eq!(codes, wanted, "{aside:#}");
    let old = aside["items"].as_array().unwrap().iter().find(|entry| entry["code"] == "timestamp_too_old").unwrap();
    let path = format!("/v1/quarantine/{}/replay", old["id"].as_str().unwrap());
    let (status, replayed) = ask(&server, &key, "POST", &path, Some(json!({"accept_late": true}))).await;
    assert_eq!((status, &replayed["status"]), (200, &json!("replayed")), "{replayed}");
    server.stop();
    verify(&cluster, &cluster.data());
    // A restart reads nothing of the intake twice.
    let server = cluster.start();
    intake.send(None, &[], Some(native.as_bytes())).await;
    let counted = wait_for(&server, &key, usage, |usage| total(usage, "value") >= 1_114.0).await;
    assert_eq!(total(&counted, "count"), 7.0, "{counted}");
    server.stop();
}
