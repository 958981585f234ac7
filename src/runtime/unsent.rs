//! What newer messages wait for: the record that no attempt of a superseded message is under way.

use crate::domain::id::{ChannelId, Log, NotificationId, PartitionId};
use crate::domain::partition::fact::Note;
use crate::domain::partition::notification::Attempted;
use crate::journal::Journal;
use bytes::Bytes;
use std::time::Duration;

/// How long it is waited before a record is tried again that newer messages wait for.
const UNSENT_RETRY: Duration = Duration::from_secs(1);

/// A superseded pair of which it is to be recorded that no attempt is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsent {
    pub(super) partition: PartitionId,
    pub(super) id: NotificationId,
    pub(super) channel: ChannelId,
    /// Whether an attempt without a recorded outcome may have been made.
    pub(super) maybe_sent: bool,
}

impl Unsent {
    /// Records that no attempt of a superseded message is under way, so that the newer one may go.
    pub(super) fn record(self, journal: &Journal) {
        let journal = journal.clone();
        tokio::spawn(async move {
            let Unsent { partition, id, channel, maybe_sent } = self;
            let outcome = if maybe_sent { "an attempt of a former owner has no outcome" } else { "not sent" };
            let note = Note::NotificationAttempted(Attempted {
                id,
                channel,
                attempt: 0,
                delivered: false,
                outcome: outcome.to_owned(),
                next_at: None,
                unanswered: maybe_sent,
                channel_deleted: false,
            });
            let fact = (Log::Partition(partition), Bytes::from(note.encode()));
            while let Err(error) = journal.append(vec![fact.clone()]).await {
                let cause = crate::telemetry::chain(&error);
                tracing::warn!(channel = %channel, error = %cause, "a newer message waits for a record; it is tried again");
                tokio::time::sleep(UNSENT_RETRY).await;
            }
        });
    }
}
