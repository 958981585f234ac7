//! What the control fold keeps: workspaces, keys, accounts, quotas, metrics, channels and alerts.

pub use super::scope::{Role, Scope};

use super::command::{AlertWarning, ChannelChoice};
use crate::domain::definition::{AlertDefinition, MetricDefinition, Quota, Silence};
use crate::domain::id::{
    AccountId, AccountScope, AlertId, ChannelId, IncidentId, KeyId, MetricName, Mode, ProjectId, WorkspaceId,
};
use crate::domain::time::Timestamp;
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
}

/// An API key with what happened to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// The key as it was made; only its record changes.
    pub key: ApiKey,
    /// The key that made it; absent for the command line.
    pub created_by: Option<KeyId>,
    /// When it was revoked, on the log's clock.
    pub revoked_at: Option<Timestamp>,
    /// Its life.
    pub life: Life,
}

impl KeyRecord {
    /// Tells whether the key works at an instant: neither revoked nor expired.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.key.expires_at.is_none_or(|end| now < end)
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
    /// Its life.
    pub life: Life,
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
