//! Dimensions: which are kept of an event, and as what. They are not the value, so nothing in them refuses an event: what
//! cannot be kept as it was sent is cut, kept as a text or left out, with a warning.

use super::fields::{self, Raw};
use super::refusal::pointer_token;
use super::{DimensionValue, UsageEvent};
use crate::domain::limits::{
    DIMENSION_NAME_BYTES_MAX, DIMENSION_VALUE_CHARS_MAX, DIMENSIONS_MAX, WARNING_NAMES_SHOWN_MAX,
};
use crate::domain::quantity::Quantity;
use serde::de::{Deserializer, Visitor};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// Dimensions by name.
pub(super) type Dimensions<'a> = Vec<(Cow<'a, str>, DimensionValue<'a>)>;

/// What was changed about an event that was accepted; its text is part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventWarningCode {
    /// There are too many dimensions.
    DimensionsLeftOut,
    /// A dimension's name is empty or too long.
    DimensionNameInvalid,
    /// A dimension is an object or an array.
    DimensionNested,
    /// A dimension's name stands more than once.
    DimensionRepeated,
    /// A number is more precise or larger than what is exact.
    DimensionNumberAsText,
    /// A text is too long.
    DimensionTextCut,
    /// A text has half of a surrogate pair.
    DimensionTextRepaired,
}

impl EventWarningCode {
    /// The code as the API writes it.
    pub const fn text(self) -> &'static str {
        match self {
            Self::DimensionsLeftOut => "dimensions_left_out",
            Self::DimensionNameInvalid => "dimension_name_invalid",
            Self::DimensionNested => "dimension_nested",
            Self::DimensionRepeated => "dimension_repeated",
            Self::DimensionNumberAsText => "dimension_number_as_text",
            Self::DimensionTextCut => "dimension_text_cut",
            Self::DimensionTextRepaired => "dimension_text_repaired",
        }
    }

    fn detail(self) -> String {
        match self {
            Self::DimensionsLeftOut => format!(
                "{DIMENSIONS_MAX} dimensions are kept, those that the metric groups by first, then by name; left out"
            ),
            Self::DimensionNameInvalid => {
                format!("a dimension's name must have 1 to {DIMENSION_NAME_BYTES_MAX} bytes; left out")
            }
            Self::DimensionNested => "a dimension must be a string, a number or a boolean; left out".to_owned(),
            Self::DimensionRepeated => "the name stands more than once, its last value is kept".to_owned(),
            Self::DimensionNumberAsText => {
                "more than 9 decimal places or larger than 10^15; kept as the text that was sent".to_owned()
            }
            Self::DimensionTextCut => format!("longer than {DIMENSION_VALUE_CHARS_MAX} characters; cut"),
            Self::DimensionTextRepaired => {
                "half of a surrogate pair is no character; U+FFFD stands in its place".to_owned()
            }
        }
    }
}

/// What was changed about an event that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventWarning {
    /// The kind.
    pub code: EventWarningCode,
    /// What was changed, with the names of the first dimensions that it happened to.
    pub detail: String,
    /// The first of them, as a JSON pointer into the event.
    pub pointer: String,
}

/// What is known of the dimensions of an event that cannot all be kept as they were sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reduction {
    /// A hash of all the dimensions as they were sent.
    pub(super) sent: [u8; 16],
    /// Where they stand in the event.
    parent: &'static str,
    changed: BTreeMap<EventWarningCode, Vec<String>>,
}

/// Reads dimensions in the order of their names.
pub(super) fn read<'a>(
    named: Vec<(Cow<'a, str>, Raw<'a>)>,
    parent: &'static str,
) -> (Dimensions<'a>, Option<Box<Reduction>>) {
    let mut exact = Vec::with_capacity(named.len());
    for (name, raw) in &named {
        let Some(value) = as_sent(name, *raw) else { return reduce(named, parent) };
        exact.push((name.clone(), value));
    }
    if settle(&mut exact) { (exact, None) } else { reduce(named, parent) }
}

/// Puts dimensions in order; tells whether they are few enough and each name stands once.
pub(super) fn settle(dimensions: &mut Dimensions<'_>) -> bool {
    dimensions.sort_by(|(a, _), (b, _)| a.cmp(b));
    let is_repeated = dimensions.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b));
    dimensions.len() <= DIMENSIONS_MAX && !is_repeated
}

/// Reads a dimension that can be kept as it was sent.
fn as_sent<'a>(name: &str, raw: Raw<'a>) -> Option<DimensionValue<'a>> {
    is_name(name).then_some(())?;
    match raw.get() {
        "true" => Some(DimensionValue::Flag(true)),
        "false" => Some(DimensionValue::Flag(false)),
        written if written.starts_with('"') => {
            let text = fields::text(raw, "").ok()?;
            let fits = text.len() <= DIMENSION_VALUE_CHARS_MAX || text.chars().count() <= DIMENSION_VALUE_CHARS_MAX;
            fits.then_some(DimensionValue::Text(text))
        }
        written if written.starts_with(['{', '[']) => None,
        written => Quantity::parse(written).ok().map(DimensionValue::Number),
    }
}

fn is_name(name: &str) -> bool {
    (1..=DIMENSION_NAME_BYTES_MAX).contains(&name.len())
}

/// Keeps what can be kept of dimensions, and notes what was changed. All that have a valid name are there still: which of
/// too many are left out depends on the metric.
fn reduce<'a>(
    mut named: Vec<(Cow<'a, str>, Raw<'a>)>,
    parent: &'static str,
) -> (Dimensions<'a>, Option<Box<Reduction>>) {
    named.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut hash = Sha256::new();
    let mut changed: BTreeMap<EventWarningCode, Vec<String>> = BTreeMap::new();
    let mut kept: Dimensions<'a> = Vec::with_capacity(named.len());
    for (name, raw) in named {
        let mut note = |code: EventWarningCode| changed.entry(code).or_default().push(name.clone().into_owned());
        let value = whole(raw, &mut note);
        let number;
        let (kind, content) = match &value {
            Whole::Dimension(DimensionValue::Text(text)) => (0_u8, text.as_bytes()),
            Whole::Dimension(DimensionValue::Number(Quantity(amount))) => {
                number = amount.to_le_bytes();
                (1, number.as_slice())
            }
            Whole::Dimension(DimensionValue::Flag(false)) => (2, &[][..]),
            Whole::Dimension(DimensionValue::Flag(true)) => (3, &[][..]),
            Whole::Inexact(written) => (4, written.as_bytes()),
            Whole::Nested(written) => (5, written.as_bytes()),
        };
        for part in [name.as_bytes(), &[kind], content] {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            hash.update(part);
        }
        if !is_name(&name) {
            note(EventWarningCode::DimensionNameInvalid);
            continue;
        }
        let value = match value {
            Whole::Dimension(DimensionValue::Text(text)) => DimensionValue::Text(cut(text, &mut note)),
            Whole::Dimension(value) => value,
            Whole::Inexact(written) => DimensionValue::Text(cut(Cow::Borrowed(written), &mut note)),
            Whole::Nested(_) => continue,
        };
        if kept.pop_if(|(before, _)| *before == name).is_some() {
            note(EventWarningCode::DimensionRepeated);
        }
        kept.push((name, value));
    }
    let mut sent = [0_u8; 16];
    sent.iter_mut().zip(hash.finalize().iter()).for_each(|(to, from)| *to = *from);
    (kept, Some(Box::new(Reduction { sent, parent, changed })))
}

/// A dimension as it was sent.
enum Whole<'a> {
    Dimension(DimensionValue<'a>),
    /// A number that is no quantity.
    Inexact(&'a str),
    Nested(&'a str),
}

fn whole<'a>(raw: Raw<'a>, note: &mut impl FnMut(EventWarningCode)) -> Whole<'a> {
    let written = raw.get();
    match written {
        "true" => Whole::Dimension(DimensionValue::Flag(true)),
        "false" => Whole::Dimension(DimensionValue::Flag(false)),
        _ if written.starts_with(['{', '[']) => {
            note(EventWarningCode::DimensionNested);
            Whole::Nested(written)
        }
        _ if written.starts_with('"') => {
            Whole::Dimension(DimensionValue::Text(fields::text(raw, "").unwrap_or_else(|_| {
                note(EventWarningCode::DimensionTextRepaired);
                repaired(written)
            })))
        }
        _ => match Quantity::parse(written) {
            Ok(number) => Whole::Dimension(DimensionValue::Number(number)),
            Err(_) => {
                note(EventWarningCode::DimensionNumberAsText);
                Whole::Inexact(written)
            }
        },
    }
}

/// Reads a string whose escapes name halves of surrogate pairs, as programs write that cut a text between the two.
fn repaired(written: &str) -> Cow<'static, str> {
    struct Reader;

    impl Visitor<'_> for Reader {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<String, E> {
            Ok(String::from_utf8_lossy(bytes).into_owned())
        }
    }

    let read = serde_json::Deserializer::from_str(written).deserialize_bytes(Reader);
    Cow::Owned(read.unwrap_or_else(|_| written.trim_matches('"').to_owned()))
}

fn cut<'a>(text: Cow<'a, str>, note: &mut impl FnMut(EventWarningCode)) -> Cow<'a, str> {
    let Some((end, _)) = text.char_indices().nth(DIMENSION_VALUE_CHARS_MAX) else { return text };
    note(EventWarningCode::DimensionTextCut);
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(..end).unwrap_or_default()),
        Cow::Owned(mut text) => {
            text.truncate(end);
            Cow::Owned(text)
        }
    }
}

/// Makes dimensions independent of the bytes that they were read from.
pub(super) fn into_owned(dimensions: Dimensions<'_>) -> Dimensions<'static> {
    let owned = |(name, value): (Cow<'_, str>, DimensionValue<'_>)| {
        let value = match value {
            DimensionValue::Text(text) => DimensionValue::Text(Cow::Owned(text.into_owned())),
            DimensionValue::Number(number) => DimensionValue::Number(number),
            DimensionValue::Flag(flag) => DimensionValue::Flag(flag),
        };
        (Cow::Owned(name.into_owned()), value)
    };
    dimensions.into_iter().map(owned).collect()
}

impl<'a> UsageEvent<'a> {
    /// The event with as many dimensions as are kept, those that its metric groups by first, and what was changed about it
    /// since it was sent; `None` where all of it is kept as it was sent.
    pub fn reduced(&self, group_by: &[String]) -> Option<(UsageEvent<'a>, Vec<EventWarning>)> {
        let reduction = self.reduction.as_deref()?;
        let mut event = self.clone();
        let mut changed = reduction.changed.clone();
        if event.dimensions.len() > DIMENSIONS_MAX {
            // Sorting is stable, so that those of one kind stay in the order of their names.
            event.dimensions.sort_by_key(|(name, _)| !group_by.iter().any(|wanted| **wanted == **name));
            let left_out = event.dimensions.split_off(DIMENSIONS_MAX);
            event.dimensions.sort_by(|(a, _), (b, _)| a.cmp(b));
            let names = left_out.into_iter().map(|(name, _)| name.into_owned()).collect();
            changed.insert(EventWarningCode::DimensionsLeftOut, names);
        }
        let warnings = changed.into_iter().map(|(code, names)| warning(code, &names, reduction.parent)).collect();
        Some((event, warnings))
    }
}

fn warning(code: EventWarningCode, names: &[String], parent: &str) -> EventWarning {
    let short = |name: &String| name.chars().take(DIMENSION_NAME_BYTES_MAX).collect::<String>();
    let shown: Vec<String> =
        names.iter().take(WARNING_NAMES_SHOWN_MAX).map(|name| format!("{:?}", short(name))).collect();
    let more = names.len().saturating_sub(shown.len());
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let first = names.first().map(short).unwrap_or_default();
    EventWarning {
        code,
        detail: format!("{}: {}{more}", code.detail(), shown.join(", ")),
        pointer: format!("{parent}/{}", pointer_token(&first)),
    }
}

#[cfg(test)]
mod tests;
