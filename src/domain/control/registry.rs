//! Everything that an accepted command can change, and nothing that a refused one does.

use super::access::WorkspaceChange;
use super::accounts::Accounts;
use super::acknowledgements::Acknowledgements;
use super::alerts::Alerts;
use super::channels::Channels;
use super::clients::Clients;
use super::command::{Command, Settings};
use super::events::Subject;
use super::imports::Imports;
use super::intake::IntakeRecord;
use super::keeper::Keeper;
use super::keys::Keys;
use super::last_uses::Uses;
use super::metrics::Metrics;
use super::outcome::{Change, Refused, Resource};
use super::patch::set;
use super::projects::{Projects, in_use};
use super::quotas::Quotas;
use super::resource::{ApiKey, Life, Workspace};
use super::sandbox::Sandbox;
use super::silences::Silences;
use super::trials::Trials;
use super::verdict::{Accepted, Context, Verdict, exists_already, not_found};
use super::webhook::Webhooks;
use crate::domain::definition::Pause;
use crate::domain::id::{ClientId, ProjectId, Tenant, WorkspaceId};
use crate::domain::limits::IDEMPOTENCY_HORIZON;
use crate::domain::partition::fact::V3;
use crate::domain::time::Millis;
use crate::domain::webhook::outbox::Concern;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the first record fixed for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Foundation {
    pub(super) fingerprint_key: [u8; 16],
    pub(super) partitions: u32,
    pub(super) master_key_check: String,
}

/// What one tenant has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct World {
    pub(super) accounts: Accounts,
    pub(super) quotas: Quotas,
    pub(super) metrics: Metrics,
    pub(super) channels: Channels,
    pub(super) alerts: Alerts,
    #[serde(default)]
    pub(super) imports: Imports,
    #[serde(default)]
    pub(super) webhooks: Webhooks,
    #[serde(default)]
    pub(super) silences: Silences,
    #[serde(default)]
    pub(super) acknowledgements: Acknowledgements,
    #[serde(default)]
    pub(super) trials: Trials,
    #[serde(default)]
    pub(super) projects: Projects,
    #[serde(default)]
    pub(super) sandbox: Option<Sandbox>,
}

/// What everyone has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Registry {
    pub(super) foundation: Option<Foundation>,
    pub(super) settings: Settings,
    /// The engine version that the log was raised to; absent before that, which is version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) raised_to: Option<u32>,
    #[serde(default)]
    pub(super) snapshot_mark: Option<String>,
    #[serde(default)]
    pub(super) keeper: Option<Keeper>,
    #[serde(default, skip_serializing_if = "IntakeRecord::is_empty")]
    pub(super) intake: IntakeRecord,
    pub(super) workspaces: BTreeMap<WorkspaceId, Workspace>,
    pub(super) keys: Keys,
    #[serde(default)]
    pub(super) clients: Clients,
    #[serde(default)]
    pub(super) last_uses: Uses,
    #[serde(with = "pairs")]
    pub(super) worlds: BTreeMap<Tenant, World>,
}

impl Registry {
    #[expect(clippy::too_many_lines, reason = "an exhaustive match, a line or two for each")]
    pub(super) fn apply(&mut self, context: Context, command: &Command) -> Verdict {
        match command {
            Command::Initialise { fingerprint_key, partitions, settings, master_key_check } => {
                let foundation = Foundation {
                    fingerprint_key: *fingerprint_key,
                    partitions: *partitions,
                    master_key_check: master_key_check.clone(),
                };
                self.initialise(foundation, *settings)
            }
            Command::ChangeSettings { settings } => Ok(self.change_settings(*settings)),
            Command::EngineVersion { version } => {
                if *version > context.engine_version {
                    self.raised_to = Some(*version);
                }
                Ok(Accepted::done(Resource::None))
            }
            Command::ShareSnapshots { mark, takes_over } => self.share_snapshots(mark, *takes_over),
            Command::KeepRows { keeper, takes_over } => self.keep_rows(keeper, *takes_over),
            Command::CreateWorkspace { id, name } => self.create_workspace(context, *id, name),
            Command::CreateKey { key } => self.create_key(context, key),
            Command::RevokeKey { id } => self.keys.revoke(context, *id),
            Command::UpdateWorkspace(change) => self.update_workspace(context, change),
            Command::UpdateKey(change) => self.keys.update(context, change),
            Command::LimitKey { id, rate_limit } => self.keys.limit(context, *id, *rate_limit),
            Command::RotateKey(rotation) => self.keys.rotate(context, rotation),
            Command::CreateClient(client) => {
                self.expect_workspace(client.tenant.workspace)?;
                self.clients.create(context, client)
            }
            Command::UpdateClient(change) => self.clients.update(context, change),
            Command::RotateClientSecret(rotation) => self.clients.rotate(context, rotation),
            Command::DeleteClient { id } => self.clients.delete(context, *id),
            Command::RevokeToken(revocation) => self.clients.revoke_token(context, revocation),
            Command::NoteAccess(_) => Ok(Accepted::done(Resource::None)),
            Command::DeleteProject { id } => {
                self.expect_unused(context, *id)?;
                self.apply_in_world(context, command)
            }
            Command::CreateAccount { .. }
            | Command::UpdateAccount { .. }
            | Command::DeleteAccount { .. }
            | Command::PutQuota { .. }
            | Command::DeleteQuota { .. }
            | Command::PutMetric { .. }
            | Command::UpdateMetric { .. }
            | Command::DeleteMetric { .. }
            | Command::RecordImport { .. }
            | Command::CreateChannel { .. }
            | Command::UpdateChannel { .. }
            | Command::DeleteChannel { .. }
            | Command::CreateAlert { .. }
            | Command::UpdateAlert { .. }
            | Command::DeleteAlert { .. }
            | Command::PauseAlert { .. }
            | Command::ResumeAlert { .. }
            | Command::CreateWebhook { .. }
            | Command::UpdateWebhook { .. }
            | Command::DeleteWebhook { .. }
            | Command::PauseWebhook { .. }
            | Command::ResumeWebhook { .. }
            | Command::RotateWebhookSecret(_)
            | Command::TestWebhook { .. }
            | Command::Redeliver(_)
            | Command::ReportWebhookHealth(_)
            | Command::CreateSilence { .. }
            | Command::UpdateSilence { .. }
            | Command::ExpireSilence { .. }
            | Command::AcknowledgeIncident { .. }
            | Command::SendTest { .. }
            | Command::ReportChannel(_)
            | Command::ReportDrops(_)
            | Command::RedeliverMessage(_)
            | Command::CreateProject(_)
            | Command::UpdateProject(_)
            | Command::OpenSandbox { .. }
            | Command::ResetSandbox { .. }
            | Command::AdvanceClock { .. } => self.apply_in_world(context, command),
            Command::NoteKeyUses { uses } => {
                let (keys, clients) = (&self.keys, &self.clients);
                self.last_uses
                    .note(uses, |key| keys.get(key).is_some() || clients.records.contains_key(&ClientId(key.0)));
                Ok(Accepted::done(Resource::None))
            }
            Command::SetClock { to } => Ok(self.set_clock(*to)),
            Command::BeginIntake { topic, partition } => self.intake.begin(context, topic, *partition),
            Command::RecordIntakeGap(gap) => {
                let advances = if context.engine_version < V3 { BTreeMap::new() } else { self.advances() };
                self.intake.note(context, gap, advances)
            }
            // What these do is done to the outbox, behind everything else.
            Command::RecordDelivery(_) | Command::ReportPressure(_) | Command::Tick => {
                Ok(Accepted::done(Resource::None))
            }
        }
    }

    /// How the log asks to be folded.
    pub(super) fn engine_version(&self) -> u32 {
        self.raised_to.unwrap_or(1)
    }

    /// How far a tenant's clock is ahead of everybody's.
    pub(super) fn advance_of(&self, tenant: Tenant) -> Millis {
        let sandbox = self.worlds.get(&tenant).and_then(|world| world.sandbox.as_ref());
        sandbox.map(|sandbox| sandbox.advance).unwrap_or_default()
    }

    /// How far the clocks of sandboxes are ahead, where they are.
    fn advances(&self) -> BTreeMap<WorkspaceId, Millis> {
        let of = |(tenant, world): (&Tenant, &World)| Some((tenant.workspace, world.sandbox.as_ref()?.advance));
        self.worlds.iter().filter_map(of).filter(|(_, advance)| *advance > Millis::ZERO).collect()
    }

    /// The version of what a command is about.
    pub(super) fn version_of(&self, tenant: Tenant, subject: Subject<'_>) -> Option<u64> {
        let life = match subject {
            Subject::Key(id) => self.keys.get(id).map(|record| record.life),
            Subject::Account(id) => self.worlds.get(&tenant)?.accounts.records.get(id).map(|account| account.life),
            Subject::Alert(id) => self.worlds.get(&tenant)?.alerts.records.get(&id).map(|alert| alert.life),
            Subject::Webhook(id) => self.worlds.get(&tenant)?.webhooks.records.get(&id).map(|webhook| webhook.life),
            Subject::Channel(id) => self.worlds.get(&tenant)?.channels.records.get(&id).map(|channel| channel.life),
            Subject::Silence(id) => self.worlds.get(&tenant)?.silences.records.get(&id).map(|silence| silence.life),
            Subject::Incident(id) => return self.worlds.get(&tenant)?.acknowledgements.get(id).map(|_| 1),
        };
        life.map(|life| life.version)
    }

    /// Whom what a command is about concerns, as far as that is known.
    pub(super) fn concern_of(&self, tenant: Tenant, subject: Subject<'_>) -> Option<Concern> {
        let world = || self.worlds.get(&tenant);
        let of_alert = |id| Some(Concern::of(world()?.alerts.records.get(&id)?.definition.project));
        match subject {
            Subject::Key(id) => Some(key_concern(&self.keys.get(id)?.key)),
            Subject::Account(_) | Subject::Silence(_) => Some(Concern::Everybody),
            Subject::Alert(id) => of_alert(id),
            Subject::Webhook(id) => Some(Concern::of(world()?.webhooks.records.get(&id)?.project)),
            Subject::Channel(id) => Some(Concern::of(world()?.channels.records.get(&id)?.project)),
            Subject::Incident(id) => of_alert(world()?.acknowledgements.get(id)?.alert),
        }
    }

    fn initialise(&mut self, foundation: Foundation, settings: Settings) -> Verdict {
        if self.foundation.is_some() {
            return Err(Refused::AlreadyInitialised);
        }
        self.foundation = Some(foundation);
        Ok(self.change_settings(settings))
    }

    fn change_settings(&mut self, settings: Settings) -> Accepted {
        self.settings = settings;
        let Settings { grace, lateness_horizon: _, dedup_horizon, correction_horizon, strict_accounts: _ } = settings;
        Accepted::done(Resource::None).telling(Change::Settings { grace, dedup_horizon, correction_horizon })
    }

    fn share_snapshots(&mut self, mark: &str, takes_over: bool) -> Verdict {
        match &self.snapshot_mark {
            Some(known) if known != mark && !takes_over => {
                Err(Refused::Conflict { detail: "the nodes share other snapshots already".to_owned() })
            }
            Some(_) | None => {
                self.snapshot_mark = Some(mark.to_owned());
                Ok(Accepted::done(Resource::None))
            }
        }
    }

    fn keep_rows(&mut self, keeper: &Keeper, takes_over: bool) -> Verdict {
        match &self.keeper {
            Some(known) if known != keeper && !takes_over => {
                Err(Refused::Conflict { detail: format!("{known} keeps the rows of this journal") })
            }
            Some(_) | None => {
                self.keeper = Some(keeper.clone());
                Ok(Accepted::done(Resource::None))
            }
        }
    }

    fn create_workspace(&mut self, context: Context, id: WorkspaceId, name: &str) -> Verdict {
        if self.workspaces.contains_key(&id) {
            return Err(exists_already("workspace", id));
        }
        let workspace = Workspace {
            id,
            name: name.to_owned(),
            require_idempotency_key: false,
            idempotency_horizon: IDEMPOTENCY_HORIZON,
            life: Life::begun(context.now),
        };
        self.workspaces.insert(id, workspace.clone());
        Ok(Accepted::created(Resource::Workspace(workspace)))
    }

    fn create_key(&mut self, context: Context, key: &ApiKey) -> Verdict {
        self.expect_workspace(key.workspace)?;
        self.keys.create(context, key)
    }

    fn expect_workspace(&self, id: WorkspaceId) -> Result<(), Refused> {
        if self.workspaces.contains_key(&id) { Ok(()) } else { Err(not_found("workspace", id)) }
    }

    fn update_workspace(&mut self, context: Context, change: &WorkspaceChange) -> Verdict {
        let id = context.tenant.workspace;
        let workspace = self.workspaces.get_mut(&id).ok_or_else(|| not_found("workspace", id))?;
        context.expect_version(workspace.life.version)?;
        set(&mut workspace.name, &change.name);
        set(&mut workspace.require_idempotency_key, &change.require_idempotency_key);
        set(&mut workspace.idempotency_horizon, &change.idempotency_horizon);
        workspace.life.touch(context.now);
        Ok(Accepted::done(Resource::Workspace(workspace.clone())))
    }

    /// Refuses to delete a project that a credential is narrowed to.
    fn expect_unused(&self, context: Context, project: ProjectId) -> Result<(), Refused> {
        if let Some(key) = self.keys.naming(context.tenant, project, context.now) {
            return Err(in_use(project, key));
        }
        match self.clients.naming(context.tenant, project, context.now) {
            Some(client) => Err(in_use(project, client)),
            None => Ok(()),
        }
    }

    /// How long answers of a workspace are kept for repetitions.
    pub(super) fn idempotency_horizon(&self, workspace: WorkspaceId) -> Millis {
        self.workspaces.get(&workspace).map_or(IDEMPOTENCY_HORIZON, |workspace| workspace.idempotency_horizon)
    }

    /// A tenant's world begins with the first command that is accepted in it.
    fn apply_in_world(&mut self, context: Context, command: &Command) -> Verdict {
        if let Some(world) = self.worlds.get_mut(&context.tenant) {
            return world.apply(context, command);
        }
        let mut world = World::default();
        let accepted = world.apply(context, command)?;
        self.worlds.insert(context.tenant, world);
        Ok(accepted)
    }
}

impl World {
    #[expect(clippy::too_many_lines, reason = "an exhaustive match, a line or two for each")]
    fn apply(&mut self, context: Context, command: &Command) -> Verdict {
        let Self {
            accounts,
            quotas,
            metrics,
            channels,
            alerts,
            imports,
            webhooks,
            silences,
            acknowledgements,
            trials,
            projects,
            sandbox: _,
        } = self;
        match command {
            Command::CreateAccount { account, name, metadata } => accounts.create(context, account, name, metadata),
            Command::UpdateAccount { account, patch } => accounts.update(context, account, patch),
            Command::DeleteAccount { account } => accounts.delete(context, quotas, account),
            Command::PutQuota { account, metric, quota } => quotas.put(context, accounts, (account, metric), *quota),
            Command::DeleteQuota { account, metric } => quotas.delete(context, account, metric),
            Command::PutMetric { metric, definition } => metrics.put(context, metric, definition),
            Command::UpdateMetric { metric, patch } => metrics.update(context, metric, patch),
            Command::DeleteMetric { metric } => metrics.delete(context, metric),
            Command::RecordImport { digest, accepted, refused } => {
                Ok(imports.record(context, digest, *accepted, *refused))
            }
            Command::CreateChannel { id, draft } => channels.create(context, projects, *id, draft),
            Command::UpdateChannel { id, patch } => channels.update(context, *id, patch),
            Command::DeleteChannel { id } => channels.delete(context, alerts, *id),
            Command::CreateAlert { id, draft } => alerts.create(context, channels, *id, draft),
            Command::UpdateAlert { id, patch } => alerts.update(context, channels, *id, patch),
            Command::DeleteAlert { id } => alerts.delete(context, *id),
            Command::PauseAlert { id, until } => alerts.set_pause(context, *id, Some(Pause { until: *until })),
            Command::ResumeAlert { id } => alerts.set_pause(context, *id, None),
            Command::CreateWebhook { id, draft } => webhooks.create(context, projects, *id, draft),
            Command::UpdateWebhook { id, patch } => webhooks.update(context, *id, patch),
            Command::DeleteWebhook { id } => webhooks.delete(context, *id),
            Command::PauseWebhook { id } => webhooks.pause(context, *id),
            Command::ResumeWebhook { id } => webhooks.resume(context, *id),
            Command::RotateWebhookSecret(rotation) => webhooks.rotate(context, rotation),
            Command::TestWebhook { id } => webhooks.test(context, *id),
            Command::Redeliver(redelivery) => webhooks.redeliver(context, redelivery),
            Command::ReportWebhookHealth(report) => webhooks.report(context, report),
            Command::CreateSilence { id, draft } => silences.create(context, *id, draft),
            Command::UpdateSilence { id, patch } => silences.update(context, *id, patch),
            Command::ExpireSilence { id } => silences.expire(context, *id),
            Command::AcknowledgeIncident { id, alert } => Ok(acknowledgements.note(context, *id, *alert)),
            Command::ReportDrops(report) => webhooks.overflow(context, *report),
            Command::ReportChannel(report) => channels.report(context, *report),
            Command::RedeliverMessage(redelivery) => channels.redeliver(context, redelivery),
            Command::SendTest { id, subject } => trials.send(context, (channels, alerts), *id, *subject),
            Command::CreateProject(draft) => projects.create(context, draft),
            Command::UpdateProject(change) => projects.update(context, change),
            Command::DeleteProject { id } => projects.delete(context, (alerts, channels, webhooks), *id),
            Command::OpenSandbox { seed } => self.open_sandbox(context, seed),
            Command::ResetSandbox { midnight, seed } => self.reset_sandbox(context, *midnight, seed),
            Command::AdvanceClock { by } => self.advance_clock(context, *by),
            Command::Initialise { .. }
            | Command::ChangeSettings { .. }
            | Command::EngineVersion { .. }
            | Command::ShareSnapshots { .. }
            | Command::KeepRows { .. }
            | Command::CreateWorkspace { .. }
            | Command::CreateKey { .. }
            | Command::RevokeKey { .. }
            | Command::RecordDelivery(_)
            | Command::NoteKeyUses { .. }
            | Command::ReportPressure(_)
            | Command::SetClock { .. }
            | Command::BeginIntake { .. }
            | Command::RecordIntakeGap(_)
            | Command::Tick
            | Command::UpdateWorkspace(_)
            | Command::UpdateKey(_)
            | Command::LimitKey { .. }
            | Command::RotateKey(_)
            | Command::CreateClient(_)
            | Command::NoteAccess(_)
            | Command::UpdateClient(_)
            | Command::RotateClientSecret(_)
            | Command::DeleteClient { .. }
            | Command::RevokeToken(_) => {
                crate::check!(false, "control.world_sees_its_own_commands");
                Ok(Accepted::done(Resource::None))
            }
        }
    }
}

/// Whom a key concerns: those of a project where it is narrowed to that alone.
pub(super) fn key_concern(key: &ApiKey) -> Concern {
    match key.projects.as_slice() {
        [only] => Concern::Project(*only),
        [] | [_, _, ..] => Concern::Workspace,
    }
}

/// A map whose keys are no texts, as a list of pairs: JSON has no other way.
pub(super) mod pairs {
    use super::{BTreeMap, Tenant};
    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::domain::control) fn serialize<T: Serialize, S: Serializer>(
        map: &BTreeMap<Tenant, T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(in crate::domain::control) fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Tenant, T>, D::Error> {
        Ok(Vec::deserialize(deserializer)?.into_iter().collect())
    }
}
