//! What can be done with an endpoint: secrets, tests, pauses.

use super::answer;
use super::app::{App, Caller};
use super::change::{Changed, repeated, submit};
use super::docs::Problems;
use super::incoming::Incoming;
use super::input::{Nothing, Query, empty};
use super::problem::Problem;
use super::webhook_input::seal;
use super::webhooks::{WebhookView, changed_view, find, newest_secret};
use crate::domain::control::audit::Target;
use crate::domain::control::command::{Command, WebhookRotation};
use crate::domain::control::outcome::Resource;
use crate::domain::control::resource::{Scope, Webhook};
use crate::domain::id::WebhookId;
use crate::domain::limits::{SECRET_GRACE_DEFAULT, SECRET_GRACE_MAX};
use crate::domain::time::{Millis, Timestamp};
use crate::notifier::new_secret;
use crate::runtime::clock;
use crate::runtime::courier::Sealed;
use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What verifies an endpoint's signatures.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SecretView {
    object: &'static str,
    webhook_id: String,
    /// `whsec_` and base64.
    secret: String,
    /// Until when the secret before signs along; null where there is none.
    previous_until: Option<String>,
}

/// How the secret changes.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RotateBody {
    /// How long the secret before signs along: 0 to 604800, 86400 where absent.
    #[schema(minimum = 0, maximum = 604_800)]
    grace_seconds: Option<i64>,
}

/// A delivery that was asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeliveryAsked {
    delivery_id: String,
}

impl DeliveryAsked {
    pub(super) fn of(id: &impl ToString) -> Self {
        Self { delivery_id: id.to_string() }
    }
}

fn secret_view(app: &App, webhook: &Webhook, at: Timestamp) -> Result<SecretView, Problem> {
    let previous = webhook.secrets.iter().skip(1).filter(|secret| secret.signs_at(at));
    Ok(SecretView {
        object: "webhook_secret",
        webhook_id: webhook.id.to_string(),
        secret: newest_secret(app, webhook)?,
        previous_until: previous.filter_map(|secret| secret.until).max().map(|until| until.to_string()),
    })
}

/// Shows the secret that verifies an endpoint's signatures.
#[utoipa::path(
    get, path = "/v1/webhooks/{id}/secret", tag = "webhooks", operation_id = "secret", params(("id" = String, Path)),
    responses((status = 200, body = SecretView), Problems), security(("key" = ["manage:webhook-secrets"]))
)]
pub(super) async fn secret(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::ManageWebhookSecrets)?;
    Query::read(query.as_deref(), &[])?;
    let webhook = find(&app, &caller, &id)?;
    app.note_secret(&caller, Target::Webhook(webhook.id));
    Ok(Json(secret_view(&app, &webhook, clock::now())?).into_response())
}

/// Gives an endpoint another secret. Both sign until the grace is over.
#[utoipa::path(
    post, path = "/v1/webhooks/{id}/rotate-secret", tag = "webhooks", params(("id" = String, Path)),
    request_body = Option<RotateBody>,
    responses((status = 201, body = SecretView), Problems), security(("key" = ["manage:webhook-secrets"]))
)]
pub(super) async fn rotate_secret(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::ManageWebhookSecrets)?;
    let wanted: RotateBody = if incoming.body.is_empty() { RotateBody::default() } else { incoming.json()? };
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return rotated(&app, &changed);
    }
    let grace = wanted.grace_seconds.map_or(SECRET_GRACE_DEFAULT, Millis::seconds);
    if !(Millis::ZERO..=SECRET_GRACE_MAX).contains(&grace) {
        return Err(Problem::invalid("/grace_seconds", "expected 0 to 604800 seconds"));
    }
    let id = find(&app, &caller, &id)?.id;
    let sealed = seal(&app, Sealed::Secret, id, new_secret(clock::random()).as_bytes())?;
    let until = clock::now().plus(grace);
    let changed =
        submit(&app, &caller, sent, Command::RotateWebhookSecret(WebhookRotation { id, sealed, until })).await?;
    rotated(&app, &changed)
}

fn rotated(app: &App, changed: &Changed) -> Result<Response, Problem> {
    let Resource::Webhook(webhook) = &changed.resource else { return Ok(answer::gone()) };
    let location = format!("/v1/webhooks/{}/secret", webhook.id);
    // As of the rotation, so that a repetition shows it again.
    let view = secret_view(app, webhook, webhook.life.updated_at)?;
    Ok(answer::changed(changed, &view, webhook.life.version, &location))
}

/// Sends an endpoint the event `webhook.test`, whatever it subscribes to.
#[utoipa::path(
    post, path = "/v1/webhooks/{id}/test", tag = "webhooks", params(("id" = String, Path)),
    request_body = Option<Nothing>,
    responses((status = 202, body = DeliveryAsked), Problems), security(("key" = ["write:webhooks"]))
)]
pub(super) async fn test(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteWebhooks)?;
    empty(&incoming.headers, &incoming.body)?;
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return Ok(asked(&changed));
    }
    let id = find(&app, &caller, &id)?.id;
    Ok(asked(&submit(&app, &caller, sent, Command::TestWebhook { id }).await?))
}

/// 202 with the name of the delivery.
pub(super) fn asked(changed: &Changed) -> Response {
    let Resource::Delivery(id) = &changed.resource else { return answer::gone() };
    accepted(changed, &DeliveryAsked::of(id), &format!("/v1/deliveries/{id}"))
}

/// 202, marked where it is a replay.
pub(super) fn accepted<T: Serialize>(changed: &Changed, view: &T, location: &str) -> Response {
    let mut response = (StatusCode::ACCEPTED, Json(view)).into_response();
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert("location", location);
    }
    if changed.replayed {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    response
}

/// Puts an endpoint into a state; nothing changes where it is in it already.
async fn set_state(
    app: &App,
    caller: &Caller,
    (id, incoming): (&str, &Incoming),
    command: fn(WebhookId) -> Command,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteWebhooks)?;
    empty(&incoming.headers, &incoming.body)?;
    let sent = incoming.sent();
    if let Some(changed) = repeated(app, caller, sent)? {
        return Ok(changed_view(caller, &changed));
    }
    let id = find(app, caller, id)?.id;
    Ok(changed_view(caller, &submit(app, caller, sent, command(id)).await?))
}

/// Sends nothing to an endpoint until it is resumed. What is owed waits; what comes is `dropped`, and can be replayed.
#[utoipa::path(
    post, path = "/v1/webhooks/{id}/pause", tag = "webhooks", params(("id" = String, Path)),
    request_body = Option<Nothing>,
    responses((status = 200, body = WebhookView), Problems), security(("key" = ["write:webhooks"]))
)]
pub(super) async fn pause(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    set_state(&app, &caller, (&id, &incoming), |id| Command::PauseWebhook { id }).await
}

/// Ends a pause, or enables an endpoint that was disabled.
#[utoipa::path(
    post, path = "/v1/webhooks/{id}/resume", tag = "webhooks", params(("id" = String, Path)),
    request_body = Option<Nothing>,
    responses((status = 200, body = WebhookView), Problems), security(("key" = ["write:webhooks"]))
)]
pub(super) async fn resume(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    set_state(&app, &caller, (&id, &incoming), |id| Command::ResumeWebhook { id }).await
}
