//! The table of faults: what was accepted and counted, and how long it took until everything worked again.

use crate::load::Tally;
use std::time::Duration;

/// What is known of a fault when everything works again.
pub(super) struct Row {
    pub(super) fault: String,
    /// Events that were accepted before it.
    pub(super) before: u64,
    /// Events that were accepted while it lasted.
    pub(super) during: u64,
    pub(super) recovery: Recovery,
}

/// How long it took from the fault's end, or from its beginning where it has none.
pub(super) struct Recovery {
    /// Until every node accepted events for every account.
    pub(super) accepting: Duration,
    /// Until these were in every answer.
    pub(super) counting: Duration,
}

impl Row {
    /// Prints it. The heading is printed by `make faults`.
    pub(super) fn print(&self, accepted: u64, again: u64, tally: &Tally, pages: &[usize]) {
        let repeats: usize = pages.iter().map(|times| times - 1).sum();
        let counts = [self.before, self.during, accepted, tally.counted, tally.lost, tally.doubled, again];
        let counts: Vec<String> = counts.iter().map(u64::to_string).collect();
        let [accepting, counting] = [self.recovery.accepting, self.recovery.counting].map(|span| span.as_secs_f64());
        // The test runner may have begun a line of its own.
        println!(
            "\n| {} | {} | {} + {repeats} | {accepting:.1} s | {counting:.1} s |",
            self.fault,
            counts.join(" | "),
            pages.len()
        );
    }
}
