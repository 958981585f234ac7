//! Which engine version the logs may be asked for: never one that a member of the cluster cannot fold.
//!
//! [`version_to_ask`] decides and is pure; [`EngineVersions`] keeps what was last read of the members, for the timekeeper, which
//! appends, and for people, who want to know what holds a version back. Nothing here appends.

use super::clock::Stopwatch;
use super::control::ControlPlane;
use super::partitions::{Held, Partitions};
use crate::domain::partition::fact::{ENGINE_VERSION, QUOTAS_TOLD};
use crate::journal::{Journal, Member};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// What a member folds whose release does not say it: the first one that does folds version 3.
const UNSAID: u32 = QUOTAS_TOLD;
/// How often a log that is behind is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often the members are read while a log is behind, at first and later.
const READ_EVERY: Duration = Duration::from_secs(1);
const READ_EVERY_LATER: Duration = Duration::from_secs(5);
const AT_FIRST: Duration = Duration::from_secs(60);
/// A reading that is older says nothing of who may have joined since.
const FRESH: Duration = Duration::from_secs(2);
/// How long settings wait at most to be copied to the partitions for the first word on the members.
const FIRST_WORD: Duration = Duration::from_secs(10);

/// Who folds the logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members {
    /// This process alone.
    OnlyThis,
    /// Each of these folds its share, up to a version.
    Known(Vec<u32>),
    /// The storage did not say.
    Unknown,
}

/// Returns the version that the logs may be asked for, where this process may ask for `own` at most: none that any member
/// cannot fold, and none at all where it is not known who the members are.
pub fn version_to_ask(own: u32, members: &Members) -> Option<u32> {
    match members {
        Members::OnlyThis => Some(own),
        Members::Known(versions) => versions.iter().min().map(|least| own.min(*least)),
        Members::Unknown => None,
    }
}

/// What is known of the members; cheap to clone.
#[derive(Clone, Debug)]
pub struct EngineVersions {
    own: u32,
    is_shared: bool,
    begun: Stopwatch,
    reading: Arc<Mutex<Option<MembersRead>>>,
}

#[derive(Debug)]
struct MembersRead {
    at: Stopwatch,
    /// Each with where it connects from; an error where they could not be read.
    members: Result<Vec<(u32, String)>, String>,
}

impl EngineVersions {
    /// Begins; `held_back` is the version that an operator allows at most.
    pub fn new(held_back: Option<u32>, journal: &Journal) -> Self {
        let own = held_back.unwrap_or(ENGINE_VERSION).clamp(1, ENGINE_VERSION);
        Self { own, is_shared: journal.is_shared(), begun: Stopwatch::start(), reading: Arc::default() }
    }

    /// The version that this process asks for at most, and that it says of itself to the other members.
    pub const fn own(&self) -> u32 {
        self.own
    }

    /// The version that the logs may be asked for at this moment.
    pub fn to_ask(&self) -> Option<u32> {
        if !self.is_shared {
            return version_to_ask(self.own, &Members::OnlyThis);
        }
        let members = match &*self.lock() {
            Some(MembersRead { at, members: Ok(members) }) if at.elapsed() < FRESH => {
                Members::Known(members.iter().map(|(version, _)| *version).collect())
            }
            Some(_) | None => Members::Unknown,
        };
        version_to_ask(self.own, &members)
    }

    /// Tells whether partitions may learn of settings: not before it is known how they will be folded, or for too long a wait.
    pub fn has_first_word(&self) -> bool {
        let has_read = || self.lock().as_ref().is_some_and(|read| read.members.is_ok());
        !self.is_shared || self.begun.elapsed() > FIRST_WORD || has_read()
    }

    /// How many members fold up to which version, by the last reading; absent where it said nothing.
    pub fn members(&self) -> Option<BTreeMap<u32, usize>> {
        let reading = self.lock();
        let members = reading.as_ref()?.members.as_ref().ok()?;
        let mut counts = BTreeMap::new();
        members.iter().for_each(|(version, _)| *counts.entry(*version).or_insert(0) += 1);
        Some(counts)
    }

    fn note(&self, read: Result<Vec<Member>, String>) {
        let of = |member: Member| (member.engine_version.unwrap_or(UNSAID), member.host);
        let members = read.map(|members| members.into_iter().map(of).collect::<Vec<_>>());
        let mut reading = self.lock();
        if let Ok(read) = &members
            && reading.as_ref().is_none_or(|before| before.members.as_ref() != Ok(read))
        {
            self.report(read);
        }
        *reading = Some(MembersRead { at: Stopwatch::start(), members });
    }

    /// Says who holds the logs back; what could not be read is said elsewhere.
    fn report(&self, members: &[(u32, String)]) {
        let less = members.iter().filter(|(version, _)| *version < self.own);
        let less: Vec<String> = less.map(|(version, host)| format!("{host} (version {version})")).collect();
        if !less.is_empty() {
            let (own, held_back_by) = (self.own, less.join(", "));
            tracing::info!(own, held_back_by, "members that fold less hold back the engine version of the logs");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<MembersRead>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_due(&self, patience: Duration) -> bool {
        self.lock().as_ref().is_none_or(|read| read.at.elapsed() >= patience)
    }
}

/// Reads who the members of a shared journal are, for as long as a log is behind what this process would ask for, until
/// `stop` says so.
pub async fn watch_members(
    versions: EngineVersions,
    journal: Journal,
    control: ControlPlane,
    partitions: Partitions,
    mut stop: watch::Receiver<bool>,
) {
    let begun = Stopwatch::start();
    let mut unread = Unread::default();
    while !*stop.borrow() {
        let patience = if begun.elapsed() < AT_FIRST { READ_EVERY } else { READ_EVERY_LATER };
        let patience = if versions.has_first_word() { patience } else { LOOK_EVERY };
        if is_behind(versions.own(), &control, &partitions) && versions.is_due(patience) {
            let asking = journal.clone();
            let read = tokio::task::spawn_blocking(move || asking.members()).await;
            let read = read.map_err(|error| error.to_string());
            let read = read.and_then(|members| members.map_err(|error| error.to_string()));
            unread.note(&read);
            versions.note(read);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = stop.changed() => return,
        }
    }
}

/// Since when the members could not be read.
#[derive(Debug, Default)]
struct Unread {
    since: Option<Stopwatch>,
    is_said: bool,
}

impl Unread {
    /// A group that shares out anew is read a moment later; one that is not read for long is worth a word.
    fn note(&mut self, read: &Result<Vec<Member>, String>) {
        let Err(detail) = read else {
            *self = Self::default();
            return;
        };
        let since = *self.since.get_or_insert_with(Stopwatch::start);
        if since.elapsed() > FIRST_WORD && !self.is_said {
            self.is_said = true;
            tracing::warn!(detail, "the members of the cluster cannot be read; the logs keep their engine version");
        }
    }
}

/// Tells whether a log that this node folds asks for less than a version.
fn is_behind(version: u32, control: &ControlPlane, partitions: &Partitions) -> bool {
    let held = partitions.held();
    let folded = |held: &Arc<Held>| held.processor.gauges.engine_version.load(Ordering::Relaxed);
    control.state().engine_version() < version || held.iter().any(|held| folded(held) < version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::MemoryJournal;

    #[test]
    fn no_version_is_asked_for_that_a_member_cannot_fold() {
        for (own, members, asked) in [
            (3, Members::OnlyThis, Some(3)),
            (2, Members::OnlyThis, Some(2)),
            (3, Members::Unknown, None),
            // A group that lists nobody says nothing: this process itself must be among its members.
            (3, Members::Known(vec![]), None),
            (3, Members::Known(vec![3]), Some(3)),
            (3, Members::Known(vec![3, 2, 3]), Some(2)),
            // What others could fold is no reason to ask for more than this release folds, or may ask for.
            (3, Members::Known(vec![4, 4]), Some(3)),
            (2, Members::Known(vec![3, 3, 2]), Some(2)),
            (3, Members::Known(vec![3, 1]), Some(1)),
        ] {
            assert_eq!(version_to_ask(own, &members), asked, "{own} among {members:?}");
        }
    }

    #[test]
    fn an_own_journal_asks_for_what_the_operator_allows() {
        let journal = Journal::Memory(MemoryJournal::new(1));
        for (held_back, asked) in [(None, ENGINE_VERSION), (Some(1), 1), (Some(ENGINE_VERSION), ENGINE_VERSION)] {
            let versions = EngineVersions::new(held_back, &journal);
            assert_eq!((versions.to_ask(), versions.has_first_word()), (Some(asked), true));
        }
    }

    #[test]
    fn members_count_for_what_they_say_or_for_version_2() {
        let journal = Journal::Memory(MemoryJournal::new(1));
        let versions = EngineVersions { is_shared: true, own: 3, ..EngineVersions::new(None, &journal) };
        assert_eq!((versions.to_ask(), versions.has_first_word(), versions.members()), (None, false, None));
        let member = |engine_version| Member { host: "10.0.0.1".to_owned(), engine_version };
        versions.note(Ok(vec![member(Some(3)), member(None), member(Some(3))]));
        assert_eq!((versions.to_ask(), versions.has_first_word()), (Some(2), true));
        assert_eq!(versions.members(), Some(BTreeMap::from([(2, 1), (3, 2)])));
        versions.note(Ok(vec![member(Some(3)), member(Some(4))]));
        assert_eq!(versions.to_ask(), Some(3));
        versions.note(Err("the brokers are away".to_owned()));
        assert_eq!((versions.to_ask(), versions.members()), (None, None));
    }
}
