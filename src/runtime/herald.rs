//! What the owner of partition 0 does for the control log: stores the rows of what it owes, hands its debts to the courier,
//! ticks, and takes snapshots of the control plane.

use super::base::Base;
use super::clock::{self, Deadline, Stopwatch};
use super::control::{Asking, ControlPlane};
use super::courier::Post;
use super::drops::Drops;
use super::writer::Writer;
use crate::domain::control::command::Command;
use crate::domain::id::{Log, Mode, PartitionId, Position, Tenant, WorkspaceId};
use crate::domain::limits::{CONTROL_SNAPSHOT_RECORDS, SNAPSHOT_EVERY};
use crate::domain::partition::effect::Effects;
use crate::domain::webhook::rows::Rows;
use crate::snapshot::Snapshots;
use crate::store::{Progress, Store};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// How often what time brings about is looked for; also how long a question waits before it is asked again.
const ROUND: Duration = Duration::from_secs(1);

/// Records without rows behind which the store is told how far it is: where it is behind, the log is folded once more.
const QUIET_MAX: u64 = 256;

/// How long a last snapshot of the control plane may take.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// Time belongs to nobody.
const NOBODY: Tenant = Tenant { workspace: WorkspaceId(0), mode: Mode::Live };

/// A running herald.
#[derive(Debug)]
pub struct Herald {
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
    posts: mpsc::UnboundedSender<Post>,
    writer: Writer,
}

impl Herald {
    /// Begins.
    ///
    /// # Errors
    /// Where the operating system gives no thread.
    pub fn start(
        control: ControlPlane,
        store: Store,
        (posts, drops): (mpsc::UnboundedSender<Post>, Drops),
    ) -> std::io::Result<Self> {
        // The control log's rows are few: an eighth of the memory that waits for the store is more than they need.
        let writer = Writer::start(PartitionId::CONTROL, 8, store.clone())?;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(run(control, store, (posts.clone(), drops, writer.clone()), stopped));
        Ok(Self { stop, task: Mutex::new(Some(task)), posts, writer })
    }

    /// Reports whether the rows of the control log are stored no more.
    pub fn is_dead(&self) -> bool {
        self.writer.is_dead()
    }

    /// Ends in order: nothing more is sent for the control log, what was sent is recorded and stored. All of it takes at
    /// most `patience`.
    pub async fn stop(&self, patience: Duration) {
        let deadline = Deadline::within(patience);
        let (ended, waiting) = oneshot::channel();
        // A courier that is gone has nothing under way.
        if self.posts.send(Post::Released { log: Log::Control, ended }).is_ok() {
            drop(tokio::time::timeout(deadline.remaining(), waiting).await);
        }
        self.stop.send_replace(true);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut task) = task {
            match tokio::time::timeout(deadline.remaining(), &mut task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(error = %error, "the herald ended badly"),
                Err(_) => task.abort(),
            }
        }
        let writer = self.writer.clone();
        let drained = tokio::task::spawn_blocking(move || {
            writer.end(deadline.remaining());
        });
        drop(drained.await);
    }
}

async fn run(
    control: ControlPlane,
    store: Store,
    (posts, drops, writer): (mpsc::UnboundedSender<Post>, Drops, Writer),
    mut stop: watch::Receiver<bool>,
) {
    let mut moved = control.watch();
    let begun = tokio::select! {
        begun = begin(&control, &store) => begun,
        _ = stop.wait_for(|stop| *stop) => return,
    };
    let (mut pushed, kept) = begun;
    note(&drops, &kept);
    push(&writer, &control, kept, pushed);
    let mut saving = Saving::begin(&control, &store);
    for post in Post::outstanding(Log::Control, control.state().outbox()) {
        if posts.send(post).is_err() {
            return;
        }
    }
    while !*stop.borrow() {
        let saved = saving.due(&control).await;
        // What is folded by here is among what is taken.
        let through = control.position();
        let kept = control.take_rows();
        note(&drops, &kept);
        let all = kept.iter().flat_map(|(_, rows)| Post::changed(Log::Control, control.state().outbox(), rows));
        let all: Vec<Post> = all.collect();
        if !kept.is_empty() || saved.is_some() || through.0.saturating_sub(pushed.0) >= QUIET_MAX {
            pushed = push(&writer, &control, kept, through);
        }
        if let Some(saved) = saved {
            saving.publish(saved);
        }
        for post in all {
            if posts.send(post).is_err() {
                return;
            }
        }
        tick(&control).await;
        tokio::select! {
            changed = moved.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(ROUND) => {}
            _ = stop.changed() => {}
        }
    }
    let saved = saving.last(&control).await;
    let through = control.position();
    let kept = control.take_rows();
    note(&drops, &kept);
    push(&writer, &control, kept, through);
    control.end_rows();
    if let Some(saved) = saved {
        saving.publish(saved);
        saving.finish().await;
    }
}

/// Sums up what was dropped; the store lacks all of these rows.
fn note(drops: &Drops, kept: &[(Position, Rows)]) {
    kept.iter().for_each(|(_, rows)| drops.note(rows, Position::START));
}

/// Snapshots of the control plane: one at a time, where enough has come since the last.
#[derive(Debug)]
struct Saving {
    snapshots: Option<Snapshots>,
    store: Store,
    /// Up to where there is one.
    saved: Arc<AtomicU64>,
    tried: Option<Stopwatch>,
    publishing: Option<JoinHandle<()>>,
}

impl Saving {
    fn begin(control: &ControlPlane, store: &Store) -> Self {
        let saved = Arc::new(AtomicU64::new(control.began_at().0));
        let (snapshots, store) = (control.snapshots().cloned(), store.clone());
        Self { snapshots, store, saved, tried: None, publishing: None }
    }

    /// What to publish now. The rows that are taken behind this call must be pushed before that.
    async fn due(&mut self, control: &ControlPlane) -> Option<Base> {
        let every = Duration::from_millis(u64::try_from(SNAPSHOT_EVERY.0).unwrap_or(60_000));
        if self.tried.is_some_and(|tried| tried.elapsed() < every) {
            return None;
        }
        self.last(control).await
    }

    /// As [`Self::due`], however short ago another one was.
    async fn last(&mut self, control: &ControlPlane) -> Option<Base> {
        let behind = control.position().0.saturating_sub(self.saved.load(Ordering::Relaxed));
        let is_busy = self.publishing.as_ref().is_some_and(|publishing| !publishing.is_finished());
        if self.snapshots.is_none() || behind < CONTROL_SNAPSHOT_RECORDS || is_busy {
            return None;
        }
        self.tried = Some(Stopwatch::start());
        let control = control.clone();
        tokio::task::spawn_blocking(move || control.base()).await.ok()
    }

    /// Publishes it once the store holds what the log owes up to there.
    fn publish(&mut self, base: Base) {
        let Some(snapshots) = self.snapshots.clone() else { return };
        let (store, saved) = (self.store.clone(), Arc::clone(&self.saved));
        self.publishing = Some(tokio::spawn(async move {
            let position = base.position();
            store.wait_for(PartitionId::CONTROL, position).await;
            match base.publish(&snapshots).await {
                Ok(()) => saved.store(position.0, Ordering::Relaxed),
                Err(error) => {
                    let cause = crate::telemetry::chain(&error);
                    tracing::warn!(error = %cause, "the control plane's snapshot could not be published");
                }
            }
        }));
    }

    async fn finish(self) {
        if let Some(publishing) = self.publishing {
            drop(tokio::time::timeout(LAST_PATIENCE, publishing).await);
        }
    }
}

/// Folds to the log's present end, and finds the rows that the store lacks. Until both answer it asks again.
async fn begin(control: &ControlPlane, store: &Store) -> (Position, Vec<(Position, Rows)>) {
    loop {
        let confirmed = control.confirm().await.map(drop).map_err(|error| crate::telemetry::chain(&error));
        let stored = store.progress(PartitionId::CONTROL).await.map_err(|error| crate::telemetry::chain(&error));
        let kept = match (confirmed, stored) {
            (Ok(()), Ok(stored)) => {
                let stored = stored.map_or(Position::START, |progress| progress.position);
                control.begin_rows(stored).await.map_err(|error| crate::telemetry::chain(&error))
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        match kept {
            Ok(kept) => return kept,
            Err(error) => tracing::warn!(error, "the control log's deliveries cannot be looked after yet"),
        }
        tokio::time::sleep(ROUND).await;
    }
}

/// Hands rows to the store, and up to where the log is stored with them; returns that.
fn push(writer: &Writer, control: &ControlPlane, kept: Vec<(Position, Rows)>, through: Position) -> Position {
    let position = kept.last().map_or(through, |(position, _)| through.max(*position));
    let mut effects = Effects::default();
    for (_, rows) in kept {
        effects.webhooks.append(rows);
    }
    let clock = control.state().clock();
    writer.push(effects, Progress { position, clock });
    position
}

async fn tick(control: &ControlPlane) {
    let due = control.state().next_deadline().is_some_and(|at| at <= clock::now());
    if due && let Err(error) = control.submit(Asking::by_command_line(NOBODY), Command::Tick).await {
        tracing::warn!(error = %crate::telemetry::chain(&error), "time could not be recorded in the control log");
    }
}
