//! Reading the fields of a JSON object one by one, without deciding their types beforehand.

use super::refusal::{Refusal, RefusalCode};
use super::scan;
use crate::domain::limits::EVENT_ID_BYTES_MAX;
use crate::domain::quantity::Quantity;
use crate::domain::time::Timestamp;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// A JSON value as it was written, without space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Raw<'a> {
    written: &'a str,
    may_have_escapes: bool,
}

impl<'a> Raw<'a> {
    pub(super) const fn new(written: &'a str) -> Self {
        Self { written, may_have_escapes: true }
    }

    /// A value in whose strings, if any, nothing is escaped.
    pub(super) const fn without_escapes(written: &'a str) -> Self {
        Self { written, may_have_escapes: false }
    }

    pub(super) const fn get(self) -> &'a str {
        self.written
    }

    /// What stands between the quotes of a string without escapes.
    fn plain(self) -> Option<&'a str> {
        let inner = self.written.strip_prefix('"')?.strip_suffix('"')?;
        (!self.may_have_escapes || memchr::memchr(b'\\', inner.as_bytes()).is_none()).then_some(inner)
    }
}

/// A JSON object as names with their unread values, in the order they were written.
#[derive(Debug)]
pub(super) struct Fields<'a>(pub(super) Vec<(Cow<'a, str>, Raw<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Vec<(Cow<'de, str>, Raw<'de>)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(8);
                while let Some((Key(name), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    fields.push((name, Raw::new(value.get())));
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Reader).map(Self)
    }
}

/// A name that borrows where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(Reader)
    }
}

/// Reads an object's fields; anything else is refused.
pub(super) fn object(bytes: &[u8]) -> Result<Fields<'_>, Refusal> {
    let scanned = std::str::from_utf8(bytes).ok().and_then(scan::object);
    scanned.map_or_else(|| general(bytes), |fields| Ok(Fields(fields)))
}

/// Reads the fields of an object that is a value itself.
pub(super) fn inner(raw: Raw<'_>) -> Result<Fields<'_>, Refusal> {
    scan::object(raw.get()).map_or_else(|| general(raw.get().as_bytes()), |fields| Ok(Fields(fields)))
}

/// Reads an object's fields with the general parser.
pub(super) fn general(bytes: &[u8]) -> Result<Fields<'_>, Refusal> {
    serde_json::from_slice(bytes).map_err(|error| {
        if error.is_data() {
            Refusal::new(RefusalCode::InvalidEvent, format!("expected a JSON object: {error}"))
        } else {
            Refusal::json(&error)
        }
    })
}

/// Reads a text; anything else is refused.
pub(super) fn text<'a>(raw: Raw<'a>, pointer: &str) -> Result<Cow<'a, str>, Refusal> {
    let written = raw.get();
    if let Some(plain) = raw.plain() {
        return Ok(Cow::Borrowed(plain));
    }
    if !written.starts_with('"') {
        return Err(Refusal::at(
            RefusalCode::InvalidEvent,
            pointer,
            format!("expected a string, found {}", kind(written)),
        ));
    }
    let unescaped = serde_json::from_str::<String>(written);
    unescaped
        .map(Cow::Owned)
        .map_err(|error| Refusal::at(RefusalCode::InvalidEvent, pointer, format!("not a valid string: {error}")))
}

/// Reads a text, or nothing where it is `null`.
pub(super) fn optional_text<'a>(raw: Raw<'a>, pointer: &str) -> Result<Option<Cow<'a, str>>, Refusal> {
    if raw.get() == "null" { Ok(None) } else { text(raw, pointer).map(Some) }
}

/// Reads an id or a source.
pub(super) fn identifier<'a>(raw: Raw<'a>, pointer: &str) -> Result<Option<Cow<'a, str>>, Refusal> {
    match optional_text(raw, pointer)? {
        Some(id) if id.is_empty() || id.len() > EVENT_ID_BYTES_MAX => {
            let detail = format!("{} bytes, expected 1 to {EVENT_ID_BYTES_MAX}", id.len());
            Err(Refusal::at(RefusalCode::InvalidEvent, pointer, detail))
        }
        id => Ok(id),
    }
}

/// Reads a number, or a decimal text, exactly.
pub(super) fn quantity(raw: Raw<'_>, pointer: &str) -> Result<Quantity, Refusal> {
    let written = raw.get();
    let digits = written.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(written);
    Quantity::parse(digits).map_err(|fault| {
        let shown: String = written.chars().take(40).collect();
        let detail = format!("{shown} is {fault}; expected a number of at most 9 decimal places and at most 10^15");
        Refusal::at(RefusalCode::InvalidEvent, pointer, detail)
    })
}

/// Reads an instant.
pub(super) fn instant(text: &str, pointer: &str) -> Result<Timestamp, Refusal> {
    Timestamp::parse(text).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        Refusal::at(
            RefusalCode::InvalidEvent,
            pointer,
            format!("{shown:?} is no RFC 3339 time such as 2026-11-24T08:00:00.000Z"),
        )
    })
}

pub(super) fn duplicate(pointer: &str) -> Refusal {
    Refusal::at(RefusalCode::InvalidEvent, pointer, "the field stands twice")
}

fn kind(written: &str) -> &'static str {
    match written.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}
