//! The workspace itself: its name, and what it asks of every change.

use super::answer;
use super::app::{App, Caller};
use super::change::{Changed, repeated, submit};
use super::docs::Problems;
use super::grant::escalation;
use super::incoming::Incoming;
use super::input::{Query, present};
use super::problem::Problem;
use super::text;
use crate::domain::control::access::WorkspaceChange;
use crate::domain::control::command::Command;
use crate::domain::control::outcome::Resource;
use crate::domain::control::resource::{Scope, Workspace};
use crate::domain::limits::IDEMPOTENCY_HORIZON_RANGE;
use crate::domain::time::Millis;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The workspace of the caller; one for both modes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WorkspaceView {
    id: String,
    object: &'static str,
    mode: &'static str,
    version: u64,
    name: String,
    /// Whether every POST, PUT and PATCH needs an `Idempotency-Key`.
    require_idempotency_key: bool,
    /// How long the answer to an `Idempotency-Key` is kept.
    idempotency_horizon: String,
    created_at: String,
    updated_at: String,
}

/// Changes of the workspace.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkspaceUpdate {
    #[serde(default, deserialize_with = "present")]
    name: Option<String>,
    #[serde(default, deserialize_with = "present")]
    require_idempotency_key: Option<bool>,
    /// From `1h` to `30d`; holds for requests from here on.
    #[serde(default, deserialize_with = "present")]
    idempotency_horizon: Option<String>,
}

fn view(caller: &Caller, workspace: &Workspace) -> WorkspaceView {
    WorkspaceView {
        id: workspace.id.to_string(),
        object: "workspace",
        mode: caller.principal.tenant.mode.name(),
        version: workspace.life.version,
        name: workspace.name.clone(),
        require_idempotency_key: workspace.require_idempotency_key,
        idempotency_horizon: workspace.idempotency_horizon.to_string(),
        created_at: workspace.life.created_at.to_string(),
        updated_at: workspace.life.updated_at.to_string(),
    }
}

/// Shows the workspace.
#[utoipa::path(
    get, path = "/v1/workspace", tag = "workspace",
    responses((status = 200, body = WorkspaceView), Problems), security(("key" = ["admin:workspace"]))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    caller.require(Scope::AdminWorkspace)?;
    Query::read(query.as_deref(), &[])?;
    let found = app.node.data.control.state().workspace(caller.principal.tenant.workspace).cloned();
    let workspace = found.ok_or_else(|| Problem::not_found("workspace"))?;
    Ok(answer::show(&caller, &view(&caller, &workspace), &answer::etag(workspace.life.version)))
}

/// Changes the workspace (JSON Merge Patch, RFC 7396). The sandbox cannot: its settings are those of live.
#[utoipa::path(
    patch, path = "/v1/workspace", tag = "workspace", request_body = WorkspaceUpdate,
    responses((status = 200, body = WorkspaceView), Problems), security(("key" = ["admin:workspace"]))
)]
pub(super) async fn update(State(app): State<App>, caller: Caller, incoming: Incoming) -> Result<Response, Problem> {
    caller.require(Scope::AdminWorkspace)?;
    let is_live = caller.principal.tenant.mode == crate::domain::id::Mode::Live;
    if !is_live || !caller.principal.projects.is_empty() {
        return Err(escalation("only a live credential that is not narrowed to projects changes the workspace"));
    }
    let wanted: WorkspaceUpdate = incoming.json()?;
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return Ok(answered(&caller, &changed));
    }
    let change = WorkspaceChange {
        name: wanted.name.map(|name| text::name("/name", name)).transpose()?,
        require_idempotency_key: wanted.require_idempotency_key,
        idempotency_horizon: wanted.idempotency_horizon.map(horizon).transpose()?,
    };
    let changed = submit(&app, &caller, sent, Command::UpdateWorkspace(change)).await?;
    Ok(answered(&caller, &changed))
}

fn horizon(text: String) -> Result<Millis, Problem> {
    let (least, most) = IDEMPOTENCY_HORIZON_RANGE;
    let span = text::duration("/idempotency_horizon", &text)?;
    if (least..=most).contains(&span) {
        Ok(span)
    } else {
        Err(Problem::invalid("/idempotency_horizon", format!("expected {least} to {most}")))
    }
}

fn answered(caller: &Caller, changed: &Changed) -> Response {
    let Resource::Workspace(workspace) = &changed.resource else { return answer::gone() };
    answer::changed(changed, &view(caller, workspace), workspace.life.version, "")
}
