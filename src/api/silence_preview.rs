//! What a silence would hold: the instances that its matchers match at present. Nothing is kept of the question.

use super::app::{App, Caller};
use super::docs::Problems;
use super::incoming::Incoming;
use super::input::Query;
use super::problem::Problem;
use super::receipt::store_away;
use super::silences::{SilenceCreate, in_order};
use super::usage_totals::bounded;
use crate::domain::control::resource::Scope;
use crate::domain::definition::AlertDefinition;
use crate::domain::id::NotificationId;
use crate::domain::limits::{
    PENDING_MESSAGES_READ_MAX, SILENCE_PREVIEW_INSTANCES_MAX, SILENCE_PREVIEW_ITEMS_MAX, SILENCE_PREVIEW_PAGE,
};
use crate::domain::partition::effect::{DeliveryRow, DeliveryStatus, InstanceKey, InstanceRow, State as AlertState};
use crate::domain::rule::RuleProgram;
use crate::domain::silence::{MatcherSemantics, MatcherSet, SilenceSubject};
use crate::store::{DeliveryQuery, InstanceQuery, NotificationQuery};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// What a silence would hold.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SilencePreviewView {
    object: &'static str,
    /// When it would begin.
    starts_at: String,
    /// When it would end; null where the request does not say.
    ends_at: Option<String>,
    /// How many alerts have instances that it would hold.
    alerts: usize,
    /// How many instances it would hold.
    instances: usize,
    /// How many of them are in each state.
    states: BTreeMap<&'static str, usize>,
    /// How many of them fire: what is told of these, and their reminders, would wait for its end.
    firing: usize,
    /// How many messages of theirs wait for delivery. They were enqueued before, and a silence does not take them back.
    pending_messages: usize,
    /// The instances, at most 100: those that fire first, then by alert, account and metric.
    items: Vec<SilencedInstance>,
    /// Whether there are more.
    has_more: bool,
}

/// An instance that a silence would hold.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SilencedInstance {
    alert_id: String,
    alert_name: Option<String>,
    severity: &'static str,
    account_id: String,
    /// Null where every name of the rule names its metric.
    metric: Option<String>,
    /// Every metric that the rule names, with which `metric` of a matcher is compared.
    metrics: Vec<String>,
    state: &'static str,
    since: String,
    /// Whether a silence holds it already.
    silenced: bool,
    pending_messages: Vec<PendingMessage>,
}

/// A message that waits for delivery.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct PendingMessage {
    notification_id: String,
    channel_id: String,
    attempts: u32,
    next_at: Option<String>,
}

/// Tells what a silence would hold at present: which instances, which of them fire, and what of theirs waits for delivery.
/// Takes what `POST /v1/silences` takes; times may be left out. Keeps nothing, no idempotency record either. Who is
/// narrowed to projects is shown these projects' alerts; the silence would hold all of the workspace's.
#[utoipa::path(
    post, path = "/v1/silences/preview", tag = "silences", request_body = SilenceCreate,
    responses((status = 200, body = SilencePreviewView),
              (status = 504, body = super::problem::ProblemBody, content_type = "application/problem+json",
               description = "It took too long; name the account or the alert."), Problems),
    security(("key" = ["read:silences"]))
)]
pub(super) async fn preview(State(app): State<App>, caller: Caller, incoming: Incoming) -> Result<Response, Problem> {
    caller.require(Scope::ReadSilences)?;
    Query::read(incoming.query(), &[])?;
    let wanted: SilenceCreate = incoming.json()?;
    let times = wanted.times(&caller)?;
    let starts_at = times.starts_at.unwrap_or(caller.now());
    if let Some(ends_at) = times.ends_at {
        in_order(&caller, starts_at, ends_at)?;
    }
    let set = MatcherSet::new(&wanted.into_matchers()?);
    let work = async {
        let mut held = held(&app, &caller, &set).await?;
        let pending = pending(&app, &caller, &held).await?;
        held.sort_by_key(|held| held.row.state != Some(AlertState::Firing));
        Ok((held, pending))
    };
    let (held, pending) = bounded(&app.queries, app.query_timeout, work).await?;
    let in_state = |state: AlertState| held.iter().filter(|held| held.row.state == Some(state)).count();
    let all = [AlertState::Ok, AlertState::Pending, AlertState::Firing, AlertState::NoData, AlertState::Inconclusive];
    let alerts: BTreeSet<_> = held.iter().map(|held| held.row.key.alert).collect();
    let view = SilencePreviewView {
        object: "silence_preview",
        starts_at: starts_at.to_string(),
        ends_at: times.ends_at.map(|at| at.to_string()),
        alerts: alerts.len(),
        instances: held.len(),
        states: all.into_iter().map(|state| (state.name(), in_state(state))).filter(|(_, count)| *count > 0).collect(),
        firing: in_state(AlertState::Firing),
        pending_messages: pending.values().map(Vec::len).sum(),
        items: held.iter().take(SILENCE_PREVIEW_ITEMS_MAX).map(|held| item(held, &pending)).collect(),
        has_more: held.len() > SILENCE_PREVIEW_ITEMS_MAX,
    };
    Ok(Json(view).into_response())
}

/// An instance that the matchers match.
struct Held {
    row: InstanceRow,
    definition: std::sync::Arc<AlertDefinition>,
    metrics: Vec<String>,
}

/// Reads the instances that a silence would hold, by alert, account and metric.
async fn held(app: &App, caller: &Caller, set: &MatcherSet) -> Result<Vec<Held>, Problem> {
    let tenant = caller.principal.tenant;
    let definitions: Vec<AlertDefinition> = {
        let state = app.node.data.control.state();
        let alerts = state.alerts(tenant).map(|alert| &alert.definition);
        alerts.filter(|d| caller.principal.reaches(d.project) && set.may_match(d)).cloned().collect()
    };
    let store = &app.node.data.store;
    let summaries = store.summaries(tenant, definitions.iter().map(|d| d.id).collect()).await.map_err(store_away)?;
    let (mut held, mut read) = (Vec::new(), 0);
    for definition in definitions {
        if summaries.get(&definition.id).is_none_or(|summary| summary.counts.is_empty()) {
            continue;
        }
        let rule = RuleProgram::compile(&definition.rule).ok();
        let definition = std::sync::Arc::new(definition);
        let mut query = InstanceQuery {
            tenant,
            alert: definition.id,
            states: Vec::new(),
            accounts: set.only_account().into_iter().collect(),
            after: None,
            offset: 0,
            limit: SILENCE_PREVIEW_PAGE,
        };
        loop {
            let rows = store.instances(query.clone()).await.map_err(store_away)?;
            let Some(last) = rows.last() else { break };
            query.after = Some((last.key.account.clone(), last.key.metric.clone()));
            let is_last = rows.len() < query.limit;
            read += rows.len();
            if read > SILENCE_PREVIEW_INSTANCES_MAX {
                let detail = format!(
                    "more than {SILENCE_PREVIEW_INSTANCES_MAX} instances to look at; name the account or the alert"
                );
                return Err(
                    Problem::unprocessable("query_too_large", detail).with("limit", SILENCE_PREVIEW_INSTANCES_MAX)
                );
            }
            for row in rows {
                let (account, metric) = (&row.key.account, row.key.metric.as_ref());
                let subject = SilenceSubject { definition: &definition, rule: rule.as_ref(), account, metric };
                if set.matches(subject, MatcherSemantics::NamedMetrics) {
                    let named: BTreeSet<_> = rule.iter().flat_map(|rule| rule.metrics(metric)).collect();
                    let metrics = named.into_iter().map(ToString::to_string).collect();
                    held.push(Held { definition: definition.clone(), metrics, row });
                }
            }
            if is_last {
                break;
            }
        }
    }
    Ok(held)
}

/// Reads which messages of these instances wait for delivery, the newest that wait.
async fn pending(
    app: &App,
    caller: &Caller,
    held: &[Held],
) -> Result<BTreeMap<InstanceKey, Vec<PendingMessage>>, Problem> {
    let tenant = caller.principal.tenant;
    let store = &app.node.data.store;
    let asked = DeliveryQuery {
        tenant,
        notification: None,
        channel: None,
        status: Some(DeliveryStatus::Pending),
        offset: 0,
        limit: PENDING_MESSAGES_READ_MAX,
    };
    let mut waiting: BTreeMap<NotificationId, Vec<DeliveryRow>> = BTreeMap::new();
    for row in store.deliveries(asked).await.map_err(store_away)? {
        waiting.entry(row.notification).or_default().push(row);
    }
    let mut found: BTreeMap<InstanceKey, Vec<PendingMessage>> = BTreeMap::new();
    if waiting.is_empty() {
        return Ok(found);
    }
    let keys: BTreeSet<&InstanceKey> = held.iter().map(|held| &held.row.key).collect();
    let alerts: BTreeSet<_> = keys.iter().map(|key| key.alert).collect();
    for alert in alerts {
        let asked = NotificationQuery { tenant, alert: Some(alert), offset: 0, limit: PENDING_MESSAGES_READ_MAX };
        for notification in store.notifications(asked).await.map_err(store_away)? {
            let rows = waiting.get(&notification.id).filter(|_| keys.contains(&notification.key));
            for row in rows.into_iter().flatten() {
                found.entry(notification.key.clone()).or_default().push(PendingMessage {
                    notification_id: row.notification.to_string(),
                    channel_id: row.channel.to_string(),
                    attempts: row.attempts,
                    next_at: row.next_at.map(|at| at.to_string()),
                });
            }
        }
    }
    Ok(found)
}

fn item(held: &Held, pending: &BTreeMap<InstanceKey, Vec<PendingMessage>>) -> SilencedInstance {
    let (row, definition) = (&held.row, &held.definition);
    SilencedInstance {
        alert_id: row.key.alert.to_string(),
        alert_name: definition.name.clone(),
        severity: definition.severity.name(),
        account_id: row.key.account.to_string(),
        metric: row.key.metric.as_ref().map(ToString::to_string),
        metrics: held.metrics.clone(),
        state: row.state.unwrap_or_default().name(),
        since: row.since.to_string(),
        silenced: row.silenced,
        pending_messages: pending.get(&row.key).cloned().unwrap_or_default(),
    }
}
