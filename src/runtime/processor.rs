//! One partition's loop: read what is waiting, ask the dedup index, apply, hand the effects on.

use super::clock;
use super::courier::Post;
use super::dispatcher::Dispatch;
use super::drops::Drops;
use super::hub::Hub;
use super::writer::Writer;
use crate::dedup::Index;
use crate::domain::event::fingerprints;
use crate::domain::id::{Log, PartitionId, Position, Stamp};
use crate::domain::limits::{READ_BYTES_MAX, READ_RECORDS_MAX};
use crate::domain::partition::effect::{Counts, DeliveryStatus, Effects};
use crate::domain::partition::fact::{ENGINE_VERSION, Fact, FactError, Note};
use crate::domain::partition::{Partition, RestoreError, SNAPSHOT_FORMAT, Seen};
use crate::domain::time::Timestamp;
use crate::journal::{Journal, ReadError, Record};
use crate::snapshot::Snapshot;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// A partition's fold with its dedup index: the one step that live, replay and verify share.
#[derive(Debug)]
pub struct Fold {
    /// The engine.
    pub partition: Partition,
    index: Index,
    key: [u8; 16],
    seen: Vec<Seen>,
    archives: bool,
}

/// Why a log cannot be folded.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// It cannot be read.
    #[error("read the log")]
    Read(#[from] ReadError),
    /// A record is no fact that this release reads.
    #[error("record {position} of partition {}", partition.0)]
    Fact {
        /// Whose log it is.
        partition: PartitionId,
        /// The record.
        position: Position,
        /// What is wrong with it.
        source: FactError,
    },
    /// A later release folds on from here.
    #[error(
        "record {position} of partition {} asks for engine version {version}, this release folds up to {ENGINE_VERSION}: \
         update this node",
        partition.0
    )]
    TooNew {
        /// Whose log it is.
        partition: PartitionId,
        /// The record.
        position: Position,
        /// What it asks for.
        version: u32,
    },
}

impl Fold {
    /// Makes the state before the first record.
    pub fn new(id: PartitionId, partition_count: u32, key: [u8; 16]) -> Self {
        let partition = Partition::new(id, partition_count);
        let index = Index::new(partition.dedup_horizon());
        Self { partition, index, key, seen: Vec::new(), archives: false }
    }

    /// Reads a state back from a snapshot.
    ///
    /// # Errors
    /// Where the snapshot is damaged or of a later release.
    pub fn restore(id: PartitionId, key: [u8; 16], snapshot: &Snapshot) -> Result<Self, FoldRestoreError> {
        let partition = Partition::restore(id, snapshot.format, snapshot.part("engine"))?;
        let index = Index::restore(partition.dedup_horizon(), snapshot.part("dedup"))?;
        Ok(Self { partition, index, key, seen: Vec::new(), archives: false })
    }

    /// Writes the state.
    ///
    /// # Errors
    /// As [`Partition::snapshot`].
    pub fn snapshot(&self) -> Result<Snapshot, RestoreError> {
        Ok(Snapshot {
            position: self.partition.position(),
            format: SNAPSHOT_FORMAT,
            parts: vec![("engine".into(), self.partition.snapshot()?), ("dedup".into(), self.index.snapshot())],
        })
    }

    /// Hands over every event that is counted, too, where the store archives them.
    #[must_use]
    pub fn archiving(self, archives: bool) -> Self {
        Self { archives, ..self }
    }

    /// Effects to take records into.
    pub fn effects(&self) -> Effects {
        Effects { events: self.archives.then(Vec::new), ..Effects::default() }
    }

    /// How many identities the dedup index remembers.
    pub fn remembered(&self) -> usize {
        self.index.len()
    }

    /// Takes in records, in order, and hands over all their effects.
    ///
    /// # Errors
    /// Where a record is no fact that this release reads; what stood before it is taken in.
    pub fn take(&mut self, records: &[Record], effects: &mut Effects) -> Result<(), FoldError> {
        let outcome = self.absorb(records, effects);
        self.flush(effects);
        outcome
    }

    /// As [`Self::take`], but the rows of windows and instances come with the next [`Self::flush`] only.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn absorb(&mut self, records: &[Record], effects: &mut Effects) -> Result<(), FoldError> {
        let mut outcome = Ok(());
        for record in records {
            match Fact::decode(&record.payload) {
                Ok(Fact::Note(Note::EngineVersion { version })) if version > ENGINE_VERSION => {
                    let (partition, position) = (self.partition.id(), record.position);
                    outcome = Err(FoldError::TooNew { partition, position, version });
                    break;
                }
                Ok(fact) => {
                    let stamp = Stamp { position: record.position, recorded_at: record.recorded_at };
                    self.take_fact(stamp, &fact, effects);
                }
                Err(source) => {
                    let partition = self.partition.id();
                    outcome = Err(FoldError::Fact { partition, position: record.position, source });
                    break;
                }
            }
        }
        outcome
    }

    /// Hands over the rows of everything that changed since the last call.
    pub fn flush(&mut self, effects: &mut Effects) {
        self.partition.flush(effects);
    }

    /// Takes in one fact. Call [`Self::flush`] behind the last of a batch.
    pub fn take_fact(&mut self, stamp: Stamp, fact: &Fact, effects: &mut Effects) {
        if stamp.position <= self.partition.position() {
            return;
        }
        self.seen.clear();
        if let Fact::UsageRecorded(frame) = fact {
            let identities = fingerprints(frame, &self.key, &self.partition.epochs(frame));
            let bases = self.partition.bases(frame, stamp.recorded_at);
            let clock = self.partition.clock_with(stamp.recorded_at);
            self.index.set_horizon(self.partition.dedup_horizon());
            self.index.classify(&identities, &bases, clock, &mut self.seen);
        }
        self.partition.apply(stamp, fact, &self.seen, effects);
    }
}

/// Why a snapshot is not a state.
#[derive(Debug, thiserror::Error)]
pub enum FoldRestoreError {
    /// The engine's part.
    #[error("restore the engine")]
    Engine(#[from] RestoreError),
    /// The dedup index's part.
    #[error("restore the dedup index")]
    Dedup(#[from] crate::dedup::RestoreError),
}

/// What others may know of a partition at any time.
#[derive(Debug)]
pub struct Gauges {
    /// The last record that was folded.
    pub position: AtomicU64,
    /// The fold's clock.
    pub clock: AtomicI64,
    /// When time alone will change the state.
    pub next_deadline: AtomicI64,
    /// How many notifications are owed.
    pub owed: AtomicU64,
    /// How many identities are remembered.
    pub remembered: AtomicU64,
    /// Up to where the control plane is known.
    pub control_through: AtomicU64,
    /// Whether the clock is held back by an intake.
    pub bounded: AtomicBool,
    /// How the log asks to be folded.
    pub engine_version: AtomicU32,
    /// Whether the fold has stopped for good.
    pub failed: AtomicBool,
}

impl Gauges {
    fn of(fold: &Fold) -> Self {
        let gauges = Self {
            position: AtomicU64::new(0),
            clock: AtomicI64::new(0),
            next_deadline: AtomicI64::new(i64::MAX),
            owed: AtomicU64::new(0),
            remembered: AtomicU64::new(0),
            control_through: AtomicU64::new(0),
            bounded: AtomicBool::new(false),
            engine_version: AtomicU32::new(0),
            failed: AtomicBool::new(false),
        };
        gauges.set(fold);
        gauges
    }

    fn set(&self, fold: &Fold) {
        let partition = &fold.partition;
        self.clock.store(partition.clock().0, Ordering::Relaxed);
        self.next_deadline.store(partition.next_deadline().unwrap_or(Timestamp::MAX).0, Ordering::Relaxed);
        self.owed.store((partition.owed_count() + partition.outbox().count()) as u64, Ordering::Relaxed);
        self.remembered.store(fold.remembered() as u64, Ordering::Relaxed);
        self.control_through.store(partition.control_through().0, Ordering::Relaxed);
        self.bounded.store(partition.is_bounded(), Ordering::Relaxed);
        self.engine_version.store(partition.engine_version(), Ordering::Relaxed);
        self.position.store(partition.position().0, Ordering::Release);
    }
}

/// What a processor is asked from outside.
#[derive(Debug)]
pub enum Ask {
    /// Write the state, once it is flushed.
    Snapshot(tokio::sync::oneshot::Sender<Result<Snapshot, RestoreError>>),
    /// Stop.
    Stop,
}

/// A running processor.
#[derive(Debug)]
pub struct Processor {
    /// Which partition it folds.
    pub partition: PartitionId,
    /// How far it is.
    pub gauges: Arc<Gauges>,
    asks: mpsc::UnboundedSender<Ask>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// What a processor works with.
#[derive(Debug)]
pub struct Wiring {
    /// Where facts come from.
    pub journal: Journal,
    /// Where rows go.
    pub writer: Writer,
    /// Where notifications go; nowhere for an import.
    pub dispatch: Option<mpsc::UnboundedSender<Dispatch>>,
    /// Where events for endpoints go; nowhere for an import.
    pub posts: Option<mpsc::UnboundedSender<Post>>,
    /// Where events for endpoints are summed up that were dropped.
    pub drops: Drops,
    /// Where batches are told to those who follow them.
    pub hub: Hub,
    /// Told of every batch's counts.
    pub counted: fn(&Counts),
}

impl Processor {
    /// Starts to fold a partition's log from where the state stands.
    ///
    /// # Errors
    /// Where the operating system gives no thread.
    pub fn start(fold: Fold, wiring: Wiring, runtime: tokio::runtime::Handle) -> std::io::Result<Self> {
        let partition = fold.partition.id();
        let gauges = Arc::new(Gauges::of(&fold));
        let (asks, asked) = mpsc::unbounded_channel();
        let told = Arc::clone(&gauges);
        let thread = std::thread::Builder::new().name(format!("fold-p{}", partition.0)).spawn(move || {
            if let Err(error) = run(fold, &wiring, asked, &told, &runtime) {
                told.failed.store(true, Ordering::Release);
                let cause = crate::telemetry::chain(&error);
                tracing::error!(partition = partition.0, error = %cause, "the fold stopped: repair the journal, then restart");
            }
        })?;
        Ok(Self { partition, gauges, asks, thread: Mutex::new(Some(thread)) })
    }

    /// Asks for the state at the next record boundary; `None` when the processor has stopped.
    pub async fn snapshot(&self) -> Option<Result<Snapshot, RestoreError>> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.asks.send(Ask::Snapshot(answer)).ok()?;
        answered.await.ok()
    }

    /// Stops the loop and waits for it; blocks.
    pub fn stop(&self) {
        // A processor that has stopped by itself needs no telling.
        if self.asks.send(Ask::Stop).is_err() {
            tracing::debug!(partition = self.partition.0, "the processor had stopped already");
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!(partition = self.partition.0, "the processor panicked");
        }
    }
}

/// A fold with what it has yet to hand to the store.
struct Running<'a> {
    fold: Fold,
    wiring: &'a Wiring,
    gauges: &'a Gauges,
    /// Rows that are handed over with the next flush.
    effects: Effects,
    /// Whether records were taken in since the last flush.
    unflushed: bool,
    /// Up to where everything was handed over.
    flushed: Position,
    /// Up to where the store was at the start.
    stored: Position,
}

fn run(
    fold: Fold,
    wiring: &Wiring,
    mut asks: mpsc::UnboundedReceiver<Ask>,
    gauges: &Gauges,
    runtime: &tokio::runtime::Handle,
) -> Result<(), FoldError> {
    let log = Log::Partition(fold.partition.id());
    let flushed = fold.partition.position();
    let (effects, stored) = (Effects::default(), wiring.writer.stored());
    let mut running = Running { fold, wiring, gauges, effects, unflushed: false, flushed, stored };
    // Nothing is sent before everything that the log held at the start is folded: it may settle what is owed.
    let mut start_end = wiring.journal.end_now(log);
    let mut announced = false;
    loop {
        while let Ok(ask) = asks.try_recv() {
            if !running.answer(ask) {
                return Ok(());
            }
        }
        let position = running.fold.partition.position();
        match &start_end {
            Ok(end) if !announced && position >= *end => {
                announced = true;
                announce_all(&running.fold, wiring);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(log = %log, error = %error, "nothing is sent before the end of the log is known");
                start_end = wiring.journal.end_now(log);
            }
        }
        let caught_up = wiring.journal.end(log) <= position;
        // While the store has enough to do, what changes again and again becomes one row.
        let lingers = wiring.writer.lingers();
        let may_write = lingers.is_zero() && (caught_up || wiring.writer.has_room());
        if may_write || wiring.writer.is_heavy(&running.effects) {
            running.flush();
        }
        if caught_up {
            let unflushed = running.unflushed;
            let stop = runtime.block_on(async {
                tokio::select! {
                    () = wiring.journal.wait_beyond(log, position) => false,
                    () = tokio::time::sleep(lingers), if unflushed => false,
                    ask = asks.recv() => ask.is_none_or(|ask| !running.answer(ask)),
                }
            });
            if stop {
                return Ok(());
            }
            continue;
        }
        let records = wiring.journal.read(log, position, READ_RECORDS_MAX, READ_BYTES_MAX)?;
        if !records.is_empty() {
            running.take(&records, announced)?;
        }
    }
}

impl Running<'_> {
    fn take(&mut self, records: &[Record], announced: bool) -> Result<(), FoldError> {
        let mut effects = self.fold.effects();
        let taken = self.fold.absorb(records, &mut effects);
        (self.wiring.counted)(&effects.counts);
        self.wiring.drops.note(&effects.webhooks, self.stored);
        if announced {
            announce(&self.fold, self.wiring, &effects);
            if !effects.transitions.is_empty() {
                tell_delay(records);
            }
        }
        self.effects.append(effects);
        self.unflushed = true;
        self.gauges.set(&self.fold);
        if taken.is_err() {
            self.flush();
        }
        taken
    }

    /// Hands everything that changed to the store; waits where too much waits there already.
    fn flush(&mut self) {
        if !std::mem::take(&mut self.unflushed) {
            return;
        }
        let mut effects = std::mem::take(&mut self.effects);
        self.fold.flush(&mut effects);
        let partition = &self.fold.partition;
        let progress = crate::store::Progress { position: partition.position(), clock: partition.clock() };
        let before = std::mem::replace(&mut self.flushed, progress.position);
        self.wiring.hub.tell(partition.id(), (before, progress.position), &effects);
        self.wiring.writer.push(effects, progress);
    }

    /// Answers; tells whether to go on. A state is written when its rows are handed over: it does not hold them.
    fn answer(&mut self, ask: Ask) -> bool {
        self.flush();
        match ask {
            Ask::Snapshot(answer) => {
                if answer.send(self.fold.snapshot()).is_err() {
                    tracing::debug!("nobody waits for the snapshot any more");
                }
                true
            }
            Ask::Stop => false,
        }
    }
}

fn announce_all(fold: &Fold, wiring: &Wiring) {
    post(wiring, Post::outstanding(Log::Partition(fold.partition.id()), fold.partition.outbox()));
    let Some(dispatch) = &wiring.dispatch else { return };
    let partition = fold.partition.id();
    for message in fold.partition.outstanding().filter_map(|owed| Dispatch::of(partition, &owed, true)) {
        // The dispatcher outlives the processors, except in a shutdown.
        if dispatch.send(message).is_err() {
            return;
        }
    }
}

/// Tells the dispatcher what became due, and what settled.
fn announce(fold: &Fold, wiring: &Wiring, effects: &Effects) {
    let log = Log::Partition(fold.partition.id());
    post(wiring, Post::changed(log, fold.partition.outbox(), &effects.webhooks));
    let Some(dispatch) = &wiring.dispatch else { return };
    for row in &effects.deliveries {
        let message = match row.status {
            DeliveryStatus::Pending => {
                let owed = fold.partition.owed(row.notification, row.channel);
                match owed.and_then(|owed| Dispatch::of(fold.partition.id(), &owed, false)) {
                    Some(message) => message,
                    None => continue,
                }
            }
            // The message that took its place says what is to be done.
            DeliveryStatus::Superseded => continue,
            DeliveryStatus::Succeeded | DeliveryStatus::Failed | DeliveryStatus::Dropped => {
                Dispatch::Settled { id: row.notification, channel: row.channel }
            }
        };
        if dispatch.send(message).is_err() {
            return;
        }
    }
}

/// Measures how long the oldest of these records waited until what it decides of alerts was decided.
fn tell_delay(records: &[Record]) {
    let Some(first) = records.first() else { return };
    let waited = u64::try_from(clock::now().since(first.recorded_at).0).unwrap_or(0);
    crate::telemetry::seconds("highwater_alert_evaluation_delay_seconds", vec![], Duration::from_millis(waited));
}

/// Tells the courier.
fn post(wiring: &Wiring, all: Vec<Post>) {
    let Some(posts) = &wiring.posts else { return };
    // The courier outlives the processors, except in a shutdown.
    if all.into_iter().any(|one| posts.send(one).is_err()) {
        tracing::debug!("the courier has stopped");
    }
}
