//! What is asked of deliveries to channels.

use super::query::Age;
use crate::domain::id::{ChannelId, NotificationId, Tenant};
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
