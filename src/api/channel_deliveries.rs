//! What became of messages at a channel, and sending one again.

use super::app::{App, Caller};
use super::change::{Changed, repeated, submit};
use super::channels::find;
use super::created::{CREATED, Created, CreatedParameters};
use super::docs::Problems;
use super::incoming::Incoming;
use super::input::{Nothing, Query, empty};
use super::page::{PARAMETERS, Page, Paging};
use super::problem::Problem;
use super::read_on::read_on;
use super::receipt::store_away;
use super::webhook_actions::{DeliveryAsked, accepted};
use crate::domain::control::command::{Command, MessageRedelivery};
use crate::domain::control::fold::Control;
use crate::domain::control::outcome::Resource;
use crate::domain::control::resource::{Channel, Scope};
use crate::domain::id::NotificationId;
use crate::domain::partition::effect::{DeliveryRow, DeliveryStatus, State as AlertState};
use crate::domain::partition::fact::V3;
use crate::domain::partition::notification::{Notification, NotificationKind};
use crate::domain::time::Timestamp;
use crate::store::{Age, ChannelDeliveryQuery, TransitionQuery};
use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

const STATUSES: [DeliveryStatus; 5] = [
    DeliveryStatus::Pending,
    DeliveryStatus::Succeeded,
    DeliveryStatus::Failed,
    DeliveryStatus::Dropped,
    DeliveryStatus::Superseded,
];

/// What became of a message at a channel.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChannelDeliveryView {
    /// The message's id, the same in `webhook-id`; a test's is the `delivery_id` of its answer.
    id: String,
    object: &'static str,
    mode: &'static str,
    channel_id: String,
    /// For example `alert.firing`.
    event_type: &'static str,
    /// `pending`, `succeeded`, `failed` (the channel lost it), `superseded` (a newer message of the
    /// instance took its place), or `dropped`: it was not sent, because there was nothing to send it
    /// for any more.
    status: &'static str,
    attempt_count: u32,
    /// What came of the last attempt.
    outcome: Option<String>,
    next_attempt_at: Option<String>,
    /// Null where a channel is tried.
    alert_id: Option<String>,
    alert_name: Option<String>,
    account_id: String,
    metric: Option<String>,
    severity: &'static str,
    /// When it was decided.
    created_at: String,
    updated_at: String,
}

/// A delivery with what is sent.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChannelDeliveryDetail {
    #[serde(flatten)]
    delivery: ChannelDeliveryView,
    /// The body of the request; for Slack that of a message of its own.
    #[schema(value_type = Object)]
    payload: Box<RawValue>,
}

fn view(row: &DeliveryRow, notification: &Notification) -> ChannelDeliveryView {
    let key = &notification.key;
    ChannelDeliveryView {
        id: row.notification.to_string(),
        object: "channel_delivery",
        mode: row.tenant.mode.name(),
        channel_id: row.channel.to_string(),
        event_type: notification.kind.event_type().name(),
        status: row.status.name(),
        attempt_count: row.attempts,
        outcome: row.outcome.clone(),
        next_attempt_at: row.next_at.map(|at| at.to_string()),
        alert_id: notification.is_about_alert().then(|| key.alert.to_string()),
        alert_name: notification.alert_name.clone().filter(|_| notification.is_about_alert()),
        account_id: key.account.to_string(),
        metric: key.metric.as_ref().map(ToString::to_string),
        severity: notification.severity.name(),
        created_at: notification.at.to_string(),
        updated_at: row.at.to_string(),
    }
}

/// Tells whether a message is of what is there now, and not of an account or a world that was deleted.
fn is_present(state: &Control, notification: &Notification) -> bool {
    let (tenant, account) = (notification.key.tenant, &notification.key.account);
    notification.kind == NotificationKind::Test || notification.epoch >= state.epoch_of(tenant, account)
}

fn all_of(caller: &Caller, channel: &Channel) -> ChannelDeliveryQuery {
    ChannelDeliveryQuery {
        tenant: caller.principal.tenant,
        channel: channel.id,
        notification: None,
        statuses: Vec::new(),
        from: None,
        to: None,
        age: Age::Falling,
        after: None,
        offset: 0,
        limit: 1,
    }
}

/// Lists what became of messages at a channel, by when they were decided, newest first.
#[utoipa::path(
    get, path = "/v1/channels/{id}/deliveries", tag = "channels", operation_id = "channel_deliveries",
    params(("id" = String, Path), ("status" = Option<Vec<String>>, Query), ("from" = Option<String>, Query),
           ("to" = Option<String>, Query), ("page" = Option<usize>, Query), ("page_size" = Option<usize>, Query),
           ("cursor" = Option<String>, Query), CreatedParameters),
    responses((status = 200, body = Page<ChannelDeliveryView>), Problems), security(("key" = ["read:channels"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    RawQuery(query): RawQuery,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadChannels)?;
    let query = Query::read(query.as_deref(), &[&PARAMETERS[..], &CREATED, &["status", "from", "to"]].concat())?;
    let paging = Paging::read(&app, &caller, uri.path(), &query)?;
    let created = Created::read(&query)?;
    let (from, to) = created.span(&query)?;
    let asked = ChannelDeliveryQuery {
        statuses: query.read_all("status", "pending, succeeded, failed, dropped or superseded", |text| {
            STATUSES.into_iter().find(|status| status.name() == text)
        })?,
        from,
        to,
        age: created.age(),
        after: paging.after_parts(|parts| match parts {
            [at, id] => Some((Timestamp::parse(at)?, id.parse().ok()?)),
            _ => None,
        })?,
        offset: paging.offset(),
        limit: paging.size + 1,
        ..all_of(&caller, &find(&app, &caller, &id)?)
    };
    let hides = app.node.data.control.state().has_epochs(caller.principal.tenant);
    let rows = if hides {
        let next = |last: Option<(DeliveryRow, Notification)>, limit| {
            let behind = last.map(|(_, notification)| (notification.at, notification.id));
            let query = ChannelDeliveryQuery { offset: 0, limit, after: behind.or(asked.after), ..asked.clone() };
            async { app.node.data.store.channel_deliveries(query).await.map_err(store_away) }
        };
        let fits = |row: &(DeliveryRow, Notification)| is_present(&app.node.data.control.state(), &row.1);
        read_on((asked.offset, asked.limit), next, fits).await?
    } else {
        app.node.data.store.channel_deliveries(asked).await.map_err(store_away)?
    };
    let items = rows.iter().map(|(row, notification)| view(row, notification)).collect();
    Ok(paging.answer(&app, items, |row: &ChannelDeliveryView| format!("{} {}", row.created_at, row.id)))
}

/// Shows what became of a message at a channel, and what is sent. The id is the message's: a test is found by its
/// `delivery_id`.
#[utoipa::path(
    get, path = "/v1/channels/{id}/deliveries/{delivery_id}", tag = "channels", operation_id = "channel_delivery",
    params(("id" = String, Path), ("delivery_id" = String, Path)),
    responses((status = 200, body = ChannelDeliveryDetail), Problems), security(("key" = ["read:channels"]))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
    Path((id, delivery)): Path<(String, String)>,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadChannels)?;
    Query::read(query.as_deref(), &[])?;
    let channel = find(&app, &caller, &id)?;
    let (row, notification) = delivery_of(&app, &caller, (&channel, &delivery)).await?;
    let payload = RawValue::from_string(app.node.notifier.body(channel.kind, &notification)).unwrap_or_default();
    Ok(Json(ChannelDeliveryDetail { delivery: view(&row, &notification), payload }).into_response())
}

async fn delivery_of(
    app: &App,
    caller: &Caller,
    (channel, id): (&Channel, &str),
) -> Result<(DeliveryRow, Notification), Problem> {
    let id: NotificationId = id.parse().map_err(|_| Problem::not_found("delivery"))?;
    let asked = ChannelDeliveryQuery { notification: Some(id), ..all_of(caller, channel) };
    let found = app.node.data.store.channel_deliveries(asked).await.map_err(store_away)?.into_iter().next();
    let found = found.filter(|(_, notification)| is_present(&app.node.data.control.state(), notification));
    found.ok_or_else(|| Problem::not_found("delivery"))
}

/// How the instance stands that a message is about; absent where nothing is known of it.
async fn state_of(app: &App, notification: &Notification) -> Result<Option<AlertState>, Problem> {
    let key = &notification.key;
    let asked = TransitionQuery {
        tenant: key.tenant,
        alert: key.alert,
        accounts: vec![key.account.clone()],
        metric: Some(key.metric.clone()),
        changes_only: true,
        from: None,
        to: None,
        age: Age::Falling,
        after: None,
        offset: 0,
        limit: 1,
    };
    let newest = app.node.data.store.transitions(asked).await.map_err(store_away)?.into_iter().next();
    Ok(newest.filter(|row| row.epoch == notification.epoch).map(|row| row.to))
}

/// Refuses a message that no longer says how its instance stands: it would be the last word that the channel hears.
async fn still_true(app: &App, notification: &Notification) -> Result<(), Problem> {
    let is_true = match notification.kind {
        NotificationKind::Firing => state_of(app, notification).await? == Some(AlertState::Firing),
        NotificationKind::NoData => state_of(app, notification).await? == Some(AlertState::NoData),
        NotificationKind::Resolved => state_of(app, notification).await? != Some(AlertState::Firing),
        NotificationKind::Corrected | NotificationKind::Pending | NotificationKind::Test => true,
    };
    let detail = "the message no longer says how its instance stands, and the channel would hear it last; see the \
                  alert's history for what was sent since";
    if is_true { Ok(()) } else { Err(Problem::new(StatusCode::CONFLICT, "invalid_state", detail)) }
}

/// Sends a message to a channel again at once, under its id, with a schedule of its own. One that no longer says how its
/// alert's instance stands is refused (409): it would be the last word that the channel hears.
#[utoipa::path(
    post, path = "/v1/channels/{id}/deliveries/{delivery_id}/redeliver", tag = "channels",
    operation_id = "redeliver_message", params(("id" = String, Path), ("delivery_id" = String, Path)),
    request_body = Option<Nothing>,
    responses((status = 202, body = DeliveryAsked), Problems), security(("key" = ["write:channels"]))
)]
pub(super) async fn redeliver(
    State(app): State<App>,
    caller: Caller,
    Path((id, delivery)): Path<(String, String)>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteChannels)?;
    empty(&incoming.headers, &incoming.body)?;
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return Ok(asked(&changed));
    }
    let channel = find(&app, &caller, &id)?;
    let (row, notification) = delivery_of(&app, &caller, (&channel, &delivery)).await?;
    if app.node.data.control.state().engine_version() < V3 {
        let detail = "nodes of an earlier release still serve; messages are sent again once all are of this release";
        return Err(Problem::new(StatusCode::CONFLICT, "invalid_state", detail));
    }
    still_true(&app, &notification).await?;
    let notification = Box::new(notification);
    let redelivery = MessageRedelivery { channel: channel.id, notification, attempts: row.attempts };
    Ok(asked(&submit(&app, &caller, sent, Command::RedeliverMessage(redelivery)).await?))
}

fn asked(changed: &Changed) -> Response {
    let Resource::Message { id, channel } = &changed.resource else { return super::answer::gone() };
    accepted(changed, &DeliveryAsked::of(id), &format!("/v1/channels/{channel}/deliveries/{id}"))
}
