//! The stores that the suite is asked of. A server comes from `HIGHWATER_TEST_CLICKHOUSE`; where that is not set it is
//! left out, unless `HIGHWATER_TEST_SERVICES=required` makes that a failure.

use crate::domain::id::PartitionId;
use crate::store::{Progress, ScannedRow, SqliteStore, Store};
use std::ops::ControlFlow;

/// A partition of the suite.
pub(super) const P: PartitionId = PartitionId(0);

/// A store, and what it leaves behind.
pub(super) struct Place {
    pub(super) store: Store,
    #[cfg_attr(not(feature = "clickhouse"), expect(dead_code, reason = "only a server's stores have one"))]
    address: Option<String>,
    _folder: Option<tempfile::TempDir>,
}

impl Place {
    pub(super) fn memory() -> Self {
        Self { store: Store::Sqlite(SqliteStore::in_memory().unwrap()), address: None, _folder: None }
    }

    fn file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::Sqlite(SqliteStore::open(&folder.path().join("store.db")).unwrap());
        Self { store, address: None, _folder: Some(folder) }
    }

    /// One of each.
    pub(super) fn all() -> Vec<Self> {
        let local = [Self::memory(), Self::file()].into_iter();
        #[cfg(feature = "clickhouse")]
        let local = local.chain(Self::clickhouse());
        local.collect()
    }

    /// Lets a server merge: it removes no rows else.
    pub(super) fn merging(self) -> Self {
        #[cfg(feature = "clickhouse")]
        if let Store::ClickHouse(store) = &self.store {
            store.tell("SYSTEM START MERGES").unwrap();
        }
        self
    }

    /// Asks it for everything, in an order of its own.
    pub(super) fn dump(&self) -> Vec<ScannedRow> {
        let mut rows = Vec::new();
        let scanned = self.store.scan(&mut |row| {
            rows.push(row);
            ControlFlow::Continue(())
        });
        scanned.unwrap();
        rows.sort();
        rows
    }

    pub(super) fn write(&self, effects: &crate::domain::partition::effect::Effects, up_to: u64) {
        self.store.write_blocking(P, effects.clone().into(), super::sample::progress(up_to)).unwrap();
    }

    pub(super) async fn reached(&self) -> Option<Progress> {
        self.store.progress(P).await.unwrap()
    }
}

#[cfg(feature = "clickhouse")]
mod server {
    use super::Place;
    use crate::store::{ClickHouseSettings, ClickHouseStore, Store};
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Small blocks.
    pub(in super::super) fn settings() -> ClickHouseSettings {
        ClickHouseSettings { block_rows_max: 3, ..ClickHouseSettings::default() }
    }

    #[expect(clippy::disallowed_methods, reason = "where services are is told by the environment")]
    fn server() -> Option<String> {
        let server = std::env::var("HIGHWATER_TEST_CLICKHOUSE").ok();
        let required = std::env::var("HIGHWATER_TEST_SERVICES").is_ok_and(|value| value == "required");
        assert!(server.is_some() || !required, "HIGHWATER_TEST_CLICKHOUSE is not set; scripts/services up tells it");
        server
    }

    impl Place {
        /// A database of its own, where there is a server.
        pub(in super::super) fn clickhouse() -> Option<Self> {
            static NUMBER: AtomicU64 = AtomicU64::new(0);
            let (server, number) = (server()?, NUMBER.fetch_add(1, Ordering::Relaxed));
            let address = format!("clickhouse+{server}/hw_contract_{}_{number}", std::process::id());
            let store = ClickHouseStore::open(&address, settings()).unwrap();
            // What is answered must not depend on what is merged, so nothing is.
            let tables = "SELECT concat(database, '.', name) FROM system.tables
                          WHERE database = currentDatabase() AND engine = 'ReplacingMergeTree'";
            for table in store.ask(tables).unwrap() {
                store.tell(&format!("SYSTEM STOP MERGES {table}")).unwrap();
            }
            let store = Store::ClickHouse(store);
            Some(Self { store, address: Some(address), _folder: None })
        }

        /// Another node's handle on the same database.
        pub(in super::super) fn other_node(&self, settings: ClickHouseSettings) -> ClickHouseStore {
            ClickHouseStore::open(self.address.as_ref().unwrap(), settings).unwrap()
        }

        pub(in super::super) fn address(&self) -> &str {
            self.address.as_ref().unwrap()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            if let Store::ClickHouse(store) = &self.store {
                // What a failed test leaves may be looked at.
                if !std::thread::panicking() {
                    store.drop_database().unwrap();
                }
            }
        }
    }
}

#[cfg(feature = "clickhouse")]
pub(super) use server::settings;
