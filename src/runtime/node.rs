//! A running node: its state restored, its loops running.

use super::access_notes::{self, AccessNotes};
use super::clock::Deadline;
use super::control::ControlPlane;
use super::courier::{self, Post};
use super::data::{Data, StartError};
use super::dispatcher::{self, Dispatch, Means, Tally};
use super::drops::{self, Drops};
use super::engine_version::{self, EngineVersions};
use super::hub::Hub;
use super::ingest::Ingest;
use super::intake_gaps::IntakeGaps;
use super::lag::{self, Answers, IntakeClock};
use super::last_use::{self, LastUses};
use super::ownership::Ownership;
use super::partitions::{self, Partitions};
use super::pressure::{self, Pressure};
use super::requests::{self, Requests};
use super::sandbox;
use super::snapshotter;
use super::timekeeper;
use crate::domain::control::keeper::Keeper;
use crate::domain::id::{Log, PartitionId, Position};
use crate::journal::Journal;
use crate::notifier::{Guard, Notifier};
use crate::store::{Progress, StoreError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long a node may take to stop where nobody waits for the end of the process.
const UNHURRIED: Duration = Duration::from_secs(60);
/// How much of the time to stop is kept for the folds, the store and last snapshots.
const FOLDS_STOP: Duration = Duration::from_millis(2_500);

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// The opened data.
    pub data: Data,
    /// The way in for events.
    pub ingest: Ingest,
    /// What sends.
    pub notifier: Notifier,
    /// What is folded here.
    pub partitions: Partitions,
    /// What the dispatcher counted.
    pub tally: Arc<Tally>,
    /// How far the intake is.
    pub intake_clock: IntakeClock,
    /// Whether the journal answers.
    pub answers: Answers,
    /// What the logs may be asked for.
    pub versions: EngineVersions,
    /// What was found missing in the intake.
    pub intake_gaps: IntakeGaps,
    replaced: Arc<AtomicBool>,
    /// Whether the control log cannot be folded any further.
    stuck: Arc<AtomicBool>,
    /// What is folded here, for those who follow it.
    pub hub: Hub,
    /// What the courier counted.
    pub posted: Arc<courier::Tally>,
    /// What was dropped of events for endpoints.
    pub drops: Drops,
    /// What was asked for each project.
    pub requests: Requests,
    /// Whose events the journal did not take.
    pub pressure: Pressure,
    /// When keys were used last, as this node saw it.
    pub last_uses: LastUses,
    /// What is noted in the audit log without a change.
    pub access_notes: AccessNotes,
    ownership: Ownership,
    #[cfg(feature = "kafka")]
    intake: Option<super::intake::Intake>,
    stop: watch::Sender<bool>,
    /// What sends is told first.
    stop_sending: watch::Sender<bool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// What a node does beside folding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Serves: sends notifications, ticks, takes snapshots.
    Serve,
    /// Imports: notifications stay owed until a serving node sends them.
    Import,
}

impl Node {
    /// Starts everything.
    ///
    /// # Errors
    /// Where a part cannot be restored or started.
    #[expect(clippy::too_many_lines, reason = "it wires the parts in the order in which they need each other")]
    pub async fn start(data: Data, guard: Guard, base_url: &str, duty: Duty) -> Result<Self, StartError> {
        let notifier = Notifier::new(guard, base_url)?;
        let (stop, stopped) = watch::channel(false);
        let (stop_sending, sends) = watch::channel(false);
        let (dispatch, inbox) = mpsc::unbounded_channel::<Dispatch>();
        let (posts, letters) = mpsc::unbounded_channel::<Post>();
        let tally = Arc::new(Tally::default());
        let (hub, drops) = (Hub::default(), Drops::default());
        let posted = Arc::new(courier::Tally::default());
        let partitions = Partitions::new(partitions::Means {
            journal: data.journal.clone(),
            store: data.store.clone(),
            snapshots: data.snapshots.clone(),
            fingerprint_key: data.fingerprint_key(),
            dispatch: (duty == Duty::Serve).then_some(dispatch),
            posts: (duty == Duty::Serve).then_some(posts),
            drops: drops.clone(),
            hub: hub.clone(),
            control: data.control.clone(),
        });
        let keeper = if duty == Duty::Serve { data.keep_rows().await? } else { None };
        // Who imports into shared data leaves the folding to those who serve it.
        let folds = duty == Duty::Serve || !data.journal.is_shared();
        let versions = EngineVersions::new(data.engine_version, &data.journal);
        if let (false, Some(version)) = (data.journal.is_shared(), versions.to_ask()) {
            // Before anybody can send a command that would be folded in the older way.
            timekeeper::raise_control(&data.control, version).await;
        }
        let ownership = if folds {
            Ownership::begin(&data.journal, &partitions, versions.own()).await?
        } else {
            Ownership::Nothing
        };
        let (journal, control) = (data.journal.clone(), data.control.clone());
        let time = IntakeClock::default();
        let given = (time.clone(), versions.clone());
        let keeping = timekeeper::run(journal, control, partitions.clone(), given, stopped.clone());
        let (replaced, stuck) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let answers = Answers::from_now();
        let watching = lag::watch_ends(data.journal.clone(), partitions.clone(), answers.clone(), stopped.clone());
        let mut tasks = vec![tokio::spawn(keeping), tokio::spawn(watching)];
        if data.journal.is_shared() {
            let following = Following {
                data: (data.journal.clone(), data.control.clone()),
                keeper,
                replaced: Arc::clone(&replaced),
                stuck: Arc::clone(&stuck),
            };
            tasks.push(tokio::spawn(follow_control(following, stopped.clone())));
            let (journal, control) = (data.journal.clone(), data.control.clone());
            let held = partitions.clone();
            let reading = engine_version::watch_members(versions.clone(), journal, control, held, stopped.clone());
            tasks.push(tokio::spawn(reading));
        }
        if duty == Duty::Serve {
            let inboxes = (inbox, letters);
            let tallies = (Arc::clone(&tally), Arc::clone(&posted));
            tasks.extend(begin_to_serve((&data, &partitions, &notifier), inboxes, tallies, (&stopped, &sends)));
        }
        let ingest = Ingest::new(data.journal.clone(), data.control.clone());
        let (requests, pressure) = (Requests::default(), Pressure::default());
        let (last_uses, access_notes) = (LastUses::default(), AccessNotes::default());
        if duty == Duty::Serve {
            tasks.push(tokio::spawn(drops::run(drops.clone(), data.control.clone(), stop.subscribe())));
            tasks.push(tokio::spawn(pressure::run(pressure.clone(), data.control.clone(), stop.subscribe())));
            tasks.push(tokio::spawn(last_use::run(last_uses.clone(), data.control.clone(), stop.subscribe())));
            tasks.push(tokio::spawn(access_notes::run(access_notes.clone(), data.control.clone(), stop.subscribe())));
            tasks.push(tokio::spawn(requests::run(requests.clone(), ingest.clone(), stop.subscribe())));
        }
        let intake_gaps = IntakeGaps::default();
        #[cfg(feature = "kafka")]
        let intake = match &data.journal {
            Journal::Kafka(kafka) if duty == Duty::Serve => {
                let deps = super::intake_places::PlacesDeps {
                    control: data.control.clone(),
                    partitions: partitions.clone(),
                    versions: versions.clone(),
                    gaps: intake_gaps.clone(),
                };
                super::intake::Intake::begin(kafka.settings(), ingest.clone(), time.clone(), deps).await?
            }
            Journal::Kafka(_) | Journal::Memory(_) | Journal::Sqlite(_) => None,
        };
        Ok(Self {
            data,
            ingest,
            notifier,
            partitions,
            tally,
            intake_clock: time,
            answers,
            versions,
            intake_gaps,
            replaced,
            stuck,
            posted,
            hub,
            drops,
            requests,
            pressure,
            last_uses,
            access_notes,
            ownership,
            #[cfg(feature = "kafka")]
            intake,
            stop,
            stop_sending,
            tasks,
        })
    }

    /// Waits until everything that the journal holds now is folded and stored, for at most `patience`.
    pub async fn settle(&self, patience: Duration) -> bool {
        let all = (0..self.data.journal.partitions()).map(PartitionId);
        let ends: Vec<_> = all.map(|partition| (partition, self.data.journal.end(Log::Partition(partition)))).collect();
        let all = async {
            for (partition, end) in ends {
                self.data.store.wait_for(partition, end).await;
            }
        };
        tokio::time::timeout(patience, all).await.is_ok()
    }

    /// Tells whether a fold has stopped for good, that of the control log or one of a partition, or a file is damaged.
    pub fn has_failed(&self) -> bool {
        self.stuck.load(Ordering::Acquire) || self.partitions.has_failed() || self.data.journal.is_damaged()
    }

    /// Tells whether another store keeps the rows from now on, so that this node must end.
    pub fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Acquire)
    }

    /// Begins no more attempts to deliver. Those under way end, or are cut off behind [`DELIVERIES_STOP_TIMEOUT`](crate::domain::limits::DELIVERIES_STOP_TIMEOUT).
    pub fn stop_sending(&self) {
        self.stop_sending.send_replace(true);
    }

    /// As [`Self::stop_by`], where nobody waits for the end of the process.
    pub async fn stop(self) {
        self.stop_by(Deadline::within(UNHURRIED)).await;
    }

    /// Stops in order: nothing new, attempts under way end, folds stop, the store is written, a last snapshot is taken,
    /// files are closed.
    ///
    /// What has not ended in time is left behind: what is durable is folded, and what is pending is sent, by the next start.
    pub async fn stop_by(mut self, deadline: Deadline) {
        self.stop_sending();
        self.stop.send_replace(true);
        self.partitions.end_by(deadline);
        let waits = || deadline.remaining_before(FOLDS_STOP);
        for mut task in self.tasks.drain(..) {
            match tokio::time::timeout(waits(), &mut task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(error = %error, "a task ended badly"),
                Err(_) => {
                    tracing::warn!("a task did not end in time and is cut off");
                    task.abort();
                }
            }
        }
        #[cfg(feature = "kafka")]
        if let Some(intake) = self.intake.take()
            && tokio::time::timeout(waits(), intake.stop()).await.is_err()
        {
            tracing::warn!("the intake did not stop in time; messages may be read again");
        }
        if tokio::time::timeout(deadline.remaining(), self.ownership.end(&self.partitions)).await.is_err() {
            tracing::warn!(
                "the partitions could not be given back in time; the next start folds them from older snapshots"
            );
        }
        // Nothing is folded any more, so nothing more is dropped here.
        if tokio::time::timeout(deadline.remaining(), self.drops.tell_rest(&self.data.control)).await.is_err() {
            tracing::warn!("what was dropped of events for endpoints could not be recorded in time");
        }
        self.data.close_by(deadline).await;
    }

    /// How far a partition's rows reach.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn progress(&self, partition: PartitionId) -> Result<Progress, StoreError> {
        let progress = self.data.store.progress(partition).await?;
        Ok(progress.unwrap_or(Progress { position: Position::START, clock: crate::domain::time::Timestamp(0) }))
    }
}

/// Starts what only a serving node does: it sends, keeps sandboxes and takes snapshots.
fn begin_to_serve(
    (data, partitions, notifier): (&Data, &Partitions, &Notifier),
    (inbox, letters): (mpsc::UnboundedReceiver<Dispatch>, mpsc::UnboundedReceiver<Post>),
    (tally, posted): (Arc<Tally>, Arc<courier::Tally>),
    (stopped, sends): (&watch::Receiver<bool>, &watch::Receiver<bool>),
) -> [tokio::task::JoinHandle<()>; 4] {
    let means = Means {
        journal: data.journal.clone(),
        control: data.control.clone(),
        store: data.store.clone(),
        notifier: notifier.clone(),
        vault: Arc::clone(&data.vault),
    };
    let dispatching = tokio::spawn(dispatcher::run(means, inbox, sends.clone(), tally));
    let means = courier::Means {
        journal: data.journal.clone(),
        control: data.control.clone(),
        store: data.store.clone(),
        notifier: notifier.clone(),
        vault: Arc::clone(&data.vault),
    };
    let posting = tokio::spawn(courier::run(means, letters, sends.clone(), posted));
    let (control, vault) = (data.control.clone(), Arc::clone(&data.vault));
    let keeping = tokio::spawn(sandbox::keep(control, partitions.clone(), vault, stopped.clone()));
    let (snapshots, store) = (data.snapshots.clone(), data.store.clone());
    let saving = tokio::spawn(snapshotter::run(partitions.clone(), snapshots, store, stopped.clone()));
    [dispatching, posting, keeping, saving]
}

/// What following the control log needs.
struct Following {
    data: (Journal, ControlPlane),
    keeper: Option<Keeper>,
    replaced: Arc<AtomicBool>,
    stuck: Arc<AtomicBool>,
}

/// Folds what other nodes append to the control log, as it comes.
async fn follow_control(following: Following, mut stop: watch::Receiver<bool>) {
    let Following { data: (journal, control), keeper, replaced, stuck } = following;
    while !*stop.borrow() {
        tokio::select! {
            () = journal.wait_beyond(Log::Control, control.position()) => {}
            _ = stop.changed() => return,
        }
        let plane = control.clone();
        match tokio::task::spawn_blocking(move || plane.catch_up()).await {
            Ok(Ok(())) => {
                let kept_by = control.state().keeper().cloned();
                if keeper.is_some() && kept_by != keeper && !replaced.swap(true, Ordering::AcqRel) {
                    let by = kept_by.map(|keeper| keeper.to_string()).unwrap_or_default();
                    tracing::error!(by, "another store keeps the rows of this journal from now on; this node ends");
                }
            }
            Ok(Err(error)) => {
                tracing::error!(error = %crate::telemetry::chain(&error), "the control log cannot be folded");
                if error.is_final() {
                    stuck.store(true, Ordering::Release);
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => tracing::error!(error = %error, "folding the control log ended badly"),
        }
    }
}
