//! Whom a presented key stands for. Unknown ids, wrong secrets and malformed keys cost the same and look the same.

use super::key;
use crate::domain::control::fold::Control;
use crate::domain::control::resource::Scope;
use crate::domain::id::{KeyId, ProjectId, Tenant};
use crate::domain::time::Timestamp;
use std::collections::BTreeSet;
use subtle::ConstantTimeEq;

/// What a key of an unknown id is compared with: as long as a hash, and never one, for hashes are lower-case hex.
const NO_HASH: &str = "****************************************************************";

/// Whom a request speaks for. It holds nothing of the credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The workspace and mode.
    pub tenant: Tenant,
    /// The key.
    pub key_id: KeyId,
    /// Shared by the key and what it was rotated from: the scope of idempotency and of the rate limit.
    pub lineage: KeyId,
    /// What it may do, with what its scopes bring along.
    pub scopes: BTreeSet<Scope>,
    /// The projects that it is narrowed to; all where empty.
    pub projects: Vec<ProjectId>,
    /// When the key stops to work.
    pub expires_at: Option<Timestamp>,
    /// Its own rate limit, where it has one.
    pub rate_limit: Option<u32>,
}

impl Principal {
    /// Tells whether the principal has a scope.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

/// Why a presented key stands for nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No key was presented.
    #[error("no API key was presented")]
    Missing,
    /// It is no key of ours.
    #[error("the API key is not valid")]
    Invalid,
    /// It was a key of ours until it expired.
    #[error("the API key has expired")]
    Expired,
    /// It was a key of ours until it was revoked.
    #[error("the API key was revoked")]
    Revoked,
}

impl AuthError {
    /// The code as the API writes it.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Missing => "authentication_required",
            Self::Invalid => "invalid_api_key",
            Self::Expired => "api_key_expired",
            Self::Revoked => "api_key_revoked",
        }
    }
}

/// Returns whom a presented key stands for.
///
/// Each presented key costs one SHA-256 and one comparison in constant time, whether or not it is known.
///
/// # Errors
/// Where the key is absent (empty), no key of ours, revoked, or expired at `now`. The last two are told only to who
/// holds the secret.
pub fn authenticate(control: &Control, presented: &str, now: Timestamp) -> Result<Principal, AuthError> {
    if presented.is_empty() {
        return Err(AuthError::Missing);
    }
    let parsed = key::parse(presented).ok();
    let record = parsed.as_ref().and_then(|parsed| control.key_record_by_lookup(&parsed.lookup));
    // What is no key has no bound on its length, so it is not what is hashed.
    let hash = key::hash(if parsed.is_some() { presented } else { "" });
    let stored = record.map_or(NO_HASH, |record| record.key.hash.as_str());
    let matches = bool::from(hash.as_bytes().ct_eq(stored.as_bytes()));
    let Some(record) = record.filter(|_| matches) else { return Err(AuthError::Invalid) };
    if record.revoked_at.is_some() {
        return Err(AuthError::Revoked);
    }
    if !record.is_active(now) {
        return Err(AuthError::Expired);
    }
    let key = &record.key;
    Ok(Principal {
        tenant: Tenant { workspace: key.workspace, mode: key.mode },
        key_id: key.id,
        lineage: key.lineage,
        scopes: Scope::closure(&key.scopes),
        projects: key.projects.clone(),
        expires_at: key.expires_at,
        rate_limit: key.rate_limit,
    })
}

/// Tells whether a key may be one that this node has not folded yet: well-formed, with an id that it does not know.
///
/// Such a key is refused only after the node has folded to the control log's end.
pub fn names_unknown_key(control: &Control, presented: &str) -> bool {
    key::parse(presented).is_ok_and(|parsed| control.key_by_lookup(&parsed.lookup).is_none())
}
