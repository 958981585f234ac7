//! The one place that reads a clock, and that draws identifiers.

use crate::domain::time::Timestamp;
use std::cell::RefCell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Returns the present instant.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Measures how long something took.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts to measure.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Returns the time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// An instant by which something must have ended.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// Makes the one that is `span` away from here.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn within(span: Duration) -> Self {
        Self(Instant::now() + span)
    }

    /// Returns the time that is left.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Returns the time that is left until `reserve` before it.
    pub fn remaining_before(self, reserve: Duration) -> Duration {
        self.remaining().saturating_sub(reserve)
    }
}

/// Returns random bytes from the operating system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    loop {
        // The call fails only where the kernel has no random source yet; there is nothing better to do than to wait.
        if getrandom::fill(&mut bytes).is_ok() {
            return bytes;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Draws 16 random bytes that need not be secret: of the operating system too, which is asked for many at once.
fn pooled() -> [u8; 16] {
    const POOL: usize = 1_024;
    thread_local! {
        static LEFT: RefCell<Vec<[u8; 16]>> = const { RefCell::new(Vec::new()) };
    }
    LEFT.with_borrow_mut(|left| {
        left.pop().unwrap_or_else(|| {
            left.extend(random::<POOL>().as_chunks::<16>().0);
            random()
        })
    })
}

/// Draws a ULID: 48 bits of time, 80 random ones.
pub fn ulid() -> u128 {
    let random = pooled();
    let ms = u64::try_from(now().0).unwrap_or(0);
    ulid::Ulid::from_parts(ms, u128::from_le_bytes(random)).0
}
