//! Batches of events, as services send them.

/// How many events a batch has.
pub(crate) const BATCH_EVENTS: u64 = 100;

/// The body of a batch of [`BATCH_EVENTS`] events that no other number has.
pub(crate) fn batch(number: u64) -> String {
    let mut text = String::from("{\"events\":[");
    for place in 0..BATCH_EVENTS {
        let account = (number * 7 + place * 13) % 1_000;
        let comma = if place == 0 { "" } else { "," };
        text.push_str(&format!(
            r#"{comma}{{"account_id":"acc_{account}","metric":"api.requests","value":3,"id":"b{number}-{place}","dimensions":{{"region":"eu-west-1"}}}}"#
        ));
    }
    text.push_str("]}");
    text
}
