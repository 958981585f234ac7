//! The native event: one flat JSON object.

use super::dimensions::{self, Dimensions};
use super::fields::{self, Fields, Raw};
use super::quick;
use super::refusal::{Refusal, RefusalCode, pointer_token};
use super::{Reduction, UsageEvent};
use crate::domain::id::{AccountId, MetricName, ProjectId};
use crate::domain::limits::SYSTEM_METRIC_PREFIX;
use crate::domain::quantity::Quantity;
use std::borrow::Cow;

const KNOWN: &str = "account_id, metric, value, id, source, timestamp, project_id and dimensions";

/// Reads a native event.
pub(super) fn read(bytes: &[u8]) -> Result<UsageEvent<'_>, Refusal> {
    quick::event(bytes).map_or_else(|| fields::object(bytes).and_then(event), Ok)
}

/// Reads a native event of its fields.
pub(super) fn event(fields: Fields<'_>) -> Result<UsageEvent<'_>, Refusal> {
    let mut account_id = None;
    let mut metric = None;
    let mut value = None;
    let mut id = None;
    let mut source = None;
    let mut timestamp = None;
    let mut project_id = None;
    let mut dimensions = None;
    for (name, raw) in fields.0 {
        match name.as_ref() {
            "account_id" => once(&mut account_id, raw, "/account_id")?,
            "metric" => once(&mut metric, raw, "/metric")?,
            "value" => once(&mut value, raw, "/value")?,
            "id" => once(&mut id, raw, "/id")?,
            "source" => once(&mut source, raw, "/source")?,
            "timestamp" => once(&mut timestamp, raw, "/timestamp")?,
            "project_id" => once(&mut project_id, raw, "/project_id")?,
            "dimensions" => once(&mut dimensions, raw, "/dimensions")?,
            unknown => {
                let shown: String = unknown.chars().take(64).collect();
                let pointer = format!("/{}", pointer_token(&shown));
                return Err(Refusal::at(
                    RefusalCode::UnknownField,
                    &pointer,
                    format!("unknown field; the fields are {KNOWN}"),
                ));
            }
        }
    }
    let timestamp = match timestamp.map(|raw| fields::optional_text(raw, "/timestamp")).transpose()?.flatten() {
        Some(text) => Some(fields::instant(&text, "/timestamp")?),
        None => None,
    };
    let project_id = match project_id.map(|raw| fields::optional_text(raw, "/project_id")).transpose()?.flatten() {
        Some(text) => Some(project(&text, "/project_id")?),
        None => None,
    };
    let (dimensions, reduction) = match dimensions.filter(|raw| raw.get() != "null") {
        Some(raw) => read_dimensions(raw)?,
        None => (Vec::new(), None),
    };
    Ok(UsageEvent {
        account_id: account(fields::text(required(account_id, "/account_id")?, "/account_id")?, "/account_id")?,
        metric: metric_name(fields::text(required(metric, "/metric")?, "/metric")?, "/metric")?,
        value: value.map(|raw| fields::quantity(raw, "/value")).transpose()?.unwrap_or(Quantity::ONE),
        id: id.map(|raw| fields::identifier(raw, "/id")).transpose()?.flatten(),
        source: source.map(|raw| fields::identifier(raw, "/source")).transpose()?.flatten(),
        timestamp,
        project_id,
        dimensions,
        reduction,
    })
}

fn read_dimensions(raw: Raw<'_>) -> Result<(Dimensions<'_>, Option<Box<Reduction>>), Refusal> {
    let Fields(mut named) = fields::inner(raw).map_err(|refusal| Refusal {
        pointer: Some("/dimensions".to_owned()),
        code: RefusalCode::InvalidEvent,
        ..refusal
    })?;
    named.retain(|(_, raw)| raw.get() != "null");
    Ok(dimensions::read(named, "/dimensions"))
}

fn once<'a>(place: &mut Option<Raw<'a>>, raw: Raw<'a>, pointer: &str) -> Result<(), Refusal> {
    match place.replace(raw) {
        Some(_) => Err(fields::duplicate(pointer)),
        None => Ok(()),
    }
}

fn required<'a>(raw: Option<Raw<'a>>, pointer: &str) -> Result<Raw<'a>, Refusal> {
    raw.ok_or_else(|| Refusal::at(RefusalCode::InvalidEvent, pointer, "the field is required"))
}

/// Checks an account's name.
pub(super) fn account<'a>(text: Cow<'a, str>, pointer: &str) -> Result<Cow<'a, str>, Refusal> {
    if AccountId::is_valid(&text) {
        return Ok(text);
    }
    Err(Refusal::at(RefusalCode::InvalidEvent, pointer, format!("not an account: expected {}", AccountId::EXPECTED)))
}

/// Checks a metric's name.
pub(super) fn metric_name<'a>(text: Cow<'a, str>, pointer: &str) -> Result<Cow<'a, str>, Refusal> {
    if text.starts_with(SYSTEM_METRIC_PREFIX) {
        let detail = format!("names that begin with {SYSTEM_METRIC_PREFIX} are the system's own");
        return Err(Refusal::at(RefusalCode::InvalidEvent, pointer, detail));
    }
    if MetricName::is_valid(&text) {
        return Ok(text);
    }
    Err(Refusal::at(RefusalCode::InvalidEvent, pointer, format!("not a metric: expected {}", MetricName::EXPECTED)))
}

/// Reads a project's id.
pub(super) fn project(text: &str, pointer: &str) -> Result<ProjectId, Refusal> {
    text.parse().map_err(|error| Refusal::at(RefusalCode::InvalidEvent, pointer, format!("{error}")))
}
