//! The catalogue of event types: what each says, its JSON Schema, and an example.

use super::app::{App, Caller};
use super::docs::Problems;
use super::input::Query;
use super::page::{Order, PARAMETERS, Page, Paging};
use super::problem::Problem;
use crate::domain::control::resource::Scope;
use crate::domain::webhook::kind::EventType;
use axum::extract::{RawQuery, State};
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

/// A type of events.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventTypeView {
    /// What subscriptions name.
    r#type: &'static str,
    object: &'static str,
    description: &'static str,
    /// JSON Schema (2020-12) of the whole body.
    #[schema(value_type = Object)]
    schema: Value,
    #[schema(value_type = Object)]
    example: Value,
}

/// Lists the types of events by name, each with the schema of its body and an example.
#[utoipa::path(
    get, path = "/v1/webhooks/event-types", tag = "webhooks", operation_id = "event_types",
    params(("page" = Option<usize>, Query), ("page_size" = Option<usize>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Page<EventTypeView>), Problems), security(("key" = ["read:webhooks"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadWebhooks)?;
    let query = Query::read(query.as_deref(), &PARAMETERS)?;
    let paging = Paging::read(&app, &caller, uri.path(), &query)?;
    let mut all: Vec<EventTypeView> = EventType::ALL.iter().copied().map(view).collect();
    all.sort_by_key(|view| view.r#type);
    let items = paging.cut(Order::Rising, all.into_iter(), |view| view.r#type.to_owned());
    Ok(paging.answer(&app, items, |view| view.r#type.to_owned()))
}

fn view(kind: EventType) -> EventTypeView {
    let data = data(kind);
    let (mut properties, mut example) = (Map::new(), Map::new());
    for (name, schema, value) in &data {
        properties.insert((*name).to_owned(), schema.clone());
        example.insert((*name).to_owned(), value.clone());
    }
    EventTypeView {
        r#type: kind.name(),
        object: "event_type",
        description: description(kind),
        schema: envelope_schema(kind, properties),
        example: envelope(kind, example),
    }
}

fn envelope_schema(kind: EventType, data: Map<String, Value>) -> Value {
    let text = json!({"type": "string"});
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["id", "type", "timestamp", "workspace_id", "mode", "api_version", "log", "sequence", "index", "data"],
        "properties": {
            "id": {"type": "string", "pattern": "^msg_[0-9A-Z]{26}$"},
            "type": {"const": kind.name()},
            "timestamp": {"type": "string", "format": "date-time"},
            "workspace_id": text, "mode": {"enum": ["live", "sandbox"]}, "api_version": {"const": "v1"},
            "log": {"type": "string", "pattern": "^(control|p[0-9]+)$"},
            "sequence": {"type": "integer", "minimum": 1}, "index": {"type": "integer", "minimum": 0},
            "data": {"type": "object", "properties": data},
        },
    })
}

fn envelope(kind: EventType, data: Map<String, Value>) -> Value {
    let is_control = !matches!(
        kind,
        EventType::AlertPending
            | EventType::AlertFiring
            | EventType::AlertResolved
            | EventType::AlertCorrected
            | EventType::AlertNoData
            | EventType::AlertTest
    );
    json!({
        "id": "msg_7M4Q0ZJ1X2C3V4B5N6M7K8J9H0", "type": kind.name(), "timestamp": "2026-11-24T08:00:00.000Z",
        "workspace_id": "ws_01J9Z000000000000000000000", "mode": "live", "api_version": "v1",
        "log": if is_control { "control" } else { "p3" }, "sequence": 48_213, "index": 0, "data": data,
    })
}

const fn description(kind: EventType) -> &'static str {
    match kind {
        EventType::AlertPending => "An alert's condition holds, but not for long enough yet.",
        EventType::AlertFiring => "An alert fires; also under a silence, which data.silenced tells.",
        EventType::AlertResolved => "A firing, or a want of data, ended.",
        EventType::AlertCorrected => "A late event overturned an earlier decision.",
        EventType::AlertNoData => "All that an alert reads is missing.",
        EventType::AlertTest => "Somebody tries whether messages of an alert or a channel arrive.",
        EventType::AlertAcknowledged => "Somebody looks after a firing.",
        EventType::AlertCreated => "An alert was made.",
        EventType::AlertUpdated => "An alert was changed.",
        EventType::AlertPaused => "An alert was paused.",
        EventType::AlertResumed => "An alert's pause ended.",
        EventType::AlertDeleted => "An alert was deleted.",
        EventType::AccountCreated => {
            "An account was made, by itself or by a quota. Accounts that only send events make none."
        }
        EventType::AccountDeleted => "An account was deleted.",
        EventType::SilenceCreated => "A silence was made.",
        EventType::SilenceExpired => "A silence ended.",
        EventType::ApiKeyCreated => "An API key was made.",
        EventType::ApiKeyRotated => "An API key was rotated.",
        EventType::ApiKeyExpiring => "An API key expires in 7 days, or in 1 day.",
        EventType::ApiKeyRevoked => "An API key was revoked.",
        EventType::WebhookDisabled => {
            "Another endpoint was disabled: it is gone, or did nothing but fail for five days."
        }
        EventType::WebhookRecovered => "An endpoint that had failed for an hour and more takes events again.",
        EventType::DeliveryExhausted => "The last attempt to deliver an event to another endpoint failed.",
        EventType::SandboxReset => "The sandbox began anew.",
        EventType::WebhookTest => "Somebody tries this endpoint out.",
    }
}

type Field = (&'static str, Value, Value);

/// The members of a type's data: name, schema, example.
fn data(kind: EventType) -> Vec<Field> {
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
            text("webhook_id", "whk_01J9Z000000000000000000000"),
            text("event_id", "msg_7M4Q0ZJ1X2C3V4B5N6M7K8J9H0"),
            text("event_type", "alert.firing"),
            number("attempts", 10),
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
    }
}

fn transition() -> Vec<Field> {
    let quota = json!({"limit": 5000, "used": 4310, "remaining": 690, "percent": 86.2, "period": "day",
        "starts_at": "2026-11-24T00:00:00.000Z", "resets_at": "2026-11-25T00:00:00.000Z"});
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
        text("state", "firing"),
        text("reason", "condition"),
        text("severity", "warning"),
        text("rule", "quota_percent > 85"),
        maybe_text("value_name", "quota_percent"),
        ("value", json!({"type": ["number", "null"]}), json!(86.2)),
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
