//! Named invariants: what must hold whatever happens. A breach stops a debug build and is counted in a release.

use std::sync::atomic::{AtomicU64, Ordering};

static BREACHES: AtomicU64 = AtomicU64::new(0);

/// Returns how many invariants were seen broken since the process started.
pub fn breaches() -> u64 {
    BREACHES.load(Ordering::Relaxed)
}

/// Notes a breach. Use [`check!`](crate::check), not this.
pub fn breach(name: &'static str) {
    BREACHES.fetch_add(1, Ordering::Relaxed);
    debug_assert!(false, "invariant broken: {name}");
}

/// Checks a named invariant: `check!(condition, "windows.grace_before_eviction")`.
#[macro_export]
macro_rules! check {
    ($condition:expr, $name:literal) => {
        if !$condition {
            $crate::domain::invariant::breach($name);
        }
    };
}
