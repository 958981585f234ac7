//! Silences: they hold the messages of matching alerts for a while; states go on.

use super::answer;
use super::app::{App, Caller};
use super::change::{Changed, repeated, submit};
use super::created::{CREATED, Created, CreatedParameters};
use super::docs::Problems;
use super::incoming::Incoming;
use super::input::{Nothing, Object, Query, empty, nullable, present};
use super::page::{PARAMETERS, Page, Paging};
use super::problem::Problem;
use super::text;
use crate::domain::control::command::{Command, SilenceDraft, SilencePatch};
use crate::domain::control::outcome::Resource;
use crate::domain::control::resource::{Scope, SilenceRecord};
use crate::domain::definition::{MatchOp, Matcher};
use crate::domain::id::SilenceId;
use crate::domain::limits::{MATCHER_CHARS_MAX, MATCHERS_MAX, MESSAGE_CHARS_MAX, METADATA_NAME_CHARS_MAX};
use crate::domain::time::{Millis, Timestamp};
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A silence.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SilenceView {
    id: String,
    object: &'static str,
    mode: &'static str,
    version: u64,
    /// `pending`, `active` or `expired`.
    status: &'static str,
    matchers: Vec<MatcherBody>,
    starts_at: String,
    ends_at: String,
    comment: Option<String>,
    /// The key that made it.
    created_by: Option<String>,
    /// When somebody ended it before its time.
    expired_at: Option<String>,
    created_at: String,
    updated_at: String,
}

/// One condition.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MatcherBody {
    /// `alert_id`, `account_id`, `metric`, `severity`, `name`, or a label of the alert. `metric` is compared with every
    /// metric that the rule names: `=` and `=~` want any of them, `!=` and `!~` none.
    #[schema(min_length = 1, max_length = 40)]
    name: String,
    /// A text, or a regular expression for whole texts.
    #[schema(max_length = 256)]
    value: String,
    /// `=` (where absent), `!=`, `=~` or `!~`.
    #[serde(default = "equal")]
    #[schema(value_type = Option<String>, pattern = "^(=|!=|=~|!~)$")]
    op: MatchOp,
}

const fn equal() -> MatchOp {
    MatchOp::Equal
}

/// A silence to be. Either `ends_at` or `duration` says when it ends.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SilenceCreate {
    /// All of them must match, and at least one must not match the empty text.
    #[schema(value_type = Vec<MatcherBody>, min_items = 1, max_items = 20)]
    matchers: Vec<Object<MatcherBody>>,
    /// Now where absent.
    starts_at: Option<String>,
    ends_at: Option<String>,
    /// How long it lasts from `starts_at` on, such as `2h`.
    duration: Option<String>,
    comment: Option<String>,
}

/// Changes of a silence.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SilenceUpdate {
    /// All of them must match, and at least one must not match the empty text.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<Vec<MatcherBody>>, min_items = 1, max_items = 20)]
    matchers: Option<Vec<Object<MatcherBody>>>,
    #[serde(deserialize_with = "present")]
    starts_at: Option<String>,
    #[serde(deserialize_with = "present")]
    ends_at: Option<String>,
    /// In place of `ends_at`: how long it lasts from `starts_at` on, such as `2h`.
    #[serde(deserialize_with = "present")]
    duration: Option<String>,
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    comment: Option<Option<String>>,
}

fn status(record: &SilenceRecord, now: Timestamp) -> &'static str {
    if record.expired_at.is_some() || record.silence.ends_at <= now {
        "expired"
    } else if record.silence.starts_at > now {
        "pending"
    } else {
        "active"
    }
}

fn view(caller: &Caller, record: &SilenceRecord, at: Timestamp) -> SilenceView {
    let silence = &record.silence;
    let shown =
        |matcher: &Matcher| MatcherBody { name: matcher.name.clone(), value: matcher.value.clone(), op: matcher.op };
    SilenceView {
        id: silence.id.to_string(),
        object: "silence",
        mode: caller.principal.tenant.mode.name(),
        version: record.life.version,
        status: status(record, at),
        matchers: silence.matchers.iter().map(shown).collect(),
        starts_at: silence.starts_at.to_string(),
        ends_at: silence.ends_at.to_string(),
        comment: record.comment.clone(),
        created_by: record.created_by.map(|key| key.to_string()),
        expired_at: record.expired_at.map(|at| at.to_string()),
        created_at: record.life.created_at.to_string(),
        updated_at: record.life.updated_at.to_string(),
    }
}

/// Checks matchers; an expression is compiled here as it will be in the engine.
///
/// # Errors
/// 422 where one is wrong, or where all of them match the empty text.
pub(super) fn matchers(wanted: Vec<Object<MatcherBody>>) -> Result<Vec<Matcher>, Problem> {
    if wanted.is_empty() || wanted.len() > MATCHERS_MAX {
        let detail = format!("{} matchers, expected 1 to {MATCHERS_MAX}", wanted.len());
        return Err(Problem::invalid("/matchers", detail));
    }
    let check = |(at, Object(MatcherBody { name, value, op })): (usize, Object<MatcherBody>)| {
        let name_chars = name.chars().count();
        if name_chars == 0 || name_chars > METADATA_NAME_CHARS_MAX {
            let detail = format!("{name_chars} characters, expected 1 to {METADATA_NAME_CHARS_MAX}");
            return Err(Problem::invalid(&format!("/matchers/{at}/name"), detail));
        }
        let pointer = format!("/matchers/{at}/value");
        let value_chars = value.chars().count();
        if value_chars > MATCHER_CHARS_MAX {
            let detail = format!("{value_chars} characters, at most {MATCHER_CHARS_MAX} are taken");
            return Err(Problem::invalid(&pointer, detail));
        }
        let matcher = Matcher { name, value, op };
        if matches!(op, MatchOp::Matches | MatchOp::MatchesNot) {
            matcher.expression().map_err(|error| {
                let text = error.to_string();
                let said = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                Problem::invalid(&pointer, format!("not an expression that is taken: {said}"))
            })?;
        }
        Ok(matcher)
    };
    let checked: Vec<Matcher> = wanted.into_iter().enumerate().map(check).collect::<Result<_, _>>()?;
    if checked.iter().all(Matcher::matches_empty) {
        let detail = "every matcher also matches the empty text, so the silence would hold all alerts that have none of \
                      these labels; at least one must not, such as account_id=~.+ for all";
        return Err(Problem::invalid("/matchers", detail));
    }
    Ok(checked)
}

/// When a silence begins and ends, as far as a request says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct SilenceTimes {
    pub(super) starts_at: Option<Timestamp>,
    pub(super) ends_at: Option<Timestamp>,
}

impl SilenceTimes {
    /// Reads the times of a request. A duration counts from `starts_at`, else from `default_start`.
    ///
    /// # Errors
    /// 422 where a text cannot be read, or both `ends_at` and `duration` stand there.
    pub(super) fn read(
        (starts_at, ends_at, duration): (Option<&str>, Option<&str>, Option<&str>),
        default_start: Timestamp,
    ) -> Result<Self, Problem> {
        let starts_at = starts_at.map(|text| instant("/starts_at", text)).transpose()?;
        let named = ends_at.map(|text| instant("/ends_at", text)).transpose()?;
        let span = duration.map(|text| text::duration("/duration", text)).transpose()?;
        let ends_at = match (named, span) {
            (Some(_), Some(_)) => {
                return Err(Problem::invalid("/duration", "expected either ends_at or duration, found both"));
            }
            (None, Some(span)) if span <= Millis::ZERO => {
                return Err(Problem::invalid("/duration", "expected at least 1s"));
            }
            (None, Some(span)) => Some(starts_at.unwrap_or(default_start).plus(span)),
            (named, None) => named,
        };
        Ok(Self { starts_at, ends_at })
    }
}

fn instant(pointer: &str, text: &str) -> Result<Timestamp, Problem> {
    let wrong = || Problem::invalid(pointer, "expected an RFC 3339 time such as 2026-11-24T08:00:00Z");
    Timestamp::parse(text).ok_or_else(wrong)
}

/// Checks that a silence ends behind its beginning, and not in the past.
///
/// # Errors
/// 422 where it does not.
pub(super) fn in_order(caller: &Caller, starts_at: Timestamp, ends_at: Timestamp) -> Result<(), Problem> {
    if starts_at >= ends_at {
        return Err(Problem::invalid("/ends_at", "it must be behind starts_at"));
    }
    if ends_at <= caller.now() { Err(Problem::invalid("/ends_at", "it lies in the past")) } else { Ok(()) }
}

fn comment(text: String) -> Result<String, Problem> {
    text::bounded("/comment", text, MESSAGE_CHARS_MAX)
}

fn find(app: &App, caller: &Caller, id: &str) -> Result<SilenceRecord, Problem> {
    let id: SilenceId = id.parse().map_err(|_| Problem::not_found("silence"))?;
    let found = app.node.data.control.state().silence(caller.principal.tenant, id).cloned();
    found.ok_or_else(|| caller.missing(app, "silence", |state, tenant| state.silence(tenant, id).is_some()))
}

fn answered(caller: &Caller, changed: &Changed) -> Response {
    let Resource::Silence(record) = &changed.resource else { return answer::gone() };
    let location = format!("/v1/silences/{}", record.silence.id);
    // As of the change, so that a repetition shows it again.
    let at = record.changed_at.unwrap_or_else(|| caller.in_world(record.life.updated_at));
    answer::changed(changed, &view(caller, record, at), record.life.version, &location)
}

/// Lists silences, newest first.
#[utoipa::path(
    get, path = "/v1/silences", tag = "silences",
    params(("page" = Option<usize>, Query), ("page_size" = Option<usize>, Query), ("cursor" = Option<String>, Query),
           ("status" = Option<Vec<String>>, Query, description = "pending, active or expired"), CreatedParameters),
    responses((status = 200, body = Page<SilenceView>), Problems), security(("key" = ["read:silences"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadSilences)?;
    let query = Query::read(query.as_deref(), &[&PARAMETERS[..], &CREATED, &["status"]].concat())?;
    let paging = Paging::read(&app, &caller, uri.path(), &query)?;
    let created = Created::read(&query)?;
    let known = ["pending", "active", "expired"];
    let statuses = query
        .read_all("status", "pending, active or expired", |text| known.into_iter().find(|status| *status == text))?;
    let now = caller.now();
    let key = |record: &SilenceRecord| record.silence.id.to_string();
    let items = {
        let state = app.node.data.control.state();
        let all = state.silences(caller.principal.tenant).filter(|record| {
            (statuses.is_empty() || statuses.contains(&status(record, now))) && created.holds(record.life.created_at)
        });
        paging.cut(created.order(), created.ordered(all).into_iter().cloned(), key)
    };
    Ok(paging.answer_as(&app, items, key, |record| view(&caller, record, now)))
}

impl SilenceCreate {
    pub(super) fn times(&self, caller: &Caller) -> Result<SilenceTimes, Problem> {
        let (starts_at, ends_at) = (self.starts_at.as_deref(), self.ends_at.as_deref());
        SilenceTimes::read((starts_at, ends_at, self.duration.as_deref()), caller.now())
    }

    /// The matchers, checked.
    pub(super) fn into_matchers(self) -> Result<Vec<Matcher>, Problem> {
        matchers(self.matchers)
    }
}

/// Creates a silence. What it holds is sent once when it ends, as far as it still fires. `POST /v1/silences/preview` tells
/// beforehand what that is.
#[utoipa::path(
    post, path = "/v1/silences", tag = "silences", request_body = SilenceCreate,
    responses((status = 201, body = SilenceView), Problems), security(("key" = ["write:silences"]))
)]
pub(super) async fn create(State(app): State<App>, caller: Caller, incoming: Incoming) -> Result<Response, Problem> {
    caller.require(Scope::WriteSilences)?;
    let wanted: SilenceCreate = incoming.json()?;
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return Ok(answered(&caller, &changed));
    }
    let times = wanted.times(&caller)?;
    let starts_at = times.starts_at.unwrap_or(caller.now());
    let ends_at = times.ends_at.ok_or_else(|| Problem::invalid("/ends_at", "expected ends_at or duration"))?;
    in_order(&caller, starts_at, ends_at)?;
    let comment = wanted.comment.map(comment).transpose()?;
    let draft = SilenceDraft { matchers: matchers(wanted.matchers)?, starts_at, ends_at, comment };
    let id = SilenceId(crate::runtime::clock::ulid());
    let changed = submit(&app, &caller, sent, Command::CreateSilence { id, draft }).await?;
    Ok(answered(&caller, &changed))
}

/// Shows a silence.
#[utoipa::path(
    get, path = "/v1/silences/{id}", tag = "silences", params(("id" = String, Path)),
    responses((status = 200, body = SilenceView), Problems), security(("key" = ["read:silences"]))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadSilences)?;
    Query::read(query.as_deref(), &[])?;
    let record = find(&app, &caller, &id)?;
    let view = view(&caller, &record, caller.now());
    // The status changes without a version.
    let etag = format!("\"{}-{}\"", record.life.version, view.status);
    Ok(answer::show(&caller, &view, &etag))
}

/// Changes a silence that has not ended (JSON Merge Patch, RFC 7396).
#[utoipa::path(
    patch, path = "/v1/silences/{id}", tag = "silences", params(("id" = String, Path)), request_body = SilenceUpdate,
    responses((status = 200, body = SilenceView), Problems), security(("key" = ["write:silences"]))
)]
pub(super) async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteSilences)?;
    let wanted: SilenceUpdate = incoming.json()?;
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return Ok(answered(&caller, &changed));
    }
    let record = find(&app, &caller, &id)?;
    let written = (wanted.starts_at.as_deref(), wanted.ends_at.as_deref(), wanted.duration.as_deref());
    let times = SilenceTimes::read(written, record.silence.starts_at)?;
    let patch = SilencePatch {
        matchers: wanted.matchers.map(matchers).transpose()?,
        starts_at: times.starts_at,
        ends_at: times.ends_at,
        comment: wanted.comment.map(|text| text.map(comment).transpose()).transpose()?,
    };
    let id = record.silence.id;
    if status(&record, caller.now()) == "expired" {
        let detail = format!("silence {id} has expired; create another one");
        return Err(Problem::new(StatusCode::CONFLICT, "invalid_state", detail));
    }
    let silence = &record.silence;
    in_order(&caller, patch.starts_at.unwrap_or(silence.starts_at), patch.ends_at.unwrap_or(silence.ends_at))?;
    let changed = submit(&app, &caller, sent, Command::UpdateSilence { id, patch }).await?;
    Ok(answered(&caller, &changed))
}

/// Ends a silence at once; one that has expired stays as it is.
#[utoipa::path(
    post, path = "/v1/silences/{id}/expire", tag = "silences", params(("id" = String, Path)),
    request_body = Option<Nothing>,
    responses((status = 200, body = SilenceView), Problems), security(("key" = ["write:silences"]))
)]
pub(super) async fn expire(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteSilences)?;
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return Ok(answered(&caller, &changed));
    }
    empty(&incoming.headers, &incoming.body)?;
    let record = find(&app, &caller, &id)?;
    let now = caller.now();
    if status(&record, now) == "expired" {
        return Ok(answer::show(&caller, &view(&caller, &record, now), &answer::etag(record.life.version)));
    }
    let changed = submit(&app, &caller, sent, Command::ExpireSilence { id: record.silence.id }).await?;
    Ok(answered(&caller, &changed))
}
