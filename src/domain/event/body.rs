//! Bodies with one or many events. A bad event refuses itself alone.

use super::fields::{self, Fields};
use super::refusal::{Refusal, RefusalCode};
use super::{UsageEvent, cloudevent, native, quick};
use crate::domain::limits::{BATCH_EVENTS_MAX, EVENT_BYTES_MAX, NDJSON_LINES_MAX};
use serde_json::value::RawValue;

/// What a body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentKind {
    /// One native event.
    Native,
    /// `{"events":[…]}`, or an array of native events.
    NativeBatch,
    /// One structured CloudEvent.
    CloudEvent,
    /// An array of CloudEvents.
    CloudEventBatch,
    /// One event a line, native or CloudEvent.
    Lines,
}

/// One event of a body.
#[derive(Debug)]
pub struct Item<'a> {
    /// Its place in the array, or its line counted from 0.
    pub index: usize,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// What they say.
    pub event: Result<UsageEvent<'a>, Refusal>,
}

/// Why a whole body cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is not JSON, or not of the form that its content type says.
    #[error("{detail}")]
    Malformed {
        /// What is wrong, with line and column.
        detail: String,
    },
    /// It has too many events.
    #[error("{count} events, at most {limit} are taken in one request")]
    TooMany {
        /// How many it has.
        count: usize,
        /// How many are taken.
        limit: usize,
    },
}

/// Reads a body. Events are refused one by one.
///
/// # Errors
/// Where the body as a whole cannot be read.
pub fn parse_events(body: &[u8], kind: ContentKind) -> Result<Vec<Item<'_>>, BodyError> {
    match kind {
        ContentKind::Native => Ok(vec![item(0, body, one(body)?, native::read)]),
        ContentKind::CloudEvent => Ok(vec![item(0, body, one(body)?, cloudevent::read)]),
        ContentKind::NativeBatch => items(batch(body)?, native::read),
        ContentKind::CloudEventBatch => items(array(body)?, cloudevent::read),
        ContentKind::Lines => lines(body),
    }
}

/// Reads one line: a native event, or a CloudEvent where it has a `specversion`.
///
/// # Errors
/// Where the line is no valid event.
pub fn parse_line(line: &[u8]) -> Result<UsageEvent<'_>, Refusal> {
    if line.len() > EVENT_BYTES_MAX {
        let detail = format!("{} bytes, at most {EVENT_BYTES_MAX} are taken in one line", line.len());
        return Err(Refusal::new(RefusalCode::LineTooLarge, detail));
    }
    if let Some(event) = quick::event(line) {
        return Ok(event);
    }
    let fields = fields::object(line)?;
    if fields.0.iter().any(|(name, _)| name == "specversion") {
        cloudevent::event(fields)
    } else {
        native::event(fields)
    }
}

/// Reads the id of an event that is refused for something else; none where there is no valid one.
pub fn id_of(bytes: &[u8]) -> Option<String> {
    if bytes.len() > EVENT_BYTES_MAX {
        return None;
    }
    let Fields(fields) = fields::object(bytes).ok()?;
    let (_, raw) = fields.into_iter().find(|(name, _)| name == "id")?;
    fields::identifier(raw, "/id").ok().flatten().map(std::borrow::Cow::into_owned)
}

type Read = for<'a> fn(&'a [u8]) -> Result<UsageEvent<'a>, Refusal>;

/// Makes sure that a body is one JSON value, so that a body that is not JSON is no refused event.
fn one(body: &[u8]) -> Result<&[u8], BodyError> {
    serde_json::from_slice::<&RawValue>(body).map(|raw| raw.get().as_bytes()).map_err(|error| malformed(&error))
}

fn item<'a>(index: usize, bytes: &'a [u8], value: &'a [u8], read: Read) -> Item<'a> {
    let event = if value.len() > EVENT_BYTES_MAX {
        let detail = format!("{} bytes, at most {EVENT_BYTES_MAX} are taken", value.len());
        Err(Refusal::new(RefusalCode::EventTooLarge, detail))
    } else {
        read(value)
    };
    Item { index, bytes, event }
}

fn items(values: Vec<&RawValue>, read: Read) -> Result<Vec<Item<'_>>, BodyError> {
    if values.len() > BATCH_EVENTS_MAX {
        return Err(BodyError::TooMany { count: values.len(), limit: BATCH_EVENTS_MAX });
    }
    let bytes = values.into_iter().map(|raw| raw.get().as_bytes());
    Ok(bytes.enumerate().map(|(index, bytes)| item(index, bytes, bytes, read)).collect())
}

fn array(body: &[u8]) -> Result<Vec<&RawValue>, BodyError> {
    serde_json::from_slice(body).map_err(|error| malformed(&error))
}

fn batch(body: &[u8]) -> Result<Vec<&RawValue>, BodyError> {
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return array(body);
    }
    let fields: Fields<'_> = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    match fields.0.as_slice() {
        [(name, events)] if name == "events" => array(events.get().as_bytes()),
        _ => Err(BodyError::Malformed { detail: "expected {\"events\":[…]} with no other field".to_owned() }),
    }
}

fn malformed(error: &serde_json::Error) -> BodyError {
    BodyError::Malformed { detail: error.to_string() }
}

fn lines(body: &[u8]) -> Result<Vec<Item<'_>>, BodyError> {
    let mut items = Vec::new();
    let mut start = 0;
    let ends = memchr::memchr_iter(b'\n', body).chain([body.len()]);
    for (index, end) in ends.enumerate() {
        let line = body.get(start..end).unwrap_or_default().trim_ascii();
        start = end.saturating_add(1);
        if !line.is_empty() {
            items.push(Item { index, bytes: line, event: parse_line(line) });
        }
        if items.len() > NDJSON_LINES_MAX {
            return Err(BodyError::TooMany { count: items.len(), limit: NDJSON_LINES_MAX });
        }
    }
    Ok(items)
}
