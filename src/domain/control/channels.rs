//! Where notifications go. Targets are sealed; nothing here can open them.

use super::alerts::Alerts;
use super::command::{ChannelDraft, ChannelPatch, ChannelReport, MessageRedelivery};
use super::outcome::{Change, Refused, Resource};
use super::patch::set;
use super::projects::Projects;
use super::resource::{Channel, ChannelKind, Life};
use super::sandbox::outbox_kind;
use super::verdict::{Accepted, Context, Verdict, exists_already, not_found, room_for_one};
use crate::domain::id::{AlertId, ChannelId, ProjectId, Tenant};
use crate::domain::limits::CHANNELS_MAX;
use crate::domain::partition::fact::V3;
use crate::domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How many alerts a refusal to delete names.
const ALERTS_NAMED: usize = 3;

/// The channels of one tenant; of those with the same label at most one of a kind is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Channels {
    pub(super) records: BTreeMap<ChannelId, Channel>,
}

impl Channels {
    /// Returns where alerts go that name only a kind, among the channels with a label, or with none: the default of that
    /// kind, else the first created.
    pub(super) fn default_of(&self, kind: ChannelKind, label: Option<ProjectId>) -> Option<&Channel> {
        let of_kind = self.records.values().filter(|channel| channel.kind == kind && channel.project == label);
        of_kind.min_by_key(|channel| (!channel.default, channel.life.created_at, channel.id))
    }

    /// Refuses the first channel that does not exist. A sandbox's outbox always does.
    pub(super) fn check_all(&self, tenant: Tenant, channels: &[ChannelId]) -> Result<(), Refused> {
        refuse(channels.iter().find(|id| !self.records.contains_key(id) && outbox_kind(tenant, **id).is_none()))
    }

    /// Refuses as well the first channel that is labelled with another project than the alert: who reaches a channel decides
    /// where it leads.
    pub(super) fn check_for(
        &self,
        tenant: Tenant,
        channels: &[ChannelId],
        label: Option<ProjectId>,
    ) -> Result<(), Refused> {
        self.check_all(tenant, channels)?;
        let is_foreign = |id: &&ChannelId| self.records.get(id).is_some_and(|known| !known.takes_alerts_of(label));
        refuse(channels.iter().find(is_foreign))
    }

    /// Returns the first channel of a project.
    pub(super) fn of_project(&self, project: ProjectId) -> Option<ChannelId> {
        self.records.values().find(|channel| channel.project == Some(project)).map(|channel| channel.id)
    }

    pub(super) fn create(
        &mut self,
        context: Context,
        projects: &Projects,
        id: ChannelId,
        draft: &ChannelDraft,
    ) -> Verdict {
        if self.records.contains_key(&id) {
            return Err(exists_already("channel", id));
        }
        room_for_one(self.records.len(), CHANNELS_MAX, "channels")?;
        projects.expect_label(draft.project)?;
        let ChannelDraft { kind, name, default, sealed, hint, project } = draft.clone();
        let life = Life::begun(context.now);
        let channel = Channel { id, kind, name, default, sealed, hint, project, failing_since: None, life };
        self.insert(channel.clone(), context.now);
        Ok(Accepted::created(Resource::Channel(Box::new(channel))))
    }

    pub(super) fn update(&mut self, context: Context, id: ChannelId, patch: &ChannelPatch) -> Verdict {
        let known = self.records.get(&id).ok_or_else(|| not_found("channel", id))?;
        context.expect_version(known.life.version)?;
        let mut channel = known.clone();
        set(&mut channel.name, &patch.name);
        set(&mut channel.default, &patch.default);
        if let Some((sealed, hint)) = &patch.target {
            channel.sealed.clone_from(sealed);
            channel.hint.clone_from(hint);
        }
        channel.life.touch(context.now);
        self.insert(channel.clone(), context.now);
        let accepted = Accepted::done(Resource::Channel(Box::new(channel)));
        // Whether the other target takes messages shows with the first; what this one lost need not wait for that.
        let repaired = patch.target.is_some() && context.engine_version >= V3;
        let change = Change::ChannelRepaired { tenant: context.tenant, channel: id };
        Ok(if repaired { accepted.telling(change) } else { accepted })
    }

    /// Takes in that a channel lost a message, or took one. It fails from the first that it lost until it takes one.
    pub(super) fn report(&mut self, context: Context, report: ChannelReport) -> Verdict {
        let ChannelReport { id, delivered, is_test, at } = report;
        let mut channel = self.records.get(&id).ok_or_else(|| not_found("channel", id))?.clone();
        let failing_since = match (delivered, channel.failing_since) {
            (true, _) => None,
            (false, Some(since)) => Some(since.min(at)),
            (false, None) => Some(at.min(context.now)),
        };
        let recovers = delivered && channel.failing_since.is_some();
        if failing_since.is_some() != channel.failing_since.is_some() {
            channel.failing_since = failing_since;
            channel.life.touch(context.now);
            self.records.insert(id, channel.clone());
        }
        let accepted = Accepted::done(Resource::Channel(Box::new(channel)));
        let change = Change::ChannelRepaired { tenant: context.tenant, channel: id };
        Ok(if recovers || (delivered && is_test) { accepted.telling(change) } else { accepted })
    }

    /// Lets the partition that made a message send it again.
    pub(super) fn redeliver(&self, context: Context, redelivery: &MessageRedelivery) -> Verdict {
        let MessageRedelivery { channel, notification, attempts } = redelivery.clone();
        if !self.records.contains_key(&channel) {
            return Err(not_found("channel", channel));
        }
        let resource = Resource::Message { id: notification.id, channel };
        let change = Change::RedeliverMessage { tenant: context.tenant, channel, notification, attempts };
        Ok(Accepted::done(resource).telling(change))
    }

    pub(super) fn delete(&mut self, context: Context, alerts: &Alerts, id: ChannelId) -> Verdict {
        let known = self.records.get(&id).ok_or_else(|| not_found("channel", id))?;
        context.expect_version(known.life.version)?;
        let users: Vec<AlertId> = alerts.naming(id).collect();
        if !users.is_empty() {
            return Err(Refused::Conflict { detail: in_use(id, &users) });
        }
        self.records.remove(&id);
        Ok(Accepted::deleted())
    }

    fn insert(&mut self, channel: Channel, now: Timestamp) {
        if channel.default {
            let others = self.records.values_mut().filter(|other| other.id != channel.id);
            let is_alike = |other: &Channel| other.kind == channel.kind && other.project == channel.project;
            for other in others.filter(|other| other.default && is_alike(other)) {
                other.default = false;
                other.life.touch(now);
            }
        }
        self.records.insert(channel.id, channel);
    }
}

fn refuse(channel: Option<&ChannelId>) -> Result<(), Refused> {
    channel.map_or(Ok(()), |channel| Err(Refused::ChannelNotConfigured { channel: channel.to_string() }))
}

fn in_use(channel: ChannelId, users: &[AlertId]) -> String {
    let named: Vec<String> = users.iter().take(ALERTS_NAMED).map(AlertId::to_string).collect();
    let more = match users.len().saturating_sub(ALERTS_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("channel {channel} is used by {}{more}", named.join(", "))
}
