//! The one place that reads a clock, and that draws identifiers.

use super::clock_step::{ClockChange, ClockReading, ClockSteps};
use crate::domain::limits::CLOCK_KEPT_FOR;
use crate::domain::time::{Millis, Timestamp};
use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

static STEPS: Mutex<ClockSteps> = Mutex::new(ClockSteps::new());

/// Returns the present instant: that of the wall clock, which a step forward takes along only when it has lasted.
pub fn now() -> Timestamp {
    let (now, change) = {
        let mut steps = STEPS.lock().unwrap_or_else(PoisonError::into_inner);
        steps.read(read())
    };
    match change {
        None => {}
        Some(ClockChange::Doubted(ahead)) => {
            tracing::warn!(
                ahead_seconds = ahead.0 / 1_000,
                "the wall clock was put forward; time goes on by the clock from the boot until it has stayed for {CLOCK_KEPT_FOR}"
            );
        }
        Some(ClockChange::Taken(ahead)) => {
            tracing::warn!(
                ahead_seconds = ahead.0 / 1_000,
                "the wall clock stayed where it was put; time goes by it again"
            );
        }
        Some(ClockChange::Recovered) => tracing::info!("the wall clock is back where it was; time goes by it again"),
    }
    now
}

/// Returns how far the wall clock is ahead of [`now`]; zero where it is believed.
pub fn wall_ahead() -> Millis {
    now();
    STEPS.lock().unwrap_or_else(PoisonError::into_inner).doubted_by().unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn read() -> ClockReading {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall = Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    ClockReading { wall, since_boot: since_boot() }
}

/// The time since the boot, with the time that the machine was suspended.
#[cfg(target_os = "linux")]
fn since_boot() -> Millis {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Millis::seconds(at.tv_sec).plus(Millis(at.tv_nsec / 1_000_000))
}

/// The time since the first reading. Where the system has no clock that counts suspended time, its end looks like a step, and is
/// believed when it has lasted.
#[cfg(not(target_os = "linux"))]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn since_boot() -> Millis {
    static BEGAN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let since = BEGAN.get_or_init(Instant::now).elapsed();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
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
