//! How far behind everything is: what the logs hold, what was folded, what is stored, and what the intake still has.
//!
//! Readings are the storage's own. What could not be read for a while is told as unknown, never as the last value.

use super::clock;
use super::partitions::{Held, Partitions};
use crate::domain::id::{Log, PartitionId, Position};
use crate::domain::limits::CLOCK_STEP_MAX;
use crate::domain::time::{Millis, Timestamp};
use crate::journal::{Journal, ReadError};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How often a shared journal is asked where its logs end.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// A reading that is older than this says nothing of the present.
const STALE_AFTER: Millis = Millis::seconds(10);

/// How far one partition is that is folded here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionLag {
    /// Which one.
    pub partition: PartitionId,
    /// The last record of its log.
    pub head: Position,
    /// The last record that was folded.
    pub folded: Position,
    /// The last record whose rows are stored.
    pub stored: Position,
    /// The fold's clock: everything before it is taken in.
    pub clock: Timestamp,
}

impl PartitionLag {
    /// Reads how far a partition is; its position first, so that a lag is never less than it was.
    pub fn read(journal: &Journal, held: &Held) -> Self {
        let gauges = &held.processor.gauges;
        let partition = held.processor.partition;
        let folded = Position(gauges.position.load(Ordering::Acquire));
        Self {
            partition,
            folded,
            stored: held.writer.stored(),
            clock: Timestamp(gauges.clock.load(Ordering::Relaxed)),
            head: journal.end(Log::Partition(partition)).max(folded),
        }
    }

    /// How far the fold's clock is ahead of `now`, negative where it is behind; nothing where nothing was folded yet.
    pub fn ahead_of(&self, now: Timestamp) -> Option<Millis> {
        (self.clock > Timestamp::MIN).then(|| self.clock.since(now))
    }

    /// Records that wait to be folded.
    pub const fn records(&self) -> u64 {
        self.head.0.saturating_sub(self.folded.0)
    }

    /// Records that were folded and wait to be stored.
    pub const fn unstored(&self) -> u64 {
        self.folded.0.saturating_sub(self.stored.0)
    }
}

/// How far one partition of the intake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntakePartition {
    /// The partition.
    pub partition: i32,
    /// The offset behind its last message.
    pub head: i64,
    /// The offset of the first message that is not in the journal yet.
    pub committed: i64,
    /// Everything that was taken in until then is in the journal; absent where nothing was copied yet.
    pub through: Option<Timestamp>,
}

impl IntakePartition {
    /// Messages that wait to be copied.
    pub fn messages(&self) -> u64 {
        u64::try_from(self.head.saturating_sub(self.committed)).unwrap_or(0)
    }
}

/// How far the intake has come, as it was last read; shared with whoever reads it.
#[derive(Clone, Debug, Default)]
pub struct IntakeClock {
    inner: Arc<IntakeReadings>,
}

#[derive(Debug, Default)]
struct IntakeReadings {
    through: AtomicI64,
    last: Mutex<Option<(Timestamp, Vec<IntakePartition>)>>,
}

impl IntakeClock {
    /// Notes a reading that began at `now`.
    pub fn set(&self, partitions: Vec<IntakePartition>, now: Timestamp) {
        let through = intake_through(&partitions, now);
        self.inner.through.store(through.map_or(0, |through| through.0.max(1)), Ordering::Relaxed);
        *self.inner.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, partitions));
    }

    /// Up to when everything is in the journal, by the last reading; none where there is no intake.
    pub fn through(&self) -> Option<Timestamp> {
        let through = self.inner.through.load(Ordering::Relaxed);
        (through != 0).then_some(Timestamp(through))
    }

    /// The last reading; none where there never was one, and an error where it is too old to be told.
    ///
    /// # Errors
    /// When it was made.
    pub fn reading(&self) -> Result<Vec<IntakePartition>, Timestamp> {
        let last = self.inner.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            None => Ok(Vec::new()),
            Some((at, partitions)) if is_fresh(*at) => Ok(partitions.clone()),
            Some((at, _)) => Err(*at),
        }
    }
}

/// How far the intake as a whole has come: the least record time up to which everything is durable, over the partitions
/// that hold more; the time of the reading where none does.
fn intake_through(partitions: &[IntakePartition], now: Timestamp) -> Option<Timestamp> {
    if partitions.is_empty() {
        return None;
    }
    let behind = partitions.iter().filter(|partition| partition.messages() > 0);
    // A partition of which nothing was copied yet holds everything back.
    Some(behind.map(|partition| partition.through.unwrap_or(Timestamp(0))).min().unwrap_or(now))
}

/// Tells whether the journal's storage answers.
#[derive(Clone, Debug)]
pub struct Answers(Arc<AtomicI64>);

impl Answers {
    /// Begins with a journal that was opened just now.
    pub fn from_now() -> Self {
        Self(Arc::new(AtomicI64::new(clock::now().0)))
    }

    /// Tells whether it answered lately.
    pub fn lately(&self) -> bool {
        is_fresh(Timestamp(self.0.load(Ordering::Relaxed)))
    }

    fn note(&self) {
        self.0.store(clock::now().0, Ordering::Relaxed);
    }
}

fn is_fresh(at: Timestamp) -> bool {
    clock::now() < at.plus(STALE_AFTER)
}

/// How far the clock of the fold that is furthest ahead is ahead of `now`; nothing where nothing was folded yet.
pub fn folds_ahead_of(journal: &Journal, partitions: &Partitions, now: Timestamp) -> Option<Millis> {
    partitions.held().iter().filter_map(|held| PartitionLag::read(journal, held).ahead_of(now)).max()
}

/// Warns where the folds' clock is ahead of this node's by more than a small step: once, until it is not any more.
fn warn_of_ahead(ahead: Option<Millis>, warned: &mut bool) {
    let is_ahead = ahead.is_some_and(|ahead| ahead > CLOCK_STEP_MAX);
    if is_ahead && !*warned {
        tracing::warn!(
            ahead_seconds = ahead.unwrap_or_default().0 / 1_000,
            "the folds' clock is ahead of this node's: events are late until it has come there. Where a clock was wrong and is right \
             again, stop every node and run `highwater repair --clock-to TIME`"
        );
    }
    *warned = is_ahead;
}

/// Asks a journal again and again where its logs end, until `stop` says so: what is read ahead is bounded, so that a fold
/// that is far behind would not know how far.
pub async fn watch_ends(journal: Journal, partitions: Partitions, answers: Answers, mut stop: watch::Receiver<bool>) {
    let mut warned = false;
    while !*stop.borrow() {
        warn_of_ahead(folds_ahead_of(&journal, &partitions, clock::now()), &mut warned);
        if journal.is_shared() {
            let held: Vec<Log> =
                partitions.held().iter().map(|held| Log::Partition(held.processor.partition)).collect();
            let asking = journal.clone();
            let asked = tokio::task::spawn_blocking(move || ask(&asking, &held)).await;
            match asked {
                Ok(Ok(())) => answers.note(),
                Ok(Err(error)) => tracing::debug!(error = %error, "the journal does not say where its logs end"),
                Err(error) => tracing::error!(error = %error, "asking the journal for its ends ended badly"),
            }
        } else {
            answers.note();
        }
        tokio::select! {
            () = tokio::time::sleep(ASK_EVERY) => {}
            _ = stop.changed() => return,
        }
    }
}

fn ask(journal: &Journal, held: &[Log]) -> Result<(), ReadError> {
    journal.end_now(Log::Control)?;
    held.iter().try_for_each(|log| journal.end_now(*log).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(head: i64, committed: i64, through: Option<i64>) -> IntakePartition {
        IntakePartition { partition: 0, head, committed, through: through.map(Timestamp) }
    }

    #[test]
    fn the_intake_is_as_far_as_the_partition_that_is_furthest_behind() {
        let now = Timestamp(1_000);
        let check = |partitions: &[IntakePartition], through: Option<i64>| {
            assert_eq!(intake_through(partitions, now), through.map(Timestamp), "{partitions:?}");
        };
        check(&[], None);
        check(&[partition(0, 0, None)], Some(1_000));
        check(&[partition(9, 9, Some(500))], Some(1_000));
        check(&[partition(9, 8, Some(500)), partition(9, 9, Some(100))], Some(500));
        check(&[partition(9, 8, Some(500)), partition(9, 0, None)], Some(0));
        // Messages that retention removed were never copied, and none of them is waited for.
        check(&[partition(9, 12, Some(500))], Some(1_000));
    }

    #[test]
    fn an_old_reading_is_not_told() {
        let intake = IntakeClock::default();
        assert_eq!((intake.reading(), intake.through()), (Ok(Vec::new()), None));
        let fresh = clock::now();
        intake.set(vec![partition(3, 1, Some(7))], fresh);
        assert_eq!((intake.reading().unwrap().len(), intake.through()), (1, Some(Timestamp(7))));
        let old = fresh.minus(STALE_AFTER);
        intake.set(vec![partition(3, 1, Some(7))], old);
        assert_eq!(intake.reading(), Err(old));
        // Time is held back for as long as nobody knows better.
        assert_eq!(intake.through(), Some(Timestamp(7)));
    }
}
