//! What is known for good of the public topic: which of its partitions were read, and which of its messages were never copied.

use super::outcome::{Outcome, Resource};
use super::verdict::{Accepted, Context, Verdict};
use crate::domain::id::{Mode, Tenant, WorkspaceId};
use crate::domain::limits::INTAKE_GAPS_KEPT;
use crate::domain::time::{Millis, Timestamp};
use crate::domain::webhook::event::{Content, Event, Source};
use crate::domain::webhook::kind::EventType;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};

/// How messages came to be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapCause {
    /// They were deleted before they were read: the topic's retention, or somebody's hand.
    Removed,
    /// The topic has other messages than those that were read, or ends before them: it was made anew, or its end was lost.
    Replaced,
    /// Nobody knows how far it was read: the topic was made anew, or the brokers forgot the group's offsets.
    Forgotten,
}

impl GapCause {
    /// The name, as the API writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Replaced => "replaced",
            Self::Forgotten => "forgotten",
        }
    }
}

/// Messages of one partition that were lost before they were read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntakeGap {
    /// The topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// How they came to be missing.
    pub cause: GapCause,
    /// The offset behind the last message that was read; absent where nobody knows.
    pub from: Option<i64>,
    /// The offset from which on messages are read again.
    pub to: i64,
    /// When the last message was taken in that was read; absent where nobody knows.
    pub read_until: Option<Timestamp>,
    /// When the first one was taken in that is left; the moment of the discovery where none is.
    pub left_from: Timestamp,
}

impl IntakeGap {
    /// Returns its id: a hash of the partition and of where the gap begins and ends, the same for whoever finds it.
    pub fn id(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"intake gap");
        hash.update(self.topic.as_bytes());
        hash.update(self.partition.to_be_bytes());
        for number in [self.from, Some(self.to), self.read_until.map(|at| at.0)] {
            hash.update([u8::from(number.is_some())]);
            hash.update(number.unwrap_or_default().to_be_bytes());
        }
        let first: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        format!("gap_{first}")
    }

    /// How many messages it may have been at most; absent where nobody knows.
    pub fn messages(&self) -> Option<u64> {
        match self.cause {
            GapCause::Removed => u64::try_from(self.to.saturating_sub(self.from?)).ok(),
            GapCause::Replaced | GapCause::Forgotten => None,
        }
    }

    /// Tells whether lost messages may belong to a span of time `[from, to)`.
    pub fn overlaps(&self, from: Timestamp, to: Timestamp) -> bool {
        self.read_until.is_none_or(|read_until| read_until < to) && from <= self.left_from
    }

    /// The events that tell of it: one to each workspace and mode, for whose messages they were is not known.
    pub(super) fn events(&self, workspaces: impl Iterator<Item = WorkspaceId>, source: &mut Source<'_>) -> Vec<Event> {
        let (content, at) = (Content::json(&self.data()), source.stamp.recorded_at);
        let tenants =
            workspaces.flat_map(|workspace| [Mode::Live, Mode::Sandbox].map(|mode| Tenant { workspace, mode }));
        tenants.map(|tenant| source.event(tenant, EventType::IngestGap, at, content.clone())).collect()
    }

    /// As events show it. Offsets are left out: they would tell every workspace how much all others send.
    fn data(&self) -> Value {
        json!({
            "id": self.id(), "object": "ingest_gap", "cause": self.cause.name(), "partition": self.partition,
            "from": self.read_until.map(|at| at.to_string()), "to": self.left_from.to_string(),
        })
    }
}

/// A gap that is on record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotedGap {
    /// What is gone.
    pub gap: IntakeGap,
    /// When that was found, on the log's clock.
    pub found_at: Timestamp,
    /// How far the clocks of sandboxes were ahead then; absent for those that were not, and up to engine version 2.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub advances: BTreeMap<WorkspaceId, Millis>,
}

impl NotedGap {
    /// Returns the gap in the time of a tenant's world, in which what was lost would have been counted.
    pub fn in_world(&self, tenant: Tenant) -> IntakeGap {
        let of_sandbox = self.advances.get(&tenant.workspace).filter(|_| tenant.mode == Mode::Sandbox);
        let advance = of_sandbox.copied().unwrap_or_default();
        let IntakeGap { read_until, left_from, .. } = self.gap;
        let read_until = read_until.map(|at| at.plus(advance));
        IntakeGap { read_until, left_from: left_from.plus(advance), ..self.gap.clone() }
    }
}

/// What is known of the public topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntakeRecord {
    /// Since when partitions are read, by topic.
    begun: BTreeMap<String, BTreeMap<i32, Timestamp>>,
    /// The newest gaps, the oldest first.
    gaps: VecDeque<NotedGap>,
}

impl IntakeRecord {
    pub(super) fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.gaps.is_empty()
    }

    /// Since when a partition is read; absent where it never was.
    pub fn begun(&self, topic: &str, partition: i32) -> Option<Timestamp> {
        self.begun.get(topic)?.get(&partition).copied()
    }

    /// The newest gaps, the oldest first.
    pub const fn gaps(&self) -> &VecDeque<NotedGap> {
        &self.gaps
    }

    pub(super) fn begin(&mut self, context: Context, topic: &str, partition: i32) -> Verdict {
        self.begun.entry(topic.to_owned()).or_default().entry(partition).or_insert(context.now);
        Ok(Accepted::done(Resource::None))
    }

    /// Notes a gap; what two nodes found is noted once. One that was found again and is wider by now takes its place.
    pub(super) fn note(
        &mut self,
        context: Context,
        gap: &IntakeGap,
        advances: BTreeMap<WorkspaceId, Millis>,
    ) -> Verdict {
        let id = gap.id();
        if self.gaps.iter().any(|known| known.gap.id() == id) {
            return Ok(Accepted::done(Resource::None));
        }
        let begins_as = |known: &IntakeGap| {
            known.topic == gap.topic
                && (known.partition, known.cause, known.from, known.read_until)
                    == (gap.partition, gap.cause, gap.from, gap.read_until)
        };
        self.gaps.retain(|known| !begins_as(&known.gap));
        if self.gaps.len() >= INTAKE_GAPS_KEPT {
            self.gaps.pop_front();
        }
        self.gaps.push_back(NotedGap { gap: gap.clone(), found_at: context.now, advances });
        Ok(Accepted::created(Resource::None))
    }
}

/// Tells whether an outcome is that of a gap that was not known.
pub(super) const fn is_new(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Created(_))
}
