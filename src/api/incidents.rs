//! Incidents: one firing of an alert instance each, across all alerts, from its beginning to its end.

use super::app::{App, Caller};
use super::change::{Sent, repeated, submit};
use super::created::{CREATED, Created, CreatedParameters};
use super::delivered::{DeliveredView, outcomes};
use super::docs::Problems;
use super::incoming::Incoming;
use super::input::{Nothing, Query, empty};
use super::page::{PARAMETERS, Page, Paging};
use super::problem::Problem;
use super::read_on::{is_present, read_on};
use super::receipt::store_away;
use super::usage::number;
use crate::domain::control::command::Command;
use crate::domain::control::fold::Control;
use crate::domain::control::outcome::Resource;
use crate::domain::control::resource::{Acknowledgement, Scope};
use crate::domain::id::{AlertId, IncidentId, Tenant};
use crate::domain::incident;
use crate::domain::time::Timestamp;
use crate::store::{IncidentEntry, IncidentQuery};
use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// An incident.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct IncidentView {
    id: String,
    #[schema(value_type = String)]
    object: std::borrow::Cow<'static, str>,
    mode: String,
    /// `open`, `acknowledged` or `resolved`.
    status: String,
    alert_id: String,
    /// Null where the alert is gone, or has none.
    alert_name: Option<String>,
    /// The alert's; null where the alert is gone.
    severity: Option<String>,
    project_id: Option<String>,
    account_id: String,
    metric: Option<String>,
    rule: String,
    alert_version: u64,
    started_at: String,
    ended_at: Option<String>,
    /// Why it began, and why it ended.
    reason: String,
    end_reason: Option<String>,
    value_name: Option<String>,
    /// The first input's value when it began.
    #[schema(value_type = Option<f64>)]
    value: Option<Box<RawValue>>,
    /// Whether that was greater than every number, and null therefore: something was used of a limit of zero.
    #[serde(default)]
    over: bool,
    /// And when it ended.
    #[schema(value_type = Option<f64>)]
    end_value: Option<Box<RawValue>>,
    /// The transitions' numbers within the instance, as its history shows them.
    sequence: u64,
    end_sequence: Option<u64>,
    notification_id: Option<String>,
    acknowledged_at: Option<String>,
    /// The key that acknowledged it.
    acknowledged_by: Option<String>,
    /// What became of the message that told of it, at each channel.
    #[serde(default)]
    deliveries: Vec<DeliveredView>,
    created_at: String,
}

const STATUSES: [&str; 3] = ["open", "acknowledged", "resolved"];

fn status(entry: &IncidentEntry, acknowledged: bool) -> &'static str {
    match (&entry.end, acknowledged) {
        (Some(_), _) => "resolved",
        (None, true) => "acknowledged",
        (None, false) => "open",
    }
}

fn view(state: &Control, tenant: Tenant, entry: &IncidentEntry) -> IncidentView {
    let IncidentEntry { begin, end } = entry;
    let id = incident::id(begin);
    let acknowledged = state.acknowledgement(tenant, id);
    let definition = state.alert(tenant, begin.key.alert).map(|alert| &alert.definition);
    IncidentView {
        id: id.to_string(),
        object: "incident".into(),
        mode: tenant.mode.name().to_owned(),
        status: status(entry, acknowledged.is_some()).to_owned(),
        alert_id: begin.key.alert.to_string(),
        alert_name: definition.and_then(|definition| definition.name.clone()),
        severity: definition.map(|definition| definition.severity.name().to_owned()),
        project_id: definition.and_then(|definition| definition.project).map(|project| project.to_string()),
        account_id: begin.key.account.to_string(),
        metric: begin.key.metric.as_ref().map(ToString::to_string),
        rule: begin.evidence.rule.clone(),
        alert_version: begin.evidence.alert_version,
        started_at: begin.at.to_string(),
        ended_at: end.as_ref().map(|end| end.at.to_string()),
        reason: begin.reason.name().to_owned(),
        end_reason: end.as_ref().map(|end| end.reason.name().to_owned()),
        value_name: begin.evidence.value_name.clone(),
        value: begin.evidence.value.map(number),
        over: begin.evidence.is_over(),
        end_value: end.as_ref().and_then(|end| end.evidence.value).map(number),
        sequence: begin.sequence,
        end_sequence: end.as_ref().map(|end| end.sequence),
        notification_id: begin.notification.map(|id| id.to_string()),
        acknowledged_at: acknowledged.map(|known| known.at.to_string()),
        acknowledged_by: acknowledged.and_then(|known| known.by).map(|key| key.to_string()),
        deliveries: Vec::new(),
        created_at: begin.at.to_string(),
    }
}

/// Lists incidents across alerts, those that began last first.
#[utoipa::path(
    get, path = "/v1/incidents", tag = "incidents",
    params(("page" = Option<usize>, Query), ("page_size" = Option<usize>, Query), ("cursor" = Option<String>, Query),
           ("status" = Option<Vec<String>>, Query, description = "open, acknowledged or resolved"),
           ("alert_id" = Option<Vec<String>>, Query), ("account_id" = Option<Vec<String>>, Query), CreatedParameters),
    responses((status = 200, body = Page<IncidentView>), Problems), security(("key" = ["read:alerts"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadAlerts)?;
    let known = [&PARAMETERS[..], &CREATED, &["status", "alert_id", "account_id"]].concat();
    let query = Query::read(query.as_deref(), &known)?;
    let paging = Paging::read(&app, &caller, uri.path(), &query)?;
    let created = Created::read(&query)?;
    let wanted = query.read_all("status", "open, acknowledged or resolved", |text| {
        STATUSES.into_iter().find(|status| *status == text)
    })?;
    let asks = |status: &str| wanted.is_empty() || wanted.contains(&status);
    let alerts = query.read_all("alert_id", "alr_ and 26 base32 characters", |text| text.parse::<AlertId>().ok())?;
    let asked = IncidentQuery {
        tenant: caller.principal.tenant,
        id: None,
        alerts: reached(&app, &caller, alerts),
        accounts: query.accounts("account_id")?,
        lasts: match (asks("open") || asks("acknowledged"), asks("resolved")) {
            (true, true) => None,
            (lasts, _) => Some(lasts),
        },
        from: created.from,
        to: created.to,
        age: created.age(),
        after: paging.after_parts(place)?,
        offset: paging.offset(),
        limit: paging.size + 1,
    };
    // Who takes care, and which accounts were deleted, is not in the store.
    let hides = app.node.data.control.state().has_epochs(caller.principal.tenant);
    let fits = |entry: &IncidentEntry| {
        let state = app.node.data.control.state();
        let acknowledged = state.acknowledgement(asked.tenant, incident::id(&entry.begin)).is_some();
        is_present(&state, &entry.begin) && asks(status(entry, acknowledged))
    };
    let rows = if asked.alerts.is_empty() && !caller.principal.projects.is_empty() {
        Vec::new()
    } else if !hides && asks("open") == asks("acknowledged") {
        app.node.data.store.incidents(asked).await.map_err(store_away)?
    } else {
        let next = |last: Option<IncidentEntry>, limit| {
            let behind = last.map(|last| (last.begin.at, incident::id(&last.begin)));
            let query = IncidentQuery { offset: 0, limit, after: behind.or(asked.after), ..asked.clone() };
            async { app.node.data.store.incidents(query).await.map_err(store_away) }
        };
        read_on((asked.offset, asked.limit), next, fits).await?
    };
    let told = rows.iter().filter_map(|entry| entry.begin.notification).collect();
    let told = outcomes(&app, &caller, told).await?;
    let state = app.node.data.control.state();
    let key = |entry: &IncidentEntry| format!("{} {}", entry.begin.at, incident::id(&entry.begin));
    let shown = |entry: &IncidentEntry| IncidentView {
        deliveries: entry.begin.notification.and_then(|id| told.get(&id).cloned()).unwrap_or_default(),
        ..view(&state, caller.principal.tenant, entry)
    };
    Ok(paging.answer_as(&app, rows, key, shown))
}

/// The alerts that are asked for, as far as the caller reaches them; who reaches all may ask for all.
fn reached(app: &App, caller: &Caller, wanted: Vec<AlertId>) -> Vec<AlertId> {
    if caller.principal.projects.is_empty() {
        return wanted;
    }
    let state = app.node.data.control.state();
    let alerts = state.alerts(caller.principal.tenant).map(|alert| &alert.definition);
    let reached = alerts.filter(|definition| caller.principal.reaches(definition.project));
    reached.map(|definition| definition.id).filter(|id| wanted.is_empty() || wanted.contains(id)).collect()
}

fn place(parts: &[&str]) -> Option<(Timestamp, IncidentId)> {
    let [at, id] = parts else { return None };
    Some((Timestamp::parse(at)?, id.parse().ok()?))
}

async fn find(app: &App, caller: &Caller, id: &str) -> Result<(IncidentId, IncidentEntry), Problem> {
    let id: IncidentId = id.parse().map_err(|_| Problem::not_found("incident"))?;
    let asked = IncidentQuery {
        tenant: caller.principal.tenant,
        id: Some(id),
        alerts: Vec::new(),
        accounts: Vec::new(),
        lasts: None,
        from: None,
        to: None,
        age: Default::default(),
        after: None,
        offset: 0,
        limit: 1,
    };
    let found = app.node.data.store.incidents(asked).await.map_err(store_away)?.into_iter().next();
    let found = found.filter(|entry| {
        let state = app.node.data.control.state();
        let alert = state.alert(caller.principal.tenant, entry.begin.key.alert);
        is_present(&state, &entry.begin) && caller.principal.reaches(alert.and_then(|alert| alert.definition.project))
    });
    found.map(|entry| (id, entry)).ok_or_else(|| Problem::not_found("incident"))
}

/// What became of the message that told of an incident.
async fn deliveries(app: &App, caller: &Caller, entry: &IncidentEntry) -> Result<Vec<DeliveredView>, Problem> {
    let told = outcomes(app, caller, entry.begin.notification.into_iter().collect()).await?;
    Ok(told.into_values().flatten().collect())
}

/// Shows an incident.
#[utoipa::path(
    get, path = "/v1/incidents/{id}", tag = "incidents", params(("id" = String, Path)),
    responses((status = 200, body = IncidentView), Problems), security(("key" = ["read:alerts"]))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadAlerts)?;
    Query::read(query.as_deref(), &[])?;
    let (_, entry) = find(&app, &caller, &id).await?;
    let mut view = view(&app.node.data.control.state(), caller.principal.tenant, &entry);
    view.deliveries = deliveries(&app, &caller, &entry).await?;
    // It has no version; what changes of it is here.
    let alert = (&view.alert_name, &view.severity, &view.project_id);
    let told = format!("{:?}", (&view.status, &view.ended_at, &view.acknowledged_at, alert, &view.deliveries));
    let digest = <sha2::Sha256 as sha2::Digest>::digest(told.as_bytes());
    let hex: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Ok(super::answer::show(&caller, &view, &format!("\"{hex}\"")))
}

/// Notes that the caller takes care of an incident. Who was first stays.
#[utoipa::path(
    post, path = "/v1/incidents/{id}/ack", tag = "incidents", params(("id" = String, Path)),
    request_body = Option<Nothing>,
    responses((status = 200, body = IncidentView), Problems), security(("key" = ["write:alerts"]))
)]
pub(super) async fn acknowledge(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteAlerts)?;
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return Ok(acknowledged(&changed.resource, changed.beside.as_deref(), changed.replayed));
    }
    empty(&incoming.headers, &incoming.body)?;
    let (id, entry) = find(&app, &caller, &id).await?;
    let tenant = caller.principal.tenant;
    let deliveries = deliveries(&app, &caller, &entry).await?;
    let (shown, known) = {
        let state = app.node.data.control.state();
        (IncidentView { deliveries, ..view(&state, tenant, &entry) }, state.acknowledgement(tenant, id).is_some())
    };
    if known {
        return Ok(Json(shown).into_response());
    }
    if entry.end.is_some() {
        let detail = "the incident has ended; there is nothing to take care of";
        return Err(Problem::new(StatusCode::CONFLICT, "invalid_state", detail));
    }
    let beside = serde_json::to_string(&shown).unwrap_or_default();
    let sent = Sent { beside: Some(&beside), ..sent };
    let command = Command::AcknowledgeIncident { id, alert: entry.begin.key.alert };
    let changed = submit(&app, &caller, sent, command).await?;
    let beside = changed.beside.as_deref().unwrap_or(&beside);
    Ok(acknowledged(&changed.resource, Some(beside), changed.replayed))
}

/// Shows an incident as it stood when it was acknowledged.
fn acknowledged(resource: &Resource, beside: Option<&str>, replayed: bool) -> Response {
    let stood = beside.and_then(|beside| serde_json::from_str::<IncidentView>(beside).ok());
    let (Resource::Acknowledgement(Acknowledgement { at, by, .. }), Some(stood)) = (resource, stood) else {
        return super::answer::gone();
    };
    let view = IncidentView {
        status: "acknowledged".to_owned(),
        acknowledged_at: Some(at.to_string()),
        acknowledged_by: by.map(|key| key.to_string()),
        ..stood
    };
    let mut response = Json(view).into_response();
    if replayed {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    response
}
