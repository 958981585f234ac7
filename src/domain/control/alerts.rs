//! Alert definitions and their pauses. Whether a rule holds, and what an alert's state is, the partitions decide.

use super::channels::Channels;
use super::command::{AlertDraft, AlertPatch};
use super::outcome::{Change, Refused, Resource};
use super::patch::{merge, set};
use super::resource::{Alert, Life};
use super::verdict::{Accepted, Context, Verdict, exists_already, not_found, room_for_one};
use crate::domain::definition::{AlertDefinition, Pause};
use crate::domain::id::{AlertId, ChannelId, ProjectId};
use crate::domain::limits::ALERTS_MAX;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The alerts of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Alerts {
    pub(super) records: BTreeMap<AlertId, Alert>,
}

impl Alerts {
    /// Returns the alerts that notify a channel, in the order of their ids.
    pub(super) fn naming(&self, channel: ChannelId) -> impl Iterator<Item = AlertId> {
        self.records.iter().filter(move |(_, alert)| alert.definition.channels.contains(&channel)).map(|(id, _)| *id)
    }

    /// Returns the first alert of a project.
    pub(super) fn of_project(&self, project: ProjectId) -> Option<AlertId> {
        let mut labelled = self.records.iter().filter(|(_, alert)| alert.definition.project == Some(project));
        labelled.next().map(|(id, _)| *id)
    }

    pub(super) fn create(&mut self, context: Context, channels: &Channels, id: AlertId, draft: &AlertDraft) -> Verdict {
        if self.records.contains_key(&id) {
            return Err(exists_already("alert", id));
        }
        room_for_one(self.records.len(), ALERTS_MAX, "alerts")?;
        channels.check_for(context.tenant, &draft.channels, draft.project)?;
        let alert = begun(id, draft, Life::begun(context.now));
        let change = self.insert(context, alert.clone());
        Ok(Accepted::created(Resource::Alert(Box::new(alert))).telling(change))
    }

    pub(super) fn update(&mut self, context: Context, channels: &Channels, id: AlertId, patch: &AlertPatch) -> Verdict {
        let mut alert = self.expected(context, id)?.clone();
        if let Some((choice, resolved)) = &patch.channel {
            alert.channel.clone_from(choice);
            alert.definition.channels.clone_from(resolved);
        }
        edit(&mut alert, patch)?;
        if patch.channel.is_some() || patch.project.is_some() {
            channels.check_for(context.tenant, &alert.definition.channels, alert.definition.project)?;
        }
        alert.definition.version = alert.definition.version.saturating_add(1);
        Ok(self.change(context, alert))
    }

    pub(super) fn delete(&mut self, context: Context, id: AlertId) -> Verdict {
        self.expected(context, id)?;
        self.records.remove(&id);
        Ok(Accepted::deleted().telling(Change::AlertDeleted { tenant: context.tenant, alert: id }))
    }

    /// Sets or clears the pause; nothing changes where it is so already.
    pub(super) fn set_pause(&mut self, context: Context, id: AlertId, pause: Option<Pause>) -> Verdict {
        let known = self.expected(context, id)?;
        let mut alert = known.clone();
        if alert.definition.pause == pause {
            return Ok(Accepted::done(Resource::Alert(Box::new(alert))));
        }
        alert.definition.pause = pause;
        Ok(self.change(context, alert))
    }

    fn expected(&self, context: Context, id: AlertId) -> Result<&Alert, Refused> {
        let known = self.records.get(&id).ok_or_else(|| not_found("alert", id))?;
        context.expect_version(known.life.version)?;
        Ok(known)
    }

    fn change(&mut self, context: Context, mut alert: Alert) -> Accepted {
        alert.life.touch(context.now);
        let change = self.insert(context, alert.clone());
        Accepted::done(Resource::Alert(Box::new(alert))).telling(change)
    }

    fn insert(&mut self, context: Context, alert: Alert) -> Change {
        let definition = Box::new(alert.definition.clone());
        self.records.insert(alert.definition.id, alert);
        Change::Alert { tenant: context.tenant, definition }
    }
}

fn begun(id: AlertId, draft: &AlertDraft, life: Life) -> Alert {
    let draft = draft.clone();
    let definition = AlertDefinition {
        id,
        version: 1,
        account: draft.account,
        metric: draft.metric,
        rule: draft.rule,
        recover: draft.recover,
        grammar: draft.grammar,
        hold: draft.hold,
        keep_firing_for: draft.keep_firing_for,
        repeat_interval: draft.repeat_interval,
        severity: draft.severity,
        no_data: draft.no_data,
        inconclusive: draft.inconclusive,
        name: draft.name,
        message: draft.message,
        labels: draft.labels,
        project: draft.project,
        channels: draft.channels,
        pause: None,
    };
    Alert {
        definition,
        normalized: draft.normalized,
        warnings: draft.warnings,
        channel: draft.channel,
        metadata: draft.metadata,
        life,
    }
}

fn edit(alert: &mut Alert, patch: &AlertPatch) -> Result<(), Refused> {
    let definition = &mut alert.definition;
    set(&mut definition.account, &patch.account);
    set(&mut definition.metric, &patch.metric);
    if let Some(rule) = &patch.rule {
        definition.rule.clone_from(&rule.source);
        definition.grammar = rule.grammar;
        alert.normalized.clone_from(&rule.normalized);
        alert.warnings.clone_from(&rule.warnings);
    }
    set(&mut definition.recover, &patch.recover);
    set(&mut definition.hold, &patch.hold);
    set(&mut definition.keep_firing_for, &patch.keep_firing_for);
    set(&mut definition.repeat_interval, &patch.repeat_interval);
    set(&mut definition.severity, &patch.severity);
    set(&mut definition.no_data, &patch.no_data);
    set(&mut definition.inconclusive, &patch.inconclusive);
    set(&mut definition.name, &patch.name);
    set(&mut definition.message, &patch.message);
    set(&mut definition.project, &patch.project);
    merge(&mut definition.labels, &patch.labels, "labels")?;
    merge(&mut alert.metadata, &patch.metadata, "metadata entries")
}
