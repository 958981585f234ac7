//! How figures are said.

use std::time::Duration;

/// The median, the 99th percentile and the maximum, in milliseconds.
pub(crate) fn shares(mut taken: Vec<Duration>) -> String {
    taken.sort();
    let at = |share: f64| taken[((taken.len() - 1) as f64 * share) as usize].as_secs_f64() * 1_000.0;
    format!("p50 {:.3} ms, p99 {:.3} ms, max {:.1} ms of {}", at(0.5), at(0.99), at(1.0), taken.len())
}
