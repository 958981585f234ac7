//! Projects. What they are a label on, others keep.

use super::access::{ProjectChange, ProjectDraft};
use super::alerts::Alerts;
use super::channels::Channels;
use super::outcome::{Refused, Resource};
use super::patch::{merge, set};
use super::resource::{Life, Project};
use super::verdict::{Accepted, Context, Verdict, exists_already, not_found, room_for_one};
use super::webhook::Webhooks;
use crate::domain::id::ProjectId;
use crate::domain::limits::PROJECTS_MAX;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The projects of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Projects {
    pub(super) records: BTreeMap<ProjectId, Project>,
}

impl Projects {
    pub(super) fn create(&mut self, context: Context, draft: &ProjectDraft) -> Verdict {
        let ProjectDraft { id, name, env, metadata } = draft.clone();
        if self.records.contains_key(&id) {
            return Err(exists_already("project", id));
        }
        room_for_one(self.records.len(), PROJECTS_MAX, "projects")?;
        let project = Project { id, name, env, metadata, life: Life::begun(context.now) };
        self.records.insert(id, project.clone());
        Ok(Accepted::created(Resource::Project(project)))
    }

    pub(super) fn update(&mut self, context: Context, change: &ProjectChange) -> Verdict {
        let mut project = self.expected(context, change.id)?.clone();
        set(&mut project.name, &change.name);
        set(&mut project.env, &change.env);
        merge(&mut project.metadata, &change.metadata, "metadata entries")?;
        project.life.touch(context.now);
        self.records.insert(change.id, project.clone());
        Ok(Accepted::done(Resource::Project(project)))
    }

    pub(super) fn delete(
        &mut self,
        context: Context,
        (alerts, channels, webhooks): (&Alerts, &Channels, &Webhooks),
        id: ProjectId,
    ) -> Verdict {
        self.expected(context, id)?;
        let alert = alerts.of_project(id).map(|alert| alert.to_string());
        let channel = || channels.of_project(id).map(|channel| channel.to_string());
        let webhook = || webhooks.of_project(id).map(|webhook| webhook.to_string());
        if let Some(user) = alert.or_else(channel).or_else(webhook) {
            return Err(in_use(id, user));
        }
        self.records.remove(&id);
        Ok(Accepted::deleted())
    }

    /// Refuses a label that names no project.
    pub(super) fn expect_label(&self, label: Option<ProjectId>) -> Result<(), Refused> {
        match label.filter(|id| !self.records.contains_key(id)) {
            Some(missing) => Err(not_found("project", missing)),
            None => Ok(()),
        }
    }

    fn expected(&self, context: Context, id: ProjectId) -> Result<&Project, Refused> {
        let known = self.records.get(&id).ok_or_else(|| not_found("project", id))?;
        context.expect_version(known.life.version)?;
        Ok(known)
    }
}

/// Refuses to delete a project that something names.
pub(super) fn in_use(project: ProjectId, user: impl ToString) -> Refused {
    Refused::Conflict { detail: format!("project {project} is used by {}", user.to_string()) }
}
