//! Projects: labels on credentials, alerts and where they go. A credential that is narrowed to projects sees those alone.

use super::answer;
use super::app::{App, Caller};
use super::change::{Changed, repeated, submit};
use super::created::{CREATED, Created, CreatedParameters, begins_with};
use super::docs::Problems;
use super::grant::escalation;
use super::incoming::Incoming;
use super::input::{Query, nullable, present};
use super::page::{PARAMETERS, Page, Paging};
use super::problem::Problem;
use super::receipt::store_away;
use super::text;
use super::usage::number;
use crate::domain::control::access::{ProjectChange, ProjectDraft};
use crate::domain::control::command::Command;
use crate::domain::control::outcome::Resource;
use crate::domain::control::resource::{Environment, Project, Scope};
use crate::domain::id::ProjectId;
use crate::runtime::{clock, requests};
use axum::extract::{Path, RawQuery, State};
use axum::http::Uri;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A project.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProjectView {
    id: String,
    object: &'static str,
    mode: &'static str,
    version: u64,
    name: String,
    /// `prod`, `staging` or `dev`.
    env: &'static str,
    metadata: BTreeMap<String, String>,
    /// The API requests of its credentials in the last 24 hours, by 5-minute windows; where one project is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    requests_24h: Option<Box<RawValue>>,
    created_at: String,
    updated_at: String,
}

/// A project to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProjectCreate {
    name: String,
    /// `prod` where it is left out.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, pattern = "^(prod|staging|dev)$")]
    env: Option<Environment>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// Changes of a project.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProjectUpdate {
    #[serde(default, deserialize_with = "present")]
    name: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, pattern = "^(prod|staging|dev)$")]
    env: Option<Environment>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<BTreeMap<String, Option<String>>>)]
    metadata: Option<Option<BTreeMap<String, Option<String>>>>,
}

fn view(caller: &Caller, project: &Project) -> ProjectView {
    ProjectView {
        id: project.id.to_string(),
        object: "project",
        mode: caller.principal.tenant.mode.name(),
        version: project.life.version,
        name: project.name.clone(),
        env: project.env.name(),
        metadata: project.metadata.clone(),
        requests_24h: None,
        created_at: project.life.created_at.to_string(),
        updated_at: project.life.updated_at.to_string(),
    }
}

/// Lists projects, newest first.
#[utoipa::path(
    get, path = "/v1/projects", tag = "projects",
    params(("page" = Option<usize>, Query), ("page_size" = Option<usize>, Query), ("cursor" = Option<String>, Query),
           ("env" = Option<Vec<String>>, Query), ("q" = Option<String>, Query, description = "The name begins with"),
           CreatedParameters),
    responses((status = 200, body = Page<ProjectView>), Problems), security(("key" = ["read:projects"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadProjects)?;
    let query = Query::read(query.as_deref(), &[&PARAMETERS[..], &CREATED, &["env", "q"]].concat())?;
    let paging = Paging::read(&app, &caller, uri.path(), &query)?;
    let created = Created::read(&query)?;
    let env = |text: &str| Environment::ALL.into_iter().find(|env| env.name() == text);
    let environments = query.read_all("env", "prod, staging or dev", env)?;
    let prefix = query.one("q")?.unwrap_or_default();
    let state = app.node.data.control.state();
    let fits = |project: &&Project| {
        caller.principal.reaches(Some(project.id))
            && (environments.is_empty() || environments.contains(&project.env))
            && created.holds(project.life.created_at)
            && begins_with(&project.name, prefix)
    };
    let all = created.ordered(state.projects(caller.principal.tenant).filter(fits));
    let all = all.into_iter().map(|project| view(&caller, project));
    let items = paging.cut(created.order(), all, |project| project.id.clone());
    drop(state);
    Ok(paging.answer(&app, items, |project| project.id.clone()))
}

/// Creates a project.
#[utoipa::path(
    post, path = "/v1/projects", tag = "projects", request_body = ProjectCreate,
    responses((status = 201, body = ProjectView), Problems), security(("key" = ["write:projects"]))
)]
pub(super) async fn create(State(app): State<App>, caller: Caller, incoming: Incoming) -> Result<Response, Problem> {
    caller.require(Scope::WriteProjects)?;
    if !caller.principal.projects.is_empty() {
        return Err(escalation("a credential that is narrowed to projects makes no others"));
    }
    let wanted: ProjectCreate = incoming.json()?;
    let draft = ProjectDraft {
        id: ProjectId(clock::ulid()),
        name: text::name("/name", wanted.name)?,
        env: wanted.env.unwrap_or(Environment::Prod),
        metadata: text::map("/metadata", wanted.metadata)?,
    };
    let changed = submit(&app, &caller, incoming.sent(), Command::CreateProject(draft)).await?;
    Ok(answered(&caller, &changed))
}

/// Shows a project with its present usage.
#[utoipa::path(
    get, path = "/v1/projects/{id}", tag = "projects", params(("id" = String, Path)),
    responses((status = 200, body = ProjectView), Problems), security(("key" = ["read:projects"]))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadProjects)?;
    Query::read(query.as_deref(), &[])?;
    let project = find(&app, &caller, &id)?;
    let mode = caller.principal.tenant.mode;
    let requests = requests::requests_24h(&app.node.data.store, mode, project.id, clock::now()).await;
    let requests = number(requests.map_err(store_away)?);
    // The count changes without a version.
    let etag = format!("\"{}-{}\"", project.life.version, requests.get());
    let shown = ProjectView { requests_24h: Some(requests), ..view(&caller, &project) };
    Ok(answer::show(&caller, &shown, &etag))
}

/// Changes a project (JSON Merge Patch, RFC 7396).
#[utoipa::path(
    patch, path = "/v1/projects/{id}", tag = "projects", params(("id" = String, Path)), request_body = ProjectUpdate,
    responses((status = 200, body = ProjectView), Problems), security(("key" = ["write:projects"]))
)]
pub(super) async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteProjects)?;
    let wanted: ProjectUpdate = incoming.json()?;
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return Ok(answered(&caller, &changed));
    }
    let change = ProjectChange {
        id: find(&app, &caller, &id)?.id,
        name: wanted.name.map(|name| text::name("/name", name)).transpose()?,
        env: wanted.env,
        metadata: text::map_patch("/metadata", wanted.metadata)?,
    };
    let changed = submit(&app, &caller, sent, Command::UpdateProject(change)).await?;
    Ok(answered(&caller, &changed))
}

/// Deletes a project that no alert and no working credential names.
#[utoipa::path(
    delete, path = "/v1/projects/{id}", tag = "projects", params(("id" = String, Path)),
    responses((status = 204), Problems), security(("key" = ["write:projects"]))
)]
pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteProjects)?;
    let id = find(&app, &caller, &id)?.id;
    submit(&app, &caller, incoming.sent(), Command::DeleteProject { id }).await?;
    Ok(answer::gone())
}

fn find(app: &App, caller: &Caller, id: &str) -> Result<Project, Problem> {
    let id: ProjectId = id.parse().map_err(|_| Problem::not_found("project"))?;
    if !caller.principal.reaches(Some(id)) {
        return Err(Problem::not_found("project"));
    }
    let found = app.node.data.control.state().project(caller.principal.tenant, id).cloned();
    found.ok_or_else(|| caller.missing(app, "project", |state, tenant| state.project(tenant, id).is_some()))
}

fn answered(caller: &Caller, changed: &Changed) -> Response {
    let Resource::Project(project) = &changed.resource else { return answer::gone() };
    let location = format!("/v1/projects/{}", project.id);
    answer::changed(changed, &view(caller, project), project.life.version, &location)
}
