//! Writing rows: a table's in blocks of bounded size, then how far they reach.

use super::record::{
    AccountRecord, CountedRecord, DeliveryRecord, InstanceRecord, NotificationRecord, QuarantineRecord,
    TransitionRecord, WindowRecord, WrittenPosition,
};
use super::store::ClickHouseSettings;
use super::webhooks::{AttemptRecord, EventRecord, WebhookDeliveryRecord};
use crate::domain::id::{PartitionId, Position};
use crate::domain::incident;
use crate::domain::partition::archive::EventRow;
use crate::domain::partition::effect::{Effects, QuarantineRow, TransitionRow};
use crate::domain::partition::notification::Notification;
use crate::domain::webhook::rows::Attempt;
use crate::store::{Progress, StoreError};
use clickhouse::insert::Insert;
use clickhouse::{Client, RowOwned, RowWrite};
use std::hash::Hash;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// How long a block that got no answer waits before it is tried once more.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// What one partition has to store.
pub(super) struct Portion {
    pub(super) partition: PartitionId,
    pub(super) up_to: Progress,
    pub(super) effects: Arc<Effects>,
}

/// Writes everything, the positions last.
pub(super) async fn write(
    client: &Client,
    settings: &ClickHouseSettings,
    portions: &[Portion],
) -> Result<(), StoreError> {
    let blocks = Blocks { client, settings };
    let all = || portions.iter().map(|portion| portion.effects.as_ref());
    let windows = all().flat_map(|effects| &effects.windows);
    let windows = newest(windows, |row| (&row.series, row.start, row.part), |row| row.revision);
    blocks.insert("usage_windows", windows, |_| 200, |row| Ok(WindowRecord::from(row))).await?;
    let accounts = all().flat_map(|effects| &effects.accounts);
    let accounts = newest(accounts, |row| (row.tenant, &row.account, row.epoch), |row| row.revision);
    blocks.insert("accounts", accounts, |_| 100, |row| Ok(AccountRecord::from(row))).await?;
    let instances = newest(all().flat_map(|effects| &effects.instances), |row| &row.key, |row| row.revision);
    blocks.insert("alert_states", instances, |_| 200, |row| Ok(InstanceRecord::from(row))).await?;
    let transitions = all().flat_map(|effects| &effects.transitions);
    let transitions = newest(transitions, |row| (&row.key, row.sequence), |row| row.position);
    blocks.insert("alert_transitions", transitions, |row| row.body.len(), transition).await?;
    let notifications = all().flat_map(|effects| &effects.notifications);
    let notifications = newest(notifications, |row| (row.key.tenant, row.id), |row| row.position);
    blocks.insert("notifications", notifications, |row| row.body.len(), notification).await?;
    let deliveries = all().flat_map(|effects| &effects.deliveries);
    let deliveries = newest(deliveries, |row| (row.tenant, row.notification, row.channel), |row| row.revision);
    blocks.insert("deliveries", deliveries, |_| 200, |row| Ok(DeliveryRecord::from(row))).await?;
    let set_aside = of_partition(portions, |effects| &effects.quarantine);
    let set_aside = newest(set_aside, |(_, row)| (row.tenant, row.id), |(_, row)| row.revision);
    blocks.insert("quarantine", set_aside, |row| row.body.len(), quarantined).await?;
    write_webhooks(&blocks, portions).await?;
    let archived = of_partition(portions, |effects| effects.events.as_deref().unwrap_or_default()).collect();
    let event = |(partition, row): (PartitionId, &EventRow)| Ok(CountedRecord::of(partition, row));
    blocks.insert("usage_events", archived, |row: &CountedRecord| 200 + row.dimensions.len(), event).await?;
    for portion in portions {
        for purge in &portion.effects.purges {
            super::purge::purge(client, portion.partition, purge).await?;
        }
    }
    let mut positions = Vec::with_capacity(portions.len());
    for Portion { partition, up_to, effects } in portions {
        let archived_from = match effects.events {
            Some(_) => {
                let asked = tokio::time::timeout(settings.query_timeout, archived_from(client, *partition)).await;
                Some(asked.map_err(|_| late("positions"))??)
            }
            None => None,
        };
        let (partition, position, clock) = (partition.0, up_to.position, up_to.clock);
        positions.push(WrittenPosition { partition, position, clock, archived_from });
    }
    blocks.insert("positions", positions, |_| 16, Ok).await
}

async fn write_webhooks(blocks: &Blocks<'_>, portions: &[Portion]) -> Result<(), StoreError> {
    let all = || portions.iter().map(|portion| &portion.effects.webhooks);
    let events = newest(all().flat_map(|rows| &rows.events), |row| (row.tenant, row.id), |row| row.position);
    blocks.insert("webhook_events", events, |row| row.body.len(), EventRecord::of).await?;
    let owed = newest(all().flat_map(|rows| &rows.deliveries), |row| (row.tenant, row.id), |row| row.revision);
    blocks.insert("webhook_deliveries", owed, |_| 250, |row| Ok(WebhookDeliveryRecord::from(row))).await?;
    let key = |row: &Attempt| (row.tenant, row.posted.id, row.posted.attempt);
    let attempts = newest(all().flat_map(|rows| &rows.attempts), key, |row| row.revision);
    blocks.insert("webhook_attempts", attempts, |row| row.body.len(), AttemptRecord::of).await
}

/// Rows of every portion, each with its partition.
fn of_partition<'a, R: 'a>(
    portions: &'a [Portion],
    rows: impl Fn(&Effects) -> &[R] + Copy,
) -> impl Iterator<Item = (PartitionId, &'a R)> {
    portions.iter().flat_map(move |portion| rows(&portion.effects).iter().map(|row| (portion.partition, row)))
}

/// Behind which record everything of a partition is archived once this write is done: what the last writer said, or, where
/// it did not archive, what it had reached, since every fold begins at or before that. Asked each time, as the last writer
/// may have been another node.
async fn archived_from(client: &Client, partition: PartitionId) -> Result<Position, StoreError> {
    let sql = "SELECT partition, position, clock, archived_from FROM positions WHERE partition = ?
               ORDER BY position DESC, written_at DESC LIMIT 1";
    let last = client.query(sql).bind(partition.0).fetch_optional::<WrittenPosition>().await?;
    Ok(last.map_or(Position::START, |last| last.archived_from.unwrap_or(last.position)))
}

/// Keeps the newest row of each key; of equals the last. In one write a key would else have two rows of one revision.
fn newest<R: Copy, K: Eq + Hash>(
    rows: impl Iterator<Item = R>,
    key: impl Fn(R) -> K,
    revision: impl Fn(R) -> Position,
) -> Vec<R> {
    let mut kept: Vec<R> = Vec::new();
    let mut places = hashbrown::HashMap::new();
    for row in rows {
        let place = *places.entry(key(row)).or_insert(kept.len());
        match kept.get_mut(place) {
            Some(held) if revision(row) >= revision(*held) => *held = row,
            Some(_) => {}
            None => kept.push(row),
        }
    }
    kept
}

fn transition(row: &TransitionRow) -> Result<TransitionRecord, StoreError> {
    Ok(TransitionRecord {
        workspace: row.key.tenant.workspace,
        mode: row.key.tenant.mode,
        alert: row.key.alert,
        at: row.at,
        account: row.key.account.clone(),
        metric: row.key.metric.clone(),
        sequence: row.sequence,
        position: row.position,
        body: json(row)?,
        incident: if incident::begins(row) { incident::id(row).to_string() } else { String::new() },
    })
}

fn notification(row: &Notification) -> Result<NotificationRecord, StoreError> {
    Ok(NotificationRecord {
        workspace: row.key.tenant.workspace,
        mode: row.key.tenant.mode,
        at: row.at,
        id: row.id,
        alert: row.key.alert,
        position: row.position,
        body: json(row)?,
    })
}

fn quarantined((partition, row): (PartitionId, &QuarantineRow)) -> Result<QuarantineRecord, StoreError> {
    Ok(QuarantineRecord {
        workspace: row.tenant.workspace,
        mode: row.tenant.mode,
        id: row.id,
        partition: partition.0,
        code: row.code.clone(),
        account: row.account.clone(),
        status: row.status,
        at: row.at,
        revision: row.revision,
        body: json(row)?,
    })
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Storage { detail: error.to_string() })
}

struct Blocks<'a> {
    client: &'a Client,
    settings: &'a ClickHouseSettings,
}

impl Blocks<'_> {
    /// Inserts rows, a block at a time: ClickHouse takes a block whole or not at all.
    ///
    /// A block that got no answer is tried once more: a write begins at its first table each time, so that an insert that
    /// fails every now and then could keep a large one from ever being whole.
    async fn insert<E: Clone, R: RowOwned + RowWrite>(
        &self,
        table: &str,
        rows: Vec<E>,
        bytes: impl Fn(&R) -> usize,
        record: impl Fn(E) -> Result<R, StoreError>,
    ) -> Result<(), StoreError> {
        let mut rest = rows.as_slice();
        while !rest.is_empty() {
            let mut first = pin!(self.insert_block(table, rest, &bytes, &record));
            let written = match tokio::time::timeout(self.settings.insert_timeout / 2, first.as_mut()).await {
                Ok(Err(StoreError::Unreachable { .. })) => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                    self.insert_block(table, rest, &bytes, &record).await?
                }
                Ok(answer) => answer?,
                // A server that takes so long is asked no second time.
                Err(_) => first.await?,
            };
            rest = rest.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Inserts as many rows as a block may have; returns how many.
    async fn insert_block<E: Clone, R: RowOwned + RowWrite>(
        &self,
        table: &str,
        rows: &[E],
        bytes: impl Fn(&R) -> usize,
        record: impl Fn(E) -> Result<R, StoreError>,
    ) -> Result<usize, StoreError> {
        let patience = self.settings.insert_timeout;
        let mut block: Insert<R> =
            tokio::time::timeout(patience, self.begin(table)).await.map_err(|_| late(table))??;
        let (mut block_rows, mut block_bytes) = (0, 0);
        for row in rows.iter().take(self.settings.block_rows_max.max(1)) {
            if block_rows > 0 && block_bytes >= self.settings.block_bytes_max {
                break;
            }
            let row = record(row.clone())?;
            block_rows += 1;
            block_bytes += bytes(&row);
            block.write(&row).await?;
        }
        block.end().await?;
        Ok(block_rows)
    }

    async fn begin<R: RowOwned + RowWrite>(&self, table: &str) -> Result<Insert<R>, StoreError> {
        let patience = Some(self.settings.insert_timeout);
        let block = self.client.insert::<R>(table).await?;
        // An import may touch more months than the server takes for reasonable. Each of them is a part.
        Ok(block.with_timeouts(patience, patience).with_setting("max_partitions_per_insert_block", "0"))
    }
}

fn late(table: &str) -> StoreError {
    StoreError::Unreachable { detail: format!("no answer to an insert into {table}") }
}
