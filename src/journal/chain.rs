//! The checksum that ties each record to the one before it.

use crate::domain::id::{Log, PartitionId, Position};
use crate::domain::time::Timestamp;

/// Returns a record's checksum: CRC-32 (IEEE) over the previous record's one, position, time and payload.
pub(super) fn link(previous: u32, position: Position, recorded_at: Timestamp, payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&previous.to_le_bytes());
    crc.update(&position.0.to_le_bytes());
    crc.update(&recorded_at.0.to_le_bytes());
    crc.update(payload);
    crc.finalize()
}

/// The number that stands for a log in storage.
pub(super) fn number(log: Log) -> usize {
    match log {
        Log::Control => 0,
        Log::Partition(partition) => usize::try_from(partition.0).unwrap_or(usize::MAX - 1) + 1,
    }
}

/// The log that a number stands for.
pub(super) fn log(number: usize) -> Log {
    match number.checked_sub(1).and_then(|partition| u32::try_from(partition).ok()) {
        Some(partition) => Log::Partition(PartitionId(partition)),
        None => Log::Control,
    }
}
