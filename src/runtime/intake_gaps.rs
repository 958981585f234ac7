//! What this node found missing in the intake, for people: counted, and which partitions are not read for that.

use crate::domain::control::intake::IntakeGap;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What was found since the process began; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct IntakeGaps(Arc<Mutex<Found>>);

#[derive(Debug, Default)]
struct Found {
    ids: BTreeSet<String>,
    messages: u64,
    stopped: BTreeSet<i32>,
}

impl IntakeGaps {
    /// Counts a gap, once; tells whether it is another one than those before.
    pub fn note(&self, gap: &IntakeGap) -> bool {
        let mut found = self.lock();
        let is_new = found.ids.insert(gap.id());
        if is_new {
            found.messages = found.messages.saturating_add(gap.messages().unwrap_or(0));
        }
        is_new
    }

    /// Notes that a partition is not read for a gap, or is read again.
    pub fn stop(&self, partition: i32, is_stopped: bool) {
        let stopped = &mut self.lock().stopped;
        if is_stopped {
            stopped.insert(partition);
        } else {
            stopped.remove(&partition);
        }
    }

    /// How many gaps, and how many messages are known to be gone with them.
    pub fn counts(&self) -> (usize, u64) {
        let found = self.lock();
        (found.ids.len(), found.messages)
    }

    /// The partitions that this node does not read for a gap.
    pub fn stopped(&self) -> Vec<i32> {
        self.lock().stopped.iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
