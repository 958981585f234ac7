//! Test messages: marked as such, sent the way that every message goes.

use super::alerts;
use super::app::{App, Caller};
use super::change::{Changed, repeated, submit};
use super::channels;
use super::docs::Problems;
use super::incoming::Incoming;
use super::input::{Nothing, empty};
use super::problem::Problem;
use crate::domain::control::command::{Command, TestSubject};
use crate::domain::control::outcome::Resource;
use crate::domain::control::resource::Scope;
use crate::domain::id::NotificationId;
use crate::runtime::clock;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// A test message that is on its way.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TestView {
    object: &'static str,
    /// The message's id, the same in `webhook-id`.
    delivery_id: String,
    /// Where it goes.
    channels: Vec<String>,
}

/// Sends a marked test message to all channels of an alert. It changes nothing of the alert.
#[utoipa::path(
    post, path = "/v1/alerts/{id}/test", tag = "alerts", params(("id" = String, Path)), request_body = Option<Nothing>,
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
    post, path = "/v1/channels/{id}/test", tag = "channels", params(("id" = String, Path)),
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
    let sent = incoming.sent();
    if let Some(changed) = repeated(app, caller, sent)? {
        return Ok(answered(&changed));
    }
    empty(&incoming.headers, &incoming.body)?;
    let subject = find()?;
    let id = NotificationId(clock::ulid());
    let changed = submit(app, caller, sent, Command::SendTest { id, subject }).await?;
    Ok(answered(&changed))
}

fn answered(changed: &Changed) -> Response {
    let Resource::Test(test) = &changed.resource else { return super::answer::gone() };
    let view = TestView {
        object: "test",
        delivery_id: test.id.to_string(),
        channels: test.channels.iter().map(ToString::to_string).collect(),
    };
    let mut response = (StatusCode::ACCEPTED, Json(view)).into_response();
    if changed.replayed {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    response
}
