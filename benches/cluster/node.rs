//! A node, as a process.

use highwater::runtime::clock::Stopwatch;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(10);
/// Between two looks at the metrics of a node that works: each costs it something.
const LOOK: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(120);

/// Where everything of a cluster is.
pub(super) struct Cluster {
    pub(super) folder: PathBuf,
    pub(super) journal: String,
    pub(super) store: String,
    http: reqwest::Client,
}

impl Cluster {
    /// A cluster of which nothing runs yet, with a master key.
    pub(super) fn new(folder: &Path, journal: String, store: String) -> Self {
        std::fs::write(folder.join("master.key"), "ab".repeat(32)).expect("a key");
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { folder: folder.to_owned(), journal, store, http }
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
        let folder = |name: &str| self.folder.join(name);
        command.arg(name).args(["--journal", &self.journal, "--store", &self.store]);
        command.arg("--master-key-file").arg(folder("master.key"));
        command.arg("--data").arg(folder("node")).arg("--snapshots").arg(folder("snapshots"));
        command
    }

    /// Makes the first key.
    pub(super) fn bootstrap(&self) -> String {
        let output = self.command("bootstrap").args(["--rate-limit", "0"]).output().expect("bootstrap runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stdout).expect("text");
        said.split_whitespace().find(|word| word.starts_with("pk_live_")).expect("a key").to_owned()
    }

    /// Starts a node, with a stopwatch that runs since then.
    pub(super) fn serve(&self) -> (Node, Stopwatch) {
        let log = self.folder.join("node.log");
        let mut command = self.command("serve");
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--allow-target", "127.0.0.0/8"]);
        command.args(["--rate-limit", "0", "--ingest-rate-limit", "0"]);
        command.stdout(Stdio::null()).stderr(std::fs::File::create(&log).expect("a log"));
        let stopwatch = Stopwatch::start();
        let child = command.spawn().expect("serve runs");
        (Node { child, log, http: self.http.clone() }, stopwatch)
    }
}

/// A node that serves. It is killed when it is dropped.
pub(super) struct Node {
    child: Child,
    log: PathBuf,
    pub(super) http: reqwest::Client,
}

impl Node {
    /// Waits until the node says where it serves.
    pub(super) async fn address(&self) -> SocketAddr {
        let stopwatch = Stopwatch::start();
        while stopwatch.elapsed() < PATIENCE {
            let said = std::fs::read_to_string(&self.log).expect("a log");
            let address = said.split_once("serving http://").and_then(|(_, rest)| rest.split_whitespace().next());
            if let Some(address) = address {
                return address.parse().expect("an address");
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("the node does not serve: {}", std::fs::read_to_string(&self.log).expect("a log"));
    }

    /// Waits until the node has counted a number of events since it began, and its store has all that came of them. It is
    /// asked and not the engine, to which that would be work.
    pub(super) async fn stored(&self, events: u64) {
        self.address().await;
        let said = std::fs::read_to_string(&self.log).expect("a log");
        let (_, rest) = said.split_once("metrics http").expect("the address of the metrics");
        let url = format!("http{}", rest.split_whitespace().next().expect("an address"));
        let stopwatch = Stopwatch::start();
        while stopwatch.elapsed() < PATIENCE {
            let text = self.http.get(&url).send().await.expect("an answer").text().await.expect("a body");
            let read = |name: &str| -> f64 {
                let samples = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit(' ').next());
                samples.map(|number| number.parse::<f64>().expect("a number")).sum()
            };
            let counted = read("highwater_events_folded_total{result=\"counted\"}");
            if counted >= events as f64 && read("highwater_store_lag_records{") == 0.0 {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
        panic!("the node did not store what {events} events make");
    }

    /// Waits until the node folds a number of partitions and no record waits for any of them.
    pub(super) async fn caught_up(&self, partitions: usize) {
        let url = format!("http://{}/readyz", self.address().await);
        let stopwatch = Stopwatch::start();
        let mut last = Value::Null;
        while stopwatch.elapsed() < PATIENCE {
            let answer = self.http.get(&url).send().await.expect("an answer").text().await.expect("a body");
            last = serde_json::from_str(&answer).expect("JSON");
            let folds = last["checks"]["folds"].as_object().expect("folds");
            if folds.len() == partitions && folds.values().all(|fold| fold["lag_records"] == 0) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("the node did not catch up: {last}");
    }

    /// CPU-seconds and the most MiB that the process used.
    pub(super) fn used(&self) -> (f64, u64) {
        let child = &self.child;
        let folder = Path::new("/proc").join(child.id().to_string());
        let stat = std::fs::read_to_string(folder.join("stat")).expect("a process");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        let status = std::fs::read_to_string(folder.join("status")).expect("a process");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
        ((ticks(11) + ticks(12)) / 100.0, kib / 1_024)
    }

    /// Ends the node in order.
    pub(super) fn end(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        assert!(self.child.wait().expect("an end").success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
