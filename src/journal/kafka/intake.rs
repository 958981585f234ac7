//! The public topic: services produce to it as they like, and the nodes share its partitions out.
//!
//! Offsets are committed by whoever has made the messages durable elsewhere, each with the record time up to which that
//! is so, so that every node can tell how far the intake as a whole has come.

use super::settings::KafkaSettings;
use super::topics;
use super::{ASK_TIMEOUT, OpenError};
use crate::domain::limits::INTAKE_BATCH_MESSAGES;
use crate::domain::time::Timestamp;
use rdkafka::ClientContext;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// One message of the intake, where the client keeps it.
pub struct IntakeMessage<'a> {
    kept: BorrowedMessage<'a>,
    /// When the broker took it in.
    pub recorded_at: Timestamp,
    /// Its headers, in order.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl fmt::Debug for IntakeMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IntakeMessage({}:{})", self.partition(), self.offset())
    }
}

impl<'a> IntakeMessage<'a> {
    fn new(kept: BorrowedMessage<'a>) -> Self {
        let recorded_at = Timestamp(kept.timestamp().to_millis().unwrap_or(0));
        let headers = kept.headers().map_or_else(Vec::new, |headers| {
            let one = |header: rdkafka::message::Header<'_, &[u8]>| {
                (header.key.to_owned(), header.value.unwrap_or_default().to_vec())
            };
            headers.iter().map(one).collect()
        });
        Self { kept, recorded_at, headers }
    }

    /// Its partition.
    pub fn partition(&self) -> i32 {
        self.kept.partition()
    }

    /// Its offset.
    pub fn offset(&self) -> i64 {
        self.kept.offset()
    }

    /// What was sent; none for a tombstone.
    pub fn payload(&self) -> Option<&[u8]> {
        self.kept.payload()
    }
}

/// Where a group begins that has committed nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IntakeStart {
    /// At the first message that is still there.
    #[default]
    Earliest,
    /// Behind the last one.
    Latest,
}

/// Hears of commits that nobody waited for.
struct Commits;

impl ClientContext for Commits {}

impl ConsumerContext for Commits {
    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::warn!(error = %error, "the intake could not commit; messages may be read again");
        }
    }
}

/// A member of the group that reads the intake.
pub struct IntakeReader {
    consumer: BaseConsumer<Commits>,
    topic: String,
}

impl fmt::Debug for IntakeReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IntakeReader")
    }
}

/// How far a batch of messages reaches, by partition: the next offset, and the record time of the last message.
pub type IntakeProgress = BTreeMap<i32, (i64, Timestamp)>;

impl IntakeReader {
    /// Joins the group; makes the topic where it is missing, and checks it where it is not.
    ///
    /// # Errors
    /// Where the brokers do not answer, or the topic is not stamped by them.
    pub async fn join(settings: &KafkaSettings, start: IntakeStart) -> Result<Self, OpenError> {
        topics::prepare_intake(settings).await?;
        let failed = |error: rdkafka::error::KafkaError| OpenError::Storage {
            path: settings.brokers.clone(),
            detail: error.to_string(),
        };
        let reset = match start {
            IntakeStart::Earliest => "earliest",
            IntakeStart::Latest => "latest",
        };
        let consumer: BaseConsumer<Commits> = settings
            .client()
            .set("group.id", format!("{}.intake", settings.group))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "2000")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", reset)
            .set("fetch.wait.max.ms", "50")
            .set("fetch.queue.backoff.ms", "5")
            // Enough for one batch of copies; the client keeps about a KiB for each message that waits.
            .set("queued.min.messages", INTAKE_BATCH_MESSAGES.to_string())
            .set("queued.max.messages.kbytes", "16384")
            .create_with_context(Commits)
            .map_err(failed)?;
        consumer.subscribe(&[&settings.intake_topic]).map_err(failed)?;
        Ok(Self { consumer, topic: settings.intake_topic.clone() })
    }

    /// Adds the messages that wait to `messages`, at most `most`; waits for the first one for at most `patience`. Blocks.
    /// Returns how far they reach.
    pub fn poll<'a>(
        &'a self,
        most: usize,
        patience: Duration,
        messages: &mut Vec<IntakeMessage<'a>>,
    ) -> IntakeProgress {
        let mut progress = IntakeProgress::new();
        let mut wait = patience;
        for _ in 0..most {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    let message = IntakeMessage::new(message);
                    progress.insert(message.partition(), (message.offset() + 1, message.recorded_at));
                    messages.push(message);
                }
                Some(Err(error)) => {
                    tracing::warn!(error = %error, "reading the intake is disturbed");
                    break;
                }
            }
            wait = Duration::ZERO;
        }
        progress
    }

    /// Commits how far messages are durable elsewhere, without waiting for the brokers: what they do not take is said in the
    /// log, and the messages may be read again.
    ///
    /// # Errors
    /// Where it cannot be asked of them.
    pub fn commit(&self, progress: &IntakeProgress) -> KafkaResult<()> {
        self.commit_in(progress, CommitMode::Async)
    }

    /// As [`Self::commit`], but blocks until the brokers know.
    ///
    /// # Errors
    /// Where the brokers did not take it: the messages will be read again.
    pub fn commit_surely(&self, progress: &IntakeProgress) -> KafkaResult<()> {
        self.commit_in(progress, CommitMode::Sync)
    }

    fn commit_in(&self, progress: &IntakeProgress, mode: CommitMode) -> KafkaResult<()> {
        // What went to another member meanwhile is that one's to commit, and it may be further.
        let assigned = self.consumer.assignment()?;
        let mut list = TopicPartitionList::new();
        for (partition, (next, recorded_at)) in progress {
            if assigned.find_partition(&self.topic, *partition).is_none() {
                continue;
            }
            let mut place = list.add_partition(&self.topic, *partition);
            place.set_offset(Offset::Offset(*next))?;
            place.set_metadata(recorded_at.0.to_string());
        }
        if list.count() == 0 { Ok(()) } else { self.consumer.commit(&list, mode) }
    }
}

/// Tells how far the intake as a whole has come.
pub struct IntakeGauge {
    consumer: BaseConsumer,
    topic: String,
}

impl fmt::Debug for IntakeGauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IntakeGauge")
    }
}

/// How far one partition of the intake has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntakeLag {
    /// The partition.
    pub partition: i32,
    /// The offset behind its last message.
    pub head: i64,
    /// The offset of the first message that is not durable elsewhere yet.
    pub next: i64,
    /// The record time up to which they are; that of the first message where none is.
    pub through: Option<Timestamp>,
}

impl IntakeGauge {
    /// Makes a gauge; it is no member of the group.
    ///
    /// # Errors
    /// Where the client cannot be made.
    pub fn new(settings: &KafkaSettings) -> KafkaResult<Self> {
        let consumer = settings
            .client()
            .set("group.id", format!("{}.intake", settings.group))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .create()?;
        Ok(Self { consumer, topic: settings.intake_topic.clone() })
    }

    /// Asks the brokers; blocks. Nothing comes back where there is no intake.
    ///
    /// # Errors
    /// Where the brokers do not answer.
    pub fn read(&self) -> KafkaResult<Vec<IntakeLag>> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), ASK_TIMEOUT)?;
        let mut list = TopicPartitionList::new();
        for topic in metadata.topics().iter().filter(|topic| topic.error().is_none()) {
            for partition in topic.partitions() {
                list.add_partition(&self.topic, partition.id());
            }
        }
        if list.count() == 0 {
            return Ok(Vec::new());
        }
        let committed = self.consumer.committed_offsets(list, ASK_TIMEOUT)?;
        let mut lags = Vec::new();
        for place in committed.elements() {
            let (first, end) = self.consumer.fetch_watermarks(&self.topic, place.partition(), ASK_TIMEOUT)?;
            let next = match place.offset() {
                Offset::Offset(next) => next,
                Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => first,
            };
            let mut through = place.metadata().parse().ok().map(Timestamp);
            if through.is_none() && next < end {
                through = self.recorded_at(place.partition(), next)?;
            }
            lags.push(IntakeLag { partition: place.partition(), head: end, next: next.max(first), through });
        }
        Ok(lags)
    }
}

impl IntakeGauge {
    /// When the first message at or behind an offset was taken in; none where the broker hands none over in time.
    fn recorded_at(&self, partition: i32, offset: i64) -> KafkaResult<Option<Timestamp>> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition, Offset::Offset(offset))?;
        self.consumer.assign(&list)?;
        let polled = self.consumer.poll(ASK_TIMEOUT).transpose();
        self.consumer.unassign()?;
        Ok(polled?.and_then(|message| message.timestamp().to_millis()).map(Timestamp))
    }
}
