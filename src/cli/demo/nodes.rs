//! Nodes of a cluster, each a process of this binary with a data folder and a log of its own.

use super::client::Client;
use anyhow::{Context, bail};
use reqwest::Method;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a node may take to serve, and to get its share of the partitions.
const PATIENCE_TRIES: usize = 600;
const PAUSE: Duration = Duration::from_millis(100);

/// What every node of the cluster is given.
pub(super) struct Shared {
    pub(super) folder: PathBuf,
    pub(super) journal: String,
    pub(super) store: String,
    pub(super) snapshots: PathBuf,
    pub(super) master_key_file: PathBuf,
    pub(super) key: String,
}

/// A node that serves. It is killed when it is dropped, which it survives.
pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) client: Client,
    child: Child,
}

impl Node {
    /// Starts one, and waits until it serves.
    pub(super) async fn start(name: &'static str, shared: &Shared) -> anyhow::Result<Self> {
        let log = shared.folder.join(format!("{name}.log"));
        let child = Command::new(std::env::current_exe().context("find this binary")?)
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--allow-target", "127.0.0.0/8"])
            .args(["--log-format", "json", "--journal", &shared.journal, "--store", &shared.store])
            .arg("--data")
            .arg(shared.folder.join(name))
            .arg("--snapshots")
            .arg(&shared.snapshots)
            .arg("--master-key-file")
            .arg(&shared.master_key_file)
            .stderr(Stdio::from(File::create(&log)?))
            .spawn()
            .context("start a node")?;
        // From here on the process ends with the value, also where it never serves.
        let client = Client::new(SocketAddr::from(([127, 0, 0, 1], 0)), &shared.key)?;
        let mut node = Self { name, client, child };
        let address = node.address(&log).await?;
        node.client = Client::new(address, &shared.key)?;
        Ok(node)
    }

    /// Waits until the log says where the node serves.
    async fn address(&mut self, log: &Path) -> anyhow::Result<SocketAddr> {
        for _ in 0..PATIENCE_TRIES {
            let said = std::fs::read_to_string(log)?;
            let address = said.split_once("serving http://").and_then(|(_, rest)| rest.split_whitespace().next());
            if let Some(address) = address {
                return Ok(address.parse()?);
            }
            if self.child.try_wait()?.is_some() {
                bail!("{} did not start:\n{said}", self.name);
            }
            tokio::time::sleep(PAUSE).await;
        }
        bail!("{} does not serve; its log is {}", self.name, log.display())
    }

    /// The number of the process.
    pub(super) fn process(&self) -> u32 {
        self.child.id()
    }

    /// The partitions that the node folds, by name.
    pub(super) async fn folds(&self) -> anyhow::Result<Vec<String>> {
        let ready = self.client.call(Method::GET, "/readyz", None).await?;
        Ok(ready["checks"]["folds"].as_object().map(|folds| folds.keys().cloned().collect()).unwrap_or_default())
    }

    /// Kills the process as a power cut would: it learns nothing of it.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("kill a node")?;
        self.child.wait().map(drop).context("wait for a killed node")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits until each of the nodes folds something, and all of them everything.
pub(super) async fn wait_until_shared(nodes: &[&Node], partitions: usize) -> anyhow::Result<()> {
    for _ in 0..PATIENCE_TRIES {
        let mut counts = Vec::new();
        for node in nodes {
            counts.push(node.folds().await?.len());
        }
        if counts.iter().all(|count| *count > 0) && counts.iter().sum::<usize>() == partitions {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    bail!("the partitions were not shared out")
}
