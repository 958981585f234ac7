//! Hands a partition's effects to the store. The fold goes on while the store is away, up to a bound.

use super::clock::Stopwatch;
use crate::domain::id::{PartitionId, Position};
use crate::domain::limits::{STORE_BACKLOG_BYTES_MAX, STORE_LINGER};
use crate::domain::partition::effect::Effects;
use crate::store::{Progress, Store, StoreError};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a failed write waits at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(2);

/// The writer of one partition.
#[derive(Clone, Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

#[derive(Debug)]
struct Shared {
    partition: PartitionId,
    store: Store,
    backlog_bytes_max: usize,
    backlog: Mutex<Backlog>,
    changed: Condvar,
    degraded: AtomicBool,
    /// The last record whose rows are stored.
    stored: AtomicU64,
    /// The thread ended without being told to: what it held is lost to the store until the log is folded again.
    dead: AtomicBool,
}

/// Notes the end of the thread, however it comes about.
struct LastWord(Arc<Shared>);

impl Drop for LastWord {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.die();
        }
    }
}

#[derive(Debug, Default)]
struct Backlog {
    effects: Effects,
    progress: Option<Progress>,
    bytes: usize,
    writing: bool,
    /// Since the last handover, or the end of its write. Writes that ended together so begin together again.
    since: Option<Stopwatch>,
    stopped: bool,
}

impl Writer {
    /// Starts the writer of a partition.
    ///
    /// # Errors
    /// Where the operating system gives no thread.
    pub fn start(partition: PartitionId, partition_count: u32, store: Store) -> std::io::Result<Self> {
        let share = usize::try_from(partition_count.max(1)).unwrap_or(1);
        let shared = Arc::new(Shared {
            partition,
            store,
            backlog_bytes_max: STORE_BACKLOG_BYTES_MAX / share,
            backlog: Mutex::new(Backlog::default()),
            changed: Condvar::new(),
            degraded: AtomicBool::new(false),
            stored: AtomicU64::new(0),
            dead: AtomicBool::new(false),
        });
        let writes = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name(format!("store-p{}", partition.0)).spawn(move || {
            let last_word = LastWord(writes);
            last_word.0.run();
        })?;
        Ok(Self { shared, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Hands over the effects up to a position; blocks while too much waits for the store.
    pub fn push(&self, effects: Effects, progress: Progress) {
        let bytes = weight(&effects);
        let mut backlog = self.shared.lock();
        while backlog.bytes > self.shared.backlog_bytes_max && !backlog.stopped && !self.is_dead() {
            backlog = self.shared.changed.wait(backlog).unwrap_or_else(PoisonError::into_inner);
        }
        if self.is_dead() {
            return;
        }
        backlog.bytes += bytes;
        backlog.progress = Some(progress);
        backlog.effects.append(effects);
        backlog.since = Some(Stopwatch::start());
        drop(backlog);
        self.shared.changed.notify_all();
    }

    /// Tells whether nothing waits: what is handed over now is written next.
    pub fn has_room(&self) -> bool {
        self.shared.lock().progress.is_none()
    }

    /// How long the next handover had better wait, so that many small writes do not keep the store busy.
    pub fn lingers(&self) -> Duration {
        if !self.shared.store.is_remote() {
            return Duration::ZERO;
        }
        let linger = Duration::from_millis(u64::try_from(STORE_LINGER.0).unwrap_or(0));
        let since = self.shared.lock().since;
        since.map_or(Duration::ZERO, |since| linger.saturating_sub(since.elapsed()))
    }

    /// Tells whether effects are too many to be held back any longer.
    pub fn is_heavy(&self, effects: &Effects) -> bool {
        weight(effects) > self.shared.backlog_bytes_max / 2
    }

    /// Tells whether the writer ended without being told to. The partition must be taken anew.
    pub fn is_dead(&self) -> bool {
        self.shared.dead.load(Ordering::Acquire)
    }

    /// The last record whose rows are stored, as far as this writer knows.
    pub fn stored(&self) -> Position {
        Position(self.shared.stored.load(Ordering::Relaxed))
    }

    /// Notes what the store held before this writer began.
    pub fn found(&self, stored: Position) {
        self.shared.stored.fetch_max(stored.0, Ordering::Relaxed);
    }

    /// Tells whether the last write failed.
    pub fn is_degraded(&self) -> bool {
        self.shared.degraded.load(Ordering::Relaxed)
    }

    /// Waits until everything that was handed over is stored, for at most `patience`; tells whether it is.
    pub fn drain(&self, patience: Duration) -> bool {
        let backlog = self.shared.lock();
        let waiting = |backlog: &mut Backlog| (backlog.progress.is_some() || backlog.writing) && !self.is_dead();
        let (backlog, _) =
            self.shared.changed.wait_timeout_while(backlog, patience, waiting).unwrap_or_else(PoisonError::into_inner);
        backlog.progress.is_none() && !backlog.writing
    }

    /// Stops the writer behind the write that is under way.
    pub fn stop(&self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
    }

    /// Stops the writer behind what was handed over, or after `patience`, and waits for its thread; blocks. A thread is not
    /// waited for while it writes to a store that does not answer.
    pub fn end(&self, patience: Duration) {
        let is_idle = self.drain(patience);
        self.stop();
        if !is_idle {
            return;
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!(partition = self.shared.partition.0, "a writer of the store panicked");
        }
    }
}

impl Shared {
    fn die(&self) {
        self.dead.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some((effects, progress)) = self.next() {
            let (mut pause, mut failures) = (RETRY_FIRST, 0_u32);
            while let Err(error) = self.store.write_blocking(self.partition, Arc::clone(&effects), progress) {
                let partition = self.partition.0;
                let cause = crate::telemetry::chain(&error);
                if matches!(error, StoreError::Damaged { .. }) {
                    // Trying again would write into the same broken pages.
                    tracing::error!(partition, error = %cause, "the rows are stored no more");
                    self.die();
                    return;
                }
                if self.degraded.swap(true, Ordering::Relaxed) {
                    tracing::debug!(partition, error = %cause, "the store is still away");
                } else {
                    tracing::warn!(partition, error = %cause, "the store is away; the fold goes on");
                }
                // What is pushed meanwhile must not cut the pause short: a store in trouble would be hammered.
                let goes_on = |backlog: &mut Backlog| !backlog.stopped;
                let waited = self.changed.wait_timeout_while(self.lock(), pause, goes_on);
                if waited.unwrap_or_else(PoisonError::into_inner).0.stopped {
                    return;
                }
                pause = (pause * 2).min(RETRY_MOST);
                failures = failures.saturating_add(1);
            }
            self.stored.fetch_max(progress.position.0, Ordering::Relaxed);
            if self.degraded.swap(false, Ordering::Relaxed) {
                tracing::info!(partition = self.partition.0, failures, "the store is back");
            }
            let mut backlog = self.lock();
            backlog.writing = false;
            backlog.since = Some(Stopwatch::start());
            drop(backlog);
            self.changed.notify_all();
        }
    }

    /// Takes everything that waits; `None` when the writer is to stop.
    fn next(&self) -> Option<(Arc<Effects>, Progress)> {
        let mut backlog = self.lock();
        loop {
            if backlog.stopped {
                return None;
            }
            if let Some(progress) = backlog.progress.take() {
                backlog.bytes = 0;
                backlog.writing = true;
                let effects = std::mem::take(&mut backlog.effects);
                self.changed.notify_all();
                return Some((Arc::new(coalesce(effects)), progress));
            }
            backlog = self.changed.wait(backlog).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Keeps the last row of each key: the ones before it would be overwritten.
fn coalesce(mut effects: Effects) -> Effects {
    let mut kept = hashbrown::HashSet::new();
    let mut windows = std::mem::take(&mut effects.windows);
    windows.reverse();
    windows.retain(|row| kept.insert((row.series.clone(), row.start, row.part)));
    effects.windows = windows;
    let mut kept = hashbrown::HashSet::new();
    let mut instances = std::mem::take(&mut effects.instances);
    instances.reverse();
    instances.retain(|row| kept.insert(row.key.clone()));
    instances.reverse();
    effects.instances = instances;
    effects
}

/// About how many bytes effects take while they wait.
fn weight(effects: &Effects) -> usize {
    effects.windows.len() * 256
        + effects.accounts.len() * 128
        + effects.instances.len() * 256
        + effects.transitions.len() * 1_024
        + effects.notifications.len() * 2_048
        + effects.deliveries.len() * 256
        + effects.events.as_ref().map_or(0, Vec::len) * 512
        + effects.webhooks.events.len() * 2_048
        + effects.webhooks.deliveries.len() * 256
        + effects.webhooks.attempts.len() * 512
        + effects.quarantine.iter().map(|row| row.body.len() + 256).sum::<usize>()
}
