//! Whom the caller speaks for, and within which bounds.

use super::app::{App, Caller};
use super::docs::Problems;
use super::gate::Policy;
use super::input::Query;
use super::problem::Problem;
use crate::domain::control::resource::Scope;
use crate::domain::id::ProjectId;
use axum::Json;
use axum::extract::{RawQuery, State};
use serde::Serialize;
use utoipa::ToSchema;

/// Whom the caller speaks for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Whoami {
    object: &'static str,
    workspace_id: String,
    workspace_name: String,
    /// `live` or `sandbox`.
    mode: &'static str,
    /// The API key; null where an access token was presented.
    key_id: Option<String>,
    /// The OAuth client; null where an API key was presented.
    client_id: Option<String>,
    name: String,
    /// What it may do, with what its scopes bring along.
    scopes: Vec<&'static str>,
    /// The projects that it is narrowed to; all where empty.
    project_ids: Vec<String>,
    expires_at: Option<String>,
    /// How often it may ask: in general, and for events.
    rate_limits: Vec<RateLimit>,
    horizons: Horizons,
}

/// A limit on requests.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RateLimit {
    /// As `RateLimit-Policy` names it.
    policy: &'static str,
    /// How many requests are allowed in any window; null where there is no limit.
    limit: Option<u32>,
    window: String,
}

/// How far back things reach.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Horizons {
    /// How old an event may be.
    lateness_horizon: String,
    /// How long an event's id is remembered.
    dedup_horizon: String,
    /// How long a late event corrects what a closed window decided.
    correction_horizon: String,
    /// How long after its end a window stays open.
    grace: String,
    /// How long the answer to an `Idempotency-Key` is kept.
    idempotency_horizon: String,
}

/// Shows whom the caller speaks for. Any valid credential may ask.
#[utoipa::path(
    get, path = "/v1/whoami", tag = "whoami",
    responses((status = 200, body = Whoami), Problems), security(("key" = []))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<Whoami>, Problem> {
    Query::read(query.as_deref(), &[])?;
    let who = &caller.principal;
    let state = app.node.data.control.state();
    let workspace = state.workspace(who.tenant.workspace).ok_or_else(|| Problem::not_found("workspace"))?;
    let name = match who.client {
        None => state.key(who.key_id).map(|record| record.key.name.clone()),
        Some(client) => state.client(client).map(|record| record.client.name.clone()),
    };
    let settings = state.settings();
    Ok(Json(Whoami {
        object: "whoami",
        workspace_id: workspace.id.to_string(),
        workspace_name: workspace.name.clone(),
        mode: who.tenant.mode.name(),
        key_id: who.client.is_none().then(|| who.key_id.to_string()),
        client_id: who.client.map(|client| client.to_string()),
        name: name.unwrap_or_default(),
        scopes: who.scopes.iter().map(Scope::text).collect(),
        project_ids: who.projects.iter().map(ProjectId::to_string).collect(),
        expires_at: who.expires_at.map(|at| at.to_string()),
        rate_limits: app.gate.policies(who).into_iter().map(rate_limit).collect(),
        horizons: Horizons {
            lateness_horizon: settings.lateness_horizon.to_string(),
            dedup_horizon: settings.dedup_horizon.to_string(),
            correction_horizon: settings.correction_horizon.to_string(),
            grace: settings.grace.to_string(),
            idempotency_horizon: workspace.idempotency_horizon.to_string(),
        },
    }))
}

fn rate_limit(policy: Policy) -> RateLimit {
    RateLimit {
        policy: policy.name,
        limit: (policy.limit > 0).then_some(policy.limit),
        window: policy.window.to_string(),
    }
}
