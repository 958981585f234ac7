//! Whom a presented key stands for. Unknown ids, wrong secrets and malformed keys cost the same and look the same.

use super::{key, token};
use crate::domain::control::audit::Target;
use crate::domain::control::fold::Control;
use crate::domain::control::resource::{ClientRecord, ClientSecret, Scope, ScopeSet};
use crate::domain::id::{ClientId, KeyId, ProjectId, Tenant};
use crate::domain::limits::LIVE_PREDECESSORS_MAX;
use crate::domain::time::Timestamp;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;
use subtle::ConstantTimeEq;

/// What a key of an unknown id is compared with: as long as a hash, and never one, for hashes are lower-case hex.
const NO_HASH: &str = "****************************************************************";

/// Whom a request speaks for. It holds nothing of the credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The workspace and mode.
    pub tenant: Tenant,
    /// The key; of an access token, its client's name among the keys.
    pub key_id: KeyId,
    /// The OAuth client, where an access token was presented.
    pub client: Option<ClientId>,
    /// What that token says.
    pub token: Option<token::Claims>,
    /// Shared by the key and what it was rotated from: the scope of idempotency and of the rate limit.
    pub lineage: KeyId,
    /// What it may do, with what its scopes bring along.
    pub scopes: ScopeSet,
    /// The projects that it is narrowed to; all where empty.
    pub projects: Vec<ProjectId>,
    /// The networks that it may be used from; all where empty.
    pub allowed_ips: Vec<IpNet>,
    /// When the key stops to work.
    pub expires_at: Option<Timestamp>,
    /// Its own rate limit, where it has one.
    pub rate_limit: Option<u32>,
}

impl Principal {
    /// Tells whether the principal has a scope.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(scope)
    }

    /// Tells whether the principal reaches what is labelled with a project, or with none.
    pub fn reaches(&self, project: Option<ProjectId>) -> bool {
        self.projects.is_empty() || project.is_some_and(|project| self.projects.contains(&project))
    }

    /// Tells whether the key or token would still be let in from an address: neither ended, revoked nor narrowed since.
    pub fn still_stands(&self, control: &Control, from: IpAddr, now: Timestamp) -> bool {
        match &self.token {
            Some(claims) => standing(control, claims, from, now).is_ok(),
            None => control
                .key(self.key_id)
                .is_some_and(|record| record.is_active(now) && admits(&record.key.allowed_ips, from)),
        }
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
    /// It was a key or token of ours until it was revoked.
    #[error("the key or token was revoked")]
    Revoked,
    /// It was a token of ours until it expired.
    #[error("the access token has expired")]
    TokenExpired,
    /// It is a key or token of ours, but not one for where it was presented from.
    #[error("the key or token may not be used from this address")]
    Address,
}

impl AuthError {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::Missing, Self::Invalid, Self::Expired, Self::Revoked, Self::TokenExpired, Self::Address];

    /// The code as the API writes it.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Missing => "authentication_required",
            Self::Invalid => "invalid_api_key",
            Self::Expired => "api_key_expired",
            Self::Revoked => "api_key_revoked",
            Self::TokenExpired => "token_expired",
            Self::Address => "ip_not_allowed",
        }
    }
}

/// Returns whom a presented key stands for.
///
/// Each presented key costs one SHA-256 and one comparison in constant time, whether or not it is known.
///
/// # Errors
/// Where the key is absent (empty), no key of ours, revoked, expired at `now`, or not for the address that it came from.
/// The last three are told only to who holds the secret.
pub fn authenticate(control: &Control, presented: &str, from: IpAddr, now: Timestamp) -> Result<Principal, AuthError> {
    if presented.is_empty() {
        return Err(AuthError::Missing);
    }
    let parsed = key::parse(presented).ok();
    // What is no key has no bound on its length, so it is not what is hashed.
    let hash = key::hash(if parsed.is_some() { presented } else { "" });
    // Found by the whole key and not by its public part, so that a wrong secret takes the way of an unknown key.
    let record = control.key_record_by_hash(&hash);
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
    if !admits(&key.allowed_ips, from) {
        return Err(AuthError::Address);
    }
    Ok(Principal {
        tenant: Tenant { workspace: key.workspace, mode: key.mode },
        key_id: key.id,
        client: None,
        token: None,
        lineage: key.lineage,
        scopes: ScopeSet::closure(&key.scopes),
        projects: key.projects.clone(),
        allowed_ips: key.allowed_ips.clone(),
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

/// Returns whom an access token stands for.
///
/// It ends with its time, its client, the secret that it was issued for, and its revocation, whichever is first.
///
/// # Errors
/// Where the token is none of ours, expired at `now`, revoked in one of these ways, or not for the address that it came
/// from.
pub fn authenticate_token(
    control: &Control,
    mac_key: &[u8; 32],
    presented: &str,
    (from, now): (IpAddr, Timestamp),
) -> Result<Principal, AuthError> {
    let claims = token::open(mac_key, presented).ok_or(AuthError::Invalid)?;
    let record = standing(control, &claims, from, now)?;
    let client = &record.client;
    Ok(Principal {
        tenant: client.tenant,
        key_id: record.as_key(),
        client: Some(client.id),
        token: Some(claims),
        lineage: record.as_key(),
        scopes: token_scopes(&client.scopes, claims.scopes),
        projects: client.projects.clone(),
        allowed_ips: client.allowed_ips.clone(),
        expires_at: Some(claims.expires_at),
        rate_limit: None,
    })
}

/// Returns the client that a token still stands for.
fn standing<'a>(
    control: &'a Control,
    claims: &token::Claims,
    from: IpAddr,
    now: Timestamp,
) -> Result<&'a ClientRecord, AuthError> {
    if claims.expires_at <= now {
        return Err(AuthError::TokenExpired);
    }
    let record = control.client(claims.client).ok_or(AuthError::Revoked)?;
    let has_secret = record.secrets(now).any(|secret| secret.generation == claims.generation);
    if !has_secret || record.has_revoked(&claims.number_text(), claims.issued_at) {
        return Err(AuthError::Revoked);
    }
    if !record.is_active(now) {
        return Err(AuthError::TokenExpired);
    }
    if admits(&record.client.allowed_ips, from) { Ok(record) } else { Err(AuthError::Address) }
}

/// Tells whether an address is one of these networks; none of them stands for all addresses.
pub fn admits(allowed_ips: &[IpNet], from: IpAddr) -> bool {
    allowed_ips.is_empty() || allowed_ips.iter().any(|network| network.contains(&from))
}

/// Returns the key or client that a presented credential names, whether or not it works.
pub fn named(control: &Control, mac_key: &[u8; 32], presented: &str) -> Option<(Tenant, Target)> {
    if let Some(claims) = token::open(mac_key, presented) {
        let client = &control.client(claims.client)?.client;
        return Some((client.tenant, Target::OauthClient(client.id)));
    }
    let key = control.key_by_lookup(&key::parse(presented).ok()?.lookup)?;
    Some((Tenant { workspace: key.workspace, mode: key.mode }, Target::ApiKey(key.id)))
}

/// Tells whether a token is of a client that this node has not folded yet.
pub fn names_unknown_client(control: &Control, mac_key: &[u8; 32], presented: &str) -> bool {
    token::open(mac_key, presented).is_some_and(|claims| control.client(claims.client).is_none())
}

/// Returns the scopes that a token's bits stand for. A client's scopes are frozen with what they bring along, so the
/// bits mean the same in every release.
pub fn token_scopes(of_client: &BTreeSet<Scope>, bits: u64) -> ScopeSet {
    let is_set =
        |at: &usize| bits.checked_shr(u32::try_from(*at).unwrap_or(u32::MAX)).is_some_and(|rest| rest & 1 == 1);
    of_client.iter().enumerate().filter(|(at, _)| is_set(at)).map(|(_, scope)| *scope).collect()
}

/// Returns the client and the secret of it that was presented, where both fit at `now`.
///
/// Each call costs one SHA-256 and as many comparisons in constant time, whether or not the client is known.
pub fn verify_secret<'a>(
    control: &'a Control,
    id: &str,
    presented: &str,
    now: Timestamp,
) -> Option<(&'a ClientRecord, &'a ClientSecret)> {
    let record = id.parse().ok().and_then(|id| control.client(id)).filter(|record| record.is_active(now));
    let hash = key::hash(presented);
    let mut secrets = record.into_iter().flat_map(|record| record.secrets(now));
    let mut found = None;
    for _ in 0..=LIVE_PREDECESSORS_MAX {
        let secret = secrets.next();
        let stored = secret.map_or(NO_HASH, |secret| secret.hash.as_str());
        if bool::from(hash.as_bytes().ct_eq(stored.as_bytes())) {
            found = secret;
        }
    }
    record.zip(found)
}
