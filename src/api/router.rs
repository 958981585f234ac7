//! Every path, and what every request passes through.

use super::app::{App, Caller, RequestId};
use super::crowd::NoPlace;
use super::gate::SeenRate;
use super::problem::{Problem, ProblemBody};
use super::second_look::second_look;
use super::seen::{Seen, trace_id};
use super::server::ListenerLimits;
use super::{
    accounts, alert_rows, alerts, audit, body, channels, description, events, head, incidents, keys, linger, metrics,
    oauth, oauth_clients, operations, outbox, projects, quarantine, quotas, redelivery, rehearsals, relations, sandbox,
    shapes, silence_preview, silences, trials, usage, usage_query, whoami, workspace,
};
use super::{channel_deliveries, deliveries, event_types, stream, webhook_actions, webhooks};
use crate::runtime::clock::{self, Stopwatch};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequestParts, MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::{Json, Router};
use serde_json::Value;
use std::sync::OnceLock;
use std::time::Duration;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::field::display;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

/// The documentation loads nothing from elsewhere; the reader's own pictures and styles are written into its page.
const DOCS_POLICY: &str = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; \
                           base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(OpenApi)]
#[openapi(
    info(title = "highwater", description = "Exact usage windows, quotas and alerts.", license(name = "Apache-2.0")),
    components(schemas(ProblemBody, oauth::OAuthError))
)]
struct Document;

/// The paths with their handlers, and their description.
fn paths() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(events::send))
        .routes(routes!(events::send_batch))
        .routes(routes!(events::receipt))
        .routes(routes!(accounts::list, accounts::create))
        .routes(routes!(accounts::get, accounts::update, accounts::delete))
        .routes(routes!(quotas::list))
        .routes(routes!(quotas::put, quotas::delete))
        .routes(routes!(usage::get))
        .routes(routes!(metrics::list))
        .routes(routes!(metrics::put, metrics::update, metrics::delete))
        .routes(routes!(channels::list, channels::create))
        .routes(routes!(channels::get, channels::update, channels::delete))
        .routes(routes!(channel_deliveries::list))
        .routes(routes!(channel_deliveries::get))
        .routes(routes!(channel_deliveries::redeliver))
        .routes(routes!(alerts::list, alerts::create))
        .routes(routes!(alerts::get, alerts::update, alerts::delete))
        .routes(routes!(alerts::pause))
        .routes(routes!(alerts::resume))
        .routes(routes!(alert_rows::instances))
        .routes(routes!(alert_rows::history))
        .routes(routes!(rehearsals::preview))
        .routes(routes!(rehearsals::explain))
        .routes(routes!(usage_query::query))
        .routes(routes!(trials::test_alert))
        .routes(routes!(trials::test_channel))
        .routes(routes!(incidents::list))
        .routes(routes!(incidents::get))
        .routes(routes!(incidents::acknowledge))
        .routes(routes!(silences::list, silences::create))
        .routes(routes!(silences::get, silences::update))
        .routes(routes!(silences::expire))
        .routes(routes!(silence_preview::preview))
        .routes(routes!(quarantine::list))
        .routes(routes!(quarantine::replay))
        .routes(routes!(quarantine::discard))
        .routes(routes!(webhooks::list, webhooks::create))
        .routes(routes!(webhooks::get, webhooks::update, webhooks::delete))
        .routes(routes!(event_types::list))
        .routes(routes!(webhook_actions::secret))
        .routes(routes!(webhook_actions::rotate_secret))
        .routes(routes!(webhook_actions::test))
        .routes(routes!(webhook_actions::pause))
        .routes(routes!(webhook_actions::resume))
        .routes(routes!(deliveries::list))
        .routes(routes!(redelivery::replay))
        .routes(routes!(deliveries::get))
        .routes(routes!(redelivery::redeliver))
        .routes(routes!(stream::follow))
        .routes(routes!(projects::list, projects::create))
        .routes(routes!(projects::get, projects::update, projects::delete))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::get, keys::update))
        .routes(routes!(keys::rotate))
        .routes(routes!(keys::revoke))
        .routes(routes!(oauth_clients::list, oauth_clients::create))
        .routes(routes!(oauth_clients::get, oauth_clients::update, oauth_clients::delete))
        .routes(routes!(oauth_clients::rotate_secret))
        .routes(routes!(oauth::token))
        .routes(routes!(oauth::revoke))
        .routes(routes!(oauth::metadata))
        .routes(routes!(workspace::get, workspace::update))
        .routes(routes!(whoami::get))
        .routes(routes!(audit::list))
        .routes(routes!(sandbox::get))
        .routes(routes!(sandbox::reset))
        .routes(routes!(sandbox::advance_clock))
        .routes(routes!(outbox::list))
        .routes(routes!(operations::healthz))
        .routes(routes!(operations::readyz))
        .routes(routes!(operations::metrics))
}

/// The OpenAPI document.
pub fn openapi() -> Value {
    let (_, mut document) = paths().split_for_parts();
    description::complete(&mut document);
    let mut document = serde_json::to_value(document).unwrap_or_default();
    shapes::exact(&mut document);
    relations::complete(&mut document);
    document
}

/// What the public listener serves.
pub(super) fn public_router(app: App, limits: ListenerLimits) -> Router {
    let (router, _) = paths().split_for_parts();
    let swagger = SwaggerUi::new("/docs").config(Config::from("/v1/openapi.json").validator_url("none"));
    let router = router
        .route("/v1/openapi.json", axum::routing::get(described))
        .route("/docs/errors", axum::routing::get(errors_page))
        .route("/docs/guide", axum::routing::get(guide_page))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn_with_state(app.clone(), second_look));
    let router = app.front.around(dressed(bounded(router, &app).merge(swagger), limits));
    router.with_state(app).layer(middleware::from_fn(head::vet))
}

/// What the admin listener serves.
pub(super) fn admin_router(app: App, limits: ListenerLimits) -> Router {
    let scrape = |State(app): State<App>| async move { operations::scraped(&app) };
    let router = Router::new()
        .route("/metrics", axum::routing::get(scrape))
        .route("/healthz", axum::routing::get(operations::healthz))
        .route("/readyz", axum::routing::get(operations::readyz))
        .route(
            "/",
            axum::routing::get(|| async { Json(serde_json::json!({"paths": ["/metrics", "/healthz", "/readyz"]})) }),
        )
        .fallback(|| async { Problem::of_status(StatusCode::NOT_FOUND) });
    dressed(router, limits).with_state(app).layer(middleware::from_fn(head::vet))
}

/// Bounds bodies, before and after they are unpacked.
fn bounded(router: Router<App>, app: &App) -> Router<App> {
    router
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(app.clone(), body::bound))
        .layer(middleware::from_fn(linger::read_rest))
}

/// Gives every answer its shape.
fn dressed<S: Clone + Send + Sync + 'static>(router: Router<S>, limits: ListenerLimits) -> Router<S> {
    router
        .layer(CatchPanicLayer::custom(|_| {
            tracing::error!("a handler panicked");
            Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR).into_response()
        }))
        .layer(middleware::from_fn(move |request, next| finish(request, next, limits.request)))
}

/// No such path. What `/v1` has is told to those with a key only.
async fn no_route(State(app): State<App>, request: Request) -> Problem {
    unknown(&app, request, StatusCode::NOT_FOUND).await
}

/// No such method on the path.
async fn no_method(State(app): State<App>, request: Request) -> Problem {
    unknown(&app, request, StatusCode::METHOD_NOT_ALLOWED).await
}

async fn unknown(app: &App, request: Request, status: StatusCode) -> Problem {
    let (mut parts, _) = request.into_parts();
    let path = parts.uri.path();
    if path.starts_with("/v1/")
        && !oauth::has_form(path)
        && let Err(problem) = Caller::from_request_parts(&mut parts, app).await
    {
        return problem;
    }
    Problem::of_status(status)
}

/// The outermost layer: the request's id, its time limit, the shape of errors, headers that every answer has, metrics.
async fn finish(mut request: Request, next: Next, limit: Duration) -> Response {
    let stopwatch = Stopwatch::start();
    let id = request_id(request.headers());
    let (uri, method) = (request.uri().clone(), named(request.method()));
    let path = uri.path();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let seen = Seen::default();
    let logs = tracing::enabled!(tracing::Level::DEBUG);
    let trace = logs.then(|| trace_id(request.headers()).map(str::to_owned)).flatten();
    request.extensions_mut().insert(RequestId(id.clone()));
    request.extensions_mut().insert(seen.clone());
    let rate = SeenRate::default();
    request.extensions_mut().insert(rate.clone());
    let mut response = if request.extensions().get::<NoPlace>().is_some() {
        Problem::unavailable("overloaded", "too many requests are under way; try again").into_response()
    } else {
        let answered = tokio::time::timeout(limit, next.run(request)).await;
        answered.unwrap_or_else(|_| Problem::of_status(StatusCode::REQUEST_TIMEOUT).into_response())
    };
    if let Some(problem) = problem_of(&mut response) {
        seen.escalation(problem.code, &id);
        let allow = response.headers().get("allow").cloned();
        response = rendered(problem, &id, path);
        if let Some(allow) = allow {
            response.headers_mut().insert("allow", allow);
        }
    }
    let status = response.status();
    let headers = response.headers_mut();
    sign(headers, &id, path);
    if path.starts_with("/docs") {
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(DOCS_POLICY));
    }
    if let Some(mode) = seen.mode() {
        headers.insert("x-mode", HeaderValue::from_static(mode.name()));
    }
    rate.answer(path, status, headers);
    let status = status.as_u16();
    let elapsed = stopwatch.elapsed();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    crate::telemetry::answered(method, route, status, elapsed);
    if logs {
        let (workspace, key) = seen.get().map(|(tenant, key)| (display(tenant.workspace), display(key))).unzip();
        let elapsed_us = elapsed.as_micros() as u64;
        tracing::debug!(request_id = %id, trace_id = trace, workspace_id = workspace, key_id = key, method, path, status, elapsed_us, "answered");
    }
    response
}

/// Answers a request that is not looked at any further.
pub(super) fn refused(problem: Problem, request: &Request) -> Response {
    let (id, path) = (request_id(request.headers()), request.uri().path());
    let mut response = rendered(problem, &id, path);
    sign(response.headers_mut(), &id, path);
    crate::telemetry::answered(named(request.method()), "unmatched", response.status().as_u16(), Duration::ZERO);
    response
}

/// A problem in the form of its path.
fn rendered(problem: Problem, id: &str, path: &str) -> Response {
    if oauth::has_form(path) { oauth::failed(&problem) } else { problem.render(id, path) }
}

/// The headers that every answer has.
fn sign(headers: &mut HeaderMap, id: &str, path: &str) {
    if let Ok(value) = HeaderValue::from_str(id) {
        headers.insert("x-request-id", value);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if path.starts_with("/v1") {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// A method's name; one that somebody made up has none of its own, or anybody could fill the metrics with names.
fn named(method: &Method) -> &'static str {
    let known = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];
    let names = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    known.iter().position(|one| one == method).and_then(|place| names.get(place)).copied().unwrap_or("_OTHER")
}

/// The problem that an answer without success stands for.
fn problem_of(response: &mut Response) -> Option<Problem> {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        return Some(problem);
    }
    let status = response.status();
    let is_own = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    let failed = status.is_client_error() || status.is_server_error();
    (failed && !is_own).then(|| Problem::of_status(status))
}

/// The id of a request: its sender's, where that may be one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get("x-request-id").and_then(|value| value.to_str().ok()).filter(|id| is_request_id(id));
    given.map_or_else(new_request_id, str::to_owned)
}

/// An id for a request that brings none.
pub(super) fn new_request_id() -> String {
    format!("req_{}", ulid::Ulid(clock::ulid()))
}

fn is_request_id(text: &str) -> bool {
    // A key that got there by mistake, alone or in something else, must not end up in answers and in the audit log.
    (8..=128).contains(&text.len())
        && !crate::telemetry::has_secret(text)
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// The OpenAPI document. It takes longer to write than all else at a start, so it is written when it is first asked for.
async fn described() -> Response {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    let document = DOCUMENT.get_or_init(|| Bytes::from(openapi().to_string()));
    ([(CONTENT_TYPE, "application/json")], document.clone()).into_response()
}

/// How to begin, and what one needs to know of the whole.
async fn guide_page() -> Html<&'static str> {
    Html(include_str!("guide.html"))
}

/// Every error code with its meaning and remedy.
async fn errors_page() -> Html<&'static str> {
    Html(include_str!("errors.html"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use tower::ServiceExt;

    async fn ask(router: Router, request: Request) -> (StatusCode, serde_json::Value) {
        let answer = router.oneshot(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        assert_eq!(parts.headers["content-type"], "application/problem+json");
        assert_eq!(parts.headers["x-content-type-options"], "nosniff");
        let body: serde_json::Value = serde_json::from_slice(&to_bytes(body, 1 << 20).await.unwrap()).unwrap();
        assert_eq!(parts.headers["x-request-id"], body["request_id"].as_str().unwrap());
        (parts.status, body)
    }

    fn get(path: &str) -> Request {
        Request::builder().uri(path).body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_and_tells_nothing_of_itself() {
        async fn panics() {
            panic!("secret of the inside");
        }
        let router = dressed(Router::new().route("/v1/x", axum::routing::get(panics)), ListenerLimits::default());
        let (status, body) = ask(router, get("/v1/x")).await;
        assert_eq!((status.as_u16(), &body["code"], &body["retryable"]), (500, &"internal_error".into(), &true.into()));
        assert!(!body.to_string().contains("secret"), "{body}");
    }

    #[tokio::test]
    async fn on_the_paths_of_oauth_a_panic_and_a_late_request_have_its_form() {
        async fn panics() {
            panic!("secret of the inside");
        }
        let limits = ListenerLimits { request: Duration::from_millis(10), ..ListenerLimits::default() };
        let router = Router::new()
            .route("/v1/oauth/token", axum::routing::get(panics))
            .route("/v1/oauth/revoke", axum::routing::get(std::future::pending::<()>));
        let router = dressed(router, limits);
        for (path, status, error) in
            [("/v1/oauth/token", 500, "server_error"), ("/v1/oauth/revoke", 408, "invalid_request")]
        {
            let answer = router.clone().oneshot(get(path)).await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{path}");
            assert_eq!(answer.headers()["content-type"], "application/json", "{path}");
            let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["error"], error, "{body}");
            assert!(body["error_description"].is_string() && !body.to_string().contains("secret"), "{body}");
        }
    }

    #[tokio::test]
    async fn what_is_worth_another_try_says_when() {
        async fn away() -> Problem {
            Problem::unavailable("not_ready", "the read models are away")
        }
        let router = dressed(Router::new().route("/v1/x", axum::routing::get(away)), ListenerLimits::default());
        let answer = router.clone().oneshot(get("/v1/x")).await.unwrap();
        assert_eq!(answer.headers()["retry-after"], "1");
        let (status, body) = ask(router, get("/v1/x")).await;
        assert_eq!((status.as_u16(), &body["code"], &body["retryable"]), (503, &"not_ready".into(), &true.into()));
    }

    #[tokio::test]
    async fn a_handler_that_does_not_end_is_a_problem() {
        let limits = ListenerLimits { request: Duration::from_millis(10), ..ListenerLimits::default() };
        let router = dressed(Router::new().route("/v1/x", axum::routing::get(std::future::pending::<()>)), limits);
        let (status, body) = ask(router, get("/v1/x")).await;
        assert_eq!((status.as_u16(), &body["code"]), (408, &"request_timeout".into()));
    }
}
