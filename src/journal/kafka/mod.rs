//! The Kafka adapter: the control log is a topic of one partition, the partition logs are the partitions of another.
//!
//! A position is an offset plus one. Appends go through one idempotent producer (`acks=all`) and return with their
//! delivery reports. Reads go through one consumer that is assigned by hand: what it follows comes from snapshots and from
//! the folds, never from committed offsets, and a gap is an error that says what is missing. `recorded_at` is the broker's
//! (`LogAppendTime`).

mod append;
mod follow;
mod intake;
mod intake_place;
mod membership;
mod settings;
mod topics;

pub use intake::{IntakeGauge, IntakeLag, IntakeMessage, IntakeProgress, IntakeReader, IntakeStart};
pub use intake_place::IntakePlace;
pub use membership::{Assignment, Membership};
pub use settings::{KafkaSettings, OnIntakeGap, SettingsError, Timestamps};

use super::chain::{log, number};
use super::port::{AppendError, Member, OpenError, ReadError, Record};
use crate::domain::id::{Log, Position, Stamp};
use append::Appender;
use bytes::Bytes;
use follow::Follower;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long a question to the brokers may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a partition may take to find its leader, where the topic is new or a broker has left.
const SETTLING: Duration = Duration::from_millis(100);
const SETTLING_TRIES: usize = 30;

/// A journal on Kafka; cheap to clone.
#[derive(Clone, Debug)]
pub struct KafkaJournal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: KafkaSettings,
    appender: Appender,
    follower: Arc<Follower>,
    ends: Arc<Ends>,
}

/// The last known position of every log.
#[derive(Debug)]
struct Ends(Vec<watch::Sender<Position>>);

impl Ends {
    fn advance(&self, log: Log, position: Position) {
        if let Some(end) = self.0.get(number(log)) {
            end.send_if_modified(|known| {
                let later = position > *known;
                *known = position.max(*known);
                later
            });
        }
    }

    fn get(&self, log: Log) -> Position {
        self.0.get(number(log)).map_or(Position::START, |end| *end.borrow())
    }
}

/// Where a log is: topic and partition.
fn place(settings: &KafkaSettings, log: Log) -> (&str, i32) {
    match log {
        Log::Control => (&settings.control_topic, 0),
        Log::Partition(partition) => (&settings.journal_topic, i32::try_from(partition.0).unwrap_or(i32::MAX)),
    }
}

/// Tells whether a partition is about to have another leader: the question is worth another try.
fn is_settling(error: &KafkaError) -> bool {
    let passing = [
        RDKafkaErrorCode::NotLeaderForPartition,
        RDKafkaErrorCode::LeaderNotAvailable,
        RDKafkaErrorCode::UnknownTopicOrPartition,
    ];
    error.rdkafka_error_code().is_some_and(|code| passing.contains(&code))
}

/// Reads an offset as the position of the record that it stands before: a log's end offset is its last position.
fn position_of_end(offset: i64) -> Position {
    Position(u64::try_from(offset).unwrap_or(0))
}

impl KafkaJournal {
    /// Connects; makes the topics where they are missing, and checks them where they are not.
    ///
    /// # Errors
    /// Where the brokers do not answer, or a topic is not as the journal needs it.
    pub async fn open(settings: KafkaSettings) -> Result<Self, OpenError> {
        topics::prepare(&settings).await?;
        Self::connect(settings).await
    }

    /// As [`Self::open`], to topics that are as they must be.
    pub(in crate::journal) async fn connect(settings: KafkaSettings) -> Result<Self, OpenError> {
        let count = usize::try_from(settings.partitions).unwrap_or(0) + 1;
        let ends = Arc::new(Ends((0..count).map(|_| watch::channel(Position::START).0).collect()));
        let failed = |error: rdkafka::error::KafkaError| OpenError::Storage {
            path: settings.brokers.clone(),
            detail: error.to_string(),
        };
        let follower = Follower::start(&settings, Arc::clone(&ends)).map_err(failed)?;
        let appender = Appender::start(&settings).map_err(failed)?;
        let journal = Self { shared: Arc::new(Shared { settings, appender, follower, ends }) };
        let asking = journal.clone();
        let asked = tokio::task::spawn_blocking(move || (0..count).try_for_each(|n| asking.end_now(log(n)).map(drop)));
        asked.await.unwrap_or(Ok(()))?;
        Ok(journal)
    }

    /// What the journal was opened with.
    pub fn settings(&self) -> &KafkaSettings {
        &self.shared.settings
    }

    pub(super) async fn append(&self, batch: Vec<(Log, Bytes)>) -> Result<Vec<Stamp>, AppendError> {
        let logs: Vec<Log> = batch.iter().map(|(log, _)| *log).collect();
        let stamps = self.shared.appender.append(&self.shared.settings, batch).await?;
        for (log, stamp) in logs.into_iter().zip(&stamps) {
            self.shared.ends.advance(log, stamp.position);
        }
        Ok(stamps)
    }

    pub(super) fn read(
        &self,
        log: Log,
        after: Position,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Record>, ReadError> {
        self.shared.follower.read(log, after, records_max, bytes_max)
    }

    pub(super) fn end(&self, log: Log) -> Position {
        self.shared.ends.get(log)
    }

    /// Asks the brokers where a log ends; blocks.
    pub(super) fn end_now(&self, log: Log) -> Result<Position, ReadError> {
        let (topic, partition) = place(&self.shared.settings, log);
        let ask = || self.shared.follower.consumer().fetch_watermarks(topic, partition, ASK_TIMEOUT);
        let mut asked = ask();
        for _ in 0..SETTLING_TRIES {
            if !asked.as_ref().is_err_and(is_settling) {
                break;
            }
            std::thread::sleep(SETTLING);
            asked = ask();
        }
        let (_, end) = asked.map_err(|error| ReadError::Storage { detail: error.to_string() })?;
        self.shared.ends.advance(log, position_of_end(end));
        Ok(self.end(log))
    }

    /// Tells of every advance of a log's end. The log is followed from where its end is known, so that what others append
    /// is seen.
    pub(super) fn watch(&self, log: Log) -> watch::Receiver<Position> {
        let known = self.shared.ends.0.get(number(log));
        known.map_or_else(|| watch::channel(Position::START).1, watch::Sender::subscribe)
    }

    /// Makes sure that a log is followed from behind a position.
    pub(super) fn follow(&self, log: Log, after: Position) {
        self.shared.follower.follow(log, after);
    }

    /// Stops following a log.
    pub(super) fn unfollow(&self, log: Log) {
        self.shared.follower.unfollow(log);
    }

    /// Asks the brokers who folds a share of the journal; blocks.
    pub(super) fn members(&self) -> Result<Vec<Member>, ReadError> {
        membership::members(self.shared.follower.consumer(), &self.shared.settings)
    }

    pub(super) fn partitions(&self) -> u32 {
        self.shared.settings.partitions
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.follower.stop();
    }
}
