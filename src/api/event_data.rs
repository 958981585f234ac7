//! What the data of each type of event holds, for the catalogue.

use crate::domain::limits::QUOTA_THRESHOLD_PERCENT;
use crate::domain::webhook::kind::EventType;
use serde_json::{Value, json};

/// A name, its schema, an example.
type Field = (&'static str, Value, Value);

/// The members of a type's data.
#[expect(clippy::too_many_lines, reason = "an exhaustive match, a line or two for each")]
pub(super) fn members(kind: EventType) -> Vec<Field> {
    match kind {
        EventType::AlertPending
        | EventType::AlertFiring
        | EventType::AlertResolved
        | EventType::AlertCorrected
        | EventType::AlertNoData
        | EventType::AlertTest => transition(),
        EventType::AlertCreated | EventType::AlertUpdated | EventType::AlertPaused | EventType::AlertResumed => alert(),
        EventType::AlertDeleted => deleted("alert", "alr_01J9Z000000000000000000000"),
        EventType::AccountDeleted => deleted("account", "acc_123"),
        EventType::AccountCreated => vec![
            text("id", "acc_123"),
            text("object", "account"),
            maybe_text("name", "Acme"),
            number("version", 1),
            ("metadata", json!({"type": ["object", "null"]}), json!({})),
            instant("created_at"),
            instant("updated_at"),
        ],
        EventType::ApiKeyCreated | EventType::ApiKeyRotated | EventType::ApiKeyExpiring | EventType::ApiKeyRevoked => {
            api_key()
        }
        EventType::WebhookDisabled | EventType::WebhookRecovered => vec![
            text("id", "whk_01J9Z000000000000000000000"),
            text("object", "webhook"),
            number("version", 4),
            text("status", "disabled"),
            maybe_text("disabled_reason", "failing"),
            ("failing_since", json!({"type": ["string", "null"], "format": "date-time"}), json!(null)),
        ],
        EventType::DeliveryExhausted => vec![
            text("delivery_id", "dlv_7M4Q0ZJ1X2C3V4B5N6M7K8J9H001J9Z000000000000000000000"),
            maybe_text("webhook_id", "whk_01J9Z000000000000000000000"),
            maybe_text("channel_id", "chn_01J9Z000000000000000000000"),
            text("event_id", "msg_7M4Q0ZJ1X2C3V4B5N6M7K8J9H0"),
            text("event_type", "alert.firing"),
            number("attempts", 10),
        ],
        EventType::WebhookOverflowing => vec![
            text("id", "whk_01J9Z000000000000000000000"),
            text("object", "webhook"),
            number("version", 4),
            text("status", "enabled"),
            number("pending_max", 10_000),
            number("dropped", 1),
            instant("dropped_since"),
        ],
        EventType::ChannelFailing | EventType::ChannelRecovered => vec![
            text("id", "chn_01J9Z000000000000000000000"),
            text("object", "channel"),
            number("version", 4),
            text("type", "slack"),
            text("name", "ops"),
            text("status", "failing"),
            ("failing_since", json!({"type": ["string", "null"], "format": "date-time"}), json!(null)),
        ],
        EventType::WebhookTest => {
            vec![text("webhook_id", "whk_01J9Z000000000000000000000"), text("message", "it works")]
        }
        EventType::AlertAcknowledged => vec![
            text("incident_id", "inc_01J9Z000000000000000000000"),
            text("object", "acknowledgement"),
            text("alert_id", "alr_01J9Z000000000000000000000"),
            instant("acknowledged_at"),
            maybe_text("acknowledged_by", "key_01J9Z000000000000000000000"),
        ],
        EventType::SilenceCreated | EventType::SilenceExpired => vec![
            text("id", "sil_01J9Z000000000000000000000"),
            text("object", "silence"),
            number("version", 1),
            maybe_text("comment", "planned work"),
            ("matchers", json!({"type": "array"}), json!([{"name": "account_id", "op": "=", "value": "acc_123"}])),
            instant("starts_at"),
            instant("ends_at"),
            ("expired_at", json!({"type": ["string", "null"], "format": "date-time"}), json!(null)),
        ],
        EventType::SandboxReset => vec![text("object", "sandbox"), number("epoch", 4_711)],
        EventType::IngestBackpressure => {
            vec![text("code", "overloaded"), number("refused_requests", 12), instant("from"), instant("to")]
        }
        EventType::IngestGap => vec![
            text("id", "gap_5f1d7a84db00d2fce00b31a7fc73224f"),
            text("object", "ingest_gap"),
            ("cause", json!({"enum": ["removed", "replaced", "forgotten"]}), json!("removed")),
            number("partition", 3),
            ("from", json!({"type": ["string", "null"], "format": "date-time"}), json!("2026-01-24T13:00:00.000Z")),
            instant("to"),
        ],
        EventType::QuotaThresholdReached => {
            let threshold = number("threshold_percent", QUOTA_THRESHOLD_PERCENT.into());
            of_series(vec![threshold, quota("quota", 4310)])
        }
        EventType::QuotaExceeded => of_series(vec![quota("quota", 5003)]),
        EventType::QuotaReset => of_series(vec![quota("quota", 12), quota("ended", 5003)]),
    }
}

/// A quota in the period that is judged; for the `ended` one, the day before.
fn quota(name: &'static str, used: i64) -> Field {
    let day = if name == "ended" { (23, 24) } else { (24, 25) };
    let schema = json!({
        "type": "object",
        "required": ["limit", "used", "remaining", "percent", "over", "period", "starts_at", "resets_at"],
        "properties": {
            "limit": {"type": "number"}, "used": {"type": "number"}, "remaining": {"type": "number"},
            "percent": {"type": ["number", "null"]}, "over": {"type": "boolean"}, "period": {"enum": ["hour", "day", "week", "month"]},
            "starts_at": {"type": "string", "format": "date-time"},
            "resets_at": {"type": "string", "format": "date-time"},
        },
    });
    let percent = serde_json::Number::from_f64(used as f64 / 50.0);
    let example = json!({"limit": 5000, "used": used, "remaining": 5000 - used, "percent": percent, "over": false, "period": "day",
        "starts_at": format!("2026-11-{}T00:00:00.000Z", day.0), "resets_at": format!("2026-11-{}T00:00:00.000Z", day.1)});
    (name, schema, example)
}

fn of_series(mut members: Vec<Field>) -> Vec<Field> {
    members.splice(0..0, [text("account_id", "acc_123"), text("metric", "api.requests")]);
    members
}

fn api_key() -> Vec<Field> {
    vec![
        text("id", "key_01J9Z000000000000000000000"),
        text("object", "api_key"),
        text("mode", "live"),
        text("name", "ci"),
        text("hint", "pk_live_7Hq2…xiM"),
        ("scope", json!({"type": "array", "items": {"type": "string"}}), json!(["read:usage"])),
        ("project_ids", json!({"type": "array", "items": {"type": "string"}}), json!([])),
        ("expires_at", json!({"type": ["string", "null"], "format": "date-time"}), json!(null)),
    ]
}

fn transition() -> Vec<Field> {
    let (_, _, quota) = quota("quota", 4310);
    let inputs = json!([{"expression": "quota_percent", "value": "86.2"}]);
    let latency = json!({"accepted_at": "2026-11-24T07:59:59.900Z", "recorded_at": "2026-11-24T08:00:00.000Z",
        "decided_at": "2026-11-24T08:00:00.000Z"});
    let object = |null: bool| if null { json!({"type": ["object", "null"]}) } else { json!({"type": "object"}) };
    vec![
        text("alert_id", "alr_01J9Z000000000000000000000"),
        maybe_text("alert_name", "Near the limit"),
        number("alert_version", 1),
        text("account_id", "acc_123"),
        maybe_text("metric", "api.requests"),
        ("metrics", json!({"type": "array", "items": {"type": "string"}}), json!(["api.requests"])),
        text("state", "firing"),
        text("reason", "condition"),
        text("severity", "warning"),
        text("rule", "quota_percent > 85"),
        maybe_text("value_name", "quota_percent"),
        ("value", json!({"type": ["number", "null"]}), json!(86.2)),
        ("over", json!({"type": "boolean"}), json!(false)),
        ("quota", object(true), quota),
        ("window", object(true), json!(null)),
        ("inputs", json!({"type": "array"}), inputs),
        ("labels", object(false), json!({"team": "a"})),
        maybe_text("message", "look at it"),
        ("follows", json!({"type": ["string", "null"]}), json!(null)),
        number("fired_meanwhile", 0),
        ("silenced", json!({"type": "boolean"}), json!(false)),
        ("latency", object(false), latency),
        text("url", "https://highwater.example/v1/alerts/alr_01J9Z000000000000000000000/history"),
    ]
}

fn alert() -> Vec<Field> {
    let texts = json!({"type": "array", "items": {"type": "string"}});
    vec![
        text("id", "alr_01J9Z000000000000000000000"),
        text("object", "alert"),
        number("version", 1),
        text("account_id", "acc_123"),
        maybe_text("metric", "api.requests"),
        maybe_text("name", "Near the limit"),
        text("rule", "quota_percent > 85"),
        text("rule_normalized", "quota_percent > 85"),
        text("severity", "warning"),
        text("status", "active"),
        ("paused_until", json!({"type": ["string", "null"], "format": "date-time"}), json!(null)),
        ("channels", texts, json!(["chn_01J9Z000000000000000000000"])),
        ("labels", json!({"type": ["object", "null"]}), json!({"team": "a"})),
        ("project_id", json!({"type": ["string", "null"]}), json!(null)),
        instant("created_at"),
        instant("updated_at"),
    ]
}

fn deleted(object: &'static str, id: &str) -> Vec<Field> {
    vec![text("id", id), text("object", object), ("deleted", json!({"const": true}), json!(true))]
}

fn text(name: &'static str, example: &str) -> Field {
    (name, json!({"type": "string"}), json!(example))
}

fn maybe_text(name: &'static str, example: &str) -> Field {
    (name, json!({"type": ["string", "null"]}), json!(example))
}

fn number(name: &'static str, example: u64) -> Field {
    (name, json!({"type": "integer"}), json!(example))
}

fn instant(name: &'static str) -> Field {
    (name, json!({"type": "string", "format": "date-time"}), json!("2026-11-24T08:00:00.000Z"))
}
