//! What the owner of a partition appends of its own accord: the engine version, the passing of time and copies of control
//! changes.

use super::clock;
use super::control::{Asking, ControlPlane};
use super::engine_version::EngineVersions;
use super::lag::IntakeClock;
use super::partitions::Partitions;
use super::processor::Gauges;
use crate::domain::control::command::Command;
use crate::domain::control::outcome::PositionedChange;
use crate::domain::id::{Log, Mode, PartitionId, Position, Tenant, WorkspaceId};
use crate::domain::limits::{TICK_EVERY, TICK_SPACING};
use crate::domain::partition::fact::Note;
use crate::domain::time::Timestamp;
use crate::journal::Journal;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// Control records without changes behind which a partition is told of them all the same.
const UNCOPIED_MAX: u64 = 64;

/// Copies control changes to the partitions as soon as they are folded, and ticks, until `stop` says so.
pub async fn run(
    journal: Journal,
    control: ControlPlane,
    partitions: Partitions,
    (intake, versions): (IntakeClock, EngineVersions),
    mut stop: watch::Receiver<bool>,
) {
    let mut changed = control.watch();
    let mut keeper = Timekeeper {
        journal,
        control,
        partitions,
        sent: BTreeMap::new(),
        ticked: BTreeMap::new(),
        raised: BTreeMap::new(),
        intake,
        versions,
    };
    while !*stop.borrow() {
        keeper.raise().await;
        if keeper.versions.has_first_word() {
            keeper.copy_control().await;
        }
        keeper.tick().await;
        tokio::select! {
            _ = changed.changed() => {}
            () = tokio::time::sleep(Duration::from_millis(u64::try_from(TICK_SPACING.0).unwrap_or(100))) => {}
            _ = stop.changed() => {}
        }
    }
}

/// Asks for an engine version where the control log has yet to ask for it.
pub(super) async fn raise_control(control: &ControlPlane, version: u32) {
    let stands = control.state().engine_version();
    if stands >= version {
        return;
    }
    // What the nodes need is asked for in the name of nobody.
    let nobody = Asking::by_command_line(Tenant { workspace: WorkspaceId(0), mode: Mode::Live });
    match control.submit(nobody, Command::EngineVersion { version }).await {
        Ok(_) => tracing::info!(from = stands, to = version, "the control log has another engine version from here on"),
        Err(error) => {
            let cause = crate::telemetry::chain(&error);
            tracing::warn!(error = %cause, "the control log could not be told of this release; it goes on as before");
        }
    }
}

struct Timekeeper {
    journal: Journal,
    control: ControlPlane,
    partitions: Partitions,
    /// Up to where control changes were appended, by partition; asked of the fold again after any error.
    sent: BTreeMap<PartitionId, Position>,
    ticked: BTreeMap<PartitionId, Ticked>,
    /// The engine version that partitions were asked for since they came to this node.
    raised: BTreeMap<PartitionId, u32>,
    intake: IntakeClock,
    versions: EngineVersions,
}

/// A partition as the timekeeper sees it.
struct Watched {
    partition: PartitionId,
    gauges: Arc<Gauges>,
}

impl Timekeeper {
    /// The partitions of this node; of those that were given back nothing is remembered.
    fn watched(&mut self) -> Vec<Watched> {
        let held = self.partitions.held();
        let watched: Vec<Watched> = held
            .iter()
            .map(|held| Watched { partition: held.processor.partition, gauges: Arc::clone(&held.processor.gauges) })
            .collect();
        let is_held = |partition: &PartitionId| watched.iter().any(|watched| watched.partition == *partition);
        self.sent.retain(|partition, _| is_held(partition));
        self.ticked.retain(|partition, _| is_held(partition));
        self.raised.retain(|partition, _| is_held(partition));
        watched
    }

    /// Asks for the newest way of folding that every member knows, where a log has yet to ask for it: before anything else,
    /// so that nothing that is copied behind it is folded in the older way.
    async fn raise(&mut self) {
        let watched = self.watched();
        let Some(version) = self.versions.to_ask() else { return };
        if watched.iter().any(|watched| watched.partition == PartitionId(0)) {
            raise_control(&self.control, version).await;
        }
        let is_behind = |watched: &Watched| watched.gauges.engine_version.load(Ordering::Relaxed) < version;
        let behind = watched.iter().filter(|watched| is_behind(watched)).map(|watched| watched.partition);
        // A fold that has yet to reach such a record is asked no second time; where its log has one already, another says
        // the same.
        let is_asked = |partition: &PartitionId| self.raised.get(partition).is_some_and(|asked| *asked >= version);
        let behind: Vec<PartitionId> = behind.filter(|partition| !is_asked(partition)).collect();
        if behind.is_empty() {
            return;
        }
        let note = Bytes::from(Note::EngineVersion { version }.encode());
        let facts = behind.iter().map(|partition| (Log::Partition(*partition), note.clone())).collect();
        match self.journal.append(facts).await {
            Ok(_) => self.raised.extend(behind.into_iter().map(|partition| (partition, version))),
            Err(error) => {
                let cause = crate::telemetry::chain(&error);
                tracing::warn!(error = %cause, "a log could not be told of this release; it goes on as before");
            }
        }
    }

    async fn copy_control(&mut self) {
        let through = self.control.position();
        let mut everywhere = through;
        for watched in self.watched() {
            let folded = Position(watched.gauges.control_through.load(Ordering::Relaxed));
            everywhere = everywhere.min(folded);
            let after = self.sent.get(&watched.partition).copied().unwrap_or(folded).max(folded);
            if after >= through {
                continue;
            }
            let (through, changes) = match self.control.changes_after(after).await {
                Ok(changes) => changes,
                Err(error) => {
                    let cause = crate::telemetry::chain(&error);
                    tracing::warn!(partition = watched.partition.0, error = %cause, "control changes cannot be read");
                    continue;
                }
            };
            if changes.is_empty() && through.0.saturating_sub(after.0) < UNCOPIED_MAX {
                // Records without changes need no copy of their own; they are covered by the next one.
                continue;
            }
            let own = |(position, change): PositionedChange| {
                change.for_partition(watched.partition).map(|change| (position, change))
            };
            let changes = changes.into_iter().filter_map(own).collect();
            let note = Note::ControlCopied { after, through, changes };
            let append = vec![(Log::Partition(watched.partition), Bytes::from(note.encode()))];
            match self.journal.append(append).await {
                Ok(_) => {
                    self.sent.insert(watched.partition, through);
                }
                Err(error) => {
                    let cause = crate::telemetry::chain(&error);
                    tracing::warn!(partition = watched.partition.0, error = %cause, "control changes wait to be copied");
                    self.sent.remove(&watched.partition);
                }
            }
        }
        // A partition of another node may be told of quiet records somewhat later; it need not fold them again if it comes.
        self.control.forget_changes(Position(everywhere.0.saturating_sub(UNCOPIED_MAX)));
    }

    async fn tick(&mut self) {
        let now = clock::now();
        let intake = self.intake.through();
        let mut due = Vec::new();
        for watched in self.watched() {
            let gauges = &watched.gauges;
            let log = Log::Partition(watched.partition);
            let caught_up = self.journal.end(log).0 <= gauges.position.load(Ordering::Acquire);
            let ticked = self.ticked.get(&watched.partition).copied().unwrap_or_default();
            // A clock that was once held back by an intake stays so: without one it goes by the present.
            let through = intake.or(gauges.bounded.load(Ordering::Relaxed).then_some(now));
            let reach = through.map_or(now, |through| through.min(now));
            let deadline = Timestamp(gauges.next_deadline.load(Ordering::Relaxed));
            let idle = Timestamp(gauges.clock.load(Ordering::Relaxed)).plus(TICK_EVERY) <= now;
            let moved = through != ticked.through || ticked.at.plus(TICK_EVERY) <= now;
            let spaced = ticked.at.plus(TICK_SPACING) <= now;
            let failed = gauges.failed.load(Ordering::Relaxed);
            if caught_up && spaced && !failed && (deadline <= reach || (idle && moved)) {
                due.push((watched.partition, Ticked { at: now, through }));
            }
        }
        if due.is_empty() {
            return;
        }
        let fact = |through| Bytes::from(Note::Ticked { intake_through: through }.encode());
        let facts = due.iter().map(|(partition, tick)| (Log::Partition(*partition), fact(tick.through))).collect();
        if let Err(error) = self.journal.append(facts).await {
            let cause = crate::telemetry::chain(&error);
            tracing::warn!(error = %cause, "time could not be recorded; windows close later");
        }
        self.ticked.extend(due);
    }
}

/// The last tick of a partition.
#[derive(Clone, Copy, Debug)]
struct Ticked {
    at: Timestamp,
    through: Option<Timestamp>,
}

impl Default for Ticked {
    fn default() -> Self {
        Self { at: Timestamp::MIN, through: None }
    }
}
