//! The in-memory adapter: the same contract, for tests that need a clock and faults of their own.

use super::chain::number;
use super::port::{AppendError, Record};
use crate::domain::id::{Log, Position, Stamp};
use crate::domain::time::Timestamp;
use bytes::Bytes;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// A journal that lives as long as its handles.
#[derive(Clone, Debug)]
pub struct MemoryJournal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    ends: Vec<watch::Sender<Position>>,
}

#[derive(Debug)]
struct State {
    logs: Vec<Vec<Record>>,
    now: Timestamp,
    fails_next: Option<Fault>,
}

/// What goes wrong with the next append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing gets in.
    Before,
    /// Everything gets in, and the answer is lost.
    After,
}

impl MemoryJournal {
    /// Makes an empty journal.
    pub fn new(partitions: u32) -> Self {
        let logs = usize::try_from(partitions).unwrap_or(0) + 1;
        let state = State { logs: vec![Vec::new(); logs], now: Timestamp(0), fails_next: None };
        let ends = (0..logs).map(|_| watch::channel(Position::START).0).collect();
        Self { shared: Arc::new(Shared { state: Mutex::new(state), ends }) }
    }

    /// Sets the clock of the records to come.
    pub fn set_time(&self, now: Timestamp) {
        let mut state = self.lock();
        state.now = state.now.max(now);
    }

    /// Makes the next append fail.
    pub fn fail_next(&self, fault: Fault) {
        self.lock().fails_next = Some(fault);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn append(&self, batch: Vec<(Log, Bytes)>) -> Result<Vec<Stamp>, AppendError> {
        let mut state = self.lock();
        let fault = state.fails_next.take();
        let failed = || AppendError::Storage { detail: "asked to fail".to_owned() };
        if fault == Some(Fault::Before) {
            return Err(failed());
        }
        let recorded_at = state.now;
        let mut stamps = Vec::with_capacity(batch.len());
        for (log, payload) in batch {
            let Some(records) = state.logs.get_mut(number(log)) else {
                return Err(AppendError::Storage { detail: format!("there is no log {log}") });
            };
            let position = records.last().map_or(Position::START, |record| record.position).next();
            records.push(Record { position, recorded_at, payload });
            stamps.push(Stamp { position, recorded_at });
            if let Some(end) = self.shared.ends.get(number(log)) {
                end.send_replace(position);
            }
        }
        if fault == Some(Fault::After) { Err(failed()) } else { Ok(stamps) }
    }

    /// As [`Self::append`], with the clock set to `at` before, also back.
    pub(super) fn append_at(&self, batch: Vec<(Log, Bytes)>, at: Timestamp) -> Result<Vec<Stamp>, AppendError> {
        self.lock().now = at;
        self.append(batch)
    }

    pub(super) fn read(&self, log: Log, after: Position, records_max: usize, bytes_max: usize) -> Vec<Record> {
        let state = self.lock();
        let records = state.logs.get(number(log)).map_or(&[][..], Vec::as_slice);
        let from = records.partition_point(|record| record.position <= after);
        let mut bytes = 0;
        let within = |record: &&Record| {
            let fits = bytes == 0 || bytes + record.payload.len() <= bytes_max;
            bytes += record.payload.len();
            fits
        };
        records.iter().skip(from).take(records_max).take_while(within).cloned().collect()
    }

    pub(super) fn end(&self, log: Log) -> Position {
        self.shared.ends.get(number(log)).map_or(Position::START, |end| *end.borrow())
    }

    pub(super) fn watch(&self, log: Log) -> watch::Receiver<Position> {
        let known = self.shared.ends.get(number(log));
        known.map_or_else(|| watch::channel(Position::START).1, watch::Sender::subscribe)
    }

    pub(super) fn partitions(&self) -> u32 {
        u32::try_from(self.shared.ends.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }
}
