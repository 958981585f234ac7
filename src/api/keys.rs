//! API keys: made, listed, rotated, revoked. What a key may do never changes.

use super::answer;
use super::app::{App, Caller};
use super::change::{repeated, submit};
use super::created::{CREATED, Created, CreatedParameters, begins_with};
use super::docs::Problems;
use super::grant::{
    self, Rights, ScopeList, Wanted, grant, networks, within_addresses, within_projects, within_rights,
};
use super::incoming::Incoming;
use super::input::{Nothing, Query, defaulted, empty, nullable, present};
use super::key_view::{KeyView, answered, aside, environment, last_use, view};
use super::page::{PARAMETERS, Page, Paging};
use super::problem::Problem;
use super::shown_once::Aside;
use super::text;
use crate::credential;
use crate::domain::control::access::{KeyChange, KeyRotation};
use crate::domain::control::command::Command;
use crate::domain::control::fold::Control;
use crate::domain::control::resource::{ApiKey, KeyRecord, KeyStatus, Scope};
use crate::domain::id::{KeyId, Tenant};
use crate::runtime::clock;
use axum::extract::{Path, RawQuery, State};
use axum::http::Uri;
use axum::response::Response;
use secrecy::ExposeSecret;
use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// An API key to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyCreate {
    name: String,
    /// What it may do; or give a role.
    scope: Option<ScopeList>,
    /// `owner`, `admin`, `developer`, `viewer` or `ingest`: its scopes are frozen on the key.
    role: Option<String>,
    /// `live` or `sandbox`; the caller's own where it is left out.
    mode: Option<String>,
    /// A duration such as `90d`, instead of `expires_at`.
    expires_in: Option<String>,
    expires_at: Option<String>,
    /// Narrows the key to these projects, and to what is labelled with them.
    project_ids: Option<Vec<String>>,
    /// Addresses and networks that it may be used from, none beyond the caller's; the caller's own where it is left out.
    #[serde(default, deserialize_with = "present")]
    allowed_ips: Option<Vec<String>>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// Changes of an API key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyUpdate {
    #[serde(default, deserialize_with = "present")]
    name: Option<String>,
    /// `null` stands for none: the key may be used from everywhere, which a caller that is bound to addresses cannot grant.
    #[serde(default, deserialize_with = "defaulted")]
    allowed_ips: Option<Vec<String>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<BTreeMap<String, Option<String>>>)]
    metadata: Option<Option<BTreeMap<String, Option<String>>>>,
}

/// How a key is replaced.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct KeyRotate {
    /// How long the replaced key goes on to work, never past its own end: 0 to 604800, a day where it is left out.
    grace_seconds: Option<i64>,
    /// A duration such as `90d`, instead of `expires_at`. The new key ends as the replaced one where both are left out.
    expires_in: Option<String>,
    expires_at: Option<String>,
}

/// Lists the keys of the caller's workspace and mode, newest first.
#[utoipa::path(
    get, path = "/v1/api-keys", tag = "api-keys",
    params(("page" = Option<usize>, Query), ("page_size" = Option<usize>, Query), ("cursor" = Option<String>, Query),
           ("status" = Option<Vec<String>>, Query), ("project_id" = Option<Vec<String>>, Query),
           ("q" = Option<String>, Query, description = "The name begins with"), CreatedParameters),
    responses((status = 200, body = Page<KeyView>), Problems), security(("key" = ["read:keys"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadKeys)?;
    let query = Query::read(query.as_deref(), &[&PARAMETERS[..], &CREATED, &["status", "project_id", "q"]].concat())?;
    let paging = Paging::read(&app, &caller, uri.path(), &query)?;
    let created = Created::read(&query)?;
    let status = |text: &str| KeyStatus::ALL.into_iter().find(|status| status.name() == text);
    let statuses = query.read_all("status", "active, rotating, revoked or expired", status)?;
    let projects = query.projects("project_id")?;
    let prefix = query.one("q")?.unwrap_or_default();
    let now = clock::now();
    let state = app.node.data.control.state();
    let fits = |record: &&KeyRecord| {
        sees(&caller, caller.principal.tenant, record)
            && (statuses.is_empty() || statuses.contains(&record.status(now)))
            && (projects.is_empty() || record.key.projects.iter().any(|id| projects.contains(id)))
            && created.holds(record.life.created_at)
            && begins_with(&record.key.name, prefix)
    };
    let all = created.ordered(state.keys(caller.principal.tenant.workspace).filter(fits));
    let page = paging.cut(created.order(), all.into_iter(), |record| record.key.id.to_string());
    let items = page.into_iter().map(|record| view(record, aside(&app, &state, record), now)).collect();
    drop(state);
    Ok(paging.answer(&app, items, |key: &KeyView| key.id.clone()))
}

/// Creates a key. It may do no more than the caller, for no longer; it is shown in this answer alone.
#[utoipa::path(
    post, path = "/v1/api-keys", tag = "api-keys", request_body = KeyCreate,
    responses((status = 201, body = KeyView), Problems), security(("key" = ["write:keys"]))
)]
pub(super) async fn create(State(app): State<App>, caller: Caller, incoming: Incoming) -> Result<Response, Problem> {
    caller.require(Scope::WriteKeys)?;
    let wanted: KeyCreate = incoming.json()?;
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
    let secret = credential::generate(given.tenant.mode, clock::random());
    let text = secret.expose_secret();
    let id = KeyId(clock::ulid());
    let aside = Aside {
        secret: Some(text.to_owned()),
        env: environment(&app.node.data.control.state(), given.tenant, &given.projects),
        ..Aside::default()
    };
    let key = ApiKey {
        id,
        lookup: lookup(text)?,
        hash: credential::hash(text),
        workspace: given.tenant.workspace,
        mode: given.tenant.mode,
        lineage: id,
        name,
        scopes: given.scopes,
        projects: given.projects,
        hint: credential::hint(text),
        expires_at: given.expires_at,
        rate_limit: None,
        role: given.role,
        allowed_ips: given.allowed_ips,
        metadata,
    };
    let beside = aside.seal(&app, &caller)?;
    let changed = submit(&app, &caller, sent.showing(&beside), Command::CreateKey { key }).await?;
    answered(&app, &caller, &changed, aside)
}

fn lookup(key: &str) -> Result<String, Problem> {
    credential::parse(key).map(|parsed| parsed.lookup).map_err(|error| Problem::internal(&error))
}

/// Shows a key, without its secret.
#[utoipa::path(
    get, path = "/v1/api-keys/{id}", tag = "api-keys", params(("id" = String, Path)),
    responses((status = 200, body = KeyView), Problems), security(("key" = ["read:keys"]))
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
    let told =
        format!("{} {:?}", record.status(now).name(), last_use(&app, &state, record.key.id).map(|last| last.at.0));
    let etag = format!("\"{}-{:08x}\"", record.life.version, crc32fast::hash(told.as_bytes()));
    Ok(answer::show(&caller, &shown, &etag))
}

/// Changes a key's name, networks or notes (JSON Merge Patch, RFC 7396).
#[utoipa::path(
    patch, path = "/v1/api-keys/{id}", tag = "api-keys", params(("id" = String, Path)), request_body = KeyUpdate,
    responses((status = 200, body = KeyView), Problems), security(("key" = ["write:keys"]))
)]
pub(super) async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteKeys)?;
    let wanted: KeyUpdate = incoming.json()?;
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return answered(&app, &caller, &changed, Aside::default());
    }
    let record = find(&app, &caller, &id)?;
    within_rights(&caller, Rights::of_key(&record.key))?;
    let allowed_ips = wanted.allowed_ips.map(networks).transpose()?;
    allowed_ips.as_deref().map_or(Ok(()), |networks| within_addresses(&caller, networks))?;
    let change = KeyChange {
        id: record.key.id,
        name: wanted.name.map(|name| text::name("/name", name)).transpose()?,
        allowed_ips,
        metadata: text::map_patch("/metadata", wanted.metadata)?,
    };
    let aside = aside(&app, &app.node.data.control.state(), &record);
    let beside = aside.seal(&app, &caller)?;
    let changed = submit(&app, &caller, sent.showing(&beside), Command::UpdateKey(change)).await?;
    answered(&app, &caller, &changed, aside)
}

/// Replaces a key by a new one that may do the same, shown in this answer alone. Both share their rate limit and their
/// idempotency keys.
#[utoipa::path(
    post, path = "/v1/api-keys/{id}/rotate", tag = "api-keys", params(("id" = String, Path)),
    request_body = Option<KeyRotate>,
    responses((status = 201, body = KeyView), Problems), security(("key" = ["write:keys"]))
)]
pub(super) async fn rotate(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteKeys)?;
    let wanted: KeyRotate = if incoming.body.is_empty() { KeyRotate::default() } else { incoming.json()? };
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return answered(&app, &caller, &changed, Aside::default());
    }
    let record = find(&app, &caller, &id)?;
    within_rights(&caller, Rights::of_key(&record.key))?;
    let grace = grant::grace(wanted.grace_seconds)?;
    let expires_at = grant::expiry(&caller, wanted.expires_in, wanted.expires_at)?;
    // What a caller that ends hands on ends no later.
    let expires_at = match (expires_at, record.key.expires_at, caller.principal.expires_at) {
        (Some(wanted), _, _) => Some(wanted),
        (None, kept, Some(own)) if kept.is_none_or(|kept| kept > own) => Some(own),
        (None, _, _) => None,
    };
    let secret = credential::generate(record.key.mode, clock::random());
    let text = secret.expose_secret();
    let tenant = Tenant { workspace: record.key.workspace, mode: record.key.mode };
    let aside = Aside {
        secret: Some(text.to_owned()),
        env: environment(&app.node.data.control.state(), tenant, &record.key.projects),
        ..Aside::default()
    };
    let rotation = KeyRotation {
        from: record.key.id,
        id: KeyId(clock::ulid()),
        lookup: lookup(text)?,
        hash: credential::hash(text),
        hint: credential::hint(text),
        grace,
        expires_at,
    };
    let beside = aside.seal(&app, &caller)?;
    let command = Command::RotateKey(Box::new(rotation));
    let changed = submit(&app, &caller, sent.showing(&beside), command).await?;
    answered(&app, &caller, &changed, aside)
}

/// Revokes a key, from its very next request on. A key may revoke itself whatever its scopes; none revokes one that has more rights.
#[utoipa::path(
    post, path = "/v1/api-keys/{id}/revoke", tag = "api-keys", params(("id" = String, Path)),
    request_body = Option<Nothing>,
    responses((status = 200, body = KeyView), Problems), security(("key" = ["write:keys"]))
)]
pub(super) async fn revoke(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    let is_own = caller.principal.client.is_none() && id == caller.principal.key_id.to_string();
    if !is_own {
        caller.require(Scope::WriteKeys)?;
    }
    empty(&incoming.headers, &incoming.body)?;
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return answered(&app, &caller, &changed, Aside::default());
    }
    let record = find(&app, &caller, &id)?;
    if !is_own {
        within_rights(&caller, Rights::of_key(&record.key))?;
    }
    let aside = aside(&app, &app.node.data.control.state(), &record);
    let beside = aside.seal(&app, &caller)?;
    let command = Command::RevokeKey { id: record.key.id };
    let changed = submit(&app, &caller, sent.showing(&beside), command).await?;
    answered(&app, &caller, &changed, aside)
}

/// Whether a caller sees a key of a tenant. Who is narrowed to projects sees keys that are narrowed to no others.
fn sees(caller: &Caller, tenant: Tenant, record: &KeyRecord) -> bool {
    let key = &record.key;
    Tenant { workspace: key.workspace, mode: key.mode } == tenant && within_projects(caller, &key.projects).is_ok()
}

fn find(app: &App, caller: &Caller, id: &str) -> Result<KeyRecord, Problem> {
    let id: KeyId = id.parse().map_err(|_| Problem::not_found("api key"))?;
    let has = |state: &Control, tenant| state.key(id).is_some_and(|record| sees(caller, tenant, record));
    let found =
        app.node.data.control.state().key(id).filter(|record| sees(caller, caller.principal.tenant, record)).cloned();
    found.ok_or_else(|| caller.missing(app, "api key", has))
}
