//! What becomes of platform events: rows as they stand in the columns, and reading them.

use super::filter::{Filter, Value, bounded, instant, json};
use super::record::text;
use crate::domain::id::{Mode, NotificationId, PartitionId, Position, WebhookId, WorkspaceId};
use crate::domain::partition::effect::DeliveryStatus;
use crate::domain::time::Timestamp;
use crate::domain::webhook::event::Event;
use crate::domain::webhook::kind::EventType;
use crate::domain::webhook::rows::{Attempt, Delivery, DeliveryId};
use crate::store::{AttemptQuery, EventQuery, EventsQuery, OwedQuery, StoreError, WebhookDeliveryQuery};
use clickhouse::{Client, Row};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

type Answer<T> = Result<T, StoreError>;

/// An event; `body` is all of it.
#[derive(Debug, Row, Serialize, Deserialize)]
pub(super) struct EventRecord {
    #[serde(with = "text")]
    pub(super) workspace: WorkspaceId,
    #[serde(with = "text")]
    pub(super) mode: Mode,
    #[serde(with = "text")]
    pub(super) id: NotificationId,
    pub(super) at: Timestamp,
    pub(super) position: Position,
    pub(super) body: String,
}

impl EventRecord {
    pub(super) fn of(event: &Event) -> Answer<Self> {
        Ok(Self {
            workspace: event.tenant.workspace,
            mode: event.tenant.mode,
            id: event.id,
            at: event.at,
            position: event.position,
            body: written(event)?,
        })
    }
}

/// Where an event stands at an endpoint.
#[derive(Debug, Row, Serialize, Deserialize)]
pub(super) struct WebhookDeliveryRecord {
    #[serde(with = "text")]
    pub(super) workspace: WorkspaceId,
    #[serde(with = "text")]
    pub(super) mode: Mode,
    #[serde(with = "text")]
    pub(super) webhook: WebhookId,
    pub(super) created_at: Timestamp,
    #[serde(with = "text")]
    pub(super) event: NotificationId,
    #[serde(with = "text")]
    pub(super) kind: EventType,
    pub(super) log: PartitionId,
    #[serde(with = "text")]
    pub(super) status: DeliveryStatus,
    pub(super) attempts: u32,
    pub(super) outcome: Option<String>,
    pub(super) next_at: Option<Timestamp>,
    pub(super) at: Timestamp,
    pub(super) revision: Position,
}

impl From<&Delivery> for WebhookDeliveryRecord {
    fn from(row: &Delivery) -> Self {
        Self {
            workspace: row.tenant.workspace,
            mode: row.tenant.mode,
            webhook: row.id.webhook,
            created_at: row.created_at,
            event: row.id.event,
            kind: row.kind,
            log: row.log.rows(),
            status: row.status,
            attempts: row.attempts,
            outcome: row.outcome.clone(),
            next_at: row.next_at,
            at: row.at,
            revision: row.revision,
        }
    }
}

impl From<WebhookDeliveryRecord> for Delivery {
    fn from(record: WebhookDeliveryRecord) -> Self {
        Self {
            tenant: crate::domain::id::Tenant { workspace: record.workspace, mode: record.mode },
            id: DeliveryId { event: record.event, webhook: record.webhook },
            kind: record.kind,
            log: record.log.log(),
            created_at: record.created_at,
            status: record.status,
            attempts: record.attempts,
            outcome: record.outcome,
            next_at: record.next_at,
            at: record.at,
            revision: record.revision,
        }
    }
}

/// An attempt; `body` is all of it.
#[derive(Debug, Row, Serialize, Deserialize)]
pub(super) struct AttemptRecord {
    #[serde(with = "text")]
    pub(super) workspace: WorkspaceId,
    #[serde(with = "text")]
    pub(super) mode: Mode,
    #[serde(with = "text")]
    pub(super) webhook: WebhookId,
    #[serde(with = "text")]
    pub(super) event: NotificationId,
    pub(super) attempt: u32,
    pub(super) at: Timestamp,
    pub(super) revision: Position,
    pub(super) body: String,
}

impl AttemptRecord {
    pub(super) fn of(row: &Attempt) -> Answer<Self> {
        Ok(Self {
            workspace: row.tenant.workspace,
            mode: row.tenant.mode,
            webhook: row.posted.id.webhook,
            event: row.posted.id.event,
            attempt: row.posted.attempt,
            at: row.at,
            revision: row.revision,
            body: written(row)?,
        })
    }
}

fn written<T: Serialize>(value: &T) -> Answer<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Storage { detail: error.to_string() })
}

pub(in crate::store) async fn webhook_event(client: &Client, query: &EventQuery) -> Answer<Option<Event>> {
    let mut filter = Filter::of(query.tenant);
    filter.and("id = ?", Value::Text(query.id.to_string()));
    let sql = format!("SELECT body FROM webhook_events WHERE {} ORDER BY position DESC LIMIT 1", filter.sql);
    let body = filter.bind(client.query(&sql)).fetch_optional::<String>().await?;
    body.as_deref().map(json).transpose()
}

pub(in crate::store) async fn webhook_events(client: &Client, query: &EventsQuery) -> Answer<Vec<Event>> {
    if query.ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut filter = Filter::of(query.tenant);
    filter.and("id IN ?", Value::Texts(query.ids.iter().map(ToString::to_string).collect()));
    let sql = format!("SELECT body FROM webhook_events WHERE {} ORDER BY id, position DESC LIMIT 1 BY id", filter.sql);
    let bodies = filter.bind(client.query(&sql)).fetch_all::<String>().await?;
    bodies.iter().map(|body| json(body)).collect()
}

pub(in crate::store) async fn webhook_attempts(client: &Client, query: &AttemptQuery) -> Answer<Vec<Attempt>> {
    let mut filter = Filter::of(query.tenant);
    filter.and("webhook = ?", Value::Text(query.id.webhook.to_string()));
    filter.and("event = ?", Value::Text(query.id.event.to_string()));
    let sql = format!(
        "SELECT body FROM webhook_attempts WHERE {} ORDER BY attempt DESC, revision DESC LIMIT 1 BY attempt LIMIT {}",
        filter.sql,
        bounded(query.limit)
    );
    let bodies = filter.bind(client.query(&sql)).fetch_all::<String>().await?;
    bodies.iter().map(|body| json(body)).collect()
}

pub(in crate::store) async fn webhook_deliveries(
    client: &Client,
    query: &WebhookDeliveryQuery,
) -> Answer<Vec<Delivery>> {
    let mut filter = Filter::of(query.tenant);
    let (order, behind) = query.age.sql();
    filter.and("webhook = ?", Value::Text(query.webhook.to_string()));
    if let Some(event) = query.event {
        filter.and("event = ?", Value::Text(event.to_string()));
    }
    // A pair has one type and one time of its own, so these may choose before the newest row is known.
    if !query.kinds.is_empty() {
        filter.and("kind IN ?", Value::Texts(query.kinds.iter().map(|kind| kind.name().to_owned()).collect()));
    }
    filter.between("created_at", query.from, query.to);
    if let Some((at, event)) = query.after {
        let condition = format!("(created_at, event) {behind} ({}, ?)", instant(at));
        filter.and(&condition, Value::Text(event.to_string()));
    }
    let inner = std::mem::replace(&mut filter.sql, "1".to_owned());
    if !query.statuses.is_empty() {
        let names = query.statuses.iter().map(|status| status.name().to_owned()).collect();
        filter.and("status IN ?", Value::Texts(names));
    }
    if let Some(outcome) = query.outcome {
        filter.and("outcome = ?", Value::Text(outcome.to_owned()));
    }
    let sql = format!(
        "SELECT ?fields FROM (
           SELECT * FROM webhook_deliveries WHERE {inner}
           ORDER BY created_at, event, revision DESC LIMIT 1 BY created_at, event
         ) WHERE {} ORDER BY created_at {order}, event {order} LIMIT {} OFFSET {}",
        filter.sql,
        bounded(query.limit),
        bounded(query.offset)
    );
    let records = filter.bind(client.query(&sql)).fetch_all::<WebhookDeliveryRecord>().await?;
    Ok(records.into_iter().map(Delivery::from).collect())
}

pub(in crate::store) async fn webhook_owed(client: &Client, query: &OwedQuery) -> Answer<BTreeMap<PartitionId, usize>> {
    let mut filter = Filter::of(query.tenant);
    filter.and("webhook = ?", Value::Text(query.webhook.to_string()));
    let sql = format!(
        "SELECT log, count() FROM (
           SELECT log, status FROM webhook_deliveries WHERE {}
           ORDER BY created_at, event, revision DESC LIMIT 1 BY created_at, event
         ) WHERE status = 'pending' GROUP BY log",
        filter.sql
    );
    let counts = filter.bind(client.query(&sql)).fetch_all::<(u32, u64)>().await?;
    let counts =
        counts.into_iter().map(|(log, count)| (PartitionId(log), usize::try_from(count).unwrap_or(usize::MAX)));
    Ok(counts.collect())
}
