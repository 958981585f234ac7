//! What became of notifications at channels: reading their rows.

use super::filter::{Filter, Value, bounded, instant, json};
use super::record::{DeliveryRecord, NotificationRecord};
use crate::domain::partition::effect::DeliveryRow;
use crate::domain::partition::notification::Notification;
use crate::store::{ChannelDeliveryQuery, LastDeliveryQuery, OutcomeQuery, StoreError};
use clickhouse::Client;
use std::collections::BTreeMap;

type Answer<T> = Result<T, StoreError>;

pub(in crate::store) async fn channel_deliveries(
    client: &Client,
    query: &ChannelDeliveryQuery,
) -> Answer<Vec<(DeliveryRow, Notification)>> {
    let (order, behind) = query.age.sql();
    let mut filter = Filter::of(query.tenant);
    filter.and("channel = ?", Value::Text(query.channel.to_string()));
    if let Some(id) = query.notification {
        filter.and("notification = ?", Value::Text(id.to_string()));
    }
    let pairs = std::mem::take(&mut filter.sql);
    filter.tenant(query.tenant);
    let told = std::mem::replace(&mut filter.sql, "1".to_owned());
    filter.any_of("status", query.statuses.iter().map(|status| status.name().to_owned()));
    filter.between("decided_at", query.from, query.to);
    if let Some((at, id)) = query.after {
        let condition = format!("(decided_at, notification) {behind} ({}, ?)", instant(at));
        filter.and(&condition, Value::Text(id.to_string()));
    }
    let sql = format!(
        "SELECT ?fields FROM (
           SELECT * FROM deliveries WHERE {pairs}
           ORDER BY notification, channel, revision DESC LIMIT 1 BY notification, channel
         ) AS pairs INNER JOIN (
           SELECT id, max(at) AS decided_at FROM notifications WHERE {told} GROUP BY id
         ) AS told ON told.id = pairs.notification
         WHERE {} ORDER BY decided_at {order}, notification {order} LIMIT {} OFFSET {}",
        filter.sql,
        bounded(query.limit),
        bounded(query.offset)
    );
    let records = filter.bind(client.query(&sql)).fetch_all::<DeliveryRecord>().await?;
    if records.is_empty() {
        return Ok(Vec::new());
    }
    let mut filter = Filter::of(query.tenant);
    filter.and("id IN ?", Value::Texts(records.iter().map(|record| record.notification.to_string()).collect()));
    let sql =
        format!("SELECT ?fields FROM notifications WHERE {} ORDER BY id, position DESC LIMIT 1 BY id", filter.sql);
    let bodies = filter.bind(client.query(&sql)).fetch_all::<NotificationRecord>().await?;
    let bodies: BTreeMap<_, _> = bodies.into_iter().map(|record| (record.id, record.body)).collect();
    let with_body = |record: DeliveryRecord| {
        let body = bodies.get(&record.notification)?;
        Some(json(body).map(|notification| (DeliveryRow::from(record), notification)))
    };
    records.into_iter().filter_map(with_body).collect()
}

pub(in crate::store) async fn last_deliveries(client: &Client, query: &LastDeliveryQuery) -> Answer<Vec<DeliveryRow>> {
    if query.channels.is_empty() {
        return Ok(Vec::new());
    }
    let mut filter = Filter::of(query.tenant);
    filter.any_of("channel", query.channels.iter().map(ToString::to_string));
    let sql = format!(
        "SELECT ?fields FROM (
           SELECT * FROM deliveries WHERE {}
           ORDER BY notification, channel, revision DESC LIMIT 1 BY notification, channel
         ) ORDER BY channel, at DESC, notification DESC LIMIT 1 BY channel",
        filter.sql
    );
    let records = filter.bind(client.query(&sql)).fetch_all::<DeliveryRecord>().await?;
    Ok(records.into_iter().map(DeliveryRow::from).collect())
}

pub(in crate::store) async fn outcomes(client: &Client, query: &OutcomeQuery) -> Answer<Vec<DeliveryRow>> {
    if query.notifications.is_empty() {
        return Ok(Vec::new());
    }
    let mut filter = Filter::of(query.tenant);
    filter.any_of("notification", query.notifications.iter().map(ToString::to_string));
    let sql = format!(
        "SELECT ?fields FROM deliveries WHERE {}
         ORDER BY notification, channel, revision DESC LIMIT 1 BY notification, channel",
        filter.sql
    );
    let records = filter.bind(client.query(&sql)).fetch_all::<DeliveryRecord>().await?;
    Ok(records.into_iter().map(DeliveryRow::from).collect())
}
