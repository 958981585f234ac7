//! Alerts: definitions and how they stand.

use super::alert_input::{self, AlertCreate, AlertUpdate};
use super::alert_view::{AlertView, Standing, answered, pause_at, view};
use super::answer;
use super::app::{App, Caller};
use super::change::{Sent, repeated, submit};
use super::created::{CREATED, Created, CreatedParameters, begins_with};
use super::docs::Problems;
use super::incoming::Incoming;
use super::input::{Nothing, Query, empty};
use super::labels::is_listed;
use super::page::{PARAMETERS, Page, Paging};
use super::problem::Problem;
use super::receipt::store_away;
use crate::domain::control::command::Command;
use crate::domain::control::fold::Control;
use crate::domain::control::resource::{Alert, Scope};
use crate::domain::definition::Severity;
use crate::domain::id::{AccountId, AccountScope, AlertId};
use crate::domain::partition::effect::State as AlertState;
use crate::domain::time::Timestamp;
use crate::runtime::clock;
use axum::extract::{Path, RawQuery, State};
use axum::http::Uri;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;

/// Finds an alert.
///
/// # Errors
/// 404 where there is none.
pub(super) fn find(app: &App, caller: &Caller, id: &str) -> Result<Alert, Problem> {
    let id: AlertId = id.parse().map_err(|_| Problem::not_found("alert"))?;
    let reached = |alert: &&Alert| caller.principal.reaches(alert.definition.project);
    let found = app.node.data.control.state().alert(caller.principal.tenant, id).filter(reached).cloned();
    let has = |state: &Control, tenant| state.alert(tenant, id).filter(reached).is_some();
    found.ok_or_else(|| caller.missing(app, "alert", has))
}

async fn standing(app: &App, caller: &Caller, id: AlertId) -> Result<Standing, Problem> {
    let summaries = app.node.data.store.summaries(caller.principal.tenant, vec![id]).await.map_err(store_away)?;
    Ok(Standing::of(summaries.values().next()).in_world(caller))
}

/// Changes an alert; the answer shows how the alert stood before, on every repetition, too.
async fn change(
    app: &App,
    caller: &Caller,
    sent: Sent<'_>,
    id: AlertId,
    command: Command,
) -> Result<Response, Problem> {
    let standing = standing(app, caller, id).await?;
    let beside = serde_json::to_string(&standing).unwrap_or_default();
    let sent = Sent { beside: Some(&beside), ..sent };
    let changed = submit(app, caller, sent, command).await?;
    Ok(answered(caller, &changed, &standing))
}

/// Lists alerts, newest first.
#[utoipa::path(
    get, path = "/v1/alerts", tag = "alerts",
    params(("page" = Option<usize>, Query), ("page_size" = Option<usize>, Query), ("cursor" = Option<String>, Query),
           ("account_id" = Option<Vec<String>>, Query), ("status" = Option<Vec<String>>, Query),
           ("state" = Option<Vec<String>>, Query), ("severity" = Option<Vec<String>>, Query),
           ("project_id" = Option<Vec<String>>, Query), ("q" = Option<String>, Query, description = "The name begins with"),
           CreatedParameters),
    responses((status = 200, body = Page<AlertView>), Problems), security(("key" = ["read:alerts"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadAlerts)?;
    let known = [&PARAMETERS[..], &CREATED, &["account_id", "status", "state", "severity", "project_id", "q"]].concat();
    let query = Query::read(query.as_deref(), &known)?;
    let paging = Paging::read(&app, &caller, uri.path(), &query)?;
    let created = Created::read(&query)?;
    let prefix = query.one("q")?.map(str::to_owned);
    let accounts = query.read_all("account_id", &format!("*, or {}", AccountId::EXPECTED), |text| {
        AccountScope::try_from(text.to_owned()).ok()
    })?;
    let statuses = query.read_all("status", "active or paused", |text| match text {
        "active" => Some(false),
        "paused" => Some(true),
        _ => None,
    })?;
    let severities = query.read_all("severity", "info, warning or critical", severity)?;
    let projects = query.projects("project_id")?;
    let states = states(&query)?;
    let tenant = caller.principal.tenant;
    let now = caller.now();
    let matching: Vec<Alert> = {
        let state = app.node.data.control.state();
        let fits = |alert: &&Alert| {
            let definition = &alert.definition;
            is_listed(&caller, definition.project, &projects)
                && among(&accounts, |account| definition.account == *account)
                && among(&statuses, |paused| pause_at(definition, now).is_some() == *paused)
                && among(&severities, |severity| definition.severity == *severity)
                && created.holds(alert.life.created_at)
                && prefix.as_ref().is_none_or(|q| begins_with(definition.name.as_deref().unwrap_or(""), q))
        };
        created.ordered(state.alerts(tenant).filter(fits)).into_iter().cloned().collect()
    };
    let store = &app.node.data.store;
    let page: Vec<Alert> = if states.is_empty() {
        paging.cut(created.order(), matching.into_iter(), |alert| alert.definition.id.to_string())
    } else {
        // The state is the store's: all that match otherwise are asked for.
        let ids = matching.iter().map(|alert| alert.definition.id).collect();
        let summaries = store.summaries(tenant, ids).await.map_err(store_away)?;
        let fits = |alert: &Alert| {
            let standing = Standing::of(summaries.get(&alert.definition.id));
            states.contains(&standing.state(&alert.definition))
        };
        paging.cut(created.order(), matching.into_iter().filter(fits), |alert| alert.definition.id.to_string())
    };
    let ids = page.iter().map(|alert| alert.definition.id).collect();
    let summaries = store.summaries(tenant, ids).await.map_err(store_away)?;
    let standing = |alert: &Alert| Standing::of(summaries.get(&alert.definition.id)).in_world(&caller);
    let items = page.iter().map(|alert| view(&caller, alert, &standing(alert))).collect();
    Ok(paging.answer(&app, items, |alert: &AlertView| alert.id.clone()))
}

/// A filter that stands more than once takes any of its values.
fn among<T>(wanted: &[T], fits: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(fits)
}

fn severity(text: &str) -> Option<Severity> {
    [Severity::Info, Severity::Warning, Severity::Critical].into_iter().find(|severity| severity.name() == text)
}

/// Reads the states that a list is narrowed to.
///
/// # Errors
/// 400 where one is none.
pub(super) fn states(query: &Query) -> Result<Vec<AlertState>, Problem> {
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
pub(super) async fn create(State(app): State<App>, caller: Caller, incoming: Incoming) -> Result<Response, Problem> {
    caller.require(Scope::WriteAlerts)?;
    let wanted: AlertCreate = incoming.json()?;
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return Ok(answered(&caller, &changed, &Standing::begun()));
    }
    let draft = Box::new(alert_input::draft(&app, &caller, wanted).await?);
    let id = AlertId(clock::ulid());
    let changed = submit(&app, &caller, sent, Command::CreateAlert { id, draft }).await?;
    Ok(answered(&caller, &changed, &Standing::begun()))
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
    let standing = standing(&app, &caller, alert.definition.id).await?;
    Ok(answer::show(&caller, &view(&caller, &alert, &standing), &standing.etag(&alert)))
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
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteAlerts)?;
    let wanted: AlertUpdate = incoming.json()?;
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return Ok(answered(&caller, &changed, &Standing::begun()));
    }
    let alert = find(&app, &caller, &id)?;
    let patch = Box::new(alert_input::patch(&app, &caller, &alert, wanted).await?);
    let id = alert.definition.id;
    change(&app, &caller, sent, id, Command::UpdateAlert { id, patch }).await
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
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteAlerts)?;
    let alert = find(&app, &caller, &id)?;
    let sent = incoming.sent();
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
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteAlerts)?;
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return Ok(answered(&caller, &changed, &Standing::begun()));
    }
    let wanted: PauseBody = if incoming.body.is_empty() { PauseBody::default() } else { incoming.json()? };
    let until = match wanted.until.as_deref().map(Timestamp::parse) {
        None => None,
        Some(Some(until)) if until > caller.now() => Some(until),
        Some(Some(_)) => return Err(Problem::invalid("/until", "it lies in the past")),
        Some(None) => return Err(Problem::invalid("/until", "expected an RFC 3339 time such as 2026-11-24T08:00:00Z")),
    };
    let id = find(&app, &caller, &id)?.definition.id;
    change(&app, &caller, sent, id, Command::PauseAlert { id, until }).await
}

/// Ends a pause; the alert starts from `ok`.
#[utoipa::path(
    post, path = "/v1/alerts/{id}/resume", tag = "alerts", params(("id" = String, Path)), request_body = Option<Nothing>,
    responses((status = 200, body = AlertView), Problems), security(("key" = ["write:alerts"]))
)]
pub(super) async fn resume(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteAlerts)?;
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return Ok(answered(&caller, &changed, &Standing::begun()));
    }
    empty(&incoming.headers, &incoming.body)?;
    let id = find(&app, &caller, &id)?.definition.id;
    change(&app, &caller, sent, id, Command::ResumeAlert { id }).await
}
