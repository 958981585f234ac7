//! Channels: where notifications go. Targets are write-only: what is shown of one is a hint.

use super::answer;
use super::app::{App, Caller};
use super::change::{Changed, repeated, submit};
use super::created::{CREATED, Created, CreatedParameters, begins_with};
use super::delivered::{DeliveredView, delivered};
use super::docs::Problems;
use super::incoming::Incoming;
use super::input::{Query, defaulted, present};
use super::labels::{is_listed, project};
use super::page::{PARAMETERS, Page, Paging};
use super::problem::Problem;
use super::text;
use crate::domain::control::command::{ChannelDraft, ChannelPatch, Command};
use crate::domain::control::fold::Control;
use crate::domain::control::outcome::Resource;
use crate::domain::control::resource::{Channel, ChannelKind, Scope};
use crate::domain::id::ChannelId;
use crate::notifier::{TargetKind, new_secret};
use crate::runtime::clock;
use crate::runtime::target::Target;
use crate::store::LastDeliveryQuery;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A channel.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChannelView {
    id: String,
    object: &'static str,
    mode: &'static str,
    version: u64,
    /// `slack` or `webhook`.
    r#type: &'static str,
    name: String,
    /// Whether alerts that name only the type go here; of the channels with the same label one at most.
    default: bool,
    /// The target with its secret parts left out.
    hint: String,
    /// The project that it is labelled with.
    project_id: Option<String>,
    /// `ok`, or `failing`: it lost a message and took none since.
    status: &'static str,
    /// Since when it loses messages.
    failing_since: Option<String>,
    /// The delivery that changed last; null where there is none, or where the store is away.
    last_delivery: Option<DeliveredView>,
    /// What verifies a webhook's signature; shown once, when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    created_at: String,
    updated_at: String,
}

/// A channel to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChannelCreate {
    /// `slack` or `webhook`.
    #[schema(value_type = String, pattern = "^(slack|webhook)$")]
    r#type: ChannelKind,
    name: String,
    /// The webhook's URL, or Slack's incoming webhook.
    url: Option<String>,
    /// Slack's bot token, instead of a URL; resolved messages then answer in the thread.
    bot_token: Option<String>,
    /// The Slack channel that the bot posts to.
    slack_channel: Option<String>,
    /// Another base than `https://slack.com/api/`, for Slack-compatible servers that are allow-listed.
    slack_api_url: Option<String>,
    #[serde(default)]
    default: bool,
    /// Labels the channel with a project, for as long as it exists.
    project_id: Option<String>,
}

/// Changes of a channel.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChannelUpdate {
    #[serde(default, deserialize_with = "present")]
    name: Option<String>,
    /// `null` stands for false.
    #[serde(default, deserialize_with = "defaulted")]
    default: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    url: Option<String>,
    #[serde(default, deserialize_with = "present")]
    bot_token: Option<String>,
    #[serde(default, deserialize_with = "present")]
    slack_channel: Option<String>,
}

fn view(
    caller: &Caller,
    channel: &Channel,
    last_delivery: Option<DeliveredView>,
    secret: Option<String>,
) -> ChannelView {
    ChannelView {
        id: channel.id.to_string(),
        object: "channel",
        mode: caller.principal.tenant.mode.name(),
        version: channel.life.version,
        r#type: channel.kind.name(),
        name: channel.name.clone(),
        default: channel.default,
        hint: channel.hint.clone(),
        project_id: channel.project.map(|project| project.to_string()),
        status: channel.status(),
        failing_since: channel.failing_since.map(|at| at.to_string()),
        last_delivery,
        secret,
        created_at: channel.life.created_at.to_string(),
        updated_at: channel.life.updated_at.to_string(),
    }
}

/// Vets a target's URL.
fn vetted(app: &App, pointer: &str, url: &str, kind: TargetKind) -> Result<url::Url, Problem> {
    app.node.notifier.guard().check_url(url, kind).map_err(|error| {
        let problem = Problem::invalid(pointer, error.to_string());
        Problem { code: "target_blocked", ..problem }
    })
}

fn target(app: &App, wanted: &ChannelCreate) -> Result<(Target, String), Problem> {
    if wanted.bot_token.is_none() {
        // What would be passed over in silence looks as if it had been taken.
        for (pointer, given) in [("/slack_channel", &wanted.slack_channel), ("/slack_api_url", &wanted.slack_api_url)] {
            if given.is_some() {
                return Err(Problem::invalid(pointer, "only a bot has this; give bot_token, too"));
            }
        }
    }
    match (wanted.r#type, &wanted.url, &wanted.bot_token) {
        (ChannelKind::Webhook, Some(url), None) => {
            let url = vetted(app, "/url", url, TargetKind::Webhook)?;
            let secret = new_secret(clock::random());
            Ok((Target::Webhook { url: url.to_string(), secrets: vec![secret] }, hint(&url)))
        }
        (ChannelKind::Slack, Some(url), None) => {
            let url = vetted(app, "/url", url, TargetKind::Slack)?;
            Ok((Target::SlackWebhook { url: url.to_string() }, hint(&url)))
        }
        (ChannelKind::Slack, None, Some(token)) => {
            let channel = wanted.slack_channel.clone().filter(|channel| !channel.is_empty());
            let channel =
                channel.ok_or_else(|| Problem::invalid("/slack_channel", "a bot needs the channel to post to"))?;
            let (token, channel) = (bot_token(token.clone())?, text::name("/slack_channel", channel)?);
            let api = match &wanted.slack_api_url {
                Some(api) => Some(vetted(app, "/slack_api_url", api, TargetKind::Webhook)?.to_string()),
                None => None,
            };
            let hint = format!("bot in {channel}");
            Ok((Target::SlackBot { token, channel, api }, hint))
        }
        (ChannelKind::Webhook, _, Some(_)) => Err(Problem::invalid("/bot_token", "only Slack has bots")),
        (ChannelKind::Webhook, None, None) => Err(Problem::invalid("/url", "the field is required")),
        (ChannelKind::Slack, None, None) => {
            Err(Problem::invalid("/url", "give url (incoming webhook) or bot_token with slack_channel"))
        }
        (ChannelKind::Slack, Some(_), Some(_)) => {
            Err(Problem::invalid("/bot_token", "give url or bot_token, not both"))
        }
    }
}

/// Checks a bot's token: it travels in a header.
fn bot_token(token: String) -> Result<String, Problem> {
    let fits = (1..=512).contains(&token.len()) && token.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
    if fits { Ok(token) } else { Err(Problem::invalid("/bot_token", "expected 1 to 512 visible ASCII characters")) }
}

/// The host, and nothing of a path that may be secret.
fn hint(url: &url::Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}/…", url.scheme(), url.host_str().unwrap_or(""))
}

/// Lists channels, newest first.
#[utoipa::path(
    get, path = "/v1/channels", tag = "channels",
    params(("page" = Option<usize>, Query), ("page_size" = Option<usize>, Query), ("cursor" = Option<String>, Query),
           ("type" = Option<Vec<String>>, Query), ("project_id" = Option<Vec<String>>, Query), ("q" = Option<String>, Query, description = "The name begins with"),
           CreatedParameters),
    responses((status = 200, body = Page<ChannelView>), Problems), security(("key" = ["read:channels"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadChannels)?;
    let query = Query::read(query.as_deref(), &[&PARAMETERS[..], &CREATED, &["type", "project_id", "q"]].concat())?;
    let paging = Paging::read(&app, &caller, uri.path(), &query)?;
    let created = Created::read(&query)?;
    let prefix = query.one("q")?.unwrap_or("");
    let kinds = query.read_all("type", "slack or webhook", |text| match text {
        "slack" => Some(ChannelKind::Slack),
        "webhook" => Some(ChannelKind::Webhook),
        _ => None,
    })?;
    let projects = query.projects("project_id")?;
    let items = {
        let state = app.node.data.control.state();
        let all = state.channels(caller.principal.tenant).filter(|channel| {
            is_listed(&caller, channel.project, &projects)
                && (kinds.is_empty() || kinds.contains(&channel.kind))
                && created.holds(channel.life.created_at)
                && begins_with(&channel.name, prefix)
        });
        let all = created.ordered(all).into_iter().cloned();
        paging.cut(created.order(), all, |channel| channel.id.to_string())
    };
    let mut last = last_deliveries(&app, &caller, items.iter().map(|channel| channel.id).collect()).await;
    let items = items.iter().map(|channel| view(&caller, channel, last.remove(&channel.id), None)).collect();
    Ok(paging.answer(&app, items, |channel: &ChannelView| channel.id.clone()))
}

/// The delivery of each channel that changed last. What does not answer hides no channel.
async fn last_deliveries(app: &App, caller: &Caller, channels: Vec<ChannelId>) -> BTreeMap<ChannelId, DeliveredView> {
    let asked = LastDeliveryQuery { tenant: caller.principal.tenant, channels };
    let rows = match app.node.data.store.last_deliveries(asked).await {
        Ok(rows) => rows,
        Err(error) => {
            tracing::warn!(error = %crate::telemetry::chain(&error), "channels are shown without their last deliveries");
            Vec::new()
        }
    };
    rows.iter().map(|row| (row.channel, delivered(app, caller, row))).collect()
}

/// Creates a channel. A webhook's secret is in this answer only.
#[utoipa::path(
    post, path = "/v1/channels", tag = "channels", request_body = ChannelCreate,
    responses((status = 201, body = ChannelView), Problems), security(("key" = ["write:channels"]))
)]
pub(super) async fn create(State(app): State<App>, caller: Caller, incoming: Incoming) -> Result<Response, Problem> {
    caller.require(Scope::WriteChannels)?;
    let wanted: ChannelCreate = incoming.json()?;
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return answered(&app, &caller, &changed);
    }
    let name = text::name("/name", wanted.name.clone())?;
    let (target, hint) = target(&app, &wanted)?;
    let id = ChannelId(clock::ulid());
    let sealed = target.seal(&app.node.data.vault, id).map_err(|error| Problem::internal(&error))?;
    let project = project(&app, &caller, wanted.project_id)?;
    let draft = ChannelDraft { kind: wanted.r#type, name, default: wanted.default, sealed, hint, project };
    let changed = submit(&app, &caller, sent, Command::CreateChannel { id, draft }).await?;
    answered(&app, &caller, &changed)
}

/// Shows a channel.
#[utoipa::path(
    get, path = "/v1/channels/{id}", tag = "channels", params(("id" = String, Path)),
    responses((status = 200, body = ChannelView), Problems), security(("key" = ["read:channels"]))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadChannels)?;
    Query::read(query.as_deref(), &[])?;
    let channel = find(&app, &caller, &id)?;
    let last = last_deliveries(&app, &caller, vec![channel.id]).await.remove(&channel.id);
    // The version says nothing of deliveries, so the tag has something of the last one, too.
    let version = channel.life.version;
    let etag = last.as_ref().map_or_else(|| answer::etag(version), |last| format!("\"{version}-{}\"", last.tag()));
    Ok(answer::show(&caller, &view(&caller, &channel, last, None), &etag))
}

/// Changes a channel (JSON Merge Patch, RFC 7396). A webhook keeps its secret.
#[utoipa::path(
    patch, path = "/v1/channels/{id}", tag = "channels", params(("id" = String, Path)), request_body = ChannelUpdate,
    responses((status = 200, body = ChannelView), Problems), security(("key" = ["write:channels"]))
)]
pub(super) async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteChannels)?;
    let wanted: ChannelUpdate = incoming.json()?;
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return Ok(updated(&caller, &changed, None));
    }
    let channel = find(&app, &caller, &id)?;
    let name = wanted.name.clone().map(|name| text::name("/name", name)).transpose()?;
    let retargets = wanted.url.is_some() || wanted.bot_token.is_some() || wanted.slack_channel.is_some();
    let target = if retargets { Some(retarget(&app, &channel, &wanted)?) } else { None };
    let patch = ChannelPatch { name, default: wanted.default, target };
    let last = last_deliveries(&app, &caller, vec![channel.id]).await.remove(&channel.id);
    let beside = serde_json::to_string(&last).unwrap_or_default();
    let command = Command::UpdateChannel { id: channel.id, patch };
    let changed = submit(&app, &caller, sent.showing(&beside), command).await?;
    Ok(updated(&caller, &changed, last))
}

/// `last` is the delivery that changed last, unless a repetition shows the one that was it.
fn updated(caller: &Caller, changed: &Changed, last: Option<DeliveredView>) -> Response {
    let Resource::Channel(channel) = &changed.resource else { return answer::gone() };
    let stood = changed.beside.as_deref().and_then(|beside| serde_json::from_str(beside).ok());
    answer::changed(changed, &view(caller, channel, stood.unwrap_or(last), None), channel.life.version, "")
}

fn retarget(app: &App, channel: &Channel, wanted: &ChannelUpdate) -> Result<(String, String), Problem> {
    let old = open(app, channel)?;
    wanted.bot_token.clone().map(bot_token).transpose()?;
    wanted.slack_channel.clone().map(|channel| text::name("/slack_channel", channel)).transpose()?;
    let (target, hint) = match (old, &wanted.url, &wanted.bot_token, &wanted.slack_channel) {
        (Target::Webhook { secrets, .. }, Some(url), None, None) => {
            let url = vetted(app, "/url", url, TargetKind::Webhook)?;
            (Target::Webhook { url: url.to_string(), secrets }, hint(&url))
        }
        (Target::SlackWebhook { .. } | Target::SlackBot { .. }, Some(url), None, None) => {
            let url = vetted(app, "/url", url, TargetKind::Slack)?;
            (Target::SlackWebhook { url: url.to_string() }, hint(&url))
        }
        (Target::SlackBot { token, channel, api }, None, new_token, new_channel) => {
            let channel = new_channel.clone().unwrap_or(channel);
            let hint = format!("bot in {channel}");
            (Target::SlackBot { token: new_token.clone().unwrap_or(token), channel, api }, hint)
        }
        (Target::SlackWebhook { .. }, None, Some(token), Some(channel)) => {
            let hint = format!("bot in {channel}");
            (Target::SlackBot { token: token.clone(), channel: channel.clone(), api: None }, hint)
        }
        (Target::Webhook { .. }, ..) => return Err(Problem::invalid("/bot_token", "a webhook has only a url")),
        (Target::SlackWebhook { .. } | Target::SlackBot { .. }, ..) => {
            return Err(Problem::invalid("/bot_token", "give url, or bot_token with slack_channel"));
        }
    };
    let sealed = target.seal(&app.node.data.vault, channel.id).map_err(|error| Problem::internal(&error))?;
    Ok((sealed, hint))
}

/// Deletes a channel that no alert names.
#[utoipa::path(
    delete, path = "/v1/channels/{id}", tag = "channels", params(("id" = String, Path)),
    responses((status = 204), Problems), security(("key" = ["write:channels"]))
)]
pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteChannels)?;
    let channel = find(&app, &caller, &id)?;
    let sent = incoming.sent();
    submit(&app, &caller, sent, Command::DeleteChannel { id: channel.id }).await?;
    Ok(answer::gone())
}

pub(super) fn find(app: &App, caller: &Caller, id: &str) -> Result<Channel, Problem> {
    let id: ChannelId = id.parse().map_err(|_| Problem::not_found("channel"))?;
    let reached = |channel: &&Channel| caller.principal.reaches(channel.project);
    let found = app.node.data.control.state().channel(caller.principal.tenant, id).filter(reached).cloned();
    let has = |state: &Control, tenant| state.channel(tenant, id).filter(reached).is_some();
    found.ok_or_else(|| caller.missing(app, "channel", has))
}

fn open(app: &App, channel: &Channel) -> Result<Target, Problem> {
    Target::open(&app.node.data.vault, channel).map_err(|error| {
        tracing::error!(channel = %channel.id, error, "a channel's target cannot be opened");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "the channel's target cannot be opened")
    })
}

/// The secret is read back from what was sealed, so a replay shows the true one.
fn answered(app: &App, caller: &Caller, changed: &Changed) -> Result<Response, Problem> {
    let Resource::Channel(channel) = &changed.resource else { return Ok(answer::gone()) };
    let secret = match open(app, channel)? {
        Target::Webhook { secrets, .. } => secrets.into_iter().next(),
        Target::SlackWebhook { .. } | Target::SlackBot { .. } => None,
    };
    let location = format!("/v1/channels/{}", channel.id);
    Ok(answer::changed(changed, &view(caller, channel, None, secret), channel.life.version, &location))
}
