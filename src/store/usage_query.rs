//! What the store is asked about usage, and what it answers.

use crate::domain::id::{AccountId, Epoch, MetricName, Position, Tenant};
use crate::domain::partition::aggregate::Aggregate;
use crate::domain::time::{Millis, Timestamp};

/// Asks for windows of one account.
#[derive(Clone, Debug)]
pub struct WindowQuery {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// The account's epoch.
    pub epoch: Epoch,
    /// The account.
    pub account: AccountId,
    /// The metrics; all where absent.
    pub metric: Option<MetricName>,
    /// The first start, inclusive.
    pub from: Timestamp,
    /// The last start, exclusive.
    pub to: Timestamp,
    /// The width of the windows, a multiple of 5 minutes.
    pub width: Millis,
    /// Whether the groups are wanted, instead of the total.
    pub groups: bool,
}

/// Asks for usage across accounts. The rest of the question is how what is found is added up.
#[derive(Clone, Debug)]
pub struct UsageQuery {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// The accounts; all where empty.
    pub accounts: Vec<AccountId>,
    /// The epoch that it was counted in; any where absent.
    pub epoch: Option<Epoch>,
    /// The metrics; all where empty.
    pub metrics: Vec<MetricName>,
    /// The first start, inclusive.
    pub from: Timestamp,
    /// The last start, exclusive.
    pub to: Timestamp,
    /// Whether the groups are wanted, instead of the totals.
    pub groups: bool,
}

/// Asks for the groups of a series.
#[derive(Clone, Debug)]
pub struct GroupQuery {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// The account's epoch.
    pub epoch: Epoch,
    /// The account.
    pub account: AccountId,
    /// The metric.
    pub metric: MetricName,
}

/// Asks which of some metrics have events.
#[derive(Clone, Debug)]
pub struct MetricQuery {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// The oldest epoch that counts.
    pub since: Epoch,
    /// The metrics; not empty.
    pub metrics: Vec<MetricName>,
}

/// One part of one window of some account.
#[derive(Clone, Debug)]
pub struct UsagePart {
    /// The account.
    pub account: AccountId,
    /// The epoch that it was counted in, which may be a past one.
    pub epoch: Epoch,
    /// The metric.
    pub metric: MetricName,
    /// The group; empty for the total.
    pub group: String,
    /// The start of the 5-minute window.
    pub start: Timestamp,
    /// The record that opened the part.
    pub part: Position,
    /// The events.
    pub aggregate: Aggregate,
    /// How many of them were late.
    pub late_events: u64,
    /// The last record that changed it.
    pub revision: Position,
}

/// A window with all of its parts merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowPoint {
    /// The metric.
    pub metric: MetricName,
    /// The group; empty for the total.
    pub group: String,
    /// The start.
    pub start: Timestamp,
    /// The events.
    pub aggregate: Aggregate,
    /// How many of them were late.
    pub late_events: u64,
    /// The newest record that changed it.
    pub revision: Position,
}
