//! What events look like, for the description of the API. They are read by `domain::event`, field by field and exactly.

use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A usage event.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its derived description is used")]
pub(super) struct NativeEvent {
    /// The caller's own name of the account; made known by its first event.
    #[schema(pattern = "^[A-Za-z0-9._:@-]{1,128}$", example = "acc_123")]
    account_id: String,
    #[schema(pattern = "^[a-z][a-z0-9_.]{0,63}$", example = "api.requests")]
    metric: String,
    /// A number or a decimal text, read exactly: at most 9 decimal places, at most 10^15 either way; 1 where absent.
    value: Option<Amount>,
    /// Identifies the event, with its source and account: the same one counts once.
    #[schema(min_length = 1, max_length = 256)]
    id: Option<String>,
    #[schema(min_length = 1, max_length = 256)]
    source: Option<String>,
    /// RFC 3339, from 48 hours ago to 5 minutes ahead; the time of acceptance where absent.
    #[schema(format = DateTime)]
    timestamp: Option<String>,
    project_id: Option<String>,
    /// Strings of at most 256 characters, exact numbers and booleans, each under a name of at most 64 bytes. 20 are kept,
    /// those that the metric groups by first, then by name. What cannot be kept as it was sent is cut, kept as a text or left
    /// out with a warning, and the event counts.
    #[schema(example = json!({"region": "eu", "tier": 2, "cached": true}))]
    dimensions: Option<BTreeMap<String, serde_json::Value>>,
}

/// An exact number.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its derived description is used")]
pub(super) enum Amount {
    /// As a JSON number.
    Number(f64),
    /// As a decimal text.
    Text(String),
}

/// Native events in one object.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its derived description is used")]
pub(super) struct EventBatch {
    /// At most 1,000.
    #[schema(max_items = 1000)]
    events: Vec<NativeEvent>,
}

/// A CloudEvent 1.0: `subject` is the account, `type` the metric; extension attributes are passed over.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its derived description is used")]
pub(super) struct CloudEvent {
    #[schema(pattern = "^1\\.0$")]
    specversion: String,
    #[schema(min_length = 1, max_length = 256)]
    id: String,
    #[schema(min_length = 1, max_length = 256)]
    source: String,
    /// The metric.
    #[schema(pattern = "^[a-z][a-z0-9_.]{0,63}$")]
    r#type: String,
    /// The account.
    #[schema(pattern = "^[A-Za-z0-9._:@-]{1,128}$")]
    subject: String,
    #[schema(format = DateTime)]
    time: Option<String>,
    datacontenttype: Option<String>,
    /// `value`, and scalars that become dimensions; objects and arrays are left out.
    data: Option<BTreeMap<String, serde_json::Value>>,
    /// The same object as JSON in base64 (RFC 4648 4), instead of `data`.
    data_base64: Option<String>,
}
