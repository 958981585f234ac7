//! Folding without serving: replay makes the store anew, verify proves that what is kept follows from the journal.

use super::base::{self, Base, rows_between};
use super::control::FoldError as ControlFoldError;
use super::data::StartError;

use super::processor::{Fold, FoldError, FoldRestoreError};
use super::reader::DataReader;
use crate::domain::id::{Log, PartitionId, Position};
use crate::domain::limits::{READ_BYTES_MAX, READ_RECORDS_MAX};
use crate::domain::partition::RestoreError;
use crate::domain::partition::effect::Effects;
use crate::journal::{Journal, ReadError};
use crate::snapshot::SnapshotError;
use crate::store::{Progress, ScannedRow, SqliteStore, Store, StoreError};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

/// How many differences are named.
const DRIFT_NAMED_MAX: usize = 10;

/// What verify found.
#[derive(Debug, Default)]
pub struct Report {
    /// Records that were folded.
    pub records: u64,
    /// Rows that were compared.
    pub rows: u64,
    /// Snapshots whose digest was compared.
    pub snapshots: u64,
    /// Rows that are missing because they are older than the store is to keep them.
    pub expired: u64,
    /// Records behind what is stored: they were read, and there was nothing to compare them with.
    pub unstored: u64,
    /// Each partition's digest.
    pub digests: Vec<(PartitionId, Position, String)>,
    /// What differs: the first few, in words.
    pub drift: Vec<String>,
    /// How much differs.
    pub drift_count: u64,
}

/// Why a fold without serving did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The log cannot be folded.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The journal cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The snapshots failed.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
    /// A state cannot be written.
    #[error(transparent)]
    State(#[from] RestoreError),
    /// The control log cannot be folded.
    #[error(transparent)]
    Control(#[from] ControlFoldError),
    /// A snapshot cannot be read.
    #[error(transparent)]
    Restore(#[from] FoldRestoreError),
    /// The data cannot be opened.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Folds a partition's whole log up to `end`; hands every batch's effects to `take`, and tells of every position in
/// `stops` when exactly it is reached.
pub(super) fn fold_all(
    journal: &Journal,
    mut fold: Fold,
    end: Position,
    stops: &[Position],
    mut take: impl FnMut(&Fold, Effects, bool) -> Result<(), OfflineError>,
) -> Result<(Fold, u64), OfflineError> {
    let log = Log::Partition(fold.partition.id());
    let mut folded = 0;
    while fold.partition.position() < end {
        let position = fold.partition.position();
        let mut records = journal.read_known(log, position, READ_RECORDS_MAX, READ_BYTES_MAX)?;
        let stop = stops.iter().copied().filter(|stop| *stop > position).min().unwrap_or(end).min(end);
        records.retain(|record| record.position <= stop);
        if records.is_empty() {
            // Positions need not be dense: the next record may stand behind the stop.
            break;
        }
        folded += records.len() as u64;
        let mut effects = fold.effects();
        fold.take(&records, &mut effects)?;
        let stopped = stops.contains(&fold.partition.position());
        take(&fold, effects, stopped)?;
    }
    Ok((fold, folded))
}

/// Makes a store of everything in the journal; blocks.
///
/// # Errors
/// Where the journal is damaged or the store fails.
pub fn replay(journal: &Journal, key: [u8; 16], store: &Store) -> Result<Report, OfflineError> {
    let mut report = Report::default();
    for partition in (0..journal.partitions()).map(PartitionId) {
        let end = journal.end(Log::Partition(partition));
        let fold = Fold::new(partition, journal.partitions(), key).archiving(store.archives());
        let (fold, folded) = fold_all(journal, fold, end, &[], |fold, effects, _| {
            let progress = Progress { position: fold.partition.position(), clock: fold.partition.clock() };
            Ok(store.write_blocking(partition, effects.into(), progress)?)
        })?;
        report.records += folded;
        report.digests.push((partition, fold.partition.position(), fold.partition.digest()?));
    }
    report.records += write_control(journal, store, journal.end(Log::Control))?;
    Ok(report)
}

/// Writes the rows of what the control log owes, up to a position.
fn write_control(journal: &Journal, store: &Store, end: Position) -> Result<u64, OfflineError> {
    let mut effects = Effects::default();
    for (_, rows) in rows_between(journal, None, (Position::START, end))? {
        effects.webhooks.append(rows);
    }
    let progress = Progress { position: end, clock: crate::domain::time::Timestamp(0) };
    store.write_blocking(PartitionId::CONTROL, effects.into(), progress)?;
    Ok(end.0)
}

/// Folds everything from the beginning and compares the kept snapshots and every row of the store with it.
///
/// `scratch` is where the compared store is made.
///
/// # Errors
/// Where the journal is damaged, or something cannot be read; drift is no error but stands in the report.
pub async fn verify(data: &DataReader, scratch: &Path) -> Result<Report, OfflineError> {
    let expected = Store::Sqlite(SqliteStore::open(scratch)?);
    let mut report = Report::default();
    for partition in (0..data.journal.partitions()).map(PartitionId) {
        verify_partition(data, partition, &expected, &mut report).await?;
    }
    verify_control(data, &mut report).await?;
    let end = data.stored.get(&PartitionId::CONTROL).map_or(Position::START, |progress| progress.position);
    report.records += write_control(&data.journal, &expected, end.min(data.journal.end(Log::Control)))?;
    if let Some(store) = &data.store {
        compare(&expected, store, &mut report).await?;
    }
    Ok(report)
}

/// Folds a partition up to what is stored of it, compares its newest snapshot, and reads what is behind that.
async fn verify_partition(
    data: &DataReader,
    partition: PartitionId,
    expected: &Store,
    report: &mut Report,
) -> Result<(), OfflineError> {
    let log = Log::Partition(partition);
    let log_end = data.journal.end(log);
    // Rows are compared at the store's own position: what is behind it is yet to be written. Without a store there are
    // snapshots alone.
    let stored = data.stored.get(&partition).map_or(Position::START, |progress| progress.position);
    let end = if data.store.is_some() { stored.min(log_end) } else { log_end };
    let loaded = data.snapshots.newest_at_or_below(partition, end).await?;
    for (name, why) in loaded.skipped {
        report.note(format!("snapshot {name} cannot be read: {why}"));
    }
    let kept = loaded.snapshot;
    let stops: Vec<Position> = kept.iter().map(|snapshot| snapshot.position).collect();
    let fold = Fold::new(partition, data.journal.partitions(), data.fingerprint_key());
    let mut drifted = None;
    let (fold, folded) = fold_all(&data.journal, fold, end, &stops, |fold, effects, stopped| {
        let progress = Progress { position: fold.partition.position(), clock: fold.partition.clock() };
        expected.write_blocking(partition, effects.into(), progress)?;
        if let Some(kept) = kept.as_ref().filter(|_| stopped) {
            let now = fold.snapshot()?;
            drifted = Some(now.part("engine") != kept.part("engine") || now.part("dedup") != kept.part("dedup"));
        }
        Ok(())
    })?;
    report.records += folded;
    report.snapshots += u64::from(drifted.is_some());
    if let (Some(true), Some(kept)) = (drifted, &kept) {
        report.note(format!(
            "snapshot of partition {} at {}: its state does not follow from the journal",
            partition.0, kept.position
        ));
    }
    report.digests.push((partition, fold.partition.position(), fold.partition.digest()?));
    report.unstored += read_rest(&data.journal, log, end)?;
    Ok(())
}

/// Reads a log of this process's own to its end, for damage alone; returns how many records there are. What brokers keep is
/// theirs to check.
fn read_rest(journal: &Journal, log: Log, after: Position) -> Result<u64, OfflineError> {
    let (mut position, mut count) = (after, 0);
    while !journal.is_shared() && position < journal.end(log) {
        let records = journal.read_known(log, position, READ_RECORDS_MAX, READ_BYTES_MAX)?;
        position = records.last().map_or(position, |record| record.position);
        count += records.len() as u64;
    }
    Ok(count)
}

/// Folds the control log from its beginning and compares the snapshot that the next start would go on from.
async fn verify_control(data: &DataReader, report: &mut Report) -> Result<(), OfflineError> {
    let end = data.journal.end(Log::Control);
    for (name, why) in data.snapshots.newest_at_or_below(PartitionId::CONTROL, end).await?.skipped {
        report.note(format!("snapshot {name} cannot be read: {why}"));
    }
    let newest = base::newest(&data.snapshots, end).await?;
    let Some(base) = Base::of(newest, &data.journal) else { return Ok(()) };
    let position = base.control.position();
    let folded = base::refold(&data.journal, None, position, |_, _| {})?;
    report.snapshots += 1;
    if folded != base.control {
        report.note(format!("snapshot of the control plane at {position}: its state does not follow from the journal"));
    }
    Ok(())
}

impl Report {
    /// Adds what was found otherwise.
    pub fn add_drift(&mut self, count: u64, named: Vec<String>) {
        self.drift_count += count;
        self.drift.extend(named.into_iter().take(DRIFT_NAMED_MAX));
    }

    fn note(&mut self, drift: String) {
        self.drift_count += 1;
        if self.drift.len() < DRIFT_NAMED_MAX {
            self.drift.push(drift);
        }
    }
}

/// Compares two stores row by row.
async fn compare(expected: &Store, kept: &Store, report: &mut Report) -> Result<(), OfflineError> {
    let mut rows: BTreeMap<(&'static str, String), String> = BTreeMap::new();
    expected.scan(&mut |ScannedRow { table, key, row }| {
        rows.insert((table, key), row);
        ControlFlow::Continue(())
    })?;
    kept.scan(&mut |ScannedRow { table, key, row }| {
        report.rows += 1;
        let name = format!("{table} {key}");
        match rows.remove(&(table, key)) {
            None => report.note(format!("{name}: kept, but does not follow from the journal")),
            Some(wanted) if wanted != row => report.note(format!("{name}: kept {row}, the journal gives {wanted}")),
            Some(_) => {}
        }
        ControlFlow::Continue(())
    })?;
    // Read last: what expired while the rows were read has expired by now.
    let expired = kept.expired_before().await?;
    for ((table, key), row) in rows {
        let row = ScannedRow { table, key, row };
        if row.at().is_some_and(|at| expired.get(table).is_some_and(|before| at < *before)) {
            report.expired += 1;
            continue;
        }
        let ScannedRow { key, row: wanted, .. } = row;
        report.note(format!("{table} {key}: missing, the journal gives {wanted}"));
    }
    Ok(())
}
