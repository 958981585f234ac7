//! A platform event with all that a body shows, fixed at the moment of the record that it follows from.

use super::kind::EventType;
use crate::domain::id::{AccountId, Log, MetricName, NotificationId, Position, Stamp, Tenant};
use crate::domain::partition::effect::QuotaEvidence;
use crate::domain::partition::notification::Notification;
use crate::domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its id, the same for every endpoint, on every retry and after every refold.
    pub id: NotificationId,
    /// Workspace and mode.
    pub tenant: Tenant,
    /// What kind of thing it is.
    pub kind: EventType,
    /// Its own time.
    pub at: Timestamp,
    /// The log that holds the record that it follows from.
    pub log: Log,
    /// That record.
    pub position: Position,
    /// Its place among the events of the same record.
    pub index: u32,
    /// What is known of it.
    pub content: Content,
}

/// What is known of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// What an alert's instance came to.
    Alert {
        /// All of it, as a notification would tell it.
        notification: Box<Notification>,
        /// Whether a silence holds its messages.
        silenced: bool,
    },
    /// The text of a JSON object.
    Data(String),
    /// What was used of a quota.
    Quota(Box<QuotaTold>),
}

impl Content {
    /// What a JSON object says.
    pub fn json(data: &serde_json::Value) -> Self {
        Self::Data(data.to_string())
    }
}

/// What was used of a quota.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaTold {
    /// Whose use it is.
    pub account: AccountId,
    /// Of what.
    pub metric: MetricName,
    /// The quota in the period that is judged.
    pub quota: QuotaEvidence,
    /// The period that has just ended, where one has.
    pub ended: Option<QuotaEvidence>,
}

/// Where events of one record come from.
#[derive(Debug)]
pub struct Source<'a> {
    /// The log.
    pub log: Log,
    /// The record.
    pub stamp: Stamp,
    /// How many events the record has caused.
    pub index: &'a mut u32,
}

impl Source<'_> {
    /// Makes the record's next event.
    pub fn event(&mut self, tenant: Tenant, kind: EventType, at: Timestamp, content: Content) -> Event {
        let index = *self.index;
        *self.index = index.saturating_add(1);
        let (log, position) = (self.log, self.stamp.position);
        let id = event_id(tenant, log, position, index);
        Event { id, tenant, kind, at, log, position, index, content }
    }
}

/// Returns the id of a record's `index`-th event: a hash of what identifies it.
pub fn event_id(tenant: Tenant, log: Log, position: Position, index: u32) -> NotificationId {
    let mut hash = Sha256::new();
    hash.update(b"event");
    hash.update(tenant.workspace.0.to_be_bytes());
    hash.update(tenant.mode.name().as_bytes());
    hash.update(log.rows().0.to_be_bytes());
    hash.update(position.0.to_be_bytes());
    hash.update(index.to_be_bytes());
    let digest = hash.finalize();
    let mut first = [0_u8; 16];
    first.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
    NotificationId(u128::from_be_bytes(first))
}
