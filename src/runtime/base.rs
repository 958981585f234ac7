//! Snapshots of the control plane, and folding its log apart from the plane: from one of them, or from the beginning.

use super::control::FoldError;
use crate::domain::control::command::{Command, Entry};
use crate::domain::control::entry::EntryError;
use crate::domain::control::fold::Control;
use crate::domain::control::outcome::{Applied, PositionedChange};
use crate::domain::control::snapshot::CONTROL_FORMAT;
use crate::domain::id::{Log, PartitionId, Position, Stamp};
use crate::domain::limits::{READ_BYTES_MAX, READ_RECORDS_MAX, SNAPSHOTS_KEPT};
use crate::domain::partition::fact::ENGINE_VERSION;
use crate::domain::webhook::rows::Rows;
use crate::journal::{Journal, ReadError, Record};
use crate::snapshot::{Snapshot, SnapshotError, Snapshots};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How often the log is read for a record that must be there; a shared log waits half a second each time.
pub(super) const FOLD_TRIES: usize = 10;

const STATE: &str = "state";
const COPIES: &str = "copies";
const RECORD: &str = "record";
const RELEASE: &str = "release";

/// Changes that some partition may still have to learn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Copies {
    /// In the order of the log.
    pub changes: Vec<PositionedChange>,
    /// Changes up to here are not in that list any more.
    pub forgotten: Position,
}

/// What tells a record from any other: snapshots are gone on from only where the log has the record that they end with.
pub(super) type RecordDigest = [u8; 32];

/// The control fold behind a record, and what goes with it.
#[derive(Debug)]
pub struct Base {
    /// The state.
    pub(super) control: Control,
    /// What partitions may not know of it yet.
    pub(super) copies: Copies,
    /// The record that it ends with.
    pub(super) record: RecordDigest,
}

/// Why a snapshot is not gone on from.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoBase {
    #[error("release {0} took it")]
    Release(String),
    #[error("it has format {0}, this release reads {CONTROL_FORMAT}")]
    Format(u32),
    #[error("its log asks for engine version {0}, this release folds up to {ENGINE_VERSION}")]
    TooNew(u32),
    #[error("the log has another record, or none, where it ends")]
    OtherLog,
    #[error("it is not what was written")]
    Malformed(#[from] serde_json::Error),
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Base {
    /// The last record that it has taken in.
    pub const fn position(&self) -> Position {
        self.control.position()
    }

    /// Makes a snapshot of it.
    fn pack(&self) -> Result<Snapshot, serde_json::Error> {
        let parts = vec![
            (RELEASE.into(), env!("CARGO_PKG_VERSION").into()),
            (RECORD.into(), self.record.to_vec()),
            (COPIES.into(), serde_json::to_vec(&self.copies)?),
            (STATE.into(), self.control.to_bytes()?),
        ];
        Ok(Snapshot { position: self.position(), format: CONTROL_FORMAT, parts })
    }

    /// Takes up a snapshot of this release and of this log.
    fn unpack(snapshot: &Snapshot, journal: &Journal) -> Result<Self, NoBase> {
        if snapshot.format != CONTROL_FORMAT {
            return Err(NoBase::Format(snapshot.format));
        }
        let release = snapshot.part(RELEASE);
        if release != env!("CARGO_PKG_VERSION").as_bytes() {
            return Err(NoBase::Release(String::from_utf8_lossy(release).into_owned()));
        }
        let found = record_at(journal, snapshot.position)?.as_ref().map(digest);
        let Some(record) = found.filter(|record| record == snapshot.part(RECORD)) else {
            return Err(NoBase::OtherLog);
        };
        let control = Control::from_bytes(snapshot.part(STATE))?;
        if control.engine_version() > ENGINE_VERSION {
            return Err(NoBase::TooNew(control.engine_version()));
        }
        let copies = serde_json::from_slice(snapshot.part(COPIES))?;
        if control.position() == snapshot.position {
            Ok(Self { control, copies, record })
        } else {
            Err(NoBase::OtherLog)
        }
    }

    /// As [`Self::unpack`]; where it cannot be gone on from the log is folded whole, and the log of the process says why.
    pub(super) fn of(snapshot: Option<Snapshot>, journal: &Journal) -> Option<Self> {
        let snapshot = snapshot?;
        let position = snapshot.position.0;
        Self::unpack(&snapshot, journal)
            .inspect(|_| tracing::info!(position, "the control log is folded on from a snapshot"))
            .inspect_err(|error| {
                let why = crate::telemetry::chain(error);
                tracing::warn!(
                    position,
                    why,
                    "a snapshot of the control plane is passed over; the whole log is folded"
                );
            })
            .ok()
    }

    /// Publishes it, and removes old ones. The store must hold what the log owes up to here.
    ///
    /// # Errors
    /// Where the snapshots cannot be written.
    pub async fn publish(self, snapshots: &Snapshots) -> Result<(), PublishError> {
        let packed = tokio::task::spawn_blocking(move || self.pack()).await.map_err(std::io::Error::other)?;
        snapshots.publish(PartitionId::CONTROL, packed?).await?;
        snapshots.prune(PartitionId::CONTROL, SNAPSHOTS_KEPT).await?;
        Ok(())
    }
}

/// Why a snapshot was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The state has no bytes.
    #[error("write the state of the control plane")]
    State(#[from] serde_json::Error),
    /// Nobody is left to write it.
    #[error("write the state of the control plane")]
    Task(#[from] std::io::Error),
    /// The object store failed.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
}

/// Finds the newest snapshot of the control plane at or below a position.
pub(super) async fn newest(snapshots: &Snapshots, at_most: Position) -> Result<Option<Snapshot>, SnapshotError> {
    let loaded = snapshots.newest_at_or_below(PartitionId::CONTROL, at_most).await?;
    for (name, why) in loaded.skipped {
        tracing::warn!(snapshot = name, why, "a snapshot cannot be read; an older one or the whole log is folded");
    }
    Ok(loaded.snapshot)
}

fn record_at(journal: &Journal, position: Position) -> Result<Option<Record>, ReadError> {
    let before = Position(position.0.saturating_sub(1));
    for _ in 0..FOLD_TRIES {
        let found = journal.read(Log::Control, before, 1, READ_BYTES_MAX)?;
        if !found.is_empty() {
            return Ok(found.into_iter().find(|record| record.position == position));
        }
    }
    Ok(None)
}

pub(super) fn digest(record: &Record) -> RecordDigest {
    Sha256::digest(&record.payload).into()
}

/// Reads the entry of a record.
///
/// # Errors
/// Where it is none, or asks for more than this release folds.
pub(super) fn entry(record: &Record) -> Result<(Stamp, Entry), FoldError> {
    let position = record.position;
    let entry = Entry::decode(&record.payload).map_err(|source: EntryError| FoldError::Entry { position, source })?;
    if let Command::EngineVersion { version } = entry.command
        && version > ENGINE_VERSION
    {
        return Err(FoldError::TooNew { position, version });
    }
    Ok((Stamp { position, recorded_at: record.recorded_at }, entry))
}

/// Folds the log to `end`, for the rows behind `stored`; blocks.
///
/// # Errors
/// Where the log is damaged or of a later release.
pub(super) fn rows_between(
    journal: &Journal,
    base: Option<Base>,
    (stored, end): (Position, Position),
) -> Result<Vec<(Position, Rows)>, FoldError> {
    let mut kept = Vec::new();
    refold(journal, base, end, |position, applied| {
        if position > stored && !applied.rows.is_empty() {
            kept.push((position, applied.rows));
        }
    })?;
    Ok(kept)
}

/// Folds the log to `end`, and hands over what each record did that is behind the base.
pub(super) fn refold(
    journal: &Journal,
    base: Option<Base>,
    end: Position,
    mut take: impl FnMut(Position, Applied),
) -> Result<Control, FoldError> {
    let mut control = base.map(|base| base.control).unwrap_or_default();
    let mut empty_reads = 0;
    while control.position() < end {
        let records = journal.read(Log::Control, control.position(), READ_RECORDS_MAX, READ_BYTES_MAX)?;
        empty_reads = if records.is_empty() { empty_reads + 1 } else { 0 };
        if empty_reads > FOLD_TRIES {
            let detail = format!("the control log reaches to {end}, only {} was read", control.position());
            return Err(FoldError::Read(ReadError::Storage { detail }));
        }
        for record in records.iter().filter(|record| record.position <= end) {
            let (stamp, entry) = entry(record)?;
            take(record.position, control.apply(stamp, &entry));
        }
    }
    Ok(control)
}
