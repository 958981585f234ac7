//! For how long rows are kept: ClickHouse's own TTL, set on the tables and read from them.

use crate::domain::time::{Millis, Timestamp};
use crate::store::StoreError;
use clickhouse::{Client, Row};
use serde::Deserialize;
use std::collections::BTreeMap;

/// How long a table keeps its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// As long as before.
    #[default]
    AsBefore,
    /// For ever.
    Forever,
    /// For this many days, by the rows' own time.
    Days(u32),
}

/// How long each kind of row is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Windows, by their start.
    pub windows: Keep,
    /// Archived events, by their own time.
    pub events: Keep,
    /// Transitions of alert instances.
    pub transitions: Keep,
    /// Notifications.
    pub notifications: Keep,
    /// Deliveries, by their last attempt, and what became of platform events at webhook endpoints.
    pub deliveries: Keep,
    /// Quarantined events.
    pub quarantine: Keep,
}

impl Retention {
    /// Reads `windows=400d,deliveries=30d,quarantine=forever`; what is not named stays as it is.
    ///
    /// # Errors
    /// Where a kind or a span is none, with what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut retention = Self::default();
        for part in text.split(',').map(str::trim) {
            let (kind, span) =
                part.split_once('=').ok_or_else(|| format!("{part:?} is not of the form windows=400d"))?;
            let keep = keep(span)?;
            match kind {
                "windows" => retention.windows = keep,
                "events" => retention.events = keep,
                "transitions" => retention.transitions = keep,
                "notifications" => retention.notifications = keep,
                "deliveries" => retention.deliveries = keep,
                "quarantine" => retention.quarantine = keep,
                other => {
                    return Err(format!(
                        "{other:?} is kept nowhere; expected windows, events, transitions, notifications, deliveries or \
                         quarantine"
                    ));
                }
            }
        }
        Ok(retention)
    }

    fn tables(self) -> [(&'static str, &'static str, Keep); 9] {
        [
            ("usage_windows", "start", self.windows),
            ("usage_events", "timestamp", self.events),
            ("alert_transitions", "at", self.transitions),
            ("notifications", "at", self.notifications),
            ("deliveries", "at", self.deliveries),
            ("webhook_events", "at", self.deliveries),
            ("webhook_deliveries", "at", self.deliveries),
            ("webhook_attempts", "at", self.deliveries),
            ("quarantine", "at", self.quarantine),
        ]
    }
}

fn keep(span: &str) -> Result<Keep, String> {
    if span == "forever" {
        return Ok(Keep::Forever);
    }
    let day = Millis::hours(24).0;
    let days = Millis::parse(span).filter(|span| span.0 % day == 0).and_then(|span| u32::try_from(span.0 / day).ok());
    match days {
        Some(days @ 1..) => Ok(Keep::Days(days)),
        Some(0) | None => Err(format!("{span:?} is no span of whole days such as 90d, and not forever")),
    }
}

/// Sets for how long each table keeps its rows, where it is not so already.
///
/// # Errors
/// Where the server refuses.
pub(super) async fn retain(client: &Client, retention: Retention) -> Result<(), StoreError> {
    for (table, column, keep) in retention.tables() {
        if keep == Keep::AsBefore {
            continue;
        }
        let engine: String = client
            .query("SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = ?")
            .bind(table)
            .fetch_one()
            .await?;
        match keep {
            Keep::Days(days) if !engine.contains(&format!("toIntervalDay({days})")) => {
                let sql = format!("ALTER TABLE {table} MODIFY TTL toDateTime({column}) + toIntervalDay({days})");
                client.query(&sql).execute().await?;
                tracing::info!(table, days, "rows of the store are kept for another time from now on");
            }
            Keep::Forever if engine.contains(" TTL ") => {
                client.query(&format!("ALTER TABLE {table} REMOVE TTL")).execute().await?;
                tracing::info!(table, "rows of the store are kept for ever from now on");
            }
            Keep::Days(_) | Keep::Forever | Keep::AsBefore => {}
        }
    }
    Ok(())
}

#[derive(Row, Deserialize)]
struct Expiry {
    table: String,
    before: i64,
}

/// Tells by the server's clock which rows it may have forgotten: those that are older.
pub(in crate::store) async fn expired_before(client: &Client) -> Result<BTreeMap<String, Timestamp>, StoreError> {
    let sql = "SELECT name AS table, toInt64(toUnixTimestamp(now()) - days * 86400 + 1) * 1000 AS before
               FROM (SELECT name, toInt64OrZero(extract(engine_full, 'toIntervalDay\\\\((\\\\d+)\\\\)')) AS days
                     FROM system.tables WHERE database = currentDatabase())
               WHERE days > 0";
    let rows = client.query_raw(sql).fetch_all::<Expiry>().await?;
    Ok(rows.into_iter().map(|row| (row.table, Timestamp(row.before))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_whole_days() {
        let wanted = Retention { windows: Keep::Days(400), quarantine: Keep::Forever, ..Retention::default() };
        assert_eq!(Retention::parse("windows=400d, quarantine=forever"), Ok(wanted));
        assert_eq!(Retention::parse("windows=48h").unwrap().windows, Keep::Days(2));
        for (text, says) in [
            ("", "windows=400d"),
            ("windows", "windows=400d"),
            ("windows=1h", "whole days"),
            ("windows=0d", "whole days"),
            ("window=4d", "expected windows"),
        ] {
            let error = Retention::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
