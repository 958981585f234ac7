//! The partitions that this node owns: taken, folded, and given back in order.

use super::clock::Deadline;
use super::control::ControlPlane;
use super::copies::JournalBehind;
use super::courier::Post;
use super::dispatcher::Dispatch;
use super::drops::Drops;
use super::herald::Herald;
use super::hub::Hub;
use super::processor::{Fold, Processor, Wiring};
use super::snapshotter;
use super::writer::Writer;
use crate::domain::id::{Log, PartitionId, Position};
use crate::journal::{Journal, ReadError};
use crate::snapshot::{SnapshotError, Snapshots};
use crate::store::{Store, StoreError};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long a partition that is given back may take to store what it folded.
const RELEASE_PATIENCE: Duration = Duration::from_secs(10);
/// What a fold takes to stop, which is kept of the time that a stopping node has.
const FOLD_STOP: Duration = Duration::from_millis(500);
/// How long attempts for a partition that is given back are waited for: longer than any attempt takes, and its outcome's record.
const ATTEMPTS_PATIENCE: Duration = Duration::from_secs(30);
/// Whose owner looks after the control log, too.
const HERALDS: PartitionId = PartitionId(0);
/// How long a question waits before it is asked again, where a service does not answer.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What folding takes.
#[derive(Clone, Debug)]
pub struct Means {
    /// Where facts come from.
    pub journal: Journal,
    /// Where rows go.
    pub store: Store,
    /// Where states are kept.
    pub snapshots: Snapshots,
    /// The key of the event fingerprints.
    pub fingerprint_key: [u8; 16],
    /// Where notifications go; nowhere for an import.
    pub dispatch: Option<mpsc::UnboundedSender<Dispatch>>,
    /// Where events for endpoints go; nowhere for an import.
    pub posts: Option<mpsc::UnboundedSender<Post>>,
    /// Where events for endpoints are summed up that were dropped.
    pub drops: Drops,
    /// Where batches are told to those who follow them.
    pub hub: Hub,
    /// The control plane, for whoever has the first partition.
    pub control: ControlPlane,
}

/// A partition that is folded here.
#[derive(Debug)]
pub struct Held {
    /// What folds it.
    pub processor: Processor,
    /// What stores its rows.
    pub writer: Writer,
    /// What looks after the control log, beside the first partition.
    herald: Option<Herald>,
}

/// A handle on the partitions of this node; cheap to clone.
#[derive(Clone, Debug)]
pub struct Partitions {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    means: Means,
    held: RwLock<BTreeMap<PartitionId, Arc<Held>>>,
    /// When everything must have ended, once the node stops.
    ends_by: OnceLock<Deadline>,
}

/// Why a partition cannot be folded.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The journal does not say where it ends.
    #[error("find the end of the journal")]
    Journal(#[from] ReadError),
    /// The store does not say how far it is.
    #[error("ask the store")]
    Store(#[from] StoreError),
    /// The snapshots cannot be listed.
    #[error("use the snapshots")]
    Snapshots(#[from] SnapshotError),
    /// Records that the store or a snapshot holds are missing from the journal.
    #[error(transparent)]
    JournalBehind(#[from] JournalBehind),
    /// The operating system gave no thread.
    #[error("start a thread")]
    Thread(#[from] std::io::Error),
}

impl Partitions {
    /// Makes a node's hold on nothing yet.
    pub fn new(means: Means) -> Self {
        Self { inner: Arc::new(Inner { means, held: RwLock::default(), ends_by: OnceLock::new() }) }
    }

    /// The partitions that are folded here, in order.
    pub fn held(&self) -> Vec<Arc<Held>> {
        self.inner.held.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Restores a partition from its newest usable snapshot, or from the beginning, and folds on.
    ///
    /// # Errors
    /// Where the journal ends before what the store holds, or something that is needed does not answer.
    pub async fn take(&self, partition: PartitionId) -> Result<(), TakeError> {
        let means = &self.inner.means;
        let (fold, stored) = restore(means, partition).await?;
        let writer = Writer::start(partition, means.journal.partitions(), means.store.clone())?;
        writer.found(stored);
        let wiring = Wiring {
            journal: means.journal.clone(),
            writer: writer.clone(),
            dispatch: means.dispatch.clone(),
            posts: means.posts.clone(),
            drops: means.drops.clone(),
            hub: means.hub.clone(),
            counted: crate::telemetry::count_fold,
        };
        let fold = fold.archiving(means.store.archives());
        let processor = Processor::start(fold, wiring, tokio::runtime::Handle::current())?;
        let herald = match &means.posts {
            Some(posts) if partition == HERALDS => {
                Some(Herald::start(means.control.clone(), means.store.clone(), (posts.clone(), means.drops.clone()))?)
            }
            Some(_) | None => None,
        };
        let held = Arc::new(Held { processor, writer, herald });
        self.inner.held.write().unwrap_or_else(PoisonError::into_inner).insert(partition, held);
        Ok(())
    }

    /// As [`Self::take`], until it succeeds: a service that is away comes back.
    pub async fn take_at_last(&self, partition: PartitionId) {
        while let Err(error) = self.take(partition).await {
            let cause = crate::telemetry::chain(&error);
            tracing::warn!(partition = partition.0, error = %cause, "a partition cannot be taken yet");
            tokio::time::sleep(ASK_AGAIN).await;
        }
        tracing::info!(partition = partition.0, "took a partition");
    }

    /// Gives a partition back: nothing more is sent for it, what was sent is recorded, what was folded is stored, and a
    /// snapshot makes it quick to take for whoever is next.
    pub async fn release(&self, partition: PartitionId) {
        let known = self.inner.held.write().unwrap_or_else(PoisonError::into_inner).remove(&partition);
        let Some(held) = known else { return };
        if let Some(dispatch) = &self.inner.means.dispatch {
            let (ended, waiting) = oneshot::channel();
            // A dispatcher that is gone has nothing under way.
            if dispatch.send(Dispatch::Released { partition, ended }).is_ok() {
                drop(tokio::time::timeout(self.attempts_patience(), waiting).await);
            }
        }
        if let Some(posts) = &self.inner.means.posts {
            let (ended, waiting) = oneshot::channel();
            if posts.send(Post::Released { log: Log::Partition(partition), ended }).is_ok() {
                drop(tokio::time::timeout(self.attempts_patience(), waiting).await);
            }
        }
        self.end(&held).await;
        self.inner.means.journal.unfollow(Log::Partition(partition));
        tracing::info!(partition = partition.0, "gave a partition back");
    }

    /// Lets everything that ends from here on end by `deadline`.
    pub fn end_by(&self, deadline: Deadline) {
        // The first word counts.
        let _known = self.inner.ends_by.set(deadline);
    }

    /// How long attempts under way for a partition may hold its release back.
    fn attempts_patience(&self) -> Duration {
        if self.inner.ends_by.get().is_some() { self.patience() } else { ATTEMPTS_PATIENCE }
    }

    /// How long each step of an ending may take.
    fn patience(&self) -> Duration {
        let left = self.inner.ends_by.get().map(|deadline| deadline.remaining_before(FOLD_STOP));
        left.map_or(RELEASE_PATIENCE, |left| left.min(RELEASE_PATIENCE))
    }

    /// Ends every fold, in order: the store is written, last snapshots are taken.
    pub async fn end_all(&self) {
        let all = std::mem::take(&mut *self.inner.held.write().unwrap_or_else(PoisonError::into_inner));
        // All at once: a store that is away is waited for once, not once for each.
        futures::future::join_all(all.values().map(|held| self.end(held))).await;
    }

    async fn end(&self, held: &Arc<Held>) {
        let means = &self.inner.means;
        if let Some(herald) = &held.herald {
            herald.stop(self.patience()).await;
        }
        let taken = snapshotter::take(&held.processor, &means.snapshots, &means.store);
        let stored = !held.writer.is_dead() && tokio::time::timeout(self.patience(), taken).await.is_ok();
        if !stored {
            let partition = held.processor.partition.0;
            tracing::warn!(partition, "the store is too far behind for a last snapshot");
        }
        let (held, patience) = (Arc::clone(held), self.patience());
        let stopped = tokio::task::spawn_blocking(move || {
            if !stored {
                // A fold may be waiting for the store; what it holds is folded again by whoever is next.
                held.writer.stop();
            }
            held.processor.stop();
            held.writer.end(if stored { patience } else { Duration::ZERO });
        });
        if let Err(error) = stopped.await {
            tracing::error!(error = %error, "a fold could not be stopped in order");
        }
    }

    /// Tells whether a fold has stopped for good.
    pub fn has_failed(&self) -> bool {
        self.held().iter().any(|held| {
            let control = held.herald.as_ref().is_some_and(Herald::is_dead);
            control || held.processor.gauges.failed.load(Ordering::Acquire) || held.writer.is_dead()
        })
    }

    /// Tells whether every partition that is folded here knows the control plane up to a position.
    pub fn know_control(&self, through: Position) -> bool {
        let knows = |held: &Arc<Held>| held.processor.gauges.control_through.load(Ordering::Relaxed) >= through.0;
        self.held().iter().all(knows)
    }
}

/// Makes the state to fold on from; tells what the store holds, too.
async fn restore(means: &Means, partition: PartitionId) -> Result<(Fold, Position), TakeError> {
    let held = means.store.progress(partition).await?.map_or(Position::START, |progress| progress.position);
    let journal = {
        let journal = means.journal.clone();
        let asked = tokio::task::spawn_blocking(move || journal.end_now(Log::Partition(partition))).await;
        asked.unwrap_or_else(|error| Err(ReadError::Storage { detail: error.to_string() }))?
    };
    let log = Log::Partition(partition);
    if held > journal {
        return Err(JournalBehind { log, journal, what: "the store", held }.into());
    }
    if let Some(held) = means.snapshots.newest_position(partition).await?.filter(|held| *held > journal) {
        return Err(JournalBehind { log, journal, what: "a snapshot", held }.into());
    }
    let mut below = held;
    loop {
        let loaded = means.snapshots.newest_at_or_below(partition, below).await?;
        for (name, why) in loaded.skipped {
            tracing::warn!(snapshot = name, why, "a snapshot cannot be read; an older one or the whole log is folded");
        }
        let Some(snapshot) = loaded.snapshot else {
            return Ok((Fold::new(partition, means.journal.partitions(), means.fingerprint_key), held));
        };
        match Fold::restore(partition, means.fingerprint_key, &snapshot) {
            Ok(fold) => return Ok((fold, held)),
            Err(error) => {
                let cause = crate::telemetry::chain(&error);
                tracing::warn!(position = snapshot.position.0, error = %cause, "a snapshot cannot be restored");
                below = Position(snapshot.position.0.saturating_sub(1));
            }
        }
    }
}
