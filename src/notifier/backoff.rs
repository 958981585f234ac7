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

/// The longest that a receiver may have itself left alone: no retry, the first one included, may wait for longer than twice
/// its own wait.
const THROTTLED_MAX: Millis = Millis::seconds(10);

/// The longest wait that is read of an answer.
const ASKED_MAX: Millis = Millis::hours(24);

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
        (Some(asked), false) => asked.clamp(base, Millis(base.0.saturating_mul(2))),
        (None, _) => jittered,
    };
    Some(now.plus(wait))
}

/// Returns until when a destination is left alone after an attempt, where its answer says that it is overloaded.
pub fn penalty(attempt: &Attempt, now: Timestamp) -> Option<Timestamp> {
    let failure = attempt.result.as_ref().err().filter(|failure| failure.is_throttling())?;
    let wait = match (failure.retry_after(), failure.is_slack()) {
        (Some(asked), true) => asked.max(Millis::seconds(1)),
        (Some(asked), false) => asked.min(THROTTLED_MAX),
        (None, true) => Millis::seconds(5),
        (None, false) => Millis::seconds(1),
    };
    Some(now.plus(wait))
}

/// Reads a `Retry-After`: seconds, or an instant in one of the three forms that HTTP knows (RFC 9110 §5.6.7).
///
/// What is over already is no wait; what is more than a day is a day; what is neither form is nothing.
pub fn asked(text: &str, now: Timestamp) -> Option<Millis> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds: i64 = text.parse().unwrap_or(i64::MAX);
        return Some(Millis(seconds.saturating_mul(1_000)).min(ASKED_MAX));
    }
    let forms = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    let date = forms.iter().find_map(|form| jiff::civil::DateTime::strptime(form, text).ok())?;
    let at = date.duration_since(jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0)).as_secs().saturating_mul(1_000);
    Some(Millis(at.saturating_sub(now.0)).clamp(Millis(0), ASKED_MAX))
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
        for code in [429, 502, 503, 504] {
            assert_eq!(wait(1, &status(code, Some(3_600))), Some(10), "{code}: twice the wait at most");
            assert_eq!(wait(1, &status(code, Some(0))), Some(5), "{code}: the wait at least");
            assert!((4..=6).contains(&wait(1, &status(code, None)).unwrap()), "{code}");
        }
        assert!((4..=6).contains(&wait(1, &Failure::Timeout).unwrap()));
        assert_eq!(wait(2, &status(429, Some(3_600))), Some(600));
        let slack =
            Failure::Status { code: 429, retry_after: Some(Millis::seconds(42)), body: String::new(), slack: true };
        assert_eq!(wait(1, &slack), Some(42));
    }

    #[test]
    fn an_overloaded_receiver_is_left_alone_for_no_longer_than_its_first_retry_waits() {
        let left_alone = |failure: Failure| penalty(&Attempt { result: Err(failure) }, Timestamp(0)).map(|at| at.0);
        assert_eq!(left_alone(status(429, Some(3_600))), Some(10_000));
        assert_eq!(left_alone(status(502, Some(3))), Some(3_000));
        assert_eq!(left_alone(status(504, None)), Some(1_000));
        assert_eq!(left_alone(Failure::Timeout), Some(1_000));
        assert_eq!(left_alone(status(500, Some(3))), None);
    }

    #[test]
    fn a_wait_is_asked_for_in_seconds_or_by_an_instant_in_any_form_of_http() {
        let now = Timestamp(784_111_777_000); // 1994-11-06T08:49:37Z
        let seconds = |text: &str| asked(text, now).map(|wait| wait.0 / 1_000);
        assert_eq!(seconds(" 120 "), Some(120));
        assert_eq!(seconds("99999999999999999999999"), Some(86_400));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(seconds("Sunday, 06-Nov-94 08:50:37 GMT"), Some(60));
        assert_eq!(seconds("Sun Nov  6 08:50:37 1994"), Some(60));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:00 GMT"), Some(0), "over already");
        assert_eq!(seconds("Fri, 31 Dec 9999 23:59:59 GMT"), Some(86_400));
        for text in ["", "soon", "-5", "1.5", "Sun, 31 Feb 1994 08:49:37 GMT", "1994-11-06T08:50:37Z"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    /// Numbers and instants of all sizes, and what is neither.
    fn asks() -> impl Strategy<Value = String> {
        let date = (1_u32..29, 0_u32..24, 1_900_u32..2_200)
            .prop_map(|(day, hour, year)| format!("Mon, {day:02} Nov {year} {hour:02}:37:00 GMT"));
        prop_oneof!["[0-9]{1,24}", "[A-Z][a-z]{2} Nov [ 12][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2} [0-9]{4}", date, ".{0,64}"]
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for_is_a_wait_of_a_day_at_most(text in asks(), now: i64) {
            let wait = asked(&text, Timestamp(now)).unwrap_or(Millis(0));
            prop_assert!((Millis(0)..=ASKED_MAX).contains(&wait));
        }

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
