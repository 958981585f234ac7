//! The SQLite adapter: one writer, a few readers.
//!
//! `synchronous=NORMAL` is enough: rows and position commit together, and what a power cut takes is folded again.

use super::port::StoreError;
use super::query::Progress;
use super::{sqlite_read, sqlite_write};
use crate::domain::id::{PartitionId, Position};
use crate::domain::partition::effect::{Effects, SeriesKey};
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

const FORMAT: i64 = 1;
const SCHEMA: &str = include_str!("../../schemas/sqlite/store.sql");
/// Series whose number is remembered by the writer.
const SERIES_KNOWN_MAX: usize = 1_000_000;

/// Read models in a SQLite file.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    writer: Mutex<Writer>,
    readers: Mutex<Vec<Connection>>,
    progress: watch::Sender<BTreeMap<PartitionId, Position>>,
}

#[derive(Debug)]
struct Writer {
    connection: Connection,
    series: hashbrown::HashMap<SeriesKey, i64>,
}

impl SqliteStore {
    /// Opens a store, made where there is none.
    ///
    /// # Errors
    /// Where the file is of a later release or cannot be used.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::with_name(path.display().to_string())
    }

    /// Makes a store in memory, for tests and for comparing.
    ///
    /// # Errors
    /// Where SQLite refuses.
    pub fn in_memory() -> Result<Self, StoreError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self::with_name(format!("file:store-{number}?mode=memory&cache=shared"))
    }

    fn with_name(name: String) -> Result<Self, StoreError> {
        let connection = connect(&name)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -65536;
             PRAGMA wal_autocheckpoint = 8000; PRAGMA temp_store = MEMORY;",
        )?;
        connection.execute_batch(SCHEMA)?;
        connection.execute("INSERT OR IGNORE INTO meta (name, value) VALUES ('format', ?1)", [FORMAT])?;
        let found = connection.query_row("SELECT value FROM meta WHERE name = 'format'", [], |row| row.get(0))?;
        if found > FORMAT {
            return Err(StoreError::TooNew { found, known: FORMAT });
        }
        let indexes = "INSERT OR IGNORE INTO meta (name, value) VALUES ('incidents', 1)";
        if connection.execute(indexes, [])? > 0 {
            super::sqlite_incidents::note_all(&connection)?;
        }
        let positions = sqlite_read::progress(&connection)?;
        let positions = positions.into_iter().map(|(partition, progress)| (partition, progress.position)).collect();
        let writer = Writer { connection, series: hashbrown::HashMap::new() };
        let shared = Shared {
            name,
            writer: Mutex::new(writer),
            readers: Mutex::new(Vec::new()),
            progress: watch::channel(positions).0,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(super) fn write(&self, partition: PartitionId, effects: &Effects, up_to: Progress) -> Result<(), StoreError> {
        let mut writer = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Writer { connection, series } = &mut *writer;
        if series.len() > SERIES_KNOWN_MAX {
            series.clear();
        }
        let transaction = connection.transaction()?;
        if let Err(error) = sqlite_write::write(&transaction, series, partition, effects, up_to) {
            // Series that were numbered in what is rolled back have no number.
            series.clear();
            return Err(error.into());
        }
        transaction.commit().inspect_err(|_| series.clear())?;
        drop(writer);
        self.shared.progress.send_modify(|positions| {
            let position = positions.entry(partition).or_default();
            *position = up_to.position.max(*position);
        });
        Ok(())
    }

    pub(super) async fn wait_for(&self, partition: PartitionId, position: Position) {
        let mut progress = self.shared.progress.subscribe();
        let reached = |positions: &BTreeMap<PartitionId, Position>| {
            position == Position::START || positions.get(&partition).is_some_and(|stored| *stored >= position)
        };
        // The sender lives as long as this handle.
        if progress.wait_for(reached).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        let answer = tokio::task::spawn_blocking(move || store.read_blocking(read)).await;
        answer.unwrap_or_else(|error| Err(StoreError::Storage { detail: error.to_string() }))
    }

    pub(super) fn read_blocking<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let pooled = self.shared.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match pooled {
            Some(connection) => connection,
            None => connect(&self.shared.name)?,
        };
        let answer = read(&connection)?;
        self.shared.readers.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(answer)
    }
}

fn connect(name: &str) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(name, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}
