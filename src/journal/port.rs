//! The port: a closed set of adapters behind one handle.

#[cfg(feature = "kafka")]
use super::kafka::KafkaJournal;
use super::memory::MemoryJournal;
use super::sqlite::SqliteJournal;
use crate::domain::id::{Log, Position, Stamp};
use crate::domain::time::Timestamp;
use bytes::Bytes;

/// How often a record that must be there is asked for; a shared journal waits half a second each time.
const KNOWN_TRIES: usize = 40;

/// One record of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place.
    pub position: Position,
    /// When the log took it in.
    pub recorded_at: Timestamp,
    /// What was appended.
    pub payload: Bytes,
}

/// A process that folds a share of a journal, as the journal's storage knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it connects from.
    pub host: String,
    /// The engine version that it folds at most; absent where its release does not say.
    pub engine_version: Option<u32>,
}

/// Why records may not be in the journal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Too many appends wait already; retryable.
    #[error("the journal has {waiting} appends waiting, which is its bound")]
    Overloaded {
        /// How many wait.
        waiting: usize,
    },
    /// The storage refused; retryable once its cause is gone. Some records may be in.
    #[error("the journal's storage failed: {detail}")]
    Storage {
        /// What it said.
        detail: String,
    },
    /// The disk is full, or nothing may be written to it; retryable once it takes something again. Nothing is in.
    #[error("the journal cannot be written: {detail}")]
    ReadOnly {
        /// What the storage said.
        detail: String,
    },
    /// The file is not what was written.
    #[error("the journal is damaged: {detail}")]
    Damaged {
        /// What the storage said.
        detail: String,
    },
    /// One record is larger than any may be.
    #[error("a record of {bytes} bytes, at most {limit} are taken")]
    TooLarge {
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        limit: usize,
    },
    /// The journal is closed.
    #[error("the journal is closed")]
    Closed,
}

/// Why records cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A record is not what was appended.
    #[error("log {log}, record {position} is damaged: {detail}")]
    Damaged {
        /// Whose record.
        log: Log,
        /// Which one.
        position: Position,
        /// What differs.
        detail: String,
    },
    /// Records are missing.
    #[error("log {log} has record {found} where {expected} should stand: records are missing")]
    Gap {
        /// Whose records.
        log: Log,
        /// What should come next.
        expected: Position,
        /// What comes next.
        found: Position,
    },
    /// The log ends before what was read of it already.
    #[error("log {log} ends at {end}, but record {read} was read: it was cut back or made anew")]
    CutBack {
        /// Whose records.
        log: Log,
        /// What was read last.
        read: Position,
        /// Where it ends.
        end: Position,
    },
    /// The storage failed.
    #[error("the journal's storage failed: {detail}")]
    Storage {
        /// What it said.
        detail: String,
    },
}

/// Why a journal cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It has another number of partitions, which is fixed when the data is created.
    #[error(
        "the journal has {found} partitions, {wanted} were asked for; the number is fixed when the data is created"
    )]
    Partitions {
        /// What it has.
        found: u32,
        /// What was asked for.
        wanted: u32,
    },
    /// A later release wrote it.
    #[error("journal format {found}, this release reads up to {known}")]
    TooNew {
        /// The format found.
        found: i64,
        /// The newest known one.
        known: i64,
    },
    /// A topic is not as the journal needs it.
    #[error("the topic {topic} cannot hold a journal: {detail}")]
    Topic {
        /// Which one.
        topic: String,
        /// What is wrong, and what must be.
        detail: String,
    },
    /// Its end is damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file is not what was written.
    #[error("the journal {path} is damaged: {detail}")]
    Damaged {
        /// Where it is.
        path: String,
        /// Which record or page, and what is wrong with it.
        detail: String,
    },
    /// The storage failed.
    #[error("cannot open the journal at {path}: {detail}")]
    Storage {
        /// Where it is.
        path: String,
        /// What the storage said.
        detail: String,
    },
}

/// A handle on the logs; cheap to clone.
#[derive(Clone, Debug)]
pub enum Journal {
    /// In memory, for tests.
    Memory(MemoryJournal),
    /// In a SQLite file.
    Sqlite(SqliteJournal),
    /// In Kafka's topics.
    #[cfg(feature = "kafka")]
    Kafka(KafkaJournal),
}

impl Journal {
    /// Appends records; returns when they are durable, with their places in the order given.
    ///
    /// # Errors
    /// Where any of them may not be in.
    pub async fn append(&self, batch: Vec<(Log, Bytes)>) -> Result<Vec<Stamp>, AppendError> {
        match self {
            Self::Memory(journal) => journal.append(batch),
            Self::Sqlite(journal) => journal.append(batch).await,
            #[cfg(feature = "kafka")]
            Self::Kafka(journal) => journal.append(batch).await,
        }
    }

    /// As [`Self::append`], with this stamp, though it lie before those of records that are there: the journal's clock goes on from
    /// it. Brokers stamp by their own clock all the same. Nothing else may append meanwhile.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub async fn append_at(&self, batch: Vec<(Log, Bytes)>, at: Timestamp) -> Result<Vec<Stamp>, AppendError> {
        match self {
            Self::Memory(journal) => journal.append_at(batch, at),
            Self::Sqlite(journal) => journal.append_at(batch, at).await,
            #[cfg(feature = "kafka")]
            Self::Kafka(journal) => journal.append(batch).await,
        }
    }

    /// As [`Self::append`], for threads that may block. Waits where an async caller would be told of overload.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn append_blocking(&self, batch: Vec<(Log, Bytes)>) -> Result<Vec<Stamp>, AppendError> {
        match self {
            Self::Memory(journal) => journal.append(batch),
            Self::Sqlite(journal) => journal.append_blocking(batch),
            #[cfg(feature = "kafka")]
            Self::Kafka(journal) => futures::executor::block_on(journal.append(batch)),
        }
    }

    /// Tells whether the storage took what was last appended. Of a shared journal its brokers tell, by answering.
    pub fn is_writable(&self) -> bool {
        match self {
            Self::Memory(_) => true,
            Self::Sqlite(journal) => journal.is_writable(),
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => true,
        }
    }

    /// Reports whether the storage turned out to be damaged when it was written: nothing can be appended any more.
    pub fn is_damaged(&self) -> bool {
        match self {
            Self::Memory(_) => false,
            Self::Sqlite(journal) => journal.is_damaged(),
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => false,
        }
    }

    /// Closes a journal of this process in order: everything is in its file. Appends are refused from then on; blocks.
    pub fn close(&self) {
        match self {
            Self::Memory(_) => {}
            Self::Sqlite(journal) => journal.close(),
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => {}
        }
    }

    /// Reads records strictly behind a position: at most `records_max`, and about `bytes_max` bytes; blocks. Nothing comes
    /// back where a shared journal does not answer at the moment: ask again.
    ///
    /// # Errors
    /// Where a record is damaged or the storage fails.
    pub fn read(
        &self,
        log: Log,
        after: Position,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Record>, ReadError> {
        match self {
            Self::Memory(journal) => Ok(journal.read(log, after, records_max, bytes_max)),
            Self::Sqlite(journal) => journal.read(log, after, records_max, bytes_max),
            #[cfg(feature = "kafka")]
            Self::Kafka(journal) => journal.read(log, after, records_max, bytes_max),
        }
    }

    /// As [`Self::read`], where something must stand behind the position: asks again for a while.
    ///
    /// # Errors
    /// As [`Self::read`], and where nothing comes.
    pub fn read_known(
        &self,
        log: Log,
        after: Position,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Record>, ReadError> {
        for _ in 0..KNOWN_TRIES {
            let records = self.read(log, after, records_max, bytes_max)?;
            if !records.is_empty() {
                return Ok(records);
            }
            if !self.is_shared() {
                break;
            }
        }
        Err(ReadError::Storage { detail: format!("log {log} has records behind {after}, and none of them came") })
    }

    /// The last durable position of a log.
    pub fn end(&self, log: Log) -> Position {
        match self {
            Self::Memory(journal) => journal.end(log),
            Self::Sqlite(journal) => journal.end(log),
            #[cfg(feature = "kafka")]
            Self::Kafka(journal) => journal.end(log),
        }
    }

    /// The last durable position of a log, asked of the storage where others append too; blocks.
    ///
    /// # Errors
    /// Where the storage does not answer.
    pub fn end_now(&self, log: Log) -> Result<Position, ReadError> {
        match self {
            Self::Memory(journal) => Ok(journal.end(log)),
            Self::Sqlite(journal) => Ok(journal.end(log)),
            #[cfg(feature = "kafka")]
            Self::Kafka(journal) => journal.end_now(log),
        }
    }

    /// Tells whether other processes may append, too.
    pub const fn is_shared(&self) -> bool {
        match self {
            Self::Memory(_) | Self::Sqlite(_) => false,
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => true,
        }
    }

    /// Reads who folds a share of a shared journal; blocks. Nobody but this process does where it is not shared.
    ///
    /// # Errors
    /// Where the storage does not answer, or does not know all of them at the moment.
    pub fn members(&self) -> Result<Vec<Member>, ReadError> {
        match self {
            Self::Memory(_) | Self::Sqlite(_) => Ok(Vec::new()),
            #[cfg(feature = "kafka")]
            Self::Kafka(journal) => journal.members(),
        }
    }

    /// Gives up following a log that is read no more.
    pub fn unfollow(&self, log: Log) {
        match self {
            Self::Memory(_) | Self::Sqlite(_) => {}
            #[cfg(feature = "kafka")]
            Self::Kafka(journal) => journal.unfollow(log),
        }
    }

    /// Resolves when a log reaches beyond a position.
    pub async fn wait_beyond(&self, log: Log, after: Position) {
        let mut end = match self {
            Self::Memory(journal) => journal.watch(log),
            Self::Sqlite(journal) => journal.watch(log),
            #[cfg(feature = "kafka")]
            Self::Kafka(journal) => {
                journal.follow(log, after);
                journal.watch(log)
            }
        };
        // The sender lives as long as the journal's handle does.
        if end.wait_for(|end| *end > after).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// How many partitions the data has.
    pub fn partitions(&self) -> u32 {
        match self {
            Self::Memory(journal) => journal.partitions(),
            Self::Sqlite(journal) => journal.partitions(),
            #[cfg(feature = "kafka")]
            Self::Kafka(journal) => journal.partitions(),
        }
    }
}
