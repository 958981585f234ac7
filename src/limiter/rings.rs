//! A ring for each of many, bounded in number: made on first use, dropped when idle.

use super::ring::{Decision, Ring};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// So that callers on many cores rarely wait for each other.
const SHARDS: usize = 16;

/// Rings by key. What is asked of it is answered from memory, behind a lock that is held for a moment.
#[derive(Debug)]
pub struct Rings<K> {
    window: Duration,
    idle: Duration,
    /// Keys of one shard.
    shard_max: usize,
    hasher: RandomState,
    shards: Vec<Mutex<Shard<K>>>,
}

#[derive(Debug)]
struct Shard<K> {
    rings: HashMap<K, Ring>,
    swept: Duration,
}

/// There is no room for another ring, so what it would count is not allowed: forgetting another's would let that one in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many ask at once to count each")]
pub struct Full;

impl<K: Hash + Eq> Rings<K> {
    /// Counts in windows of one length, for at most `max` keys; one that was idle for `idle` is forgotten.
    pub fn new(window: Duration, idle: Duration, max: usize) -> Self {
        let shard = || Mutex::new(Shard { rings: HashMap::new(), swept: Duration::ZERO });
        Self {
            window,
            idle: idle.max(window),
            shard_max: (max / SHARDS).max(1),
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| shard()).collect(),
        }
    }

    /// Takes one more of a key's at `now`, a time since any fixed start.
    ///
    /// # Errors
    /// Where the key is new and there is no room for it.
    pub fn take(&self, key: K, limit: u32, now: Duration) -> Result<Decision, Full> {
        let mut shard = self.shard(&key);
        if now.saturating_sub(shard.swept) >= self.idle {
            self.sweep(&mut shard, now);
        }
        if shard.rings.len() >= self.shard_max && !shard.rings.contains_key(&key) {
            self.sweep(&mut shard, now);
            if shard.rings.len() >= self.shard_max {
                return Err(Full);
            }
        }
        Ok(shard.rings.entry(key).or_default().take(now, self.window, limit))
    }

    /// Tells whether one more of a key's would be refused at `now`.
    pub fn is_spent(&self, key: &K, limit: u32, now: Duration) -> bool {
        self.shard(key).rings.get(key).is_some_and(|ring| ring.is_spent(now, self.window, limit))
    }

    /// How many rings there are.
    pub fn count(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).rings.len()).sum()
    }

    /// Drops the rings that no window holds anything of.
    fn sweep(&self, shard: &mut Shard<K>, now: Duration) {
        shard.rings.retain(|_, ring| !ring.tidy(now, self.window));
        shard.rings.shrink_to(shard.rings.len() * 2);
        shard.swept = now;
    }

    fn shard(&self, key: &K) -> MutexGuard<'_, Shard<K>> {
        let place = usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or(0) % SHARDS;
        lock(&self.shards[place])
    }
}

fn lock<K>(shard: &Mutex<Shard<K>>) -> MutexGuard<'_, Shard<K>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn each_key_is_counted_for_itself_and_forgotten_when_idle() {
        let rings = Rings::new(MINUTE, 2 * MINUTE, 100_000);
        for key in 0..1_000 {
            for _ in 0..3 {
                assert!(matches!(rings.take(key, 3, MINUTE), Ok(Decision::Taken(_))));
            }
            assert!(matches!(rings.take(key, 3, MINUTE), Ok(Decision::Refused(_))));
            assert!(rings.is_spent(&key, 3, MINUTE) && !rings.is_spent(&key, 4, MINUTE));
        }
        assert_eq!(rings.count(), 1_000);
        // Whoever comes later sweeps the shards of those who do not.
        for key in 0..200 {
            assert!(matches!(rings.take(key, 3, 4 * MINUTE), Ok(Decision::Taken(_))));
        }
        assert_eq!(rings.count(), 200);
    }

    #[test]
    fn there_is_a_bound_and_it_lets_nobody_ask_twice() {
        let rings = Rings::new(MINUTE, 2 * MINUTE, 160);
        let fit = (0..10_000).filter(|key| rings.take(*key, 1, MINUTE).is_ok()).count();
        assert_eq!((fit, rings.count()), (160, 160));
        let again = (0..10_000).filter(|key| matches!(rings.take(*key, 1, MINUTE), Ok(Decision::Taken(_)))).count();
        assert_eq!(again, 0);
        // Room is made as soon as windows have passed, not only behind two idle minutes.
        assert!((10_000..10_050).all(|key| rings.take(key, 1, 2 * MINUTE).is_ok()));
    }

    #[test]
    fn many_threads_take_no_more_than_the_limit() {
        let rings = Rings::new(MINUTE, 2 * MINUTE, 1_000);
        let taken = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let (rings, taken) = (&rings, &taken);
                scope.spawn(move || {
                    for at in 0..1_000 {
                        let now = Duration::from_nanos(at * 7 + thread);
                        if matches!(rings.take("one", 120, now), Ok(Decision::Taken(_))) {
                            taken.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(taken.into_inner(), 120);
    }
}
