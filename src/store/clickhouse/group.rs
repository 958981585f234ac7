//! One write at a time: what several partitions have to store meanwhile goes along with the next one, for every insert is a
//! part that ClickHouse has to merge, however few rows it brings.

use super::store::ClickHouseSettings;
use super::write::{self, Portion};
use crate::store::StoreError;
use clickhouse::Client;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long whoever writes next waits for others: those whose rows went along the last time come at about the same time.
const GATHER: Duration = Duration::from_millis(2);

type Answer = Result<(), StoreError>;

/// What waits to be written.
#[derive(Default)]
pub(super) struct Group {
    waiting: Mutex<Vec<(Portion, oneshot::Sender<Answer>)>>,
    turn: tokio::sync::Mutex<()>,
}

impl Group {
    /// Writes a portion, by itself or with others.
    pub(super) async fn write(&self, client: &Client, settings: &ClickHouseSettings, portion: Portion) -> Answer {
        let (tell, mut told) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((portion, tell));
        let _turn = self.turn.lock().await;
        // Whoever had the turn before may have taken it along.
        if let Ok(answer) = told.try_recv() {
            return answer;
        }
        tokio::time::sleep(GATHER).await;
        self.write_waiting(client, settings).await;
        told.try_recv().unwrap_or(Err(StoreError::Closed))
    }

    async fn write_waiting(&self, client: &Client, settings: &ClickHouseSettings) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let (portions, callers): (Vec<Portion>, Vec<_>) = waiting.into_iter().unzip();
        let together = write::write(client, settings, &portions).await;
        // What is refused of one partition must not keep the others' rows out.
        let is_shared = portions.len() > 1 && matches!(together, Err(StoreError::Refused { .. }));
        for (portion, caller) in portions.iter().zip(callers) {
            let alone = std::slice::from_ref(portion);
            let answer = if is_shared { write::write(client, settings, alone).await } else { together.clone() };
            if caller.send(answer).is_err() {
                tracing::debug!(partition = portion.partition.0, "nobody waits for the write any more");
            }
        }
    }
}
