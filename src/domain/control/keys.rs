//! API keys, as hashes. Whether a presented key is one of them is decided in `credential`.

use super::access::{KeyChange, KeyRotation};
use super::outcome::{Refused, Resource};
use super::patch::{merge, set};
use super::resource::{ApiKey, KeyRecord, KeyStatus, Life};
use super::verdict::{Accepted, Context, Verdict, exists_already, not_found, room_for_one};
use crate::domain::id::{KeyId, ProjectId, Tenant, WorkspaceId};
use crate::domain::limits::{ACTIVE_KEYS_MAX, ENDED_KEYS_KEPT, LIVE_PREDECESSORS_MAX};
use crate::domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The keys of every workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Keys {
    records: BTreeMap<KeyId, KeyRecord>,
    by_lookup: BTreeMap<String, KeyId>,
    by_hash: BTreeMap<String, KeyId>,
}

impl Keys {
    pub(super) fn get(&self, id: KeyId) -> Option<&KeyRecord> {
        self.records.get(&id)
    }

    pub(super) fn by_lookup(&self, lookup: &str) -> Option<&KeyRecord> {
        self.by_lookup.get(lookup).and_then(|id| self.records.get(id))
    }

    /// Whoever has the hash of a whole key has the key: to one who guesses, a wrong secret is as unknown as a wrong key.
    pub(super) fn by_hash(&self, hash: &str) -> Option<&KeyRecord> {
        self.by_hash.get(hash).and_then(|id| self.records.get(id))
    }

    pub(super) fn of(&self, workspace: WorkspaceId) -> impl DoubleEndedIterator<Item = &KeyRecord> {
        self.records.values().filter(move |record| record.key.workspace == workspace)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &KeyRecord> {
        self.records.values()
    }

    /// Returns the first key that works and is narrowed to a project.
    pub(super) fn naming(&self, tenant: Tenant, project: ProjectId, now: Timestamp) -> Option<KeyId> {
        let mut users = self.of(tenant.workspace).filter(|record| {
            record.key.mode == tenant.mode && record.is_active(now) && record.key.projects.contains(&project)
        });
        users.next().map(|record| record.key.id)
    }

    pub(super) fn create(&mut self, context: Context, key: &ApiKey) -> Verdict {
        self.expect_unknown(key.id, &key.lookup)?;
        let works = |record: &&KeyRecord| record.status(context.now) == KeyStatus::Active;
        let active = self.of(key.workspace).filter(works).count();
        room_for_one(active, ACTIVE_KEYS_MAX, "active API keys per workspace")?;
        Ok(self.insert(context, key.clone()))
    }

    /// Refuses a key whose names are taken.
    fn expect_unknown(&self, id: KeyId, lookup: &str) -> Result<(), Refused> {
        if self.records.contains_key(&id) {
            return Err(exists_already("api_key", id));
        }
        if self.by_lookup.contains_key(lookup) {
            return Err(Refused::Conflict { detail: "another API key has the same public part".to_owned() });
        }
        Ok(())
    }

    fn insert(&mut self, context: Context, key: ApiKey) -> Accepted {
        let record = KeyRecord {
            created_by: context.actor,
            revoked_at: None,
            replaced_by: None,
            life: Life::begun(context.now),
            key,
        };
        self.by_lookup.insert(record.key.lookup.clone(), record.key.id);
        self.by_hash.insert(record.key.hash.clone(), record.key.id);
        self.records.insert(record.key.id, record.clone());
        self.forget(record.key.workspace, context.now);
        Accepted::created(Resource::Key(Box::new(record)))
    }

    /// Forgets the oldest of the keys that no longer work, where there are too many.
    fn forget(&mut self, workspace: WorkspaceId, now: Timestamp) {
        let ended: Vec<KeyId> =
            self.of(workspace).filter(|record| !record.is_active(now)).map(|record| record.key.id).collect();
        for id in ended.iter().take(ended.len().saturating_sub(ENDED_KEYS_KEPT)) {
            if let Some(record) = self.records.remove(id) {
                self.by_lookup.remove(&record.key.lookup);
                self.by_hash.remove(&record.key.hash);
            }
        }
    }

    /// Puts a key in the place of another, which goes on to work for a while, never past its own end.
    pub(super) fn rotate(&mut self, context: Context, rotation: &KeyRotation) -> Verdict {
        let KeyRotation { from, id, lookup, hash, hint, grace, expires_at } = rotation.clone();
        let of_tenant =
            |record: &&KeyRecord| Tenant { workspace: record.key.workspace, mode: record.key.mode } == context.tenant;
        let old = self.records.get(&from).filter(of_tenant).ok_or_else(|| not_found("api_key", from))?;
        context.expect_version(old.life.version)?;
        match (old.status(context.now), old.replaced_by) {
            (KeyStatus::Active, _) => {}
            (KeyStatus::Rotating, Some(next)) => {
                return Err(Refused::KeyNotActive { detail: format!("api_key {from} was replaced by {next} already") });
            }
            (status @ (KeyStatus::Rotating | KeyStatus::Revoked | KeyStatus::Expired), _) => {
                return Err(Refused::KeyNotActive { detail: format!("api_key {from} is {}", status.name()) });
            }
        }
        self.expect_unknown(id, &lookup)?;
        let replaced = |record: &&KeyRecord| {
            record.key.lineage == old.key.lineage && record.status(context.now) == KeyStatus::Rotating
        };
        let predecessors = self.of(old.key.workspace).filter(replaced).count();
        if grace.0 > 0 {
            room_for_one(predecessors, LIVE_PREDECESSORS_MAX, "replaced keys of one lineage that still work")?;
        }
        let end = context.now.plus(grace);
        let mut key = ApiKey { id, lookup, hash, hint, ..old.key.clone() };
        key.expires_at = expires_at.or(old.key.expires_at);
        if let Some(old) = self.records.get_mut(&from) {
            old.key.expires_at = Some(old.key.expires_at.map_or(end, |own| own.min(end)));
            old.replaced_by = Some(id);
            old.life.touch(context.now);
        }
        Ok(self.insert(context, key))
    }

    pub(super) fn update(&mut self, context: Context, change: &KeyChange) -> Verdict {
        let mut record = self.expected(context, change.id)?.clone();
        set(&mut record.key.name, &change.name);
        set(&mut record.key.allowed_ips, &change.allowed_ips);
        merge(&mut record.key.metadata, &change.metadata, "metadata entries")?;
        record.life.touch(context.now);
        self.records.insert(change.id, record.clone());
        Ok(Accepted::done(Resource::Key(Box::new(record))))
    }

    /// Keys of one lineage draw on one budget, so they have one limit.
    pub(super) fn limit(&mut self, context: Context, id: KeyId, rate_limit: Option<u32>) -> Verdict {
        let lineage = self.expected(context, id)?.key.lineage;
        for record in self.records.values_mut().filter(|record| record.key.lineage == lineage) {
            if record.key.rate_limit != rate_limit {
                record.key.rate_limit = rate_limit;
                record.life.touch(context.now);
            }
        }
        let record = self.expected(Context { if_match: None, ..context }, id)?;
        Ok(Accepted::done(Resource::Key(Box::new(record.clone()))))
    }

    pub(super) fn revoke(&mut self, context: Context, id: KeyId) -> Verdict {
        let mut record = self.expected(context, id)?.clone();
        if record.revoked_at.is_none() {
            record.revoked_at = Some(context.now);
            record.life.touch(context.now);
            self.records.insert(id, record.clone());
        }
        Ok(Accepted::done(Resource::Key(Box::new(record))))
    }

    fn expected(&self, context: Context, id: KeyId) -> Result<&KeyRecord, Refused> {
        let known = self.records.get(&id).filter(|record| record.key.workspace == context.tenant.workspace);
        let record = known.ok_or_else(|| not_found("api_key", id))?;
        context.expect_version(record.life.version)?;
        Ok(record)
    }
}
