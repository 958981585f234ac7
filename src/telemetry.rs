//! Metric names, and how logs are set up. Nothing else names a metric.

use std::error::Error;
use std::fmt::Write as _;

/// Prints an error with its causes: `append the command: disk full`.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        // Writing to a string cannot fail.
        let _written = write!(text, ": {inner}");
        cause = inner.source();
    }
    text
}

/// Counts what a batch of a fold did.
pub fn count_fold(counts: &crate::domain::partition::effect::Counts) {
    counter("highwater_events_folded_total", &[("result", "counted")], counts.events);
    counter("highwater_events_folded_total", &[("result", "duplicate")], counts.duplicates);
    counter("highwater_events_folded_total", &[("result", "conflict")], counts.conflicts);
    counter("highwater_events_late_total", &[], counts.late);
    counter("highwater_events_ungrouped_total", &[], counts.ungrouped);
    counter("highwater_alert_evaluations_total", &[], counts.evaluations);
    counter("highwater_alert_late_uncorrected_total", &[], counts.late_uncorrected);
}

/// Adds to a counter. Labels are few and never name a tenant.
#[expect(clippy::disallowed_macros, reason = "the one place that names metrics")]
pub fn counter(name: &'static str, labels: &[(&'static str, &'static str)], by: u64) {
    if by > 0 {
        metrics::counter!(name, &labels.to_vec()).increment(by);
    }
}

/// Sets a gauge.
#[expect(clippy::disallowed_macros, reason = "the one place that names metrics")]
pub fn gauge(name: &'static str, labels: Vec<(&'static str, String)>, value: f64) {
    metrics::gauge!(name, &labels).set(value);
}

/// Adds to a histogram of seconds.
#[expect(clippy::disallowed_macros, reason = "the one place that names metrics")]
pub fn seconds(name: &'static str, labels: Vec<(&'static str, String)>, elapsed: std::time::Duration) {
    metrics::histogram!(name, &labels).record(elapsed.as_secs_f64());
}
