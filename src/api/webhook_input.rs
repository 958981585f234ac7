//! Checking what endpoints are made of.

use super::app::App;
use super::problem::Problem;
use super::text;
use crate::domain::id::WebhookId;
use crate::domain::limits::{
    DESCRIPTION_CHARS_MAX, EVENT_TYPES_PER_WEBHOOK_MAX, WEBHOOK_HEADER_BYTES_MAX, WEBHOOK_HEADERS_MAX, WEBHOOK_RATE_MAX,
};
use crate::domain::webhook::kind::EventType;
use crate::notifier::TargetKind;
use crate::runtime::courier::Sealed;
use axum::http::{HeaderName, HeaderValue};
use std::collections::BTreeMap;

/// Headers that belong to the connection, to the message or to the signature.
const OWN_HEADERS: [&str; 14] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "expect",
    "date",
    "user-agent",
    "accept-encoding",
];

/// Vets a URL.
///
/// # Errors
/// 422 where it is none, or leads where nothing may be sent.
pub(super) fn url(app: &App, url: &str) -> Result<String, Problem> {
    let vetted = app.node.notifier.guard().check_url(url, TargetKind::Webhook).map_err(|error| {
        let problem = Problem::invalid("/url", error.to_string());
        Problem { code: "target_blocked", ..problem }
    })?;
    Ok(vetted.to_string())
}

/// Checks patterns of event types; without any it is everything.
///
/// # Errors
/// 422 where one stands for nothing, or there are too many.
pub(super) fn event_types(patterns: Option<Vec<String>>) -> Result<Vec<String>, Problem> {
    let Some(patterns) = patterns else { return Ok(vec!["*".to_owned()]) };
    if patterns.is_empty() || patterns.len() > EVENT_TYPES_PER_WEBHOOK_MAX {
        let detail = format!("{} patterns, expected 1 to {EVENT_TYPES_PER_WEBHOOK_MAX}", patterns.len());
        return Err(Problem::invalid("/event_types", detail));
    }
    match patterns.iter().enumerate().find(|(_, pattern)| !EventType::is_pattern(pattern)) {
        Some((at, pattern)) => {
            let names = EventType::ALL.iter().map(|kind| kind.name());
            let nearest = names.min_by_key(|name| strsim::levenshtein(name, pattern)).unwrap_or("alert.*");
            let detail = format!("{pattern:?} is no event type and no prefix.*; the nearest is {nearest}");
            Err(Problem::invalid(&format!("/event_types/{at}"), detail))
        }
        None => Ok(patterns),
    }
}

/// Checks a description.
///
/// # Errors
/// 422 where it is too long.
pub(super) fn description(description: String) -> Result<String, Problem> {
    text::bounded("/description", description, DESCRIPTION_CHARS_MAX)
}

/// Checks how many deliveries a second are wanted.
///
/// # Errors
/// 422 where it is out of range.
pub(super) fn rate_limit(limit: u32) -> Result<u32, Problem> {
    if (1..=WEBHOOK_RATE_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(Problem::invalid("/rate_limit", format!("{limit} is not in range, expected 1 to {WEBHOOK_RATE_MAX} a second")))
}

/// Checks headers; returns their names, and all of them sealed.
///
/// # Errors
/// 422 where one cannot be sent, or is not the endpoint's own.
pub(super) fn headers(
    app: &App,
    id: WebhookId,
    headers: BTreeMap<String, String>,
) -> Result<(Vec<String>, String), Problem> {
    if headers.len() > WEBHOOK_HEADERS_MAX {
        let detail = format!("{} headers, at most {WEBHOOK_HEADERS_MAX} are taken", headers.len());
        return Err(Problem::invalid("/headers", detail));
    }
    let mut checked = BTreeMap::new();
    for (name, value) in headers {
        let pointer = format!("/headers/{}", name.replace('~', "~0").replace('/', "~1"));
        let wrong = |detail: &str| Problem::invalid(&pointer, detail);
        let lower = HeaderName::try_from(name.as_str()).map_err(|_| wrong("no name of a header"))?.to_string();
        let is_ours = OWN_HEADERS.contains(&lower.as_str())
            || ["content-", "webhook-", "proxy-"].iter().any(|prefix| lower.starts_with(prefix));
        if is_ours {
            return Err(wrong("this header is not the endpoint's own to set"));
        }
        // Tabs and bytes beyond ASCII are valid in a header, and trouble everywhere else.
        let fits = (1..=WEBHOOK_HEADER_BYTES_MAX).contains(&value.len())
            && value.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
            && value.trim() == value
            && HeaderValue::from_str(&value).is_ok();
        if !fits {
            return Err(wrong("expected 1 to 1024 visible ASCII characters"));
        }
        if checked.insert(lower, value).is_some() {
            return Err(wrong("the header stands more than once"));
        }
    }
    let json = serde_json::to_vec(&checked).unwrap_or_default();
    let sealed = seal(app, Sealed::Headers, id, &json)?;
    Ok((checked.into_keys().collect(), sealed))
}

/// Seals something of an endpoint.
///
/// # Errors
/// 500 where the vault cannot seal.
pub(super) fn seal(app: &App, what: Sealed, id: WebhookId, plain: &[u8]) -> Result<String, Problem> {
    app.node.data.vault.seal(&what.context(id), plain).map_err(|error| Problem::internal(&error))
}
