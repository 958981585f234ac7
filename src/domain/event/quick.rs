//! Reading what nearly every event is, a valid native one without escapes, in one pass and without a table of its fields.
//! Whatever else comes is left to the general way, so only that one ever refuses.

use super::dimensions::settle;
use super::native;
use super::scan::Cursor;
use super::{DimensionValue, UsageEvent};
use crate::domain::limits::{DIMENSION_NAME_BYTES_MAX, DIMENSION_VALUE_CHARS_MAX, EVENT_ID_BYTES_MAX};
use crate::domain::quantity::Quantity;
use crate::domain::time::Timestamp;
use std::borrow::Cow;

/// Reads an event; `None` where the general way has to look.
pub(super) fn event(bytes: &[u8]) -> Option<UsageEvent<'_>> {
    let mut cursor = Cursor::new(std::str::from_utf8(bytes).ok()?);
    let (mut account_id, mut metric, mut value, mut id, mut source) = (None, None, None, None, None);
    let (mut timestamp, mut project_id, mut dimensions) = (None, None, None);
    cursor.open()?;
    while let Some(name) = cursor.name()? {
        let is_new = match name {
            "account_id" => account_id.replace(cursor.string()?).is_none(),
            "metric" => metric.replace(cursor.string()?).is_none(),
            "value" => value.replace(quantity(&mut cursor)?).is_none(),
            "id" => id.replace(cursor.string()?).is_none(),
            "source" => source.replace(cursor.string()?).is_none(),
            "timestamp" => timestamp.replace(Timestamp::parse(cursor.string()?)?).is_none(),
            "project_id" => project_id.replace(native::project(cursor.string()?, "").ok()?).is_none(),
            "dimensions" => dimensions.replace(self::dimensions(&mut cursor)?).is_none(),
            _ => return None,
        };
        is_new.then_some(())?;
    }
    cursor.end()?;
    let identifier = |text: Option<&&str>| text.is_none_or(|text| (1..=EVENT_ID_BYTES_MAX).contains(&text.len()));
    (identifier(id.as_ref()) && identifier(source.as_ref())).then_some(())?;
    Some(UsageEvent {
        account_id: native::account(Cow::Borrowed(account_id?), "").ok()?,
        metric: native::metric_name(Cow::Borrowed(metric?), "").ok()?,
        value: value.unwrap_or(Quantity::ONE),
        id: id.map(Cow::Borrowed),
        source: source.map(Cow::Borrowed),
        timestamp,
        project_id,
        dimensions: dimensions.unwrap_or_default(),
        reduction: None,
    })
}

fn quantity(cursor: &mut Cursor<'_>) -> Option<Quantity> {
    let written = if cursor.peek()? == b'"' { cursor.string()? } else { cursor.scalar()? };
    Quantity::parse(written).ok()
}

fn dimensions<'a>(cursor: &mut Cursor<'a>) -> Option<Vec<(Cow<'a, str>, DimensionValue<'a>)>> {
    let mut found = Vec::with_capacity(4);
    cursor.open()?;
    while let Some(name) = cursor.name()? {
        (1..=DIMENSION_NAME_BYTES_MAX).contains(&name.len()).then_some(())?;
        let value = match cursor.peek()? {
            b'"' => {
                let text = cursor.string()?;
                (text.len() <= DIMENSION_VALUE_CHARS_MAX).then_some(DimensionValue::Text(Cow::Borrowed(text)))?
            }
            b't' | b'f' => DimensionValue::Flag(cursor.scalar()? == "true"),
            _ => DimensionValue::Number(Quantity::parse(cursor.scalar()?).ok()?),
        };
        found.push((Cow::Borrowed(name), value));
    }
    settle(&mut found).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::super::fields;
    use super::*;
    use proptest::prelude::*;

    /// What is read quickly is read alike by the general way; tells whether it was.
    fn agrees(text: &str) -> bool {
        let Some(quick) = event(text.as_bytes()) else { return false };
        let general = fields::object(text.as_bytes()).and_then(native::event);
        assert_eq!(Ok(quick), general, "{text}");
        true
    }

    #[test]
    fn ordinary_events_are_read_quickly() {
        for text in [
            r#"{"account_id":"a","metric":"m"}"#,
            r#"{"id":"1","account_id":"acme","metric":"api.calls","value":-1.5e3,"dimensions":{"r":"eu","n":2,"f":true}}"#,
            r#" { "value" : "0.25" , "metric" : "m" , "account_id" : "a" , "dimensions" : { } } "#,
            r#"{"account_id":"a","metric":"m","timestamp":"2026-11-24T08:00:00Z","source":"s","project_id":"prj_01J9Z0000000000000000000AA"}"#,
        ] {
            assert!(agrees(text), "{text}");
        }
    }

    #[test]
    fn what_the_general_way_refuses_is_left_to_it() {
        for text in [
            r#"{"account_id":"a"}"#,
            r#"{"account_id":"a","metric":"M"}"#,
            r#"{"account_id":"a","metric":"m","metric":"m"}"#,
            r#"{"account_id":"a","metric":"m","more":1}"#,
            r#"{"account_id":"a","metric":"m","id":""}"#,
            r#"{"account_id":"a","metric":"m","value":"x"}"#,
            r#"{"account_id":"a","metric":"m","timestamp":"yesterday"}"#,
            r#"{"account_id":"a","metric":"m","dimensions":["a"]}"#,
            r#"{"account_id":"a","metric":"m","dimensions":7}"#,
            r#"{"account_id":"a","metric":"highwater.m"}"#,
            r#"{"account_id":"a","metric":"m"},"#,
            r#"{"account_id":"a","metric":"m",}"#,
            r#"{,"account_id":"a","metric":"m"}"#,
        ] {
            assert_eq!(event(text.as_bytes()), None, "{text}");
            assert!(fields::object(text.as_bytes()).and_then(native::event).is_err(), "{text}");
        }
    }

    #[test]
    fn dimensions_that_cannot_be_kept_as_they_are_are_left_to_the_general_way() {
        let many: Vec<String> = (0..21).map(|number| format!("\"d{number}\":1")).collect();
        for dimensions in [
            r#""a":1,"a":2"#,
            r#""":1"#,
            r#""a":null"#,
            r#""a":0.1234567891"#,
            r#""a":1e16"#,
            r#""a":[]"#,
            r#""a":"\ud800""#,
            &format!("\"a\":\"{}\"", "x".repeat(257)),
            &many.join(","),
        ] {
            let text = format!(r#"{{"account_id":"a","metric":"m","dimensions":{{{dimensions}}}}}"#);
            assert_eq!(event(text.as_bytes()), None, "{text}");
            assert!(fields::object(text.as_bytes()).and_then(native::event).is_ok(), "{text}");
        }
    }

    fn scalar() -> impl Strategy<Value = String> {
        prop_oneof![
            "-?(0|[1-9][0-9]{0,16})(\\.[0-9]{1,10})?([eE][+-]?[0-9]{1,2})?",
            "\"[^\"\\\\\\x00-\\x1f]{0,8}\"",
            "\"(a|m|api\\.calls|prj_01J9Z0000000000000000000AA|2026-11-24T08:00:00Z|1|\\\\n)\"",
            Just("true".to_owned()),
            Just("null".to_owned()),
        ]
    }

    proptest! {
        #[test]
        fn both_ways_read_alike(
            members in prop::collection::vec(("(account_id|metric|value|id|source|timestamp|project_id|x)", scalar()), 0..4),
            dimensions in prop::option::of(prop::collection::vec(("[a-c]{0,2}", scalar()), 0..4)),
            space in "[ \t]{0,1}",
        ) {
            let mut all = vec![r#""account_id":"a""#.to_owned(), r#""metric":"m""#.to_owned()];
            let write = |(name, value): &(String, String)| format!("{space}\"{name}\"{space}:{space}{value}{space}");
            all.extend(members.iter().map(write));
            if let Some(dimensions) = dimensions {
                let inner: Vec<String> = dimensions.iter().map(write).collect();
                all.push(format!("\"dimensions\":{{{}}}", inner.join(",")));
            }
            agrees(&format!("{{{}}}", all.join(",")));
        }
    }
}
