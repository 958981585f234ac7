//! What became of events at endpoints, and sending them again.

use super::app::{App, Caller};
use super::created::{CREATED, Created, CreatedParameters};
use super::docs::Problems;
use super::input::Query;
use super::page::{PARAMETERS, Page, Paging};
use super::problem::Problem;
use super::read_on::{is_present_event, read_on};
use super::receipt::store_away;
use super::webhooks::find;
use crate::domain::control::resource::Scope;
use crate::domain::id::{NotificationId, Tenant};
use crate::domain::partition::effect::DeliveryStatus;
use crate::domain::time::Timestamp;
use crate::domain::webhook::kind::EventType;
use crate::domain::webhook::rows::{Attempt, Delivery, DeliveryId};
use crate::notifier::event_body;
use crate::store::{Age, AttemptQuery, EventQuery, EventsQuery, WebhookDeliveryQuery};
use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// Attempts that one answer shows, the newest of them.
const ATTEMPTS_SHOWN_MAX: usize = 100;
const STATUSES: [DeliveryStatus; 4] =
    [DeliveryStatus::Pending, DeliveryStatus::Succeeded, DeliveryStatus::Failed, DeliveryStatus::Dropped];

/// Where an event stands at an endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeliveryView {
    id: String,
    object: &'static str,
    mode: &'static str,
    webhook_id: String,
    event_id: String,
    event_type: &'static str,
    /// `pending`, `succeeded`, `failed`, or `dropped`: the endpoint took nothing when it came, or 10,000 deliveries waited for it.
    status: &'static str,
    attempt_count: u32,
    /// What came of the last attempt, or why there was none.
    outcome: Option<String>,
    next_attempt_at: Option<String>,
    created_at: String,
    updated_at: String,
}

/// A delivery with its attempts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeliveryDetail {
    #[serde(flatten)]
    delivery: DeliveryView,
    /// The newest 100, in their order.
    attempts: Vec<AttemptView>,
    /// What is sent; null where it is not stored any more.
    #[schema(value_type = Option<Object>)]
    payload: Option<Box<RawValue>>,
}

/// What came of one attempt.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AttemptView {
    /// Counts from 1.
    attempt: u32,
    at: String,
    delivered: bool,
    /// The status of the answer, where there was one.
    response_status: Option<u16>,
    outcome: String,
    duration_ms: u64,
    /// When the next attempt was due behind it.
    next_attempt_at: Option<String>,
}

fn view(row: &Delivery) -> DeliveryView {
    DeliveryView {
        id: row.id.to_string(),
        object: "delivery",
        mode: row.tenant.mode.name(),
        webhook_id: row.id.webhook.to_string(),
        event_id: row.id.event.to_string(),
        event_type: row.kind.name(),
        status: row.status.name(),
        attempt_count: row.attempts,
        outcome: row.outcome.clone(),
        next_attempt_at: row.next_at.map(|at| at.to_string()),
        created_at: row.created_at.to_string(),
        updated_at: row.at.to_string(),
    }
}

fn attempt_view(row: &Attempt) -> AttemptView {
    AttemptView {
        attempt: row.posted.attempt,
        at: row.at.to_string(),
        delivered: row.posted.delivered,
        response_status: row.posted.status,
        outcome: row.posted.outcome.clone(),
        duration_ms: row.posted.duration_ms,
        next_attempt_at: row.posted.next_at.map(|at| at.to_string()),
    }
}

/// Lists the deliveries to an endpoint, newest first. Those of what an account had before it was deleted are gone.
#[utoipa::path(
    get, path = "/v1/webhooks/{id}/deliveries", tag = "webhooks", operation_id = "deliveries",
    params(("id" = String, Path), ("status" = Option<Vec<String>>, Query), ("event_type" = Option<Vec<String>>, Query),
           ("from" = Option<String>, Query), ("to" = Option<String>, Query),
           ("page" = Option<usize>, Query), ("page_size" = Option<usize>, Query), ("cursor" = Option<String>, Query),
           CreatedParameters),
    responses((status = 200, body = Page<DeliveryView>), Problems), security(("key" = ["read:webhooks"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    RawQuery(query): RawQuery,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadWebhooks)?;
    let query =
        Query::read(query.as_deref(), &[&PARAMETERS[..], &CREATED, &["status", "event_type", "from", "to"]].concat())?;
    let paging = Paging::read(&app, &caller, uri.path(), &query)?;
    let created = Created::read(&query)?;
    let (from, to) = created.span(&query)?;
    let asked = WebhookDeliveryQuery {
        tenant: caller.principal.tenant,
        webhook: find(&app, &caller, &id)?.id,
        event: None,
        statuses: query.read_all("status", "pending, succeeded, failed or dropped", |text| {
            STATUSES.into_iter().find(|status| status.name() == text)
        })?,
        outcome: None,
        kinds: query.read_all("event_type", "a type such as alert.firing", EventType::parse)?,
        from,
        to,
        age: created.age(),
        after: paging.after_parts(|parts| match parts {
            [at, event] => Some((Timestamp::parse(at)?, event.parse().ok()?)),
            _ => None,
        })?,
        offset: paging.offset(),
        limit: paging.size + 1,
    };
    let rows = undeleted(&app, &asked).await?;
    let items = rows.iter().map(view).collect();
    Ok(paging.answer(&app, items, |row: &DeliveryView| format!("{} {}", row.created_at, row.event_id)))
}

/// Reads deliveries; those of what an account had before it was deleted are left out.
pub(super) async fn undeleted(app: &App, asked: &WebhookDeliveryQuery) -> Result<Vec<Delivery>, Problem> {
    let store = &app.node.data.store;
    if !app.node.data.control.state().has_epochs(asked.tenant) {
        return store.webhook_deliveries(asked.clone()).await.map_err(store_away);
    }
    let next = |last: Option<(Delivery, bool)>, limit| {
        let behind = last.map(|(row, _)| (row.created_at, row.id.event));
        let query = WebhookDeliveryQuery { offset: 0, limit, after: behind.or(asked.after), ..asked.clone() };
        async {
            let rows = store.webhook_deliveries(query).await.map_err(store_away)?;
            let hidden = hidden(app, asked.tenant, &rows).await?;
            Ok(rows
                .into_iter()
                .map(|row| (!hidden.contains(&row.id.event), row))
                .map(|(fits, row)| (row, fits))
                .collect())
        }
    };
    let rows = read_on((asked.offset, asked.limit), next, |(_, fits)| *fits).await?;
    Ok(rows.into_iter().map(|(row, _)| row).collect())
}

/// Those events of deliveries that an account had before it was deleted.
pub(super) async fn hidden(app: &App, tenant: Tenant, rows: &[Delivery]) -> Result<BTreeSet<NotificationId>, Problem> {
    if !app.node.data.control.state().has_epochs(tenant) {
        return Ok(BTreeSet::new());
    }
    let ids = rows.iter().map(|row| row.id.event).collect();
    let events = app.node.data.store.webhook_events(EventsQuery { tenant, ids }).await.map_err(store_away)?;
    let state = app.node.data.control.state();
    Ok(events.iter().filter(|event| !is_present_event(&state, event)).map(|event| event.id).collect())
}

/// Shows a delivery with its attempts and what is sent.
#[utoipa::path(
    get, path = "/v1/deliveries/{id}", tag = "webhooks", operation_id = "delivery", params(("id" = String, Path)),
    responses((status = 200, body = DeliveryDetail), Problems), security(("key" = ["read:webhooks"]))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadWebhooks)?;
    Query::read(query.as_deref(), &[])?;
    let row = delivery(&app, &caller, &id).await?;
    let store = &app.node.data.store;
    let asked = AttemptQuery { tenant: row.tenant, id: row.id, limit: ATTEMPTS_SHOWN_MAX };
    let attempts = store.webhook_attempts(asked).await.map_err(store_away)?;
    let event = store.webhook_event(EventQuery { tenant: row.tenant, id: row.id.event }).await.map_err(store_away)?;
    let payload = event.and_then(|event| {
        let body = event_body(&event, app.node.notifier.base_url());
        RawValue::from_string(String::from_utf8(body).ok()?).ok()
    });
    let attempts = attempts.iter().rev().map(attempt_view).collect();
    Ok(Json(DeliveryDetail { delivery: view(&row), attempts, payload }).into_response())
}

pub(super) async fn delivery(app: &App, caller: &Caller, id: &str) -> Result<Delivery, Problem> {
    let id: DeliveryId = id.parse().map_err(|_| Problem::not_found("delivery"))?;
    // Those of an endpoint that is gone are everybody's who reaches all of them.
    let label =
        app.node.data.control.state().webhook(caller.principal.tenant, id.webhook).and_then(|known| known.project);
    if !caller.principal.reaches(label) {
        return Err(Problem::not_found("delivery"));
    }
    let asked = WebhookDeliveryQuery {
        tenant: caller.principal.tenant,
        webhook: id.webhook,
        event: Some(id.event),
        statuses: Vec::new(),
        outcome: None,
        kinds: Vec::new(),
        from: None,
        to: None,
        age: Age::Falling,
        after: None,
        offset: 0,
        limit: 1,
    };
    undeleted(app, &asked).await?.into_iter().next().ok_or_else(|| Problem::not_found("delivery"))
}
