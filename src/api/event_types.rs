//! The catalogue of event types: what each says, its JSON Schema, and an example.

use super::app::{App, Caller};
use super::docs::Problems;
use super::event_data;
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
    let data = event_data::members(kind);
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
            | EventType::QuotaThresholdReached
            | EventType::QuotaExceeded
            | EventType::QuotaReset
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
        EventType::DeliveryExhausted => {
            "The last attempt to deliver an event to another endpoint failed, or a channel lost a message: its last attempt failed, or its target refused it for good."
        }
        EventType::WebhookOverflowing => {
            "As many deliveries wait for an endpoint as may, 10,000 in a partition: what comes for it is dropped. It is told when that begins, when it reaches further back than was told, and when it begins again behind an hour without. data.dropped counts what was dropped by then; the endpoint's overflow has the rest, and a replay from overflow.since on sends it."
        }
        EventType::ChannelFailing => {
            "A channel lost a message, the first since it last took one. Whoever relies on it alone hears nothing now."
        }
        EventType::ChannelRecovered => {
            "A channel that had lost messages takes them again. What it has not heard of the present states is sent to it."
        }
        EventType::SandboxReset => "The sandbox began anew.",
        EventType::WebhookTest => "Somebody tries this endpoint out.",
        EventType::QuotaThresholdReached => {
            "An account used 80 % of a quota or more. Told once for a period and a quota; a limit of zero has no threshold."
        }
        EventType::QuotaExceeded => "An account used more than a quota's limit. Told once for a period and a quota.",
        EventType::IngestBackpressure => {
            "A node answered requests with events by 503 overloaded: the journal did not take them. Told when it takes records again, then every 5 minutes."
        }
        EventType::IngestGap => {
            "Messages of the public topic were lost before they were read, between from (the last one read; null where that is not known) and to (the first one left). Whose they were is not known, so every workspace is told: once for each gap of a partition. Usage answers over that time carry the warning intake_gap."
        }
        EventType::QuotaReset => {
            "The period of a quota ended of which quota.threshold_reached or quota.exceeded was told; the grace of 30 s behind its end."
        }
    }
}
