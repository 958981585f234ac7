//! Answers with one resource.

use super::change::Changed;
use axum::Json;
use axum::http::header::{ETAG, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Shows one resource, with its version as `ETag`.
pub(super) fn show<T: Serialize>(view: &T, version: u64) -> Response {
    let mut response = Json(view).into_response();
    set_version(&mut response, version);
    response
}

/// Shows what a change made: 201 with `Location` where it is new, else 200; replays are marked.
pub(super) fn changed<T: Serialize>(changed: &Changed, view: &T, version: u64, location: &str) -> Response {
    let mut response = Json(view).into_response();
    set_version(&mut response, version);
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

fn set_version(response: &mut Response, version: u64) {
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        response.headers_mut().insert(ETAG, etag);
    }
}
