//! Endpoints that are told of state changes. Secrets and header values are write-only: a secret has a path of its own.

use super::answer;
use super::app::{App, Caller};
use super::change::{Changed, repeated, submit};
use super::created::{CREATED, Created, CreatedParameters};
use super::docs::Problems;
use super::incoming::Incoming;
use super::input::{Query, nullable, present};
use super::labels::{is_listed, project};
use super::page::{PARAMETERS, Page, Paging};
use super::problem::Problem;
use super::webhook_input::{self as input, seal};
use crate::domain::control::audit::Target;
use crate::domain::control::command::{Command, WebhookDraft, WebhookPatch};
use crate::domain::control::fold::Control;
use crate::domain::control::outcome::Resource;
use crate::domain::control::resource::{DisabledReason, Scope, Webhook, WebhookStatus};
use crate::domain::id::WebhookId;
use crate::notifier::new_secret;
use crate::runtime::clock;
use crate::runtime::courier::{Sealed, secrets};
use axum::extract::{Path, RawQuery, State};
use axum::http::Uri;
use axum::response::Response;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// An endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WebhookView {
    id: String,
    object: &'static str,
    mode: &'static str,
    version: u64,
    url: String,
    /// Names of event types, or `prefix.*`.
    event_types: Vec<String>,
    description: Option<String>,
    /// The names of its own headers; their values are write-only.
    header_names: Vec<String>,
    /// Most deliveries a second.
    rate_limit: Option<u32>,
    metadata: BTreeMap<String, String>,
    /// `enabled`, `paused` or `disabled`.
    status: &'static str,
    /// `gone` behind an answer of 410, `failing` behind five days of nothing but failures.
    disabled_reason: Option<&'static str>,
    /// Since when it has done nothing but fail.
    failing_since: Option<String>,
    /// Events that were dropped because 10,000 deliveries wait in one partition; null where there are none, and once all of them are
    /// sent again.
    overflow: Option<OverflowView>,
    /// The project that it is labelled with: it is told of what is everybody's, and of that project's own.
    project_id: Option<String>,
    /// What verifies signatures; in the answer to its creation alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    created_at: String,
    updated_at: String,
}

/// Events that were dropped because too many deliveries wait.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OverflowView {
    /// How many that were not sent again yet, as far as was told: nodes tell once a minute.
    dropped: u64,
    /// `POST /v1/webhooks/{id}/replay` with `since` at this time sends them again, part by part.
    since: String,
    /// When the last of them was noted.
    until: String,
}

/// An endpoint to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WebhookCreate {
    /// Where to: `https`, and a public address unless it is allowed.
    #[schema(max_length = 2048)]
    url: String,
    /// Names of event types, or `prefix.*`; everything where absent.
    #[serde(default, deserialize_with = "present")]
    event_types: Option<Vec<String>>,
    #[serde(default)]
    description: Option<String>,
    /// At most 10 headers of its own.
    #[serde(default)]
    headers: Option<BTreeMap<String, String>>,
    /// Most deliveries a second, 1 to 1000.
    #[serde(default)]
    rate_limit: Option<u32>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    /// Labels the endpoint with a project, for as long as it exists: of alerts, keys and endpoints it is told of that project's own alone.
    #[serde(default)]
    project_id: Option<String>,
}

/// Changes of an endpoint.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WebhookUpdate {
    #[serde(default, deserialize_with = "present")]
    url: Option<String>,
    /// `null` stands for everything.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Vec<String>>)]
    event_types: Option<Option<Vec<String>>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    description: Option<Option<String>>,
    /// All of its headers; those that are not named go.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    headers: Option<Option<BTreeMap<String, String>>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u32>)]
    rate_limit: Option<Option<u32>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<BTreeMap<String, Option<String>>>)]
    metadata: Option<Option<BTreeMap<String, Option<String>>>>,
}

pub(super) fn view(caller: &Caller, webhook: &Webhook, secret: Option<String>) -> WebhookView {
    WebhookView {
        id: webhook.id.to_string(),
        object: "webhook",
        mode: caller.principal.tenant.mode.name(),
        version: webhook.life.version,
        url: webhook.url.clone(),
        event_types: webhook.event_types.clone(),
        description: webhook.description.clone(),
        header_names: webhook.header_names.clone(),
        rate_limit: webhook.rate_limit,
        metadata: webhook.metadata.clone(),
        status: webhook.status.name(),
        disabled_reason: webhook.disabled_reason.map(DisabledReason::name),
        failing_since: webhook.failing_since.map(|at| at.to_string()),
        overflow: webhook.overflow.map(|overflow| OverflowView {
            dropped: overflow.dropped,
            since: overflow.since.to_string(),
            until: overflow.until.to_string(),
        }),
        project_id: webhook.project.map(|project| project.to_string()),
        secret,
        created_at: webhook.life.created_at.to_string(),
        updated_at: webhook.life.updated_at.to_string(),
    }
}

/// Lists endpoints, newest first.
#[utoipa::path(
    get, path = "/v1/webhooks", tag = "webhooks",
    params(("page" = Option<usize>, Query), ("page_size" = Option<usize>, Query), ("cursor" = Option<String>, Query),
           ("status" = Option<Vec<String>>, Query), ("project_id" = Option<Vec<String>>, Query), CreatedParameters),
    responses((status = 200, body = Page<WebhookView>), Problems), security(("key" = ["read:webhooks"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadWebhooks)?;
    let query = Query::read(query.as_deref(), &[&PARAMETERS[..], &CREATED, &["status", "project_id"]].concat())?;
    let paging = Paging::read(&app, &caller, uri.path(), &query)?;
    let created = Created::read(&query)?;
    let all = [WebhookStatus::Enabled, WebhookStatus::Paused, WebhookStatus::Disabled];
    let statuses = query.read_all("status", "enabled, paused or disabled", |text| {
        all.into_iter().find(|status| status.name() == text)
    })?;
    let projects = query.projects("project_id")?;
    let state = app.node.data.control.state();
    let found = state.webhooks(caller.principal.tenant).filter(|webhook| {
        is_listed(&caller, webhook.project, &projects)
            && (statuses.is_empty() || statuses.contains(&webhook.status))
            && created.holds(webhook.life.created_at)
    });
    let found = created.ordered(found).into_iter().map(|webhook| view(&caller, webhook, None));
    let items = paging.cut(created.order(), found, |webhook| webhook.id.clone());
    drop(state);
    Ok(paging.answer(&app, items, |webhook| webhook.id.clone()))
}

/// Creates an endpoint. Its secret is in this answer, and behind `/secret`.
#[utoipa::path(
    post, path = "/v1/webhooks", tag = "webhooks", request_body = WebhookCreate,
    responses((status = 201, body = WebhookView), Problems), security(("key" = ["write:webhooks"]))
)]
pub(super) async fn create(State(app): State<App>, caller: Caller, incoming: Incoming) -> Result<Response, Problem> {
    caller.require(Scope::WriteWebhooks)?;
    let wanted: WebhookCreate = incoming.json()?;
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return created(&app, &caller, &changed);
    }
    let id = WebhookId(clock::ulid());
    let draft = WebhookDraft {
        url: input::url(&app, &wanted.url)?,
        event_types: input::event_types(wanted.event_types)?,
        description: wanted.description.map(input::description).transpose()?,
        headers: wanted.headers.map(|headers| input::headers(&app, id, headers)).transpose()?,
        rate_limit: wanted.rate_limit.map(input::rate_limit).transpose()?,
        metadata: super::text::map("/metadata", wanted.metadata)?,
        sealed_secret: seal(&app, Sealed::Secret, id, new_secret(clock::random()).as_bytes())?,
        project: project(&app, &caller, wanted.project_id)?,
    };
    let changed = submit(&app, &caller, sent, Command::CreateWebhook { id, draft: Box::new(draft) }).await?;
    created(&app, &caller, &changed)
}

/// The secret is read back from what was sealed, so a replay shows the true one.
fn created(app: &App, caller: &Caller, changed: &Changed) -> Result<Response, Problem> {
    let Resource::Webhook(webhook) = &changed.resource else { return Ok(answer::gone()) };
    let secret = newest_secret(app, webhook)?;
    if changed.replayed {
        app.note_secret(caller, Target::Webhook(webhook.id));
    }
    let location = format!("/v1/webhooks/{}", webhook.id);
    Ok(answer::changed(changed, &view(caller, webhook, Some(secret)), webhook.life.version, &location))
}

/// Opens the secret that signs for ever.
///
/// # Errors
/// 500 where the master key is another one.
pub(super) fn newest_secret(app: &App, webhook: &Webhook) -> Result<String, Problem> {
    let opened = secrets(&app.node.data.vault, webhook, clock::now()).and_then(|all| {
        let newest = all.first().ok_or("there is none")?;
        Ok(newest.expose_secret().to_owned())
    });
    opened.map_err(|error| {
        tracing::error!(webhook = %webhook.id, error, "an endpoint's secret cannot be opened");
        let status = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
        Problem::new(status, "internal_error", "the endpoint's secret cannot be opened")
    })
}

/// Shows an endpoint.
#[utoipa::path(
    get, path = "/v1/webhooks/{id}", tag = "webhooks", params(("id" = String, Path)),
    responses((status = 200, body = WebhookView), Problems), security(("key" = ["read:webhooks"]))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadWebhooks)?;
    Query::read(query.as_deref(), &[])?;
    let webhook = find(&app, &caller, &id)?;
    Ok(answer::show(&caller, &view(&caller, &webhook, None), &etag(&webhook)))
}

/// The version says nothing of how many were dropped, so the tag says it, too.
fn etag(webhook: &Webhook) -> String {
    let version = webhook.life.version;
    webhook.overflow.map_or_else(|| answer::etag(version), |overflow| format!("\"{version}-{}\"", overflow.dropped))
}

/// Changes an endpoint (JSON Merge Patch, RFC 7396). It keeps its secret. An endpoint with headers of its own is moved to another host,
/// port or scheme only with its headers in the same request, or with the scope `manage:webhook-secrets`.
#[utoipa::path(
    patch, path = "/v1/webhooks/{id}", tag = "webhooks", params(("id" = String, Path)), request_body = WebhookUpdate,
    responses((status = 200, body = WebhookView), Problems), security(("key" = ["write:webhooks"]))
)]
pub(super) async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteWebhooks)?;
    let wanted: WebhookUpdate = incoming.json()?;
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return Ok(changed_view(&caller, &changed));
    }
    let webhook = find(&app, &caller, &id)?;
    let id = webhook.id;
    let url = wanted.url.map(|url| input::url(&app, &url)).transpose()?;
    // Values that nobody may read go nowhere else. What was decided on headers that there were holds for these alone.
    let caller = match &url {
        Some(url) if wanted.headers.is_none() && !caller.principal.may(Scope::ManageWebhookSecrets) => {
            keeps_its_host(&caller, &webhook, url)?;
            caller.deciding_on(webhook.life.version)?
        }
        Some(_) | None => caller,
    };
    let headers = match wanted.headers {
        None => None,
        Some(None) => Some(None),
        Some(Some(headers)) => Some(Some(input::headers(&app, id, headers)?)),
    };
    let patch = WebhookPatch {
        url,
        event_types: wanted.event_types.map(input::event_types).transpose()?,
        description: wanted.description.map(|text| text.map(input::description).transpose()).transpose()?,
        headers,
        rate_limit: wanted.rate_limit.map(|limit| limit.map(input::rate_limit).transpose()).transpose()?,
        metadata: super::text::map_patch("/metadata", wanted.metadata)?,
    };
    let changed = submit(&app, &caller, sent, Command::UpdateWebhook { id, patch: Box::new(patch) }).await?;
    Ok(changed_view(&caller, &changed))
}

/// Refuses to take the headers of an endpoint to another host, port or scheme.
fn keeps_its_host(caller: &Caller, webhook: &Webhook, url: &str) -> Result<(), Problem> {
    let origin = |url: &str| url::Url::parse(url).ok().map(|url| url.origin());
    if webhook.header_names.is_empty() || origin(&webhook.url) == origin(url) {
        return Ok(());
    }
    caller.require(Scope::ManageWebhookSecrets).map_err(|problem| {
        let detail =
            format!("{}, or send headers with the new host: it would be sent the values of these", problem.detail);
        Problem { detail, ..problem }
    })
}

/// Shows what a change made of an endpoint.
pub(super) fn changed_view(caller: &Caller, changed: &Changed) -> Response {
    let Resource::Webhook(webhook) = &changed.resource else { return answer::gone() };
    answer::changed(changed, &view(caller, webhook, None), webhook.life.version, "")
}

/// Deletes an endpoint; what is owed to it is given up.
#[utoipa::path(
    delete, path = "/v1/webhooks/{id}", tag = "webhooks", params(("id" = String, Path)),
    responses((status = 204), Problems), security(("key" = ["write:webhooks"]))
)]
pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteWebhooks)?;
    let id = find(&app, &caller, &id)?.id;
    submit(&app, &caller, incoming.sent(), Command::DeleteWebhook { id }).await?;
    Ok(answer::gone())
}

/// Finds an endpoint.
///
/// # Errors
/// 404 where there is none.
pub(super) fn find(app: &App, caller: &Caller, id: &str) -> Result<Webhook, Problem> {
    let id: WebhookId = id.parse().map_err(|_| Problem::not_found("webhook"))?;
    let reached = |webhook: &&Webhook| caller.principal.reaches(webhook.project);
    let found = app.node.data.control.state().webhook(caller.principal.tenant, id).filter(reached).cloned();
    let has = |state: &Control, tenant| state.webhook(tenant, id).filter(reached).is_some();
    found.ok_or_else(|| caller.missing(app, "webhook", has))
}
