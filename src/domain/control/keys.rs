//! API keys, as hashes. Whether a presented key is one of them is decided in `credential`.

use super::outcome::{Refused, Resource};
use super::resource::{ApiKey, KeyRecord, Life};
use super::verdict::{Accepted, Context, Verdict, exists_already, not_found, room_for_one};
use crate::domain::id::{KeyId, WorkspaceId};
use crate::domain::limits::ACTIVE_KEYS_MAX;
use crate::domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The keys of every workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Keys {
    records: BTreeMap<KeyId, KeyRecord>,
    by_lookup: BTreeMap<String, KeyId>,
}

impl Keys {
    pub(super) fn get(&self, id: KeyId) -> Option<&KeyRecord> {
        self.records.get(&id)
    }

    pub(super) fn by_lookup(&self, lookup: &str) -> Option<&KeyRecord> {
        self.by_lookup.get(lookup).and_then(|id| self.records.get(id))
    }

    pub(super) fn of(&self, workspace: WorkspaceId) -> impl DoubleEndedIterator<Item = &KeyRecord> {
        self.records.values().filter(move |record| record.key.workspace == workspace)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &KeyRecord> {
        self.records.values()
    }

    pub(super) fn create(&mut self, context: Context, key: &ApiKey) -> Verdict {
        if self.records.contains_key(&key.id) {
            return Err(exists_already("api_key", key.id));
        }
        if self.by_lookup.contains_key(&key.lookup) {
            return Err(Refused::Conflict { detail: "another API key has the same public part".to_owned() });
        }
        room_for_one(self.active(key.workspace, context.now), ACTIVE_KEYS_MAX, "active API keys per workspace")?;
        let record =
            KeyRecord { key: key.clone(), created_by: context.actor, revoked_at: None, life: Life::begun(context.now) };
        self.records.insert(key.id, record);
        self.by_lookup.insert(key.lookup.clone(), key.id);
        Ok(Accepted::created(Resource::Key(Box::new(key.clone()))))
    }

    pub(super) fn revoke(&mut self, context: Context, id: KeyId) -> Verdict {
        let known = self.records.get_mut(&id).filter(|record| record.key.workspace == context.tenant.workspace);
        let record = known.ok_or_else(|| not_found("api_key", id))?;
        context.expect_version(record.life.version)?;
        if record.revoked_at.is_none() {
            record.revoked_at = Some(context.now);
            record.life.touch(context.now);
        }
        Ok(Accepted::done(Resource::Key(Box::new(record.key.clone()))))
    }

    fn active(&self, workspace: WorkspaceId, now: Timestamp) -> usize {
        self.of(workspace).filter(|record| record.is_active(now)).count()
    }
}
