//! Removing what accounts had in epochs that are over.

use super::filter::{Filter, Value};
use crate::domain::id::PartitionId;
use crate::domain::partition::effect::Purge;
use crate::store::StoreError;
use clickhouse::Client;

/// Each table with its columns of an account and of an epoch.
const TABLES: [(&str, &str, &str); 6] = [
    ("usage_windows", "account", "epoch"),
    ("usage_events", "account", "epoch"),
    ("accounts", "account", "epoch"),
    ("alert_states", "account", "epoch"),
    ("alert_transitions", "account", "JSONExtractUInt(body, 'epoch')"),
    ("notifications", "JSONExtractString(body, 'key', 'account')", "JSONExtractUInt(body, 'epoch')"),
];

pub(super) async fn purge(client: &Client, partition: PartitionId, purge: &Purge) -> Result<(), StoreError> {
    for (table, account, epoch) in TABLES {
        let mut filter = Filter::of(purge.tenant);
        filter.and(&format!("{account} = ?"), Value::Text(purge.account.as_str().to_owned()));
        filter.and(&format!("{epoch} >= ?"), Value::Number(purge.from.0));
        filter.and(&format!("{epoch} <= ?"), Value::Number(purge.through.0));
        let sql = format!("DELETE FROM {table} WHERE {}", filter.sql);
        filter.bind(client.query(&sql)).execute().await?;
    }
    // Entries of before engine version 3 have no epoch: where an account is deleted they are of one that is over.
    let absent = if purge.from == purge.through { "1" } else { "0" };
    let mut filter = Filter::of(purge.tenant);
    filter.and("account = ?", Value::Text(purge.account.as_str().to_owned()));
    filter.and("partition = ?", Value::Number(partition.0.into()));
    filter.and("revision <= ?", Value::Number(purge.position.0));
    filter.and(
        &format!("if(JSONHas(body, 'epoch'), JSONExtractUInt(body, 'epoch') >= ?, {absent})"),
        Value::Number(purge.from.0),
    );
    filter.and(
        &format!("if(JSONHas(body, 'epoch'), JSONExtractUInt(body, 'epoch') <= ?, {absent})"),
        Value::Number(purge.through.0),
    );
    let sql = format!("DELETE FROM quarantine WHERE {}", filter.sql);
    filter.bind(client.query(&sql)).execute().await?;
    Ok(())
}
