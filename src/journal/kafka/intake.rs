//! The public topic: services produce to it as they like, and the nodes share its partitions out.
//!
//! Where reading a partition begins is decided before it is read (`intake_place.rs`): a partition that comes to this member
//! waits until then, and so do all of them behind an error that tells of messages which are not there.
//! Offsets are committed by whoever has made the messages durable elsewhere, each with the record time up to which that
//! is so, so that every node can tell how far the intake as a whole has come.

use super::intake_place::{IntakePlace, LastRead, Probe};
use super::settings::KafkaSettings;
use super::topics;
use super::{ASK_TIMEOUT, OpenError};
use crate::domain::control::intake::GapCause;
use crate::domain::limits::INTAKE_BATCH_MESSAGES;
use crate::domain::time::{Millis, Timestamp};
use rdkafka::ClientContext;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
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

/// Where a group begins to read a partition that it never read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IntakeStart {
    /// At the first message that is still there.
    #[default]
    Earliest,
    /// Behind the last one.
    Latest,
}

/// How long a message that was read is taken to be there still.
const WITNESS_EVERY: Millis = Millis::seconds(10);

/// The partitions of this member.
#[derive(Debug, Default)]
struct IntakeShare {
    /// Those whose beginning is not decided yet.
    waiting: BTreeSet<i32>,
    reading: BTreeSet<i32>,
    /// How far this member has read any partition since it began.
    reached: BTreeMap<i32, LastRead>,
    /// Those that this member went on to hold since it read them: nobody else has read them further.
    kept: BTreeSet<i32>,
    /// Messages that were read, with when they were last known to be there: where another one stands in the place of one,
    /// the topic was made anew, and the client may have gone on in the new one without a word.
    witnesses: BTreeMap<i32, (LastRead, Timestamp)>,
    /// Those of which the witness is gone.
    suspects: BTreeMap<i32, LastRead>,
}

/// Takes the share that the group gives, and hears of commits that nobody waited for.
#[derive(Default)]
struct IntakeGroup(Mutex<IntakeShare>);

impl IntakeGroup {
    fn lock(&self) -> MutexGuard<'_, IntakeShare> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets partitions, and returns those of them that are being read.
    fn give_back(&self, topic: &str, partitions: impl Iterator<Item = i32>) -> TopicPartitionList {
        let mut share = self.lock();
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            share.waiting.remove(&partition);
            share.kept.remove(&partition);
            share.witnesses.remove(&partition);
            share.suspects.remove(&partition);
            if share.reading.remove(&partition) {
                list.add_partition(topic, partition);
            }
        }
        list
    }
}

impl ClientContext for IntakeGroup {}

impl ConsumerContext for IntakeGroup {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<i32> = list.elements().iter().map(|place| place.partition()).collect();
        let topic = list.elements().first().map(|place| place.topic().to_owned()).unwrap_or_default();
        let done = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.lock().waiting.extend(partitions);
            // Nothing is read before it is decided from where.
            consumer.incremental_assign(&TopicPartitionList::new())
        } else {
            consumer.incremental_unassign(&self.give_back(&topic, partitions.into_iter()))
        };
        if let Err(error) = done {
            tracing::warn!(error = %error, "the intake's partitions could not be shared out anew");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::warn!(error = %error, "the intake could not commit; messages may be read again");
        }
    }
}

/// A member of the group that reads the intake.
pub struct IntakeReader {
    consumer: BaseConsumer<IntakeGroup>,
    probe: Probe,
    topic: String,
    start: IntakeStart,
}

/// Tells of an error behind which the client reads a partition no more, without a word on which one.
fn ends_reading(error: &KafkaError) -> bool {
    let ends = [
        RDKafkaErrorCode::AutoOffsetReset,
        RDKafkaErrorCode::OffsetOutOfRange,
        RDKafkaErrorCode::LogTruncation,
        RDKafkaErrorCode::NoOffset,
        RDKafkaErrorCode::UnknownPartition,
        RDKafkaErrorCode::UnknownTopic,
        RDKafkaErrorCode::UnknownTopicId,
        RDKafkaErrorCode::UnknownTopicOrPartition,
    ];
    error.rdkafka_error_code().is_some_and(|code| ends.contains(&code))
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
        let consumer: BaseConsumer<IntakeGroup> = settings
            .client()
            .set("group.id", format!("{}.intake", settings.group))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "2000")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "50")
            .set("fetch.queue.backoff.ms", "5")
            // Enough for one batch of copies; the client keeps about a KiB for each message that waits.
            .set("queued.min.messages", INTAKE_BATCH_MESSAGES.to_string())
            .set("queued.max.messages.kbytes", "16384")
            .create_with_context(IntakeGroup::default())
            .map_err(failed)?;
        consumer.subscribe(&[&settings.intake_topic]).map_err(failed)?;
        let probe = Probe::new(settings).map_err(failed)?;
        Ok(Self { consumer, probe, topic: settings.intake_topic.clone(), start })
    }

    fn share(&self) -> MutexGuard<'_, IntakeShare> {
        self.consumer.context().lock()
    }

    /// The partitions of this member that are not read before [`Self::place`] has said from where.
    pub fn waiting(&self) -> Vec<i32> {
        let suspects = std::mem::take(&mut self.share().suspects);
        if !suspects.is_empty() {
            self.set_back(Some(&suspects));
        }
        self.share().waiting.iter().copied().collect()
    }

    /// Names a message that was read and was not looked at for a while, with its partition.
    fn witness(&self, now: Timestamp) -> Option<(i32, LastRead)> {
        let mut share = self.share();
        let IntakeShare { reading, reached, kept, witnesses, .. } = &mut *share;
        for partition in reading.intersection(kept) {
            let Some(last) = reached.get(partition) else { continue };
            let (witness, seen_at) = *witnesses.entry(*partition).or_insert((*last, now));
            if seen_at.plus(WITNESS_EVERY) <= now {
                // A later message takes its place, whatever comes of this look.
                witnesses.insert(*partition, (*last, now));
                return Some((*partition, witness));
            }
        }
        None
    }

    /// Finds where reading a partition begins, and what is gone before there; blocks. Where the group has committed nothing,
    /// though it has read the partition, that was at least until `read_until`.
    ///
    /// # Errors
    /// Where the brokers do not answer: the partition goes on waiting.
    pub fn place(&self, partition: i32, read_until: Option<Timestamp>, now: Timestamp) -> KafkaResult<IntakePlace> {
        let (reached, is_kept) = {
            let share = self.share();
            (share.reached.get(&partition).copied(), share.kept.contains(&partition))
        };
        let last = match reached.filter(|_| is_kept) {
            Some(reached) => Some(reached),
            None => self.committed(partition)?,
        };
        let begun = read_until.map(|at| LastRead { next: 0, recorded_at: None, read_until: Some(at) });
        let known = self.probe.ask(partition, (last, reached.or(begun)))?;
        self.probe.place(partition, &known, (self.start, now))
    }

    fn committed(&self, partition: i32) -> KafkaResult<Option<LastRead>> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        let committed = self.consumer.committed_offsets(list, ASK_TIMEOUT)?;
        let Some(place) = committed.find_partition(&self.topic, partition) else { return Ok(None) };
        place.error()?;
        Ok(match place.offset() {
            Offset::Offset(next) => Some(LastRead::committed(next, place.metadata())),
            Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => None,
        })
    }

    /// Begins to read a partition that waits; what is gone before there is committed as passed over. Blocks.
    ///
    /// # Errors
    /// Where the brokers did not take the commit, or the client does not begin: the partition goes on waiting.
    pub fn begin(&self, partition: i32, place: &IntakePlace) -> KafkaResult<()> {
        if !self.share().waiting.contains(&partition) {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        let mut from = list.add_partition(&self.topic, partition);
        from.set_offset(Offset::Offset(place.begin))?;
        if let Some(metadata) = &place.metadata {
            from.set_metadata(metadata);
            self.consumer.commit(&list, CommitMode::Sync)?;
        }
        self.consumer.incremental_assign(&list)?;
        let mut share = self.share();
        if share.waiting.remove(&partition) {
            share.reading.insert(partition);
        }
        if place.gap.is_some() {
            share.reached.remove(&partition);
            share.kept.remove(&partition);
            share.witnesses.remove(&partition);
        }
        Ok(())
    }

    /// Lets partitions wait until it is known again where they go on: all of them, or those whose witness is gone, which go
    /// back to there.
    fn set_back(&self, suspects: Option<&BTreeMap<i32, LastRead>>) {
        let mut list = TopicPartitionList::new();
        let mut share = self.share();
        let is_meant = |partition: &i32| suspects.is_none_or(|suspects| suspects.contains_key(partition));
        let set_back: Vec<i32> = share.reading.iter().copied().filter(is_meant).collect();
        for partition in set_back {
            list.add_partition(&self.topic, partition);
            share.reading.remove(&partition);
            share.waiting.insert(partition);
            if let Some(witness) = suspects.and_then(|suspects| suspects.get(&partition)) {
                share.reached.insert(partition, *witness);
            }
        }
        drop(share);
        if let Err(error) = self.consumer.incremental_unassign(&list) {
            tracing::warn!(error = %error, "the intake's partitions could not be set back");
        }
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
                    if ends_reading(&error) {
                        self.set_back(None);
                    }
                    break;
                }
            }
            wait = Duration::ZERO;
        }
        let mut share = self.share();
        for (partition, (next, recorded_at)) in &progress {
            share.reached.insert(*partition, LastRead::message(*next, *recorded_at));
            if share.reading.contains(partition) || share.waiting.contains(partition) {
                share.kept.insert(*partition);
            }
        }
        drop(share);
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
    probe: Probe,
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
        Ok(Self { consumer, probe: Probe::new(settings)?, topic: settings.intake_topic.clone() })
    }

    /// Looks whether a message that a reader has read is still there, one at a time; blocks. Where another one stands in its
    /// place, the reader lets the partition wait.
    ///
    /// # Errors
    /// Where the brokers do not answer.
    pub fn look_back(&self, reader: &IntakeReader, now: Timestamp) -> KafkaResult<()> {
        let Some((partition, witness)) = reader.witness(now) else { return Ok(()) };
        let known = self.probe.ask(partition, (Some(witness), None))?;
        if known.place(IntakeStart::Earliest).1 == Some(GapCause::Replaced) {
            reader.share().suspects.insert(partition, witness);
        }
        Ok(())
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
                through = self.probe.message(place.partition(), next)?.map(|(_, at)| at);
            }
            lags.push(IntakeLag { partition: place.partition(), head: end, next: next.max(first), through });
        }
        Ok(lags)
    }
}
