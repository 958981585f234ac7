//! What was answered to which idempotency key. Records age by the control log's clock alone, so every node forgets the
//! same ones at the same entry.

use super::command::Idempotency;
use super::outcome::{Outcome, Refused};
use crate::domain::id::Tenant;
use crate::domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The first answer to an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Original {
    /// What was sent with the key, as a digest.
    pub fingerprint: String,
    /// The request that was answered.
    pub request_id: String,
    /// The answer.
    pub outcome: Outcome,
    /// What it shows beside the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<String>,
    /// When a repetition is a request of its own again.
    pub stands_until: Timestamp,
    /// Whose answer it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Tenant>,
}

impl Original {
    /// Tells whether the answer still stands, the end excluded.
    pub const fn stands_at(&self, now: Timestamp) -> bool {
        now.0 < self.stands_until.0
    }
}

/// Every answer that still stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ledger {
    by_record: BTreeMap<String, Original>,
    /// The records in the order of their ends; each once.
    by_end: BTreeSet<(Timestamp, String)>,
}

impl Ledger {
    pub(super) fn original(&self, record: &str, now: Timestamp) -> Option<&Original> {
        self.by_record.get(record).filter(|original| original.stands_at(now))
    }

    /// Drops what is too old. `now` never goes back from call to call.
    pub(super) fn forget(&mut self, now: Timestamp) {
        while let Some((end, _)) = self.by_end.first()
            && *end <= now
        {
            if let Some((_, record)) = self.by_end.pop_first() {
                self.by_record.remove(&record);
            }
        }
    }

    /// Drops every answer that a tenant got.
    pub(super) fn forget_of(&mut self, tenant: Tenant) {
        self.by_record.retain(|_, original| original.tenant != Some(tenant));
        self.by_end.retain(|(_, record)| self.by_record.contains_key(record));
    }

    /// Remembers an answer, at the `now` of the last [`Self::forget`]. The record is not in the ledger.
    pub(super) fn keep(&mut self, idempotency: &Idempotency, original: Original) {
        let end = original.stands_until;
        let taken = self.by_record.insert(idempotency.record.clone(), original).is_some();
        crate::check!(!taken, "control.idempotency_record_is_kept_once");
        if !taken {
            self.by_end.insert((end, idempotency.record.clone()));
        }
    }
}

/// Tells whether a repetition is answered with this outcome.
///
/// A version mismatch is not kept: the caller reads again and repeats with another `If-Match`, which the fingerprint does
/// not hold, and must then get through.
pub(super) const fn is_kept(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Created(_) | Outcome::Done(_) | Outcome::Deleted => true,
        Outcome::Refused(refused) => match refused {
            Refused::VersionMismatch { .. } | Refused::IdempotencyKeyReused { .. } | Refused::TooOften { .. } => false,
            Refused::AlreadyInitialised
            | Refused::NotFound { .. }
            | Refused::Conflict { .. }
            | Refused::LimitReached { .. }
            | Refused::InvalidState { .. }
            | Refused::KeyNotActive { .. }
            | Refused::ChannelNotConfigured { .. } => true,
        },
    }
}
