//! What commands about projects, keys, OAuth clients and the workspace itself carry. Secrets are hashes by here.

use super::command::clearable;
use super::resource::Environment;
use crate::domain::id::{ClientId, KeyId, ProjectId};
use crate::domain::time::{Millis, Timestamp};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Changes of a map of notes: absent leaves it, `Some(None)` empties it, an entry without a value goes.
pub type NotesPatch = Option<Option<BTreeMap<String, Option<String>>>>;

/// A project to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectDraft {
    /// Its id.
    pub id: ProjectId,
    /// A name for people.
    pub name: String,
    /// What it runs in.
    pub env: Environment,
    /// The caller's own notes.
    pub metadata: BTreeMap<String, String>,
}

/// Changes of a project. An absent field stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectChange {
    /// Which one.
    pub id: ProjectId,
    /// The name for people.
    pub name: Option<String>,
    /// What it runs in.
    pub env: Option<Environment>,
    /// The caller's own notes.
    #[serde(default, deserialize_with = "clearable::deserialize", skip_serializing_if = "Option::is_none")]
    pub metadata: NotesPatch,
}

/// Changes of an API key. An absent field stays; what a key may do never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// Which one.
    pub id: KeyId,
    /// The name for people.
    pub name: Option<String>,
    /// The networks that it may be used from.
    pub allowed_ips: Option<Vec<IpNet>>,
    /// The caller's own notes.
    #[serde(default, deserialize_with = "clearable::deserialize", skip_serializing_if = "Option::is_none")]
    pub metadata: NotesPatch,
}

/// Changes of an OAuth client. An absent field stays; what its tokens may do never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientChange {
    /// Which one.
    pub id: ClientId,
    /// The name for people.
    pub name: Option<String>,
    /// The networks that its secret and its tokens may be used from.
    pub allowed_ips: Option<Vec<IpNet>>,
    /// The caller's own notes.
    #[serde(default, deserialize_with = "clearable::deserialize", skip_serializing_if = "Option::is_none")]
    pub metadata: NotesPatch,
}

/// A key that takes the place of another and may do the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRotation {
    /// The one that is replaced.
    pub from: KeyId,
    /// The id of the key to be.
    pub id: KeyId,
    /// The part of the new key that finds it.
    pub lookup: String,
    /// SHA-256 of the whole new key, lower-case hex.
    pub hash: String,
    /// What people may see of the new key.
    pub hint: String,
    /// How long the replaced key goes on to work.
    pub grace: Millis,
    /// When the new key stops to work; as the replaced one where absent.
    pub expires_at: Option<Timestamp>,
}

/// A secret that takes the place of an OAuth client's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRotation {
    /// Which client.
    pub client: ClientId,
    /// SHA-256 of the whole new secret, lower-case hex.
    pub hash: String,
    /// What people may see of the new secret.
    pub hint: String,
    /// How long the replaced secret, and what was issued for it, goes on to work.
    pub grace: Millis,
}

/// An access token that stops to work before its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRevocation {
    /// Whose.
    pub client: ClientId,
    /// Which one: its number, in lower-case hex.
    pub token: String,
    /// When it would have ended by itself.
    pub expires_at: Timestamp,
}

/// Changes of a workspace. An absent field stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkspaceChange {
    /// The name for people.
    pub name: Option<String>,
    /// Whether every change needs an `Idempotency-Key`.
    pub require_idempotency_key: Option<bool>,
    /// How long answers are kept for repetitions.
    pub idempotency_horizon: Option<Millis>,
}
