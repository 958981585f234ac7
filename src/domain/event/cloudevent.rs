//! CloudEvents 1.0 (specification: cloudevents.io), structured and binary.
//!
//! `subject` names the account, `type` the metric, `data.value` the value; other scalars of `data` are dimensions, nested
//! values of it are left out. Extension attributes are ignored, but for `projectid`.

use super::fields::{self, Fields, Raw};
use super::native::{account, metric_name, project};
use super::refusal::{Refusal, RefusalCode};
use super::{DimensionValue, UsageEvent};
use crate::domain::quantity::Quantity;
use percent_encoding::percent_decode;
use std::borrow::Cow;

/// What a CloudEvent says beside its data.
#[derive(Default)]
struct Attributes<'a> {
    specversion: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    source: Option<Cow<'a, str>>,
    kind: Option<Cow<'a, str>>,
    subject: Option<Cow<'a, str>>,
    time: Option<Cow<'a, str>>,
    project: Option<Cow<'a, str>>,
}

impl<'a> Attributes<'a> {
    fn place(&mut self, name: &str) -> Option<&mut Option<Cow<'a, str>>> {
        match name {
            "specversion" => Some(&mut self.specversion),
            "id" => Some(&mut self.id),
            "source" => Some(&mut self.source),
            "type" => Some(&mut self.kind),
            "subject" => Some(&mut self.subject),
            "time" => Some(&mut self.time),
            "projectid" => Some(&mut self.project),
            _ => None,
        }
    }

    fn event(self, data: Option<Fields<'a>>) -> Result<UsageEvent<'a>, Refusal> {
        let required = |value: Option<Cow<'a, str>>, name: &str| {
            value.filter(|text| !text.is_empty()).ok_or_else(|| {
                Refusal::at(
                    RefusalCode::InvalidCloudevent,
                    &format!("/{name}"),
                    format!("the attribute {name} is required"),
                )
            })
        };
        let version = required(self.specversion, "specversion")?;
        if version != "1.0" {
            let detail = format!("specversion {version:?} is not supported, expected \"1.0\"");
            return Err(Refusal::at(RefusalCode::InvalidCloudevent, "/specversion", detail));
        }
        let (value, dimensions) = read_data(data)?;
        let timestamp = self.time.map(|text| fields::instant(&text, "/time")).transpose()?;
        let bounded = |text: Cow<'a, str>, pointer: &str| {
            if text.len() <= crate::domain::limits::EVENT_ID_BYTES_MAX {
                return Ok(text);
            }
            let detail =
                format!("{} bytes, expected at most {}", text.len(), crate::domain::limits::EVENT_ID_BYTES_MAX);
            Err(Refusal::at(RefusalCode::InvalidEvent, pointer, detail))
        };
        Ok(UsageEvent {
            id: Some(bounded(required(self.id, "id")?, "/id")?),
            source: Some(bounded(required(self.source, "source")?, "/source")?),
            metric: metric_name(required(self.kind, "type")?, "/type")?,
            account_id: account(required(self.subject, "subject")?, "/subject")?,
            value,
            timestamp,
            project_id: self.project.map(|text| project(&text, "/projectid")).transpose()?,
            dimensions,
        })
    }
}

type Data<'a> = (Quantity, Vec<(Cow<'a, str>, DimensionValue<'a>)>);

fn read_data(data: Option<Fields<'_>>) -> Result<Data<'_>, Refusal> {
    let mut value = None;
    let mut dimensions = Vec::new();
    for (name, raw) in data.map(|fields| fields.0).unwrap_or_default() {
        if name == "value" {
            if value.replace(fields::quantity(raw, "/data/value")?).is_some() {
                return Err(fields::duplicate("/data/value"));
            }
        } else if !raw.get().starts_with(['{', '[', 'n']) {
            let read = fields::dimension(&name, raw, "/data")?;
            dimensions.push((name, read));
        }
    }
    fields::settle_dimensions(&mut dimensions, "/data")?;
    Ok((value.unwrap_or(Quantity::ONE), dimensions))
}

/// Reads a structured CloudEvent.
pub(super) fn read(bytes: &[u8]) -> Result<UsageEvent<'_>, Refusal> {
    fields::object(bytes).and_then(event)
}

/// Reads a structured CloudEvent of its fields.
pub(super) fn event(fields: Fields<'_>) -> Result<UsageEvent<'_>, Refusal> {
    let mut attributes = Attributes::default();
    let mut data: Option<Raw<'_>> = None;
    for (name, raw) in fields.0 {
        if name == "data" {
            if data.replace(raw).is_some() {
                return Err(fields::duplicate("/data"));
            }
        } else if name == "data_base64" {
            let detail = "binary data is not read; send JSON in data";
            return Err(Refusal::at(RefusalCode::InvalidCloudevent, "/data_base64", detail));
        } else if name == "datacontenttype" {
            fields::optional_text(raw, "/datacontenttype")
                .map_err(|refusal| Refusal { code: RefusalCode::InvalidCloudevent, ..refusal })?;
        } else if let Some(place) = attributes.place(&name) {
            let pointer = format!("/{name}");
            if place.is_some() {
                return Err(fields::duplicate(&pointer));
            }
            *place = fields::optional_text(raw, &pointer)
                .map_err(|refusal| Refusal { code: RefusalCode::InvalidCloudevent, ..refusal })?;
        }
    }
    let data = data.filter(|raw| raw.get() != "null").map(|raw| data_fields(raw.get().as_bytes())).transpose()?;
    attributes.event(data)
}

fn data_fields(bytes: &[u8]) -> Result<Fields<'_>, Refusal> {
    fields::object(bytes).map_err(|refusal| Refusal {
        code: RefusalCode::InvalidCloudevent,
        detail: format!("data: {}", refusal.detail),
        pointer: Some("/data".to_owned()),
    })
}

/// Reads a binary CloudEvent: attributes from `ce-` headers (names without the prefix), JSON data.
///
/// Header values are percent-decoded once, as the HTTP binding says.
///
/// # Errors
/// Where an attribute is missing, stands twice or is not UTF-8, or the data is no JSON object.
pub fn parse_binary_cloudevent<'a>(
    headers: &'a [(String, Vec<u8>)],
    data: &'a [u8],
) -> Result<UsageEvent<'a>, Refusal> {
    let mut attributes = Attributes::default();
    for (name, value) in headers {
        let name = name.to_ascii_lowercase();
        let Some(place) = attributes.place(&name) else { continue };
        let pointer = format!("/{name}");
        let decoded = percent_decode(value).decode_utf8().map_err(|_| {
            Refusal::at(
                RefusalCode::InvalidCloudevent,
                &pointer,
                format!("the header ce-{name} is not percent-encoded UTF-8"),
            )
        })?;
        if place.replace(decoded).is_some() {
            return Err(Refusal { code: RefusalCode::InvalidCloudevent, ..fields::duplicate(&pointer) });
        }
    }
    let data = if data.iter().all(u8::is_ascii_whitespace) { None } else { Some(data_fields(data)?) };
    attributes.event(data)
}
