//! OAuth 2.0 for machines: the client credentials grant (RFC 6749), revocation (RFC 7009), metadata (RFC 8414). Errors
//! have the form that OAuth's client libraries read, never that of problems.

use super::address::client_address;
use super::app::{App, RequestId};
use super::gate::SeenRate;
use super::incoming::Incoming;
use super::problem::Problem;
use super::second_look::unconfirmed;
use crate::credential::{self, AuthError, Claims, Principal};
use crate::domain::control::access::TokenRevocation;
use crate::domain::control::access_note::{AccessKind, AccessNote};
use crate::domain::control::audit::Target;
use crate::domain::control::command::Command;
use crate::domain::control::resource::{ClientRecord, Scope, ScopeSet};
use crate::domain::id::ClientId;
use crate::domain::limits::ACCESS_TOKEN_LIFE;
use crate::domain::time::Timestamp;
use crate::runtime::access_notes::Access;
use crate::runtime::clock;
use crate::runtime::control::Asking;
use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::header::{AUTHORIZATION, PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::IpAddr;
use utoipa::{IntoResponses, ToSchema};

/// A form for a token.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "only its derived description is used")]
pub(super) struct TokenForm {
    /// `client_credentials`.
    grant_type: String,
    /// Scopes with spaces between them; all of the client's where it is left out.
    scope: Option<String>,
    /// Where the client does not authenticate with HTTP Basic.
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// An access token.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenView {
    access_token: String,
    /// `Bearer`.
    token_type: &'static str,
    /// Seconds.
    expires_in: i64,
    /// What it may do, with spaces between.
    scope: String,
}

/// A form that ends a token.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "only its derived description is used")]
pub(super) struct RevocationForm {
    token: String,
    token_type_hint: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// An error as OAuth writes it (RFC 6749, section 5.2).
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OAuthError {
    error: &'static str,
    error_description: String,
}

/// What a form may be answered where it does not succeed.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its derived description is used")]
pub(super) enum Failures {
    /// The form cannot be read, or asks for what there is not.
    #[response(status = 400)]
    BadRequest(OAuthError),
    /// The client is not known, or its secret is wrong.
    #[response(status = 401)]
    Unauthorized(OAuthError),
    /// The path does not have this method.
    #[response(status = 405)]
    MethodNotAllowed(OAuthError),
    /// The request did not arrive in time.
    #[response(status = 408)]
    RequestTimeout(OAuthError),
    /// The body is too large.
    #[response(status = 413)]
    PayloadTooLarge(OAuthError),
    /// The body's encoding is not read.
    #[response(status = 415)]
    UnsupportedMediaType(OAuthError),
    /// Asked too often; `Retry-After` says when to try again.
    #[response(status = 429)]
    TooManyRequests(OAuthError),
    /// Something failed on our side.
    #[response(status = 500)]
    Internal(OAuthError),
    /// Try again soon.
    #[response(status = 503)]
    Unavailable(OAuthError),
}

/// What this server supports (RFC 8414).
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Metadata {
    issuer: String,
    token_endpoint: String,
    revocation_endpoint: String,
    grant_types_supported: [&'static str; 1],
    response_types_supported: [&'static str; 0],
    token_endpoint_auth_methods_supported: [&'static str; 2],
    revocation_endpoint_auth_methods_supported: [&'static str; 2],
    scopes_supported: Vec<&'static str>,
    service_documentation: String,
}

/// Why a form is refused.
#[derive(Debug)]
enum Refusal {
    Request(String),
    Client,
    /// The secret is right, and the address is none of the client's.
    Address,
    GrantType,
    Scope(String),
    /// Asked too often, or with too many wrong secrets.
    Often(Option<u32>),
    Away,
}

/// Where a form comes from, and where it is noted how often its client may ask.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    address: IpAddr,
    request_id: String,
    rate: Option<SeenRate>,
}

impl FromRequestParts<App> for Sender {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        let address = client_address(parts, &app.front.trusted_proxies);
        let request_id = parts.extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
        Ok(Self { address, request_id, rate: parts.extensions.get().cloned() })
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut wait = 1;
        let (status, error, error_description) = match self {
            Self::Request(detail) => (StatusCode::BAD_REQUEST, "invalid_request", detail),
            Self::Client => {
                crate::telemetry::counter("highwater_auth_failures_total", &[("reason", "invalid_client")], 1);
                (
                    StatusCode::UNAUTHORIZED,
                    "invalid_client",
                    "the client is not known, or its secret is wrong".to_owned(),
                )
            }
            Self::Address => {
                let refused = AuthError::Address;
                crate::telemetry::counter("highwater_auth_failures_total", &[("reason", refused.code())], 1);
                let detail = "the client may not be used from this address".to_owned();
                (StatusCode::UNAUTHORIZED, "invalid_client", detail)
            }
            Self::GrantType => {
                let detail = "the one grant type is client_credentials".to_owned();
                (StatusCode::BAD_REQUEST, "unsupported_grant_type", detail)
            }
            Self::Scope(detail) => (StatusCode::BAD_REQUEST, "invalid_scope", detail),
            Self::Often(seconds) => {
                wait = seconds.unwrap_or(wait);
                (
                    StatusCode::TOO_MANY_REQUESTS,
                    "temporarily_unavailable",
                    "asked too often; see Retry-After".to_owned(),
                )
            }
            Self::Away => {
                (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", "try again in a second".to_owned())
            }
        };
        let mut response = written(status, error, error_description);
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"highwater\""));
        }
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(RETRY_AFTER, wait.into());
        }
        response
    }
}

fn written(status: StatusCode, error: &'static str, error_description: String) -> Response {
    ([(PRAGMA, "no-cache")], (status, Json(OAuthError { error, error_description }))).into_response()
}

/// Whether whatever goes wrong on a path is told in the form of OAuth.
pub(super) fn has_form(path: &str) -> bool {
    matches!(path, "/v1/oauth/token" | "/v1/oauth/revoke")
}

/// Tells in the form of OAuth what went wrong before a form was read, or on our side.
pub(super) fn failed(problem: &Problem) -> Response {
    let error = match problem.status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => "temporarily_unavailable",
        status if status.is_server_error() => "server_error",
        _ => "invalid_request",
    };
    let mut response = written(problem.status, error, problem.detail.clone());
    if let Some(seconds) = problem.retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// Issues an access token to an OAuth client (RFC 6749, section 4.4).
#[utoipa::path(
    post, path = "/v1/oauth/token", tag = "oauth",
    request_body(content = TokenForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, body = TokenView), Failures),
    security(("client" = []))
)]
pub(super) async fn token(State(app): State<App>, sender: Sender, incoming: Incoming) -> Response {
    match issue(&app, &sender, &incoming).await {
        Ok(token) => ([(PRAGMA, "no-cache")], Json(token)).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn issue(app: &App, sender: &Sender, incoming: &Incoming) -> Result<TokenView, Refusal> {
    let form = form(incoming)?;
    let (record, generation, until) = client(app, sender, &incoming.headers, &form).await?;
    match form.get("grant_type").map(String::as_str) {
        Some("client_credentials") => {}
        Some(_) => return Err(Refusal::GrantType),
        None => return Err(Refusal::Request("grant_type is required".to_owned())),
    }
    let client = &record.client;
    let scopes = match form.get("scope").map(|scope| scope.trim()).filter(|scope| !scope.is_empty()) {
        None => client.scopes.clone(),
        Some(wanted) => {
            let own = |text: &str| Scope::parse(text).filter(|scope| client.scopes.contains(scope));
            let read = |text: &str| own(text).ok_or_else(|| Refusal::Scope(format!("the client lacks {text:?}")));
            Scope::closure(&wanted.split_ascii_whitespace().map(read).collect::<Result<BTreeSet<Scope>, _>>()?)
        }
    };
    let now = clock::now();
    let ends = [Some(now.plus(ACCESS_TOKEN_LIFE)), until, client.expires_at];
    let expires_at = ends.into_iter().flatten().min().unwrap_or(now);
    let of_client = client.scopes.iter().enumerate().filter(|(_, scope)| scopes.contains(scope));
    let claims = Claims {
        mode: client.tenant.mode,
        client: client.id,
        number: u128::from_be_bytes(clock::random()),
        generation,
        issued_at: now,
        expires_at,
        scopes: of_client
            .fold(0, |bits, (at, _)| bits | 1_u64.checked_shl(u32::try_from(at).unwrap_or(64)).unwrap_or(0)),
    };
    let token = credential::issue(app.node.data.vault.token_key(), &claims);
    let target = Target::OauthClient(client.id);
    let access = Access {
        tenant: client.tenant,
        actor: Some(record.as_key()),
        request_id: sender.request_id.clone(),
        ip: sender.address,
        note: AccessNote { kind: AccessKind::TokenIssued, target, refused: None },
    };
    app.node.access_notes.note(access, now);
    let texts: Vec<&str> = scopes.iter().map(|scope| scope.text()).collect();
    Ok(TokenView {
        access_token: token.expose_secret().to_owned(),
        token_type: "Bearer",
        expires_in: expires_at.since(now).0 / 1_000,
        scope: texts.join(" "),
    })
}

/// Ends an access token of the client (RFC 7009). A token that is unknown, ended or another client's changes nothing.
#[utoipa::path(
    post, path = "/v1/oauth/revoke", tag = "oauth",
    request_body(content = RevocationForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, description = "The token does not work"), Failures),
    security(("client" = []))
)]
pub(super) async fn revoke(State(app): State<App>, sender: Sender, incoming: Incoming) -> Response {
    match end(&app, &sender, &incoming).await {
        Ok(()) => ([(PRAGMA, "no-cache")], StatusCode::OK).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn end(app: &App, sender: &Sender, incoming: &Incoming) -> Result<(), Refusal> {
    let form = form(incoming)?;
    let (record, ..) = client(app, sender, &incoming.headers, &form).await?;
    let token = form.get("token").ok_or_else(|| Refusal::Request("token is required".to_owned()))?;
    let claims = credential::open_token(app.node.data.vault.token_key(), token);
    let own = claims.filter(|claims| claims.client == record.client.id && clock::now() < claims.expires_at);
    let Some(claims) = own else { return Ok(()) };
    let revocation =
        TokenRevocation { client: claims.client, token: claims.number_text(), expires_at: claims.expires_at };
    let asking = Asking { actor: Some(record.as_key()), ..Asking::by_command_line(record.client.tenant) };
    match app.node.data.control.submit(asking, Command::RevokeToken(revocation)).await {
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::warn!(error = %crate::telemetry::chain(&error), "a token could not be revoked");
            Err(Refusal::Away)
        }
    }
}

/// Describes the authorization server (RFC 8414).
#[utoipa::path(
    get, path = "/.well-known/oauth-authorization-server", tag = "oauth", security(()),
    responses((status = 200, body = Metadata))
)]
pub(super) async fn metadata(State(app): State<App>) -> Json<Metadata> {
    let issuer = app.node.notifier.base_url();
    let methods = ["client_secret_basic", "client_secret_post"];
    Json(Metadata {
        issuer: issuer.to_owned(),
        token_endpoint: format!("{issuer}/v1/oauth/token"),
        revocation_endpoint: format!("{issuer}/v1/oauth/revoke"),
        grant_types_supported: ["client_credentials"],
        response_types_supported: [],
        token_endpoint_auth_methods_supported: methods,
        revocation_endpoint_auth_methods_supported: methods,
        scopes_supported: Scope::ALL.iter().map(|scope| scope.text()).collect(),
        service_documentation: format!("{issuer}/docs"),
    })
}

/// Reads a form. Parameters that are not known are passed over, as OAuth wants it; none may stand twice.
fn form(incoming: &Incoming) -> Result<BTreeMap<String, String>, Refusal> {
    if super::input::essence(&incoming.headers).as_deref() != Some("application/x-www-form-urlencoded") {
        return Err(Refusal::Request("send application/x-www-form-urlencoded".to_owned()));
    }
    let mut form = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(&incoming.body) {
        if form.insert(name.clone().into_owned(), value.into_owned()).is_some() {
            return Err(Refusal::Request(format!("{name} stands more than once")));
        }
    }
    Ok(form)
}

/// What a client presents: its id and its secret.
type Presented = (String, String);

/// A client, and of the secret that it presented the generation and the end.
type Verified = (ClientRecord, u32, Option<Timestamp>);

/// The client that sent a form, with the generation and the end of the secret that it presented. It draws on the rate
/// limit of the client; a wrong secret counts as a failure of its address.
async fn client(
    app: &App,
    sender: &Sender,
    headers: &HeaderMap,
    form: &BTreeMap<String, String>,
) -> Result<Verified, Refusal> {
    let (id, secret) = presented(headers, form)?;
    // Another node may have made the client, or replaced its secret, a moment ago.
    let mut found = verified(app, &id, &secret);
    let may_be_new = app.node.data.journal.is_shared() && id.parse::<ClientId>().is_ok();
    if found.is_none() && may_be_new && !app.gate.is_failing(sender.address) {
        app.node.data.control.confirm().await.map_err(|error| {
            drop(unconfirmed(&error));
            Refusal::Away
        })?;
        found = verified(app, &id, &secret);
    }
    let Some((record, generation, until)) = found else {
        let state = app.node.data.control.state();
        let named = id.parse().ok().and_then(|id| state.client(id)).map(|record| record.client.clone());
        drop(state);
        let named = named.map(|client| (client.tenant, Target::OauthClient(client.id)));
        app.note_refused(named, (sender.address, &sender.request_id), "invalid_client");
        let wrong = Problem::new(StatusCode::UNAUTHORIZED, "invalid_client", "");
        let problem = app.gate.failed(sender.address, wrong);
        return Err(if problem.status == StatusCode::UNAUTHORIZED { Refusal::Client } else { often(&problem) });
    };
    if !credential::admits(&record.client.allowed_ips, sender.address) {
        let named = (record.client.tenant, Target::OauthClient(record.client.id));
        app.note_refused(Some(named), (sender.address, &sender.request_id), AuthError::Address.code());
        return Err(Refusal::Address);
    }
    let principal = Principal {
        tenant: record.client.tenant,
        key_id: record.as_key(),
        client: Some(record.client.id),
        token: None,
        lineage: record.as_key(),
        scopes: ScopeSet::default(),
        projects: record.client.projects.clone(),
        allowed_ips: record.client.allowed_ips.clone(),
        expires_at: record.client.expires_at,
        rate_limit: None,
    };
    app.gate.admit(&principal, "/v1/oauth", sender.rate.as_ref()).map_err(|problem| often(&problem))?;
    Ok((record, generation, until))
}

fn often(problem: &Problem) -> Refusal {
    if problem.status == StatusCode::TOO_MANY_REQUESTS { Refusal::Often(problem.retry_after) } else { Refusal::Away }
}

fn verified(app: &App, id: &str, secret: &str) -> Option<Verified> {
    let state = app.node.data.control.state();
    let (record, secret) = credential::verify_secret(&state, id, secret, clock::now())?;
    Some((record.clone(), secret.generation, secret.until))
}

/// Reads the credentials of a client: HTTP Basic, or in the form.
fn presented(headers: &HeaderMap, form: &BTreeMap<String, String>) -> Result<Presented, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let posted = form.get("client_id").cloned().zip(form.get("client_secret").cloned());
    match (values.next(), values.next(), posted) {
        (_, Some(_), _) => Err(Refusal::Request("Authorization stands more than once".to_owned())),
        (Some(_), None, Some(_)) => Err(Refusal::Request("authenticate in one way, not in two".to_owned())),
        (Some(value), None, None) => {
            let basic = value.to_str().ok().and_then(basic).ok_or(Refusal::Client)?;
            // Who names a client in the form, too, means the same one.
            if form.get("client_id").is_some_and(|id| *id != basic.0) { Err(Refusal::Client) } else { Ok(basic) }
        }
        (None, None, Some(posted)) => Ok(posted),
        (None, None, None) => Err(Refusal::Client),
    }
}

/// Both parts are form-encoded inside of what is base64 (RFC 6749, section 2.3.1).
fn basic(header: &str) -> Option<Presented> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let decoded = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced).decode_utf8().ok().map(|text| text.into_owned())
    };
    Some((decoded(id)?, decoded(secret)?))
}
