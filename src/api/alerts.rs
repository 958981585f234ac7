//! Alerts: definitions, states, instances and what happened to them.

use super::alert_input::{self, AlertCreate, AlertUpdate};
use super::answer;
use super::app::{App, Caller};
use super::change::{Changed, Sent, submit};
use super::docs::Problems;
use super::input::{Query, json};
use super::page::{PARAMETERS, Paging};
use super::problem::Problem;
use super::receipt::store_away;
use super::usage::number;
use crate::domain::control::command::{AlertWarning, ChannelChoice, Command};
use crate::domain::control::outcome::Resource;
use crate::domain::control::resource::{Alert, Scope};
use crate::domain::definition::Severity;
use crate::domain::id::AlertId;
use crate::domain::partition::effect::{InstanceRow, State as AlertState, TransitionRow};
use crate::domain::rule::RuleProgram;
use crate::domain::time::Timestamp;
use crate::runtime::clock;
use crate::store::{InstanceQuery, Summary, TransitionQuery};
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// An alert.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AlertView {
    id: String,
    object: &'static str,
    mode: &'static str,
    version: u64,
    account_id: String,
    metric: Option<String>,
    name: Option<String>,
    rule: String,
    rule_normalized: String,
    recover: Option<String>,
    #[schema(value_type = Vec<Object>)]
    warnings: Vec<AlertWarning>,
    #[schema(value_type = Object)]
    channel: ChannelChoice,
    channels: Vec<String>,
    /// `active` or `paused`.
    status: &'static str,
    paused_until: Option<String>,
    /// The worst state of its instances: `firing`, `no_data`, `inconclusive`, `pending`, `ok`.
    state: &'static str,
    /// How many instances are in each state.
    states: BTreeMap<&'static str, u64>,
    silenced: bool,
    #[schema(value_type = Option<f64>)]
    last_value: Option<Box<RawValue>>,
    last_evaluated_at: Option<String>,
    r#for: String,
    keep_firing_for: String,
    repeat_interval: String,
    severity: &'static str,
    no_data: &'static str,
    labels: BTreeMap<String, String>,
    metadata: BTreeMap<String, String>,
    message: Option<String>,
    project_id: Option<String>,
    created_at: String,
    updated_at: String,
}

/// One alert on one account and metric.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InstanceView {
    object: &'static str,
    account_id: String,
    /// Null where every name of the rule names its metric.
    metric: Option<String>,
    state: &'static str,
    since: String,
    silenced: bool,
    #[schema(value_type = Option<f64>)]
    value: Option<Box<RawValue>>,
    evaluated_at: String,
    revision: u64,
}

/// What happened to an instance.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TransitionView {
    object: &'static str,
    account_id: String,
    metric: Option<String>,
    sequence: u64,
    from: &'static str,
    to: &'static str,
    reason: &'static str,
    at: String,
    recorded_at: String,
    /// The deciding record's place in its partition's log.
    position: u64,
    notification_id: Option<String>,
    #[schema(value_type = Option<f64>)]
    value: Option<Box<RawValue>>,
    value_name: Option<String>,
    #[schema(value_type = Option<f64>)]
    limit: Option<Box<RawValue>>,
    #[schema(value_type = Option<f64>)]
    used: Option<Box<RawValue>>,
    window_start: Option<String>,
    window_revision: Option<u64>,
    rule: String,
    alert_version: u64,
    /// Every sub-expression with its value.
    inputs: Vec<InputView>,
}

/// A sub-expression with its value.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InputView {
    expression: String,
    value: String,
}

fn view(caller: &Caller, alert: &Alert, summary: Option<&Summary>) -> AlertView {
    let definition = &alert.definition;
    let now = clock::now();
    let paused = definition.pause.filter(|pause| pause.until.is_none_or(|until| until > now));
    let without_instances = || match RuleProgram::compile(&definition.rule) {
        Ok(program) if program.reads_quota() => AlertState::Inconclusive,
        Ok(_) => AlertState::NoData,
        Err(_) => AlertState::Inconclusive,
    };
    // An alert that was just made has not been looked at: it is ok until something says otherwise.
    let state = match summary {
        None => AlertState::Ok,
        Some(summary) => summary.worst().unwrap_or_else(without_instances),
    };
    AlertView {
        id: definition.id.to_string(),
        object: "alert",
        mode: caller.principal.tenant.mode.name(),
        version: alert.life.version,
        account_id: definition.account.to_string(),
        metric: definition.metric.as_ref().map(ToString::to_string),
        name: definition.name.clone(),
        rule: definition.rule.clone(),
        rule_normalized: alert.normalized.clone(),
        recover: definition.recover.clone(),
        warnings: alert.warnings.clone(),
        channel: alert.channel.clone(),
        channels: definition.channels.iter().map(ToString::to_string).collect(),
        status: if paused.is_some() { "paused" } else { "active" },
        paused_until: paused.and_then(|pause| pause.until).map(|until| until.to_string()),
        state: state.name(),
        states: summary.map(|s| s.counts.iter().map(|(state, n)| (state.name(), *n)).collect()).unwrap_or_default(),
        silenced: summary.is_some_and(|summary| summary.silenced),
        last_value: summary.and_then(|summary| summary.last_value).map(number),
        last_evaluated_at: summary.and_then(|summary| summary.last_evaluated_at).map(|at| at.to_string()),
        r#for: definition.hold.to_string(),
        keep_firing_for: definition.keep_firing_for.to_string(),
        repeat_interval: definition.repeat_interval.to_string(),
        severity: definition.severity.name(),
        no_data: match definition.no_data {
            crate::domain::definition::NoDataPolicy::Ok => "ok",
            crate::domain::definition::NoDataPolicy::Alert => "alert",
            crate::domain::definition::NoDataPolicy::Keep => "keep",
        },
        labels: definition.labels.clone(),
        metadata: alert.metadata.clone(),
        message: definition.message.clone(),
        project_id: definition.project.map(|project| project.to_string()),
        created_at: alert.life.created_at.to_string(),
        updated_at: alert.life.updated_at.to_string(),
    }
}

fn find(app: &App, caller: &Caller, id: &str) -> Result<Alert, Problem> {
    let id: AlertId = id.parse().map_err(|_| Problem::not_found("alert"))?;
    let state = app.node.data.control.state();
    state.alert(caller.principal.tenant, id).cloned().ok_or_else(|| Problem::not_found("alert"))
}

async fn summary(app: &App, caller: &Caller, id: AlertId) -> Result<Option<Summary>, Problem> {
    let summaries = app.node.data.store.summaries(caller.principal.tenant, vec![id]).await.map_err(store_away)?;
    Ok(summaries.into_values().next())
}

/// Lists alerts, newest first.
#[utoipa::path(
    get, path = "/v1/alerts", tag = "alerts",
    params(("page" = Option<usize>, Query), ("page_size" = Option<usize>, Query), ("cursor" = Option<String>, Query),
           ("account_id" = Option<String>, Query), ("status" = Option<String>, Query), ("state" = Option<Vec<String>>, Query),
           ("severity" = Option<String>, Query), ("project_id" = Option<String>, Query)),
    responses((status = 200, body = Vec<AlertView>), Problems), security(("key" = ["read:alerts"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadAlerts)?;
    let known = [&PARAMETERS[..], &["account_id", "status", "state", "severity", "project_id"]].concat();
    let query = Query::read(query.as_deref(), &known)?;
    let paging = Paging::read(&app, &caller, uri.path(), &query)?;
    let account = query.one("account_id")?.map(str::to_owned);
    let status = query
        .read_as("status", "active or paused", |text| matches!(text, "active" | "paused").then(|| text.to_owned()))?;
    let severity = query.read_as("severity", "info, warning or critical", severity)?;
    let project = query.one("project_id")?.map(str::to_owned);
    let states = states(&query)?;
    let tenant = caller.principal.tenant;
    let now = clock::now();
    let matching: Vec<Alert> = {
        let state = app.node.data.control.state();
        let fits = |alert: &&Alert| {
            let definition = &alert.definition;
            let paused = definition.pause.is_some_and(|pause| pause.until.is_none_or(|until| until > now));
            account.as_ref().is_none_or(|account| definition.account.as_str() == account)
                && status.as_ref().is_none_or(|status| (status == "paused") == paused)
                && severity.is_none_or(|severity| severity == definition.severity)
                && project.as_ref().is_none_or(|project| definition.project.is_some_and(|p| p.to_string() == *project))
        };
        state.alerts(tenant).rev().filter(fits).cloned().collect()
    };
    let store = &app.node.data.store;
    let page: Vec<Alert> = if states.is_empty() {
        paging.cut(matching.into_iter(), |alert| alert.definition.id.to_string())
    } else {
        // The state is the store's: all that match otherwise are asked for.
        let ids = matching.iter().map(|alert| alert.definition.id).collect();
        let summaries = store.summaries(tenant, ids).await.map_err(store_away)?;
        let fits = |alert: &Alert| {
            let shown = view(&caller, alert, summaries.get(&alert.definition.id)).state;
            states.iter().any(|state| state.name() == shown)
        };
        paging.cut(matching.into_iter().filter(fits), |alert| alert.definition.id.to_string())
    };
    let ids = page.iter().map(|alert| alert.definition.id).collect();
    let summaries = store.summaries(tenant, ids).await.map_err(store_away)?;
    let items = page.iter().map(|alert| view(&caller, alert, summaries.get(&alert.definition.id))).collect();
    Ok(paging.answer(&app, items, |alert: &AlertView, _| alert.id.clone()))
}

fn severity(text: &str) -> Option<Severity> {
    [Severity::Info, Severity::Warning, Severity::Critical].into_iter().find(|severity| severity.name() == text)
}

fn states(query: &Query) -> Result<Vec<AlertState>, Problem> {
    let all = [AlertState::Ok, AlertState::Pending, AlertState::Firing, AlertState::NoData, AlertState::Inconclusive];
    let read = |text: &String| {
        let found = all.into_iter().find(|state| state.name() == text);
        let expected = "expected ok, pending, firing, no_data or inconclusive";
        found.ok_or_else(|| super::input::parameter("state", format!("{text:?} is no state, {expected}")))
    };
    query.all("state").iter().map(read).collect()
}

/// Creates an alert.
#[utoipa::path(
    post, path = "/v1/alerts", tag = "alerts", request_body = AlertCreate,
    responses((status = 201, body = AlertView), Problems), security(("key" = ["write:alerts"]))
)]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteAlerts)?;
    let wanted: AlertCreate = json(&headers, &body)?;
    let draft = Box::new(alert_input::draft(&app, &caller, wanted)?);
    let id = AlertId(clock::ulid());
    let sent = Sent { method: &method, uri: &uri, headers: &headers, body: &body };
    let changed = submit(&app, &caller, sent, Command::CreateAlert { id, draft }).await?;
    Ok(answered(&caller, &changed, None))
}

/// Shows an alert with the state of its instances together.
#[utoipa::path(
    get, path = "/v1/alerts/{id}", tag = "alerts", params(("id" = String, Path)),
    responses((status = 200, body = AlertView), Problems), security(("key" = ["read:alerts"]))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadAlerts)?;
    Query::read(query.as_deref(), &[])?;
    let alert = find(&app, &caller, &id)?;
    let summary = summary(&app, &caller, alert.definition.id).await?;
    Ok(answer::show(&view(&caller, &alert, summary.as_ref()), alert.life.version))
}

/// Changes an alert (JSON Merge Patch, RFC 7396). A changed rule is evaluated at once.
#[utoipa::path(
    patch, path = "/v1/alerts/{id}", tag = "alerts", params(("id" = String, Path)), request_body = AlertUpdate,
    responses((status = 200, body = AlertView), Problems), security(("key" = ["write:alerts"]))
)]
pub(super) async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteAlerts)?;
    let wanted: AlertUpdate = json(&headers, &body)?;
    let alert = find(&app, &caller, &id)?;
    let patch = Box::new(alert_input::patch(&app, &caller, &alert, wanted)?);
    let id = alert.definition.id;
    let sent = Sent { method: &method, uri: &uri, headers: &headers, body: &body };
    let changed = submit(&app, &caller, sent, Command::UpdateAlert { id, patch }).await?;
    let summary = summary(&app, &caller, id).await?;
    Ok(answered(&caller, &changed, summary.as_ref()))
}

/// Deletes an alert; a firing resolves once.
#[utoipa::path(
    delete, path = "/v1/alerts/{id}", tag = "alerts", params(("id" = String, Path)),
    responses((status = 204), Problems), security(("key" = ["write:alerts"]))
)]
pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteAlerts)?;
    let alert = find(&app, &caller, &id)?;
    let sent = Sent { method: &method, uri: &uri, headers: &headers, body: &[] };
    submit(&app, &caller, sent, Command::DeleteAlert { id: alert.definition.id }).await?;
    Ok(answer::gone())
}

/// How a pause ends.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PauseBody {
    /// When it ends by itself.
    until: Option<String>,
}

/// Pauses an alert; a firing resolves once.
#[utoipa::path(
    post, path = "/v1/alerts/{id}/pause", tag = "alerts", params(("id" = String, Path)), request_body = Option<PauseBody>,
    responses((status = 200, body = AlertView), Problems), security(("key" = ["write:alerts"]))
)]
pub(super) async fn pause(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteAlerts)?;
    let wanted: PauseBody = if body.is_empty() { PauseBody::default() } else { json(&headers, &body)? };
    let until = match wanted.until.as_deref().map(Timestamp::parse) {
        None => None,
        Some(Some(until)) if until > clock::now() => Some(until),
        Some(Some(_)) => return Err(Problem::invalid("/until", "it lies in the past")),
        Some(None) => return Err(Problem::invalid("/until", "expected an RFC 3339 time such as 2026-11-24T08:00:00Z")),
    };
    let id = find(&app, &caller, &id)?.definition.id;
    let sent = Sent { method: &method, uri: &uri, headers: &headers, body: &body };
    let changed = submit(&app, &caller, sent, Command::PauseAlert { id, until }).await?;
    let summary = summary(&app, &caller, id).await?;
    Ok(answered(&caller, &changed, summary.as_ref()))
}

/// Ends a pause; the alert starts from `ok`.
#[utoipa::path(
    post, path = "/v1/alerts/{id}/resume", tag = "alerts", params(("id" = String, Path)),
    responses((status = 200, body = AlertView), Problems), security(("key" = ["write:alerts"]))
)]
pub(super) async fn resume(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteAlerts)?;
    let id = find(&app, &caller, &id)?.definition.id;
    let sent = Sent { method: &method, uri: &uri, headers: &headers, body: &[] };
    let changed = submit(&app, &caller, sent, Command::ResumeAlert { id }).await?;
    let summary = summary(&app, &caller, id).await?;
    Ok(answered(&caller, &changed, summary.as_ref()))
}

/// Lists an alert's instances by account and metric.
#[utoipa::path(
    get, path = "/v1/alerts/{id}/instances", tag = "alerts",
    params(("id" = String, Path), ("account_id" = Option<String>, Query), ("state" = Option<Vec<String>>, Query),
           ("page" = Option<usize>, Query), ("page_size" = Option<usize>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Vec<InstanceView>), Problems), security(("key" = ["read:alerts"]))
)]
pub(super) async fn instances(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    RawQuery(query): RawQuery,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadAlerts)?;
    let query = Query::read(query.as_deref(), &[&PARAMETERS[..], &["account_id", "state"]].concat())?;
    let paging = Paging::read(&app, &caller, uri.path(), &query)?;
    let asked = InstanceQuery {
        tenant: caller.principal.tenant,
        alert: find(&app, &caller, &id)?.definition.id,
        states: states(&query)?,
        account: query.account("account_id")?,
        offset: paging.offset(),
        limit: paging.size + 1,
    };
    let rows = app.node.data.store.instances(asked).await.map_err(store_away)?;
    let items = rows.iter().map(instance).collect();
    Ok(paging.answer(&app, items, |_: &InstanceView, offset| offset.to_string()))
}

fn instance(row: &InstanceRow) -> InstanceView {
    InstanceView {
        object: "alert_instance",
        account_id: row.key.account.to_string(),
        metric: row.key.metric.as_ref().map(ToString::to_string),
        state: row.state.unwrap_or_default().name(),
        since: row.since.to_string(),
        silenced: row.silenced,
        value: row.value.map(number),
        evaluated_at: row.evaluated_at.to_string(),
        revision: row.revision.0,
    }
}

/// Lists what happened to an alert's instances, newest first, each with what decided it.
#[utoipa::path(
    get, path = "/v1/alerts/{id}/history", tag = "alerts",
    params(("id" = String, Path), ("account_id" = Option<String>, Query), ("from" = Option<String>, Query),
           ("to" = Option<String>, Query), ("page" = Option<usize>, Query), ("page_size" = Option<usize>, Query),
           ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Vec<TransitionView>), Problems), security(("key" = ["read:alerts"]))
)]
pub(super) async fn history(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    RawQuery(query): RawQuery,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadAlerts)?;
    let query = Query::read(query.as_deref(), &[&PARAMETERS[..], &["account_id", "from", "to"]].concat())?;
    let paging = Paging::read(&app, &caller, uri.path(), &query)?;
    let asked = TransitionQuery {
        tenant: caller.principal.tenant,
        alert: find(&app, &caller, &id)?.definition.id,
        account: query.account("account_id")?,
        from: query.instant("from")?,
        to: query.instant("to")?,
        offset: paging.offset(),
        limit: paging.size + 1,
    };
    let rows = app.node.data.store.transitions(asked).await.map_err(store_away)?;
    let items = rows.iter().map(transition).collect();
    Ok(paging.answer(&app, items, |_: &TransitionView, offset| offset.to_string()))
}

fn transition(row: &TransitionRow) -> TransitionView {
    let evidence = &row.evidence;
    let inputs = evidence.trace.0.iter();
    TransitionView {
        object: "alert_transition",
        account_id: row.key.account.to_string(),
        metric: row.key.metric.as_ref().map(ToString::to_string),
        sequence: row.sequence,
        from: row.from.name(),
        to: row.to.name(),
        reason: row.reason.name(),
        at: row.at.to_string(),
        recorded_at: row.recorded_at.to_string(),
        position: row.position.0,
        notification_id: row.notification.map(|id| id.to_string()),
        value: evidence.value.map(number),
        value_name: evidence.value_name.clone(),
        limit: evidence.quota.map(|quota| number(quota.limit)),
        used: evidence.quota.map(|quota| number(quota.used)),
        window_start: evidence.window.map(|window| window.start.to_string()),
        window_revision: evidence.window.map(|window| window.revision.0),
        rule: evidence.rule.clone(),
        alert_version: evidence.alert_version,
        inputs: inputs
            .map(|step| InputView { expression: step.expression.clone(), value: step.value.clone() })
            .collect(),
    }
}

fn answered(caller: &Caller, changed: &Changed, summary: Option<&Summary>) -> Response {
    let Resource::Alert(alert) = &changed.resource else { return answer::gone() };
    let location = format!("/v1/alerts/{}", alert.definition.id);
    answer::changed(changed, &view(caller, alert, summary), alert.life.version, &location)
}
