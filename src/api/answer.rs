//! Answers with one resource.

use super::app::Caller;
use super::change::Changed;
use axum::Json;
use axum::http::header::{ETAG, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Shows one resource with its `ETag`; 304 where `If-None-Match` names it.
pub(super) fn show<T: Serialize>(caller: &Caller, view: &T, etag: &str) -> Response {
    let mut response =
        if caller.has_already(etag) { StatusCode::NOT_MODIFIED.into_response() } else { Json(view).into_response() };
    set_etag(&mut response, etag);
    response
}

/// Shows what a change made: 201 with `Location` where it is new, else 200; replays are marked.
pub(super) fn changed<T: Serialize>(changed: &Changed, view: &T, version: u64, location: &str) -> Response {
    let mut response = Json(view).into_response();
    set_etag(&mut response, &etag(version));
    if changed.created {
        *response.status_mut() = StatusCode::CREATED;
        if let Ok(location) = HeaderValue::from_str(location) {
            response.headers_mut().insert(LOCATION, location);
        }
    }
    if changed.replayed {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    response
}

/// 204.
pub(super) fn gone() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// The `ETag` of a resource that its version says everything of.
pub(super) fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

fn set_etag(response: &mut Response, etag: &str) {
    if let Ok(etag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(ETAG, etag);
    }
}
