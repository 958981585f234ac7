//! A notification: one thing that people are told, with all that a message shows, fixed at the moment of the decision.

use super::effect::{Evidence, InstanceKey, Reason, State};
use crate::domain::definition::Severity;
use crate::domain::id::{ChannelId, Epoch, NotificationId, PartitionId, Position};
use crate::domain::time::Timestamp;
use crate::domain::webhook::kind::EventType;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// What a notification says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotificationKind {
    /// The alert fires, or still does.
    Firing,
    /// A firing ended.
    Resolved,
    /// There is no data, and the alert wants to hear of that.
    NoData,
    /// A late event overturned an earlier decision.
    Corrected,
    /// The condition holds, but not for long enough yet; endpoints alone are told.
    Pending,
    /// Somebody tries whether messages arrive.
    Test,
}

impl NotificationKind {
    /// The event type as webhooks carry it.
    pub const fn event_type(self) -> EventType {
        match self {
            Self::Firing => EventType::AlertFiring,
            Self::Resolved => EventType::AlertResolved,
            Self::NoData => EventType::AlertNoData,
            Self::Corrected => EventType::AlertCorrected,
            Self::Pending => EventType::AlertPending,
            Self::Test => EventType::AlertTest,
        }
    }
}

/// One thing that people are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Its id, the same on every retry and after every refold.
    pub id: NotificationId,
    /// What it says.
    pub kind: NotificationKind,
    /// Why.
    pub reason: Reason,
    /// The instance that it is about.
    pub key: InstanceKey,
    /// The account's epoch.
    pub epoch: Epoch,
    /// The instance's transition that caused it.
    pub sequence: u64,
    /// The instance's state behind that transition.
    pub state: State,
    /// The alert's name.
    pub alert_name: Option<String>,
    /// The alert's own text.
    pub message: Option<String>,
    /// How bad it is.
    pub severity: Severity,
    /// The alert's labels.
    pub labels: BTreeMap<String, String>,
    /// What decided it.
    pub evidence: Evidence,
    /// The notification that this one ends or takes back.
    pub follows: Option<NotificationId>,
    /// All messages that it closes where it is sent to; a resolve's alone. It is filled in for each destination.
    #[serde(skip)]
    pub closes: Vec<NotificationId>,
    /// How often the instance fired while nothing was processed.
    pub fired_meanwhile: u32,
    /// The decision's own time.
    pub at: Timestamp,
    /// When the deciding record was recorded.
    pub recorded_at: Timestamp,
    /// When the deciding event was accepted, where an event decided.
    pub accepted_at: Option<Timestamp>,
    /// The partition whose log holds the deciding record.
    pub partition: PartitionId,
    /// The deciding record.
    pub position: Position,
    /// The notification's place among those of the same record.
    pub index: u32,
    /// Where it goes.
    pub channels: Vec<ChannelId>,
}

impl Notification {
    /// Tells whether there is an alert behind it: a test of a channel has none.
    pub const fn is_about_alert(&self) -> bool {
        self.key.alert.0 != 0
    }
}

/// A (notification, destination) pair that is still owed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Debt {
    /// Attempts so far.
    pub attempts: u32,
    /// When the next attempt is due; at once where absent.
    pub next_at: Option<Timestamp>,
    /// The notifications that must settle at the same destination first.
    pub waits_for: Vec<NotificationId>,
}

/// What came of one attempt to deliver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempted {
    /// The notification.
    pub id: NotificationId,
    /// The destination.
    pub channel: ChannelId,
    /// Counts the attempts, from 1.
    pub attempt: u32,
    /// Whether the receiver took it.
    pub delivered: bool,
    /// What happened, for people: `200`, `connection refused`, `merged into a digest`.
    pub outcome: String,
    /// When the next attempt is due; a failure without one settles the pair.
    pub next_at: Option<Timestamp>,
    /// Whether it was sent and no answer came: the receiver may have taken it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unanswered: bool,
    /// Whether it was not tried because the channel was deleted: nothing is lost by that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub channel_deleted: bool,
}

/// Returns the id of an instance's notification: a hash of what identifies the decision.
pub fn notification_id(key: &InstanceKey, epoch: Epoch, period: Timestamp, sequence: u64) -> NotificationId {
    let mut hash = Sha256::new();
    hash.update(key.tenant.workspace.0.to_be_bytes());
    hash.update(key.tenant.mode.name().as_bytes());
    hash.update(key.alert.0.to_be_bytes());
    hash.update(epoch.0.to_be_bytes());
    for part in [Some(key.account.as_str()), key.metric.as_ref().map(|m| m.as_str())] {
        let bytes = part.unwrap_or("").as_bytes();
        hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(bytes);
    }
    hash.update(period.0.to_be_bytes());
    hash.update(sequence.to_be_bytes());
    let digest = hash.finalize();
    let mut first = [0_u8; 16];
    first.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
    NotificationId(u128::from_be_bytes(first))
}
