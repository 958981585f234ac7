//! Test messages: marked as such, sent the way that every message goes.

use super::alerts;
use super::app::{App, Caller};
use super::change::{Changed, repeated, submit};
use super::channels;
use super::delivered::{DeliveredView, delivered};
use super::docs::Problems;
use super::incoming::Incoming;
use super::input::{Nothing, Query, empty};
use super::problem::Problem;
use super::receipt::store_away;
use crate::domain::control::command::{Command, TestSubject};
use crate::domain::control::outcome::Resource;
use crate::domain::control::resource::Scope;
use crate::domain::control::trials::TestMessage;
use crate::domain::id::NotificationId;
use crate::domain::limits::TEST_WAIT_MAX;
use crate::domain::partition::effect::{DeliveryRow, DeliveryStatus};
use crate::domain::time::Millis;
use crate::runtime::clock;
use crate::store::OutcomeQuery;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::time::Duration;
use utoipa::ToSchema;

const PARAMETERS: [&str; 1] = ["wait"];

/// How far looks at a test that is waited for are apart.
const LOOK_SPACING: Duration = Duration::from_millis(50);

/// A test message that is on its way.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TestView {
    object: &'static str,
    /// The message's id, the same in `webhook-id`.
    delivery_id: String,
    /// Where it goes.
    channels: Vec<String>,
    /// With `wait`: what became of it at each channel by then.
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries: Option<Vec<DeliveredView>>,
}

/// Sends a marked test message to all channels of an alert. It changes nothing of the alert.
#[utoipa::path(
    post, path = "/v1/alerts/{id}/test", tag = "alerts", params(("id" = String, Path), ("wait" = Option<String>, Query, description = "How long to wait for what becomes of it, such as 10s; at most 20s")),
    request_body = Option<Nothing>,
    responses((status = 202, body = TestView), Problems), security(("key" = ["write:alerts"]))
)]
pub(super) async fn test_alert(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteAlerts)?;
    let find = || Ok(TestSubject::Alert(alerts::find(&app, &caller, &id)?.definition.id));
    send(&app, &caller, &incoming, find).await
}

/// Sends a marked test message to a channel.
#[utoipa::path(
    post, path = "/v1/channels/{id}/test", tag = "channels", params(("id" = String, Path), ("wait" = Option<String>, Query, description = "How long to wait for what becomes of it, such as 10s; at most 20s")),
    request_body = Option<Nothing>,
    responses((status = 202, body = TestView), Problems), security(("key" = ["write:channels"]))
)]
pub(super) async fn test_channel(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteChannels)?;
    let find = || Ok(TestSubject::Channel(channels::find(&app, &caller, &id)?.id));
    send(&app, &caller, &incoming, find).await
}

async fn send(
    app: &App,
    caller: &Caller,
    incoming: &Incoming,
    find: impl FnOnce() -> Result<TestSubject, Problem>,
) -> Result<Response, Problem> {
    let wait = wait(incoming.query())?;
    let sent = incoming.sent().taking(&PARAMETERS);
    if let Some(changed) = repeated(app, caller, sent)? {
        return answered(app, caller, &changed, wait).await;
    }
    empty(&incoming.headers, &incoming.body)?;
    let subject = find()?;
    let id = NotificationId(clock::ulid());
    let changed = submit(app, caller, sent, Command::SendTest { id, subject }).await?;
    answered(app, caller, &changed, wait).await
}

/// Reads how long to wait for what becomes of a test.
fn wait(query: Option<&str>) -> Result<Option<Millis>, Problem> {
    let query = Query::read(query, &PARAMETERS)?;
    let expected = "a time of at most 20s, such as 10s";
    query
        .read_as("wait", expected, |text| Millis::parse(text).filter(|wait| (Millis(1)..=TEST_WAIT_MAX).contains(wait)))
}

async fn answered(app: &App, caller: &Caller, changed: &Changed, wait: Option<Millis>) -> Result<Response, Problem> {
    let Resource::Test(test) = &changed.resource else { return Ok(super::answer::gone()) };
    let deliveries = match wait {
        Some(wait) => Some(tried(app, caller, test, wait).await?),
        None => None,
    };
    let view = TestView {
        object: "test",
        delivery_id: test.id.to_string(),
        channels: test.channels.iter().map(ToString::to_string).collect(),
        deliveries,
    };
    let mut response = (StatusCode::ACCEPTED, Json(view)).into_response();
    if changed.replayed {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Waits until the test was tried at each channel, and returns what came of it.
async fn tried(app: &App, caller: &Caller, test: &TestMessage, wait: Millis) -> Result<Vec<DeliveredView>, Problem> {
    let until = clock::now().plus(wait);
    loop {
        let asked = OutcomeQuery { tenant: caller.principal.tenant, notifications: vec![test.id] };
        let rows = app.node.data.store.outcomes(asked).await.map_err(store_away)?;
        let was_tried = |row: &DeliveryRow| row.status != DeliveryStatus::Pending || row.attempts > 0;
        if (rows.len() >= test.channels.len() && rows.iter().all(was_tried)) || clock::now() >= until {
            return Ok(rows.iter().map(|row| delivered(app, caller, row)).collect());
        }
        tokio::time::sleep(LOOK_SPACING).await;
    }
}
