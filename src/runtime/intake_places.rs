//! Where the partitions of the intake are read from: a partition that comes to this node waits until what is gone before its
//! next message is on record, and the operator's word on gaps is kept.

use super::clock::{self, Stopwatch};
use super::control::{Asking, ControlPlane, SubmitError};
use super::engine_version::EngineVersions;
use super::intake_gaps::IntakeGaps;
use super::partitions::Partitions;
use crate::domain::control::command::Command;
use crate::domain::control::intake::IntakeGap;
use crate::domain::id::{Mode, Tenant, WorkspaceId};
use crate::domain::partition::fact::V3;
use crate::domain::time::Timestamp;
use crate::journal::{IntakePlace, IntakeReader, OnIntakeGap};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a partition waits before it is asked again where its messages are.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// The same, where it is not read for a gap: somebody may have moved the group's offset.
const STOPPED: Duration = Duration::from_secs(10);
/// How long a gap that is found at the start waits at most for the control log to have a place for it.
const RAISE_PATIENCE: Duration = Duration::from_secs(15);
/// What the nodes need is asked for in the name of nobody.
const NOBODY: Tenant = Tenant { workspace: WorkspaceId(0), mode: Mode::Live };

/// What deciding needs.
#[derive(Clone, Debug)]
pub struct PlacesDeps {
    /// Where gaps are recorded.
    pub control: ControlPlane,
    /// How far the folds are, whose time waits for the intake.
    pub partitions: Partitions,
    /// What the logs may be asked for.
    pub versions: EngineVersions,
    /// What was found.
    pub gaps: IntakeGaps,
}

/// Decides on the partitions that wait.
#[derive(Debug)]
pub(super) struct IntakePlaces {
    deps: PlacesDeps,
    topic: String,
    on_gap: OnIntakeGap,
    begun: Stopwatch,
    /// When each partition was asked for last, and how long it waits from there.
    asked: BTreeMap<i32, (Stopwatch, Duration)>,
}

impl IntakePlaces {
    pub(super) fn new(deps: PlacesDeps, topic: String, on_gap: OnIntakeGap) -> Self {
        Self { deps, topic, on_gap, begun: Stopwatch::start(), asked: BTreeMap::new() }
    }

    /// The partitions that wait and are to be asked for now.
    pub(super) fn due(&mut self, reader: &IntakeReader) -> Vec<i32> {
        let waiting = reader.waiting();
        for partition in self.deps.gaps.stopped() {
            self.deps.gaps.stop(partition, waiting.contains(&partition));
        }
        let is_due = |partition: &i32| self.asked.get(partition).is_none_or(|(at, wait)| at.elapsed() >= *wait);
        let due = waiting.iter().copied().filter(is_due).collect();
        self.asked.retain(|partition, _| waiting.contains(partition));
        due
    }

    /// Begins to read a partition, where that may be. Tells whether it has begun elsewhere than behind what was read last.
    pub(super) async fn settle(&mut self, reader: &IntakeReader, partition: i32) -> bool {
        let placed = reader.place(partition, self.read_until(partition), clock::now());
        let outcome = match placed {
            Ok(place) => self.begin(reader, partition, &place).await,
            Err(error) => Err(format!("it is not known where its messages are: {error}")),
        };
        match outcome {
            Ok(Step::Begun { has_gap }) => {
                self.asked.remove(&partition);
                self.deps.gaps.stop(partition, false);
                has_gap
            }
            Ok(Step::Waits(wait)) => {
                self.asked.insert(partition, (Stopwatch::start(), wait));
                false
            }
            Err(detail) => {
                tracing::warn!(partition, detail, "a partition of the intake cannot be read yet");
                self.asked.insert(partition, (Stopwatch::start(), ASK_AGAIN));
                false
            }
        }
    }

    async fn begin(&self, reader: &IntakeReader, partition: i32, place: &IntakePlace) -> Result<Step, String> {
        if let Some(gap) = &place.gap {
            self.report(gap);
            if self.records() {
                let command = Command::RecordIntakeGap(gap.clone());
                self.submit(command).await.map_err(|error| crate::telemetry::chain(&error))?;
            } else if self.may_record_soon() {
                return Ok(Step::Waits(ASK_AGAIN));
            }
            if self.on_gap == OnIntakeGap::Stop {
                self.deps.gaps.stop(partition, true);
                return Ok(Step::Waits(STOPPED));
            }
        }
        reader.begin(partition, place).map_err(|error| error.to_string())?;
        let is_known = self.deps.control.state().intake().begun(&self.topic, partition).is_some();
        if !is_known && self.records() {
            let command = Command::BeginIntake { topic: self.topic.clone(), partition };
            if let Err(error) = self.submit(command).await {
                let cause = crate::telemetry::chain(&error);
                tracing::warn!(partition, error = %cause, "that the intake is read could not be recorded");
            }
        }
        Ok(Step::Begun { has_gap: place.gap.is_some() })
    }

    fn report(&self, gap: &IntakeGap) {
        if !self.deps.gaps.note(gap) {
            return;
        }
        tracing::error!(
            id = gap.id(),
            topic = gap.topic,
            partition = gap.partition,
            cause = gap.cause.name(),
            from_offset = gap.from,
            to_offset = gap.to,
            read_until = gap.read_until.map(|at| at.to_string()),
            left_from = %gap.left_from,
            on_gap = ?self.on_gap,
            "messages of the intake are gone that were never read"
        );
    }

    /// Tells whether the control log takes what is found.
    fn records(&self) -> bool {
        self.deps.control.state().engine_version() >= V3
    }

    /// A node that has just begun may ask for the version in a moment.
    fn may_record_soon(&self) -> bool {
        self.deps.versions.own() >= V3 && self.begun.elapsed() < RAISE_PATIENCE
    }

    async fn submit(&self, command: Command) -> Result<(), SubmitError> {
        self.deps.control.submit(Asking::by_command_line(NOBODY), command).await.map(drop)
    }

    /// Until when a partition was read at least, where it was: the folds' time waits for the intake.
    fn read_until(&self, partition: i32) -> Option<Timestamp> {
        let begun = self.deps.control.state().intake().begun(&self.topic, partition)?;
        let held = self.deps.partitions.held();
        let bounded = held.iter().map(|held| &held.processor.gauges).filter(|of| of.bounded.load(Ordering::Relaxed));
        let folded = bounded.map(|of| Timestamp(of.clock.load(Ordering::Relaxed))).min();
        Some(folded.map_or(begun, |folded| folded.max(begun)))
    }
}

/// What came of a partition that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is read.
    Begun { has_gap: bool },
    /// It is asked for again behind this.
    Waits(Duration),
}
