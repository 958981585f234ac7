//! When one asked: the instants inside of the last window, oldest first.

use std::collections::VecDeque;
use std::time::Duration;

/// The instants that count, in nanoseconds since some start. It grows with what is taken, and never past the limit.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    taken: VecDeque<u64>,
}

/// Whether one more was within the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It was, and counts.
    Taken(Standing),
    /// It was not, and does not count.
    Refused(Standing),
}

/// How much is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How many are allowed in any window.
    pub limit: u32,
    /// How many more would be taken at this instant.
    pub remaining: u32,
    /// When there is room for one more than now.
    pub wait: Duration,
}

impl Ring {
    /// Takes one more at `now`, where fewer than `limit` (at least 1) were taken in the window `(now - window, now]`.
    ///
    /// An instant before the last one that was taken counts as that one: callers race to get here.
    pub fn take(&mut self, now: Duration, window: Duration, limit: u32) -> Decision {
        let (now, window) = (self.not_before_last(nanos(now)), nanos(window));
        self.expire(now, window);
        let taken = self.taken.len();
        let limit_len = usize::try_from(limit).unwrap_or(usize::MAX);
        if taken >= limit_len {
            // A limit that was lowered has more behind it than it allows; all of those leave first.
            let frees = self.taken.get(taken - limit_len).copied().unwrap_or(now);
            let wait = Duration::from_nanos((frees + window).saturating_sub(now));
            return Decision::Refused(Standing { limit, remaining: 0, wait });
        }
        self.taken.push_back(now);
        let oldest = self.taken.front().copied().unwrap_or(now);
        let remaining = u32::try_from(limit_len - self.taken.len()).unwrap_or(u32::MAX);
        let wait = Duration::from_nanos((oldest + window).saturating_sub(now));
        Decision::Taken(Standing { limit, remaining, wait })
    }

    /// Tells whether one more would be refused.
    pub fn is_spent(&self, now: Duration, window: Duration, limit: u32) -> bool {
        let (now, window) = (nanos(now), nanos(window));
        let expired = self.taken.partition_point(|instant| instant + window <= now);
        self.taken.len() - expired >= usize::try_from(limit).unwrap_or(usize::MAX)
    }

    /// Forgets what no window holds any more; tells whether nothing is left.
    pub fn tidy(&mut self, now: Duration, window: Duration) -> bool {
        self.expire(nanos(now), nanos(window));
        if self.taken.len() < self.taken.capacity() / 4 {
            self.taken.shrink_to(self.taken.len() * 2);
        }
        self.taken.is_empty()
    }

    fn expire(&mut self, now: u64, window: u64) {
        while self.taken.front().is_some_and(|instant| instant + window <= now) {
            self.taken.pop_front();
        }
    }

    fn not_before_last(&self, now: u64) -> u64 {
        self.taken.back().map_or(now, |last| now.max(*last))
    }
}

fn nanos(span: Duration) -> u64 {
    // 584 years.
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    struct SplitMix(u64);

    impl SplitMix {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }
    }

    /// Ten minutes of arrivals, every decision of the ring held against a count over all that was ever taken.
    fn check(seed: u64, limit: u32, arrivals: u32) {
        let mut random = SplitMix(seed);
        let span = 600_000_000_000_u64;
        let mut now = 0_u64;
        let (mut ring, mut taken, mut refused) = (Ring::default(), Vec::<u64>::new(), 0_u32);
        let window = WINDOW.as_nanos() as u64;
        for _ in 0..arrivals {
            // Bursts, quiet spells, several at one instant, and the very edges of windows.
            let mean = span / u64::from(arrivals);
            now += match random.next() % 64 {
                0 => 0,
                1 => taken.first().map_or(0, |_| {
                    let oldest = taken[taken.len().saturating_sub(limit as usize)];
                    (oldest + window).saturating_sub(now).saturating_sub(random.next() % 2)
                }),
                _ => random.next() % (2 * mean),
            };
            let inside = taken.iter().rev().take_while(|instant| now - **instant < window).count();
            let expected = if inside < limit as usize {
                taken.push(now);
                let oldest = taken[taken.len() - 1 - inside];
                let remaining = limit - inside as u32 - 1;
                Decision::Taken(Standing { limit, remaining, wait: Duration::from_nanos(oldest + window - now) })
            } else {
                refused += 1;
                let frees = taken[taken.len() - limit as usize];
                Decision::Refused(Standing { limit, remaining: 0, wait: Duration::from_nanos(frees + window - now) })
            };
            let spent = ring.is_spent(Duration::from_nanos(now), WINDOW, limit);
            assert_eq!(spent, matches!(expected, Decision::Refused(_)), "seed {seed} at {now}");
            assert_eq!(ring.take(Duration::from_nanos(now), WINDOW, limit), expected, "seed {seed} at {now}");
        }
        // No window of the whole time holds more than the limit, wherever it begins.
        let over = taken.windows(limit as usize + 1).find(|run| run[limit as usize] - run[0] < window);
        assert_eq!(over, None, "seed {seed}");
        assert!(taken.len() > limit as usize * 8 && refused > arrivals / 4, "seed {seed}: {refused}, {}", taken.len());
    }

    #[test]
    fn every_decision_of_ten_minutes_is_that_of_a_count_over_everything() {
        check(1, 120, 100_000);
        check(2, 120, 60_000);
        check(3, 30, 100_000);
        check(4, 1, 40_000);
        check(5, 7, 100_000);
    }

    #[test]
    fn the_wait_ends_at_the_very_instant_there_is_room() {
        let mut ring = Ring::default();
        for at in [1, 2, 3] {
            assert!(matches!(ring.take(Duration::from_secs(at), WINDOW, 3), Decision::Taken(_)));
        }
        let now = Duration::from_millis(3_250);
        let Decision::Refused(standing) = ring.take(now, WINDOW, 3) else { panic!("four of three") };
        assert_eq!(standing.wait, Duration::from_millis(57_750));
        let before = now + standing.wait - Duration::from_nanos(1);
        assert!(matches!(ring.take(before, WINDOW, 3), Decision::Refused(_)));
        assert!(matches!(ring.take(now + standing.wait, WINDOW, 3), Decision::Taken(_)));
    }

    #[test]
    fn a_limit_may_change_under_way() {
        let (mut ring, at) = (Ring::default(), Duration::from_secs);
        for _ in 0..5 {
            ring.take(at(1), WINDOW, 5);
        }
        ring.take(at(31), WINDOW, 6);
        let Decision::Refused(standing) = ring.take(at(32), WINDOW, 1) else { panic!("lowered") };
        assert_eq!(standing.wait, at(59), "the sixth holds the one place until 91");
        let Decision::Taken(standing) = ring.take(at(32), WINDOW, 10) else { panic!("raised") };
        assert_eq!(standing.remaining, 3);
    }

    #[test]
    fn who_comes_late_to_the_race_counts_as_the_one_before() {
        let mut ring = Ring::default();
        ring.take(Duration::from_secs(10), WINDOW, 2);
        ring.take(Duration::from_secs(9), WINDOW, 2);
        assert!(matches!(ring.take(Duration::from_secs(69), WINDOW, 2), Decision::Refused(_)));
        assert!(matches!(ring.take(Duration::from_secs(70), WINDOW, 2), Decision::Taken(_)));
    }

    #[test]
    fn room_is_given_back() {
        let mut ring = Ring::default();
        for at in 0..6_000 {
            ring.take(Duration::from_millis(at), WINDOW, 6_000);
        }
        assert!(ring.taken.capacity() >= 6_000);
        assert!(!ring.tidy(Duration::from_millis(65_900), WINDOW));
        assert!(ring.taken.capacity() < 1_000, "{}", ring.taken.capacity());
        assert!(ring.tidy(Duration::from_secs(66), WINDOW));
    }
}
