//! Reading: one consumer, assigned by hand, whose thread fills a bounded buffer for each log that is followed.

use super::settings::KafkaSettings;
use super::{ASK_TIMEOUT, Ends, number, place, position_of_end};
use crate::domain::id::{Log, PartitionId, Position};
use crate::domain::limits::{RECORD_BYTES_MAX, TAIL_BYTES_MAX};
use crate::domain::time::Timestamp;
use crate::journal::port::{ReadError, Record};
use bytes::Bytes;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a read waits for a record that is known to exist; the caller asks again.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often a record may be missing where it must stand before the log has a gap.
const SKIPS_MAX: u32 = 4;
const POLL: Duration = Duration::from_millis(100);
/// How long the thread pauses behind an error, before it looks again.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Follower {
    settings: KafkaSettings,
    consumer: BaseConsumer,
    logs: Mutex<Vec<Option<Followed>>>,
    arrived: Condvar,
    ends: Arc<Ends>,
    stopped: AtomicBool,
}

/// A log that is followed: what has arrived and was not read yet.
#[derive(Debug)]
struct Followed {
    /// Behind which the buffer begins.
    after: Position,
    records: VecDeque<Record>,
    bytes: usize,
    paused: bool,
    /// How often in a row something else came than what must come next.
    skips: u32,
    failure: Option<ReadError>,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Follower")
    }
}

/// Whether an error means that a record is not where it must be.
fn tells_of_a_gap(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
}

impl Followed {
    const fn new(after: Position) -> Self {
        Self { after, records: VecDeque::new(), bytes: 0, paused: false, skips: 0, failure: None }
    }

    /// The last position that has arrived.
    fn reached(&self) -> Position {
        self.records.back().map_or(self.after, |record| record.position)
    }

    fn push(&mut self, record: Record) {
        self.skips = 0;
        self.bytes += record.payload.len();
        self.records.push_back(record);
    }

    fn take(&mut self, records_max: usize, bytes_max: usize) -> Vec<Record> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while taken.len() < records_max {
            let Some(next) = self.records.front() else { break };
            if !taken.is_empty() && bytes + next.payload.len() > bytes_max {
                break;
            }
            bytes += next.payload.len();
            let Some(record) = self.records.pop_front() else { break };
            self.after = record.position;
            taken.push(record);
        }
        self.bytes -= bytes;
        taken
    }
}

impl Follower {
    pub(super) fn start(settings: &KafkaSettings, ends: Arc<Ends>) -> KafkaResult<Arc<Self>> {
        let bytes_max = (RECORD_BYTES_MAX + 64 * 1024).to_string();
        let consumer: BaseConsumer = settings
            .client()
            // Never joined: partitions are assigned by hand and nothing is committed.
            .set("group.id", format!("{}.reader", settings.group))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.queue.backoff.ms", "5")
            .set("queued.max.messages.kbytes", "65536")
            .set("fetch.message.max.bytes", &bytes_max)
            .create()?;
        let logs = ends.0.iter().map(|_| None).collect();
        let follower = Arc::new(Self {
            settings: settings.clone(),
            consumer,
            logs: Mutex::new(logs),
            arrived: Condvar::new(),
            ends,
            stopped: AtomicBool::new(false),
        });
        let pump = Arc::clone(&follower);
        let started = std::thread::Builder::new().name("kafka-reader".to_owned()).spawn(move || pump.run());
        if let Err(error) = started {
            return Err(rdkafka::error::KafkaError::ClientCreation(error.to_string()));
        }
        Ok(follower)
    }

    pub(super) const fn consumer(&self) -> &BaseConsumer {
        &self.consumer
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Followed>>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what has arrived behind a position; waits a little for what must be there.
    pub(super) fn read(
        &self,
        log: Log,
        after: Position,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Record>, ReadError> {
        self.follow(log, after);
        let at = number(log);
        let waits = |logs: &mut Vec<Option<Followed>>| {
            let known = logs.get(at).and_then(Option::as_ref);
            known.is_some_and(|known| known.records.is_empty() && known.failure.is_none() && known.after == after)
        };
        let logs = self.lock();
        let (mut logs, _) =
            self.arrived.wait_timeout_while(logs, PATIENCE, waits).unwrap_or_else(PoisonError::into_inner);
        let Some(Some(known)) = logs.get_mut(at) else { return Ok(Vec::new()) };
        if known.after != after {
            return Ok(Vec::new());
        }
        if known.records.is_empty()
            && let Some(failure) = &known.failure
        {
            return Err(failure.clone());
        }
        let taken = known.take(records_max, bytes_max);
        let resumes = known.paused && known.bytes < TAIL_BYTES_MAX / 2;
        if resumes {
            known.paused = false;
            self.told(self.consumer.resume(&self.list(log, None)), "go on reading");
        }
        Ok(taken)
    }

    /// Makes sure that a log is followed from behind a position.
    pub(super) fn follow(&self, log: Log, after: Position) {
        let mut logs = self.lock();
        let Some(place) = logs.get_mut(number(log)) else { return };
        if place.as_ref().is_some_and(|known| known.after == after) {
            return;
        }
        if place.take().is_some() {
            self.told(self.consumer.incremental_unassign(&self.list(log, None)), "stop reading a log");
        }
        *place = Some(Followed::new(after));
        let from = Offset::Offset(i64::try_from(after.0).unwrap_or(i64::MAX));
        self.told(self.consumer.incremental_assign(&self.list(log, Some(from))), "read a log");
    }

    pub(super) fn unfollow(&self, log: Log) {
        let mut logs = self.lock();
        if logs.get_mut(number(log)).and_then(Option::take).is_some() {
            self.told(self.consumer.incremental_unassign(&self.list(log, None)), "stop reading a log");
        }
    }

    /// What is missing between a position and the first record that is still there, or behind the last one.
    fn gap(&self, log: Log, after: Position) -> KafkaResult<Option<ReadError>> {
        let (topic, partition) = place(&self.settings, log);
        let (first, end) = self.consumer.fetch_watermarks(topic, partition, ASK_TIMEOUT)?;
        let first = Position(u64::try_from(first).unwrap_or(0)).next();
        let end = position_of_end(end);
        Ok(if first > after.next() {
            Some(ReadError::Gap { log, expected: after.next(), found: first })
        } else if end < after {
            Some(ReadError::CutBack { log, read: after, end })
        } else {
            None
        })
    }

    fn list(&self, log: Log, from: Option<Offset>) -> TopicPartitionList {
        let (topic, partition) = place(&self.settings, log);
        let mut list = TopicPartitionList::new();
        match from {
            // The topic's name is valid and the offset is one: nothing else is refused.
            Some(offset) => drop(list.add_partition_offset(topic, partition, offset)),
            None => drop(list.add_partition(topic, partition)),
        }
        list
    }

    fn told(&self, result: KafkaResult<()>, what: &str) {
        if let Err(error) = result {
            tracing::error!(error = %error, "the Kafka client does not {what}");
        }
    }

    fn run(&self) {
        while !self.stopped.load(Ordering::Acquire) {
            match self.consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => self.take_in(&message),
                Some(Err(error)) => {
                    tracing::warn!(error = %error, "reading the journal is disturbed");
                    // Brokers that are away say nothing of gaps, and asking each log of them would take seconds.
                    if error.rdkafka_error_code().is_some_and(tells_of_a_gap) {
                        self.look_for_gaps();
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    fn take_in(&self, message: &BorrowedMessage<'_>) {
        let Some(log) = self.log_of(message) else { return };
        let position = Position(u64::try_from(message.offset()).unwrap_or(0)).next();
        let recorded_at = Timestamp(message.timestamp().to_millis().unwrap_or(0));
        let payload = Bytes::copy_from_slice(message.payload().unwrap_or_default());
        let mut logs = self.lock();
        let Some(Some(known)) = logs.get_mut(number(log)) else { return };
        let expected = known.reached().next();
        if position < expected || known.failure.is_some() {
            // Left over from before the log was followed from elsewhere.
            return;
        }
        if position > expected {
            known.skips += 1;
            if known.skips < SKIPS_MAX {
                // One record may be left over from an assignment that is no more: the log is read again from here.
                let from = Offset::Offset(i64::try_from(known.reached().0).unwrap_or(i64::MAX));
                self.told(self.consumer.incremental_unassign(&self.list(log, None)), "stop reading a log");
                self.told(self.consumer.incremental_assign(&self.list(log, Some(from))), "read a log");
                known.paused = false;
                return;
            }
            known.failure = Some(ReadError::Gap { log, expected, found: position });
        } else {
            known.push(Record { position, recorded_at, payload });
        }
        if known.bytes > TAIL_BYTES_MAX && !known.paused {
            known.paused = true;
            self.told(self.consumer.pause(&self.list(log, None)), "pause reading");
        }
        drop(logs);
        self.ends.advance(log, position);
        self.arrived.notify_all();
    }

    fn log_of(&self, message: &BorrowedMessage<'_>) -> Option<Log> {
        if message.topic() == self.settings.control_topic {
            return Some(Log::Control);
        }
        let partition = u32::try_from(message.partition()).ok()?;
        (message.topic() == self.settings.journal_topic).then_some(Log::Partition(PartitionId(partition)))
    }

    /// Behind an error: a log whose next record is gone has failed, and says what was lost.
    fn look_for_gaps(&self) {
        let followed: Vec<(Log, Position)> = {
            let logs = self.lock();
            let known = logs.iter().enumerate().filter_map(|(at, known)| Some((at, known.as_ref()?.reached())));
            known.map(|(at, reached)| (super::log(at), reached)).collect()
        };
        for (log, reached) in followed {
            let gap = self.gap(log, reached);
            let mut logs = self.lock();
            let Some(Some(known)) = logs.get_mut(number(log)) else { continue };
            if known.reached() != reached || known.failure.is_some() {
                continue;
            }
            match gap {
                Ok(Some(gap)) => {
                    tracing::error!(log = %log, error = %gap, "records of the journal are gone");
                    known.failure = Some(gap);
                    drop(logs);
                    self.arrived.notify_all();
                    // The end moves so that whoever waits for it looks, and finds the failure.
                    self.ends.advance(log, reached.next());
                }
                // The client has stopped reading the log that it complained of, and does not say which: all are read
                // again, and a gap that could not be seen is complained of again.
                Ok(None) | Err(_) => {
                    let from = Offset::Offset(i64::try_from(reached.0).unwrap_or(i64::MAX));
                    self.told(self.consumer.incremental_unassign(&self.list(log, None)), "stop reading a log");
                    self.told(self.consumer.incremental_assign(&self.list(log, Some(from))), "read a log");
                    known.paused = false;
                }
            }
        }
    }
}
