//! The one way that a request changes the control plane: idempotency, the command, the answer to its outcome.

use super::app::{App, Caller};
use super::input::Query;
use super::problem::Problem;
use crate::domain::control::audit::target_of;
use crate::domain::control::command::{Command, Idempotency};
use crate::domain::control::fold::Control;
use crate::domain::control::outcome::{Outcome, Refused, Resource};
use crate::domain::id::Position;
use crate::journal::AppendError;
use crate::runtime::clock;
use crate::runtime::control::SubmitError;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use sha2::{Digest, Sha256};
use std::sync::PoisonError;

use std::time::Duration;

/// How long an answer waits for the partitions to learn of a change.
const SPREAD_PATIENCE: Duration = Duration::from_secs(2);

/// What a change came to.
#[derive(Debug)]
pub(super) struct Changed {
    /// The resource as it stands; [`Resource::None`] where it is gone.
    pub resource: Resource,
    /// Whether it was made by this.
    pub created: bool,
    /// Whether an earlier request's outcome is repeated.
    pub replayed: bool,
    /// What the answer shows beside the resource, as [`Sent::beside`] had it the first time.
    pub beside: Option<String>,
}

/// A request as far as repeating it goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query.
    pub uri: &'a Uri,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body.
    pub body: &'a [u8],
    /// What the answer will show beside the resource; a repetition shows it again.
    pub beside: Option<&'a str>,
    /// The query parameters that it may have.
    pub parameters: &'static [&'static str],
}

impl<'a> Sent<'a> {
    /// A request whose answer shows the resource alone.
    pub(super) const fn new(method: &'a Method, uri: &'a Uri, headers: &'a HeaderMap, body: &'a [u8]) -> Self {
        Self { method, uri, headers, body, beside: None, parameters: &[] }
    }

    /// The same request, which may have query parameters.
    pub(super) const fn taking(self, parameters: &'static [&'static str]) -> Self {
        Self { parameters, ..self }
    }

    /// The same request, whose answer shows something beside the resource.
    pub(super) const fn showing(self, beside: &'a str) -> Self {
        Self { beside: Some(beside), ..self }
    }
}

/// Finds what was answered to the same request before.
///
/// It stands before everything that depends on the state, so that a repetition is answered as the first time also where
/// what it is about is gone by then. Most changes take no query parameters; that is checked here, too.
///
/// # Errors
/// 422 where the key was used for another request, or what the first one was refused for; 400 where the key is none.
pub(super) fn repeated(app: &App, caller: &Caller, sent: Sent<'_>) -> Result<Option<Changed>, Problem> {
    Query::read(sent.uri.query(), sent.parameters)?;
    let Some(record) = idempotency(app, caller, sent)? else { return Ok(None) };
    let original = app.node.data.control.state().original(&record, clock::now()).cloned();
    let Some(original) = original else { return Ok(None) };
    if original.fingerprint != record.fingerprint {
        counted("reused");
        return Err(refused(Refused::IdempotencyKeyReused { original_request_id: original.request_id }));
    }
    counted("replayed");
    outcome(original.outcome, Some(original.beside)).map(Some)
}

/// Counts what came of a request with an idempotency key.
fn counted(outcome: &'static str) {
    crate::telemetry::counter("highwater_idempotency_total", &[("outcome", outcome)], 1);
}

/// Submits a command once per idempotency key, and waits for its outcome even where the caller goes away.
///
/// # Errors
/// What the fold refused, as a problem; 409 while the same key is under way; 503 where the journal did not take it.
pub(super) async fn submit(app: &App, caller: &Caller, sent: Sent<'_>, command: Command) -> Result<Changed, Problem> {
    if let Some(changed) = repeated(app, caller, sent)? {
        return Ok(changed);
    }
    let target = target_of(&command);
    let is_missing = |problem: &Problem| problem.code == "resource_not_found" && target.is_some();
    let has = |state: &Control, tenant| target.as_ref().is_some_and(|target| state.holds(tenant, target));
    submitted(app, caller, sent, command)
        .await
        .map_err(|problem| if is_missing(&problem) { caller.hinted(app, problem, has) } else { problem })
}

async fn submitted(app: &App, caller: &Caller, sent: Sent<'_>, command: Command) -> Result<Changed, Problem> {
    let mut asking = caller.asking()?;
    asking.idempotency = idempotency(app, caller, sent)?;
    let Some(record) = asking.idempotency.clone() else {
        return run(app.clone(), asking, command).await;
    };
    let guard = UnderWay::begin(app, &record, &caller.request_id)?;
    // The commit and its record finish also where the caller hangs up, so that their retry finds the outcome.
    let task = tokio::spawn({
        let app = app.clone();
        async move {
            let answer = run(app, asking, command).await;
            drop(guard);
            answer
        }
    });
    task.await.unwrap_or_else(|error| Err(Problem::undecided(&error)))
}

async fn run(app: App, asking: crate::runtime::control::Asking, command: Command) -> Result<Changed, Problem> {
    let record = asking.idempotency.clone();
    match app.node.data.control.submit(asking, command).await {
        Ok((stamp, applied)) => {
            let replayed = applied.replayed_from.map(|_| {
                let state = app.node.data.control.state();
                let original = record.as_ref().and_then(|record| state.original(record, clock::now()));
                original.and_then(|original| original.beside.clone())
            });
            if record.is_some() {
                counted(match (&applied.outcome, &replayed) {
                    (Outcome::Refused(Refused::IdempotencyKeyReused { .. }), _) => "reused",
                    (_, Some(_)) => "replayed",
                    (_, None) => "new",
                });
            }
            if !applied.changes.is_empty() {
                spread(&app, stamp.position).await;
            }
            outcome(applied.outcome, replayed)
        }
        Err(SubmitError::Append(error)) => {
            tracing::warn!(error = %error, "a command could not be appended");
            if matches!(error, AppendError::ReadOnly { .. }) {
                return Err(Problem::read_only());
            }
            Err(Problem::unavailable(
                "overloaded",
                "the journal did not take the change; try again with the same Idempotency-Key",
            ))
        }
        Err(error @ (SubmitError::Fold(_) | SubmitError::Forgotten(_))) => Err(Problem::undecided(&error)),
    }
}

/// `replayed` is what a repeated answer shows beside the resource.
fn outcome(outcome: Outcome, replayed: Option<Option<String>>) -> Result<Changed, Problem> {
    let is_replayed = replayed.is_some();
    let changed = |resource, created| Changed { resource, created, replayed: is_replayed, beside: replayed.flatten() };
    match outcome {
        Outcome::Created(resource) => Ok(changed(resource, true)),
        Outcome::Done(resource) => Ok(changed(resource, false)),
        Outcome::Deleted => Ok(changed(Resource::None, false)),
        Outcome::Refused(why) => {
            let problem = refused(why);
            Err(if is_replayed { problem.replayed() } else { problem })
        }
    }
}

/// Waits until every partition of this node knows of a change, so that what is sent behind its answer is counted and
/// judged by it.
///
/// A partition that is far behind is not waited for: it learns of the change in its turn.
pub(super) async fn spread(app: &App, position: Position) {
    let known = || app.node.partitions.know_control(position);
    let waiting = async {
        while !known() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    if tokio::time::timeout(SPREAD_PATIENCE, waiting).await.is_err() {
        tracing::debug!(position = position.0, "a change was answered before every partition knew of it");
    }
}

/// What the fold refused, as a problem.
fn refused(why: Refused) -> Problem {
    let detail = why.to_string();
    match why {
        Refused::NotFound { .. } => Problem::new(StatusCode::NOT_FOUND, "resource_not_found", detail),
        Refused::Conflict { .. } => Problem::new(StatusCode::CONFLICT, "resource_conflict", detail),
        Refused::VersionMismatch { current, .. } => {
            Problem::new(StatusCode::PRECONDITION_FAILED, "version_mismatch", detail).with("current_version", current)
        }
        Refused::KeyNotActive { .. } => Problem::new(StatusCode::CONFLICT, "key_not_active", detail),
        Refused::LimitReached { .. } => Problem::new(StatusCode::CONFLICT, "limit_reached", detail),
        Refused::ChannelNotConfigured { .. } => Problem::unprocessable("channel_not_configured", detail),
        Refused::IdempotencyKeyReused { original_request_id } => {
            Problem::unprocessable("idempotency_key_reused", detail).with("original_request_id", original_request_id)
        }
        Refused::AlreadyInitialised | Refused::InvalidState { .. } => {
            Problem::new(StatusCode::CONFLICT, "invalid_state", detail)
        }
        Refused::TooOften { again_at, at, limit, .. } => {
            let wait = u32::try_from(again_at.since(at).0.max(0) / 1_000 + 1).unwrap_or(u32::MAX);
            Problem::too_often("rate_limited", "tests", detail, wait).with("limit", limit)
        }
    }
}

/// Reads `Idempotency-Key`: a bare token, or an RFC 9651 string.
///
/// # Errors
/// 400 where it stands twice, is empty, too long or has other characters than visible ASCII.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let invalid = |detail: &str| Problem::bad_request("idempotency_key_invalid", format!("Idempotency-Key: {detail}"));
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid("the header stands more than once"));
    }
    let text = value.to_str().map_err(|_| invalid("expected visible ASCII characters"))?.trim();
    let key = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    let is_open = key.len() == text.len() && text.starts_with('"');
    if is_open || !(1..=255).contains(&key.len()) || !key.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
        return Err(invalid("expected 1 to 255 visible ASCII characters"));
    }
    Ok(Some(key.to_owned()))
}

fn idempotency(app: &App, caller: &Caller, sent: Sent<'_>) -> Result<Option<Idempotency>, Problem> {
    if sent.method == Method::DELETE {
        return Ok(None);
    }
    let tenant = caller.principal.tenant;
    let Some(key) = idempotency_key(sent.headers)? else {
        let state = app.node.data.control.state();
        let is_required = state.workspace(tenant.workspace).is_some_and(|workspace| workspace.require_idempotency_key);
        let detail = "this workspace asks for an Idempotency-Key with every change";
        return if is_required { Err(Problem::bad_request("idempotency_key_required", detail)) } else { Ok(None) };
    };
    let scope = [
        tenant.workspace.to_string(),
        tenant.mode.name().to_owned(),
        caller.principal.lineage.to_string(),
        sent.method.to_string(),
        sent.uri.path().to_owned(),
        key,
    ];
    let mut query: Vec<_> = form_urlencoded::parse(sent.uri.query().unwrap_or("").as_bytes()).collect();
    query.sort();
    // A value's text is canonical: its members are sorted.
    let body = serde_json::from_slice::<serde_json::Value>(sent.body).map(|value| value.to_string().into_bytes());
    let body = body.unwrap_or_else(|_| sent.body.to_vec());
    // It keeps numbers as floating point, which is not all that was written, and quantities are read exactly.
    let numbers = numbers(sent.body).join(&b' ');
    let content = super::input::essence(sent.headers).unwrap_or_default();
    Ok(Some(Idempotency {
        record: digest(scope.iter().map(String::as_bytes)),
        fingerprint: digest([content.as_bytes(), format!("{query:?}").as_bytes(), &body, &numbers].into_iter()),
        beside: sent.beside.map(str::to_owned),
    }))
}

/// The numbers of a JSON text as they are written, sorted.
fn numbers(json: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let mut rest = json;
    while let Some((first, behind)) = rest.split_first() {
        let length = match first {
            b'"' => text_length(behind) + 1,
            b'-' | b'0'..=b'9' => {
                let is_part = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
                let length = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
                found.push(rest.get(..length).unwrap_or_default());
                length
            }
            _ => 1,
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    found.sort_unstable();
    found
}

/// How many bytes a JSON text has behind its opening quote, its closing one included.
fn text_length(behind: &[u8]) -> usize {
    let mut is_escaped = false;
    let end = behind.iter().position(|byte| {
        let ends = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        ends
    });
    end.map_or(behind.len(), |end| end + 1)
}

fn digest<'a>(parts: impl Iterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The request that an idempotency key is under way for.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    fingerprint: String,
    request_id: String,
}

/// Marks an idempotency key as under way, until it is dropped.
struct UnderWay {
    app: App,
    record: String,
}

impl UnderWay {
    fn begin(app: &App, idempotency: &Idempotency, request_id: &str) -> Result<Self, Problem> {
        let mut under_way = app.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        match under_way.get(&idempotency.record) {
            Some(first) if first.fingerprint != idempotency.fingerprint => {
                counted("reused");
                Err(refused(Refused::IdempotencyKeyReused { original_request_id: first.request_id.clone() }))
            }
            Some(_) => {
                counted("in_progress");
                let detail = "a request with this Idempotency-Key is under way";
                let problem = Problem::new(StatusCode::CONFLICT, "idempotency_in_progress", detail);
                Err(Problem { retry_after: Some(1), ..problem }.with("retry_after", 1))
            }
            None => {
                let first = Begun { fingerprint: idempotency.fingerprint.clone(), request_id: request_id.to_owned() };
                under_way.insert(idempotency.record.clone(), first);
                Ok(Self { app: app.clone(), record: idempotency.record.clone() })
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.app.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_where_they_are_none_of_a_text() {
        let found = |json: &str| {
            numbers(json.as_bytes()).iter().map(|n| String::from_utf8_lossy(n).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found(r#"{"a1":[2,-0.50],"b":"3 \"4 \\","c":1e+9}"#), ["-0.50", "1e+9", "2"]);
        assert_eq!(found(r#"{"torn":"5"#), [""; 0]);
        assert_eq!(found("7"), ["7"]);
    }
}
