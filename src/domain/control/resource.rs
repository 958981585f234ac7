//! What the control fold keeps: workspaces, keys, accounts, quotas, metrics, channels and alerts.

pub use super::scope::{Role, Scope, ScopeSet};

pub use super::webhook::{DisabledReason, SealedSecret, Webhook, WebhookStatus};

use super::command::{AlertWarning, ChannelChoice};
use crate::domain::definition::{AlertDefinition, MetricDefinition, Quota, Silence};
use crate::domain::id::{
    AccountId, AccountScope, AlertId, ChannelId, ClientId, IncidentId, KeyId, MetricName, Mode, ProjectId, Tenant,
    WorkspaceId,
};
use crate::domain::limits::IDEMPOTENCY_HORIZON;
use crate::domain::time::{Millis, Timestamp};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// When a resource was made and changed, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Counts changes, from 1; serves `ETag`.
    pub version: u64,
    /// When it was made, on the log's clock.
    pub created_at: Timestamp,
    /// When it last changed, on the log's clock.
    pub updated_at: Timestamp,
}

impl Life {
    /// Begins a life at version 1.
    pub const fn begun(at: Timestamp) -> Self {
        Self { version: 1, created_at: at, updated_at: at }
    }

    /// Counts a change.
    pub const fn touch(&mut self, at: Timestamp) {
        self.version = self.version.saturating_add(1);
        self.updated_at = at;
    }
}

/// A workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Its name.
    pub name: String,
    /// Whether every change needs an `Idempotency-Key`.
    #[serde(default)]
    pub require_idempotency_key: bool,
    /// How long answers are kept for repetitions.
    #[serde(default = "idempotency_horizon")]
    pub idempotency_horizon: Millis,
    /// Its life.
    pub life: Life,
}

const fn idempotency_horizon() -> Millis {
    IDEMPOTENCY_HORIZON
}

/// What a project runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// Production.
    Prod,
    /// The dress rehearsal.
    Staging,
    /// Where things are made.
    Dev,
}

impl Environment {
    /// Every environment.
    pub const ALL: [Self; 3] = [Self::Prod, Self::Staging, Self::Dev];

    /// The name as the API writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prod => "prod",
            Self::Staging => "staging",
            Self::Dev => "dev",
        }
    }
}

/// A project: a label on credentials, alerts and where they go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// A name for people.
    pub name: String,
    /// What it runs in.
    pub env: Environment,
    /// The caller's own notes.
    pub metadata: BTreeMap<String, String>,
    /// Its life.
    pub life: Life,
}

/// An API key, as a hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Its id.
    pub id: KeyId,
    /// The part of the key that finds it: 12 base62 characters.
    pub lookup: String,
    /// SHA-256 of the whole key, lower-case hex.
    pub hash: String,
    /// The workspace that it is bound to.
    pub workspace: WorkspaceId,
    /// Live or sandbox.
    pub mode: Mode,
    /// Shared by a key and what it was rotated from; the first key's id.
    pub lineage: KeyId,
    /// A name for people.
    pub name: String,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// The projects that it is narrowed to; all where empty.
    pub projects: Vec<ProjectId>,
    /// What people may see of it: `pk_live_7Hq2…xiM`.
    pub hint: String,
    /// When it stops to work.
    pub expires_at: Option<Timestamp>,
    /// How many requests it may make in a window, where the operator gave it a limit of its own; 0 is no limit.
    #[serde(default)]
    pub rate_limit: Option<u32>,
    /// The role that its scopes were taken from.
    #[serde(default)]
    pub role: Option<Role>,
    /// The networks that it may be used from; all where empty.
    #[serde(default)]
    pub allowed_ips: Vec<IpNet>,
    /// The caller's own notes.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// An API key with what happened to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// The key; what it may do is as it was made.
    pub key: ApiKey,
    /// The key that made it; absent for the command line.
    pub created_by: Option<KeyId>,
    /// When it was revoked, on the log's clock.
    pub revoked_at: Option<Timestamp>,
    /// The key that took its place.
    #[serde(default)]
    pub replaced_by: Option<KeyId>,
    /// Its life.
    pub life: Life,
}

/// How an API key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStatus {
    /// It works.
    Active,
    /// It works until its grace ends; another took its place.
    Rotating,
    /// It was revoked.
    Revoked,
    /// It has expired.
    Expired,
}

impl KeyStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Active, Self::Rotating, Self::Revoked, Self::Expired];

    /// The name as the API writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Rotating => "rotating",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

impl KeyRecord {
    /// Tells how the key stands at an instant.
    pub fn status(&self, now: Timestamp) -> KeyStatus {
        match (self.revoked_at, self.is_active(now), self.replaced_by) {
            (Some(_), _, _) => KeyStatus::Revoked,
            (None, false, _) => KeyStatus::Expired,
            (None, true, Some(_)) => KeyStatus::Rotating,
            (None, true, None) => KeyStatus::Active,
        }
    }

    /// Tells whether the key works at an instant: neither revoked nor expired.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.key.expires_at.is_none_or(|end| now < end)
    }
}

/// An OAuth client, its secrets as hashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OAuthClient {
    /// Its id.
    pub id: ClientId,
    /// The workspace and mode that it is bound to.
    pub tenant: Tenant,
    /// A name for people.
    pub name: String,
    /// What its tokens may do, with what its scopes bring along.
    pub scopes: BTreeSet<Scope>,
    /// The role that its scopes were taken from.
    pub role: Option<Role>,
    /// The projects that it is narrowed to; all where empty.
    pub projects: Vec<ProjectId>,
    /// When it stops to work.
    pub expires_at: Option<Timestamp>,
    /// The networks that its secret and its tokens may be used from; all where empty. Left out where empty, so that the digests of
    /// clients that were made without it stay as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_ips: Vec<IpNet>,
    /// The caller's own notes.
    pub metadata: BTreeMap<String, String>,
    /// Its newest secret, then those that it replaced and that still work.
    pub secrets: Vec<ClientSecret>,
}

/// A secret of an OAuth client, as a hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSecret {
    /// Counts the client's secrets, from 1.
    pub generation: u32,
    /// SHA-256 of the whole secret, lower-case hex.
    pub hash: String,
    /// What people may see of it.
    pub hint: String,
    /// When it stops to work, once it was replaced.
    pub until: Option<Timestamp>,
}

/// An OAuth client with what happened to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRecord {
    /// The client.
    pub client: OAuthClient,
    /// The key that made it; absent for the command line.
    pub created_by: Option<KeyId>,
    /// Its tokens that were revoked and would still work, with when they end by themselves.
    pub revoked_tokens: BTreeMap<String, Timestamp>,
    /// Every token that was issued up to then is revoked.
    pub revoked_through: Option<Timestamp>,
    /// Its life.
    pub life: Life,
}

impl ClientRecord {
    /// Tells whether the client works at an instant.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.client.expires_at.is_none_or(|end| now < end)
    }

    /// Returns the secrets that work at an instant, newest first.
    pub fn secrets(&self, now: Timestamp) -> impl Iterator<Item = &ClientSecret> {
        self.client.secrets.iter().filter(move |secret| secret.until.is_none_or(|end| now < end))
    }

    /// Tells whether a token was revoked, by its number and when it was issued.
    pub fn has_revoked(&self, token: &str, issued_at: Timestamp) -> bool {
        self.revoked_tokens.contains_key(token) || self.revoked_through.is_some_and(|through| issued_at <= through)
    }

    /// Returns the client's name among the keys: what it does is told, limited and repeated under it.
    pub const fn as_key(&self) -> KeyId {
        KeyId(self.client.id.0)
    }
}

/// An account that people set something on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The caller's own name for it.
    pub id: AccountId,
    /// A name for people.
    pub name: Option<String>,
    /// The caller's own notes.
    pub metadata: BTreeMap<String, String>,
    /// Its life.
    pub life: Life,
}

/// A quota with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaRecord {
    /// The account, or all of them.
    pub account: AccountScope,
    /// The metric.
    pub metric: MetricName,
    /// The quota.
    pub quota: Quota,
    /// Its life.
    pub life: Life,
}

/// A metric that people defined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricRecord {
    /// The metric.
    pub metric: MetricName,
    /// What is known of it.
    pub definition: MetricDefinition,
    /// Since when each dimension of `group_by` has been in it without a break, in the time of its tenant's world.
    #[serde(default)]
    pub kept_since: BTreeMap<String, Timestamp>,
    /// Its life.
    pub life: Life,
}

/// What a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelKind {
    /// Slack: an incoming webhook, or a bot token.
    Slack,
    /// An HTTP endpoint that takes signed JSON.
    Webhook,
}

impl ChannelKind {
    /// The name as the API writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Slack => "slack",
            Self::Webhook => "webhook",
        }
    }
}

/// Where notifications go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Its id.
    pub id: ChannelId,
    /// What it is.
    pub kind: ChannelKind,
    /// A name for people.
    pub name: String,
    /// Whether alerts that name only the type go here.
    pub default: bool,
    /// Where and how to deliver, sealed with the master key.
    pub sealed: String,
    /// The target with its secret parts left out, for people.
    pub hint: String,
    /// The project that it is labelled with, for as long as it exists: only alerts of this project go to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectId>,
    /// Since when it loses messages: from the first that it lost until it takes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
    /// Its life.
    pub life: Life,
}

impl Channel {
    /// How it does, as the API writes it.
    pub const fn status(&self) -> &'static str {
        match self.failing_since {
            Some(_) => "failing",
            None => "ok",
        }
    }

    /// Tells whether alerts with a label may go here.
    pub fn takes_alerts_of(&self, label: Option<ProjectId>) -> bool {
        self.project.is_none() || self.project == label
    }
}

/// A silence with what the API shows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilenceRecord {
    /// What the engine goes by.
    pub silence: Silence,
    /// Why it is there.
    pub comment: Option<String>,
    /// The key that made it.
    pub created_by: Option<KeyId>,
    /// When somebody ended it before its time.
    pub expired_at: Option<Timestamp>,
    /// When it was changed last, in the time of its tenant's world; absent up to engine version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Timestamp>,
    /// Its life.
    pub life: Life,
}

/// That somebody takes care of an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// The incident.
    pub incident: IncidentId,
    /// The alert that fired.
    pub alert: AlertId,
    /// When, on the log's clock.
    pub at: Timestamp,
    /// The key that said so.
    pub by: Option<KeyId>,
}

/// An alert with what the API shows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// What the engine goes by.
    pub definition: AlertDefinition,
    /// The rule in its canonical spelling.
    pub normalized: String,
    /// What is odd about the rule.
    pub warnings: Vec<AlertWarning>,
    /// The channels as they were written.
    pub channel: ChannelChoice,
    /// The caller's own notes.
    pub metadata: BTreeMap<String, String>,
    /// Its life.
    pub life: Life,
}
