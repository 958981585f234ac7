//! How far what was derived from the journal reaches: the store's rows, and snapshots. A journal that ends before is not
//! the newest one, and going on from it would lose in silence what it lacks.

use crate::domain::id::{Log, PartitionId, Position};
use crate::snapshot::{SnapshotError, Snapshots};
use crate::store::Progress;
use std::collections::BTreeMap;

/// The journal ends before what was derived from it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "log {log} of the journal ends at {journal}, but {what} holds {held}: the journal is older than its copies, or a part of \
     it is missing; put the newest journal.db and its journal.db-wal back. Where they are lost, what the store and the \
     snapshots hold is all that is left: move them away, and only then go on without it"
)]
pub struct JournalBehind {
    /// Whose record.
    pub log: Log,
    /// Where it ends.
    pub journal: Position,
    /// What is ahead of it.
    pub what: &'static str,
    /// Up to where.
    pub held: Position,
}

/// What the store and the snapshots hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Copies {
    held: Vec<(Log, &'static str, Position)>,
}

impl Copies {
    /// Finds them; `stored` is how far the rows of each log reach.
    ///
    /// # Errors
    /// Where the snapshots cannot be listed.
    pub(super) async fn find(
        snapshots: &Snapshots,
        partitions: u32,
        stored: &BTreeMap<PartitionId, Progress>,
    ) -> Result<Self, SnapshotError> {
        let mut held: Vec<_> =
            stored.iter().map(|(partition, progress)| (partition.log(), "the store", progress.position)).collect();
        for partition in (0..partitions).map(PartitionId).chain([PartitionId::CONTROL]) {
            if let Some(position) = snapshots.newest_position(partition).await? {
                held.push((partition.log(), "a snapshot", position));
            }
        }
        held.retain(|(_, _, position)| *position > Position::START);
        Ok(Self { held })
    }

    /// Makes sure that every log reaches as far as its copies.
    ///
    /// # Errors
    /// Where one does not.
    pub(super) fn check<E: From<JournalBehind>>(&self, end: impl Fn(Log) -> Result<Position, E>) -> Result<(), E> {
        for (log, what, held) in self.held.iter().copied() {
            let journal = end(log)?;
            if held > journal {
                return Err(JournalBehind { log, journal, what, held }.into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Timestamp;
    use crate::snapshot::Snapshot;

    #[tokio::test]
    async fn each_copy_that_is_ahead_is_found() {
        let partition = PartitionId(1);
        let at = |position| Progress { position: Position(position), clock: Timestamp(0) };
        let snapshots = Snapshots::memory();
        let snapshot = |position| Snapshot { position: Position(position), format: 1, parts: vec![] };
        snapshots.publish(PartitionId::CONTROL, snapshot(4)).await.unwrap();
        snapshots.publish(partition, snapshot(7)).await.unwrap();
        let stored = BTreeMap::from([(partition, at(9)), (PartitionId(0), at(0))]);
        let copies = Copies::find(&snapshots, 2, &stored).await.unwrap();
        let check = |control, one| {
            let end = |log| match log {
                Log::Control => Ok(Position(control)),
                Log::Partition(PartitionId(1)) => Ok(Position(one)),
                Log::Partition(_) => Ok(Position::START),
            };
            copies.check(end).map_err(|behind: JournalBehind| (behind.log, behind.what, behind.held.0))
        };
        assert_eq!(check(4, 9), Ok(()));
        assert_eq!(check(4, 8), Err((Log::Partition(partition), "the store", 9)));
        assert_eq!(check(3, 9), Err((Log::Control, "a snapshot", 4)));
        let copies = Copies::find(&snapshots, 2, &BTreeMap::new()).await.unwrap();
        let ends = |_| Ok::<_, JournalBehind>(Position(6));
        assert_eq!(copies.check(ends).unwrap_err().what, "a snapshot");
        let none = Copies::find(&Snapshots::memory(), 2, &BTreeMap::new()).await.unwrap();
        assert_eq!(none.check(|_| Ok::<_, JournalBehind>(Position::START)), Ok(()));
    }
}
