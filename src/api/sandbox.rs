//! The sandbox: its resets and its clock. Of a live key, none of this exists.

use super::app::{App, Caller};
use super::change::{Sent, submit};
use super::docs::Problems;
use super::incoming::Incoming;
use super::input::{Nothing, Query, empty};
use super::problem::Problem;
use crate::domain::control::command::Command;
use crate::domain::control::outcome::Resource;
use crate::domain::control::resource::Scope;
use crate::domain::control::sandbox::Sandbox;
use crate::domain::id::Mode;
use crate::domain::limits::{SANDBOX_ADVANCE_MAX, SANDBOX_DELIVERY_ATTEMPTS_MAX};
use crate::domain::time::{Millis, Timestamp};
use crate::runtime::clock;
use crate::runtime::sandbox::{midnight, seed};
use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The sandbox.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SandboxView {
    object: &'static str,
    mode: &'static str,
    opened_at: String,
    /// Null before the first reset.
    last_reset_at: Option<String>,
    /// The next midnight in UTC.
    next_reset_at: String,
    clock: SandboxClock,
    limits: SandboxLimits,
}

/// The sandbox's clock.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SandboxClock {
    now: String,
    /// How far it was put forward since the last reset.
    advanced_by: String,
}

/// What a sandbox has less of.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SandboxLimits {
    /// How far the clock may be put forward between two resets.
    clock_advance_max: String,
    /// Attempts to deliver to a webhook endpoint, or to a webhook channel on an allow-listed host; what other channels
    /// would be sent stays in the outbox.
    delivery_attempts_max: u32,
}

/// How far to put the clock forward.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ClockAdvance {
    /// A duration such as `1h`.
    #[schema(pattern = "^[1-9][0-9]{0,5}(s|m|h|d)$")]
    by: String,
}

/// Lets sandbox keys in.
///
/// # Errors
/// 403 without the scope; 404 for a live key, as for a path that is not there.
pub(super) fn enter(caller: &Caller) -> Result<(), Problem> {
    caller.require(Scope::WriteSandbox)?;
    match caller.principal.tenant.mode {
        Mode::Sandbox => Ok(()),
        Mode::Live => {
            Err(Problem::not_found("sandbox").with("hint", "a sandbox is reached with its own keys, pk_test_…"))
        }
    }
}

fn view(sandbox: &Sandbox, now: Timestamp) -> SandboxView {
    SandboxView {
        object: "sandbox",
        mode: Mode::Sandbox.name(),
        opened_at: sandbox.opened_at.to_string(),
        last_reset_at: sandbox.last_reset_at.map(|at| at.to_string()),
        next_reset_at: midnight(now).plus(Millis::days(1)).to_string(),
        clock: SandboxClock { now: now.plus(sandbox.advance).to_string(), advanced_by: sandbox.advance.to_string() },
        limits: SandboxLimits {
            clock_advance_max: SANDBOX_ADVANCE_MAX.to_string(),
            delivery_attempts_max: SANDBOX_DELIVERY_ATTEMPTS_MAX,
        },
    }
}

/// Shows the sandbox.
#[utoipa::path(
    get, path = "/v1/sandbox", tag = "sandbox",
    responses((status = 200, body = SandboxView), Problems), security(("key" = ["write:sandbox"]))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    enter(&caller)?;
    Query::read(query.as_deref(), &[])?;
    let found = app.node.data.control.state().sandbox(caller.principal.tenant).copied();
    let sandbox = found.ok_or_else(|| Problem::not_found("sandbox"))?;
    Ok(Json(view(&sandbox, clock::now())).into_response())
}

/// Starts the sandbox anew: keys, projects, channels and webhooks stay, everything else goes, and the clock is put right.
#[utoipa::path(
    post, path = "/v1/sandbox/reset", tag = "sandbox", request_body = Option<Nothing>,
    responses((status = 202, body = SandboxView), Problems), security(("key" = ["write:sandbox"]))
)]
pub(super) async fn reset(State(app): State<App>, caller: Caller, incoming: Incoming) -> Result<Response, Problem> {
    enter(&caller)?;
    empty(&incoming.headers, &incoming.body)?;
    let seed = Box::new(seed(&app.node.data.vault, caller.principal.tenant));
    change(&app, &caller, &incoming, Command::ResetSandbox { midnight: None, seed }).await
}

/// Puts the clock of the whole sandbox forward: windows close, holds run out and periods turn as they would in that time.
#[utoipa::path(
    post, path = "/v1/sandbox/clock/advance", tag = "sandbox", request_body = ClockAdvance,
    responses((status = 202, body = SandboxView), Problems), security(("key" = ["write:sandbox"]))
)]
pub(super) async fn advance_clock(
    State(app): State<App>,
    caller: Caller,
    incoming: Incoming,
) -> Result<Response, Problem> {
    enter(&caller)?;
    let wanted: ClockAdvance = incoming.json()?;
    let by = Millis::parse(&wanted.by)
        .filter(|by| (1..=SANDBOX_ADVANCE_MAX.0).contains(&by.0))
        .ok_or_else(|| Problem::invalid("/by", format!("expected a duration from 1s to {SANDBOX_ADVANCE_MAX}")))?;
    change(&app, &caller, &incoming, Command::AdvanceClock { by }).await
}

/// Changes the sandbox; a repetition shows it as it was, at the time that it was then.
async fn change(app: &App, caller: &Caller, incoming: &Incoming, command: Command) -> Result<Response, Problem> {
    let now = clock::now();
    let beside = now.to_string();
    let sent = Sent { beside: Some(&beside), ..incoming.sent() };
    let changed = submit(app, caller, sent, command).await?;
    let Resource::Sandbox(sandbox) = &changed.resource else { return Ok(super::answer::gone()) };
    let now = changed.beside.as_deref().and_then(Timestamp::parse).unwrap_or(now);
    let mut response = (StatusCode::ACCEPTED, Json(view(sandbox, now))).into_response();
    if changed.replayed {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    Ok(response)
}
