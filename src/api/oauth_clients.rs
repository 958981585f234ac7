//! OAuth clients: machines that fetch short-lived access tokens instead of holding a key.

use super::answer;
use super::app::{App, Caller};
use super::change::{Changed, repeated, submit};
use super::created::{CREATED, Created, CreatedParameters, begins_with};
use super::docs::Problems;
use super::grant::{
    self, Rights, ScopeList, Wanted, grant, networks, within_addresses, within_projects, within_rights,
};
use super::incoming::Incoming;
use super::input::{Query, defaulted, nullable, present};
use super::key_view::{environment, last_use, used};
use super::page::{PARAMETERS, Page, Paging};
use super::problem::Problem;
use super::shown_once::Aside;
use super::text;
use crate::credential;
use crate::domain::control::access::{ClientChange, SecretRotation};
use crate::domain::control::command::Command;
use crate::domain::control::fold::Control;
use crate::domain::control::outcome::Resource;
use crate::domain::control::resource::{ClientRecord, ClientSecret, OAuthClient, Scope};
use crate::domain::id::{ClientId, ProjectId, Tenant};
use crate::domain::partition::fact::V3;
use crate::domain::time::Timestamp;
use crate::runtime::clock;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use ipnet::IpNet;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// An OAuth client.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ClientView {
    id: String,
    /// The same as `id`.
    client_id: String,
    object: &'static str,
    mode: &'static str,
    version: u64,
    name: String,
    /// The secret; in the answer that made it alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<String>,
    /// What tells the newest secret apart.
    hint: String,
    /// `active` or `expired`.
    status: &'static str,
    scope: Vec<&'static str>,
    role: Option<&'static str>,
    /// The projects that it is narrowed to; all where empty.
    project_ids: Vec<String>,
    /// The environment of its projects, where they share one.
    env: Option<String>,
    /// The addresses and networks that its secret and its tokens may be used from; all where empty.
    allowed_ips: Vec<String>,
    metadata: BTreeMap<String, String>,
    expires_at: Option<String>,
    /// To a minute, as the answering node saw it since it started.
    last_used_at: Option<String>,
    last_used_ip: Option<String>,
    created_by: Option<String>,
    created_at: String,
    updated_at: String,
}

/// An OAuth client to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientCreate {
    name: String,
    /// What its tokens may do; or give a role.
    scope: Option<ScopeList>,
    /// `owner`, `admin`, `developer`, `viewer` or `ingest`.
    role: Option<String>,
    /// `live` or `sandbox`; the caller's own where it is left out.
    mode: Option<String>,
    /// A duration such as `90d`, instead of `expires_at`.
    expires_in: Option<String>,
    expires_at: Option<String>,
    /// Narrows the client to these projects, and to what is labelled with them.
    project_ids: Option<Vec<String>>,
    /// Addresses and networks that its secret and its tokens may be used from, none beyond the caller's; the caller's own where it is
    /// left out.
    #[serde(default, deserialize_with = "present")]
    allowed_ips: Option<Vec<String>>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// Changes of an OAuth client.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientUpdate {
    #[serde(default, deserialize_with = "present")]
    name: Option<String>,
    /// `null` stands for none: it may be used from everywhere, which a caller that is bound to addresses cannot grant.
    #[serde(default, deserialize_with = "defaulted")]
    allowed_ips: Option<Vec<String>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<BTreeMap<String, Option<String>>>)]
    metadata: Option<Option<BTreeMap<String, Option<String>>>>,
}

/// How a secret is replaced.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SecretRotate {
    /// How long the replaced secret, and the tokens that were issued for it, go on to work: 0 to 604800, a day where it
    /// is left out.
    grace_seconds: Option<i64>,
}

fn view(record: &ClientRecord, aside: Aside, now: Timestamp) -> ClientView {
    let client = &record.client;
    ClientView {
        id: client.id.to_string(),
        client_id: client.id.to_string(),
        object: "oauth_client",
        mode: client.tenant.mode.name(),
        version: record.life.version,
        name: client.name.clone(),
        client_secret: aside.secret,
        hint: client.secrets.first().map(|secret| secret.hint.clone()).unwrap_or_default(),
        status: if record.is_active(now) { "active" } else { "expired" },
        scope: client.scopes.iter().map(|scope| Scope::text(*scope)).collect(),
        role: client.role.map(|role| role.text()),
        project_ids: client.projects.iter().map(ProjectId::to_string).collect(),
        env: aside.env,
        allowed_ips: client.allowed_ips.iter().map(IpNet::to_string).collect(),
        metadata: client.metadata.clone(),
        expires_at: client.expires_at.map(|at| at.to_string()),
        last_used_at: aside.last_used_at,
        last_used_ip: aside.last_used_ip,
        created_by: record.created_by.map(|id| id.to_string()),
        created_at: record.life.created_at.to_string(),
        updated_at: record.life.updated_at.to_string(),
    }
}

fn aside(app: &App, state: &Control, record: &ClientRecord) -> Aside {
    let client = &record.client;
    Aside { env: environment(state, client.tenant, &client.projects), ..used(app, state, record.as_key()) }
}

/// Lists the OAuth clients of the caller's workspace and mode, newest first.
#[utoipa::path(
    get, path = "/v1/oauth/clients", tag = "oauth",
    params(("page" = Option<usize>, Query), ("page_size" = Option<usize>, Query), ("cursor" = Option<String>, Query),
           ("q" = Option<String>, Query, description = "The name begins with"), CreatedParameters),
    responses((status = 200, body = Page<ClientView>), Problems), security(("key" = ["read:keys"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadKeys)?;
    let query = Query::read(query.as_deref(), &[&PARAMETERS[..], &CREATED, &["q"]].concat())?;
    let paging = Paging::read(&app, &caller, uri.path(), &query)?;
    let created = Created::read(&query)?;
    let prefix = query.one("q")?.unwrap_or_default();
    let now = clock::now();
    let state = app.node.data.control.state();
    let tenant = caller.principal.tenant;
    let all = created.ordered(state.clients(tenant).filter(|record| {
        sees(&caller, tenant, record)
            && created.holds(record.life.created_at)
            && begins_with(&record.client.name, prefix)
    }));
    let page = paging.cut(created.order(), all.into_iter(), |record| record.client.id.to_string());
    let items = page.into_iter().map(|record| view(record, aside(&app, &state, record), now)).collect();
    drop(state);
    Ok(paging.answer(&app, items, |client: &ClientView| client.id.clone()))
}

/// Creates an OAuth client. Its tokens may do no more than the caller; its secret is shown in this answer alone.
#[utoipa::path(
    post, path = "/v1/oauth/clients", tag = "oauth", request_body = ClientCreate,
    responses((status = 201, body = ClientView), Problems), security(("key" = ["write:keys"]))
)]
pub(super) async fn create(State(app): State<App>, caller: Caller, incoming: Incoming) -> Result<Response, Problem> {
    caller.require(Scope::WriteKeys)?;
    let wanted: ClientCreate = incoming.json()?;
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return answered(&app, &caller, &changed, Aside::default());
    }
    let name = text::name("/name", wanted.name)?;
    let metadata = text::map("/metadata", wanted.metadata)?;
    let asked = Wanted {
        scope: wanted.scope,
        role: wanted.role,
        mode: wanted.mode,
        project_ids: wanted.project_ids,
        expires_in: wanted.expires_in,
        expires_at: wanted.expires_at,
        allowed_ips: wanted.allowed_ips,
    };
    let given = grant(&app, &caller, asked)?;
    if !given.allowed_ips.is_empty() {
        every_node_knows_bounds(&app)?;
    }
    let secret = credential::generate_secret(given.tenant.mode, clock::random());
    let text = secret.expose_secret();
    let aside = Aside {
        secret: Some(text.to_owned()),
        env: environment(&app.node.data.control.state(), given.tenant, &given.projects),
        ..Aside::default()
    };
    let first =
        ClientSecret { generation: 1, hash: credential::hash(text), hint: credential::secret_hint(text), until: None };
    let client = OAuthClient {
        id: ClientId(clock::ulid()),
        tenant: given.tenant,
        name,
        // The bits of its tokens count in this set, which is why it is whole from the beginning.
        scopes: Scope::closure(&given.scopes),
        role: given.role,
        projects: given.projects,
        expires_at: given.expires_at,
        allowed_ips: given.allowed_ips,
        metadata,
        secrets: vec![first],
    };
    let beside = aside.seal(&app, &caller)?;
    let command = Command::CreateClient(Box::new(client));
    let changed = submit(&app, &caller, sent.showing(&beside), command).await?;
    answered(&app, &caller, &changed, aside)
}

/// Shows an OAuth client, without its secret.
#[utoipa::path(
    get, path = "/v1/oauth/clients/{id}", tag = "oauth", params(("id" = String, Path)),
    responses((status = 200, body = ClientView), Problems), security(("key" = ["read:keys"]))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadKeys)?;
    Query::read(query.as_deref(), &[])?;
    let record = find(&app, &caller, &id)?;
    let (now, state) = (clock::now(), app.node.data.control.state());
    let shown = view(&record, aside(&app, &state, &record), now);
    // How it stands and when it was used change without a version.
    let told = format!("{} {:?}", record.is_active(now), last_use(&app, &state, record.as_key()).map(|last| last.at.0));
    let etag = format!("\"{}-{:08x}\"", record.life.version, crc32fast::hash(told.as_bytes()));
    Ok(answer::show(&caller, &shown, &etag))
}

/// Changes an OAuth client's name, networks or notes (JSON Merge Patch, RFC 7396).
#[utoipa::path(
    patch, path = "/v1/oauth/clients/{id}", tag = "oauth", params(("id" = String, Path)), request_body = ClientUpdate,
    responses((status = 200, body = ClientView), Problems), security(("key" = ["write:keys"]))
)]
pub(super) async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteKeys)?;
    let wanted: ClientUpdate = incoming.json()?;
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return answered(&app, &caller, &changed, Aside::default());
    }
    let record = find(&app, &caller, &id)?;
    within_rights(&caller, Rights::of_client(&record.client))?;
    let allowed_ips = wanted.allowed_ips.map(networks).transpose()?;
    allowed_ips.as_deref().map_or(Ok(()), |networks| within_addresses(&caller, networks))?;
    let change = ClientChange {
        id: record.client.id,
        name: wanted.name.map(|name| text::name("/name", name)).transpose()?,
        allowed_ips,
        metadata: text::map_patch("/metadata", wanted.metadata)?,
    };
    every_node_knows_bounds(&app)?;
    let aside = aside(&app, &app.node.data.control.state(), &record);
    let beside = aside.seal(&app, &caller)?;
    let changed = submit(&app, &caller, sent.showing(&beside), Command::UpdateClient(change)).await?;
    answered(&app, &caller, &changed, aside)
}

/// Refuses what a node of an older release would not read, or would read as a client without a bound.
///
/// # Errors
/// 409 `invalid_state` while one may be in the cluster.
fn every_node_knows_bounds(app: &App) -> Result<(), Problem> {
    if app.node.data.control.state().engine_version() >= V3 {
        return Ok(());
    }
    let detail = "a node of an older release does not know this; try again once all nodes are updated";
    Err(Problem::new(StatusCode::CONFLICT, "invalid_state", detail))
}

/// Replaces the secret of an OAuth client; the new one is shown in this answer alone.
#[utoipa::path(
    post, path = "/v1/oauth/clients/{id}/rotate-secret", tag = "oauth", params(("id" = String, Path)),
    request_body = Option<SecretRotate>,
    responses((status = 200, body = ClientView), Problems), security(("key" = ["write:keys"]))
)]
pub(super) async fn rotate_secret(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteKeys)?;
    let wanted: SecretRotate = if incoming.body.is_empty() { SecretRotate::default() } else { incoming.json()? };
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return answered(&app, &caller, &changed, Aside::default());
    }
    let record = find(&app, &caller, &id)?;
    within_rights(&caller, Rights::of_client(&record.client))?;
    let grace = grant::grace(wanted.grace_seconds)?;
    let secret = credential::generate_secret(record.client.tenant.mode, clock::random());
    let text = secret.expose_secret();
    let aside = Aside { secret: Some(text.to_owned()), ..aside(&app, &app.node.data.control.state(), &record) };
    let rotation = SecretRotation {
        client: record.client.id,
        hash: credential::hash(text),
        hint: credential::secret_hint(text),
        grace,
    };
    let beside = aside.seal(&app, &caller)?;
    let changed = submit(&app, &caller, sent.showing(&beside), Command::RotateClientSecret(rotation)).await?;
    answered(&app, &caller, &changed, aside)
}

/// Deletes an OAuth client. Its tokens end with it, from their very next request on.
#[utoipa::path(
    delete, path = "/v1/oauth/clients/{id}", tag = "oauth", params(("id" = String, Path)),
    responses((status = 204), Problems), security(("key" = ["write:keys"]))
)]
pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteKeys)?;
    let record = find(&app, &caller, &id)?;
    within_rights(&caller, Rights::of_client(&record.client))?;
    let id = record.client.id;
    submit(&app, &caller, incoming.sent(), Command::DeleteClient { id }).await?;
    Ok(answer::gone())
}

/// Whether a caller sees a client of a tenant. Who is narrowed to projects sees clients that are narrowed to no others.
fn sees(caller: &Caller, tenant: Tenant, record: &ClientRecord) -> bool {
    record.client.tenant == tenant && within_projects(caller, &record.client.projects).is_ok()
}

fn find(app: &App, caller: &Caller, id: &str) -> Result<ClientRecord, Problem> {
    let id: ClientId = id.parse().map_err(|_| Problem::not_found("oauth client"))?;
    let has = |state: &Control, tenant| state.client(id).is_some_and(|record| sees(caller, tenant, record));
    let state = app.node.data.control.state();
    let found = state.client(id).filter(|record| sees(caller, caller.principal.tenant, record)).cloned();
    drop(state);
    found.ok_or_else(|| caller.missing(app, "oauth client", has))
}

fn answered(app: &App, caller: &Caller, changed: &Changed, aside: Aside) -> Result<Response, Problem> {
    let Resource::Client(record) = &changed.resource else { return Ok(answer::gone()) };
    let aside = aside.of(app, caller, changed)?;
    let shown = view(record, aside, record.life.updated_at);
    Ok(answer::changed(changed, &shown, record.life.version, &format!("/v1/oauth/clients/{}", record.client.id)))
}
