//! What an accepted entry of the control log tells the world: one exhaustive match over the commands.

use super::command::{Command, PressureReport};
use super::outcome::{Outcome, Resource};
use super::resource::{Account, Alert, ApiKey, Channel, SilenceRecord, Webhook, WebhookStatus};
use crate::domain::id::{AccountId, AlertId, ChannelId, IncidentId, KeyId, SilenceId, WebhookId};
use crate::domain::limits::{EVENT_DATA_BYTES_MAX, OWED_PER_WEBHOOK_MAX};
use crate::domain::webhook::kind::EventType;
use serde_json::{Value, json};

/// What a command would tell, if it changes what it is about.
pub(super) struct Telling<'a> {
    pub(super) kind: EventType,
    pub(super) subject: Subject<'a>,
    when: When,
}

/// What a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject<'a> {
    Account(&'a AccountId),
    Key(KeyId),
    Alert(AlertId),
    Webhook(WebhookId),
    Channel(ChannelId),
    Silence(SilenceId),
    Incident(IncidentId),
}

/// What must have come of a command for it to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// There was none before.
    Made,
    /// It has another version than before.
    Changed,
    /// It was deleted, also where nothing was known of it.
    Gone,
}

/// Says what a command tells. A command that is about nothing people subscribe to tells nothing.
pub(super) fn telling(command: &Command) -> Option<Telling<'_>> {
    use EventType::{
        AccountCreated, AccountDeleted, AlertAcknowledged, AlertCreated, AlertDeleted, AlertPaused, AlertResumed,
        AlertUpdated, ApiKeyCreated, ApiKeyRevoked, ApiKeyRotated, ChannelFailing, SilenceCreated, SilenceExpired,
        WebhookDisabled, WebhookOverflowing,
    };
    let (kind, subject, when) = match command {
        Command::CreateAccount { account, .. }
        | Command::UpdateAccount { account, .. }
        | Command::PutQuota { account: crate::domain::id::AccountScope::One(account), .. } => {
            (AccountCreated, Subject::Account(account), When::Made)
        }
        Command::DeleteAccount { account } => (AccountDeleted, Subject::Account(account), When::Gone),
        Command::RotateKey(rotation) => (ApiKeyRotated, Subject::Key(rotation.from), When::Changed),
        Command::CreateKey { key } => (ApiKeyCreated, Subject::Key(key.id), When::Made),
        Command::RevokeKey { id } => (ApiKeyRevoked, Subject::Key(*id), When::Changed),
        Command::CreateAlert { id, .. } => (AlertCreated, Subject::Alert(*id), When::Made),
        Command::UpdateAlert { id, .. } => (AlertUpdated, Subject::Alert(*id), When::Changed),
        Command::PauseAlert { id, .. } => (AlertPaused, Subject::Alert(*id), When::Changed),
        Command::ResumeAlert { id } => (AlertResumed, Subject::Alert(*id), When::Changed),
        Command::DeleteAlert { id } => (AlertDeleted, Subject::Alert(*id), When::Gone),
        Command::CreateSilence { id, .. } => (SilenceCreated, Subject::Silence(*id), When::Made),
        Command::ExpireSilence { id } => (SilenceExpired, Subject::Silence(*id), When::Changed),
        Command::AcknowledgeIncident { id, .. } => (AlertAcknowledged, Subject::Incident(*id), When::Made),
        // Whether it is disabled or recovered shows in the outcome.
        Command::ReportWebhookHealth(report) => (WebhookDisabled, Subject::Webhook(report.id), When::Changed),
        Command::ReportDrops(report) => (WebhookOverflowing, Subject::Webhook(report.id), When::Changed),
        Command::ReportChannel(report) => (ChannelFailing, Subject::Channel(report.id), When::Changed),
        // A test is told to its endpoint alone; what is about no resource is looked after behind everything else.
        Command::TestWebhook { .. }
        | Command::RecordDelivery(_)
        | Command::NoteKeyUses { .. }
        | Command::ReportPressure(_)
        | Command::SetClock { .. }
        | Command::BeginIntake { .. }
        | Command::RecordIntakeGap(_)
        | Command::Tick => return None,
        Command::PutQuota { account: crate::domain::id::AccountScope::All, .. }
        | Command::DeleteQuota { .. }
        | Command::PutMetric { .. }
        | Command::UpdateMetric { .. }
        | Command::DeleteMetric { .. }
        | Command::RecordImport { .. }
        | Command::CreateChannel { .. }
        | Command::UpdateChannel { .. }
        | Command::DeleteChannel { .. }
        | Command::CreateWebhook { .. }
        | Command::UpdateWebhook { .. }
        | Command::DeleteWebhook { .. }
        | Command::UpdateSilence { .. }
        | Command::SendTest { .. }
        | Command::RedeliverMessage(_)
        | Command::PauseWebhook { .. }
        | Command::ResumeWebhook { .. }
        | Command::RotateWebhookSecret(_)
        | Command::Redeliver(_)
        | Command::UpdateKey(_)
        | Command::LimitKey { .. }
        | Command::CreateClient(_)
        | Command::NoteAccess(_)
        | Command::UpdateClient(_)
        | Command::RotateClientSecret(_)
        | Command::DeleteClient { .. }
        | Command::RevokeToken(_)
        | Command::CreateProject(_)
        | Command::UpdateProject(_)
        | Command::DeleteProject { .. }
        | Command::UpdateWorkspace(_)
        | Command::OpenSandbox { .. }
        | Command::AdvanceClock { .. }
        // What a reset tells follows from its changes: one of a midnight that was there already changes nothing.
        | Command::ResetSandbox { .. }
        | Command::Initialise { .. }
        | Command::ChangeSettings { .. }
        | Command::EngineVersion { .. }
        | Command::ShareSnapshots { .. }
        | Command::KeepRows { .. }
        | Command::CreateWorkspace { .. } => return None,
    };
    Some(Telling { kind, subject, when })
}

impl Telling<'_> {
    /// Returns the event's type and data, where the command came to what it tells. `before` and `after` are the versions
    /// of what it is about.
    pub(super) fn came_to(
        &self,
        (before, after): (Option<u64>, Option<u64>),
        outcome: &Outcome,
    ) -> Option<(EventType, Value)> {
        let resource = match outcome {
            Outcome::Created(resource) | Outcome::Done(resource) => Some(resource),
            Outcome::Deleted => None,
            Outcome::Refused(_) => return None,
        };
        let happened = match self.when {
            When::Made => before.is_none() && after.is_some(),
            When::Changed => before.is_some() && before != after,
            When::Gone => resource.is_none(),
        };
        if !happened {
            return None;
        }
        let data = match (self.subject, resource) {
            (Subject::Account(id), None) => json!({"id": id, "object": "account", "deleted": true}),
            (Subject::Alert(id), None) => json!({"id": id, "object": "alert", "deleted": true}),
            (Subject::Key(id), None) => json!({"id": id, "object": "api_key"}),
            (Subject::Silence(id), None) => json!({"id": id, "object": "silence"}),
            (Subject::Incident(id), None) => json!({"incident_id": id, "object": "acknowledgement"}),
            (Subject::Webhook(id), None) => json!({"id": id, "object": "webhook"}),
            (Subject::Channel(id), None) => json!({"id": id, "object": "channel"}),
            (_, Some(Resource::Alert(alert))) => alert_data(alert),
            (_, Some(Resource::Account(account))) => account_data(account),
            (_, Some(Resource::Key(record))) => key_data(&record.key),
            (_, Some(Resource::Webhook(webhook))) if self.kind == EventType::WebhookOverflowing => {
                return Some((self.kind, overflow_data(webhook)));
            }
            (_, Some(Resource::Webhook(webhook))) => {
                return webhook_kind(webhook).map(|kind| (kind, webhook_data(webhook)));
            }
            (Subject::Channel(_), Some(Resource::Channel(channel))) => {
                return Some((channel_kind(channel), channel_data(channel)));
            }
            (_, Some(Resource::Silence(record))) => silence_data(record),
            (_, Some(Resource::Acknowledgement(noted))) => json!({
                "incident_id": noted.incident, "object": "acknowledgement", "alert_id": noted.alert,
                "acknowledged_at": noted.at.to_string(), "acknowledged_by": noted.by,
            }),
            // A quota made the account's record.
            (Subject::Account(id), Some(_)) => json!({"id": id, "object": "account"}),
            (
                Subject::Alert(_)
                | Subject::Key(_)
                | Subject::Webhook(_)
                | Subject::Channel(_)
                | Subject::Silence(_)
                | Subject::Incident(_),
                Some(_),
            ) => json!({}),
        };
        Some((self.kind, data))
    }
}

/// What is told of an endpoint whose health was judged anew.
const fn webhook_kind(webhook: &Webhook) -> Option<EventType> {
    match (webhook.status, webhook.failing_since) {
        (WebhookStatus::Disabled, _) => Some(EventType::WebhookDisabled),
        (WebhookStatus::Enabled | WebhookStatus::Paused, None) => Some(EventType::WebhookRecovered),
        (WebhookStatus::Enabled | WebhookStatus::Paused, Some(_)) => None,
    }
}

/// An alert as events show it.
pub(super) fn alert_data(alert: &Alert) -> Value {
    let definition = &alert.definition;
    let mut data = json!({
        "id": definition.id, "object": "alert", "version": alert.life.version, "account_id": definition.account.as_str(),
        "metric": definition.metric, "name": definition.name, "rule": definition.rule,
        "rule_normalized": alert.normalized, "severity": definition.severity.name(),
        "status": if definition.pause.is_some() { "paused" } else { "active" },
        "paused_until": definition.pause.and_then(|pause| pause.until).map(|until| until.to_string()),
        "channels": definition.channels, "labels": definition.labels, "project_id": definition.project,
        "created_at": alert.life.created_at.to_string(), "updated_at": alert.life.updated_at.to_string(),
    });
    bound(&mut data, "labels");
    data
}

pub(super) fn silence_data(record: &SilenceRecord) -> Value {
    let silence = &record.silence;
    let mut data = json!({
        "id": silence.id, "object": "silence", "version": record.life.version, "comment": record.comment,
        "matchers": silence.matchers, "starts_at": silence.starts_at.to_string(),
        "ends_at": silence.ends_at.to_string(),
        "expired_at": record.expired_at.map(|at| at.to_string()),
    });
    bound(&mut data, "matchers");
    data
}

fn account_data(account: &Account) -> Value {
    let mut data = json!({
        "id": account.id, "object": "account", "version": account.life.version, "name": account.name,
        "metadata": account.metadata, "created_at": account.life.created_at.to_string(),
        "updated_at": account.life.updated_at.to_string(),
    });
    bound(&mut data, "metadata");
    data
}

/// An API key as events show it: nothing that could let anybody in.
pub(super) fn key_data(key: &ApiKey) -> Value {
    json!({
        "id": key.id, "object": "api_key", "mode": key.mode.name(), "name": key.name, "hint": key.hint,
        "scope": key.scopes, "project_ids": key.projects,
        "expires_at": key.expires_at.map(|at| at.to_string()),
    })
}

fn webhook_data(webhook: &Webhook) -> Value {
    json!({
        "id": webhook.id, "object": "webhook", "version": webhook.life.version, "status": webhook.status.name(),
        "disabled_reason": webhook.disabled_reason.map(super::resource::DisabledReason::name),
        "failing_since": webhook.failing_since.map(|at| at.to_string()),
    })
}

/// An endpoint for which events are dropped, with what a replay takes to have them.
fn overflow_data(webhook: &Webhook) -> Value {
    json!({
        "id": webhook.id, "object": "webhook", "version": webhook.life.version, "status": webhook.status.name(),
        "pending_max": OWED_PER_WEBHOOK_MAX, "dropped": webhook.overflow.map(|overflow| overflow.dropped),
        "dropped_since": webhook.overflow.map(|overflow| overflow.since.to_string()),
    })
}

/// What is told of a channel that began to lose messages, or takes them again.
const fn channel_kind(channel: &Channel) -> EventType {
    match channel.failing_since {
        Some(_) => EventType::ChannelFailing,
        None => EventType::ChannelRecovered,
    }
}

fn channel_data(channel: &Channel) -> Value {
    json!({
        "id": channel.id, "object": "channel", "version": channel.life.version, "type": channel.kind.name(),
        "name": channel.name, "status": channel.status(),
        "failing_since": channel.failing_since.map(|at| at.to_string()),
    })
}

/// Refused events as events show them.
pub(super) fn pressure_data(report: &PressureReport) -> Value {
    json!({
        "code": "overloaded", "refused_requests": report.refused_requests, "from": report.from.to_string(),
        "to": report.to.to_string(),
    })
}

/// Leaves a map out where the data would be too long with it.
fn bound(data: &mut Value, map: &str) {
    if data.to_string().len() <= EVENT_DATA_BYTES_MAX {
        return;
    }
    if let Some(object) = data.as_object_mut() {
        object.insert(map.to_owned(), Value::Null);
        object.insert("truncated".to_owned(), true.into());
    }
}
