//! What a node says of requests that it refused.

use crate::domain::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Requests whose events a node refused, because the journal did not take them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PressureReport {
    /// The first of them, by the node's clock.
    pub from: Timestamp,
    /// The last of them.
    pub to: Timestamp,
    /// How many.
    pub refused_requests: u64,
}
