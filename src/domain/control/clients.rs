//! OAuth clients and what was revoked of theirs. Tokens are not kept: they say themselves what they are, under a MAC.

use super::access::{ClientChange, SecretRotation, TokenRevocation};
use super::outcome::{Refused, Resource};
use super::patch::{merge, set};
use super::resource::{ClientRecord, ClientSecret, Life, OAuthClient};
use super::verdict::{Accepted, Context, Verdict, exists_already, not_found, room_for_one};
use crate::domain::id::{ClientId, ProjectId, Tenant, WorkspaceId};
use crate::domain::limits::{LIVE_PREDECESSORS_MAX, OAUTH_CLIENTS_MAX, REVOKED_TOKENS_MAX};
use crate::domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The clients of every workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Clients {
    pub(super) records: BTreeMap<ClientId, ClientRecord>,
}

impl Clients {
    pub(super) fn of(&self, workspace: WorkspaceId) -> impl DoubleEndedIterator<Item = &ClientRecord> {
        self.records.values().filter(move |record| record.client.tenant.workspace == workspace)
    }

    /// Returns the first client that is narrowed to a project.
    pub(super) fn naming(&self, tenant: Tenant, project: ProjectId, now: Timestamp) -> Option<ClientId> {
        let mut users = self.of(tenant.workspace).filter(|record| {
            record.client.tenant == tenant && record.is_active(now) && record.client.projects.contains(&project)
        });
        users.next().map(|record| record.client.id)
    }

    pub(super) fn create(&mut self, context: Context, client: &OAuthClient) -> Verdict {
        if self.records.contains_key(&client.id) {
            return Err(exists_already("oauth_client", client.id));
        }
        let count = self.of(client.tenant.workspace).count();
        room_for_one(count, OAUTH_CLIENTS_MAX, "OAuth clients per workspace")?;
        let record = ClientRecord {
            client: client.clone(),
            created_by: context.actor,
            revoked_tokens: BTreeMap::new(),
            revoked_through: None,
            life: Life::begun(context.now),
        };
        self.records.insert(client.id, record.clone());
        Ok(Accepted::created(Resource::Client(Box::new(record))))
    }

    pub(super) fn update(&mut self, context: Context, change: &ClientChange) -> Verdict {
        let mut record = self.expected(context, change.id)?.clone();
        set(&mut record.client.name, &change.name);
        set(&mut record.client.allowed_ips, &change.allowed_ips);
        merge(&mut record.client.metadata, &change.metadata, "metadata entries")?;
        record.life.touch(context.now);
        self.records.insert(change.id, record.clone());
        Ok(Accepted::done(Resource::Client(Box::new(record))))
    }

    /// Puts a secret in the place of another, which goes on to work for a while.
    pub(super) fn rotate(&mut self, context: Context, rotation: &SecretRotation) -> Verdict {
        let mut record = self.expected(context, rotation.client)?.clone();
        if !record.is_active(context.now) {
            let detail = format!("oauth_client {} is expired", rotation.client);
            return Err(Refused::KeyNotActive { detail });
        }
        let end = context.now.plus(rotation.grace);
        let secrets = &mut record.client.secrets;
        let generation = secrets.iter().map(|secret| secret.generation).max().unwrap_or(0).saturating_add(1);
        for secret in secrets.iter_mut() {
            secret.until = Some(secret.until.map_or(end, |own| own.min(end)));
        }
        secrets.retain(|secret| secret.until.is_none_or(|end| context.now < end));
        if secrets.len() > LIVE_PREDECESSORS_MAX {
            let what = "replaced secrets of one client that still work".to_owned();
            return Err(Refused::LimitReached { what, limit: LIVE_PREDECESSORS_MAX });
        }
        let newest = ClientSecret { generation, hash: rotation.hash.clone(), hint: rotation.hint.clone(), until: None };
        secrets.insert(0, newest);
        record.life.touch(context.now);
        self.records.insert(rotation.client, record.clone());
        Ok(Accepted::done(Resource::Client(Box::new(record))))
    }

    pub(super) fn delete(&mut self, context: Context, id: ClientId) -> Verdict {
        self.expected(context, id)?;
        self.records.remove(&id);
        Ok(Accepted::deleted())
    }

    /// Notes that a token ended. Where a client has more of them than are known one by one, all that it had are revoked.
    pub(super) fn revoke_token(&mut self, context: Context, revocation: &TokenRevocation) -> Verdict {
        let mut record = self.expected(context, revocation.client)?.clone();
        record.revoked_tokens.retain(|_, ends| context.now < *ends);
        record.revoked_tokens.insert(revocation.token.clone(), revocation.expires_at);
        if record.revoked_tokens.len() > REVOKED_TOKENS_MAX {
            record.revoked_tokens.clear();
            record.revoked_through = Some(context.now);
        }
        self.records.insert(revocation.client, record);
        Ok(Accepted::done(Resource::None))
    }

    fn expected(&self, context: Context, id: ClientId) -> Result<&ClientRecord, Refused> {
        let known = self.records.get(&id).filter(|record| record.client.tenant == context.tenant);
        let record = known.ok_or_else(|| not_found("oauth_client", id))?;
        context.expect_version(record.life.version)?;
        Ok(record)
    }
}
