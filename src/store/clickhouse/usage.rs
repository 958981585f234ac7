//! Usage across accounts, what metrics and groups there are, and accounts by age.

use super::filter::{Filter, Value, bounded, instant, unreadable};
use super::record::{AccountRecord, WindowRecord};
use crate::domain::id::MetricName;
use crate::domain::partition::effect::AccountRow;
use crate::store::{AccountQuery, GroupQuery, MetricQuery, StoreError, UsagePart, UsageQuery};
use clickhouse::Client;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

pub(in crate::store) async fn usage(
    client: &Client,
    query: &UsageQuery,
    take: &mut (dyn FnMut(UsagePart) -> ControlFlow<()> + Send),
) -> Result<(), StoreError> {
    let mut filter = Filter::of(query.tenant);
    if let Some(epoch) = query.epoch {
        filter.and("epoch = ?", Value::Number(epoch.0));
    }
    filter.any_of("account", query.accounts.iter().map(|account| account.as_str().to_owned()));
    filter.any_of("metric", query.metrics.iter().map(|metric| metric.as_str().to_owned()));
    filter.and(if query.groups { "grp != ?" } else { "grp = ?" }, Value::Text(String::new()));
    filter.between("start", Some(query.from), Some(query.to));
    let key = "epoch, account, metric, grp, start, part";
    let sql = format!(
        "SELECT ?fields FROM usage_windows WHERE {} ORDER BY {key}, revision DESC LIMIT 1 BY {key}",
        filter.sql
    );
    let mut rows = filter.bind(client.query(&sql)).fetch::<WindowRecord>()?;
    while let Some(row) = rows.next().await? {
        if !(query.from..query.to).contains(&row.start) {
            continue;
        }
        let aggregate = row.aggregate();
        let WindowRecord { account, epoch, metric, grp, start, part, late_events, revision, .. } = row;
        let part = UsagePart { account, epoch, metric, group: grp, start, part, aggregate, late_events, revision };
        if take(part).is_break() {
            break;
        }
    }
    Ok(())
}

/// Tells which of some metrics any account of a tenant has events of.
pub(in crate::store) async fn metrics_among(
    client: &Client,
    query: &MetricQuery,
) -> Result<BTreeSet<MetricName>, StoreError> {
    let mut filter = Filter::of(query.tenant);
    filter.and("epoch >= ?", Value::Number(query.since.0));
    filter.any_of("metric", query.metrics.iter().map(|metric| metric.as_str().to_owned()));
    let (condition, count) = (&filter.sql, bounded(query.metrics.len()));
    let sql = format!("SELECT DISTINCT metric FROM usage_windows WHERE {condition} LIMIT {count}");
    let names = filter.bind(client.query(&sql)).fetch_all::<String>().await?;
    names.iter().map(|name| MetricName::new(name).map_err(unreadable)).collect()
}

pub(in crate::store) async fn groups(
    client: &Client,
    query: &GroupQuery,
    take: &mut (dyn FnMut(&str) -> ControlFlow<()> + Send),
) -> Result<(), StoreError> {
    let mut filter = Filter::of(query.tenant);
    filter.and("epoch = ?", Value::Number(query.epoch.0));
    filter.and("account = ?", Value::Text(query.account.as_str().to_owned()));
    filter.and("metric = ?", Value::Text(query.metric.as_str().to_owned()));
    filter.and("grp != ?", Value::Text(String::new()));
    let sql = format!("SELECT DISTINCT grp FROM usage_windows WHERE {}", filter.sql);
    let mut rows = filter.bind(client.query(&sql)).fetch::<String>()?;
    while let Some(group) = rows.next().await? {
        if take(&group).is_break() {
            break;
        }
    }
    Ok(())
}

pub(in crate::store) async fn accounts_by_age(
    client: &Client,
    query: &AccountQuery,
) -> Result<Vec<AccountRow>, StoreError> {
    let mut filter = Filter::of(query.tenant);
    let inner = std::mem::replace(&mut filter.sql, "1".to_owned());
    filter.between("first_seen_at", query.from, query.to);
    let (order, behind) = query.age.sql();
    if let Some((at, account, epoch)) = &query.after {
        let condition = format!("(first_seen_at, account, epoch) {behind} ({}, ?", instant(*at));
        filter.and(&condition, Value::Text(account.as_str().to_owned()));
        filter.tuple_end(Value::Number(epoch.0));
    }
    let sql = format!(
        "SELECT ?fields FROM (
           SELECT * FROM accounts WHERE {inner} ORDER BY account, epoch, revision DESC LIMIT 1 BY account, epoch
         ) WHERE {} ORDER BY first_seen_at {order}, account {order}, epoch {order} LIMIT {}",
        filter.sql,
        bounded(query.limit)
    );
    let records = filter.bind(client.query(&sql)).fetch_all::<AccountRecord>().await?;
    Ok(records.into_iter().map(AccountRow::from).collect())
}
