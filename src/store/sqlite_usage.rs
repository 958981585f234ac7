//! Usage across accounts, what metrics and groups there are, and accounts by age.

use super::query::{AccountQuery, GroupQuery, MetricQuery, UsagePart, UsageQuery};
use super::sqlite_read::{account_id, account_row, metric_name};
use super::value::{Amount, json, mode, workspace};
use crate::domain::id::{Epoch, MetricName, Position};
use crate::domain::partition::aggregate::Aggregate;
use crate::domain::partition::effect::AccountRow;
use crate::domain::time::Timestamp;
use rusqlite::{Connection, params};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

pub(super) fn usage(
    connection: &Connection,
    query: &UsageQuery,
    take: &mut dyn FnMut(UsagePart) -> ControlFlow<()>,
) -> rusqlite::Result<()> {
    // Written out, so that the index of the series leads to the accounts of an epoch.
    let epoch = if query.epoch.is_some() { "s.epoch = ?8" } else { "?8 IS NULL" };
    let accounts =
        if query.accounts.is_empty() { "?3 = '[]'" } else { "s.account IN (SELECT value FROM json_each(?3))" };
    let mut select = connection.prepare_cached(&format!(
        "SELECT s.account, s.epoch, s.metric, s.grp, w.start, w.count, w.sum, w.min, w.max, w.last, w.last_at,
           w.late_events, w.revision, w.part
         FROM series s JOIN usage_windows w ON w.series = s.id
         WHERE s.workspace = ?1 AND s.mode = ?2 AND {epoch} AND {accounts}
           AND (?4 = '[]' OR s.metric IN (SELECT value FROM json_each(?4))) AND (s.grp <> '') = ?5
           AND w.start >= ?6 AND w.start < ?7"
    ))?;
    let mut rows = select.query(params![
        workspace(query.tenant),
        mode(query.tenant),
        json(&query.accounts)?,
        json(&query.metrics)?,
        query.groups,
        query.from.0,
        query.to.0,
        query.epoch.map(|epoch| epoch.0.cast_signed())
    ])?;
    while let Some(row) = rows.next()? {
        let part = UsagePart {
            account: account_id(row.get_ref(0)?.as_str()?)?,
            epoch: Epoch(row.get::<_, i64>(1)?.cast_unsigned()),
            metric: metric_name(row.get_ref(2)?.as_str()?)?,
            group: row.get(3)?,
            start: Timestamp(row.get(4)?),
            part: Position(row.get::<_, i64>(13)?.cast_unsigned()),
            aggregate: Aggregate {
                count: row.get::<_, i64>(5)?.cast_unsigned(),
                sum: row.get::<_, Amount>(6)?.0,
                min: row.get::<_, Amount>(7)?.0,
                max: row.get::<_, Amount>(8)?.0,
                last: row.get::<_, Amount>(9)?.0,
                last_at: Timestamp(row.get(10)?),
            },
            late_events: row.get::<_, i64>(11)?.cast_unsigned(),
            revision: Position(row.get::<_, i64>(12)?.cast_unsigned()),
        };
        if take(part).is_break() {
            break;
        }
    }
    Ok(())
}

/// Tells which of some metrics any account of a tenant has events of.
pub(super) fn metrics_among(connection: &Connection, query: &MetricQuery) -> rusqlite::Result<BTreeSet<MetricName>> {
    // What is found of each name ends the search for all of them.
    let mut select = connection.prepare_cached(
        "SELECT DISTINCT metric FROM series
         WHERE workspace = ?1 AND mode = ?2 AND epoch >= ?3 AND metric IN (SELECT value FROM json_each(?4)) LIMIT ?5",
    )?;
    let values = params![
        workspace(query.tenant),
        mode(query.tenant),
        query.since.0.cast_signed(),
        json(&query.metrics)?,
        query.metrics.len() as i64
    ];
    let rows = select.query_map(values, |row| metric_name(row.get_ref(0)?.as_str()?))?;
    rows.collect()
}

pub(super) fn groups(
    connection: &Connection,
    query: &GroupQuery,
    take: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> rusqlite::Result<()> {
    let mut select = connection.prepare_cached(
        "SELECT grp FROM series
         WHERE workspace = ?1 AND mode = ?2 AND epoch = ?3 AND account = ?4 AND metric = ?5 AND grp <> ''",
    )?;
    let mut rows = select.query(params![
        workspace(query.tenant),
        mode(query.tenant),
        query.epoch.0.cast_signed(),
        query.account.as_str(),
        query.metric.as_str()
    ])?;
    while let Some(row) = rows.next()? {
        if take(row.get_ref(0)?.as_str()?).is_break() {
            break;
        }
    }
    Ok(())
}

pub(super) fn accounts_by_age(connection: &Connection, query: &AccountQuery) -> rusqlite::Result<Vec<AccountRow>> {
    let (order, behind) = query.age.sql();
    let mut select = connection.prepare_cached(&format!(
        "SELECT account, epoch, first_seen_at, revision FROM accounts
         WHERE workspace = ?1 AND mode = ?2 AND first_seen_at >= ?3 AND first_seen_at < ?4
           AND (?5 IS NULL OR (first_seen_at, account, epoch) {behind} (?5, ?6, ?8))
         ORDER BY first_seen_at {order}, account {order}, epoch {order} LIMIT ?7"
    ))?;
    let values = params![
        workspace(query.tenant),
        mode(query.tenant),
        query.from.unwrap_or(Timestamp::MIN).0,
        query.to.unwrap_or(Timestamp::MAX).0,
        query.after.as_ref().map(|(at, ..)| at.0),
        query.after.as_ref().map(|(_, account, _)| account.as_str()),
        query.limit as i64,
        query.after.as_ref().map(|(.., epoch)| epoch.0.cast_signed())
    ];
    let rows = select.query_map(values, |row| account_row(query.tenant, row))?;
    rows.collect()
}
