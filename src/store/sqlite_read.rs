//! Reading rows.

pub(super) use super::sqlite_channels::{channel_deliveries, last_deliveries, outcomes};
pub(super) use super::sqlite_webhooks::{
    webhook_attempts, webhook_deliveries, webhook_event, webhook_events, webhook_owed,
};

use super::points::{Part, Points};
use super::query::{
    DeliveryQuery, InstanceQuery, NotificationQuery, OutboxQuery, Progress, QuarantineEntry, QuarantineQuery, Summary,
    TransitionQuery, WindowPoint, WindowQuery,
};
pub(super) use super::sqlite_incidents::incidents;
pub(super) use super::sqlite_usage::{accounts_by_age, groups, metrics_among, usage};
use super::value::{Amount, Id, json, mode, parsed, workspace};
use crate::domain::id::{
    AccountId, AlertId, ChannelId, Epoch, MetricName, NotificationId, PartitionId, Position, Tenant,
};
use crate::domain::partition::aggregate::Aggregate;
use crate::domain::partition::effect::{
    AccountRow, DeliveryRow, DeliveryStatus, InstanceKey, InstanceRow, State, TransitionRow,
};
use crate::domain::partition::notification::Notification;
use crate::domain::time::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::BTreeMap;

type Answer<T> = rusqlite::Result<T>;

pub(super) fn progress(connection: &Connection) -> Answer<BTreeMap<PartitionId, Progress>> {
    let mut select = connection.prepare_cached("SELECT partition, position, clock FROM positions")?;
    let rows = select.query_map([], |row| {
        let progress = Progress { position: position(row, 1)?, clock: Timestamp(row.get(2)?) };
        Ok((PartitionId(row.get(0)?), progress))
    })?;
    rows.collect()
}

/// Reads the parts of each window in order, merges them, and adds windows up to the width that is asked for.
pub(super) fn windows(connection: &Connection, query: &WindowQuery) -> Answer<Vec<WindowPoint>> {
    let mut select = connection.prepare_cached(
        "SELECT s.metric, s.grp, w.start, w.count, w.sum, w.min, w.max, w.last, w.last_at, w.late_events, w.revision
         FROM series s JOIN usage_windows w ON w.series = s.id
         WHERE s.workspace = ?1 AND s.mode = ?2 AND s.epoch = ?3 AND s.account = ?4 AND (?5 IS NULL OR s.metric = ?5)
           AND (s.grp <> '') = ?6 AND w.start >= ?7 AND w.start < ?8
         ORDER BY s.metric, s.grp, w.start, w.part",
    )?;
    let mut rows = select.query(params![
        workspace(query.tenant),
        mode(query.tenant),
        query.epoch.0.cast_signed(),
        query.account.as_str(),
        query.metric.as_ref().map(|metric| metric.as_str()),
        query.groups,
        query.from.0,
        query.to.0
    ])?;
    let mut points = Points::new(query.width);
    while let Some(row) = rows.next()? {
        let aggregate = Aggregate {
            count: row.get::<_, i64>(3)?.cast_unsigned(),
            sum: row.get::<_, Amount>(4)?.0,
            min: row.get::<_, Amount>(5)?.0,
            max: row.get::<_, Amount>(6)?.0,
            last: row.get::<_, Amount>(7)?.0,
            last_at: Timestamp(row.get(8)?),
        };
        let part = Part {
            start: Timestamp(row.get(2)?),
            aggregate,
            late_events: row.get::<_, i64>(9)?.cast_unsigned(),
            revision: position(row, 10)?,
        };
        let (metric, group) = (row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?);
        points.add((metric, group), part, metric_name)?;
    }
    Ok(points.into_inner())
}

pub(super) fn metrics_of(
    connection: &Connection,
    tenant: Tenant,
    epoch: Epoch,
    account: &AccountId,
) -> Answer<Vec<MetricName>> {
    let mut select = connection.prepare_cached(
        "SELECT DISTINCT metric FROM series WHERE workspace = ?1 AND mode = ?2 AND epoch = ?3 AND account = ?4 ORDER BY metric",
    )?;
    let values = params![workspace(tenant), mode(tenant), epoch.0.cast_signed(), account.as_str()];
    let rows = select.query_map(values, |row| metric_name(row.get_ref(0)?.as_str()?))?;
    rows.collect()
}

pub(super) fn accounts(
    connection: &Connection,
    tenant: Tenant,
    after: Option<(&AccountId, Epoch)>,
    limit: usize,
) -> Answer<Vec<AccountRow>> {
    let mut select = connection.prepare_cached(
        "SELECT account, epoch, first_seen_at, revision FROM accounts
         WHERE workspace = ?1 AND mode = ?2 AND (account, epoch) > (?3, ?4) ORDER BY account, epoch LIMIT ?5",
    )?;
    let (account, epoch) = after.map_or(("", Epoch(0)), |(account, epoch)| (account.as_str(), epoch));
    let values = params![workspace(tenant), mode(tenant), account, epoch.0.cast_signed(), limit as i64];
    let rows = select.query_map(values, |row| account_row(tenant, row))?;
    rows.collect()
}

pub(super) fn account(
    connection: &Connection,
    tenant: Tenant,
    epoch: Epoch,
    account: &AccountId,
) -> Answer<Option<AccountRow>> {
    let mut select = connection.prepare_cached(
        "SELECT account, epoch, first_seen_at, revision FROM accounts
         WHERE workspace = ?1 AND mode = ?2 AND account = ?3 AND epoch = ?4",
    )?;
    let values = params![workspace(tenant), mode(tenant), account.as_str(), epoch.0.cast_signed()];
    select.query_row(values, |row| account_row(tenant, row)).optional()
}

pub(super) fn account_row(tenant: Tenant, row: &Row<'_>) -> Answer<AccountRow> {
    Ok(AccountRow {
        tenant,
        account: account_id(row.get_ref(0)?.as_str()?)?,
        epoch: Epoch(row.get::<_, i64>(1)?.cast_unsigned()),
        first_seen_at: Timestamp(row.get(2)?),
        revision: position(row, 3)?,
    })
}

pub(super) fn instances(connection: &Connection, query: &InstanceQuery) -> Answer<Vec<InstanceRow>> {
    let wanted: Vec<&str> = query.states.iter().map(|state| state.name()).collect();
    let mut select = connection.prepare_cached(
        "SELECT account, metric, epoch, state, since, silenced, value, evaluated_at, revision FROM alert_states
         WHERE workspace = ?1 AND mode = ?2 AND alert = ?3 AND state IS NOT NULL
           AND (?4 = '' OR instr(?4, ',' || state || ',') > 0) AND (?5 = '[]' OR account IN (SELECT value FROM json_each(?5)))
           AND (?8 IS NULL OR (account, metric) > (?8, ?9))
         ORDER BY account, metric LIMIT ?6 OFFSET ?7",
    )?;
    let states = if wanted.is_empty() { String::new() } else { format!(",{},", wanted.join(",")) };
    let values = params![
        workspace(query.tenant),
        mode(query.tenant),
        Id(query.alert.0),
        states,
        json(&query.accounts)?,
        query.limit as i64,
        query.offset as i64,
        query.after.as_ref().map(|(account, _)| account.as_str()),
        query.after.as_ref().map(|(_, metric)| metric.as_ref().map_or("", MetricName::as_str))
    ];
    let rows = select.query_map(values, |row| {
        Ok(InstanceRow {
            key: InstanceKey {
                tenant: query.tenant,
                alert: query.alert,
                account: account_id(row.get_ref(0)?.as_str()?)?,
                metric: optional_metric(row.get_ref(1)?.as_str()?)?,
            },
            epoch: Epoch(row.get::<_, i64>(2)?.cast_unsigned()),
            state: Some(parse_name(row.get_ref(3)?.as_str()?)?),
            since: Timestamp(row.get(4)?),
            silenced: row.get(5)?,
            value: row.get::<_, Option<Amount>>(6)?.map(|amount| amount.0),
            evaluated_at: Timestamp(row.get(7)?),
            revision: position(row, 8)?,
        })
    })?;
    rows.collect()
}

pub(super) fn summaries(
    connection: &Connection,
    tenant: Tenant,
    alerts: &[AlertId],
) -> Answer<BTreeMap<AlertId, Summary>> {
    let mut select = connection.prepare_cached(
        "SELECT state, silenced, value, evaluated_at FROM alert_states
         WHERE workspace = ?1 AND mode = ?2 AND alert = ?3 AND state IS NOT NULL ORDER BY evaluated_at, account, metric",
    )?;
    let mut summaries = BTreeMap::new();
    for alert in alerts {
        let mut summary = Summary::default();
        let mut values: BTreeMap<State, Option<crate::domain::quantity::Quantity>> = BTreeMap::new();
        let mut rows = select.query(params![workspace(tenant), mode(tenant), Id(alert.0)])?;
        while let Some(row) = rows.next()? {
            let state: State = parse_name(row.get_ref(0)?.as_str()?)?;
            *summary.counts.entry(state).or_default() += 1;
            summary.silenced |= row.get::<_, bool>(1)?;
            values.insert(state, row.get::<_, Option<Amount>>(2)?.map(|amount| amount.0));
            summary.last_evaluated_at = Some(Timestamp(row.get(3)?));
        }
        summary.last_value = summary.worst().and_then(|state| values.get(&state).copied().flatten());
        summaries.insert(*alert, summary);
    }
    Ok(summaries)
}

pub(super) fn transitions(connection: &Connection, query: &TransitionQuery) -> Answer<Vec<TransitionRow>> {
    let (order, behind) = query.age.sql();
    let mut select = connection.prepare_cached(&format!(
        "SELECT body FROM alert_transitions
         WHERE workspace = ?1 AND mode = ?2 AND alert = ?3
           AND (?4 = '[]' OR account IN (SELECT value FROM json_each(?4))) AND (?13 IS NULL OR metric = ?13)
           AND at >= ?5 AND at < ?6 AND (NOT ?14 OR json_extract(body, '$.from') <> json_extract(body, '$.to'))
           AND (?9 IS NULL OR (at, account, metric, sequence) {behind} (?9, ?10, ?11, ?12))
         ORDER BY at {order}, account {order}, metric {order}, sequence {order} LIMIT ?7 OFFSET ?8"
    ))?;
    let after = query.after.as_ref();
    let values = params![
        workspace(query.tenant),
        mode(query.tenant),
        Id(query.alert.0),
        json(&query.accounts)?,
        query.from.unwrap_or(Timestamp::MIN).0,
        query.to.unwrap_or(Timestamp::MAX).0,
        query.limit as i64,
        query.offset as i64,
        after.map(|place| place.at.0),
        after.map(|place| place.account.as_str()),
        after.map(|place| place.metric.as_ref().map_or("", MetricName::as_str)),
        after.map(|place| place.sequence.cast_signed()),
        query.metric.as_ref().map(|metric| metric.as_ref().map_or("", MetricName::as_str)),
        query.changes_only
    ];
    let rows = select.query_map(values, |row| parsed(row.get_ref(0)?.as_str()?))?;
    rows.collect()
}

pub(super) fn notifications(connection: &Connection, query: &NotificationQuery) -> Answer<Vec<Notification>> {
    let mut select = connection.prepare_cached(
        "SELECT body FROM notifications WHERE workspace = ?1 AND mode = ?2 AND (?3 IS NULL OR alert = ?3)
         ORDER BY at DESC, id DESC LIMIT ?4 OFFSET ?5",
    )?;
    let values = params![
        workspace(query.tenant),
        mode(query.tenant),
        query.alert.map(|alert| Id(alert.0)),
        query.limit as i64,
        query.offset as i64
    ];
    let rows = select.query_map(values, |row| parsed(row.get_ref(0)?.as_str()?))?;
    rows.collect()
}

pub(super) fn deliveries(connection: &Connection, query: &DeliveryQuery) -> Answer<Vec<DeliveryRow>> {
    let mut select = connection.prepare_cached(
        "SELECT notification, channel, status, attempts, outcome, next_at, at, revision FROM deliveries
         WHERE workspace = ?1 AND mode = ?2 AND (?3 IS NULL OR notification = ?3) AND (?4 IS NULL OR channel = ?4)
           AND (?5 IS NULL OR status = ?5)
         ORDER BY at DESC, notification DESC, channel DESC LIMIT ?6 OFFSET ?7",
    )?;
    let values = params![
        workspace(query.tenant),
        mode(query.tenant),
        query.notification.map(|id| Id(id.0)),
        query.channel.map(|id| Id(id.0)),
        query.status.map(DeliveryStatus::name),
        query.limit as i64,
        query.offset as i64
    ];
    let rows = select.query_map(values, |row| delivery(query.tenant, row))?;
    rows.collect()
}

/// Reads a delivery off the first eight columns.
pub(super) fn delivery(tenant: Tenant, row: &Row<'_>) -> Answer<DeliveryRow> {
    Ok(DeliveryRow {
        tenant,
        notification: NotificationId(row.get::<_, Id>(0)?.0),
        channel: ChannelId(row.get::<_, Id>(1)?.0),
        status: parse_name(row.get_ref(2)?.as_str()?)?,
        attempts: row.get(3)?,
        outcome: row.get(4)?,
        next_at: row.get::<_, Option<i64>>(5)?.map(Timestamp),
        at: Timestamp(row.get(6)?),
        revision: position(row, 7)?,
    })
}

pub(super) fn outbox(connection: &Connection, query: &OutboxQuery) -> Answer<Vec<(DeliveryRow, Notification)>> {
    let (order, behind) = query.age.sql();
    let mut select = connection.prepare_cached(&format!(
        "SELECT d.notification, d.channel, d.status, d.attempts, d.outcome, d.next_at, d.at, d.revision, n.body
         FROM deliveries d JOIN notifications n
           ON n.workspace = d.workspace AND n.mode = d.mode AND n.id = d.notification
         WHERE d.workspace = ?1 AND d.mode = ?2 AND d.outcome IN (?3, ?14)
           AND json_extract(n.body, '$.epoch') >= ?4
           AND (?5 = '[]' OR hex(d.channel) IN (SELECT value FROM json_each(?5)))
           AND (?6 = '[]' OR hex(n.alert) IN (SELECT value FROM json_each(?6)))
           AND (?7 IS NULL OR d.at >= ?7) AND (?8 IS NULL OR d.at < ?8)
           AND (?15 IS NULL OR hex(n.alert) IN (SELECT value FROM json_each(?15))
             OR hex(d.channel) IN (SELECT value FROM json_each(?16)))
           AND (?9 IS NULL OR (d.at, d.notification, d.channel) {behind} (?9, ?10, ?11))
         ORDER BY d.at {order}, d.notification {order}, d.channel {order} LIMIT ?12 OFFSET ?13"
    ))?;
    let listed = |ids: &mut dyn Iterator<Item = u128>| json(&ids.map(|id| format!("{id:032X}")).collect::<Vec<_>>());
    let of_alerts = |alerts: &[AlertId]| listed(&mut alerts.iter().map(|id| id.0));
    let of_channels = |channels: &[ChannelId]| listed(&mut channels.iter().map(|id| id.0));
    let (alerts, channels) = match &query.among {
        Some((alerts, channels)) => (Some(of_alerts(alerts)?), Some(of_channels(channels)?)),
        None => (None, None),
    };
    let values = params![
        workspace(query.tenant),
        mode(query.tenant),
        query.outcomes[0],
        query.epoch.0.cast_signed(),
        of_channels(&query.channels)?,
        of_alerts(&query.alerts)?,
        query.from.map(|at| at.0),
        query.to.map(|at| at.0),
        query.after.map(|(at, _, _)| at.0),
        query.after.map(|(_, id, _)| Id(id.0)),
        query.after.map(|(_, _, id)| Id(id.0)),
        query.limit as i64,
        query.offset as i64,
        query.outcomes[1],
        alerts,
        channels
    ];
    let rows =
        select.query_map(values, |row| Ok((delivery(query.tenant, row)?, parsed(row.get_ref(8)?.as_str()?)?)))?;
    rows.collect()
}

pub(super) fn quarantine(connection: &Connection, query: &QuarantineQuery) -> Answer<Vec<QuarantineEntry>> {
    let (order, behind) = query.age.sql();
    let mut select = connection.prepare_cached(&format!(
        "SELECT partition, body FROM quarantine
         WHERE workspace = ?1 AND mode = ?2 AND (?3 IS NULL OR id = ?3)
           AND (?4 = '[]' OR status IN (SELECT value FROM json_each(?4)))
           AND (?5 = '[]' OR code IN (SELECT value FROM json_each(?5)))
           AND (?6 = '[]' OR account IN (SELECT value FROM json_each(?6)))
           AND at >= ?11 AND at < ?12 AND (?9 IS NULL OR (at, id) {behind} (?9, ?10)) AND (?13 IS NULL OR at > ?13)
         ORDER BY at {order}, id {order} LIMIT ?7 OFFSET ?8"
    ))?;
    let values = params![
        workspace(query.tenant),
        mode(query.tenant),
        query.id.map(|id| Id(id.0)),
        json(&query.statuses)?,
        json(&query.codes)?,
        json(&query.accounts)?,
        query.limit as i64,
        query.offset as i64,
        query.after.map(|(at, _)| at.0),
        query.after.map(|(_, id)| Id(id.0)),
        query.from.unwrap_or(Timestamp::MIN).0,
        query.to.unwrap_or(Timestamp::MAX).0,
        query.since.map(|since| since.0)
    ];
    let rows = select.query_map(values, |row| {
        Ok(QuarantineEntry { partition: PartitionId(row.get(0)?), row: parsed(row.get_ref(1)?.as_str()?)? })
    })?;
    rows.collect()
}

fn position(row: &Row<'_>, at: usize) -> Answer<Position> {
    Ok(Position(row.get::<_, i64>(at)?.cast_unsigned()))
}

pub(super) fn account_id(text: &str) -> Answer<AccountId> {
    AccountId::new(text).map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))
}

pub(super) fn metric_name(text: &str) -> Answer<MetricName> {
    MetricName::new(text).map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))
}

fn optional_metric(text: &str) -> Answer<Option<MetricName>> {
    if text.is_empty() { Ok(None) } else { metric_name(text).map(Some) }
}

/// Reads an enum's name, as its JSON form has it.
fn parse_name<T: serde::de::DeserializeOwned>(text: &str) -> Answer<T> {
    parsed(&format!("\"{text}\""))
}
