//! What handlers work with: the node's handles, and who asks.

use super::accept::acceptable;
use super::address::client_address;
use super::body_memory::BodyMemory;
use super::crowd::Connection;
use super::front::Front;
use super::gate::{Gate, SeenRate};
use super::problem::{Advice, Problem};
use super::second_look::unconfirmed;
use super::seen::Seen;
use crate::credential::{
    AuthError, Principal, authenticate, authenticate_token, looks_like_token, named, names_unknown_client,
    names_unknown_key,
};
use crate::domain::control::access_note::{AccessKind, AccessNote};
use crate::domain::control::audit::Target;
use crate::domain::control::fold::Control;
use crate::domain::control::resource::Scope;
use crate::domain::id::{AccountId, Mode, PartitionId, Tenant};
use crate::domain::routing::partition_of;
use crate::domain::time::{Millis, Timestamp};
use crate::runtime::access_notes::{Access, NO_TENANT};
use crate::runtime::clock;
use crate::runtime::control::Asking;
use crate::runtime::node::Node;
use crate::runtime::sandbox;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, HeaderName, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

/// The state of the API; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct App {
    /// The node.
    pub node: Arc<Node>,
    /// Whether the node is going down.
    pub draining: Arc<AtomicBool>,
    /// Requests with an idempotency key that are under way, by their record.
    pub under_way: Arc<Mutex<HashMap<String, super::change::Begun>>>,
    /// How many streams each key follows.
    pub followers: super::stream::Followers,
    /// Whom to believe, and what to allow.
    pub front: Arc<Front>,
    /// Who may ask how often.
    pub gate: Arc<Gate>,
    /// What the bodies of requests hold.
    pub bodies: BodyMemory,
    /// What signs cursors.
    pub cursor_key: [u8; 32],
    /// How many queries may be worked on at once.
    pub queries: Arc<tokio::sync::Semaphore>,
    /// How many questions about one account's totals may be worked on at once.
    pub reads: Arc<tokio::sync::Semaphore>,
    /// How long a query may take.
    pub query_timeout: std::time::Duration,
}

/// The id of a request.
#[derive(Clone, Debug)]
pub(super) struct RequestId(pub String);

/// Whom a request speaks for.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The principal.
    pub principal: Principal,
    /// The request's id.
    pub request_id: String,
    /// Where the request comes from.
    pub address: IpAddr,
    /// How far the clock of the caller's world is ahead.
    pub advance: Millis,
    if_match: Option<String>,
    if_none_match: Option<String>,
}

impl App {
    /// The partition that holds an account.
    pub(super) fn partition(&self, caller: &Caller, account: &AccountId) -> PartitionId {
        partition_of(caller.principal.tenant.workspace, account, self.node.data.journal.partitions())
    }
}

impl App {
    /// Notes a credential that did not work: with whom it names, where that is somebody.
    fn refused_credential(&self, presented: &str, (ip, request_id): (IpAddr, &str), code: &'static str) {
        let named = named(&self.node.data.control.state(), self.node.data.vault.token_key(), presented);
        let is_credential = AuthError::ALL.iter().any(|error| error.code() == code && *error != AuthError::Missing);
        if is_credential {
            self.note_refused(named, (ip, request_id), code);
        }
    }

    /// Notes a credential that did not work, in the audit log of whom it names, else in the operator's.
    pub(super) fn note_refused(
        &self,
        named: Option<(Tenant, Target)>,
        (ip, request_id): (IpAddr, &str),
        code: &'static str,
    ) {
        let (tenant, target) = named.unwrap_or((NO_TENANT, Target::Workspace(NO_TENANT.workspace)));
        let note = AccessNote { kind: AccessKind::CredentialRefused, target, refused: Some(code.to_owned()) };
        let access = Access { tenant, actor: None, request_id: request_id.to_owned(), ip, note };
        self.node.access_notes.note(access, clock::now());
    }

    /// Notes that a secret was shown again.
    pub(super) fn note_secret(&self, caller: &Caller, target: Target) {
        let note = AccessNote { kind: AccessKind::SecretRead, target, refused: None };
        let access = Access {
            tenant: caller.principal.tenant,
            actor: Some(caller.principal.key_id),
            request_id: caller.request_id.clone(),
            ip: caller.address,
            note,
        };
        self.node.access_notes.note(access, clock::now());
    }
}

/// What a request presents, as far as it can be read.
fn presented(parts: &Parts) -> &str {
    let text = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or("");
    text.split_once(' ').map_or("", |(_, token)| token.trim())
}

impl Caller {
    /// Makes sure that the caller has a scope.
    ///
    /// # Errors
    /// 403 `insufficient_scope` where they do not.
    pub(super) fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.principal.may(scope) {
            return Ok(());
        }
        let needed = scope.text();
        let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{needed}\"");
        let detail = format!("this key lacks the scope {needed}");
        Err(Problem {
            advice: Some(Advice::Challenge(challenge)),
            ..Problem::new(StatusCode::FORBIDDEN, "insufficient_scope", detail)
        })
    }

    /// 404, with a hint where the other mode of the caller's workspace has it.
    pub(super) fn missing(&self, app: &App, what: &str, has: impl Fn(&Control, Tenant) -> bool) -> Problem {
        self.hinted(app, Problem::not_found(what), has)
    }

    /// The problem, with a hint where the other mode of the caller's workspace has what is missing.
    pub(super) fn hinted(&self, app: &App, problem: Problem, has: impl Fn(&Control, Tenant) -> bool) -> Problem {
        let tenant = self.principal.tenant;
        let (mode, hint) = match tenant.mode {
            Mode::Live => (Mode::Sandbox, "it exists in the sandbox; this is a live key"),
            Mode::Sandbox => (Mode::Live, "it exists in live; this is a sandbox key"),
        };
        let elsewhere = has(&app.node.data.control.state(), Tenant { mode, ..tenant });
        if elsewhere { problem.with("hint", hint) } else { problem }
    }

    /// The time in the caller's world.
    pub(super) fn now(&self) -> Timestamp {
        clock::now().plus(self.advance)
    }

    /// The fold's clock in the caller's world; 0 stays before the first record.
    pub(super) const fn in_world(&self, clock: Timestamp) -> Timestamp {
        if clock.0 == 0 { clock } else { clock.plus(self.advance) }
    }

    /// How the caller asks for a command, without an idempotency record.
    ///
    /// # Errors
    /// 400 where `If-Match` is no version.
    pub(super) fn asking(&self) -> Result<Asking, Problem> {
        let wrong = |text: &str| {
            let detail = format!("If-Match {text} is no version such as \"7\"");
            Problem::bad_request("invalid_header", detail)
        };
        let if_match = match (self.if_match.as_deref(), self.if_none_match.as_deref()) {
            (None | Some("*"), None) => None,
            // What exists has a version from 1 on, so this says: only where there is none yet.
            (None | Some("*"), Some("*")) => Some(0),
            (None | Some("*"), Some(_)) => None,
            (Some(text), _) => Some(version(text).ok_or_else(|| wrong(text))?),
        };
        Ok(Asking {
            tenant: self.principal.tenant,
            actor: Some(self.principal.key_id),
            request_id: self.request_id.clone(),
            if_match,
            idempotency: None,
            ip: Some(self.address),
        })
    }

    /// The same caller, whose change stands only while what it was decided on has this version.
    ///
    /// # Errors
    /// 412 where the request names another version, 400 where it names none that is one.
    pub(super) fn deciding_on(&self, version: u64) -> Result<Self, Problem> {
        match self.asking()?.if_match {
            Some(named) if named != version => {
                let detail = format!("expected version {named}, found {version}");
                let problem = Problem::new(StatusCode::PRECONDITION_FAILED, "version_mismatch", detail);
                Err(problem.with("current_version", version))
            }
            Some(_) | None => Ok(Self { if_match: Some(format!("\"{version}\"")), ..self.clone() }),
        }
    }

    /// Whether the caller has what an `ETag` names (`If-None-Match`, compared weakly).
    pub(super) fn has_already(&self, etag: &str) -> bool {
        let Some(given) = self.if_none_match.as_deref() else { return false };
        given == "*" || given.split(',').any(|one| one.trim().trim_start_matches("W/") == etag)
    }
}

/// The version that an `ETag` names: `"7"`, or `"7-…"` where it says something of the state, too.
fn version(etag: &str) -> Option<u64> {
    let bare = etag.strip_prefix("W/").unwrap_or(etag);
    let bare = bare.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(bare);
    let (digits, state) = bare.split_once('-').unwrap_or((bare, "0"));
    let is_state = !state.is_empty() && state.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z'));
    if is_state && digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// The value of a header that may stand once.
fn one_header(parts: &Parts, name: HeaderName) -> Result<Option<String>, Problem> {
    let invalid = |detail: &str| Problem::bad_request("invalid_header", format!("{name}: {detail}"));
    let mut values = parts.headers.get_all(&name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid("the header stands more than once"));
    }
    let text = value.to_str().map_err(|_| invalid("expected visible ASCII characters"))?;
    Ok(Some(text.trim().to_owned()))
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let address = client_address(parts, &app.front.trusted_proxies);
        let identified = principal_of(parts, app, address).await;
        let request_id = parts.extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
        let principal = identified.map_err(|problem| {
            app.refused_credential(presented(parts), (address, &request_id), problem.code);
            app.gate.failed(address, problem)
        })?;
        if let Some(seen) = parts.extensions.get::<Seen>() {
            seen.note((principal.tenant, principal.key_id), address, &app.node.access_notes);
        }
        if let Some(connection) = parts.extensions.get::<Connection>() {
            connection.vouch();
        }
        app.gate.admit(&principal, parts.uri.path(), parts.extensions.get::<SeenRate>())?;
        acceptable(&parts.headers, parts.uri.path())?;
        let if_match = one_header(parts, IF_MATCH)?;
        let if_none_match = one_header(parts, IF_NONE_MATCH)?;
        let advance = enter(app, principal.tenant).await?;
        let caller = Self { principal, request_id, address, advance, if_match, if_none_match };
        let key_id = caller.principal.key_id;
        tracing::debug!(request_id = caller.request_id, key.id = %key_id, client.address = %caller.address, "let in");
        Ok(caller)
    }
}

/// Enters a tenant's world: a sandbox is opened for the first request in it. Tells how far its clock is ahead.
async fn enter(app: &App, tenant: Tenant) -> Result<Millis, Problem> {
    if tenant.mode == Mode::Live {
        return Ok(Millis::ZERO);
    }
    let data = &app.node.data;
    sandbox::open(&data.control, &data.vault, tenant).await.map_err(|error| {
        tracing::warn!(error = %crate::telemetry::chain(&error), "a sandbox could not be opened");
        Problem::unavailable("overloaded", "the journal did not take the sandbox's beginning; try again")
    })?;
    Ok(data.control.state().advance_of(tenant))
}

/// Whom a request speaks for, by the one credential in its header.
async fn principal_of(parts: &Parts, app: &App, address: IpAddr) -> Result<Principal, Problem> {
    let mut presented = parts.headers.get_all(AUTHORIZATION).iter();
    let value = presented.next().ok_or_else(|| unauthorized(AuthError::Missing))?;
    if presented.next().is_some() {
        return Err(unauthorized(AuthError::Invalid));
    }
    let text = value.to_str().map_err(|_| unauthorized(AuthError::Invalid))?;
    let (scheme, token) = text.split_once(' ').ok_or_else(|| unauthorized(AuthError::Invalid))?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(unauthorized(AuthError::Invalid));
    }
    let token = token.trim();
    principal(app, token, address).await
}

/// Whom a token speaks for. A key or client that another node may have made is looked for behind the control log's
/// present end.
async fn principal(app: &App, token: &str, from: IpAddr) -> Result<Principal, Problem> {
    let control = &app.node.data.control;
    let first = known(app, token, from);
    let may_be_new = first.is_err() && app.node.data.journal.is_shared() && is_unknown(app, token);
    if !may_be_new || app.gate.is_failing(from) {
        return used(app, first, from);
    }
    control.confirm().await.map_err(|error| unconfirmed(&error))?;
    used(app, known(app, token, from), from)
}

fn known(app: &App, token: &str, from: IpAddr) -> Result<Principal, AuthError> {
    let state = app.node.data.control.state();
    if looks_like_token(token) {
        authenticate_token(&state, app.node.data.vault.token_key(), token, (from, clock::now()))
    } else {
        authenticate(&state, token, from, clock::now())
    }
}

fn is_unknown(app: &App, token: &str) -> bool {
    let state = app.node.data.control.state();
    names_unknown_key(&state, token) || names_unknown_client(&state, app.node.data.vault.token_key(), token)
}

fn used(app: &App, principal: Result<Principal, AuthError>, from: IpAddr) -> Result<Principal, Problem> {
    let principal = principal.map_err(unauthorized)?;
    app.node.last_uses.note(principal.key_id, from, clock::now());
    Ok(principal)
}

fn unauthorized(error: AuthError) -> Problem {
    crate::telemetry::counter("highwater_auth_failures_total", &[("reason", error.code())], 1);
    let (challenge, hint) = match error {
        AuthError::Missing => ("Bearer realm=\"highwater\"".to_owned(), "; send Authorization: Bearer <key>"),
        AuthError::Invalid | AuthError::Expired | AuthError::Revoked | AuthError::TokenExpired => {
            ("Bearer realm=\"highwater\", error=\"invalid_token\"".to_owned(), "")
        }
        AuthError::Address => return Problem::new(StatusCode::FORBIDDEN, error.code(), error.to_string()),
    };
    let problem = Problem::new(StatusCode::UNAUTHORIZED, error.code(), format!("{error}{hint}"));
    Problem { advice: Some(Advice::Challenge(challenge)), ..problem }
}
