//! What is asked of deliveries to channels.

use super::query::Age;
use crate::domain::id::{AlertId, ChannelId, Epoch, NotificationId, Tenant};
use crate::domain::partition::effect::DeliveryStatus;
use crate::domain::time::Timestamp;

/// Asks for what became of notifications at a channel, each with the notification.
#[derive(Clone, Debug)]
pub struct ChannelDeliveryQuery {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// To whom.
    pub channel: ChannelId,
    /// One notification; all where absent.
    pub notification: Option<NotificationId>,
    /// Where they stand; anywhere where empty.
    pub statuses: Vec<DeliveryStatus>,
    /// The earliest time of a notification, inclusive.
    pub from: Option<Timestamp>,
    /// The latest such time, exclusive.
    pub to: Option<Timestamp>,
    /// The order.
    pub age: Age,
    /// The time and id of the notification behind which to begin.
    pub after: Option<(Timestamp, NotificationId)>,
    /// How many to pass over.
    pub offset: usize,
    /// How many at most.
    pub limit: usize,
}

/// Asks for the delivery of each of some channels that changed last.
#[derive(Clone, Debug)]
pub struct LastDeliveryQuery {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// The channels.
    pub channels: Vec<ChannelId>,
}

/// Asks for every delivery of some notifications.
#[derive(Clone, Debug)]
pub struct OutcomeQuery {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// The notifications.
    pub notifications: Vec<NotificationId>,
}

/// Asks for deliveries with one of these outcomes and what they are of.
#[derive(Clone, Debug)]
pub struct OutboxQuery {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// The oldest epoch of an account whose notifications are wanted.
    pub epoch: Epoch,
    /// What came of their last attempt: either of these.
    pub outcomes: [String; 2],
    /// The destinations; all where empty.
    pub channels: Vec<ChannelId>,
    /// The alerts; all where empty.
    pub alerts: Vec<AlertId>,
    /// Only what is of one of these alerts, or goes to one of these channels; all where absent.
    pub among: Option<(Vec<AlertId>, Vec<ChannelId>)>,
    /// The earliest time, inclusive.
    pub from: Option<Timestamp>,
    /// The latest time, exclusive.
    pub to: Option<Timestamp>,
    /// The order.
    pub age: Age,
    /// The delivery behind which to begin.
    pub after: Option<(Timestamp, NotificationId, ChannelId)>,
    /// How many to pass over.
    pub offset: usize,
    /// How many at most.
    pub limit: usize,
}
