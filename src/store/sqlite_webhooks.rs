//! What becomes of platform events: writing and reading their rows.

use super::query::{AttemptQuery, EventQuery, EventsQuery, OwedQuery, WebhookDeliveryQuery};
use super::value::{Id, json, mode, parsed, workspace};
use crate::domain::id::{NotificationId, PartitionId, Position, WebhookId};
use crate::domain::partition::effect::DeliveryStatus;
use crate::domain::time::Timestamp;
use crate::domain::webhook::event::Event;
use crate::domain::webhook::kind::EventType;
use crate::domain::webhook::rows::{Attempt, Delivery, DeliveryId, Rows};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::collections::BTreeMap;

type Answer<T> = rusqlite::Result<T>;

pub(super) fn write(transaction: &Transaction<'_>, rows: &Rows) -> Answer<()> {
    let mut event = transaction.prepare_cached(
        "INSERT OR REPLACE INTO webhook_events (workspace, mode, id, at, body) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for row in &rows.events {
        event.execute(params![workspace(row.tenant), mode(row.tenant), Id(row.id.0), row.at.0, json(row)?])?;
    }
    let mut delivery = transaction.prepare_cached(
        "INSERT INTO webhook_deliveries (workspace, mode, webhook, event, kind, log, created_at, status, attempts, outcome,
           next_at, at, revision)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
         ON CONFLICT DO UPDATE SET status = excluded.status, attempts = excluded.attempts, outcome = excluded.outcome,
           next_at = excluded.next_at, at = excluded.at, revision = excluded.revision
         WHERE excluded.revision >= webhook_deliveries.revision",
    )?;
    for row in &rows.deliveries {
        delivery.execute(params![
            workspace(row.tenant),
            mode(row.tenant),
            Id(row.id.webhook.0),
            Id(row.id.event.0),
            row.kind.name(),
            row.log.rows().0,
            row.created_at.0,
            row.status.name(),
            row.attempts,
            row.outcome,
            row.next_at.map(|at| at.0),
            row.at.0,
            row.revision.0.cast_signed()
        ])?;
    }
    let mut attempt = transaction.prepare_cached(
        "INSERT INTO webhook_attempts (workspace, mode, webhook, event, attempt, at, revision, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT DO UPDATE SET at = excluded.at, revision = excluded.revision, body = excluded.body
         WHERE excluded.revision >= webhook_attempts.revision",
    )?;
    for row in &rows.attempts {
        attempt.execute(params![
            workspace(row.tenant),
            mode(row.tenant),
            Id(row.posted.id.webhook.0),
            Id(row.posted.id.event.0),
            row.posted.attempt,
            row.at.0,
            row.revision.0.cast_signed(),
            json(row)?
        ])?;
    }
    Ok(())
}

pub(super) fn webhook_event(connection: &Connection, query: &EventQuery) -> Answer<Option<Event>> {
    let mut select =
        connection.prepare_cached("SELECT body FROM webhook_events WHERE workspace = ?1 AND mode = ?2 AND id = ?3")?;
    let values = params![workspace(query.tenant), mode(query.tenant), Id(query.id.0)];
    select.query_row(values, |row| parsed(row.get_ref(0)?.as_str()?)).optional()
}

pub(super) fn webhook_events(connection: &Connection, query: &EventsQuery) -> Answer<Vec<Event>> {
    let mut select = connection.prepare_cached(
        "SELECT body FROM webhook_events
         WHERE workspace = ?1 AND mode = ?2 AND id IN (SELECT unhex(value) FROM json_each(?3))",
    )?;
    let ids: Vec<String> = query.ids.iter().map(|id| format!("{:032X}", id.0)).collect();
    let rows = select.query_map(params![workspace(query.tenant), mode(query.tenant), json(&ids)?], |row| {
        parsed(row.get_ref(0)?.as_str()?)
    })?;
    rows.collect()
}

pub(super) fn webhook_attempts(connection: &Connection, query: &AttemptQuery) -> Answer<Vec<Attempt>> {
    let mut select = connection.prepare_cached(
        "SELECT body FROM webhook_attempts WHERE workspace = ?1 AND mode = ?2 AND webhook = ?3 AND event = ?4
         ORDER BY attempt DESC LIMIT ?5",
    )?;
    let values = params![
        workspace(query.tenant),
        mode(query.tenant),
        Id(query.id.webhook.0),
        Id(query.id.event.0),
        query.limit as i64
    ];
    select.query_map(values, |row| parsed(row.get_ref(0)?.as_str()?))?.collect()
}

pub(super) fn webhook_deliveries(connection: &Connection, query: &WebhookDeliveryQuery) -> Answer<Vec<Delivery>> {
    let (order, behind) = query.age.sql();
    let mut select = connection.prepare_cached(&format!(
        "SELECT event, kind, log, created_at, status, attempts, outcome, next_at, at, revision FROM webhook_deliveries
         WHERE workspace = ?1 AND mode = ?2 AND webhook = ?3 AND (?4 IS NULL OR event = ?4)
           AND (?5 = '' OR instr(?5, ',' || status || ',') > 0) AND (?13 IS NULL OR outcome = ?13) AND (?6 = '' OR instr(?6, ',' || kind || ',') > 0)
           AND created_at >= ?7 AND created_at < ?8
           AND (?9 IS NULL OR (created_at, event) {behind} (?9, ?10))
         ORDER BY created_at {order}, event {order} LIMIT ?11 OFFSET ?12"
    ))?;
    let values = params![
        workspace(query.tenant),
        mode(query.tenant),
        Id(query.webhook.0),
        query.event.map(|id| Id(id.0)),
        listed(query.statuses.iter().map(|status| status.name())),
        listed(query.kinds.iter().map(|kind| kind.name())),
        query.from.unwrap_or(Timestamp::MIN).0,
        query.to.unwrap_or(Timestamp::MAX).0,
        query.after.map(|(at, _)| at.0),
        query.after.map(|(_, id)| Id(id.0)),
        query.limit as i64,
        query.offset as i64,
        query.outcome
    ];
    let rows = select.query_map(values, |row| {
        let event = NotificationId(row.get::<_, Id>(0)?.0);
        Ok(Delivery {
            tenant: query.tenant,
            id: DeliveryId { event, webhook: WebhookId(query.webhook.0) },
            kind: name::<EventType>(row.get_ref(1)?.as_str()?)?,
            log: PartitionId(row.get(2)?).log(),
            created_at: Timestamp(row.get(3)?),
            status: name::<DeliveryStatus>(row.get_ref(4)?.as_str()?)?,
            attempts: row.get(5)?,
            outcome: row.get(6)?,
            next_at: row.get::<_, Option<i64>>(7)?.map(Timestamp),
            at: Timestamp(row.get(8)?),
            revision: Position(row.get::<_, i64>(9)?.cast_unsigned()),
        })
    })?;
    rows.collect()
}

/// What is pending has an index of its own.
pub(super) fn webhook_owed(connection: &Connection, query: &OwedQuery) -> Answer<BTreeMap<PartitionId, usize>> {
    let mut select = connection.prepare_cached(
        "SELECT log, COUNT(*) FROM webhook_deliveries
         WHERE workspace = ?1 AND mode = ?2 AND webhook = ?3 AND status = 'pending' GROUP BY log",
    )?;
    let values = params![workspace(query.tenant), mode(query.tenant), Id(query.webhook.0)];
    let rows = select.query_map(values, |row| {
        let count: i64 = row.get(1)?;
        Ok((PartitionId(row.get(0)?), usize::try_from(count).unwrap_or(usize::MAX)))
    })?;
    rows.collect()
}

/// Names with a comma around each; nothing stands for all of them.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<&str> = names.collect();
    if all.is_empty() { String::new() } else { format!(",{},", all.join(",")) }
}

/// Reads an enum's name, as its JSON form has it.
fn name<T: serde::de::DeserializeOwned>(text: &str) -> Answer<T> {
    parsed(&format!("\"{text}\""))
}
