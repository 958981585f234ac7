//! When a failed delivery is tried again. Pure: the jitter comes from a hash of what is tried.

use super::client::{Attempt, Failure};
use crate::domain::id::{ChannelId, NotificationId};
use crate::domain::limits::DELIVERY_ATTEMPTS_MAX;
use crate::domain::time::{Millis, Timestamp};
use sha2::{Digest, Sha256};

/// The waits behind the first attempts, as Standard Webhooks proposes them.
const SCHEDULE: [Millis; 9] = [
    Millis::seconds(5),
    Millis::minutes(5),
    Millis::minutes(30),
    Millis::hours(2),
    Millis::hours(5),
    Millis::hours(10),
    Millis::hours(14),
    Millis::hours(20),
    Millis::hours(24),
];

/// The least wait behind an answer that asks for less.
const THROTTLED: Millis = Millis::seconds(60);

/// A failed attempt.
#[derive(Clone, Copy, Debug)]
pub struct Try<'a> {
    /// What was sent.
    pub id: NotificationId,
    /// Where to.
    pub channel: ChannelId,
    /// Counts the attempts, from 1.
    pub attempt: u32,
    /// How it failed.
    pub failure: &'a Failure,
}

/// Returns when to try again; `None` when there is no sense in it or the schedule is at its end.
pub fn next_attempt(tried: &Try<'_>, now: Timestamp) -> Option<Timestamp> {
    if tried.failure.is_permanent() || tried.attempt >= DELIVERY_ATTEMPTS_MAX {
        return None;
    }
    let at = usize::try_from(tried.attempt.saturating_sub(1)).ok()?;
    let base = *SCHEDULE.get(at)?;
    let jittered = jitter(tried, base);
    let wait = match (tried.failure.retry_after(), tried.failure.is_slack()) {
        // Slack's limit is a promise; others may not park us for longer than twice our own wait.
        (Some(asked), true) => asked.max(Millis::seconds(1)),
        (Some(asked), false) => asked.max(base).min(Millis(base.0.saturating_mul(2))),
        (None, _) => jittered,
    };
    let wait = if tried.failure.is_throttling() && !tried.failure.is_slack() { wait.max(THROTTLED) } else { wait };
    Some(now.plus(wait))
}

/// Returns until when a destination is left alone after an attempt, where its answer says that it is overloaded.
pub fn penalty(attempt: &Attempt, now: Timestamp) -> Option<Timestamp> {
    let failure = attempt.result.as_ref().err().filter(|failure| failure.is_throttling())?;
    let wait = match (failure.retry_after(), failure.is_slack()) {
        (Some(asked), true) => asked.max(Millis::seconds(1)),
        (Some(asked), false) => asked.min(THROTTLED),
        (None, true) => Millis::seconds(5),
        (None, false) => Millis::seconds(1),
    };
    Some(now.plus(wait))
}

/// Moves a wait by up to a fifth, the same each time for the same attempt.
fn jitter(tried: &Try<'_>, base: Millis) -> Millis {
    let mut hash = Sha256::new();
    hash.update(tried.id.0.to_le_bytes());
    hash.update(tried.channel.0.to_le_bytes());
    hash.update(tried.attempt.to_le_bytes());
    let digest = hash.finalize();
    let random = i64::from(u16::from_le_bytes([digest[0], digest[1]]));
    let fifth = base.0 / 5;
    Millis(base.0 - fifth + 2 * fifth * random / i64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn status(code: u16, retry_after: Option<i64>) -> Failure {
        Failure::Status { code, retry_after: retry_after.map(Millis::seconds), body: String::new(), slack: false }
    }

    fn wait(attempt: u32, failure: &Failure) -> Option<i64> {
        let tried = Try { id: NotificationId(7), channel: ChannelId(9), attempt, failure };
        next_attempt(&tried, Timestamp(0)).map(|at| at.0 / 1_000)
    }

    #[test]
    fn the_schedule_ends_and_some_failures_end_it_at_once() {
        assert!((4..=6).contains(&wait(1, &status(500, None)).unwrap()));
        assert!((69_120..=103_680).contains(&wait(9, &status(500, None)).unwrap()));
        assert_eq!(wait(10, &status(500, None)), None);
        assert_eq!(wait(1, &status(410, None)), None);
        assert_eq!(wait(1, &status(429, Some(3_600))), Some(60), "ten seconds at most, but a minute behind a 429");
        assert_eq!(wait(2, &status(429, Some(3_600))), Some(600));
        let slack =
            Failure::Status { code: 429, retry_after: Some(Millis::seconds(42)), body: String::new(), slack: true };
        assert_eq!(wait(1, &slack), Some(42));
    }

    proptest! {
        #[test]
        fn jitter_stays_within_a_fifth(id: u128, attempt in 1_u32..9) {
            let failure = status(500, None);
            let base = SCHEDULE[attempt as usize - 1].0;
            let tried = Try { id: NotificationId(id), channel: ChannelId(1), attempt, failure: &failure };
            let at = next_attempt(&tried, Timestamp(0)).unwrap().0;
            prop_assert!(at * 5 >= base * 4 && at * 5 <= base * 6);
        }
    }
}
