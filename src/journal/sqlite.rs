//! The SQLite adapter: one writer thread with group commit, readers on connections of their own.
//!
//! Whatever waits goes into one transaction and one fsync (WAL, `synchronous=FULL`). Rows are chained by checksum per log,
//! so a torn, changed or missing row is found when it is read; the end of every log is checked when the file is opened.

use super::chain::{link, log, number};
use super::port::{AppendError, OpenError, ReadError, Record};
use super::tail::Tail;
use crate::domain::id::{Log, Position, Stamp};
use crate::domain::limits::{APPEND_QUEUE_MAX, RECORD_BYTES_MAX};
use crate::domain::time::Timestamp;
use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};

const FORMAT: i64 = 1;
/// How many rows of each log are checked when the file is opened.
const CHECKED_AT_OPEN: u64 = 64;
const SCHEMA: &str = include_str!("../../schemas/sqlite/journal.sql");

/// A journal in a SQLite file.
#[derive(Clone, Debug)]
pub struct SqliteJournal {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Append>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    readers: Mutex<Vec<Connection>>,
    tails: Vec<Mutex<Tail>>,
    ends: Vec<watch::Sender<Position>>,
    /// Whether the last transaction went in.
    is_writable: AtomicBool,
}

#[derive(Debug)]
struct Append {
    batch: Vec<(Log, Bytes)>,
    answer: oneshot::Sender<Result<Vec<Stamp>, AppendError>>,
}

/// Where the next record of a log goes.
#[derive(Clone, Copy, Debug)]
struct Head {
    position: Position,
    crc: u32,
}

impl SqliteJournal {
    /// Opens a journal, made where there is none; `clock` stamps the records.
    ///
    /// # Errors
    /// Where the file is of a later release, has another number of partitions, or its end is damaged.
    pub fn open(path: &Path, partitions: u32, clock: fn() -> Timestamp) -> Result<Self, OpenError> {
        let failed =
            |error: rusqlite::Error| OpenError::Storage { path: path.display().to_string(), detail: error.to_string() };
        let connection = Connection::open(path).map_err(failed)?;
        prepare(&connection).map_err(failed)?;
        check_meta(&connection, partitions, failed)?;
        let mut heads = Vec::new();
        for at in 0..=usize::try_from(partitions).unwrap_or(0) {
            heads.push(check_end(&connection, log(at))?);
        }
        let newest =
            connection.query_row("SELECT max(recorded_at) FROM records", [], |row| row.get::<_, Option<i64>>(0));
        let newest = Timestamp(newest.map_err(failed)?.unwrap_or(0));
        let (queue, waiting) = mpsc::channel(APPEND_QUEUE_MAX);
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            readers: Mutex::new(Vec::new()),
            tails: heads.iter().map(|_| Mutex::new(Tail::default())).collect(),
            ends: heads.iter().map(|head| watch::channel(head.position).0).collect(),
            is_writable: AtomicBool::new(true),
        });
        let writer = Writer { connection, heads, newest, clock, shared: Arc::clone(&shared) };
        std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run(waiting))
            .map_err(|error| OpenError::Storage { path: path.display().to_string(), detail: error.to_string() })?;
        Ok(Self { shared, queue })
    }

    pub(super) async fn append(&self, batch: Vec<(Log, Bytes)>) -> Result<Vec<Stamp>, AppendError> {
        check_sizes(&batch)?;
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Append { batch, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AppendError::Overloaded { waiting: APPEND_QUEUE_MAX },
            mpsc::error::TrySendError::Closed(_) => AppendError::Closed,
        })?;
        answered.await.unwrap_or(Err(AppendError::Closed))
    }

    pub(super) fn append_blocking(&self, batch: Vec<(Log, Bytes)>) -> Result<Vec<Stamp>, AppendError> {
        check_sizes(&batch)?;
        let (answer, answered) = oneshot::channel();
        self.queue.blocking_send(Append { batch, answer }).map_err(|_| AppendError::Closed)?;
        answered.blocking_recv().unwrap_or(Err(AppendError::Closed))
    }

    pub(super) fn read(
        &self,
        log: Log,
        after: Position,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Record>, ReadError> {
        if let Some(tail) = self.shared.tails.get(number(log)) {
            let tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(records) = tail.after(after, records_max, bytes_max) {
                return Ok(records);
            }
        }
        let connection = self.shared.reader()?;
        let records = read_checked(&connection, log, after, records_max, bytes_max);
        self.shared.lock_readers().push(connection);
        records
    }

    pub(super) fn end(&self, log: Log) -> Position {
        self.shared.ends.get(number(log)).map_or(Position::START, |end| *end.borrow())
    }

    pub(super) fn watch(&self, log: Log) -> watch::Receiver<Position> {
        let known = self.shared.ends.get(number(log));
        known.map_or_else(|| watch::channel(Position::START).1, watch::Sender::subscribe)
    }

    pub(super) fn is_writable(&self) -> bool {
        self.shared.is_writable.load(Ordering::Relaxed)
    }

    pub(super) fn partitions(&self) -> u32 {
        u32::try_from(self.shared.ends.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }
}

impl Shared {
    fn lock_readers(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reader(&self) -> Result<Connection, ReadError> {
        let pooled = self.lock_readers().pop();
        match pooled {
            Some(connection) => Ok(connection),
            None => Connection::open(&self.path).map_err(storage),
        }
    }
}

struct Writer {
    connection: Connection,
    heads: Vec<Head>,
    newest: Timestamp,
    clock: fn() -> Timestamp,
    shared: Arc<Shared>,
}

impl Writer {
    /// Writes until every handle is gone.
    fn run(mut self, mut waiting: mpsc::Receiver<Append>) {
        while let Some(first) = waiting.blocking_recv() {
            let mut group = vec![first];
            while group.len() < APPEND_QUEUE_MAX {
                match waiting.try_recv() {
                    Ok(more) => group.push(more),
                    Err(_) => break,
                }
            }
            self.commit(group);
        }
    }

    /// Puts everything that waits into one transaction, then answers everybody.
    fn commit(&mut self, group: Vec<Append>) {
        let recorded_at = (self.clock)().max(self.newest);
        let wrote = self.write(&group, recorded_at);
        self.shared.is_writable.store(wrote.is_ok(), Ordering::Relaxed);
        match wrote {
            Ok((heads, written)) => {
                self.newest = recorded_at;
                self.heads = heads;
                let mut written = written.into_iter();
                let mut answers = Vec::with_capacity(group.len());
                for append in group {
                    let mut stamps = Vec::with_capacity(append.batch.len());
                    // The batch comes first: its end must not swallow a position of the next one.
                    for ((log, payload), position) in append.batch.into_iter().zip(written.by_ref()) {
                        if let Some(tail) = self.shared.tails.get(number(log)) {
                            let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
                            tail.push(Record { position, recorded_at, payload });
                        }
                        stamps.push(Stamp { position, recorded_at });
                    }
                    answers.push((append.answer, stamps));
                }
                // Whoever is answered finds their records at once, so the ends move first.
                for (end, head) in self.shared.ends.iter().zip(&self.heads) {
                    end.send_if_modified(|end| std::mem::replace(end, head.position) != head.position);
                }
                for (answer, stamps) in answers {
                    // Who asked may have given up; the records are in all the same.
                    drop(answer.send(Ok(stamps)));
                }
            }
            Err(error) => {
                for append in group {
                    drop(append.answer.send(Err(error.clone())));
                }
            }
        }
    }

    fn write(&mut self, group: &[Append], recorded_at: Timestamp) -> Result<(Vec<Head>, Vec<Position>), AppendError> {
        let mut heads = self.heads.clone();
        let mut written = Vec::new();
        let transaction = self.connection.transaction().map_err(refused)?;
        {
            let mut insert = transaction
                .prepare_cached(
                    "INSERT INTO records (log, position, recorded_at, crc, payload) VALUES (?1, ?2, ?3, ?4, ?5)",
                )
                .map_err(refused)?;
            for (log, payload) in group.iter().flat_map(|append| &append.batch) {
                let at = number(*log);
                let unknown = || AppendError::Storage { detail: format!("there is no log {log}") };
                let head = heads.get_mut(at).ok_or_else(unknown)?;
                let position = head.position.next();
                let crc = link(head.crc, position, recorded_at, payload);
                insert
                    .execute(params![at as i64, position.0.cast_signed(), recorded_at.0, crc, payload.as_ref()])
                    .map_err(refused)?;
                *head = Head { position, crc };
                written.push(position);
            }
        }
        transaction.commit().map_err(refused)?;
        Ok((heads, written))
    }
}

/// What a transaction that did not go in is told as; all of it was rolled back.
fn refused(error: rusqlite::Error) -> AppendError {
    let detail = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull | ErrorCode::ReadOnly) => AppendError::ReadOnly { detail },
        Some(_) | None => AppendError::Storage { detail },
    }
}

fn check_sizes(batch: &[(Log, Bytes)]) -> Result<(), AppendError> {
    match batch.iter().map(|(_, payload)| payload.len()).max() {
        Some(bytes) if bytes > RECORD_BYTES_MAX => Err(AppendError::TooLarge { bytes, limit: RECORD_BYTES_MAX }),
        Some(_) | None => Ok(()),
    }
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000;
         PRAGMA wal_autocheckpoint = 4000; PRAGMA temp_store = MEMORY;",
    )?;
    connection.execute_batch(SCHEMA)
}

fn check_meta(
    connection: &Connection,
    partitions: u32,
    failed: impl Fn(rusqlite::Error) -> OpenError + Copy,
) -> Result<(), OpenError> {
    let known = |name: &str| {
        let value = connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get::<_, i64>(0));
        value.optional().map_err(failed)
    };
    let set = |name: &str, value: i64| {
        connection.execute("INSERT INTO meta (name, value) VALUES (?1, ?2)", params![name, value]).map_err(failed)
    };
    match known("format")? {
        Some(found) if found > FORMAT => return Err(OpenError::TooNew { found, known: FORMAT }),
        Some(_) => {}
        None => {
            set("format", FORMAT)?;
        }
    }
    match known("partitions")?.map(|found| u32::try_from(found).unwrap_or(0)) {
        Some(found) if found != partitions => Err(OpenError::Partitions { found, wanted: partitions }),
        Some(_) => Ok(()),
        None => set("partitions", i64::from(partitions)).map(drop),
    }
}

/// Checks the last rows of a log; returns where its next record goes.
fn check_end(connection: &Connection, log: Log) -> Result<Head, OpenError> {
    let newest = connection
        .query_row(
            "SELECT position, crc FROM records WHERE log = ?1 ORDER BY position DESC LIMIT 1",
            [number(log) as i64],
            |row| Ok(Head { position: Position(row.get::<_, i64>(0)?.cast_unsigned()), crc: row.get(1)? }),
        )
        .optional()
        .map_err(storage)?;
    let Some(newest) = newest else { return Ok(Head { position: Position::START, crc: 0 }) };
    let after = Position(newest.position.0.saturating_sub(CHECKED_AT_OPEN));
    read_checked(connection, log, after, usize::MAX, usize::MAX)?;
    Ok(newest)
}

/// Reads rows behind a position, each checked against the one before it.
fn read_checked(
    connection: &Connection,
    log: Log,
    after: Position,
    records_max: usize,
    bytes_max: usize,
) -> Result<Vec<Record>, ReadError> {
    let mut previous = previous_link(connection, log, after)?;
    let mut select = connection
        .prepare_cached(
            "SELECT position, recorded_at, crc, payload FROM records WHERE log = ?1 AND position > ?2 ORDER BY position",
        )
        .map_err(storage)?;
    let mut rows = select.query(params![number(log) as i64, after.0.cast_signed()]).map_err(storage)?;
    let mut records = Vec::new();
    let mut bytes = 0;
    let mut expected = after.next();
    while records.len() < records_max && bytes < bytes_max {
        let Some(row) = rows.next().map_err(storage)? else { break };
        let position = Position(row.get::<_, i64>(0).map_err(storage)?.cast_unsigned());
        let damaged = |detail: String| ReadError::Damaged { log, position, detail };
        if position != expected {
            return Err(ReadError::Gap { log, expected, found: position });
        }
        let unreadable = |error: rusqlite::Error| damaged(error.to_string());
        let recorded_at = Timestamp(row.get(1).map_err(unreadable)?);
        let crc: u32 = row.get(2).map_err(unreadable)?;
        let payload: Vec<u8> = row.get(3).map_err(unreadable)?;
        let found = link(previous, position, recorded_at, &payload);
        if found != crc {
            return Err(damaged(format!("its checksum is {found:08x}, the row says {crc:08x}")));
        }
        previous = crc;
        expected = position.next();
        bytes += payload.len();
        records.push(Record { position, recorded_at, payload: Bytes::from(payload) });
    }
    Ok(records)
}

fn previous_link(connection: &Connection, log: Log, at: Position) -> Result<u32, ReadError> {
    if at == Position::START {
        return Ok(0);
    }
    let found = connection
        .query_row(
            "SELECT crc FROM records WHERE log = ?1 AND position = ?2",
            params![number(log) as i64, at.0.cast_signed()],
            |row| row.get(0),
        )
        .optional()
        .map_err(storage)?;
    found.ok_or_else(|| ReadError::Damaged { log, position: at, detail: "the row is missing".to_owned() })
}

fn storage(error: rusqlite::Error) -> ReadError {
    ReadError::Storage { detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;

    #[test]
    fn a_full_or_read_only_disk_is_told_apart() {
        let told = |code| refused(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        assert!(matches!(told(ffi::SQLITE_FULL), AppendError::ReadOnly { .. }));
        assert!(matches!(told(ffi::SQLITE_READONLY), AppendError::ReadOnly { .. }));
        assert!(matches!(told(ffi::SQLITE_BUSY), AppendError::Storage { .. }));
    }
}
