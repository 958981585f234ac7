//! The ClickHouse adapter: rows by HTTP, each table's first and the partition's position last.
//!
//! Rows are never changed in place: the greater revision wins, and every read chooses it in the query itself, so that
//! an answer never depends on what was merged in the background. Any number of nodes may write and read.

mod address;
mod changes;
mod channels;
mod filter;
mod group;
mod incidents;
mod migrate;
mod purge;
mod read;
mod recompute;
mod record;
mod retention;
mod scan;
mod store;
mod usage;
mod webhooks;
mod write;

pub(super) use changes::changed;
pub(super) use channels::{channel_deliveries, last_deliveries, outcomes};
pub(super) use incidents::incidents;
pub(super) use read::*;
pub(super) use retention::expired_before;
pub use retention::{Keep, Retention};
pub use store::{ClickHouseSettings, ClickHouseStore};
pub(super) use usage::{accounts_by_age, groups, metrics_among, usage};
pub(super) use webhooks::{webhook_attempts, webhook_deliveries, webhook_event, webhook_events, webhook_owed};
