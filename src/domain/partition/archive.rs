//! What is kept of an event that was counted, where somebody archives: the event, and how it counted.

use crate::domain::event::{Frame, FrameEvent};
use crate::domain::id::{AccountId, Epoch, MetricName, Position, ProjectId, Stamp, Tenant};
use crate::domain::quantity::Quantity;
use crate::domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One event that was counted. (`position`, `number`) names it within its partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// The epoch that it was counted in.
    pub epoch: Epoch,
    /// The account.
    pub account: AccountId,
    /// The metric.
    pub metric: MetricName,
    /// The group that it was counted in beside the total; empty where it was in none.
    pub group: String,
    /// When it happened.
    pub timestamp: Timestamp,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When the log took it in.
    pub recorded_at: Timestamp,
    /// The tenant's clock when it was counted.
    pub clock: Timestamp,
    /// How much.
    pub value: Quantity,
    /// Its sender; empty where it named none.
    pub source: String,
    /// Its id.
    pub id: String,
    /// Its project.
    pub project: Option<ProjectId>,
    /// Its dimensions as a JSON object; empty where it has none.
    pub dimensions: String,
    /// Whether it counted without evaluating anything.
    pub backfill: bool,
    /// Whether its window had closed.
    pub late: bool,
    /// The record that holds it.
    pub position: Position,
    /// Its place in the record.
    pub number: u32,
}

/// How an event was counted.
#[derive(Debug)]
pub(super) struct Counting {
    pub(super) stamp: Stamp,
    pub(super) epoch: Epoch,
    pub(super) group: Option<Arc<str>>,
    pub(super) clock: Timestamp,
    pub(super) late: bool,
}

impl EventRow {
    /// Writes down an event of a frame; nothing where the frame has no such account or metric.
    pub(super) fn of(frame: &Frame, (number, event): (usize, &FrameEvent), counting: &Counting) -> Option<Self> {
        let named = frame.accounts.get(usize::try_from(event.account).ok()?)?;
        Some(Self {
            tenant: named.tenant,
            epoch: counting.epoch,
            account: named.account.clone(),
            metric: frame.metrics.get(usize::try_from(event.metric).ok()?)?.clone(),
            group: counting.group.as_deref().unwrap_or_default().to_owned(),
            timestamp: event.timestamp,
            accepted_at: event.accepted_at,
            recorded_at: counting.stamp.recorded_at,
            clock: counting.clock,
            value: event.value,
            source: frame.source(event).unwrap_or_default().to_owned(),
            id: frame.id(event).to_owned(),
            project: frame.project(event),
            dimensions: frame.dimensions_json(event),
            backfill: frame.backfill,
            late: counting.late,
            position: counting.stamp.position,
            number: u32::try_from(number).unwrap_or(u32::MAX),
        })
    }
}
