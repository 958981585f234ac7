//! The store: read models of what the partitions' folds derive. Everything in it can be made anew from the journal.
//!
//! **Contract.** `write` is idempotent: rows first, then the partition's position, which `progress` reads; writing the
//! same effects again, or older ones after newer ones, changes nothing, because the row with the greater revision wins.
//! Reads see at least everything up to the position that is stored. No read changes anything.

mod channel_query;
#[cfg(feature = "clickhouse")]
mod clickhouse;
mod points;
mod port;
mod query;
mod sqlite;
mod sqlite_changes;
mod sqlite_channels;
mod sqlite_incidents;
mod sqlite_purge;
mod sqlite_read;
mod sqlite_scan;
mod sqlite_usage;
mod sqlite_webhooks;
mod sqlite_write;
mod usage_query;
mod value;

#[cfg(test)]
mod contract;

pub use channel_query::{ChannelDeliveryQuery, LastDeliveryQuery, OutcomeQuery};
#[cfg(feature = "clickhouse")]
pub use clickhouse::{ClickHouseSettings, ClickHouseStore, Keep, Retention};
pub use port::{Store, StoreError};
pub use query::{
    AccountQuery, Age, AttemptQuery, ChangeQuery, Changes, DeliveryQuery, EventQuery, EventsQuery, GroupQuery,
    IncidentEntry, IncidentQuery, InstanceQuery, MetricQuery, NotificationQuery, OutboxQuery, OwedQuery, Progress,
    QuarantineEntry, QuarantineQuery, RecomputeTerms, Recomputed, ScannedRow, Summary, TransitionPlace,
    TransitionQuery, UsagePart, UsageQuery, WebhookDeliveryQuery, WindowPoint, WindowQuery,
};
pub use sqlite::SqliteStore;
