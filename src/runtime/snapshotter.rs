//! Takes snapshots: asked of the processors, published only when the store holds their position.

use super::partitions::Partitions;
use super::processor::Processor;
use crate::domain::id::Position;
use crate::domain::limits::{SNAPSHOT_EVERY, SNAPSHOTS_KEPT};
use crate::snapshot::Snapshots;
use crate::store::Store;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// Publishes snapshots of the partitions that moved, at intervals, until `stop` says so.
pub async fn run(partitions: Partitions, snapshots: Snapshots, store: Store, mut stop: watch::Receiver<bool>) {
    let mut published = BTreeMap::new();
    while !*stop.borrow() {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(u64::try_from(SNAPSHOT_EVERY.0).unwrap_or(60_000))) => {}
            _ = stop.changed() => return,
        }
        for held in partitions.held() {
            let processor = &held.processor;
            let position = Position(processor.gauges.position.load(Ordering::Acquire));
            if published.get(&processor.partition) == Some(&position) {
                continue;
            }
            // A store that is away must not keep the node from stopping.
            let taken = tokio::select! {
                taken = take(processor, &snapshots, &store) => taken,
                _ = stop.changed() => return,
            };
            if let Some(at) = taken {
                published.insert(processor.partition, at);
            }
        }
    }
}

/// Takes and publishes one snapshot; returns its position.
pub async fn take(processor: &Processor, snapshots: &Snapshots, store: &Store) -> Option<Position> {
    let partition = processor.partition;
    let snapshot = match processor.snapshot().await? {
        Ok(snapshot) => snapshot,
        Err(error) => {
            tracing::error!(partition = partition.0, error = %crate::telemetry::chain(&error), "a snapshot could not be taken");
            return None;
        }
    };
    let position = snapshot.position;
    store.wait_for(partition, position).await;
    if let Err(error) = snapshots.publish(partition, snapshot).await {
        tracing::warn!(partition = partition.0, error = %crate::telemetry::chain(&error), "a snapshot could not be published");
        return None;
    }
    if let Err(error) = snapshots.prune(partition, SNAPSHOTS_KEPT).await {
        tracing::warn!(partition = partition.0, error = %crate::telemetry::chain(&error), "old snapshots could not be removed");
    }
    Some(position)
}
