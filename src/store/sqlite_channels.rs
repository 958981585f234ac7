//! What became of notifications at channels: reading their rows.

use super::channel_query::{ChannelDeliveryQuery, LastDeliveryQuery, OutcomeQuery};
use super::sqlite_read::delivery;
use super::value::{Id, json, mode, parsed, workspace};
use crate::domain::partition::effect::{DeliveryRow, DeliveryStatus};
use crate::domain::partition::notification::Notification;
use rusqlite::{Connection, params};

type Answer<T> = rusqlite::Result<T>;

pub(super) fn channel_deliveries(
    connection: &Connection,
    query: &ChannelDeliveryQuery,
) -> Answer<Vec<(DeliveryRow, Notification)>> {
    let (order, behind) = query.age.sql();
    let mut select = connection.prepare_cached(&format!(
        "SELECT d.notification, d.channel, d.status, d.attempts, d.outcome, d.next_at, d.at, d.revision, n.body
         FROM deliveries d JOIN notifications n
           ON n.workspace = d.workspace AND n.mode = d.mode AND n.id = d.notification
         WHERE d.workspace = ?1 AND d.mode = ?2 AND d.channel = ?3 AND (?4 IS NULL OR d.notification = ?4)
           AND (?5 = '[]' OR d.status IN (SELECT value FROM json_each(?5)))
           AND (?6 IS NULL OR n.at >= ?6) AND (?7 IS NULL OR n.at < ?7)
           AND (?8 IS NULL OR (n.at, n.id) {behind} (?8, ?9))
         ORDER BY n.at {order}, n.id {order} LIMIT ?10 OFFSET ?11"
    ))?;
    let statuses: Vec<&str> = query.statuses.iter().copied().map(DeliveryStatus::name).collect();
    let values = params![
        workspace(query.tenant),
        mode(query.tenant),
        Id(query.channel.0),
        query.notification.map(|id| Id(id.0)),
        json(&statuses)?,
        query.from.map(|at| at.0),
        query.to.map(|at| at.0),
        query.after.map(|(at, _)| at.0),
        query.after.map(|(_, id)| Id(id.0)),
        query.limit as i64,
        query.offset as i64
    ];
    let rows =
        select.query_map(values, |row| Ok((delivery(query.tenant, row)?, parsed(row.get_ref(8)?.as_str()?)?)))?;
    rows.collect()
}

pub(super) fn last_deliveries(connection: &Connection, query: &LastDeliveryQuery) -> Answer<Vec<DeliveryRow>> {
    let mut select = connection.prepare_cached(
        "SELECT notification, channel, status, attempts, outcome, next_at, at, revision FROM deliveries
         WHERE workspace = ?1 AND mode = ?2 AND channel = ?3 ORDER BY at DESC, notification DESC LIMIT 1",
    )?;
    let mut channels = query.channels.clone();
    channels.sort_unstable();
    let mut last = Vec::with_capacity(channels.len());
    for channel in channels {
        let values = params![workspace(query.tenant), mode(query.tenant), Id(channel.0)];
        for row in select.query_map(values, |row| delivery(query.tenant, row))? {
            last.push(row?);
        }
    }
    Ok(last)
}

pub(super) fn outcomes(connection: &Connection, query: &OutcomeQuery) -> Answer<Vec<DeliveryRow>> {
    let mut select = connection.prepare_cached(
        "SELECT notification, channel, status, attempts, outcome, next_at, at, revision FROM deliveries
         WHERE workspace = ?1 AND mode = ?2 AND notification = ?3 ORDER BY channel",
    )?;
    let mut ids = query.notifications.clone();
    ids.sort_unstable();
    let mut found = Vec::new();
    for id in ids {
        let values = params![workspace(query.tenant), mode(query.tenant), Id(id.0)];
        for row in select.query_map(values, |row| delivery(query.tenant, row))? {
            found.push(row?);
        }
    }
    Ok(found)
}
