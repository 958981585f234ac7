//! What a client takes of an answer (`Accept`, RFC 9110).

use super::problem::Problem;
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};

/// Makes sure that a client takes something of what a path answers with. Whoever says nothing takes all.
///
/// # Errors
/// 406 where it takes none of it.
pub(super) fn acceptable(headers: &HeaderMap, path: &str) -> Result<(), Problem> {
    let kinds: &[&str] = match path {
        "/v1/stream" => &["text/event-stream", "application/json"],
        "/v1/audit-log" => &["application/json", "application/x-ndjson"],
        path if path.ends_with("/usage") => &["application/json", "text/csv"],
        _ => &["application/json"],
    };
    let mut is_silent = true;
    for value in headers.get_all(ACCEPT) {
        let Ok(text) = value.to_str() else { return Ok(()) };
        let ranges = text.split(',').map(str::trim).filter(|range| !range.is_empty());
        for range in ranges {
            is_silent = false;
            if takes(range, kinds) {
                return Ok(());
            }
        }
    }
    if is_silent {
        return Ok(());
    }
    let detail = format!("the answer is {}; send an Accept that takes it, or none", kinds.join(" or "));
    Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", detail))
}

/// Whether a media range takes one of some kinds, or our errors.
fn takes(range: &str, kinds: &[&str]) -> bool {
    let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
    let named = parts.next().unwrap_or_default();
    let is_refused = parts.any(|part| {
        let weight = part.strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok());
        weight.is_some_and(|weight| weight <= 0.0)
    });
    let is_of = |kind: &str| {
        named == kind || named.strip_suffix('*').is_some_and(|start| start.ends_with('/') && kind.starts_with(start))
    };
    !is_refused
        && (matches!(named.as_str(), "*/*" | "*")
            || is_of("application/problem+json")
            || kinds.iter().any(|kind| is_of(kind)))
}
