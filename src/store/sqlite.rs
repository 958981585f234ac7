//! The SQLite adapter: one writer, a few readers.
//!
//! `synchronous=NORMAL` is enough: rows and position commit together, and what a power cut takes is folded again.
//! One that is opened for reading alone shows what was stored at that moment, whatever is written meanwhile.

use super::port::StoreError;
use super::query::Progress;
use super::{sqlite_read, sqlite_write};
use crate::domain::id::{PartitionId, Position};
use crate::domain::partition::effect::{Effects, SeriesKey};
use crate::sqlite_file;
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
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
    /// Whether only the writer's connection is used, which then writes nothing and holds a moment of the file.
    is_read_only: bool,
    writer: Mutex<Writer>,
    readers: Mutex<Vec<Connection>>,
    progress: watch::Sender<BTreeMap<PartitionId, Position>>,
    /// What a check of the whole file found, once some read or write met damage.
    damage: OnceLock<String>,
}

#[derive(Debug)]
struct Writer {
    /// None once the store is closed.
    connection: Option<Connection>,
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
        let positions = prepare(&connection).map_err(|error| open_error(&name, error))?;
        Self::of(name, connection, positions, false)
    }

    /// Opens a store for reading alone, as it is at this moment; the file must exist. Who writes to it goes on. There is none
    /// where the file was just made, and holds no tables yet.
    ///
    /// # Errors
    /// Where the file is of a later release, or damaged.
    pub fn open_to_read(path: &Path) -> Result<Option<Self>, StoreError> {
        let name = path.display().to_string();
        let failed = |error| open_error(&name, error);
        let connection = sqlite_file::open_to_read(path).map_err(failed)?;
        connection.execute_batch("BEGIN").map_err(failed)?;
        if sqlite_file::is_blank(&connection).map_err(failed)? {
            return Ok(None);
        }
        let format = connection.query_row("SELECT value FROM meta WHERE name = 'format'", [], |row| row.get(0));
        let positions = sqlite_read::progress(&connection).map_err(failed)?;
        let found = Prepared { format: format.map_err(failed)?, positions };
        Self::of(name, connection, found, true).map(Some)
    }

    fn of(name: String, connection: Connection, found: Prepared, is_read_only: bool) -> Result<Self, StoreError> {
        if found.format > FORMAT {
            return Err(StoreError::TooNew { found: found.format, known: FORMAT });
        }
        let positions =
            found.positions.into_iter().map(|(partition, progress)| (partition, progress.position)).collect();
        let writer = Writer { connection: Some(connection), series: hashbrown::HashMap::new() };
        let shared = Shared {
            name,
            is_read_only,
            writer: Mutex::new(writer),
            readers: Mutex::new(Vec::new()),
            progress: watch::channel(positions).0,
            damage: OnceLock::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(super) fn write(&self, partition: PartitionId, effects: &Effects, up_to: Progress) -> Result<(), StoreError> {
        let mut writer = self.shared.lock_writer();
        let Writer { connection, series } = &mut *writer;
        let connection = connection.as_mut().ok_or(StoreError::Closed)?;
        let failed = |error| self.shared.write_error(error);
        if series.len() > SERIES_KNOWN_MAX {
            series.clear();
        }
        let transaction = connection.transaction().map_err(failed)?;
        if let Err(error) = sqlite_write::write(&transaction, series, partition, effects, up_to) {
            // Series that were numbered in what is rolled back have no number.
            series.clear();
            return Err(failed(error));
        }
        transaction.commit().inspect_err(|_| series.clear()).map_err(failed)?;
        drop(writer);
        self.shared.progress.send_modify(|positions| {
            let position = positions.entry(partition).or_default();
            *position = up_to.position.max(*position);
        });
        Ok(())
    }

    /// Moves everything from the WAL into the file and closes it; blocks. Writes are refused from then on.
    pub(super) fn close(&self) {
        self.shared.readers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let Some(connection) = self.shared.lock_writer().connection.take() else { return };
        let file = &self.shared.name;
        // What stays in the WAL is no loss: the rows follow from the journal.
        match sqlite_file::checkpoint(&connection) {
            Ok(true) => {}
            Ok(false) => tracing::info!(file, "somebody reads the store: its -wal file still holds rows"),
            Err(error) => tracing::warn!(file, %error, "the store's -wal file still holds rows"),
        }
        if let Err((_, error)) = connection.close() {
            tracing::warn!(file, %error, "the store could not be closed");
        }
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
        let failed = |error| self.shared.read_error(error);
        if self.shared.is_read_only {
            let writer = self.shared.lock_writer();
            return read(writer.connection.as_ref().ok_or(StoreError::Closed)?).map_err(failed);
        }
        let pooled = self.shared.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match pooled {
            Some(connection) => connection,
            None => connect(&self.shared.name)?,
        };
        let answer = read(&connection).map_err(failed)?;
        self.shared.readers.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(answer)
    }
}

impl Shared {
    fn lock_writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a failed read is called.
    fn read_error(&self, error: rusqlite::Error) -> StoreError {
        if sqlite_file::is_damage_to_readers(&error) { self.damaged(&error) } else { failed(&error) }
    }

    /// What a failed write is called.
    fn write_error(&self, error: rusqlite::Error) -> StoreError {
        if sqlite_file::is_damage(&error) { self.damaged(&error) } else { failed(&error) }
    }

    /// Checks the whole file once: it may be large, and many reads may fail.
    fn damaged(&self, error: &rusqlite::Error) -> StoreError {
        let describe = || sqlite_file::describe_damage(Path::new(&self.name), error);
        StoreError::Damaged { path: self.name.clone(), detail: self.damage.get_or_init(describe).clone() }
    }
}

/// What is known of a store that was just opened.
struct Prepared {
    format: i64,
    positions: BTreeMap<PartitionId, Progress>,
}

/// Makes the tables where there are none.
fn prepare(connection: &Connection) -> rusqlite::Result<Prepared> {
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -65536;
         PRAGMA wal_autocheckpoint = 8000; PRAGMA temp_store = MEMORY;",
    )?;
    connection.execute_batch(SCHEMA)?;
    connection.execute("INSERT OR IGNORE INTO meta (name, value) VALUES ('format', ?1)", [FORMAT])?;
    let format = connection.query_row("SELECT value FROM meta WHERE name = 'format'", [], |row| row.get(0))?;
    if format > FORMAT {
        return Ok(Prepared { format, positions: BTreeMap::new() });
    }
    let indexes = "INSERT OR IGNORE INTO meta (name, value) VALUES ('incidents', 1)";
    if connection.execute(indexes, [])? > 0 {
        super::sqlite_incidents::note_all(connection)?;
    }
    Ok(Prepared { format, positions: sqlite_read::progress(connection)? })
}

fn connect(name: &str) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let failed = |error| open_error(name, error);
    let connection = Connection::open_with_flags(name, flags).map_err(failed)?;
    connection.busy_timeout(std::time::Duration::from_secs(10)).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// What a file that does not open is called.
fn open_error(name: &str, error: rusqlite::Error) -> StoreError {
    if sqlite_file::is_damage_to_readers(&error) {
        let detail = sqlite_file::describe_damage(Path::new(name), &error);
        return StoreError::Damaged { path: name.to_owned(), detail };
    }
    failed(&error)
}

fn failed(error: &rusqlite::Error) -> StoreError {
    StoreError::Storage { detail: error.to_string() }
}
