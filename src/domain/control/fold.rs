//! The state that the control log folds to. Equal logs give equal states; nothing but the log goes in.

use super::audit::{AuditLog, AuditRecord, Target, deed};
use super::command::{Command, Entry, Idempotency, Settings};
use super::due;
use super::events::{pressure_data, telling};
use super::idempotency::{Ledger, is_kept};
use super::imports::ImportRecord;
use super::intake::IntakeRecord;
use super::keeper::Keeper;
use super::last_uses::LastUse;
use super::outcome::{Applied, Change, Outcome, Refused};
use super::registry::{Registry, World};
use super::resource::{
    Account, Acknowledgement, Alert, ApiKey, Channel, ChannelKind, ClientRecord, KeyRecord, MetricRecord, Project,
    SilenceRecord, Webhook, Workspace,
};
use super::sandbox::Sandbox;
use super::verdict::{Accepted, Context};
use crate::domain::id::{
    AccountId, AlertId, ChannelId, ClientId, Epoch, IncidentId, KeyId, Log, MetricName, Position, ProjectId, SilenceId,
    Stamp, Tenant, WebhookId, WorkspaceId,
};
use crate::domain::partition::fact::V3;
use crate::domain::time::{Millis, Timestamp};
use crate::domain::webhook::event::{Content, Source};
use crate::domain::webhook::kind::EventType;
use crate::domain::webhook::outbox::{Concern, Outbox};
use crate::domain::webhook::rows::Rows;
use serde::{Deserialize, Serialize};
use std::ops::Bound;

mod limits;

pub use super::idempotency::Original;

/// The folded control log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    position: Position,
    clock: Timestamp,
    ledger: Ledger,
    registry: Registry,
    #[serde(default)]
    outbox: Outbox,
    /// Up to where it was told what time alone brings about.
    #[serde(default)]
    ticked: Timestamp,
    #[serde(default)]
    audit: AuditLog,
}

impl Control {
    /// Takes in the next entry of the control log and says what came of it.
    ///
    /// It refuses for the state alone: a version, existence, a limit, an idempotency record. A refused command changes
    /// nothing but the position and the idempotency record of its own. Positions rise from call to call.
    pub fn apply(&mut self, at: Stamp, entry: &Entry) -> Applied {
        crate::check!(at.position > self.position, "control.positions_rise");
        self.position = self.position.max(at.position);
        self.clock = self.clock.max(at.recorded_at);
        if let Command::SetClock { to } = entry.command {
            self.clock = to;
            self.ticked = self.ticked.min(to);
            self.outbox.due_by(to);
        }
        self.ledger.forget(self.clock);
        let deed = deed(&entry.command).map(|deed| deed.within(entry.tenant.workspace));
        let digest = |registry: &Registry| deed.as_ref().and_then(|deed| registry.digest(entry.tenant, &deed.target));
        let before = digest(&self.registry);
        if let Some(repeated) = entry.idempotency.as_ref().and_then(|sent| self.answer_again(sent)) {
            if let (Some(deed), Outcome::Refused(_)) = (deed, &repeated.outcome) {
                self.audit.note(
                    entry,
                    (at.position, self.clock, self.engine_version()),
                    deed,
                    (before, before),
                    &repeated.outcome,
                );
            }
            return repeated;
        }
        let advance = self.registry.advance_of(entry.tenant);
        let context = Context {
            position: at.position,
            now: self.clock,
            in_world: if self.engine_version() < V3 { self.clock } else { self.clock.plus(advance) },
            tenant: entry.tenant,
            actor: entry.actor,
            if_match: entry.if_match,
            engine_version: self.engine_version(),
        };
        let about = telling(&entry.command);
        let version = |registry: &Registry| about.as_ref().and_then(|a| registry.version_of(entry.tenant, a.subject));
        let concern = |registry: &Registry| registry.concern_of(entry.tenant, about.as_ref()?.subject);
        let (version_before, concern_before) = (version(&self.registry), concern(&self.registry));
        let Accepted { outcome, changes } = match self.registry.apply(context, &entry.command) {
            Ok(accepted) => accepted,
            Err(refused) => Accepted { outcome: Outcome::Refused(refused), changes: Vec::new() },
        };
        let versions = (version_before, version(&self.registry));
        let told = about.as_ref().and_then(|about| about.came_to(versions, &outcome));
        let concern = concern(&self.registry).or(concern_before).unwrap_or(Concern::Workspace);
        let told = told.map(|(kind, data)| (kind, data, concern));
        let rows = self.tell(at, entry, &changes, told, &outcome);
        let after = digest(&self.registry);
        if changes.iter().any(|change| matches!(change, Change::SandboxReset { .. })) {
            self.ledger.forget_of(entry.tenant);
        }
        if let Some(deed) = deed {
            self.audit.note(entry, (at.position, self.clock, self.engine_version()), deed, (before, after), &outcome);
        }
        if let Some(idempotency) = &entry.idempotency
            && is_kept(&outcome)
        {
            let original = Original {
                fingerprint: idempotency.fingerprint.clone(),
                request_id: entry.request_id.clone(),
                outcome: outcome.clone(),
                beside: idempotency.beside.clone(),
                stands_until: self.clock.plus(self.registry.idempotency_horizon(entry.tenant.workspace)),
                tenant: Some(entry.tenant),
            };
            self.ledger.keep(idempotency, original);
        }
        Applied { outcome, replayed_from: None, changes, rows }
    }

    /// Does to the outbox what an entry asks for, and owes what it tells.
    fn tell(
        &mut self,
        stamp: Stamp,
        entry: &Entry,
        changes: &[Change],
        told: Option<(EventType, serde_json::Value, Concern)>,
        outcome: &Outcome,
    ) -> Rows {
        let (mut rows, mut index) = (Rows::default(), 0);
        let stamp = Stamp { recorded_at: self.clock, ..stamp };
        let mut source = Source { log: Log::Control, stamp, index: &mut index };
        let version = self.engine_version();
        for change in changes {
            self.outbox.learn(change, (Log::Control, version), stamp, &mut rows);
        }
        if changes.iter().any(|change| matches!(change, Change::SandboxReset { .. })) {
            let data = serde_json::json!({"object": "sandbox", "epoch": stamp.position.0});
            let event = source.event(entry.tenant, EventType::SandboxReset, self.clock, Content::json(&data));
            self.outbox.publish(event, Concern::Everybody, stamp, &mut rows);
        }
        if let Some((kind, data, concern)) = told {
            let event = source.event(entry.tenant, kind, self.clock, Content::json(&data));
            self.outbox.publish(event, concern, stamp, &mut rows);
        }
        match (&entry.command, outcome) {
            (Command::RecordDelivery(posted), _) => self.outbox.attempted(posted, &mut source, &mut rows),
            (Command::TestWebhook { id }, Outcome::Done(_)) => {
                let data = serde_json::json!({"webhook_id": id.to_string(), "message": "it works"});
                let event = source.event(entry.tenant, EventType::WebhookTest, self.clock, Content::json(&data));
                self.outbox.publish_to(event, *id, stamp, &mut rows);
            }
            (Command::ReportPressure(report), _) => {
                let content = Content::json(&pressure_data(report));
                let event = source.event(entry.tenant, EventType::IngestBackpressure, self.clock, content);
                self.outbox.publish(event, Concern::Everybody, stamp, &mut rows);
            }
            (Command::RecordIntakeGap(gap), outcome) if super::intake::is_new(outcome) => {
                for event in gap.events(self.registry.workspaces.keys().copied(), &mut source) {
                    self.outbox.publish(event, Concern::Everybody, stamp, &mut rows);
                }
            }
            (Command::AdvanceClock { by }, Outcome::Done(_)) => {
                for due in due::passed_over(&self.registry, entry.tenant, self.ticked, *by) {
                    let event = source.event(due.tenant, due.kind, due.at, Content::json(&due.data));
                    self.outbox.publish(event, due.concern, stamp, &mut rows);
                }
            }
            (Command::Tick, _) => {
                for due in due::between(&self.registry, self.ticked, self.clock) {
                    let event = source.event(due.tenant, due.kind, due.at, Content::json(&due.data));
                    self.outbox.publish(event, due.concern, stamp, &mut rows);
                }
                self.ticked = self.clock;
            }
            _ => {}
        }
        rows
    }

    /// Tells whether any endpoint of a tenant wants a type of event.
    pub fn wants(&self, tenant: Tenant, kind: EventType) -> bool {
        self.outbox.wants(tenant, kind)
    }

    /// What the control log owes to endpoints.
    pub const fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// When a tick has something to tell.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        due::next(&self.registry, self.ticked)
    }

    /// Returns an endpoint.
    pub fn webhook(&self, tenant: Tenant, id: WebhookId) -> Option<&Webhook> {
        self.world(tenant)?.webhooks.records.get(&id)
    }

    /// Returns the endpoints in the order of their ids.
    pub fn webhooks(&self, tenant: Tenant) -> impl DoubleEndedIterator<Item = &Webhook> {
        self.world(tenant).into_iter().flat_map(|world| world.webhooks.records.values())
    }

    fn answer_again(&self, sent: &Idempotency) -> Option<Applied> {
        let original = self.ledger.original(&sent.record, self.clock)?;
        let (outcome, replayed_from) = if original.fingerprint == sent.fingerprint {
            (original.outcome.clone(), Some(original.request_id.clone()))
        } else {
            let original_request_id = original.request_id.clone();
            (Outcome::Refused(Refused::IdempotencyKeyReused { original_request_id }), None)
        };
        Some(Applied { outcome, replayed_from, changes: Vec::new(), rows: Rows::default() })
    }

    /// Returns what was answered to an idempotency record and still stands at `now`, whatever its fingerprint.
    pub fn original(&self, sent: &Idempotency, now: Timestamp) -> Option<&Original> {
        self.ledger.original(&sent.record, now)
    }

    /// Returns the position of the last entry that was taken in.
    pub const fn position(&self) -> Position {
        self.position
    }

    /// Returns the log's clock, which never goes back.
    pub const fn clock(&self) -> Timestamp {
        self.clock
    }

    /// Tells whether the log was set up.
    pub const fn initialised(&self) -> bool {
        self.registry.foundation.is_some()
    }

    /// Returns the engine version that the log asks for; a log begins at 1. What an entry does may depend on it alone.
    pub fn engine_version(&self) -> u32 {
        self.registry.engine_version()
    }

    /// Returns the key of the event fingerprints.
    pub fn fingerprint_key(&self) -> Option<[u8; 16]> {
        self.registry.foundation.as_ref().map(|foundation| foundation.fingerprint_key)
    }

    /// Returns how many partitions the data has.
    pub fn partitions(&self) -> Option<u32> {
        self.registry.foundation.as_ref().map(|foundation| foundation.partitions)
    }

    /// Returns the proof that a node holds the same master key.
    pub fn master_key_check(&self) -> Option<&str> {
        self.registry.foundation.as_ref().map(|foundation| foundation.master_key_check.as_str())
    }

    /// Returns the mark of the snapshots that every node shares.
    pub fn snapshot_mark(&self) -> Option<&str> {
        self.registry.snapshot_mark.as_deref()
    }

    /// Returns who keeps the rows, where anybody has said so.
    pub fn keeper(&self) -> Option<&Keeper> {
        self.registry.keeper.as_ref()
    }

    /// Returns what is known of the public topic.
    pub const fn intake(&self) -> &IntakeRecord {
        &self.registry.intake
    }

    /// Returns what the folds go by; the defaults before the log was set up.
    pub const fn settings(&self) -> Settings {
        self.registry.settings
    }

    /// Returns a workspace.
    pub fn workspace(&self, id: WorkspaceId) -> Option<&Workspace> {
        self.registry.workspaces.get(&id)
    }

    /// Returns every workspace in the order of their ids.
    pub fn workspaces(&self) -> impl DoubleEndedIterator<Item = &Workspace> {
        self.registry.workspaces.values()
    }

    /// Returns the key with a public part, in whatever state it is.
    pub fn key_by_lookup(&self, lookup: &str) -> Option<&ApiKey> {
        self.key_record_by_lookup(lookup).map(|record| &record.key)
    }

    /// Returns the key with a hash of the whole of it, and what happened to it.
    pub fn key_record_by_hash(&self, hash: &str) -> Option<&KeyRecord> {
        self.registry.keys.by_hash(hash)
    }

    /// Returns the key with a public part, and what happened to it.
    pub fn key_record_by_lookup(&self, lookup: &str) -> Option<&KeyRecord> {
        self.registry.keys.by_lookup(lookup)
    }

    /// Returns a key and what happened to it.
    pub fn key(&self, id: KeyId) -> Option<&KeyRecord> {
        self.registry.keys.get(id)
    }

    /// When a key or a client was used last, as far as the nodes have noted.
    pub fn last_use(&self, id: KeyId) -> Option<LastUse> {
        self.registry.last_uses.of(id)
    }

    /// Returns the keys of a workspace, of both modes, in the order of their ids.
    pub fn keys(&self, workspace: WorkspaceId) -> impl DoubleEndedIterator<Item = &KeyRecord> {
        self.registry.keys.of(workspace)
    }

    /// Returns an OAuth client and what happened to it.
    pub fn client(&self, id: ClientId) -> Option<&ClientRecord> {
        self.registry.clients.records.get(&id)
    }

    /// Returns the OAuth clients of a tenant, in the order of their ids.
    pub fn clients(&self, tenant: Tenant) -> impl DoubleEndedIterator<Item = &ClientRecord> {
        self.registry.clients.of(tenant.workspace).filter(move |record| record.client.tenant == tenant)
    }

    /// Returns a project.
    pub fn project(&self, tenant: Tenant, id: ProjectId) -> Option<&Project> {
        self.world(tenant)?.projects.records.get(&id)
    }

    /// Returns the projects in the order of their ids.
    pub fn projects(&self, tenant: Tenant) -> impl DoubleEndedIterator<Item = &Project> {
        self.world(tenant).into_iter().flat_map(|world| world.projects.records.values())
    }

    /// Returns an account that people set something on.
    pub fn account(&self, tenant: Tenant, account: &AccountId) -> Option<&Account> {
        self.world(tenant)?.accounts.records.get(account)
    }

    /// Returns the accounts behind `after` that people set something on, in the order of their names.
    pub fn accounts(&self, tenant: Tenant, after: Option<&AccountId>) -> impl DoubleEndedIterator<Item = &Account> {
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()));
        let worlds = self.world(tenant).into_iter();
        worlds.flat_map(move |world| world.accounts.records.range((start.clone(), Bound::Unbounded))).map(|(_, a)| a)
    }

    /// Returns the control position of the last deletion or reset that covers an account; 0 when there was none.
    pub fn epoch_of(&self, tenant: Tenant, account: &AccountId) -> Epoch {
        let Some(world) = self.world(tenant) else { return Epoch::default() };
        let reset = world.sandbox.map(|sandbox| sandbox.epoch).unwrap_or_default();
        world.accounts.epochs.get(account).copied().unwrap_or_default().max(reset)
    }

    /// Returns when an account's present epoch began, for what was recorded without one; `None` for the first epoch.
    pub fn epoch_began(&self, tenant: Tenant, account: &AccountId) -> Option<Timestamp> {
        let world = self.world(tenant)?;
        let reset = world.sandbox.and_then(|sandbox| sandbox.last_reset_at);
        world.accounts.epochs_since.get(account).copied().max(reset)
    }

    /// Tells whether anything of a tenant was deleted with its past: an account, or a sandbox's whole world.
    pub fn has_epochs(&self, tenant: Tenant) -> bool {
        let sandbox = self.sandbox(tenant).is_some_and(|sandbox| sandbox.epoch > Epoch::default());
        sandbox || self.world(tenant).is_some_and(|world| !world.accounts.epochs.is_empty())
    }

    /// Returns a workspace's sandbox, where it was opened.
    pub fn sandbox(&self, tenant: Tenant) -> Option<&Sandbox> {
        self.world(tenant)?.sandbox.as_ref()
    }

    /// Returns every sandbox that is open, in the order of their workspaces.
    pub fn sandboxes(&self) -> impl Iterator<Item = (Tenant, &Sandbox)> {
        let worlds = self.registry.worlds.iter();
        worlds.filter_map(|(tenant, world)| Some((*tenant, world.sandbox.as_ref()?)))
    }

    /// Returns by how much a tenant's clock is ahead: that of live data never is.
    pub fn advance_of(&self, tenant: Tenant) -> Millis {
        self.registry.advance_of(tenant)
    }

    /// Tells whether a tenant has what a command may be about.
    pub fn holds(&self, tenant: Tenant, target: &Target) -> bool {
        let in_mode = match target {
            Target::ApiKey(id) => self.key(*id).is_some_and(|record| record.key.mode == tenant.mode),
            Target::OauthClient(id) => self.client(*id).is_some_and(|record| record.client.tenant == tenant),
            Target::Workspace(_)
            | Target::Account(_)
            | Target::Quota(..)
            | Target::Metric(_)
            | Target::Import(_)
            | Target::Channel(_)
            | Target::Alert(_)
            | Target::Project(_)
            | Target::Silence(_)
            | Target::Incident(_)
            | Target::Sandbox(_)
            | Target::Webhook(_) => true,
        };
        in_mode && self.registry.digest(tenant, target).is_some()
    }

    /// Returns what people did in a tenant, the newest last; see [`AuditLog`] for how far back it reaches.
    pub fn audit(&self, tenant: Tenant) -> impl DoubleEndedIterator<Item = &AuditRecord> {
        self.audit.of(tenant)
    }

    /// Returns a metric that people defined.
    pub fn metric(&self, tenant: Tenant, metric: &MetricName) -> Option<&MetricRecord> {
        self.world(tenant)?.metrics.records.get(metric)
    }

    /// Returns the metrics that people defined, in the order of their names.
    pub fn metrics(&self, tenant: Tenant) -> impl DoubleEndedIterator<Item = &MetricRecord> {
        self.world(tenant).into_iter().flat_map(|world| world.metrics.records.values())
    }

    /// Returns a channel.
    pub fn channel(&self, tenant: Tenant, id: ChannelId) -> Option<&Channel> {
        self.world(tenant)?.channels.records.get(&id)
    }

    /// Returns the channels in the order of their ids.
    pub fn channels(&self, tenant: Tenant) -> impl DoubleEndedIterator<Item = &Channel> {
        self.world(tenant).into_iter().flat_map(|world| world.channels.records.values())
    }

    /// Returns where alerts go that name only a kind, among the channels that are labelled with a project, or with none: the
    /// one that was made the default, else the first created.
    pub fn default_channel(&self, tenant: Tenant, kind: ChannelKind, label: Option<ProjectId>) -> Option<&Channel> {
        self.world(tenant)?.channels.default_of(kind, label)
    }

    /// Returns an alert.
    pub fn alert(&self, tenant: Tenant, id: AlertId) -> Option<&Alert> {
        self.world(tenant)?.alerts.records.get(&id)
    }

    /// Returns the alerts in the order of their ids.
    pub fn alerts(&self, tenant: Tenant) -> impl DoubleEndedIterator<Item = &Alert> {
        self.world(tenant).into_iter().flat_map(|world| world.alerts.records.values())
    }

    /// Returns a silence.
    pub fn silence(&self, tenant: Tenant, id: SilenceId) -> Option<&SilenceRecord> {
        self.world(tenant)?.silences.records.get(&id)
    }

    /// Returns the silences in the order of their ids.
    pub fn silences(&self, tenant: Tenant) -> impl DoubleEndedIterator<Item = &SilenceRecord> {
        self.world(tenant).into_iter().flat_map(|world| world.silences.records.values())
    }

    /// Returns the silences of everybody that nobody has ended.
    pub fn all_silences(&self) -> impl Iterator<Item = (Tenant, crate::domain::definition::Silence)> {
        self.registry.all_silences()
    }

    /// Returns who takes care of an incident.
    pub fn acknowledgement(&self, tenant: Tenant, id: IncidentId) -> Option<&Acknowledgement> {
        self.world(tenant)?.acknowledgements.get(id)
    }

    /// Returns the incidents that somebody takes care of, in the order of their ids.
    pub fn acknowledgements(&self, tenant: Tenant) -> impl Iterator<Item = &Acknowledgement> {
        self.world(tenant).into_iter().flat_map(|world| world.acknowledgements.all())
    }

    /// Returns what is known of a file that was imported as a whole, by its digest.
    pub fn import(&self, tenant: Tenant, digest: &str) -> Option<&ImportRecord> {
        self.world(tenant)?.imports.records.get(digest)
    }

    fn world(&self, tenant: Tenant) -> Option<&World> {
        self.registry.worlds.get(&tenant)
    }

    /// Returns the bytes of everything that only an accepted command may change.
    #[cfg(test)]
    pub(super) fn registry_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.registry).unwrap()
    }
}
