//! What becomes of a cluster while a broker, a database or a node is broken: nothing that was accepted is lost, nothing
//! counts twice, every transition happens once and every page has one id. Each test prints a row of a table; `make faults`
//! runs the long variants and prints all of it.

mod broker;
mod gap;
mod nodes;
mod store;
mod table;

use crate::load::{Aim, Ledger, Random, Watched, check_alerts, recover, send, set_up, settle, tally};
use crate::nodes::{Cluster, verify, wait_until_held};
use crate::process::{Receiver, Server, bootstrap_with};
use highwater::domain::time::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use table::{Recovery, Row};
use tokio::task::JoinHandle;

/// A quota whose thresholds are passed before, during and after what goes wrong.
const QUOTA: i64 = 30_000;
const PACE: Duration = Duration::from_millis(40);
/// How long a cluster is under load before it is broken, and behind it.
const CALM: Duration = Duration::from_secs(3);

/// A short variant runs among all tests, the long one for the table.
#[expect(clippy::disallowed_methods, reason = "how long a test runs is no configuration of the product")]
fn rounds(short: u64, long: u64) -> u64 {
    if std::env::var("HIGHWATER_TEST_FAULTS").is_ok_and(|value| value == "long") { long } else { short }
}

/// A cluster under load.
struct Stage {
    cluster: Cluster,
    key: String,
    receiver: Receiver,
    watched: Watched,
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    senders: Vec<JoinHandle<()>>,
}

impl Stage {
    fn new(brokers: &str, clickhouse: &str, receiver: Receiver) -> Self {
        let cluster = Cluster::of_many(brokers, clickhouse);
        let key = bootstrap_with(&cluster.data(), &cluster.arguments());
        Self {
            cluster,
            key,
            receiver,
            watched: Watched::default(),
            ledger: Arc::default(),
            stop: Arc::default(),
            senders: Vec::new(),
        }
    }

    /// Two nodes that share the partitions.
    async fn pair(&self) -> (Server, Server) {
        let (first, second) = (self.cluster.start_node("first"), self.cluster.start_node("second"));
        wait_until_held(&[&first, &second], &self.key, |counts| counts == [2, 2]).await;
        (first, second)
    }

    /// Makes alerts and begins to send, one sender to each list of nodes; returns behind a calm.
    async fn load(&mut self, aims: &[&[&Server]]) {
        self.watched = set_up(&aims[0][0].base, &self.key, &self.receiver, QUOTA).await;
        for (number, servers) in (1..).zip(aims) {
            let aim = Aim {
                bases: servers.iter().map(|server| server.base.clone()).collect(),
                key: self.key.clone(),
                pace: PACE,
                ends: false,
                stop: Arc::clone(&self.stop),
            };
            self.senders.push(tokio::spawn(send(Arc::clone(&self.ledger), aim, Random(number))));
        }
        // A busy machine may take its time to begin.
        for _ in 0..600 {
            if self.accepted() > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(CALM).await;
        assert!(self.accepted() > 0);
    }

    fn accepted(&self) -> u64 {
        self.ledger.counted.lock().unwrap().values().map(|(count, _)| count).sum()
    }

    /// Waits until what is sent to each of these nodes from here on is counted.
    async fn recovers(&self, servers: &[&Server], since: Timestamp) -> Recovery {
        let each = servers.iter().map(|server| recover(&self.ledger, &server.base, &self.key));
        let each = futures::future::join_all(each).await;
        let span = |at: Timestamp| Duration::from_millis(at.since(since).0.unsigned_abs());
        Recovery {
            accepting: each.iter().map(|recovered| span(recovered.accepting)).max().unwrap(),
            counting: each.iter().map(|recovered| span(recovered.counting)).max().unwrap(),
        }
    }

    /// Ends the load behind a calm, counts everything, and lets `verify` compare every row with the logs.
    async fn check(mut self, row: Row, others: Vec<Server>, last: Server) {
        tokio::time::sleep(CALM).await;
        self.stop.store(true, Ordering::Relaxed);
        for sender in self.senders.drain(..) {
            sender.await.unwrap();
        }
        let again = self.ledger.retries.load(Ordering::Relaxed);
        others.into_iter().for_each(Server::stop);
        settle(&self.ledger, &last.base, &self.key).await;
        let tally = tally(&self.ledger, &last.base, &self.key).await;
        check_alerts(&self.ledger, (&last.base, &self.key), &self.watched, &self.receiver).await;
        last.stop();
        verify(&self.cluster, &self.cluster.data());
        let pages: Vec<usize> = self.receiver.deliveries.lock().unwrap().values().map(Vec::len).collect();
        assert!(!pages.is_empty());
        row.print(self.accepted(), again, &tally, &pages);
        assert_eq!((tally.lost, tally.doubled), (0, 0));
        assert_eq!(tally.counted, self.accepted());
    }
}

/// Something that blocks, away from the senders.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}
