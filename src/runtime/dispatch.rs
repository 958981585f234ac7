//! What the processors ask the dispatcher for.

use crate::domain::id::{ChannelId, NotificationId, PartitionId};
use crate::domain::partition::Owed;
use crate::domain::partition::notification::Notification;
use crate::domain::time::Timestamp;
use std::sync::Arc;
use tokio::sync::oneshot;

/// What the processors tell the dispatcher.
#[derive(Debug)]
pub enum Dispatch {
    /// A (notification, destination) pair is due.
    Owed {
        /// Whose debt it is.
        partition: PartitionId,
        /// What is owed.
        notification: Arc<Notification>,
        /// To whom.
        channel: ChannelId,
        /// Attempts so far.
        attempts: u32,
        /// When the next attempt is due; at once where absent.
        next_at: Option<Timestamp>,
        /// Since when the channel is behind about the instance.
        behind_since: Timestamp,
        /// Whether a former owner of the partition may have begun an attempt that nobody recorded.
        inherited: bool,
    },
    /// A newer message took the place of one: unless an attempt of that is under way, and so will be recorded, it is
    /// recorded that none is.
    Superseded {
        /// Whose debt it was.
        partition: PartitionId,
        /// The older notification.
        id: NotificationId,
        /// The destination.
        channel: ChannelId,
        /// Whether a former owner of the partition may have begun an attempt that nobody recorded.
        inherited: bool,
    },
    /// A pair needs no more attempts.
    Settled {
        /// The notification.
        id: NotificationId,
        /// The destination.
        channel: ChannelId,
    },
    /// A partition is given back: nothing more is sent for it.
    Released {
        /// Which one.
        partition: PartitionId,
        /// Told when no attempt for it is under way any more, and every outcome is recorded.
        ended: oneshot::Sender<()>,
    },
}

impl Dispatch {
    /// Tells of a debt, or of what it waits for where only this node can say how that ended.
    pub fn of(partition: PartitionId, owed: &Owed<'_>, inherited: bool) -> Option<Self> {
        let channel = owed.channel;
        match owed.waits_for_outcome {
            Some(id) => Some(Self::Superseded { partition, id, channel, inherited }),
            None => (!owed.waits).then(|| Self::owed(partition, owed, inherited)),
        }
    }

    fn owed(partition: PartitionId, owed: &Owed<'_>, inherited: bool) -> Self {
        Self::Owed {
            inherited,
            partition,
            notification: Arc::new(owed.message()),
            channel: owed.channel,
            attempts: owed.debt.attempts,
            next_at: owed.debt.next_at,
            behind_since: owed.behind_since(),
        }
    }
}
