//! Deliveries to an endpoint that were dropped because as many waited as may, until they are made again. Pure values.

use crate::domain::id::WebhookId;
use crate::domain::limits::DROPS_TOLD_EVERY;
use crate::domain::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Deliveries that were dropped because as many waited as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overflow {
    /// How many, as far as nodes told: what a node did not tell before it was killed is missing.
    pub dropped: u64,
    /// When the first of them was made, on the clock of its log: a replay from here on has all of them.
    pub since: Timestamp,
    /// When the last of them was told.
    pub until: Timestamp,
}

impl Overflow {
    /// What is left of it behind a redelivery. The store may lack what was told just before, so for that time the count has
    /// the last word.
    pub(super) fn behind(self, left: DropsLeft, now: Timestamp) -> Option<Self> {
        let is_stored = now.since(self.until) >= DROPS_TOLD_EVERY;
        let dropped = self.dropped.saturating_sub(left.again);
        match left.since {
            Some(since) if is_stored => Some(Self { dropped: dropped.max(1), since, ..self }),
            Some(since) => Some(Self { dropped: dropped.max(1), since: self.since.min(since), ..self }),
            None if dropped == 0 || is_stored => None,
            None => Some(Self { dropped, ..self }),
        }
    }
}

/// Deliveries to one endpoint that were dropped, since this was last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropReport {
    /// Which endpoint.
    pub id: WebhookId,
    /// How many.
    pub dropped: u64,
    /// When the first of them was made, on the clock of its log.
    pub since: Timestamp,
}

/// What a redelivery leaves of deliveries that were dropped because as many waited as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropsLeft {
    /// How many of them are made again.
    pub again: u64,
    /// When the first of the others was made, as the store had it; absent where it had none.
    pub since: Option<Timestamp>,
}
