//! The numbered migrations. Several nodes may apply them at once.

use crate::store::StoreError;
use clickhouse::Client;

/// Applied in order; an entry is never changed once it was released.
const MIGRATIONS: [(u32, &str, &str); 6] = [
    (1, "tables", include_str!("../../../schemas/clickhouse/0001_tables.sql")),
    (2, "usage_5m", include_str!("../../../schemas/clickhouse/0002_usage_5m.sql")),
    (3, "webhooks", include_str!("../../../schemas/clickhouse/0003_webhooks.sql")),
    (4, "incidents", include_str!("../../../schemas/clickhouse/0004_incidents.sql")),
    (5, "usage_events", include_str!("../../../schemas/clickhouse/0005_usage_events.sql")),
    (6, "usage_5m_overflow", include_str!("../../../schemas/clickhouse/0006_usage_5m_overflow.sql")),
];

/// Makes the database, and applies what it lacks.
///
/// Two nodes may apply the same migration at once: its statements bear that, and it is noted twice.
///
/// # Errors
/// Where the server refuses, or a later release has been here.
pub(super) async fn migrate(server: &Client, client: &Client, database: &str) -> Result<(), StoreError> {
    let count = "SELECT count() FROM system.databases WHERE name = ?";
    // A user who may not make databases can be given one.
    if server.query(count).bind(database).fetch_one::<u64>().await? == 0 {
        server.query(&format!("CREATE DATABASE IF NOT EXISTS `{database}`")).execute().await?;
    }
    client
        .query(
            "CREATE TABLE IF NOT EXISTS migrations (version UInt32, name String, applied_at DateTime DEFAULT now())
             ENGINE = MergeTree ORDER BY version",
        )
        .execute()
        .await?;
    let applied = client.query("SELECT DISTINCT version FROM migrations ORDER BY version").fetch_all::<u32>().await?;
    let newest = MIGRATIONS.last().map_or(0, |(version, ..)| *version);
    if let Some(found) = applied.last().filter(|found| **found > newest) {
        return Err(StoreError::TooNew { found: i64::from(*found), known: i64::from(newest) });
    }
    for (version, name, statements) in MIGRATIONS.iter().filter(|(version, ..)| !applied.contains(version)) {
        for statement in statements.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()) {
            // A statement is sent as it stands: in the files a question mark is none of ours to fill in.
            client.query_raw(statement).execute().await?;
        }
        client.query("INSERT INTO migrations (version, name) VALUES (?, ?)").bind(version).bind(name).execute().await?;
        tracing::info!(version, name, "applied a migration of the store");
    }
    Ok(())
}
