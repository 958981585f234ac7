//! What becomes of events, as rows for the store and as facts for the logs. Plain values.

use super::event::Event;
use super::kind::EventType;
use super::outbox::TOO_MANY_WAIT;
use crate::domain::id::{InvalidId, Log, NotificationId, Position, Tenant, WebhookId};
use crate::domain::partition::effect::DeliveryStatus;
use crate::domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What one or more records did to deliveries, in order. Of rows with the same key the last one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Events that some endpoint wants.
    pub events: Vec<Event>,
    /// What became of (event, endpoint) pairs.
    pub deliveries: Vec<Delivery>,
    /// What came of attempts.
    pub attempts: Vec<Attempt>,
}

impl Rows {
    /// Tells whether there is nothing.
    pub const fn is_empty(&self) -> bool {
        self.events.is_empty() && self.deliveries.is_empty() && self.attempts.is_empty()
    }

    /// Puts later rows behind these.
    pub fn append(&mut self, mut later: Self) {
        self.events.append(&mut later.events);
        self.deliveries.append(&mut later.deliveries);
        self.attempts.append(&mut later.attempts);
    }
}

/// Names a delivery: an event at an endpoint. Written as `dlv_` and both ids without their prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeliveryId {
    /// The event.
    pub event: NotificationId,
    /// The endpoint.
    pub webhook: WebhookId,
}

impl DeliveryId {
    const PREFIX: &'static str = "dlv_";
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (event, webhook) = (self.event.to_string(), self.webhook.to_string());
        f.write_str(Self::PREFIX)?;
        f.write_str(event.trim_start_matches(NotificationId::PREFIX))?;
        f.write_str(webhook.trim_start_matches(WebhookId::PREFIX))
    }
}

impl FromStr for DeliveryId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = InvalidId { expected: "dlv_ and 52 base32 characters" };
        let both = text.strip_prefix(Self::PREFIX).ok_or(invalid)?;
        let (event, webhook) = both.split_at_checked(ulid::ULID_LEN).ok_or(invalid)?;
        let event = format!("{}{event}", NotificationId::PREFIX).parse().map_err(|_| invalid)?;
        let webhook = format!("{}{webhook}", WebhookId::PREFIX).parse().map_err(|_| invalid)?;
        Ok(Self { event, webhook })
    }
}

/// Where an event stands at an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// Which event, and where to.
    pub id: DeliveryId,
    /// The event's type.
    pub kind: EventType,
    /// The log that owes it.
    pub log: Log,
    /// When it was first owed, on that log's clock.
    pub created_at: Timestamp,
    /// Where it stands. `dropped`: the endpoint took nothing when it came, or too many waited.
    pub status: DeliveryStatus,
    /// Attempts so far.
    pub attempts: u32,
    /// What came of the last attempt, or why there was none.
    pub outcome: Option<String>,
    /// When the next attempt is due.
    pub next_at: Option<Timestamp>,
    /// When the row changed, on the log's clock.
    pub at: Timestamp,
    /// The record that changed the row.
    pub revision: Position,
}

impl Delivery {
    /// Tells whether it is dropped because as many deliveries waited as may.
    pub fn is_overflow(&self) -> bool {
        self.status == DeliveryStatus::Dropped && self.outcome.as_deref() == Some(TOO_MANY_WAIT)
    }
}

/// What came of one attempt to deliver an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// What was attempted.
    pub posted: Posted,
    /// When it was recorded, on the log's clock.
    pub at: Timestamp,
    /// The record that holds it.
    pub revision: Position,
}

/// What came of one attempt, as a fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posted {
    /// The event and the endpoint.
    pub id: DeliveryId,
    /// Counts the attempts, from 1.
    pub attempt: u32,
    /// Whether the receiver took it.
    pub delivered: bool,
    /// The status of its answer, where there was one.
    pub status: Option<u16>,
    /// What happened, for people.
    pub outcome: String,
    /// How long it took.
    pub duration_ms: u64,
    /// When the next attempt is due; a failure without one settles the pair.
    pub next_at: Option<Timestamp>,
}

/// A delivery that is to be made again: where it stood, as the store had it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Again {
    /// The event.
    pub event: NotificationId,
    /// Its type.
    pub kind: EventType,
    /// The log that owes it.
    pub log: Log,
    /// When it was first owed.
    pub created_at: Timestamp,
    /// Attempts so far.
    pub attempts: u32,
}
