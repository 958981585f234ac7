//! The port: a closed set of adapters behind one handle.

use super::channel_query::{ChannelDeliveryQuery, LastDeliveryQuery, OutcomeQuery};
#[cfg(feature = "clickhouse")]
use super::clickhouse::{self, ClickHouseStore};
use super::query::{
    AccountQuery, AttemptQuery, ChangeQuery, Changes, DeliveryQuery, EventQuery, EventsQuery, GroupQuery,
    IncidentEntry, IncidentQuery, InstanceQuery, MetricQuery, NotificationQuery, OutboxQuery, OwedQuery, Progress,
    QuarantineEntry, QuarantineQuery, RecomputeTerms, Recomputed, ScannedRow, Span, Summary, TransitionQuery,
    UsagePart, UsageQuery, WebhookDeliveryQuery, WindowPoint, WindowQuery,
};
use super::sqlite::SqliteStore;
use super::{sqlite_changes, sqlite_read as read, sqlite_scan};
use crate::domain::id::{AccountId, AlertId, Epoch, MetricName, NotificationId, PartitionId, Position, Tenant};
use crate::domain::partition::aggregate::Aggregate;
use crate::domain::partition::effect::{AccountRow, DeliveryRow, Effects, InstanceRow, TransitionRow, WindowRow};
use crate::domain::partition::notification::Notification;
use crate::domain::time::Timestamp;
use crate::domain::webhook::event::Event;
use crate::domain::webhook::rows::{Attempt, Delivery};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Why the store did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A later release made it.
    #[error("store format {found}, this release reads up to {known}")]
    TooNew {
        /// The format found.
        found: i64,
        /// The newest known one.
        known: i64,
    },
    /// The address is none.
    #[error("not the address of a store: {detail}")]
    Address {
        /// What is wrong with it.
        detail: String,
    },
    /// There is no answer, or none of the store itself; retryable.
    #[error("the store does not answer: {detail}")]
    Unreachable {
        /// What happened instead.
        detail: String,
    },
    /// The store's server refused; whether it does so again depends on the code.
    #[error("the store refused: {detail}")]
    Refused {
        /// The server's own number for it.
        code: u32,
        /// What it said.
        detail: String,
    },
    /// The handle is being dropped.
    #[error("the store is closed")]
    Closed,
    /// The file is not what was written. It can be made anew from the journal.
    #[error("the store {path} is damaged: {detail}; `highwater replay` makes it anew from the journal")]
    Damaged {
        /// Where it is.
        path: String,
        /// Which page, and what is wrong with it.
        detail: String,
    },
    /// The storage failed; retryable once its cause is gone.
    #[error("the store failed: {detail}")]
    Storage {
        /// What it said.
        detail: String,
    },
}

/// A handle on the read models; cheap to clone.
#[derive(Clone, Debug)]
pub enum Store {
    /// In a SQLite file, or in SQLite's memory for tests.
    Sqlite(SqliteStore),
    /// In a ClickHouse database, which several nodes may share.
    #[cfg(feature = "clickhouse")]
    ClickHouse(ClickHouseStore),
}

type Answer<T> = Result<T, StoreError>;

macro_rules! reads {
    ($($(#[$doc:meta])* $name:ident($query:ident: $kind:ty) -> $answer:ty;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// Where the storage fails.
        pub async fn $name(&self, $query: $kind) -> Answer<$answer> {
            match self {
                Self::Sqlite(store) => store.read(move |connection| read::$name(connection, &$query)).await,
                #[cfg(feature = "clickhouse")]
                Self::ClickHouse(store) => {
                    store.read(|client| async move { clickhouse::$name(&client, &$query).await }).await
                }
            }
        }
    )*};
}

impl Store {
    /// Tells whether every write crosses a network, to an engine that would rather have few large ones.
    pub const fn is_remote(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            #[cfg(feature = "clickhouse")]
            Self::ClickHouse(_) => true,
        }
    }

    /// Writes rows, then how far they reach; blocks.
    ///
    /// # Errors
    /// Where the storage fails. Any of the rows may then be stored, and how far they reach is as it was, or as the call
    /// wanted it; to write the same again makes it whole.
    pub fn write_blocking(&self, partition: PartitionId, effects: Arc<Effects>, up_to: Progress) -> Answer<()> {
        match self {
            Self::Sqlite(store) => store.write(partition, &effects, up_to),
            #[cfg(feature = "clickhouse")]
            Self::ClickHouse(store) => store.write(partition, effects, up_to),
        }
    }

    /// Closes a store of this process in order: everything is in its file. Writes are refused from then on; blocks.
    pub fn close(&self) {
        match self {
            Self::Sqlite(store) => store.close(),
            #[cfg(feature = "clickhouse")]
            Self::ClickHouse(_) => {}
        }
    }

    /// How far a partition's rows reach.
    ///
    /// # Errors
    /// Where the storage fails.
    pub async fn progress(&self, partition: PartitionId) -> Answer<Option<Progress>> {
        Ok(self.progress_all().await?.get(&partition).copied())
    }

    /// How far every partition's rows reach.
    ///
    /// # Errors
    /// Where the storage fails.
    pub async fn progress_all(&self) -> Answer<BTreeMap<PartitionId, Progress>> {
        match self {
            Self::Sqlite(store) => store.read(read::progress).await,
            #[cfg(feature = "clickhouse")]
            Self::ClickHouse(store) => store.read(|client| async move { clickhouse::progress(&client).await }).await,
        }
    }

    /// Resolves when a partition's rows reach a position.
    pub async fn wait_for(&self, partition: PartitionId, position: Position) {
        match self {
            Self::Sqlite(store) => store.wait_for(partition, position).await,
            #[cfg(feature = "clickhouse")]
            Self::ClickHouse(store) => store.wait_for(partition, position).await,
        }
    }

    reads! {
        /// Windows of an account, by metric, group and start.
        windows(query: WindowQuery) -> Vec<WindowPoint>;
        /// Alert instances, by account and metric.
        instances(query: InstanceQuery) -> Vec<InstanceRow>;
        /// What happened to an alert's instances.
        transitions(query: TransitionQuery) -> Vec<TransitionRow>;
        /// Accounts that have events, by when they were first seen.
        accounts_by_age(query: AccountQuery) -> Vec<AccountRow>;
        /// Incidents, by when they began.
        incidents(query: IncidentQuery) -> Vec<IncidentEntry>;
        /// Notifications, newest first.
        notifications(query: NotificationQuery) -> Vec<Notification>;
        /// Deliveries, newest first.
        deliveries(query: DeliveryQuery) -> Vec<DeliveryRow>;
        /// Deliveries to a channel, each with its notification.
        channel_deliveries(query: ChannelDeliveryQuery) -> Vec<(DeliveryRow, Notification)>;
        /// The delivery of each channel that changed last, by channel.
        last_deliveries(query: LastDeliveryQuery) -> Vec<DeliveryRow>;
        /// Every delivery of some notifications, by notification and channel.
        outcomes(query: OutcomeQuery) -> Vec<DeliveryRow>;
        /// Deliveries by outcome, each with its notification, newest first.
        outbox(query: OutboxQuery) -> Vec<(DeliveryRow, Notification)>;
        /// Quarantined events.
        quarantine(query: QuarantineQuery) -> Vec<QuarantineEntry>;
        /// An event that some endpoint wanted.
        webhook_event(query: EventQuery) -> Option<Event>;
        /// Those of some events that are stored, in no order.
        webhook_events(query: EventsQuery) -> Vec<Event>;
        /// The attempts of a delivery to an endpoint, newest first.
        webhook_attempts(query: AttemptQuery) -> Vec<Attempt>;
        /// The deliveries to an endpoint, newest first.
        webhook_deliveries(query: WebhookDeliveryQuery) -> Vec<Delivery>;
        /// How many deliveries to an endpoint are pending, by the partition number of the log that owes them.
        webhook_owed(query: OwedQuery) -> BTreeMap<PartitionId, usize>;
        /// Those of some metrics that any account of a tenant has events of.
        metrics_among(query: MetricQuery) -> BTreeSet<MetricName>;
    }

    /// The total of a series over `[from, to)`.
    ///
    /// # Errors
    /// Where the storage fails.
    pub async fn total(&self, query: WindowQuery) -> Answer<Aggregate> {
        let points = self.windows(query).await?;
        let mut total = Aggregate::default();
        for point in points {
            total.merge(&point.aggregate);
        }
        Ok(total)
    }

    /// Hands parts of windows across accounts to `take`, in no order, until it breaks.
    ///
    /// # Errors
    /// Where the storage fails.
    pub async fn usage<T: FnMut(UsagePart) -> ControlFlow<()> + Send + 'static>(
        &self,
        query: UsageQuery,
        mut take: T,
    ) -> Answer<()> {
        match self {
            Self::Sqlite(store) => store.read(move |connection| read::usage(connection, &query, &mut take)).await,
            #[cfg(feature = "clickhouse")]
            Self::ClickHouse(store) => {
                store.read(|client| async move { clickhouse::usage(&client, &query, &mut take).await }).await
            }
        }
    }

    /// The metrics that an account has events of.
    ///
    /// # Errors
    /// Where the storage fails.
    pub async fn metrics_of(&self, tenant: Tenant, epoch: Epoch, account: AccountId) -> Answer<Vec<MetricName>> {
        match self {
            Self::Sqlite(store) => {
                store.read(move |connection| read::metrics_of(connection, tenant, epoch, &account)).await
            }
            #[cfg(feature = "clickhouse")]
            Self::ClickHouse(store) => {
                store
                    .read(move |client| async move { clickhouse::metrics_of(&client, tenant, epoch, &account).await })
                    .await
            }
        }
    }

    /// Hands the distinct groups that an account has windows of to `take`, in no order, until it breaks.
    ///
    /// # Errors
    /// Where the storage fails.
    pub async fn groups<T: FnMut(&str) -> ControlFlow<()> + Send + 'static>(
        &self,
        query: GroupQuery,
        mut take: T,
    ) -> Answer<()> {
        match self {
            Self::Sqlite(store) => store.read(move |connection| read::groups(connection, &query, &mut take)).await,
            #[cfg(feature = "clickhouse")]
            Self::ClickHouse(store) => {
                store.read(|client| async move { clickhouse::groups(&client, &query, &mut take).await }).await
            }
        }
    }

    /// The accounts that have events, by name and epoch, behind `after`.
    ///
    /// # Errors
    /// Where the storage fails.
    pub async fn accounts(
        &self,
        tenant: Tenant,
        after: Option<(AccountId, Epoch)>,
        limit: usize,
    ) -> Answer<Vec<AccountRow>> {
        fn place(after: &Option<(AccountId, Epoch)>) -> Option<(&AccountId, Epoch)> {
            after.as_ref().map(|(account, epoch)| (account, *epoch))
        }
        match self {
            Self::Sqlite(store) => {
                store.read(move |connection| read::accounts(connection, tenant, place(&after), limit)).await
            }
            #[cfg(feature = "clickhouse")]
            Self::ClickHouse(store) => {
                let asked =
                    move |client| async move { clickhouse::accounts(&client, tenant, place(&after), limit).await };
                store.read(asked).await
            }
        }
    }

    /// One account that has events in an epoch.
    ///
    /// # Errors
    /// Where the storage fails.
    pub async fn account(&self, tenant: Tenant, epoch: Epoch, account: AccountId) -> Answer<Option<AccountRow>> {
        match self {
            Self::Sqlite(store) => {
                store.read(move |connection| read::account(connection, tenant, epoch, &account)).await
            }
            #[cfg(feature = "clickhouse")]
            Self::ClickHouse(store) => {
                store
                    .read(move |client| async move { clickhouse::account(&client, tenant, epoch, &account).await })
                    .await
            }
        }
    }

    /// How the instances of some alerts stand together.
    ///
    /// # Errors
    /// Where the storage fails.
    pub async fn summaries(&self, tenant: Tenant, alerts: Vec<AlertId>) -> Answer<BTreeMap<AlertId, Summary>> {
        match self {
            Self::Sqlite(store) => store.read(move |connection| read::summaries(connection, tenant, &alerts)).await,
            #[cfg(feature = "clickhouse")]
            Self::ClickHouse(store) => {
                store.read(move |client| async move { clickhouse::summaries(&client, tenant, &alerts).await }).await
            }
        }
    }

    /// What changed behind a position.
    ///
    /// # Errors
    /// Where the storage fails.
    pub async fn changes(&self, query: ChangeQuery) -> Answer<Changes> {
        let ChangeQuery { tenant, behind, limit } = query;
        let span = Span { tenant, behind, through: Position(i64::MAX.cast_unsigned()), limit };
        let (mut transitions, mut windows) = self.changed(span).await?;
        let cut = |full: bool, last: Option<Position>| last.filter(|_| full);
        let ends = [
            cut(transitions.len() >= limit, transitions.last().map(|row| row.position)),
            cut(windows.len() >= limit, windows.last().map(|row| row.revision)),
        ];
        let Some(last) = ends.into_iter().flatten().min() else {
            return Ok(Changes { transitions, windows, reach: None });
        };
        // The last record may be there in part.
        let mut reach = Position(last.0.saturating_sub(1));
        if reach <= behind {
            reach = last;
            (transitions, windows) = self.changed(Span { through: last, limit: usize::MAX, ..span }).await?;
        }
        transitions.retain(|row| row.position <= reach);
        windows.retain(|row| row.revision <= reach);
        Ok(Changes { transitions, windows, reach: Some(reach) })
    }

    async fn changed(&self, span: Span) -> Answer<(Vec<TransitionRow>, Vec<WindowRow>)> {
        match self {
            Self::Sqlite(store) => store.read(move |connection| sqlite_changes::changed(connection, &span)).await,
            #[cfg(feature = "clickhouse")]
            Self::ClickHouse(store) => {
                store.read(move |client| async move { clickhouse::changed(&client, &span).await }).await
            }
        }
    }

    /// The deliveries of one notification.
    ///
    /// # Errors
    /// Where the storage fails.
    pub async fn deliveries_of(&self, tenant: Tenant, notification: NotificationId) -> Answer<Vec<DeliveryRow>> {
        let query = DeliveryQuery {
            tenant,
            notification: Some(notification),
            channel: None,
            status: None,
            offset: 0,
            limit: crate::domain::limits::CHANNELS_PER_ALERT_MAX,
        };
        self.deliveries(query).await
    }

    /// Tells whether the store wants every event that is counted.
    pub fn archives(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            #[cfg(feature = "clickhouse")]
            Self::ClickHouse(store) => store.archives(),
        }
    }

    /// For each table that forgets its rows: what is older than this may be gone.
    ///
    /// # Errors
    /// Where the storage fails.
    pub async fn expired_before(&self) -> Answer<BTreeMap<String, Timestamp>> {
        match self {
            Self::Sqlite(_) => Ok(BTreeMap::new()),
            #[cfg(feature = "clickhouse")]
            Self::ClickHouse(store) => {
                store.read(|client| async move { clickhouse::expired_before(&client).await }).await
            }
        }
    }

    /// Lets the store make every closed window anew from the events that it archived, and compare; nothing where it cannot
    /// archive.
    ///
    /// # Errors
    /// Where the storage fails.
    pub async fn recompute(&self, terms: RecomputeTerms) -> Answer<Option<Recomputed>> {
        match self {
            Self::Sqlite(_) => Ok(None),
            #[cfg(feature = "clickhouse")]
            Self::ClickHouse(store) => store.recompute(terms).await.map(Some),
        }
    }

    /// Visits every row of every table but `positions`, table by table, in an order of the store's own; blocks.
    ///
    /// # Errors
    /// Where the storage fails.
    pub fn scan(&self, visit: &mut dyn FnMut(ScannedRow) -> ControlFlow<()>) -> Answer<()> {
        match self {
            Self::Sqlite(store) => store.read_blocking(|connection| sqlite_scan::scan(connection, visit)),
            #[cfg(feature = "clickhouse")]
            Self::ClickHouse(store) => store.scan(visit),
        }
    }

    /// The fold's clock up to which every partition's rows reach: the `as_of` of answers.
    ///
    /// # Errors
    /// Where the storage fails.
    pub async fn as_of(&self, partition: PartitionId) -> Answer<Timestamp> {
        Ok(self.progress(partition).await?.map_or(Timestamp(0), |progress| progress.clock))
    }
}
