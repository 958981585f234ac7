//! The SQLite adapter: one writer thread with group commit, readers on connections of their own.
//!
//! Whatever waits goes into one transaction and one fsync (WAL, `synchronous=FULL`). Rows are chained by checksum per log,
//! so a torn, changed or missing row is found when it is read; the end of every log is checked when the file is opened.
//! Closing it, or dropping its last handle, waits for the writer, which leaves everything in the file and nothing in the WAL.

use super::chain::{link, number};
use super::port::{AppendError, OpenError, ReadError, Record};
use super::sqlite_read::{self, Head, open_error, read_checked};
use super::tail::Tail;
use crate::domain::id::{Log, Position, Stamp};
use crate::domain::limits::{APPEND_QUEUE_MAX, CLOCK_STEP_MAX, RECORD_BYTES_MAX};
use crate::domain::time::Timestamp;
use crate::sqlite_file;
use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, params};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot, watch};

/// A journal in a SQLite file.
#[derive(Clone, Debug)]
pub struct SqliteJournal {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Message>,
    // Behind the queue: whoever drops the last handle drops the queue first, which ends the thread.
    writer: Arc<WriterThread>,
}

/// The writer's thread; none for a journal that is only read, or that was closed.
#[derive(Debug, Default)]
struct WriterThread(Mutex<Option<JoinHandle<()>>>);

impl WriterThread {
    /// Waits until it has ended.
    fn join(&self) {
        let thread = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the journal's writer panicked");
        }
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        self.join();
    }
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    readers: Mutex<Vec<Connection>>,
    tails: Vec<Mutex<Tail>>,
    ends: Vec<watch::Sender<Position>>,
    /// Whether the last transaction went in.
    is_writable: AtomicBool,
    /// Whether the file was found damaged when it was written.
    is_damaged: AtomicBool,
}

#[derive(Debug)]
enum Message {
    Append(Append),
    /// Everything before it is written, nothing behind it.
    Close,
}

#[derive(Debug)]
struct Append {
    batch: Vec<(Log, Bytes)>,
    /// The stamp, where it is not for the clock to say.
    at: Option<Timestamp>,
    answer: oneshot::Sender<Result<Vec<Stamp>, AppendError>>,
}

impl SqliteJournal {
    /// Opens a journal, made where there is none; `clock` stamps the records.
    ///
    /// # Errors
    /// Where the file is of a later release, has another number of partitions, or its end is damaged.
    pub fn open(path: &Path, partitions: u32, clock: fn() -> Timestamp) -> Result<Self, OpenError> {
        let failed = |error: rusqlite::Error| open_error(path, error);
        let connection = Connection::open(path).map_err(failed)?;
        sqlite_read::prepare(&connection).map_err(failed)?;
        sqlite_read::check_meta(&connection, partitions, path)?;
        let heads = sqlite_read::check_ends(&connection, partitions, path)?;
        let newest = sqlite_read::newest_stamp(&connection, partitions).map_err(failed)?;
        tell_gap(newest, clock());
        let (queue, waiting) = mpsc::channel(APPEND_QUEUE_MAX);
        let shared = Arc::new(Shared::new(path, &heads));
        let writer = Writer { connection, heads, newest, clock, shared: Arc::clone(&shared) };
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run(waiting))
            .map_err(|error| OpenError::Storage { path: path.display().to_string(), detail: error.to_string() })?;
        Ok(Self { shared, queue, writer: Arc::new(WriterThread(Mutex::new(Some(thread)))) })
    }

    /// Opens a journal for reading alone, beside a process that may append to it; it must exist. Its logs end where they
    /// ended at this moment, and nothing can be appended.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_to_read(path: &Path, partitions: u32) -> Result<Self, OpenError> {
        let failed = |error: rusqlite::Error| open_error(path, error);
        let connection = sqlite_file::open_to_read(path).map_err(failed)?;
        let heads = if sqlite_file::is_blank(&connection).map_err(failed)? {
            sqlite_read::no_ends(partitions)
        } else {
            sqlite_read::check_known_meta(&connection, partitions, path)?;
            sqlite_read::check_ends(&connection, partitions, path)?
        };
        let shared = Shared::new(path, &heads);
        shared.lock_readers().push(connection);
        // Nobody takes from this queue: an append finds it closed.
        let (queue, _) = mpsc::channel(1);
        Ok(Self { shared: Arc::new(shared), queue, writer: Arc::default() })
    }

    /// Reports whether there is no journal yet: no file, or one that holds nothing. What cannot be read is one.
    pub fn is_absent(path: &Path) -> bool {
        !path.is_file()
            || sqlite_file::open_to_read(path).is_ok_and(|file| sqlite_file::is_blank(&file).unwrap_or(false))
    }

    /// Writes what waits, moves everything from the WAL into the file and closes it; blocks. Appends are refused from then on.
    pub(super) fn close(&self) {
        // A writer that has ended needs no telling.
        if self.queue.blocking_send(Message::Close).is_err() {
            tracing::debug!("the journal was closed already");
        }
        self.writer.join();
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.shared.is_damaged.load(Ordering::Relaxed)
    }

    pub(super) async fn append(&self, batch: Vec<(Log, Bytes)>) -> Result<Vec<Stamp>, AppendError> {
        check_sizes(&batch)?;
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Message::Append(Append { batch, at: None, answer })).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AppendError::Overloaded { waiting: APPEND_QUEUE_MAX },
            mpsc::error::TrySendError::Closed(_) => AppendError::Closed,
        })?;
        answered.await.unwrap_or(Err(AppendError::Closed))
    }

    /// Appends records with this stamp, though it lie before those of records that are there: the clock goes on from it. Nothing
    /// else may append meanwhile.
    pub(super) async fn append_at(&self, batch: Vec<(Log, Bytes)>, at: Timestamp) -> Result<Vec<Stamp>, AppendError> {
        check_sizes(&batch)?;
        let (answer, answered) = oneshot::channel();
        let append = Append { batch, at: Some(at), answer };
        self.queue.send(Message::Append(append)).await.map_err(|_| AppendError::Closed)?;
        answered.await.unwrap_or(Err(AppendError::Closed))
    }

    pub(super) fn append_blocking(&self, batch: Vec<(Log, Bytes)>) -> Result<Vec<Stamp>, AppendError> {
        check_sizes(&batch)?;
        let (answer, answered) = oneshot::channel();
        let append = Append { batch, at: None, answer };
        self.queue.blocking_send(Message::Append(append)).map_err(|_| AppendError::Closed)?;
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
    fn new(path: &Path, heads: &[Head]) -> Self {
        Self {
            path: path.to_owned(),
            readers: Mutex::new(Vec::new()),
            tails: heads.iter().map(|_| Mutex::new(Tail::default())).collect(),
            ends: heads.iter().map(|head| watch::channel(head.position).0).collect(),
            is_writable: AtomicBool::new(true),
            is_damaged: AtomicBool::new(false),
        }
    }

    fn lock_readers(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reader(&self) -> Result<Connection, ReadError> {
        let pooled = self.lock_readers().pop();
        match pooled {
            Some(connection) => Ok(connection),
            None => sqlite_file::open_to_read(&self.path)
                .map_err(|error| ReadError::Storage { detail: format!("{}: {error}", self.path.display()) }),
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
    /// Writes until it is told to close, or every handle is gone.
    fn run(mut self, mut waiting: mpsc::Receiver<Message>) {
        let mut is_closing = false;
        while !is_closing && let Some(first) = waiting.blocking_recv() {
            let mut group = Vec::new();
            let mut next = Some(first);
            while let Some(message) = next.take() {
                match message {
                    Message::Append(append) => group.push(append),
                    Message::Close => is_closing = true,
                }
                if !is_closing && group.len() < APPEND_QUEUE_MAX {
                    next = waiting.try_recv().ok();
                }
            }
            if !group.is_empty() {
                self.commit(group);
            }
        }
        // What waits behind the end is answered that the journal is closed.
        drop(waiting);
        self.finish();
    }

    /// Leaves everything in the file: whoever copies it needs no WAL.
    fn finish(self) {
        self.shared.lock_readers().clear();
        let file = self.shared.path.display();
        match sqlite_file::checkpoint(&self.connection) {
            Ok(true) => {}
            Ok(false) => tracing::warn!(%file, "somebody reads the journal: its -wal file still holds records"),
            Err(error) => tracing::warn!(%file, %error, "the journal's -wal file still holds records"),
        }
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(%file, %error, "the journal could not be closed");
        }
    }

    /// Puts everything that waits into one transaction, then answers everybody.
    fn commit(&mut self, group: Vec<Append>) {
        let said = group.iter().find_map(|append| append.at);
        let recorded_at = said.unwrap_or_else(|| (self.clock)().max(self.newest));
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
                if let AppendError::Damaged { detail } = &error
                    && !self.shared.is_damaged.swap(true, Ordering::Relaxed)
                {
                    tracing::error!(file = %self.shared.path.display(), detail, "the journal is damaged");
                }
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
    if sqlite_file::is_damage(&error) {
        return AppendError::Damaged { detail };
    }
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

/// Says where the newest record is far from the present: nobody knows whether the server stood still or a clock was wrong.
fn tell_gap(newest: Timestamp, now: Timestamp) {
    if newest > now.plus(CLOCK_STEP_MAX) {
        tracing::warn!(
            newest = %newest, now = %now,
            "the journal's newest record is ahead of the clock, and time stands still until the clock has come there: where that \
             record is wrong, `highwater repair --clock-to` sets the journal's clock back"
        );
    } else if newest > Timestamp(0) && newest < now.minus(CLOCK_STEP_MAX) {
        tracing::info!(newest = %newest, now = %now, "nothing was recorded for a while; time goes on from the present");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::PartitionId;
    use rusqlite::ffi;

    /// A repair sets the clock of every log back; stamps go on from there, also behind a restart.
    #[tokio::test]
    async fn stamps_go_on_from_the_time_that_was_set() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let fact = || {
            vec![(Log::Control, Bytes::from_static(b"{}")), (Log::Partition(PartitionId(0)), Bytes::from_static(b"{}"))]
        };
        let times = |stamps: Vec<Stamp>| stamps.into_iter().map(|stamp| stamp.recorded_at.0).collect::<Vec<_>>();
        {
            let journal = SqliteJournal::open(&path, 1, || Timestamp(9_000)).unwrap();
            assert_eq!(times(journal.append(fact()).await.unwrap()), [9_000, 9_000]);
            assert_eq!(times(journal.append_at(fact(), Timestamp(500)).await.unwrap()), [500, 500]);
        }
        let journal = SqliteJournal::open(&path, 1, || Timestamp(600)).unwrap();
        assert_eq!(times(journal.append(fact()).await.unwrap()), [600, 600]);
        assert_eq!(times(journal.append_at(fact(), Timestamp(700)).await.unwrap()), [700, 700]);
        // The clock is behind what was recorded last: time stands still.
        assert_eq!(times(journal.append(fact()).await.unwrap()), [700, 700]);
        let records = journal.read(Log::Control, Position::START, 10, 1_000).unwrap();
        assert_eq!(records.len(), 5, "every row is chained to the one before it");
    }

    #[test]
    fn a_full_or_read_only_disk_is_told_apart() {
        let told = |code| refused(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        assert!(matches!(told(ffi::SQLITE_FULL), AppendError::ReadOnly { .. }));
        assert!(matches!(told(ffi::SQLITE_READONLY), AppendError::ReadOnly { .. }));
        assert!(matches!(told(ffi::SQLITE_BUSY), AppendError::Storage { .. }));
        assert!(matches!(told(ffi::SQLITE_CORRUPT), AppendError::Damaged { .. }));
    }
}
