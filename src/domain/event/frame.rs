//! A frame: many accepted events with what they share said once.

use super::DimensionValue;
use crate::domain::id::{AccountId, Epoch, MetricName, ProjectId, Tenant};
use crate::domain::quantity::Quantity;
use crate::domain::time::{Millis, Timestamp};

/// Many accepted events. Their fields point into the tables; place 0 of an optional one means "none".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Whether the events count without evaluating anything.
    pub backfill: bool,
    /// The accounts.
    pub accounts: Vec<FrameAccount>,
    /// The metrics.
    pub metrics: Vec<MetricName>,
    /// The senders.
    pub sources: Vec<Box<str>>,
    /// The projects.
    pub projects: Vec<ProjectId>,
    /// The sets of dimensions, each by name. Of an event whose dimensions could not all be kept as they were sent, the first
    /// entry has no name: its text is a hash of what was sent.
    pub dimension_sets: Vec<Vec<(Box<str>, OwnedValue)>>,
    /// The events, in the order they were taken in.
    pub events: Vec<FrameEvent>,
    pub(super) ids: String,
}

/// An account in its tenant, with the epoch that the accepting node saw.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FrameAccount {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// The epoch.
    pub epoch: Epoch,
    /// The account.
    pub account: AccountId,
}

/// One event of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameEvent {
    /// Its place among the accounts.
    pub account: u32,
    /// Its place among the metrics.
    pub metric: u32,
    /// Its place among the sets of dimensions, counted from 1.
    pub dimensions: u32,
    /// Its place among the senders, counted from 1.
    pub source: u32,
    /// Its place among the projects, counted from 1.
    pub project: u32,
    /// Whether the sender gave the time.
    pub timestamp_given: bool,
    /// When it happened.
    pub timestamp: Timestamp,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// How much.
    pub value: Quantity,
    pub(super) id: (u32, u32),
}

/// The value of a dimension, by itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OwnedValue {
    /// A text.
    Text(Box<str>),
    /// A number.
    Number(Quantity),
    /// True or false.
    Flag(bool),
}

impl From<&DimensionValue<'_>> for OwnedValue {
    fn from(value: &DimensionValue<'_>) -> Self {
        match value {
            DimensionValue::Text(text) => Self::Text(text.as_ref().into()),
            DimensionValue::Number(number) => Self::Number(*number),
            DimensionValue::Flag(flag) => Self::Flag(*flag),
        }
    }
}

impl OwnedValue {
    fn json(&self) -> String {
        match self {
            Self::Text(text) => quoted(text),
            Self::Number(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
        }
    }
}

fn quoted(text: &str) -> String {
    // A string always has a JSON form.
    serde_json::to_string(text).unwrap_or_default()
}

/// An entry of a set of dimensions.
pub(super) type NamedValue = (Box<str>, OwnedValue);

/// Splits what stands for the dimensions as they were sent from those that are kept: the entry without a name, which no
/// dimension has and which stands first.
pub(super) fn split_sent(set: &[NamedValue]) -> (Option<&NamedValue>, &[NamedValue]) {
    match set {
        [sent @ (name, _), kept @ ..] if name.is_empty() => (Some(sent), kept),
        all => (None, all),
    }
}

pub(super) fn place<T>(table: &[T], at: u32) -> Option<&T> {
    table.get(usize::try_from(at).ok()?)
}

pub(super) fn optional<T>(table: &[T], at: u32) -> Option<&T> {
    place(table, at.checked_sub(1)?)
}

impl Frame {
    /// Makes events without ids, at regular times, of one account and metric.
    pub fn regular(
        account: FrameAccount,
        metric: MetricName,
        (from, every): (Timestamp, Millis),
        values: &[i64],
        accepted_at: Timestamp,
    ) -> Self {
        let times = std::iter::successors(Some(from), |at| Some(at.plus(every)));
        let event = |(timestamp, value): (Timestamp, &i64)| FrameEvent {
            account: 0,
            metric: 0,
            dimensions: 0,
            source: 0,
            project: 0,
            timestamp_given: true,
            timestamp,
            accepted_at,
            value: Quantity::whole(*value),
            id: (0, 0),
        };
        let events = times.zip(values).map(event).collect();
        Self { accounts: vec![account], metrics: vec![metric], events, ..Self::default() }
    }

    /// The event's id.
    pub fn id(&self, event: &FrameEvent) -> &str {
        let (start, end) = event.id;
        match (usize::try_from(start), usize::try_from(end)) {
            (Ok(start), Ok(end)) => self.ids.get(start..end).unwrap_or(""),
            _ => "",
        }
    }

    /// The event's sender.
    pub fn source(&self, event: &FrameEvent) -> Option<&str> {
        optional(&self.sources, event.source).map(AsRef::as_ref)
    }

    /// The event's project.
    pub fn project(&self, event: &FrameEvent) -> Option<ProjectId> {
        optional(&self.projects, event.project).copied()
    }

    /// The event's dimensions, by name.
    pub fn dimensions(&self, event: &FrameEvent) -> &[(Box<str>, OwnedValue)] {
        let set = optional(&self.dimension_sets, event.dimensions).map_or(&[][..], Vec::as_slice);
        split_sent(set).1
    }

    /// The event's group: a JSON object of those of its dimensions that are named, in the order of `names`.
    pub fn group_of(&self, event: &FrameEvent, names: &[String]) -> String {
        let dimensions = self.dimensions(event);
        let members: Vec<String> = names
            .iter()
            .filter_map(|name| dimensions.iter().find(|(known, _)| **known == **name))
            .map(|(name, value)| format!("{}:{}", quoted(name), value.json()))
            .collect();
        format!("{{{}}}", members.join(","))
    }

    /// The event's dimensions as a JSON object; empty where it has none.
    pub fn dimensions_json(&self, event: &FrameEvent) -> String {
        let dimensions = self.dimensions(event);
        if dimensions.is_empty() {
            return String::new();
        }
        let members: Vec<String> =
            dimensions.iter().map(|(name, value)| format!("{}:{}", quoted(name), value.json())).collect();
        format!("{{{}}}", members.join(","))
    }

    /// The event as a native JSON event, for people to look at and to send again.
    pub fn to_json(&self, event: &FrameEvent) -> String {
        let account = place(&self.accounts, event.account).map_or("", |named| named.account.as_str());
        let metric = place(&self.metrics, event.metric).map_or("", MetricName::as_str);
        let mut members = vec![
            ("account_id", quoted(account)),
            ("metric", quoted(metric)),
            ("value", event.value.to_string()),
            ("id", quoted(self.id(event))),
            ("timestamp", format!("\"{}\"", event.timestamp)),
        ];
        if let Some(source) = self.source(event) {
            members.push(("source", quoted(source)));
        }
        if let Some(project) = self.project(event) {
            members.push(("project_id", format!("\"{project}\"")));
        }
        let dimensions = self.dimensions_json(event);
        if !dimensions.is_empty() {
            members.push(("dimensions", dimensions));
        }
        let written: Vec<String> = members.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", written.join(","))
    }
}
