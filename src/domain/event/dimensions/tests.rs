//! What is kept of dimensions, and that every way of sending them keeps the same.

use super::*;
use crate::domain::event::{
    ContentKind, Fingerprint, Frame, FrameBuilder, OwnedValue, fingerprints, parse_binary_cloudevent, parse_events,
    parse_line,
};
use crate::domain::id::{AccountId, Epoch, Mode, Tenant, WorkspaceId};
use crate::domain::time::Timestamp;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

const HEADERS: [(&str, &str); 5] =
    [("specversion", "1.0"), ("id", "1"), ("source", "s"), ("type", "m"), ("subject", "a")];

/// The dimensions and what was noted of them.
type Read = (Dimensions<'static>, Option<Box<Reduction>>);

fn taken(event: UsageEvent<'_>) -> Read {
    (into_owned(event.dimensions), event.reduction)
}

/// Reads the members of an object as the dimensions of a native event.
fn native(members: &str) -> Read {
    let text = format!(r#"{{"account_id":"a","metric":"m","id":"1","source":"s","dimensions":{{{members}}}}}"#);
    taken(parse_line(text.as_bytes()).unwrap_or_else(|refusal| panic!("{refusal}: {text}")))
}

/// Reads them as the data of CloudEvents: structured, in base64, in a batch, binary.
fn cloud(members: &str) -> [Read; 4] {
    let data = format!("{{{members}}}");
    let event = |data: &str| {
        let attributes: Vec<String> = HEADERS.iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
        format!("{{{},{data}}}", attributes.join(","))
    };
    let structured = event(&format!("\"data\":{data}"));
    let packed = event(&format!("\"data_base64\":\"{}\"", STANDARD.encode(&data)));
    let batch = format!("[{structured}]");
    let headers = HEADERS.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    let batched = parse_events(batch.as_bytes(), ContentKind::CloudEventBatch).unwrap().pop().unwrap();
    [
        taken(parse_line(structured.as_bytes()).unwrap()),
        taken(parse_line(packed.as_bytes()).unwrap()),
        taken(batched.event.unwrap()),
        taken(parse_binary_cloudevent(&headers, data.as_bytes()).unwrap()),
    ]
}

/// What becomes of an event behind the journal, for a metric that groups by some dimensions.
fn kept(read: &Read, group_by: &[&str]) -> (Vec<(String, String)>, Vec<EventWarning>, Fingerprint) {
    let mut event = parse_line(br#"{"account_id":"a","metric":"m","id":"1","source":"s"}"#).unwrap();
    (event.dimensions, event.reduction) = read.clone();
    let group_by: Vec<String> = group_by.iter().map(|name| (*name).to_owned()).collect();
    let (event, warnings) = event.reduced(&group_by).unwrap_or((event, Vec::new()));
    let mut builder = FrameBuilder::new(false);
    let tenant = Tenant { workspace: WorkspaceId(1), mode: Mode::Live };
    let place = builder.account(tenant, Epoch(0), &AccountId::new("a").unwrap());
    builder.push(place, &event, "1", Timestamp(0), Timestamp(0));
    let frame = Frame::decode(&builder.finish()).unwrap();
    let fingerprint = fingerprints(&frame, &[7; 16], &[Epoch(0)])[0];
    let value = |value: &OwnedValue| match value {
        OwnedValue::Text(text) => format!("{text:?}"),
        OwnedValue::Number(number) => number.to_string(),
        OwnedValue::Flag(flag) => flag.to_string(),
    };
    let all = frame.dimensions(&frame.events[0]).iter().map(|(name, of)| (name.to_string(), value(of))).collect();
    (all, warnings, fingerprint)
}

/// Checks what is kept of members, and with which warnings, however they are sent.
fn check(members: &str, expected: &[(&str, &str)], warned: &[(&str, &str)]) {
    let read = native(members);
    let (all, warnings, _) = kept(&read, &[]);
    let all: Vec<(&str, &str)> = all.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(all, expected, "{members}");
    let found: Vec<(&str, &str)> =
        warnings.iter().map(|warning| (warning.code.text(), warning.pointer.as_str())).collect();
    assert_eq!(found, warned, "{members}");
    for of_cloud in cloud(members) {
        let (of_cloud, ..) = kept(&of_cloud, &[]);
        assert_eq!(of_cloud.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect::<Vec<_>>(), expected, "{members}");
    }
}

#[test]
fn what_fits_is_kept_as_it_was_sent() {
    check("", &[], &[]);
    check(r#""b":1.50,"a":"x","c":true"#, &[("a", "\"x\""), ("b", "1.5"), ("c", "true")], &[]);
    check(r#""a":null,"b":1"#, &[("b", "1")], &[]);
    let long = format!("\"{}\"", "ä".repeat(256));
    check(&format!(r#""a":{long}"#), &[("a", &long)], &[]);
    check(r#""a":1000000000000000,"b":0.123456789"#, &[("a", "1000000000000000"), ("b", "0.123456789")], &[]);
}

#[test]
fn what_does_not_fit_is_cut_or_kept_as_a_text() {
    let cut = format!("\"{}\"", "ä".repeat(256));
    check(&format!(r#""a":"{}""#, "ä".repeat(257)), &[("a", &cut)], &[("dimension_text_cut", "/dimensions/a")]);
    for number in ["0.1234567891", "1e16", "-1000000000000001", "1E-10", "2e400"] {
        let text = format!("{number:?}");
        check(&format!(r#""a":{number}"#), &[("a", &text)], &[("dimension_number_as_text", "/dimensions/a")]);
    }
    let digits = "9".repeat(300);
    check(
        &format!(r#""a":{digits}"#),
        &[("a", &format!("{:?}", &digits[..256]))],
        &[("dimension_number_as_text", "/dimensions/a"), ("dimension_text_cut", "/dimensions/a")],
    );
    check(
        r#""a":"x\ud800y""#,
        &[("a", "\"x\u{fffd}\u{fffd}\u{fffd}y\"")],
        &[("dimension_text_repaired", "/dimensions/a")],
    );
}

#[test]
fn what_is_no_dimension_is_left_out() {
    check(r#""":1,"a":2"#, &[("a", "2")], &[("dimension_name_invalid", "/dimensions/")]);
    let name = "n".repeat(65);
    check(&format!(r#""{name}":1"#), &[], &[("dimension_name_invalid", &format!("/dimensions/{}", &name[..64]))]);
    check(r#""a":1,"b":2,"a":"x""#, &[("a", "\"x\""), ("b", "2")], &[("dimension_repeated", "/dimensions/a")]);
    let (all, warnings, _) = kept(&native(r#""a/b":{"c":1},"d":[1],"e":1"#), &[]);
    assert_eq!(all, [("e".to_owned(), "1".to_owned())]);
    assert_eq!((warnings[0].code.text(), warnings[0].pointer.as_str()), ("dimension_nested", "/dimensions/a~1b"));
    assert!(warnings[0].detail.ends_with(r#": "a/b", "d""#), "{}", warnings[0].detail);
    // In the data of a CloudEvent, objects and arrays are ordinary.
    assert_eq!(cloud(r#""a":{"c":1},"d":[1],"e":1"#)[0], native(r#""e":1"#));
}

fn numbered(count: usize) -> String {
    (0..count).map(|number| format!("\"d{number:02}\":{number}")).collect::<Vec<_>>().join(",")
}

#[test]
fn the_metric_decides_which_of_too_many_are_kept() {
    assert_eq!(kept(&native(&numbered(20)), &[]).1, []);
    let read = native(&numbered(30));
    let names =
        |group_by: &[&str]| -> Vec<String> { kept(&read, group_by).0.into_iter().map(|(name, _)| name).collect() };
    let first: Vec<String> = (0..20).map(|number| format!("d{number:02}")).collect();
    assert_eq!(names(&[]), first);
    assert_eq!(names(&["d00", "absent"]), first);
    let chosen = [&first[..18], &["d25".to_owned(), "d29".to_owned()]].concat();
    assert_eq!(names(&["d29", "d25"]), chosen);
    let warnings = kept(&read, &["d29", "d25"]).1;
    assert_eq!(warnings.len(), 1);
    assert_eq!((warnings[0].code.text(), warnings[0].pointer.as_str()), ("dimensions_left_out", "/dimensions/d18"));
    assert!(
        warnings[0].detail.ends_with(r#": "d18", "d19", "d20", "d21", "d22" and 5 more"#),
        "{}",
        warnings[0].detail
    );
}

#[test]
fn the_payload_covers_what_was_sent_and_not_what_was_kept() {
    let payload = |members: &str, group_by: &[&str]| kept(&native(members), group_by).2.payload;
    let many = numbered(30);
    assert_eq!(payload(&many, &[]), payload(&many, &["d29"]), "an edited metric makes no conflict");
    let other = many.replace("\"d29\":29", "\"d29\":30");
    assert_ne!(payload(&many, &[]), payload(&other, &[]), "another event is one, though the same is kept of it");
    let long = |end: &str| format!(r#""a":"{}{end}""#, "x".repeat(256));
    assert_ne!(payload(&long("1"), &[]), payload(&long("2"), &[]));
    assert_eq!(payload(r#""b":1.10,"a":0.1234567891"#, &[]), payload(r#""a":0.1234567891,"b":1.1"#, &[]));
    assert_ne!(payload(r#""a":0.1234567891"#, &[]), payload(r#""a":"0.1234567891""#, &[]));
    // Of what fits the hash is the one that every earlier release made.
    let fits = [r#""a":1,"b":"x","c":true"#, ""].map(|members| payload(members, &[]));
    assert_eq!(fits, [1_671_217_378, 155_675_173]);
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "-?(0|[1-9][0-9]{0,16})(\\.[0-9]{1,11})?([eE][+-]?[0-9]{1,2})?",
        4 => "\"[^\"\\\\\\x00-\\x1f]{0,8}\"",
        1 => (250_usize..262).prop_map(|length| format!("\"{}\"", "ü".repeat(length))),
        1 => Just("\"\\udc00\\n\"".to_owned()),
        1 => Just("true".to_owned()),
        1 => Just("null".to_owned()),
    ]
}

proptest! {
    #[test]
    fn every_way_of_sending_keeps_the_same(
        members in prop::collection::vec(("[a-c]{0,2}|[a-z]{60,70}|d[0-9]", scalar()), 0..26),
        shift in 0_usize..26,
    ) {
        let write = |members: &[(String, String)]| {
            members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect::<Vec<_>>().join(",")
        };
        let text = write(&members);
        let read = native(&text);
        prop_assert!(read.0.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let (all, warnings, fingerprint) = kept(&read, &["c"]);
        prop_assert!(all.len() <= DIMENSIONS_MAX);
        prop_assert_eq!(read.1.is_some(), !warnings.is_empty());
        for of_cloud in cloud(&text) {
            let (of_cloud, _, same) = kept(&of_cloud, &["c"]);
            prop_assert_eq!((&of_cloud, same), (&all, fingerprint));
        }
        // Another order of other names says the same.
        let mut names: Vec<&String> = members.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        if names.len() == members.len() && !members.is_empty() {
            let mut turned = members.clone();
            turned.rotate_left(shift % members.len());
            prop_assert_eq!(kept(&native(&write(&turned)), &["c"]).2, fingerprint);
        }
    }
}
