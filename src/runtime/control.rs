//! The control plane on this node: appends commands, folds the log, answers with the outcome of its own commands.

use super::clock;
use crate::domain::control::command::{Command, Entry, Idempotency};
use crate::domain::control::fold::Control;
use crate::domain::control::outcome::{Applied, PositionedChange};
use crate::domain::id::{KeyId, Log, Position, Stamp, Tenant};
use crate::domain::webhook::rows::Rows;
use crate::journal::{AppendError, Journal, ReadError};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use tokio::sync::watch;

/// How many outcomes are kept for those who wait for them.
const OUTCOMES_KEPT: usize = 4_096;
/// How often the log is read for a record that must be there; a shared log waits half a second each time.
const FOLD_TRIES: usize = 10;
/// The same, where nothing can begin without it.
const OPEN_TRIES: usize = 40;

/// A handle on the control plane.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    journal: Journal,
    state: RwLock<Control>,
    folded: Mutex<Folded>,
    position: watch::Sender<Position>,
}

#[derive(Debug, Default)]
struct Folded {
    outcomes: BTreeMap<Position, Applied>,
    /// Every change that some partition may still have to learn.
    changes: Vec<PositionedChange>,
    /// Changes up to here are not in that list any more.
    forgotten: Position,
    /// What became of what the log owes, where somebody looks after it.
    rows: Option<Vec<(Position, Rows)>>,
}

/// Who asks, and how the request may be repeated.
#[derive(Clone, Debug)]
pub struct Asking {
    /// The workspace and mode.
    pub tenant: Tenant,
    /// The key; absent for the command line.
    pub actor: Option<KeyId>,
    /// The request.
    pub request_id: String,
    /// The version that the caller expects.
    pub if_match: Option<u64>,
    /// Makes a repetition answer as the first time.
    pub idempotency: Option<Idempotency>,
    /// Where the request came from.
    pub ip: Option<std::net::IpAddr>,
}

/// Why a command has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The journal did not take it.
    #[error("append the command")]
    Append(#[from] AppendError),
    /// The log could not be read back.
    #[error("fold the control log")]
    Fold(#[from] FoldError),
    /// Its outcome was not kept for long enough.
    #[error("the outcome of control record {0} is no longer known")]
    Forgotten(Position),
}

/// Why the control log cannot be folded.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// It cannot be read.
    #[error("read the control log")]
    Read(#[from] ReadError),
    /// A record is not a command of this release.
    #[error("control record {position}")]
    Entry {
        /// The record.
        position: Position,
        /// What is wrong with it.
        source: crate::domain::control::entry::EntryError,
    },
}

impl ControlPlane {
    /// Folds the control log to its present end.
    ///
    /// # Errors
    /// Where the log is damaged or of a later release, or does not come whole: nothing may begin with a part of it.
    pub fn open(journal: Journal) -> Result<Self, FoldError> {
        let (position, _) = watch::channel(Position::START);
        let inner =
            Inner { journal, state: RwLock::new(Control::default()), folded: Mutex::new(Folded::default()), position };
        let plane = Self { inner: Arc::new(inner) };
        let end = plane.inner.journal.end(Log::Control);
        for _ in 0..OPEN_TRIES {
            plane.catch_up()?;
            if plane.position() >= end {
                return Ok(plane);
            }
        }
        let detail = format!("the control log reaches to {end}, only {} was read", plane.position());
        Err(FoldError::Read(ReadError::Storage { detail }))
    }

    /// The folded state. Hold it briefly.
    pub fn state(&self) -> RwLockReadGuard<'_, Control> {
        self.inner.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to where the log is folded.
    pub fn position(&self) -> Position {
        *self.inner.position.borrow()
    }

    /// Tells of every advance of [`Self::position`].
    pub fn watch(&self) -> watch::Receiver<Position> {
        self.inner.position.subscribe()
    }

    /// Returns the changes behind a position, in order, with the position up to which they reach; blocks. What every
    /// partition of this node had was forgotten, and is read again for one that comes from elsewhere.
    ///
    /// # Errors
    /// Where the log cannot be folded again.
    pub fn changes_after(&self, after: Position) -> Result<(Position, Vec<PositionedChange>), FoldError> {
        // While this is held nobody else reads the log, which a shared journal has one place in.
        let folded = self.inner.folded.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changes = Vec::new();
        if after < folded.forgotten {
            refold(&self.inner.journal, folded.forgotten, |position, applied| {
                if position > after {
                    changes.extend(applied.changes.into_iter().map(|change| (position, change)));
                }
            })?;
        }
        let from = folded.changes.partition_point(|(position, _)| *position <= after);
        changes.extend_from_slice(folded.changes.get(from..).unwrap_or_default());
        Ok((self.position(), changes))
    }

    /// Forgets the changes that every partition of this node has.
    pub fn forget_changes(&self, through: Position) {
        let mut folded = self.inner.folded.lock().unwrap_or_else(PoisonError::into_inner);
        let known = folded.changes.partition_point(|(position, _)| *position <= through);
        folded.changes.drain(..known);
        folded.forgotten = folded.forgotten.max(through);
    }

    /// Keeps rows from here on, and returns where that is, with the rows before that are behind a position; blocks.
    ///
    /// # Errors
    /// Where the log cannot be folded again.
    pub fn begin_rows(&self, stored: Position) -> Result<(Position, Vec<(Position, Rows)>), FoldError> {
        // While this is held nobody else reads the log, which a shared journal has one place in.
        let mut folded = self.inner.folded.lock().unwrap_or_else(PoisonError::into_inner);
        let end = self.position();
        let rows = if stored < end { rows_between(&self.inner.journal, stored, end)? } else { Vec::new() };
        folded.rows = Some(Vec::new());
        Ok((end, rows))
    }

    /// Takes the rows that were kept since the last call.
    pub fn take_rows(&self) -> Vec<(Position, Rows)> {
        let mut folded = self.inner.folded.lock().unwrap_or_else(PoisonError::into_inner);
        folded.rows.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Keeps no more rows, and forgets those that were kept.
    pub fn end_rows(&self) {
        self.inner.folded.lock().unwrap_or_else(PoisonError::into_inner).rows = None;
    }

    /// Appends a command and returns its outcome, which every later read of this node sees.
    ///
    /// # Errors
    /// Where the journal did not take it: an error that may be retried, under the same idempotency key.
    pub async fn submit(&self, asking: Asking, command: Command) -> Result<(Stamp, Applied), SubmitError> {
        let entry = Entry {
            tenant: asking.tenant,
            actor: asking.actor,
            request_id: asking.request_id,
            if_match: asking.if_match,
            idempotency: asking.idempotency,
            ip: asking.ip,
            command,
        };
        let stamps = self.inner.journal.append(vec![(Log::Control, Bytes::from(entry.encode()))]).await?;
        let stamp = stamps.into_iter().next().unwrap_or(Stamp { position: Position::START, recorded_at: clock::now() });
        self.fold_through(stamp.position).await?;
        let applied =
            self.inner.folded.lock().unwrap_or_else(PoisonError::into_inner).outcomes.get(&stamp.position).cloned();
        applied.map(|applied| (stamp, applied)).ok_or(SubmitError::Forgotten(stamp.position))
    }

    /// Folds until the state holds a position, for as long as a shared log may take to hand it over.
    async fn fold_through(&self, position: Position) -> Result<(), FoldError> {
        for _ in 0..FOLD_TRIES {
            let plane = self.clone();
            if let Ok(folded) = tokio::task::spawn_blocking(move || plane.catch_up()).await {
                folded?;
            }
            if self.position() >= position {
                break;
            }
        }
        Ok(())
    }

    /// Folds to the log's present end, as the storage knows it: what another node answered before this call is seen behind
    /// it. Tells whether the state moved.
    ///
    /// # Errors
    /// Where the storage does not say where the log ends, or the log cannot be folded.
    pub async fn confirm(&self) -> Result<bool, FoldError> {
        if !self.inner.journal.is_shared() {
            return Ok(false);
        }
        let before = self.position();
        let journal = self.inner.journal.clone();
        let asked = tokio::task::spawn_blocking(move || journal.end_now(Log::Control)).await;
        let end = asked.unwrap_or_else(|error| Err(ReadError::Storage { detail: error.to_string() }))?;
        self.fold_through(end).await?;
        if self.position() < end {
            let detail = format!("the control log reaches to {end}, only {} was read", self.position());
            return Err(FoldError::Read(ReadError::Storage { detail }));
        }
        Ok(self.position() > before)
    }

    /// Folds what the log holds and the state does not; many callers at once are fine.
    ///
    /// # Errors
    /// Where the log is damaged or of a later release.
    pub fn catch_up(&self) -> Result<(), FoldError> {
        // One folds at a time; who waited finds nothing left to do.
        let mut folded = self.inner.folded.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let after = self.position();
            if self.inner.journal.end(Log::Control) <= after {
                return Ok(());
            }
            let limits = (crate::domain::limits::READ_RECORDS_MAX, crate::domain::limits::READ_BYTES_MAX);
            let records = self.inner.journal.read(Log::Control, after, limits.0, limits.1)?;
            let Some(last) = records.last().map(|record| record.position) else { return Ok(()) };
            let mut state = self.inner.state.write().unwrap_or_else(PoisonError::into_inner);
            for record in records {
                let entry = Entry::decode(&record.payload)
                    .map_err(|source| FoldError::Entry { position: record.position, source })?;
                let stamp = Stamp { position: record.position, recorded_at: record.recorded_at };
                let mut applied = state.apply(stamp, &entry);
                let rows = std::mem::take(&mut applied.rows);
                if let Some(kept) = &mut folded.rows
                    && !rows.is_empty()
                {
                    kept.push((record.position, rows));
                }
                folded.changes.extend(applied.changes.iter().map(|change| (record.position, change.clone())));
                folded.outcomes.insert(record.position, applied);
                if folded.outcomes.len() > OUTCOMES_KEPT {
                    folded.outcomes.pop_first();
                }
            }
            drop(state);
            self.inner.position.send_replace(last);
        }
    }
}

/// Folds the log from its beginning to `end`, for the rows behind `stored`; blocks.
///
/// # Errors
/// Where the log is damaged or of a later release.
pub fn rows_between(journal: &Journal, stored: Position, end: Position) -> Result<Vec<(Position, Rows)>, FoldError> {
    let mut kept = Vec::new();
    refold(journal, end, |position, applied| {
        if position > stored && !applied.rows.is_empty() {
            kept.push((position, applied.rows));
        }
    })?;
    Ok(kept)
}

/// Folds the log from its beginning to `end`, and hands over what each record did.
fn refold(journal: &Journal, end: Position, mut take: impl FnMut(Position, Applied)) -> Result<(), FoldError> {
    let mut control = Control::default();
    let limits = (crate::domain::limits::READ_RECORDS_MAX, crate::domain::limits::READ_BYTES_MAX);
    let mut empty_reads = 0;
    while control.position() < end {
        let records = journal.read(Log::Control, control.position(), limits.0, limits.1)?;
        empty_reads = if records.is_empty() { empty_reads + 1 } else { 0 };
        if empty_reads > FOLD_TRIES {
            let detail = format!("the control log reaches to {end}, only {} was read", control.position());
            return Err(FoldError::Read(ReadError::Storage { detail }));
        }
        for record in records.into_iter().filter(|record| record.position <= end) {
            let entry = Entry::decode(&record.payload)
                .map_err(|source| FoldError::Entry { position: record.position, source })?;
            let stamp = Stamp { position: record.position, recorded_at: record.recorded_at };
            take(record.position, control.apply(stamp, &entry));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::control::command::Settings;
    use crate::domain::id::{Mode, WorkspaceId};
    use crate::domain::time::Millis;
    use crate::journal::MemoryJournal;

    #[tokio::test]
    async fn what_was_forgotten_is_read_again() {
        let journal = Journal::Memory(MemoryJournal::new(1));
        let plane = ControlPlane::open(journal).unwrap();
        let tenant = Tenant { workspace: WorkspaceId(0), mode: Mode::Live };
        for seconds in 1..=3 {
            let settings = Settings { grace: Millis::seconds(seconds), ..Settings::default() };
            plane.submit(Asking::by_command_line(tenant), Command::ChangeSettings { settings }).await.unwrap();
        }
        let all = plane.changes_after(Position::START).unwrap();
        assert_eq!((all.0, all.1.len()), (Position(3), 3));
        // Nobody held a partition, so every partition that is held had everything.
        plane.forget_changes(Position(2));
        assert_eq!(plane.changes_after(Position::START).unwrap(), all);
        plane.forget_changes(Position(3));
        assert_eq!(plane.changes_after(Position::START).unwrap(), all);
        assert_eq!(plane.changes_after(Position(1)).unwrap().1, all.1[1..]);
        assert_eq!(plane.changes_after(Position(3)).unwrap().1, []);
    }
}
