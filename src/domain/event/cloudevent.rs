//! CloudEvents 1.0 (specification: cloudevents.io), structured and binary.
//!
//! `subject` names the account, `type` the metric, `data.value` the value; other scalars of `data` are dimensions, nested
//! values of it are left out. Extension attributes are ignored, but for `projectid`.

use super::dimensions::{self, Dimensions};
use super::fields::{self, Fields, Raw};
use super::native::{account, metric_name, project};
use super::refusal::{Refusal, RefusalCode};
use super::{Reduction, UsageEvent};
use crate::domain::quantity::Quantity;
use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::percent_decode;
use std::borrow::Cow;

/// The standard alphabet; some encoders leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

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

    fn event(self, data: Data<'a>) -> Result<UsageEvent<'a>, Refusal> {
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
            value: data.value,
            timestamp,
            project_id: self.project.map(|text| project(&text, "/projectid")).transpose()?,
            dimensions: data.dimensions,
            reduction: data.reduction,
        })
    }
}

/// What the data of a CloudEvent says.
struct Data<'a> {
    value: Quantity,
    dimensions: Dimensions<'a>,
    reduction: Option<Box<Reduction>>,
}

impl<'a> Data<'a> {
    fn none() -> Self {
        Self { value: Quantity::ONE, dimensions: Vec::new(), reduction: None }
    }

    /// Reads data that stand at a place of the event: a JSON object, or nothing.
    fn read(bytes: &'a [u8], pointer: &str) -> Result<Self, Refusal> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Self::none());
        }
        let Fields(mut fields) = fields::object(bytes).map_err(|refusal| Refusal {
            code: RefusalCode::InvalidCloudevent,
            detail: format!("data: {}", refusal.detail),
            pointer: Some(pointer.to_owned()),
        })?;
        let mut value = None;
        for (_, raw) in fields.extract_if(.., |(name, _)| name == "value") {
            if value.replace(fields::quantity(raw, "/data/value")?).is_some() {
                return Err(fields::duplicate("/data/value"));
            }
        }
        fields.retain(|(_, raw)| !raw.get().starts_with(['{', '[', 'n']));
        let (dimensions, reduction) = dimensions::read(fields, "/data");
        Ok(Self { value: value.unwrap_or(Quantity::ONE), dimensions, reduction })
    }

    /// Reads data in base64 (RFC 4648 4), the JSON format's form of bytes.
    fn read_base64(raw: Raw<'_>) -> Result<Data<'static>, Refusal> {
        let refused = |detail: String| Refusal::at(RefusalCode::InvalidCloudevent, "/data_base64", detail);
        let text = fields::text(raw, "/data_base64").map_err(|refusal| refused(refusal.detail))?;
        let bytes = BASE64.decode(text.as_bytes()).map_err(|error| {
            refused(format!("not valid base64: {error}; expected the standard alphabet of RFC 4648"))
        })?;
        let data = if bytes.trim_ascii() == b"null" { Data::none() } else { Data::read(&bytes, "/data_base64")? };
        Ok(Data { dimensions: dimensions::into_owned(data.dimensions), ..data })
    }
}

/// Reads a structured CloudEvent.
pub(super) fn read(bytes: &[u8]) -> Result<UsageEvent<'_>, Refusal> {
    fields::object(bytes).and_then(event)
}

/// Reads a structured CloudEvent of its fields.
pub(super) fn event(fields: Fields<'_>) -> Result<UsageEvent<'_>, Refusal> {
    let mut attributes = Attributes::default();
    let mut data: Option<Raw<'_>> = None;
    let mut data_base64: Option<Raw<'_>> = None;
    for (name, raw) in fields.0 {
        if name == "data" {
            if data.replace(raw).is_some() {
                return Err(fields::duplicate("/data"));
            }
        } else if name == "data_base64" {
            if data_base64.replace(raw).is_some() {
                return Err(fields::duplicate("/data_base64"));
            }
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
    let is_there = |raw: &Raw<'_>| raw.get() != "null";
    let data = match (data.filter(is_there), data_base64.filter(is_there)) {
        (Some(_), Some(_)) => {
            let detail = "data and data_base64 are both there, expected one of them";
            return Err(Refusal::at(RefusalCode::InvalidCloudevent, "/data_base64", detail));
        }
        (Some(raw), None) => Data::read(raw.get().as_bytes(), "/data")?,
        (None, Some(raw)) => Data::read_base64(raw)?,
        (None, None) => Data::none(),
    };
    attributes.event(data)
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
    attributes.event(Data::read(data, "/data")?)
}
