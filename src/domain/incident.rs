//! Incidents: one firing of an alert instance, from its beginning to its end, as its transitions tell it.

use crate::domain::id::IncidentId;
use crate::domain::partition::effect::{State, TransitionRow};
use sha2::{Digest, Sha256};

/// Tells whether a transition begins an incident.
pub fn begins(row: &TransitionRow) -> bool {
    row.to == State::Firing && row.from != State::Firing
}

/// Tells whether a transition ends an incident.
pub fn ends(row: &TransitionRow) -> bool {
    row.from == State::Firing && row.to != State::Firing
}

/// Returns the id of the incident that a transition begins: a hash of the instance, its epoch and the transition's
/// number, which never comes again.
pub fn id(row: &TransitionRow) -> IncidentId {
    let key = &row.key;
    let mut hash = Sha256::new();
    hash.update(key.tenant.workspace.0.to_be_bytes());
    hash.update(key.tenant.mode.name().as_bytes());
    hash.update(key.alert.0.to_be_bytes());
    hash.update(row.epoch.0.to_be_bytes());
    for part in [Some(key.account.as_str()), key.metric.as_ref().map(|metric| metric.as_str())] {
        let bytes = part.unwrap_or("").as_bytes();
        hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(bytes);
    }
    hash.update(row.sequence.to_be_bytes());
    let digest = hash.finalize();
    let mut first = [0_u8; 16];
    first.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
    IncidentId(u128::from_be_bytes(first))
}
