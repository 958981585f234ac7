//! Who did what: a projection of the control log, folded with it.
//!
//! It is state of the fold, and not read from the log when somebody asks: what came of a command is not in the log but in
//! its fold, and a read of the log takes ever longer. So it is bounded: the newest [`AUDIT_ENTRIES_MAX`] of each tenant.
//! It holds ids, names and hashes; nothing of it opens a secret.

use super::command::{Command, Entry, TestSubject};
use super::outcome::{Outcome, Refused};
use super::registry::Registry;
use crate::domain::id::{
    AccountId, AccountScope, AlertId, AuditId, ChannelId, ClientId, IncidentId, KeyId, MetricName, Position, ProjectId,
    SilenceId, Tenant, WebhookId, WorkspaceId,
};
use crate::domain::limits::AUDIT_ENTRIES_MAX;
use crate::domain::partition::fact::V3;
use crate::domain::time::Timestamp;
use core::net::IpAddr;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

/// SHA-256 of a resource as the fold holds it.
pub type ResourceDigest = [u8; 32];

/// One thing that somebody did, or was refused for the state of things.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Its id; a later entry has a greater one.
    pub id: AuditId,
    /// When, on the log's clock.
    pub at: Timestamp,
    /// The key that did it; absent for the command line.
    pub actor: Option<KeyId>,
    /// What, for example `alert.update`.
    pub action: Cow<'static, str>,
    /// On what.
    pub target: Target,
    /// In which request.
    pub request_id: String,
    /// From where.
    pub ip: Option<IpAddr>,
    /// Why it was refused, where it was.
    pub refused: Option<Cow<'static, str>>,
    /// What it was like before; absent where there was none.
    pub before: Option<ResourceDigest>,
    /// What it was like behind it; absent where there is none.
    pub after: Option<ResourceDigest>,
    /// Chains it to the entry before it; absent on what was noted before engine version 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
}

/// What chains an entry to the one before it, so that none is changed, taken out or put in between unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The hash of the entry before it; zeros where it is the first of its tenant.
    pub previous: ResourceDigest,
    /// The hash of this entry.
    pub hash: ResourceDigest,
}

/// What a command is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A workspace.
    Workspace(WorkspaceId),
    /// An API key.
    ApiKey(KeyId),
    /// An account.
    Account(AccountId),
    /// A quota.
    Quota(AccountScope, MetricName),
    /// A metric.
    Metric(MetricName),
    /// An imported file, by its digest.
    Import(String),
    /// A channel.
    Channel(ChannelId),
    /// An alert.
    Alert(AlertId),
    /// A project.
    Project(ProjectId),
    /// An OAuth client.
    OauthClient(ClientId),
    /// A silence.
    Silence(SilenceId),
    /// An incident.
    Incident(IncidentId),
    /// The workspace's sandbox.
    Sandbox(WorkspaceId),
    /// An endpoint.
    Webhook(WebhookId),
}

impl Target {
    /// The kind, as the API writes it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Workspace(_) => "workspace",
            Self::ApiKey(_) => "api_key",
            Self::Account(_) => "account",
            Self::Quota(..) => "quota",
            Self::Metric(_) => "metric",
            Self::Import(_) => "import",
            Self::Channel(_) => "channel",
            Self::Alert(_) => "alert",
            Self::Project(_) => "project",
            Self::OauthClient(_) => "oauth_client",
            Self::Silence(_) => "silence",
            Self::Incident(_) => "incident",
            Self::Sandbox(_) => "sandbox",
            Self::Webhook(_) => "webhook",
        }
    }

    /// The id, as the API writes it; a quota's is `<account>/<metric>`.
    pub fn id(&self) -> String {
        match self {
            Self::Workspace(id) | Self::Sandbox(id) => id.to_string(),
            Self::ApiKey(id) => id.to_string(),
            Self::Account(id) => id.to_string(),
            Self::Quota(account, metric) => format!("{account}/{metric}"),
            Self::Metric(metric) => metric.to_string(),
            Self::Import(digest) => digest.clone(),
            Self::Channel(id) => id.to_string(),
            Self::Alert(id) => id.to_string(),
            Self::Project(id) => id.to_string(),
            Self::OauthClient(id) => id.to_string(),
            Self::Webhook(id) => id.to_string(),
            Self::Silence(id) => id.to_string(),
            Self::Incident(id) => id.to_string(),
        }
    }
}

/// What a command does to what.
#[derive(Clone, Debug)]
pub(super) struct Deed {
    pub(super) action: &'static str,
    pub(super) target: Target,
}

impl Deed {
    /// Names the workspace where the command leaves that to its tenant.
    pub(super) fn within(self, workspace: WorkspaceId) -> Self {
        if self.target == Target::Workspace(WorkspaceId(0)) {
            return Self { target: Target::Workspace(workspace), ..self };
        }
        let is_sandbox = matches!(self.target, Target::Sandbox(_));
        if is_sandbox { Self { target: Target::Sandbox(workspace), ..self } } else { self }
    }
}

/// Returns what the audit log says of a command; nothing of what the nodes ask for of their own accord.
pub(super) fn deed(command: &Command) -> Option<Deed> {
    let (action, target) = match command {
        Command::Initialise { .. }
        | Command::ChangeSettings { .. }
        | Command::EngineVersion { .. }
        | Command::ShareSnapshots { .. }
        | Command::KeepRows { .. } => return None,
        Command::CreateWorkspace { id, .. } => ("workspace.create", Target::Workspace(*id)),
        Command::CreateKey { key } => ("api_key.create", Target::ApiKey(key.id)),
        Command::UpdateWorkspace(_) => ("workspace.update", Target::Workspace(WorkspaceId(0))),
        Command::RevokeKey { id } => ("api_key.revoke", Target::ApiKey(*id)),
        Command::LimitKey { id, .. } => ("api_key.limit", Target::ApiKey(*id)),
        Command::UpdateKey(change) => ("api_key.update", Target::ApiKey(change.id)),
        Command::RotateKey(rotation) => ("api_key.rotate", Target::ApiKey(rotation.from)),
        Command::CreateClient(client) => ("oauth_client.create", Target::OauthClient(client.id)),
        Command::UpdateClient(change) => ("oauth_client.update", Target::OauthClient(change.id)),
        Command::RotateClientSecret(rotation) => ("oauth_client.rotate_secret", Target::OauthClient(rotation.client)),
        Command::DeleteClient { id } => ("oauth_client.delete", Target::OauthClient(*id)),
        Command::RevokeToken(revocation) => ("oauth_token.revoke", Target::OauthClient(revocation.client)),
        Command::NoteAccess(note) => (note.kind.action(), note.target.clone()),
        Command::CreateProject(draft) => ("project.create", Target::Project(draft.id)),
        Command::UpdateProject(change) => ("project.update", Target::Project(change.id)),
        Command::DeleteProject { id } => ("project.delete", Target::Project(*id)),
        Command::CreateAccount { account, .. } => ("account.create", Target::Account(account.clone())),
        Command::UpdateAccount { account, .. } => ("account.update", Target::Account(account.clone())),
        Command::DeleteAccount { account } => ("account.delete", Target::Account(account.clone())),
        Command::PutQuota { account, metric, .. } => ("quota.put", Target::Quota(account.clone(), metric.clone())),
        Command::DeleteQuota { account, metric } => ("quota.delete", Target::Quota(account.clone(), metric.clone())),
        Command::PutMetric { metric, .. } => ("metric.put", Target::Metric(metric.clone())),
        Command::UpdateMetric { metric, .. } => ("metric.update", Target::Metric(metric.clone())),
        Command::DeleteMetric { metric } => ("metric.delete", Target::Metric(metric.clone())),
        Command::RecordImport { digest, .. } => ("import.record", Target::Import(digest.clone())),
        Command::CreateChannel { id, .. } => ("channel.create", Target::Channel(*id)),
        Command::UpdateChannel { id, .. } => ("channel.update", Target::Channel(*id)),
        Command::DeleteChannel { id } => ("channel.delete", Target::Channel(*id)),
        Command::CreateAlert { id, .. } => ("alert.create", Target::Alert(*id)),
        Command::UpdateAlert { id, .. } => ("alert.update", Target::Alert(*id)),
        Command::DeleteAlert { id } => ("alert.delete", Target::Alert(*id)),
        Command::PauseAlert { id, .. } => ("alert.pause", Target::Alert(*id)),
        Command::ResumeAlert { id } => ("alert.resume", Target::Alert(*id)),
        Command::CreateSilence { id, .. } => ("silence.create", Target::Silence(*id)),
        Command::UpdateSilence { id, .. } => ("silence.update", Target::Silence(*id)),
        Command::ExpireSilence { id } => ("silence.expire", Target::Silence(*id)),
        Command::AcknowledgeIncident { id, .. } => ("incident.acknowledge", Target::Incident(*id)),
        Command::RedeliverMessage(redelivery) => ("channel.redeliver", Target::Channel(redelivery.channel)),
        Command::SendTest { subject: TestSubject::Alert(alert), .. } => ("alert.test", Target::Alert(*alert)),
        Command::SendTest { subject: TestSubject::Channel(channel), .. } => ("channel.test", Target::Channel(*channel)),
        Command::CreateWebhook { id, .. } => ("webhook.create", Target::Webhook(*id)),
        Command::UpdateWebhook { id, .. } => ("webhook.update", Target::Webhook(*id)),
        Command::DeleteWebhook { id } => ("webhook.delete", Target::Webhook(*id)),
        Command::PauseWebhook { id } => ("webhook.pause", Target::Webhook(*id)),
        Command::ResumeWebhook { id } => ("webhook.resume", Target::Webhook(*id)),
        Command::RotateWebhookSecret(rotation) => ("webhook.rotate_secret", Target::Webhook(rotation.id)),
        Command::TestWebhook { id } => ("webhook.test", Target::Webhook(*id)),
        Command::Redeliver(redelivery) => ("webhook.redeliver", Target::Webhook(redelivery.webhook)),
        // These are the nodes' own.
        Command::RecordDelivery(_)
        | Command::ReportWebhookHealth(_)
        | Command::ReportChannel(_)
        | Command::ReportDrops(_)
        | Command::NoteKeyUses { .. }
        | Command::ReportPressure(_)
        | Command::SetClock { .. }
        | Command::BeginIntake { .. }
        | Command::RecordIntakeGap(_)
        | Command::Tick => return None,
        Command::OpenSandbox { .. } | Command::ResetSandbox { midnight: Some(_), .. } => return None,
        Command::ResetSandbox { midnight: None, .. } => ("sandbox.reset", Target::Sandbox(WorkspaceId(0))),
        Command::AdvanceClock { .. } => ("sandbox.advance_clock", Target::Sandbox(WorkspaceId(0))),
    };
    Some(Deed { action, target })
}

/// Returns what a command is about, where people sent it.
pub fn target_of(command: &Command) -> Option<Target> {
    deed(command).map(|deed| deed.target)
}

/// The newest entries of every tenant. A sandbox's reset does not cut them: what could be wiped would be no audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AuditLog {
    #[serde(with = "super::registry::pairs")]
    by_tenant: BTreeMap<Tenant, VecDeque<AuditRecord>>,
}

impl AuditLog {
    pub(super) fn of(&self, tenant: Tenant) -> impl DoubleEndedIterator<Item = &AuditRecord> {
        self.by_tenant.get(&tenant).into_iter().flatten()
    }

    /// Takes in what came of a command.
    pub(super) fn note(
        &mut self,
        entry: &Entry,
        (position, at, engine_version): (Position, Timestamp, u32),
        deed: Deed,
        (before, after): (Option<ResourceDigest>, Option<ResourceDigest>),
        outcome: &Outcome,
    ) {
        let refused = match (&entry.command, outcome) {
            (Command::NoteAccess(note), _) => note.refused.clone().map(Cow::Owned),
            (_, Outcome::Created(_) | Outcome::Done(_) | Outcome::Deleted) => None,
            (_, Outcome::Refused(why)) => Some(Cow::Borrowed(code(why))),
        };
        let of_tenant = self.by_tenant.entry(entry.tenant).or_default();
        let previous = of_tenant.back().and_then(|last| last.link).map(|link| link.hash).unwrap_or_default();
        if of_tenant.len() >= AUDIT_ENTRIES_MAX {
            of_tenant.pop_front();
        }
        let record = AuditRecord {
            id: id(position, at),
            at,
            actor: entry.actor,
            action: Cow::Borrowed(deed.action),
            target: deed.target,
            request_id: entry.request_id.clone(),
            ip: entry.ip,
            refused,
            before,
            after,
            link: None,
        };
        let is_chained = engine_version >= V3;
        of_tenant.push_back(if is_chained { record.chained(entry.tenant.mode, previous) } else { record });
    }
}

/// Time and place, so that ids are in the order of the entries: the log's clock never goes back.
fn id(position: Position, at: Timestamp) -> AuditId {
    let time = u128::from(at.0.max(0).cast_unsigned()) & ((1 << 48) - 1);
    AuditId(time << 80 | u128::from(position.0))
}

const fn code(refused: &Refused) -> &'static str {
    match refused {
        Refused::AlreadyInitialised => "invalid_state",
        Refused::NotFound { .. } => "resource_not_found",
        Refused::Conflict { .. } => "resource_conflict",
        Refused::VersionMismatch { .. } => "version_mismatch",
        Refused::LimitReached { .. } => "limit_reached",
        Refused::KeyNotActive { .. } => "key_not_active",
        Refused::TooOften { .. } => "rate_limited",
        Refused::InvalidState { .. } => "invalid_state",
        Refused::ChannelNotConfigured { .. } => "channel_not_configured",
        Refused::IdempotencyKeyReused { .. } => "idempotency_key_reused",
    }
}

impl Registry {
    /// Returns the digest of what a tenant has, where it has it.
    pub(super) fn digest(&self, tenant: Tenant, target: &Target) -> Option<ResourceDigest> {
        let world = self.worlds.get(&tenant);
        match target {
            Target::Workspace(id) => digest(self.workspaces.get(id)),
            Target::ApiKey(id) => digest(self.keys.get(*id).filter(|key| key.key.workspace == tenant.workspace)),
            Target::Account(id) => digest(world?.accounts.records.get(id)),
            Target::Quota(account, metric) => digest(world?.quotas.get(account, metric)),
            Target::Metric(metric) => digest(world?.metrics.records.get(metric)),
            Target::Import(file) => digest(world?.imports.records.get(file)),
            Target::Channel(id) => digest(world?.channels.records.get(id)),
            Target::Alert(id) => digest(world?.alerts.records.get(id)),
            Target::Project(id) => digest(world?.projects.records.get(id)),
            Target::OauthClient(id) => {
                let known = self.clients.records.get(id);
                digest(known.filter(|known| known.client.tenant.workspace == tenant.workspace))
            }
            Target::Silence(id) => digest(world?.silences.records.get(id)),
            Target::Incident(id) => digest(world?.acknowledgements.get(*id)),
            Target::Sandbox(_) => digest(world?.sandbox.as_ref()),
            Target::Webhook(id) => digest(world?.webhooks.records.get(id)),
        }
    }
}

fn digest<T: Serialize>(resource: Option<&T>) -> Option<ResourceDigest> {
    Some(Sha256::digest(serde_json::to_vec(resource?).unwrap_or_default()).into())
}
