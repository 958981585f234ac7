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
use crate::domain::partition::effect::{
    AccountRow, DeliveryRow, Effects, InstanceRow, QuarantineRow, TransitionRow, WindowRow,
};
use crate::domain::partition::notification::Notification;
use crate::domain::webhook::rows::{Attempt, Delivery};
use crate::store::{Progress, StoreError};
use clickhouse::insert::Insert;
use clickhouse::{Client, RowOwned, RowWrite};
use std::hash::Hash;

/// Writes everything, the position last.
pub(super) async fn write(
    client: &Client,
    settings: &ClickHouseSettings,
    (partition, up_to): (PartitionId, Progress),
    effects: &Effects,
) -> Result<(), StoreError> {
    let blocks = Blocks { client, settings };
    let windows = newest(&effects.windows, |row| (&row.series, row.start, row.part), |row| row.revision);
    blocks.insert("usage_windows", &windows, |_| 200, |row: &WindowRow| Ok(WindowRecord::from(row))).await?;
    let accounts = newest(&effects.accounts, |row| (row.tenant, &row.account, row.epoch), |row| row.revision);
    blocks.insert("accounts", &accounts, |_| 100, |row: &AccountRow| Ok(AccountRecord::from(row))).await?;
    let instances = newest(&effects.instances, |row| &row.key, |row| row.revision);
    blocks.insert("alert_states", &instances, |_| 200, |row: &InstanceRow| Ok(InstanceRecord::from(row))).await?;
    let transitions = newest(&effects.transitions, |row| (&row.key, row.sequence), |row| row.position);
    blocks.insert("alert_transitions", &transitions, |row| row.body.len(), transition).await?;
    let notifications = newest(&effects.notifications, |row| (row.key.tenant, row.id), |row| row.position);
    blocks.insert("notifications", &notifications, |row| row.body.len(), notification).await?;
    let deliveries = newest(&effects.deliveries, |row| (row.tenant, row.notification, row.channel), |row| row.revision);
    blocks.insert("deliveries", &deliveries, |_| 200, |row: &DeliveryRow| Ok(DeliveryRecord::from(row))).await?;
    let quarantine = newest(&effects.quarantine, |row| (row.tenant, row.id), |row| row.revision);
    let set_aside = |row: &QuarantineRow| quarantined(partition, row);
    blocks.insert("quarantine", &quarantine, |row| row.body.len(), set_aside).await?;
    let rows = &effects.webhooks;
    let events = newest(&rows.events, |row| (row.tenant, row.id), |row| row.position);
    blocks.insert("webhook_events", &events, |row| row.body.len(), EventRecord::of).await?;
    let owed = newest(&rows.deliveries, |row| (row.tenant, row.id), |row| row.revision);
    let delivery = |row: &Delivery| Ok(WebhookDeliveryRecord::from(row));
    blocks.insert("webhook_deliveries", &owed, |_| 250, delivery).await?;
    let key = |row: &'_ Attempt| (row.tenant, row.posted.id, row.posted.attempt);
    let attempts = newest(&rows.attempts, key, |row| row.revision);
    blocks.insert("webhook_attempts", &attempts, |row| row.body.len(), AttemptRecord::of).await?;
    let archived_from = match &effects.events {
        Some(events) => {
            let events: Vec<&EventRow> = events.iter().collect();
            let bytes = |row: &CountedRecord| 200 + row.dimensions.len();
            blocks
                .insert("usage_events", &events, bytes, |row: &EventRow| Ok(CountedRecord::of(partition, row)))
                .await?;
            let patience = settings.query_timeout;
            let asked = tokio::time::timeout(patience, archived_from(client, partition)).await;
            Some(asked.map_err(|_| late("positions"))??)
        }
        None => None,
    };
    let position = |up_to: &Progress| {
        Ok(WrittenPosition { partition: partition.0, position: up_to.position, clock: up_to.clock, archived_from })
    };
    blocks.insert("positions", &[&up_to], |_| 16, position).await
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
fn newest<'a, R, K: Eq + Hash>(
    rows: &'a [R],
    key: impl Fn(&'a R) -> K,
    revision: impl Fn(&R) -> Position,
) -> Vec<&'a R> {
    let mut kept: Vec<&R> = Vec::with_capacity(rows.len());
    let mut places = hashbrown::HashMap::with_capacity(rows.len());
    for row in rows {
        let place = *places.entry(key(row)).or_insert(kept.len());
        match kept.get_mut(place) {
            Some(held) if revision(row) >= revision(held) => *held = row,
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

fn quarantined(partition: PartitionId, row: &QuarantineRow) -> Result<QuarantineRecord, StoreError> {
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
    async fn insert<E, R: RowOwned + RowWrite>(
        &self,
        table: &str,
        rows: &[&E],
        bytes: impl Fn(&R) -> usize,
        record: impl Fn(&E) -> Result<R, StoreError>,
    ) -> Result<(), StoreError> {
        let mut rows = rows.iter().peekable();
        while rows.peek().is_some() {
            let patience = self.settings.insert_timeout;
            let mut block: Insert<R> =
                tokio::time::timeout(patience, self.begin(table)).await.map_err(|_| late(table))??;
            let (mut block_rows, mut block_bytes) = (0, 0);
            while block_rows < self.settings.block_rows_max.max(1) && block_bytes < self.settings.block_bytes_max {
                let Some(row) = rows.next() else { break };
                let row = record(row)?;
                block_rows += 1;
                block_bytes += bytes(&row);
                block.write(&row).await?;
            }
            block.end().await?;
        }
        Ok(())
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
