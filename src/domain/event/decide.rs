//! What may be refused before the journal: events from the wrong time. And ids for events that have none.

use super::UsageEvent;
use super::refusal::{Refusal, RefusalCode};
use crate::domain::time::{Millis, Timestamp};
use sha2::{Digest, Sha256};

/// When and by what bounds events are accepted.
#[derive(Clone, Copy, Debug)]
pub struct Acceptance {
    /// The time of acceptance, which is also the default timestamp.
    pub accepted_at: Timestamp,
    /// How old an event may be.
    pub lateness_horizon: Millis,
    /// How far ahead an event may be.
    pub ahead_max: Millis,
    /// Takes events of any age.
    pub backfill: bool,
}

/// Decides on an event; returns its event time.
///
/// # Errors
/// Where the event is too old or too far ahead.
pub fn decide(event: &UsageEvent<'_>, acceptance: &Acceptance) -> Result<Timestamp, Refusal> {
    let Some(at) = event.timestamp else { return Ok(acceptance.accepted_at) };
    let Acceptance { accepted_at, lateness_horizon, ahead_max, backfill } = *acceptance;
    if at > accepted_at.plus(ahead_max) {
        let detail = format!("{at} is more than {ahead_max} ahead of {accepted_at}; check the sender's clock");
        return Err(Refusal::at(RefusalCode::TimestampInFuture, "/timestamp", detail));
    }
    if !backfill && at < accepted_at.minus(lateness_horizon) {
        let detail = format!(
            "{at} is more than {lateness_horizon} before {accepted_at}; older events go in with import --backfill"
        );
        return Err(Refusal::at(RefusalCode::TimestampTooOld, "/timestamp", detail));
    }
    Ok(at)
}

/// Returns the id of an event that has none: a hash of who sent it, under which key, at which place, and its bytes.
pub fn derived_id(lineage: &str, key: &str, index: usize, bytes: &[u8]) -> String {
    let mut hash = Sha256::new();
    let index = u64::try_from(index).unwrap_or(u64::MAX).to_be_bytes();
    for part in [lineage.as_bytes(), key.as_bytes(), &index, bytes] {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    let mut first = [0_u8; 16];
    first.iter_mut().zip(hash.finalize().iter()).for_each(|(to, from)| *to = *from);
    ulid::Ulid(u128::from_be_bytes(first)).to_string()
}
