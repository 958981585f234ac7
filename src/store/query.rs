//! What the store is asked, and what it answers.

pub use super::channel_query::OutboxQuery;
pub use super::usage_query::{GroupQuery, MetricQuery, UsagePart, UsageQuery, WindowPoint, WindowQuery};
use crate::domain::id::{
    AccountId, AlertId, ChannelId, Epoch, IncidentId, MetricName, NotificationId, PartitionId, Position, QuarantineId,
    Tenant, WebhookId,
};
use crate::domain::partition::effect::{
    DeliveryStatus, QuarantineRow, QuarantineStatus, State, TransitionRow, WindowRow,
};
use crate::domain::quantity::Quantity;
use crate::domain::time::Timestamp;
use crate::domain::webhook::kind::EventType;
use crate::domain::webhook::rows::DeliveryId;
use std::collections::BTreeMap;

/// How far a partition's rows reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Everything up to this record is stored.
    pub position: Position,
    /// The fold's clock behind it.
    pub clock: Timestamp,
}

/// Asks for accounts that have events by when they were first seen.
#[derive(Clone, Debug)]
pub struct AccountQuery {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// The earliest time, inclusive.
    pub from: Option<Timestamp>,
    /// The latest time, exclusive.
    pub to: Option<Timestamp>,
    /// The order.
    pub age: Age,
    /// The time, account and epoch behind which to begin.
    pub after: Option<(Timestamp, AccountId, Epoch)>,
    /// How many at most.
    pub limit: usize,
}

/// In which order what has a time is listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Age {
    /// The newest first.
    #[default]
    Falling,
    /// The oldest first.
    Rising,
}

impl Age {
    /// SQL's word for the order, and how what stands behind a place compares with it.
    pub(super) const fn sql(self) -> (&'static str, &'static str) {
        match self {
            Self::Falling => ("DESC", "<"),
            Self::Rising => ("ASC", ">"),
        }
    }
}

/// Asks for incidents by their beginning.
#[derive(Clone, Debug)]
pub struct IncidentQuery {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// One incident; all where absent.
    pub id: Option<IncidentId>,
    /// The alerts; all where empty.
    pub alerts: Vec<AlertId>,
    /// The accounts; all where empty.
    pub accounts: Vec<AccountId>,
    /// Those that last, or those that ended; both where absent.
    pub lasts: Option<bool>,
    /// The earliest beginning, inclusive.
    pub from: Option<Timestamp>,
    /// The latest beginning, exclusive.
    pub to: Option<Timestamp>,
    /// The order.
    pub age: Age,
    /// The beginning and id behind which to begin.
    pub after: Option<(Timestamp, IncidentId)>,
    /// How many to pass over.
    pub offset: usize,
    /// How many at most.
    pub limit: usize,
}

/// An incident: the transition that began it, and the one that ended it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentEntry {
    /// How it began.
    pub begin: TransitionRow,
    /// How it ended; absent while it lasts.
    pub end: Option<TransitionRow>,
}

/// Asks for alert instances, ordered by alert, account and metric.
#[derive(Clone, Debug)]
pub struct InstanceQuery {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// The alert.
    pub alert: AlertId,
    /// The states; all where empty.
    pub states: Vec<State>,
    /// The accounts; all where empty.
    pub accounts: Vec<AccountId>,
    /// The account and metric behind which to begin.
    pub after: Option<(AccountId, Option<MetricName>)>,
    /// How many to pass over.
    pub offset: usize,
    /// How many at most.
    pub limit: usize,
}

/// How an alert's instances stand together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many instances are in each state.
    pub counts: BTreeMap<State, u64>,
    /// Whether one of them is silenced.
    pub silenced: bool,
    /// The value of the instance in the worst state that was evaluated last.
    pub last_value: Option<Quantity>,
    /// When one was last evaluated.
    pub last_evaluated_at: Option<Timestamp>,
}

impl Summary {
    /// The worst state: firing, no_data, inconclusive, pending, ok.
    pub fn worst(&self) -> Option<State> {
        let order = [State::Firing, State::NoData, State::Inconclusive, State::Pending, State::Ok];
        order.into_iter().find(|state| self.counts.contains_key(state))
    }
}

/// Asks for transitions of one alert.
#[derive(Clone, Debug)]
pub struct TransitionQuery {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// The alert.
    pub alert: AlertId,
    /// The accounts; all where empty.
    pub accounts: Vec<AccountId>,
    /// The metric of the instance; all where absent, `None` for that without one.
    pub metric: Option<Option<MetricName>>,
    /// Whether only those are wanted that led to another state: no reminders, no corrections.
    pub changes_only: bool,
    /// The earliest own time, inclusive.
    pub from: Option<Timestamp>,
    /// The latest own time, exclusive.
    pub to: Option<Timestamp>,
    /// The order.
    pub age: Age,
    /// The transition behind which to begin.
    pub after: Option<TransitionPlace>,
    /// How many to pass over.
    pub offset: usize,
    /// How many at most.
    pub limit: usize,
}

/// A transition's place among those of its alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransitionPlace {
    /// Its own time.
    pub at: Timestamp,
    /// The account.
    pub account: AccountId,
    /// The metric.
    pub metric: Option<MetricName>,
    /// Its number in the instance.
    pub sequence: u64,
}

/// Asks for notifications, newest first.
#[derive(Clone, Debug)]
pub struct NotificationQuery {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// The alert; all where absent.
    pub alert: Option<AlertId>,
    /// How many to pass over.
    pub offset: usize,
    /// How many at most.
    pub limit: usize,
}

/// Asks for deliveries, newest first.
#[derive(Clone, Debug)]
pub struct DeliveryQuery {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// The notification; all where absent.
    pub notification: Option<NotificationId>,
    /// The destination; all where absent.
    pub channel: Option<ChannelId>,
    /// Where they stand; anywhere where absent.
    pub status: Option<DeliveryStatus>,
    /// How many to pass over.
    pub offset: usize,
    /// How many at most.
    pub limit: usize,
}

/// Asks for an event that some endpoint wanted.
#[derive(Clone, Copy, Debug)]
pub struct EventQuery {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// Which one.
    pub id: NotificationId,
}

/// Asks for events that some endpoint wanted.
#[derive(Clone, Debug)]
pub struct EventsQuery {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// Which ones.
    pub ids: Vec<NotificationId>,
}

/// Asks for the attempts of one delivery, newest first.
#[derive(Clone, Copy, Debug)]
pub struct AttemptQuery {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// Which delivery.
    pub id: DeliveryId,
    /// How many at most.
    pub limit: usize,
}

/// Asks for the deliveries to one endpoint.
#[derive(Clone, Debug)]
pub struct WebhookDeliveryQuery {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// To whom.
    pub webhook: WebhookId,
    /// One event; all where absent.
    pub event: Option<NotificationId>,
    /// Where they stand; anywhere where empty.
    pub statuses: Vec<DeliveryStatus>,
    /// What came of them; anything where absent.
    pub outcome: Option<&'static str>,
    /// Their events' types; all where empty.
    pub kinds: Vec<EventType>,
    /// The earliest time at which they were first owed, inclusive.
    pub from: Option<Timestamp>,
    /// The latest such time, exclusive.
    pub to: Option<Timestamp>,
    /// The order.
    pub age: Age,
    /// The time and event of the delivery behind which to begin.
    pub after: Option<(Timestamp, NotificationId)>,
    /// How many to pass over.
    pub offset: usize,
    /// How many at most.
    pub limit: usize,
}

/// Asks how many deliveries to one endpoint are pending.
#[derive(Clone, Copy, Debug)]
pub struct OwedQuery {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// To whom.
    pub webhook: WebhookId,
}

/// Asks for what changed behind a position, in whatever partition: who asks knows which one an account is in.
#[derive(Clone, Copy, Debug)]
pub struct ChangeQuery {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// Rows of this position and before are left out.
    pub behind: Position,
    /// How many rows of a kind, about.
    pub limit: usize,
}

/// Rows between two positions, of one adapter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) tenant: Tenant,
    pub(super) behind: Position,
    /// The last position, inclusive.
    pub(super) through: Position,
    pub(super) limit: usize,
}

/// What changed behind a position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What happened to alert instances, by position.
    pub transitions: Vec<TransitionRow>,
    /// Window parts, each as its last change left it, by revision.
    pub windows: Vec<WindowRow>,
    /// Up to where the answer is whole; absent where it is so to the end.
    pub reach: Option<Position>,
}

/// Asks for quarantined events, newest first.
/// Asks for quarantined events.
#[derive(Clone, Debug)]
pub struct QuarantineQuery {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// One entry; all where absent.
    pub id: Option<QuarantineId>,
    /// What was recorded behind this instant; everything where absent.
    pub since: Option<Timestamp>,
    /// Where they stand; anywhere where empty.
    pub statuses: Vec<QuarantineStatus>,
    /// Why they are there; all reasons where empty.
    pub codes: Vec<String>,
    /// Whose they are; all where empty.
    pub accounts: Vec<AccountId>,
    /// The earliest time, inclusive.
    pub from: Option<Timestamp>,
    /// The latest time, exclusive.
    pub to: Option<Timestamp>,
    /// The order.
    pub age: Age,
    /// The time and id of the entry behind which to begin.
    pub after: Option<(Timestamp, QuarantineId)>,
    /// How many to pass over.
    pub offset: usize,
    /// How many at most.
    pub limit: usize,
}

/// A quarantined event and the partition that keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineEntry {
    /// Whose log holds it.
    pub partition: PartitionId,
    /// The event.
    pub row: QuarantineRow,
}

/// By what a store makes windows anew.
#[derive(Clone, Copy, Debug)]
pub struct RecomputeTerms {
    /// How many partitions the journal has.
    pub partitions: u32,
    /// How long behind its end a window closes.
    pub grace: crate::domain::time::Millis,
}

/// What a store found when it made its windows anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recomputed {
    /// Partitions whose events are archived.
    pub archived_partitions: usize,
    /// Closed windows all of whose events are archived, each group of each series by itself.
    pub windows: u64,
    /// How many of them differ.
    pub drift_count: u64,
    /// The first few that do, in words.
    pub drift: Vec<String>,
}

/// A row as text, for comparing two stores.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScannedRow {
    /// Whose row.
    pub table: &'static str,
    /// Its key.
    pub key: String,
    /// All of its values.
    pub row: String,
}

impl ScannedRow {
    /// The time by which a store forgets such a row; none for rows that it never forgets. Each value has a bar behind it, and
    /// only the last one of a row may hold bars itself.
    pub fn at(&self) -> Option<Timestamp> {
        let time = match self.table {
            "usage_windows" => self.key.rsplit('|').nth(2),
            "webhook_events" | "webhook_attempts" | "alert_transitions" => self.row.split('|').next(),
            "notifications" => self.row.split('|').nth(1),
            "deliveries" | "webhook_deliveries" => self.row.rsplit('|').nth(2),
            "quarantine" => self.row.split('|').nth(4),
            _ => None,
        };
        time?.parse().ok().map(Timestamp)
    }
}
