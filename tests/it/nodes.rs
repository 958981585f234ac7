//! A cluster's nodes as processes: what they share, and what a node is asked.

use crate::kafka::fresh_name;
use crate::process::{Server, call, highwater};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) struct Cluster {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) prefix: String,
    pub(crate) journal: String,
    pub(crate) key_file: String,
    /// Where many nodes keep what they share.
    pub(crate) shared: Option<(String, String)>,
}

/// Where the ClickHouse of the tests is.
#[expect(clippy::disallowed_methods, reason = "where the services of a test are is no configuration of the product")]
pub(crate) fn clickhouse() -> Option<String> {
    let named = std::env::var("HIGHWATER_TEST_CLICKHOUSE").ok();
    let required = std::env::var("HIGHWATER_TEST_SERVICES").is_ok_and(|value| value == "required");
    assert!(named.is_some() || !required, "HIGHWATER_TEST_CLICKHOUSE is not set; scripts/services up starts an engine");
    named
}

impl Cluster {
    pub(crate) fn new(brokers: &str) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let folder = tempfile::tempdir().unwrap();
        let prefix = fresh_name("cluster");
        let journal = format!("kafka://{brokers}?partitions=4&prefix={prefix}");
        let key_file = folder.path().join("master.key");
        std::fs::write(&key_file, "ab".repeat(32)).unwrap();
        Self { folder, prefix, journal, key_file: key_file.to_str().unwrap().to_owned(), shared: None }
    }

    /// A cluster whose nodes share a database and a folder of snapshots.
    pub(crate) fn of_many(brokers: &str, clickhouse: &str) -> Self {
        let mut cluster = Self::new(brokers);
        let store = format!("clickhouse+{clickhouse}/{}", fresh_name("hw").replace('-', "_"));
        let snapshots = cluster.folder.path().join("snapshots").to_str().unwrap().to_owned();
        cluster.shared = Some((store, snapshots));
        cluster
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder_of("node")
    }

    pub(crate) fn folder_of(&self, node: &str) -> PathBuf {
        self.folder.path().join(node)
    }

    pub(crate) fn arguments(&self) -> Vec<&str> {
        let mut arguments = vec!["--journal", &self.journal, "--master-key-file", &self.key_file];
        if let Some((store, snapshots)) = &self.shared {
            arguments.extend(["--store", store, "--snapshots", snapshots]);
        }
        arguments
    }

    pub(crate) fn start(&self) -> Server {
        self.start_node("node")
    }

    pub(crate) fn start_node(&self, node: &str) -> Server {
        Server::start_with(&self.folder_of(node), &self.arguments())
    }
}

pub(crate) async fn ask(server: &Server, key: &str, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    call(&http, (method, &format!("{}{path}", server.base), key), body.as_ref()).await.unwrap()
}

/// Asks until the answer fits.
pub(crate) async fn wait_for(server: &Server, key: &str, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..600 {
        let (status, answer) = ask(server, key, "GET", path, None).await;
        if status == 200 && fits(&answer) {
            return answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{path}: {:?}", ask(server, key, "GET", path, None).await);
}

pub(crate) fn total(usage: &Value, name: &str) -> f64 {
    usage["items"].as_array().unwrap().iter().map(|item| item[name].as_f64().unwrap_or(0.0)).sum()
}

pub(crate) fn verify(cluster: &Cluster, data: &Path) {
    let verified = highwater(&[&["verify", "--data", data.to_str().unwrap()], &cluster.arguments()[..]].concat());
    let said = [verified.stdout, verified.stderr].concat();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// How many partitions a node holds, as it says itself.
pub(crate) async fn held(server: &Server, key: &str) -> usize {
    let (_, ready) = ask(server, key, "GET", "/readyz", None).await;
    ready["checks"]["folds"].as_object().map_or(0, serde_json::Map::len)
}

pub(crate) async fn wait_until_held(servers: &[&Server], key: &str, fits: impl Fn(&[usize]) -> bool) {
    for _ in 0..600 {
        let mut counts = Vec::new();
        for server in servers {
            counts.push(held(server, key).await);
        }
        if fits(&counts) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the partitions were not shared out");
}
