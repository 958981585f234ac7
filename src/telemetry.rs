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
