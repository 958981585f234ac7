//! The newest records of each log in memory, so that a reader that keeps up reads no storage.

use super::port::Record;
use crate::domain::id::Position;
use crate::domain::limits::TAIL_BYTES_MAX;
use std::collections::VecDeque;

/// The newest records of one log.
#[derive(Debug, Default)]
pub(super) struct Tail {
    records: VecDeque<Record>,
    bytes: usize,
}

impl Tail {
    pub(super) fn push(&mut self, record: Record) {
        self.bytes += record.payload.len();
        self.records.push_back(record);
        while self.bytes > TAIL_BYTES_MAX && self.records.len() > 1 {
            if let Some(oldest) = self.records.pop_front() {
                self.bytes -= oldest.payload.len();
            }
        }
    }

    /// Returns records behind a position; `None` where some of them may be older than the tail.
    pub(super) fn after(&self, after: Position, records_max: usize, bytes_max: usize) -> Option<Vec<Record>> {
        let first = self.records.front()?.position;
        if first > after.next() {
            return None;
        }
        let from = self.records.partition_point(|record| record.position <= after);
        let mut bytes = 0;
        let within = |record: &&Record| {
            let fits = bytes == 0 || bytes + record.payload.len() <= bytes_max;
            bytes += record.payload.len();
            fits
        };
        Some(self.records.range(from..).take(records_max).take_while(within).cloned().collect())
    }
}
