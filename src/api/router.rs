//! Every path, and what every request passes through.

use super::app::{App, RequestId};
use super::problem::{Problem, ProblemBody};
use super::{accounts, alerts, channels, events, metrics, operations, quarantine, quotas, usage};
use crate::domain::limits::{NDJSON_BODY_BYTES_MAX, REQUEST_TIMEOUT};
use crate::runtime::clock::{self, Stopwatch};
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use std::time::Duration;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::decompression::RequestDecompressionLayer;
use tower_http::limit::RequestBodyLimitLayer;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

#[derive(OpenApi)]
#[openapi(
    info(title = "highwater", description = "Exact usage windows, quotas and alerts.", license(name = "Apache-2.0")),
    components(schemas(ProblemBody))
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
        .routes(routes!(alerts::list, alerts::create))
        .routes(routes!(alerts::get, alerts::update, alerts::delete))
        .routes(routes!(alerts::pause))
        .routes(routes!(alerts::resume))
        .routes(routes!(alerts::instances))
        .routes(routes!(alerts::history))
        .routes(routes!(quarantine::list))
        .routes(routes!(quarantine::replay))
        .routes(routes!(quarantine::discard))
        .routes(routes!(operations::healthz))
        .routes(routes!(operations::readyz))
}

/// The OpenAPI document.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let (_, mut document) = paths().split_for_parts();
    let bearer =
        SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("pk_live_…").build());
    if let Some(components) = &mut document.components {
        components.add_security_scheme("key", bearer);
    }
    document
}

/// What the public listener serves.
pub(super) fn public_router(app: App) -> Router {
    let (router, _) = paths().split_for_parts();
    let document = openapi();
    let swagger = SwaggerUi::new("/docs")
        .url("/v1/openapi.json", document)
        .config(Config::from("/v1/openapi.json").validator_url("none"));
    router
        .route("/docs/errors", axum::routing::get(errors_page))
        .fallback(|| async { Problem::of_status(StatusCode::NOT_FOUND) })
        .method_not_allowed_fallback(|| async { Problem::of_status(StatusCode::METHOD_NOT_ALLOWED) })
        .layer(DefaultBodyLimit::max(NDJSON_BODY_BYTES_MAX))
        .layer(RequestDecompressionLayer::new().pass_through_unaccepted(false))
        .layer(RequestBodyLimitLayer::new(NDJSON_BODY_BYTES_MAX))
        .merge(swagger)
        .layer(CatchPanicLayer::custom(|_| {
            tracing::error!("a handler panicked");
            Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR).into_response()
        }))
        .layer(middleware::from_fn(finish))
        .with_state(app)
}

/// What the admin listener serves.
pub(super) fn admin_router(app: App, metrics: PrometheusHandle) -> Router {
    let scrape = move |State(app): State<App>| async move {
        operations::refresh_gauges(&app);
        ([(CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render())
    };
    Router::new()
        .route("/metrics", axum::routing::get(scrape))
        .route("/healthz", axum::routing::get(operations::healthz))
        .route("/readyz", axum::routing::get(operations::readyz))
        .route(
            "/",
            axum::routing::get(|| async { Json(serde_json::json!({"paths": ["/metrics", "/healthz", "/readyz"]})) }),
        )
        .with_state(app)
}

/// The outermost layer: the request's id, its time limit, the shape of errors, headers that every answer has, metrics.
async fn finish(mut request: Request, next: Next) -> Response {
    let stopwatch = Stopwatch::start();
    let given =
        request.headers().get("x-request-id").and_then(|value| value.to_str().ok()).filter(|id| is_request_id(id));
    let id = given.map_or_else(|| format!("req_{}", ulid::Ulid(clock::ulid())), str::to_owned);
    let path = request.uri().path().to_owned();
    let method = request.method().to_string();
    let route =
        request.extensions().get::<MatchedPath>().map_or("unmatched".to_owned(), |path| path.as_str().to_owned());
    request.extensions_mut().insert(RequestId(id.clone()));
    let limit = Duration::from_millis(u64::try_from(REQUEST_TIMEOUT.0).unwrap_or(30_000));
    let answered = tokio::time::timeout(limit, next.run(request)).await;
    let mut response = answered.unwrap_or_else(|_| Problem::of_status(StatusCode::REQUEST_TIMEOUT).into_response());
    if let Some(problem) = problem_of(&mut response) {
        let allow = response.headers().get("allow").cloned();
        response = problem.render(&id, &path);
        if let Some(allow) = allow {
            response.headers_mut().insert("allow", allow);
        }
    }
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert("x-request-id", value);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if path.starts_with("/v1") {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    let status = response.status().as_u16();
    let labels = vec![
        ("http_request_method", method.clone()),
        ("http_route", route),
        ("http_response_status_code", status.to_string()),
    ];
    crate::telemetry::seconds("http_server_request_duration_seconds", labels, stopwatch.elapsed());
    tracing::debug!(request_id = %id, method, path, status, elapsed_us = stopwatch.elapsed().as_micros() as u64, "answered");
    response
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

fn is_request_id(text: &str) -> bool {
    (8..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Every error code with its meaning and remedy.
async fn errors_page() -> Html<&'static str> {
    Html(include_str!("errors.html"))
}
