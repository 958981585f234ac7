//! The ClickHouse store while its server is broken: whatever happens, what is stored in the end is what was handed over,
//! once. The server comes from `HIGHWATER_TEST_CLICKHOUSE`; one that is to be killed is started by `scripts/services`.

use crate::proxy::{Fault, Proxy};
use crate::services::{Own, Service};
use highwater::domain::id::{AccountId, Epoch, MetricName, Mode, PartitionId, Position, Tenant, WorkspaceId};
use highwater::domain::partition::aggregate::Aggregate;
use highwater::domain::partition::effect::{AccountRow, Effects, SeriesKey, WindowRow};
use highwater::domain::quantity::Quantity;
use highwater::domain::time::{Timestamp, WINDOW};
use highwater::runtime::writer::Writer;
use highwater::store::{ClickHouseSettings, ClickHouseStore, Progress, ScannedRow, SqliteStore, Store};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

const P: PartitionId = PartitionId(0);
const BATCHES: u64 = 30;
const ROWS: u64 = 300;
const PATIENCE: Duration = Duration::from_secs(60);

#[expect(clippy::disallowed_methods, reason = "where services are is told by the environment")]
fn server() -> Option<SocketAddr> {
    let server = std::env::var("HIGHWATER_TEST_CLICKHOUSE").ok();
    let required = std::env::var("HIGHWATER_TEST_SERVICES").is_ok_and(|value| value == "required");
    assert!(server.is_some() || !required, "HIGHWATER_TEST_CLICKHOUSE is not set; scripts/services up tells it");
    server.map(|url| url.trim_start_matches("http://").parse().unwrap())
}

/// A database behind a proxy, and the store that should equal it.
struct Broken {
    proxy: Proxy,
    store: Store,
    expected: Store,
    server: SocketAddr,
    database: String,
}

impl Broken {
    fn before(server: SocketAddr, name: &str) -> Self {
        let (proxy, database) = (Proxy::before(server), format!("hw_broken_{}_{name}", std::process::id()));
        let settings = ClickHouseSettings {
            insert_timeout: Duration::from_secs(2),
            query_timeout: Duration::from_secs(10),
            ..ClickHouseSettings::default()
        };
        let address = format!("clickhouse+http://{}/{database}", proxy.address);
        let store = Store::ClickHouse(ClickHouseStore::open(&address, settings).unwrap());
        let expected = Store::Sqlite(SqliteStore::in_memory().unwrap());
        let broken = Self { proxy, store, expected, server, database };
        for store in [&broken.store, &broken.expected] {
            store
                .write_blocking(P, Effects { accounts: vec![account()], ..Effects::default() }.into(), progress(1))
                .unwrap();
        }
        broken
    }

    /// Hands effects to a writer one by one, and breaks what `during` breaks when a batch's turn comes; then everything
    /// must be stored.
    fn run(&self, mut during: impl FnMut(u64, &Writer)) {
        let writer = Writer::start(P, 1, self.store.clone()).unwrap();
        for batch in 2..BATCHES {
            during(batch, &writer);
            self.expected.write_blocking(P, effects(batch).into(), progress(batch)).unwrap();
            writer.push(effects(batch), progress(batch));
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(writer.drain(PATIENCE), "not everything was stored");
        assert!(!writer.is_degraded());
        writer.stop();
    }

    fn check(self) {
        self.proxy.set(Fault::None);
        let (stored, expected) = (rows(&self.store), rows(&self.expected));
        assert_eq!(stored.len(), expected.len());
        assert!(stored == expected, "rows differ");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let position = |store: &Store| runtime.block_on(store.progress(P)).unwrap();
        assert_eq!(position(&self.store), position(&self.expected));
        // Each window's newest row counts, however often it was tried.
        let wanted: u64 = (0..ROWS).map(|n| newest(n, BATCHES - 1)).sum();
        let counted = runtime.block_on(ask(self.server, &self.database, "SELECT sum(events) FROM usage_5m"));
        assert_eq!(counted, wanted.to_string());
        let drop = format!("DROP DATABASE {}", self.database);
        assert_eq!(runtime.block_on(ask(self.server, "default", &drop)), "");
    }
}

async fn ask(server: SocketAddr, database: &str, sql: &str) -> String {
    std::mem::drop(rustls::crypto::ring::default_provider().install_default());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{server}/?database={database}");
    client.post(url).body(sql.to_owned()).send().await.unwrap().text().await.unwrap().trim().to_owned()
}

fn rows(store: &Store) -> Vec<ScannedRow> {
    let mut rows = Vec::new();
    let scanned = store.scan(&mut |row| {
        rows.push(row);
        ControlFlow::Continue(())
    });
    scanned.unwrap();
    rows.sort();
    rows
}

fn progress(batch: u64) -> Progress {
    Progress { position: Position(batch), clock: Timestamp(1_700_000_000_000 + batch.cast_signed()) }
}

fn tenant() -> Tenant {
    Tenant { workspace: WorkspaceId(7), mode: Mode::Live }
}

fn account() -> AccountRow {
    AccountRow {
        tenant: tenant(),
        epoch: Epoch(0),
        account: AccountId::new("acme").unwrap(),
        first_seen_at: Timestamp(1_700_000_000_000),
        revision: Position(1),
    }
}

/// The last batch up to `batch` that changes window `n`.
fn newest(n: u64, batch: u64) -> u64 {
    (2..=batch).rev().find(|batch| changes(n, *batch)).unwrap_or(0)
}

fn changes(n: u64, batch: u64) -> bool {
    batch < 4 || (n + batch).is_multiple_of(3)
}

/// A window that changed in batch `b` holds `b` events.
fn effects(batch: u64) -> Effects {
    let window = |n: u64| {
        let start = Timestamp(1_700_000_100_000 + n.cast_signed() * WINDOW.0);
        let mut aggregate = Aggregate::default();
        for event in 0..batch.cast_signed() {
            aggregate.add(Quantity::whole(event), start);
        }
        WindowRow {
            series: SeriesKey {
                tenant: tenant(),
                epoch: Epoch(0),
                account: AccountId::new("acme").unwrap(),
                metric: MetricName::new("api.requests").unwrap(),
                group: String::new(),
            },
            start,
            part: Position(2),
            aggregate,
            late_events: 0,
            revision: Position(batch),
        }
    };
    Effects { windows: (0..ROWS).filter(|n| changes(*n, batch)).map(window).collect(), ..Effects::default() }
}

fn every_insert_fails(every: u32, name: &str) {
    let Some(server) = server() else { return };
    let broken = Broken::before(server, name);
    broken.proxy.set(Fault::InsertFails(every));
    broken.run(|_, _| {});
    assert!(broken.proxy.failed() > 0);
    broken.check();
}

#[test]
fn every_third_insert_fails() {
    every_insert_fails(3, "third");
}

/// A write has two inserts at least: the second fails each time that it begins anew.
#[test]
fn every_second_insert_fails() {
    every_insert_fails(2, "second");
}

#[test]
fn inserts_are_cut_in_the_middle_and_answers_get_lost() {
    let Some(server) = server() else { return };
    let broken = Broken::before(server, "cut");
    broken.run(|batch, _| match batch {
        3 => broken.proxy.set(Fault::Cut(3)),
        15 => broken.proxy.set(Fault::Deaf(3)),
        _ => {}
    });
    assert_eq!(broken.proxy.failed(), 6);
    broken.check();
}

#[test]
fn the_server_is_slow_and_then_too_slow() {
    let Some(server) = server() else { return };
    let broken = Broken::before(server, "slow");
    broken.run(|batch, _| match batch {
        3 => broken.proxy.set(Fault::Slow(Duration::from_millis(100))),
        15 => broken.proxy.set(Fault::Slow(Duration::from_secs(3))),
        // Longer than an insert may take: nothing is stored until it is over.
        25 => {
            std::thread::sleep(Duration::from_secs(3));
            broken.proxy.set(Fault::None);
        }
        _ => {}
    });
    broken.check();
}

#[test]
fn a_server_in_trouble_is_not_hammered() {
    let Some(server) = server() else { return };
    let broken = Broken::before(server, "hammered");
    broken.run(|batch, writer| match batch {
        3 => broken.proxy.set(Fault::DiskFull),
        25 => {
            // Rows come all the while; each of them must not be another attempt.
            assert!(writer.is_degraded());
            assert!((1..=12).contains(&broken.proxy.failed()), "{} attempts", broken.proxy.failed());
            broken.proxy.set(Fault::None);
        }
        _ => {}
    });
    broken.check();
}

/// Waits a little where something is not so yet.
fn pause_until(so: bool) -> bool {
    if !so {
        std::thread::sleep(Duration::from_millis(100));
    }
    so
}

#[test]
fn the_server_is_killed_and_starts_again() {
    if server().is_none() {
        return;
    }
    let own = Own::start(Service::ClickHouse);
    let server = own.address.parse().unwrap();
    let broken = Broken::before(server, "killed");
    let before = rows(&broken.store).len();
    broken.run(|batch, writer| match batch {
        8 | 20 => own.kill(),
        14 => {
            assert!(
                (0..100).any(|_| pause_until(writer.is_degraded())),
                "the writer hears of it; what is pushed waits"
            );
            own.restart();
        }
        26 => own.restart(),
        _ => {}
    });
    assert_eq!(before, 1);
    broken.check();
}
