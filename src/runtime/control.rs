//! The control plane on this node: appends commands, folds the log, answers with the outcome of its own commands.

use super::base::{self, Base, Copies, FOLD_TRIES, RecordDigest};
use super::clock;
use crate::domain::control::command::{Command, Entry, Idempotency};
use crate::domain::control::fold::Control;
use crate::domain::control::outcome::{Applied, PositionedChange};
use crate::domain::id::{KeyId, Log, Position, Stamp, Tenant};
use crate::domain::partition::fact::ENGINE_VERSION;
use crate::domain::webhook::rows::Rows;
use crate::journal::{AppendError, Journal, ReadError};
use crate::snapshot::{Snapshot, SnapshotError, Snapshots};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use tokio::sync::watch;

/// How many outcomes are kept for those who wait for them.
const OUTCOMES_KEPT: usize = 4_096;
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
    /// Where older states of this log are; the log is folded from its beginning where there are none.
    snapshots: Option<Snapshots>,
    /// Where the snapshot ended that this node went on from.
    began_at: Position,
    state: RwLock<Control>,
    folded: Mutex<Folded>,
    position: watch::Sender<Position>,
}

#[derive(Debug, Default)]
struct Folded {
    outcomes: BTreeMap<Position, Applied>,
    copies: Copies,
    /// The record that was folded last.
    record: RecordDigest,
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
    /// The snapshots cannot be listed.
    #[error("use the snapshots")]
    Snapshots(#[from] SnapshotError),
    /// A record is not a command of this release.
    #[error("control record {position}")]
    Entry {
        /// The record.
        position: Position,
        /// What is wrong with it.
        source: crate::domain::control::entry::EntryError,
    },
    /// A later release folds on from here.
    #[error(
        "control record {position} asks for engine version {version}, this release folds up to {ENGINE_VERSION}: update this \
         node"
    )]
    TooNew {
        /// The record.
        position: Position,
        /// What it asks for.
        version: u32,
    },
}

impl FoldError {
    /// Tells whether another try comes to the same: the log itself is in the way, and not its storage.
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Entry { .. } | Self::TooNew { .. } => true,
            Self::Read(ReadError::Damaged { .. } | ReadError::Gap { .. } | ReadError::CutBack { .. }) => true,
            Self::Read(ReadError::Storage { .. }) | Self::Snapshots(_) => false,
        }
    }
}

impl ControlPlane {
    /// Folds the whole control log to its present end; blocks.
    ///
    /// # Errors
    /// Where the log is damaged or of a later release, or does not come whole: nothing may begin with a part of it.
    pub fn open(journal: Journal) -> Result<Self, FoldError> {
        Self::open_on(None, None, journal)
    }

    /// Folds the control log to its present end, from the newest usable snapshot.
    ///
    /// # Errors
    /// As [`Self::open`], and where the snapshots cannot be listed.
    pub async fn open_from(snapshots: Snapshots, journal: Journal) -> Result<Self, FoldError> {
        let newest = base::newest(&snapshots, journal.end(Log::Control)).await?;
        blocking(move || Self::open_on(Some(snapshots), newest, journal)).await
    }

    fn open_on(snapshots: Option<Snapshots>, newest: Option<Snapshot>, journal: Journal) -> Result<Self, FoldError> {
        let (mut state, mut folded) = (Control::default(), Folded::default());
        if let Some(Base { control, copies, record }) = Base::of(newest, &journal) {
            state = control;
            folded = Folded { copies, record, ..folded };
        }
        let (began_at, end) = (state.position(), journal.end(Log::Control));
        let (state, folded, (position, _)) = (RwLock::new(state), Mutex::new(folded), watch::channel(began_at));
        let inner = Inner { journal, snapshots, began_at, state, folded, position };
        let plane = Self { inner: Arc::new(inner) };
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

    /// Where the snapshot ended that this node went on from; the log's beginning where there was none.
    pub fn began_at(&self) -> Position {
        self.inner.began_at
    }

    /// Up to where the log is folded.
    pub fn position(&self) -> Position {
        *self.inner.position.borrow()
    }

    /// Tells of every advance of [`Self::position`].
    pub fn watch(&self) -> watch::Receiver<Position> {
        self.inner.position.subscribe()
    }

    /// Returns the changes behind a position, in order, with the position up to which they reach. What every partition of
    /// this node had was forgotten; for one that comes from elsewhere it is read again, and then kept for the next one.
    ///
    /// # Errors
    /// Where the log cannot be folded again.
    pub async fn changes_after(&self, after: Position) -> Result<(Position, Vec<PositionedChange>), FoldError> {
        let is_known = self.folded().copies.forgotten <= after;
        let older = if is_known { None } else { self.older(after).await? };
        let plane = self.clone();
        blocking(move || plane.changes_from(older, after)).await
    }

    fn changes_from(
        &self,
        older: Option<Snapshot>,
        after: Position,
    ) -> Result<(Position, Vec<PositionedChange>), FoldError> {
        // While this is held nobody else reads the log, which a shared journal has one place in.
        let mut folded = self.folded();
        let forgotten = folded.copies.forgotten;
        if after < forgotten {
            let base = Base::of(older, &self.inner.journal);
            let from = base.as_ref().map_or(Position::START, |base| base.control.position());
            let mut changes = Vec::new();
            base::refold(&self.inner.journal, base, forgotten, |position, applied| {
                changes.extend(applied.changes.into_iter().map(|change| (position, change)));
            })?;
            changes.append(&mut folded.copies.changes);
            folded.copies = Copies { changes, forgotten: from };
        }
        let known = &folded.copies.changes;
        let from = known.partition_point(|(position, _)| *position <= after);
        Ok((self.position(), known.get(from..).unwrap_or_default().to_vec()))
    }

    /// Forgets the changes that every partition of this node has.
    pub fn forget_changes(&self, through: Position) {
        let copies = &mut self.folded().copies;
        let known = copies.changes.partition_point(|(position, _)| *position <= through);
        copies.changes.drain(..known);
        copies.forgotten = copies.forgotten.max(through);
    }

    /// Keeps rows from here on, and returns where that is, with the rows before that are behind a position.
    ///
    /// # Errors
    /// Where the log cannot be folded again.
    pub async fn begin_rows(&self, stored: Position) -> Result<(Position, Vec<(Position, Rows)>), FoldError> {
        let older = if stored < self.position() { self.older(stored).await? } else { None };
        let plane = self.clone();
        blocking(move || plane.rows_from(older, stored)).await
    }

    fn rows_from(
        &self,
        older: Option<Snapshot>,
        stored: Position,
    ) -> Result<(Position, Vec<(Position, Rows)>), FoldError> {
        // While this is held nobody else reads the log, which a shared journal has one place in.
        let mut folded = self.folded();
        let (journal, end) = (&self.inner.journal, self.position());
        let rows = if stored < end {
            base::rows_between(journal, Base::of(older, journal), (stored, end))?
        } else {
            Vec::new()
        };
        folded.rows = Some(Vec::new());
        Ok((end, rows))
    }

    /// The newest snapshot at or below a position.
    async fn older(&self, at_most: Position) -> Result<Option<Snapshot>, FoldError> {
        match &self.inner.snapshots {
            Some(snapshots) => Ok(base::newest(snapshots, at_most).await?),
            None => Ok(None),
        }
    }

    /// Where snapshots of this log are kept, if anywhere.
    pub fn snapshots(&self) -> Option<&Snapshots> {
        self.inner.snapshots.as_ref()
    }

    /// What a snapshot is made of, as of now.
    pub fn base(&self) -> Base {
        let folded = self.folded();
        Base { control: self.state().clone(), copies: folded.copies.clone(), record: folded.record }
    }

    fn folded(&self) -> MutexGuard<'_, Folded> {
        self.inner.folded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the rows that were kept since the last call.
    pub fn take_rows(&self) -> Vec<(Position, Rows)> {
        let mut folded = self.folded();
        folded.rows.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Keeps no more rows, and forgets those that were kept.
    pub fn end_rows(&self) {
        self.folded().rows = None;
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
        let applied = self.folded().outcomes.get(&stamp.position).cloned();
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
        let mut folded = self.folded();
        loop {
            let after = self.position();
            if self.inner.journal.end(Log::Control) <= after {
                return Ok(());
            }
            let limits = (crate::domain::limits::READ_RECORDS_MAX, crate::domain::limits::READ_BYTES_MAX);
            let records = self.inner.journal.read(Log::Control, after, limits.0, limits.1)?;
            let Some(last) = records.last() else { return Ok(()) };
            let entries: Vec<(Stamp, Entry)> = records.iter().map(base::entry).collect::<Result<_, _>>()?;
            let mut state = self.inner.state.write().unwrap_or_else(PoisonError::into_inner);
            for (stamp, entry) in entries {
                let mut applied = state.apply(stamp, &entry);
                let rows = std::mem::take(&mut applied.rows);
                if let Some(kept) = &mut folded.rows
                    && !rows.is_empty()
                {
                    kept.push((stamp.position, rows));
                }
                folded.copies.changes.extend(applied.changes.iter().map(|change| (stamp.position, change.clone())));
                folded.outcomes.insert(stamp.position, applied);
                if folded.outcomes.len() > OUTCOMES_KEPT {
                    folded.outcomes.pop_first();
                }
            }
            drop(state);
            folded.record = base::digest(last);
            self.inner.position.send_replace(last.position);
        }
    }
}

/// Runs what blocks where that is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FoldError> + Send + 'static,
) -> Result<T, FoldError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(ReadError::Storage { detail: error.to_string() }.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::control::command::Settings;
    use crate::domain::id::{Mode, PartitionId, WorkspaceId};
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
        let all = plane.changes_after(Position::START).await.unwrap();
        assert_eq!((all.0, all.1.len()), (Position(3), 3));
        // Nobody held a partition, so every partition that is held had everything.
        plane.forget_changes(Position(2));
        assert_eq!(plane.changes_after(Position::START).await.unwrap(), all);
        plane.forget_changes(Position(3));
        assert_eq!(plane.changes_after(Position::START).await.unwrap(), all);
        assert_eq!(plane.changes_after(Position(1)).await.unwrap().1, all.1[1..]);
        assert_eq!(plane.changes_after(Position(3)).await.unwrap().1, []);
    }

    #[tokio::test]
    async fn a_plane_that_goes_on_from_a_snapshot_knows_the_same() {
        let tenant = Tenant { workspace: WorkspaceId(0), mode: Mode::Live };
        let (journal, snapshots) = (Journal::Memory(MemoryJournal::new(1)), Snapshots::memory());
        let plane = ControlPlane::open_from(snapshots.clone(), journal.clone()).await.unwrap();
        for seconds in 1..=6 {
            let settings = Settings { grace: Millis::seconds(seconds), ..Settings::default() };
            plane.submit(Asking::by_command_line(tenant), Command::ChangeSettings { settings }).await.unwrap();
            if seconds == 2 || seconds == 4 {
                plane.forget_changes(Position(u64::try_from(seconds).unwrap() - 1));
                plane.base().publish(&snapshots).await.unwrap();
            }
        }
        let whole = ControlPlane::open(journal.clone()).unwrap();
        for after in [6, 5, 4, 3, 2, 1, 0, 3] {
            let based = ControlPlane::open_from(snapshots.clone(), journal.clone()).await.unwrap();
            assert_eq!(based.began_at(), Position(4));
            assert!(*based.state() == *whole.state());
            let (asked, wanted) = (based.changes_after(Position(after)), whole.changes_after(Position(after)));
            assert_eq!(asked.await.unwrap(), wanted.await.unwrap(), "after {after}");
            // What was read again is there for the next one that asks.
            assert!(based.folded().copies.forgotten <= Position(after), "after {after}");
            assert_eq!(based.begin_rows(Position(after)).await.unwrap().0, Position(6));
        }
    }

    #[tokio::test]
    async fn snapshots_of_another_log_release_or_form_are_passed_over() {
        let tenant = Tenant { workspace: WorkspaceId(0), mode: Mode::Live };
        let log = async |grace: i64| {
            let journal = Journal::Memory(MemoryJournal::new(1));
            let plane = ControlPlane::open(journal.clone()).unwrap();
            for more in 0..3 {
                let settings = Settings { grace: Millis::seconds(grace + more), ..Settings::default() };
                plane.submit(Asking::by_command_line(tenant), Command::ChangeSettings { settings }).await.unwrap();
            }
            (journal, plane)
        };
        let ((journal, plane), (_, stranger)) = (log(1).await, log(10).await);
        let begins =
            async |snapshots: Snapshots| ControlPlane::open_from(snapshots, journal.clone()).await.unwrap().began_at();
        let (own, foreign) = (Snapshots::memory(), Snapshots::memory());
        plane.base().publish(&own).await.unwrap();
        stranger.base().publish(&foreign).await.unwrap();
        assert_eq!((begins(own.clone()).await, begins(foreign).await), (Position(3), Position::START));
        let snapshot = own.newest_at_or_below(PartitionId::CONTROL, Position(3)).await.unwrap().snapshot.unwrap();
        let altered = async |alter: fn(&mut Snapshot)| {
            let (snapshots, mut snapshot) = (Snapshots::memory(), snapshot.clone());
            alter(&mut snapshot);
            snapshots.publish(PartitionId::CONTROL, snapshot).await.unwrap();
            begins(snapshots).await
        };
        assert_eq!(altered(|_| {}).await, Position(3));
        assert_eq!(altered(|snapshot| snapshot.format += 1).await, Position::START);
        assert_eq!(altered(|snapshot| snapshot.parts[0].1.push(b'0')).await, Position::START);
        assert_eq!(altered(|snapshot| snapshot.parts.truncate(3)).await, Position::START);
        // It says that it ends at the record before, which is another one.
        assert_eq!(altered(|snapshot| snapshot.position = Position(2)).await, Position::START);
    }
}
