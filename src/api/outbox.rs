//! The sandbox's outbox: what would have left.

use super::app::{App, Caller};
use super::created::{CREATED, Created, CreatedParameters};
use super::docs::Problems;
use super::input::Query;
use super::page::{PARAMETERS, Page, Paging};
use super::problem::Problem;
use super::read_on::read_on;
use super::receipt::store_away;
use super::sandbox::enter;
use crate::domain::control::resource::ChannelKind;
use crate::domain::control::sandbox::kept_as;
use crate::domain::id::{AlertId, ChannelId, NotificationId};
use crate::domain::partition::effect::DeliveryRow;
use crate::domain::partition::notification::Notification;
use crate::domain::time::Timestamp;
use crate::store::OutboxQuery;
use axum::extract::{RawQuery, State};
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

const KINDS: [ChannelKind; 2] = [ChannelKind::Slack, ChannelKind::Webhook];

/// A message that was kept.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OutboxView {
    /// The message's id, the same as the delivery would have had.
    id: String,
    object: &'static str,
    mode: &'static str,
    /// For example `alert.firing`.
    event_type: &'static str,
    channel_id: String,
    /// `slack` or `webhook`.
    channel_type: &'static str,
    alert_id: String,
    account_id: String,
    /// The body as it would have been sent.
    #[schema(value_type = Object)]
    body: Box<RawValue>,
    /// When it would have been sent.
    at: String,
}

/// Lists what would have left the sandbox, newest first: everything for Slack, and webhooks on hosts that the operator
/// does not allow-list.
#[utoipa::path(
    get, path = "/v1/sandbox/outbox", tag = "sandbox",
    params(("channel_type" = Option<Vec<String>>, Query), ("channel_id" = Option<Vec<String>>, Query),
           ("alert_id" = Option<Vec<String>>, Query),
           ("from" = Option<String>, Query, description = "Inclusive"), ("to" = Option<String>, Query, description = "Exclusive"),
           ("page" = Option<usize>, Query), ("page_size" = Option<usize>, Query), ("cursor" = Option<String>, Query),
           CreatedParameters),
    responses((status = 200, body = Page<OutboxView>), Problems), security(("key" = ["write:sandbox"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    enter(&caller)?;
    let known = [&PARAMETERS[..], &CREATED, &["channel_type", "channel_id", "alert_id", "from", "to"]].concat();
    let query = Query::read(query.as_deref(), &known)?;
    let paging = Paging::read(&app, &caller, uri.path(), &query)?;
    let created = Created::read(&query)?;
    let (from, to) = created.span(&query)?;
    let kinds = query
        .read_all("channel_type", "slack or webhook", |text| KINDS.into_iter().find(|kind| kind.name() == text))?;
    let is_wanted = |kind: &ChannelKind| kinds.is_empty() || kinds.contains(kind);
    let first = KINDS.into_iter().find(is_wanted).unwrap_or(ChannelKind::Slack);
    let outcomes = KINDS.map(|kind| kept_as(if is_wanted(&kind) { kind } else { first }).to_owned());
    let tenant = caller.principal.tenant;
    let epoch = app.node.data.control.state().sandbox(tenant).map(|sandbox| sandbox.epoch);
    let asked = OutboxQuery {
        tenant,
        epoch: epoch.unwrap_or_default(),
        outcomes,
        channels: query.read_all("channel_id", "a chn_ id", |text| text.parse::<ChannelId>().ok())?,
        alerts: query.read_all("alert_id", "an alr_ id", |text| text.parse::<AlertId>().ok())?,
        among: reached(&app, &caller),
        from,
        to,
        age: created.age(),
        after: paging.after_parts(place)?,
        offset: paging.offset(),
        limit: paging.size + 1,
    };
    type Kept = (DeliveryRow, Notification);
    let next = |last: Option<Kept>, limit| {
        let behind = last.map(|(row, _)| (row.at, row.notification, row.channel));
        let query = OutboxQuery { offset: 0, limit, after: behind.or(asked.after), ..asked.clone() };
        async { app.node.data.store.outbox(query).await.map_err(store_away) }
    };
    let fits = |(_, notification): &Kept| {
        notification.epoch >= app.node.data.control.state().epoch_of(tenant, &notification.key.account)
    };
    let rows = if app.node.data.control.state().has_epochs(tenant) {
        read_on((asked.offset, asked.limit), next, fits).await?
    } else {
        app.node.data.store.outbox(asked).await.map_err(store_away)?
    };
    let items = rows.iter().map(|(row, notification)| view(&app, &caller, row, notification)).collect();
    Ok(paging.answer(&app, items, |item: &OutboxView| format!("{} {} {}", item.at, item.id, item.channel_id)))
}

/// The alerts and channels whose messages the caller may see; who reaches all of them sees everything.
fn reached(app: &App, caller: &Caller) -> Option<(Vec<AlertId>, Vec<ChannelId>)> {
    if caller.principal.projects.is_empty() {
        return None;
    }
    let (state, tenant) = (app.node.data.control.state(), caller.principal.tenant);
    let alerts = state.alerts(tenant).filter(|alert| caller.principal.reaches(alert.definition.project));
    let channels = state.channels(tenant).filter(|channel| caller.principal.reaches(channel.project));
    Some((alerts.map(|alert| alert.definition.id).collect(), channels.map(|channel| channel.id).collect()))
}

fn place(parts: &[&str]) -> Option<(Timestamp, NotificationId, ChannelId)> {
    let [at, id, channel] = parts else { return None };
    Some((Timestamp::parse(at)?, id.parse().ok()?, channel.parse().ok()?))
}

fn view(app: &App, caller: &Caller, row: &DeliveryRow, notification: &Notification) -> OutboxView {
    let is_of = |kind: &ChannelKind| row.outcome.as_deref() == Some(kept_as(*kind));
    let kind = KINDS.into_iter().find(is_of).unwrap_or(ChannelKind::Webhook);
    OutboxView {
        id: row.notification.to_string(),
        object: "outbox_message",
        mode: caller.principal.tenant.mode.name(),
        event_type: notification.kind.event_type().name(),
        channel_id: row.channel.to_string(),
        channel_type: kind.name(),
        alert_id: notification.key.alert.to_string(),
        account_id: notification.key.account.to_string(),
        body: RawValue::from_string(app.node.notifier.body(kind, notification)).unwrap_or_default(),
        at: row.at.to_string(),
    }
}
