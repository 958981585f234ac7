//! Messages that are pending: since when the oldest one is, read at each scrape, and how long those under way may hold a stop back.

use super::clock::Deadline;
use crate::domain::limits::DELIVERIES_STOP_TIMEOUT;
use crate::domain::time::Timestamp;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Messages that are pending, each with the time that it became so.
#[derive(Debug)]
pub struct Pending<K>(Mutex<Times<K>>);

#[derive(Debug)]
struct Times<K> {
    by_key: BTreeMap<K, Timestamp>,
    in_order: BTreeSet<(Timestamp, K)>,
}

impl<K> Default for Pending<K> {
    fn default() -> Self {
        Self(Mutex::new(Times { by_key: BTreeMap::new(), in_order: BTreeSet::new() }))
    }
}

impl<K: Copy + Ord> Pending<K> {
    /// Notes that a message is pending since then; what is known of one already stays.
    pub fn add(&self, key: K, since: Timestamp) {
        let mut times = self.lock();
        let Times { by_key, in_order } = &mut *times;
        if let Entry::Vacant(place) = by_key.entry(key) {
            place.insert(since);
            in_order.insert((since, key));
        }
    }

    /// Notes that a message settled, or is another node's from here on.
    pub fn remove(&self, key: K) {
        let mut times = self.lock();
        if let Some(since) = times.by_key.remove(&key) {
            times.in_order.remove(&(since, key));
        }
    }

    /// Since when the oldest of those is pending that `counts` tells of.
    pub fn oldest(&self, counts: impl Fn(&K) -> bool) -> Option<Timestamp> {
        self.lock().in_order.iter().find(|(_, key)| counts(key)).map(|(since, _)| *since)
    }

    fn lock(&self) -> MutexGuard<'_, Times<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long attempts under way may still take: from the word to stop on, all of them together.
pub(super) fn patience_left(stopping: bool, until: &mut Option<Deadline>) -> Duration {
    let patience = Duration::from_millis(u64::try_from(DELIVERIES_STOP_TIMEOUT.0).unwrap_or(0));
    if stopping { until.get_or_insert_with(|| Deadline::within(patience)).remaining() } else { patience }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_stays_the_oldest_until_it_settles() {
        let pending = Pending::default();
        let oldest = || pending.oldest(|_| true).map(|since| since.0);
        assert_eq!(oldest(), None);
        pending.add(1, Timestamp(10));
        pending.add(2, Timestamp(5));
        // A retry is told again, and is as old as it was.
        pending.add(2, Timestamp(7));
        assert_eq!((oldest(), pending.oldest(|key| *key != 2)), (Some(5), Some(Timestamp(10))));
        pending.remove(2);
        pending.remove(2);
        assert_eq!(oldest(), Some(10));
        pending.remove(1);
        assert_eq!(oldest(), None);
        // What is asked for again after it settled begins anew.
        pending.add(1, Timestamp(20));
        assert_eq!(oldest(), Some(20));
    }
}
