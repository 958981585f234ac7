//! Reading rows. Every query chooses the newest row of each key itself (`LIMIT 1 BY` behind an order, or an aggregate).

use super::filter::{Filter, Value, bounded, instant, json, unreadable};
use super::record::{
    AccountRecord, DeliveryRecord, InstanceRecord, NotificationRecord, PositionRecord, TransitionRecord, WindowRecord,
};
use crate::domain::id::{AccountId, AlertId, Epoch, MetricName, PartitionId, Tenant};
use crate::domain::partition::effect::{AccountRow, DeliveryRow, InstanceRow, State, TransitionRow};
use crate::domain::partition::notification::Notification;
use crate::domain::quantity::Quantity;
use crate::domain::time::Timestamp;
use crate::store::points::{Part, Points};
use crate::store::{
    DeliveryQuery, InstanceQuery, NotificationQuery, OutboxQuery, Progress, QuarantineEntry, QuarantineQuery,
    StoreError, Summary, TransitionQuery, WindowPoint, WindowQuery,
};
use clickhouse::{Client, Row};
use serde::Deserialize;
use std::collections::BTreeMap;

type Answer<T> = Result<T, StoreError>;

pub(in crate::store) async fn progress(client: &Client) -> Answer<BTreeMap<PartitionId, Progress>> {
    let sql = "SELECT partition, newest.1 AS position, newest.2 AS clock
               FROM (SELECT partition, max((p.position, p.clock)) AS newest FROM positions AS p GROUP BY partition)";
    let records = client.query(sql).fetch_all::<PositionRecord>().await?;
    let progress = |record: &PositionRecord| Progress { position: record.position, clock: record.clock };
    Ok(records.iter().map(|record| (PartitionId(record.partition), progress(record))).collect())
}

/// Reads the parts of each window in order, merges them, and adds windows up to the width that is asked for.
pub(in crate::store) async fn windows(client: &Client, query: &WindowQuery) -> Answer<Vec<WindowPoint>> {
    let mut filter = Filter::of(query.tenant);
    filter.and("epoch = ?", Value::Number(query.epoch.0));
    filter.and("account = ?", Value::Text(query.account.as_str().to_owned()));
    if let Some(metric) = &query.metric {
        filter.and("metric = ?", Value::Text(metric.as_str().to_owned()));
    }
    filter.and(if query.groups { "grp != ?" } else { "grp = ?" }, Value::Text(String::new()));
    filter.between("start", Some(query.from), Some(query.to));
    let sql = format!(
        "SELECT ?fields FROM usage_windows WHERE {} ORDER BY metric, grp, start, part, revision DESC
         LIMIT 1 BY metric, grp, start, part",
        filter.sql
    );
    let mut rows = filter.bind(client.query(&sql)).fetch::<WindowRecord>()?;
    let mut points = Points::new(query.width);
    while let Some(row) = rows.next().await? {
        if !(query.from..query.to).contains(&row.start) {
            continue;
        }
        let part =
            Part { start: row.start, aggregate: row.aggregate(), late_events: row.late_events, revision: row.revision };
        points.add((row.metric.as_str(), &row.grp), part, |_| Ok::<_, StoreError>(row.metric.clone()))?;
    }
    Ok(points.into_inner())
}

pub(in crate::store) async fn metrics_of(
    client: &Client,
    tenant: Tenant,
    epoch: Epoch,
    account: &AccountId,
) -> Answer<Vec<MetricName>> {
    let mut filter = Filter::of(tenant);
    filter.and("epoch = ?", Value::Number(epoch.0));
    filter.and("account = ?", Value::Text(account.as_str().to_owned()));
    let sql = format!("SELECT DISTINCT metric FROM usage_windows WHERE {} ORDER BY metric", filter.sql);
    let names = filter.bind(client.query(&sql)).fetch_all::<String>().await?;
    names.iter().map(|name| MetricName::new(name).map_err(unreadable)).collect()
}

pub(in crate::store) async fn accounts(
    client: &Client,
    tenant: Tenant,
    after: Option<(&AccountId, Epoch)>,
    limit: usize,
) -> Answer<Vec<AccountRow>> {
    let mut filter = Filter::of(tenant);
    if let Some((account, epoch)) = after {
        filter.and("(account, epoch) > (?", Value::Text(account.as_str().to_owned()));
        filter.tuple_end(Value::Number(epoch.0));
    }
    let sql = format!(
        "SELECT ?fields FROM accounts WHERE {} ORDER BY account, epoch, revision DESC
         LIMIT 1 BY account, epoch LIMIT {}",
        filter.sql,
        bounded(limit)
    );
    let records = filter.bind(client.query(&sql)).fetch_all::<AccountRecord>().await?;
    Ok(records.into_iter().map(AccountRow::from).collect())
}

pub(in crate::store) async fn account(
    client: &Client,
    tenant: Tenant,
    epoch: Epoch,
    account: &AccountId,
) -> Answer<Option<AccountRow>> {
    let mut filter = Filter::of(tenant);
    filter.and("account = ?", Value::Text(account.as_str().to_owned()));
    filter.and("epoch = ?", Value::Number(epoch.0));
    let sql = format!("SELECT ?fields FROM accounts WHERE {} ORDER BY revision DESC LIMIT 1", filter.sql);
    let record = filter.bind(client.query(&sql)).fetch_optional::<AccountRecord>().await?;
    Ok(record.map(AccountRow::from))
}

pub(in crate::store) async fn instances(client: &Client, query: &InstanceQuery) -> Answer<Vec<InstanceRow>> {
    let mut filter = Filter::of(query.tenant);
    filter.and("alert = ?", Value::Text(query.alert.to_string()));
    filter.any_of("account", query.accounts.iter().map(|account| account.as_str().to_owned()));
    let inner = std::mem::take(&mut filter.sql);
    filter.and("state != ?", Value::Text(String::new()));
    if !query.states.is_empty() {
        filter.and("state IN ?", Value::Texts(query.states.iter().map(|state| state.name().to_owned()).collect()));
    }
    if let Some((account, metric)) = &query.after {
        filter.and("(account, metric) > (?", Value::Text(account.as_str().to_owned()));
        filter.tuple_end(Value::Text(metric_text(metric.as_ref())));
    }
    let sql = format!(
        "SELECT ?fields FROM (
           SELECT * FROM alert_states WHERE {inner} ORDER BY account, metric, revision DESC LIMIT 1 BY account, metric
         ) WHERE {} ORDER BY account, metric LIMIT {} OFFSET {}",
        filter.sql,
        bounded(query.limit),
        bounded(query.offset)
    );
    let records = filter.bind(client.query(&sql)).fetch_all::<InstanceRecord>().await?;
    Ok(records.into_iter().map(InstanceRow::from).collect())
}

/// The instances of an alert in one state.
#[derive(Debug, Row, Deserialize)]
struct StateRecord {
    alert: String,
    state: String,
    instances: u64,
    any_silenced: bool,
    newest_value: Option<Quantity>,
    newest_at: Timestamp,
}

pub(in crate::store) async fn summaries(
    client: &Client,
    tenant: Tenant,
    alerts: &[AlertId],
) -> Answer<BTreeMap<AlertId, Summary>> {
    let mut summaries: BTreeMap<AlertId, Summary> = alerts.iter().map(|alert| (*alert, Summary::default())).collect();
    if alerts.is_empty() {
        return Ok(summaries);
    }
    let mut filter = Filter::of(tenant);
    filter.and("alert IN ?", Value::Texts(alerts.iter().map(AlertId::to_string).collect()));
    // The tuple keeps argMax from passing over an instance that has no value.
    let sql = format!(
        "SELECT alert, state, count() AS instances, max(silenced) AS any_silenced,
           argMax(tuple(value), (evaluated_at, account, metric)).1 AS newest_value, max(evaluated_at) AS newest_at
         FROM (
           SELECT * FROM alert_states WHERE {}
           ORDER BY alert, account, metric, revision DESC LIMIT 1 BY alert, account, metric
         ) WHERE state != '' GROUP BY alert, state",
        filter.sql
    );
    let mut values: BTreeMap<(AlertId, State), Option<Quantity>> = BTreeMap::new();
    for record in filter.bind(client.query(&sql)).fetch_all::<StateRecord>().await? {
        let alert: AlertId = record.alert.parse().map_err(unreadable)?;
        let state: State = json(&format!("\"{}\"", record.state))?;
        let summary = summaries.entry(alert).or_default();
        summary.counts.insert(state, record.instances);
        summary.silenced |= record.any_silenced;
        summary.last_evaluated_at = summary.last_evaluated_at.max(Some(record.newest_at));
        values.insert((alert, state), record.newest_value);
    }
    for (alert, summary) in &mut summaries {
        summary.last_value = summary.worst().and_then(|state| values.get(&(*alert, state)).copied().flatten());
    }
    Ok(summaries)
}

pub(in crate::store) async fn transitions(client: &Client, query: &TransitionQuery) -> Answer<Vec<TransitionRow>> {
    let mut filter = Filter::of(query.tenant);
    filter.and("alert = ?", Value::Text(query.alert.to_string()));
    filter.any_of("account", query.accounts.iter().map(|account| account.as_str().to_owned()));
    if let Some(metric) = &query.metric {
        filter.and("metric = ?", Value::Text(metric_text(metric.as_ref())));
    }
    filter.between("at", query.from, query.to);
    if query.changes_only {
        filter.sql.push_str(" AND JSONExtractString(body, 'from') != JSONExtractString(body, 'to')");
    }
    let (order, behind) = query.age.sql();
    if let Some(place) = &query.after {
        let condition = format!("(at, account, metric, sequence) {behind} ({}, ?", instant(place.at));
        filter.and(&condition, Value::Text(place.account.as_str().to_owned()));
        filter.tuple_next(Value::Text(metric_text(place.metric.as_ref())));
        filter.tuple_end(Value::Number(place.sequence));
    }
    let sql = format!(
        "SELECT ?fields FROM alert_transitions WHERE {}
         ORDER BY at {order}, account {order}, metric {order}, sequence {order}, position DESC
         LIMIT 1 BY account, metric, sequence LIMIT {} OFFSET {}",
        filter.sql,
        bounded(query.limit),
        bounded(query.offset)
    );
    let records = filter.bind(client.query(&sql)).fetch_all::<TransitionRecord>().await?;
    records.iter().map(|record| json(&record.body)).collect()
}

pub(in crate::store) async fn notifications(client: &Client, query: &NotificationQuery) -> Answer<Vec<Notification>> {
    let mut filter = Filter::of(query.tenant);
    if let Some(alert) = query.alert {
        filter.and("alert = ?", Value::Text(alert.to_string()));
    }
    let sql = format!(
        "SELECT ?fields FROM notifications WHERE {} ORDER BY at DESC, id DESC, position DESC
         LIMIT 1 BY id LIMIT {} OFFSET {}",
        filter.sql,
        bounded(query.limit),
        bounded(query.offset)
    );
    let records = filter.bind(client.query(&sql)).fetch_all::<NotificationRecord>().await?;
    records.iter().map(|record| json(&record.body)).collect()
}

pub(in crate::store) async fn deliveries(client: &Client, query: &DeliveryQuery) -> Answer<Vec<DeliveryRow>> {
    let mut filter = Filter::of(query.tenant);
    if let Some(id) = query.notification {
        filter.and("notification = ?", Value::Text(id.to_string()));
    }
    if let Some(id) = query.channel {
        filter.and("channel = ?", Value::Text(id.to_string()));
    }
    let inner = std::mem::take(&mut filter.sql);
    match query.status {
        Some(status) => filter.and("status = ?", Value::Text(status.name().to_owned())),
        None => filter.sql.push('1'),
    }
    let sql = format!(
        "SELECT ?fields FROM (
           SELECT * FROM deliveries WHERE {inner}
           ORDER BY notification, channel, revision DESC LIMIT 1 BY notification, channel
         ) WHERE {} ORDER BY at DESC, notification DESC, channel DESC LIMIT {} OFFSET {}",
        filter.sql,
        bounded(query.limit),
        bounded(query.offset)
    );
    let records = filter.bind(client.query(&sql)).fetch_all::<DeliveryRecord>().await?;
    Ok(records.into_iter().map(DeliveryRow::from).collect())
}

pub(in crate::store) async fn outbox(client: &Client, query: &OutboxQuery) -> Answer<Vec<(DeliveryRow, Notification)>> {
    let (order, behind) = query.age.sql();
    let mut filter = Filter::of(query.tenant);
    filter.any_of("channel", query.channels.iter().map(ToString::to_string));
    let newest = std::mem::take(&mut filter.sql);
    filter.and("outcome IN ?", Value::Texts(query.outcomes.to_vec()));
    filter.between("at", query.from, query.to);
    if let Some((at, notification, channel)) = &query.after {
        let condition = format!("(at, notification, channel) {behind} ({}, ?", instant(*at));
        filter.and(&condition, Value::Text(notification.to_string()));
        filter.tuple_end(Value::Text(channel.to_string()));
    }
    if let Some((alerts, channels)) = &query.among {
        // No id is empty: with it there is something to compare with.
        let texts = |ids: &mut dyn Iterator<Item = String>| Value::Texts(ids.chain([String::new()]).collect());
        filter.either(
            ("channel IN ?", texts(&mut channels.iter().map(ToString::to_string))),
            (
                "notification IN (SELECT id FROM notifications WHERE alert IN ?)",
                texts(&mut alerts.iter().map(ToString::to_string)),
            ),
        );
    }
    let chosen = std::mem::take(&mut filter.sql);
    filter.tenant(query.tenant);
    filter.and("JSONExtractUInt(body, 'epoch') >= ?", Value::Number(query.epoch.0));
    filter.any_of("alert", query.alerts.iter().map(ToString::to_string));
    let sql = format!(
        "SELECT ?fields FROM (
           SELECT * FROM deliveries WHERE {newest}
           ORDER BY notification, channel, revision DESC LIMIT 1 BY notification, channel
         ) WHERE {chosen} AND notification IN (SELECT id FROM notifications WHERE {})
         ORDER BY at {order}, notification {order}, channel {order} LIMIT {} OFFSET {}",
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

/// A quarantined event's place and content.
#[derive(Debug, Row, Deserialize)]
struct QuarantineBody {
    partition: u32,
    body: String,
}

/// Chooses by the small columns first: a body may be large.
pub(in crate::store) async fn quarantine(client: &Client, query: &QuarantineQuery) -> Answer<Vec<QuarantineEntry>> {
    let mut filter = Filter::of(query.tenant);
    if let Some(id) = query.id {
        filter.and("id = ?", Value::Text(id.to_string()));
    }
    let inner = std::mem::replace(&mut filter.sql, "1".to_owned());
    filter.any_of("status", query.statuses.iter().map(|status| status.name().to_owned()));
    filter.any_of("code", query.codes.iter().cloned());
    filter.any_of("account", query.accounts.iter().map(|account| account.as_str().to_owned()));
    filter.between("at", query.from, query.to);
    if let Some(since) = query.since {
        filter.sql.push_str(&format!(" AND at > {}", instant(since)));
    }
    let (order, behind) = query.age.sql();
    if let Some((at, id)) = &query.after {
        filter.and(&format!("(at, id) {behind} ({}, ?)", instant(*at)), Value::Text(id.to_string()));
    }
    let chosen = std::mem::replace(&mut filter.sql, "1".to_owned());
    filter.tenant(query.tenant);
    let sql = format!(
        "WITH page AS (
           SELECT id, revision FROM (
             SELECT id, revision, status, code, account, at FROM quarantine WHERE {inner}
             ORDER BY id, revision DESC LIMIT 1 BY id
           ) WHERE {chosen} ORDER BY at {order}, id {order} LIMIT {} OFFSET {}
         )
         SELECT ?fields FROM quarantine WHERE (id, revision) IN page AND {}
         ORDER BY at {order}, id {order} LIMIT 1 BY id",
        bounded(query.limit),
        bounded(query.offset),
        filter.sql
    );
    let records = filter.bind(client.query(&sql)).fetch_all::<QuarantineBody>().await?;
    let entry = |record: &QuarantineBody| {
        Ok(QuarantineEntry { partition: PartitionId(record.partition), row: json(&record.body)? })
    };
    records.iter().map(entry).collect()
}

/// How the tables write an instance's metric.
fn metric_text(metric: Option<&MetricName>) -> String {
    metric.map_or(String::new(), |metric| metric.as_str().to_owned())
}
