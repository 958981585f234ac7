//! What a partition's fold asks the world to do: rows to store and notifications to send. Plain values.

use super::aggregate::Aggregate;
use super::archive::EventRow;
use super::notification::Notification;
use crate::domain::definition::UsedPercent;
use crate::domain::id::{
    AccountId, AlertId, ChannelId, Epoch, MetricName, NotificationId, Position, QuarantineId, Tenant,
};
use crate::domain::quantity::Quantity;
use crate::domain::rule::{Name, Trace};
use crate::domain::time::{Period, Timestamp};
use serde::{Deserialize, Serialize};

/// What one or more records caused, in order. Rows of the same key replace one another: the last one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Window parts that changed.
    pub windows: Vec<WindowRow>,
    /// Accounts that were seen for the first time, or vanished.
    pub accounts: Vec<AccountRow>,
    /// Alert instances that changed.
    pub instances: Vec<InstanceRow>,
    /// What happened to alert instances.
    pub transitions: Vec<TransitionRow>,
    /// Notifications that are owed from here on.
    pub notifications: Vec<Notification>,
    /// What became of (notification, destination) pairs.
    pub deliveries: Vec<DeliveryRow>,
    /// Events that were set aside, or were settled.
    pub quarantine: Vec<QuarantineRow>,
    /// Every event that was counted; absent where nobody archives them.
    pub events: Option<Vec<EventRow>>,
    /// What became of events at endpoints.
    pub webhooks: crate::domain::webhook::rows::Rows,
    /// Rows that leave the store, once those above are in it.
    pub purges: Vec<Purge>,
    /// What is only counted.
    pub counts: Counts,
}

impl Effects {
    /// Adds what came later. The counts stay as they are.
    pub fn append(&mut self, mut later: Self) {
        self.windows.append(&mut later.windows);
        self.accounts.append(&mut later.accounts);
        self.instances.append(&mut later.instances);
        self.transitions.append(&mut later.transitions);
        self.notifications.append(&mut later.notifications);
        self.deliveries.append(&mut later.deliveries);
        self.quarantine.append(&mut later.quarantine);
        self.webhooks.append(later.webhooks);
        self.purges.append(&mut later.purges);
        if let Some(mut events) = later.events {
            self.events.get_or_insert_default().append(&mut events);
        }
    }
}

/// What an account had in epochs that are over: its windows, states, transitions, messages and entries of the quarantine. From
/// engine version 3 on no record behind the one that ended an epoch makes rows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// The account.
    pub account: AccountId,
    /// The first epoch, inclusive.
    pub from: Epoch,
    /// The last epoch, inclusive.
    pub through: Epoch,
    /// The record that asks for it: what a later one wrote stays.
    pub position: Position,
}

/// Counts for the metrics; they are no part of the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Events that were counted.
    pub events: u64,
    /// Events that had been counted before.
    pub duplicates: u64,
    /// Events with the id of another one.
    pub conflicts: u64,
    /// Events that came after their window had closed.
    pub late: u64,
    /// Times that a rule was evaluated.
    pub evaluations: u64,
    /// Late events that may have overturned a decision that is not corrected.
    pub late_uncorrected: u64,
    /// Events that had no room in a group of their own.
    pub ungrouped: u64,
    /// Alerts, series and instances that were looked at: what the cost of records goes by.
    #[serde(default)]
    pub steps: u64,
    /// Amounts that nobody sent, which a sandbox begins with.
    #[serde(default)]
    pub sown: u64,
}

/// A series: what windows are kept for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeriesKey {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// The account's epoch.
    pub epoch: Epoch,
    /// The account.
    pub account: AccountId,
    /// The metric.
    pub metric: MetricName,
    /// The group, as canonical JSON object text such as `{"region":"eu"}`; empty for the total.
    pub group: String,
}

/// The group of everything for which a series had no room for another group. No real group has such a text: they are
/// JSON objects.
pub const OVERFLOW_GROUP: &str = "overflow";

/// One part of one window: all of its events that were recorded while the part was held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowRow {
    /// The series.
    pub series: SeriesKey,
    /// The window's start; it is 5 minutes wide.
    pub start: Timestamp,
    /// The record that opened the part.
    pub part: Position,
    /// The events.
    pub aggregate: Aggregate,
    /// How many of them came after the window had closed.
    pub late_events: u64,
    /// The last record that changed the part.
    pub revision: Position,
}

/// An account that has events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRow {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// The account's epoch.
    pub epoch: Epoch,
    /// The account.
    pub account: AccountId,
    /// When its first event of this epoch was recorded.
    pub first_seen_at: Timestamp,
    /// The record that changed the row.
    pub revision: Position,
}

/// The state of an alert instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The condition does not hold.
    #[default]
    Ok,
    /// The condition holds, but not for long enough yet.
    Pending,
    /// The condition holds and was told.
    Firing,
    /// All that the rule reads is missing.
    NoData,
    /// The rule cannot be decided: there is no quota, some of its data is missing, or it divides by zero.
    Inconclusive,
}

impl State {
    /// The name as the API writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::NoData => "no_data",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// Which instance of which alert.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceKey {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// The alert.
    pub alert: AlertId,
    /// The account.
    pub account: AccountId,
    /// The metric that unqualified names stand for; absent where every name is qualified.
    pub metric: Option<MetricName>,
}

/// The present state of an alert instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRow {
    /// Which one.
    pub key: InstanceKey,
    /// The account's epoch.
    pub epoch: Epoch,
    /// Its state; absent when the instance is gone.
    pub state: Option<State>,
    /// Since when it has that state.
    pub since: Timestamp,
    /// Whether a silence holds its messages.
    pub silenced: bool,
    /// The first input's value at the last evaluation.
    pub value: Option<Quantity>,
    /// When it was last evaluated, on the fold's clock.
    pub evaluated_at: Timestamp,
    /// The record that changed the row.
    pub revision: Position,
}

/// Why an instance changed, or was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// An event, or a window that closed, decided it.
    Condition,
    /// `for` or `keep_firing_for` ran out.
    Held,
    /// The quota's period ended.
    PeriodEnded,
    /// A late event changed the newest closed window.
    Late,
    /// The alert was edited.
    Edited,
    /// A quota or metric definition changed.
    Redefined,
    /// The alert was paused.
    Paused,
    /// The alert was deleted.
    Deleted,
    /// The account was deleted, or the sandbox reset.
    AccountDeleted,
    /// All data was missing.
    NoData,
    /// A firing that lasts is sent again.
    Repeat,
    /// A silence ended.
    SilenceEnded,
    /// What happened while nothing was processed, in one message.
    CaughtUp,
    /// A late event takes back a decision on an older window.
    Retraction,
    /// A late event makes an older window one that would have fired.
    LateFire,
    /// Somebody tries whether messages arrive.
    Test,
    /// A channel was added to the alert, which fires.
    ChannelAdded,
    /// The quota that the rule reads was removed.
    QuotaRemoved,
    /// The rule could not be decided, and the alert ends a firing then.
    Inconclusive,
}

impl Reason {
    /// The name as the API writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Condition => "condition",
            Self::Held => "held",
            Self::PeriodEnded => "period_ended",
            Self::Late => "late",
            Self::Edited => "edited",
            Self::Redefined => "redefined",
            Self::Paused => "paused",
            Self::Deleted => "deleted",
            Self::AccountDeleted => "account_deleted",
            Self::NoData => "no_data",
            Self::Repeat => "repeat",
            Self::SilenceEnded => "silence_ended",
            Self::CaughtUp => "caught_up",
            Self::Retraction => "retraction",
            Self::LateFire => "late_fire",
            Self::Test => "test",
            Self::ChannelAdded => "channel_added",
            Self::QuotaRemoved => "quota_removed",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// What decided a transition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The alert's version.
    pub alert_version: u64,
    /// The rule's source.
    pub rule: String,
    /// Every sub-expression with its value.
    pub trace: Trace,
    /// The first input's name.
    pub value_name: Option<String>,
    /// The first input's value.
    pub value: Option<Quantity>,
    /// The window that was judged.
    pub window: Option<WindowEvidence>,
    /// The quota that was judged.
    pub quota: Option<QuotaEvidence>,
}

/// The window behind a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowEvidence {
    /// Its start, inclusive.
    pub start: Timestamp,
    /// Its end, exclusive.
    pub end: Timestamp,
    /// The last record that had changed it.
    pub revision: Position,
    /// Whether it had closed.
    pub closed: bool,
}

/// The quota behind a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaEvidence {
    /// The limit in force.
    pub limit: Quantity,
    /// What was used of it.
    pub used: Quantity,
    /// The kind of period.
    pub period: Period,
    /// The period's start, inclusive.
    pub start: Timestamp,
    /// The period's end, exclusive.
    pub end: Timestamp,
}

impl QuotaEvidence {
    /// How much of the limit is used.
    pub fn percent(&self) -> UsedPercent {
        UsedPercent::of(self.used, self.limit)
    }
}

impl Evidence {
    /// Whether the first input is greater than every number: `quota_percent` of a limit of zero of which something is used.
    pub fn is_over(&self) -> bool {
        let is_percent = self.value_name.as_deref().is_some_and(|name| name.starts_with(Name::QuotaPercent.text()));
        is_percent && self.value.is_none() && self.quota.is_some_and(|quota| quota.percent().is_over())
    }
}

/// One thing that happened to an alert instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransitionRow {
    /// Which instance.
    pub key: InstanceKey,
    /// The account's epoch.
    pub epoch: Epoch,
    /// Counts the instance's transitions while the alert exists, from 1.
    pub sequence: u64,
    /// The state before.
    pub from: State,
    /// The state after; the same for corrections and repeats.
    pub to: State,
    /// Why.
    pub reason: Reason,
    /// Its own time: the deciding event's record, or the deadline that was due.
    pub at: Timestamp,
    /// When the deciding record was recorded.
    pub recorded_at: Timestamp,
    /// The deciding record.
    pub position: Position,
    /// What decided it.
    pub evidence: Evidence,
    /// The notification that it caused.
    pub notification: Option<NotificationId>,
}

/// Where a (notification, destination) pair stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    /// Owed.
    Pending,
    /// The receiver took it.
    Succeeded,
    /// The last attempt of the schedule failed.
    Failed,
    /// Never sent, because what it would have ended was never sent.
    Dropped,
    /// A newer message of the same instance took its place before it was delivered.
    Superseded,
}

impl DeliveryStatus {
    /// The name as the API writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
            Self::Superseded => "superseded",
        }
    }
}

/// What became of a notification at one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryRow {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// The notification.
    pub notification: NotificationId,
    /// Where it goes.
    pub channel: ChannelId,
    /// Where it stands.
    pub status: DeliveryStatus,
    /// Attempts so far.
    pub attempts: u32,
    /// What came of the last attempt.
    pub outcome: Option<String>,
    /// When the next attempt is due.
    pub next_at: Option<Timestamp>,
    /// When the row changed, on the log's clock.
    pub at: Timestamp,
    /// The record that changed the row.
    pub revision: Position,
}

/// Where a quarantined event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuarantineStatus {
    /// Waits for a decision.
    Open,
    /// Sent in again.
    Replayed,
    /// Given up.
    Discarded,
}

impl QuarantineStatus {
    /// The name as the API writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
        }
    }
}

/// An event that was set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineRow {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// The entry: a hash of the event's identity and of what it says; up to engine version 2 of where it came from.
    pub id: QuarantineId,
    /// Why, as the API's code.
    pub code: String,
    /// Why, for people.
    pub detail: String,
    /// The account, where it is known.
    pub account: Option<AccountId>,
    /// The event as it came, cut at 64 KiB.
    pub body: String,
    /// When it was recorded, at first.
    pub at: Timestamp,
    /// Where it stands.
    pub status: QuarantineStatus,
    /// The record that changed the row.
    pub revision: Position,
    /// The account's epoch, or its tenant's where no account is known; absent up to engine version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// How often it came again; absent where it came once, and up to engine version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<Repeats>,
}

/// The copies of an event that was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeats {
    /// How many there were, the first included.
    pub count: u64,
    /// When the last of them was recorded.
    pub last_at: Timestamp,
}
