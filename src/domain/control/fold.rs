//! The state that the control log folds to. Equal logs give equal states; nothing but the log goes in.

use super::command::{Entry, Idempotency, Settings};
use super::idempotency::{Ledger, is_kept};
use super::imports::ImportRecord;
use super::outcome::{Applied, Outcome, Refused};
use super::registry::{Registry, World};
use super::resource::{
    Account, Acknowledgement, Alert, ApiKey, Channel, ChannelKind, ClientRecord, KeyRecord, MetricRecord, Project,
    QuotaRecord, SilenceRecord, Workspace,
};
use super::verdict::{Accepted, Context};
use crate::domain::definition::Quota;
use crate::domain::id::{
    AccountId, AccountScope, AlertId, ChannelId, ClientId, Epoch, IncidentId, KeyId, MetricName, Position, ProjectId,
    SilenceId, Stamp, Tenant, WorkspaceId,
};
use crate::domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::ops::Bound;

pub use super::idempotency::Original;

/// The folded control log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    position: Position,
    clock: Timestamp,
    ledger: Ledger,
    registry: Registry,
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
        self.ledger.forget(self.clock);
        if let Some(repeated) = entry.idempotency.as_ref().and_then(|sent| self.answer_again(sent)) {
            return repeated;
        }
        let context = Context {
            position: at.position,
            now: self.clock,
            tenant: entry.tenant,
            actor: entry.actor,
            if_match: entry.if_match,
        };
        let Accepted { outcome, changes } = match self.registry.apply(context, &entry.command) {
            Ok(accepted) => accepted,
            Err(refused) => Accepted { outcome: Outcome::Refused(refused), changes: Vec::new() },
        };
        if let Some(idempotency) = &entry.idempotency
            && is_kept(&outcome)
        {
            let original = Original {
                fingerprint: idempotency.fingerprint.clone(),
                request_id: entry.request_id.clone(),
                outcome: outcome.clone(),
                beside: idempotency.beside.clone(),
                stands_until: self.clock.plus(self.registry.idempotency_horizon(entry.tenant.workspace)),
            };
            self.ledger.keep(idempotency, original);
        }
        Applied { outcome, replayed_from: None, changes }
    }

    fn answer_again(&self, sent: &Idempotency) -> Option<Applied> {
        let original = self.ledger.original(&sent.record, self.clock)?;
        let (outcome, replayed_from) = if original.fingerprint == sent.fingerprint {
            (original.outcome.clone(), Some(original.request_id.clone()))
        } else {
            let original_request_id = original.request_id.clone();
            (Outcome::Refused(Refused::IdempotencyKeyReused { original_request_id }), None)
        };
        Some(Applied { outcome, replayed_from, changes: Vec::new() })
    }

    /// Returns what was answered to an idempotency record and still stands at `now`, whatever its fingerprint.
    pub fn original(&self, sent: &Idempotency, now: Timestamp) -> Option<&Original> {
        self.ledger.original(&sent.record, now)
    }

    /// Returns the position of the last entry that was taken in.
    pub const fn position(&self) -> Position {
        self.position
    }

    /// Tells whether the log was set up.
    pub const fn initialised(&self) -> bool {
        self.registry.foundation.is_some()
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

    /// Returns the key with a public part, and what happened to it.
    pub fn key_record_by_lookup(&self, lookup: &str) -> Option<&KeyRecord> {
        self.registry.keys.by_lookup(lookup)
    }

    /// Returns a key and what happened to it.
    pub fn key(&self, id: KeyId) -> Option<&KeyRecord> {
        self.registry.keys.get(id)
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

    /// Returns the control position of the last deletion that covers an account; 0 when there was none.
    pub fn epoch_of(&self, tenant: Tenant, account: &AccountId) -> Epoch {
        self.world(tenant).and_then(|world| world.accounts.epochs.get(account)).copied().unwrap_or_default()
    }

    /// Returns the quota that was set on a scope itself.
    pub fn quota(&self, tenant: Tenant, scope: &AccountScope, metric: &MetricName) -> Option<&QuotaRecord> {
        self.world(tenant)?.quotas.get(scope, metric)
    }

    /// Returns the quotas that were set on a scope itself, in the order of their metrics.
    pub fn quotas_of(&self, tenant: Tenant, scope: &AccountScope) -> impl DoubleEndedIterator<Item = &QuotaRecord> {
        self.world(tenant).and_then(|world| world.quotas.of(scope)).into_iter().flat_map(|quotas| quotas.values())
    }

    /// Returns the quota that holds for an account, its own before that of `*`, and the scope that it was set on.
    pub fn effective_quota(
        &self,
        tenant: Tenant,
        account: &AccountId,
        metric: &MetricName,
    ) -> Option<(&Quota, AccountScope)> {
        let record = self.world(tenant)?.quotas.effective(account, metric)?;
        Some((&record.quota, record.account.clone()))
    }

    /// Returns every quota that holds for an account, in the order of their metrics.
    pub fn effective_quotas(&self, tenant: Tenant, account: &AccountId) -> Vec<(MetricName, Quota)> {
        let effective = self.world(tenant).map(|world| world.quotas.effective_all(account)).unwrap_or_default();
        effective.into_iter().map(|(metric, record)| (metric.clone(), record.quota)).collect()
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

    /// Returns where alerts go that name only a kind: the channel made the default, else the first created.
    pub fn default_channel(&self, tenant: Tenant, kind: ChannelKind) -> Option<&Channel> {
        self.world(tenant)?.channels.default_of(kind)
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
