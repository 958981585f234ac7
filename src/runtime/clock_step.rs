//! Whether the wall clock is believed. Pure: it is fed with readings of the wall clock and of the one that counts from the boot on.
//!
//! A wall clock that is put forward by mistake, for a second only, would take every window and period along for good: what the
//! fold has passed does not come back. So a step forward is believed when it has lasted. Time that passes while a machine is
//! suspended is no step, since the clock from the boot counts it.

use crate::domain::limits::{CLOCK_KEPT_FOR, CLOCK_STEP_MAX};
use crate::domain::time::{Millis, Timestamp};

/// How exactly an offset must be kept to be the same one: more than a clock is slewed by meanwhile.
const SAME_OFFSET: Millis = Millis::seconds(5);

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClockReading {
    /// The wall clock.
    pub(super) wall: Timestamp,
    /// The time since the boot, suspended time included; any beginning does, as long as it stays the same.
    pub(super) since_boot: Millis,
}

/// What a reading changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClockChange {
    /// The wall clock is this much ahead and is not believed from here on.
    Doubted(Millis),
    /// It has kept its new offset, so the step is taken.
    Taken(Millis),
    /// It is back where it was.
    Recovered,
}

/// How far the wall clock is from the one that counts from the boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ClockSteps {
    /// The offset that is gone by: wall − since boot.
    trusted: Option<Millis>,
    /// What it was before the wall clock was put back by more than a small step, and since when it is not. It may return
    /// there for as long as a step forward would be doubted: later on, the step back was for good.
    before: Option<Since>,
    /// An offset that is not believed yet.
    doubted: Option<Since>,
}

/// An offset, and a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Since {
    offset: Millis,
    /// By the clock from the boot.
    since: Millis,
}

impl Since {
    const fn has_lasted(self, since_boot: Millis) -> bool {
        since_boot.0.saturating_sub(self.since.0) >= CLOCK_KEPT_FOR.0
    }
}

impl ClockSteps {
    /// Knows nothing yet: the first reading is believed.
    pub(super) const fn new() -> Self {
        Self { trusted: None, before: None, doubted: None }
    }

    /// Takes in a reading; returns the time to go by, and what changed.
    pub(super) fn read(&mut self, reading: ClockReading) -> (Timestamp, Option<ClockChange>) {
        let ClockReading { wall, since_boot } = reading;
        let offset = Millis(wall.0.saturating_sub(since_boot.0));
        let Some(trusted) = self.trusted else {
            self.trusted = Some(offset);
            return (wall, None);
        };
        let expected = Timestamp(since_boot.0.saturating_add(trusted.0));
        let ahead = wall.since(expected);
        self.before = self.before.filter(|before| !before.has_lasted(since_boot));
        let returned = self.before.is_some_and(|before| distance(before.offset, offset) <= CLOCK_STEP_MAX);
        if ahead <= CLOCK_STEP_MAX || returned {
            let was_doubted = self.doubted.take().is_some();
            if returned {
                self.before = None;
            } else if Millis(ahead.0.saturating_neg()) > CLOCK_STEP_MAX {
                self.before = Some(Since { offset: trusted, since: since_boot });
            }
            self.trusted = Some(offset);
            return (wall, was_doubted.then_some(ClockChange::Recovered));
        }
        match self.doubted {
            Some(doubt) if distance(doubt.offset, offset) > SAME_OFFSET => {
                self.doubted = Some(Since { offset, since: since_boot });
                (expected, None)
            }
            Some(doubt) if doubt.has_lasted(since_boot) => {
                *self = Self { trusted: Some(offset), before: None, doubted: None };
                (wall, Some(ClockChange::Taken(ahead)))
            }
            Some(_) => (expected, None),
            None => {
                self.doubted = Some(Since { offset, since: since_boot });
                (expected, Some(ClockChange::Doubted(ahead)))
            }
        }
    }

    /// How far the wall clock is ahead of the time that is gone by; nothing where it is believed.
    pub(super) fn doubted_by(&self) -> Option<Millis> {
        let (trusted, doubt) = (self.trusted?, self.doubted?);
        Some(Millis(doubt.offset.0.saturating_sub(trusted.0)))
    }
}

const fn distance(a: Millis, b: Millis) -> Millis {
    Millis(a.0.saturating_sub(b.0).saturating_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ClockChange::{Doubted, Recovered, Taken};

    const MINUTE: i64 = 60;
    const HOUR: i64 = 3_600;
    const DAY: i64 = 86_400;

    /// Feeds (seconds since boot, wall ahead of a true clock by seconds) and expects (how far the answer is ahead, change).
    fn check(name: &str, readings: &[(i64, i64, i64, Option<ClockChange>)]) {
        let mut steps = ClockSteps::new();
        for (at, wall_ahead, wanted_ahead, change) in readings {
            let true_time = 1_800_000_000 + at;
            let reading =
                ClockReading { wall: Timestamp((true_time + wall_ahead) * 1_000), since_boot: Millis::seconds(*at) };
            let (time, changed) = steps.read(reading);
            assert_eq!(
                (time.0 / 1_000 - true_time, changed),
                (*wanted_ahead, *change),
                "{name}, {at} s after the boot"
            );
            assert_eq!(steps.doubted_by().is_some(), wall_ahead != wanted_ahead, "{name}, {at} s after the boot");
        }
    }

    #[test]
    fn a_step_forward_is_taken_when_it_has_lasted() {
        let far = Millis::seconds(400 * DAY);
        let three = Millis::seconds(3 * HOUR);
        check("a clock that runs", &[(0, 0, 0, None), (1, 0, 0, None), (HOUR, 0, 0, None)]);
        check("a slow correction", &[(0, 0, 0, None), (10, 600, 600, None), (20, 1_200, 1_200, None)]);
        check("a machine that slept, which the clock from the boot counts", &[(0, 0, 0, None), (30 * DAY, 0, 0, None)]);
        check(
            "400 days for a second and a half",
            &[
                (0, 0, 0, None),
                (10, 400 * DAY, 0, Some(Doubted(far))),
                (11, 400 * DAY, 0, None),
                (12, 0, 0, Some(Recovered)),
                (13, 0, 0, None),
            ],
        );
        check(
            "three hours for good",
            &[
                (0, 0, 0, None),
                (10, 3 * HOUR, 0, Some(Doubted(three))),
                (10 + 2 * MINUTE - 1, 3 * HOUR, 0, None),
                (10 + 2 * MINUTE, 3 * HOUR, 3 * HOUR, Some(Taken(three))),
                (10 + 2 * MINUTE + 1, 3 * HOUR, 3 * HOUR, None),
            ],
        );
        check(
            "a clock that jumps about is believed when it stays",
            &[
                (0, 0, 0, None),
                (10, 3 * HOUR, 0, Some(Doubted(three))),
                (100, 4 * HOUR, 0, None),
                (10 + 2 * MINUTE, 4 * HOUR, 0, None),
                (100 + 2 * MINUTE, 4 * HOUR, 4 * HOUR, Some(Taken(Millis::seconds(4 * HOUR)))),
            ],
        );
        check(
            "slewed while it is doubted",
            &[
                (0, 0, 0, None),
                (10, 3 * HOUR, 0, Some(Doubted(three))),
                (10 + 2 * MINUTE, 3 * HOUR + 1, 3 * HOUR + 1, Some(Taken(Millis::seconds(3 * HOUR + 1)))),
            ],
        );
    }

    #[test]
    fn a_step_back_is_taken_at_once_and_so_is_the_way_back_from_it() {
        check(
            "three hours back for good",
            &[(0, 0, 0, None), (1, -3 * HOUR, -3 * HOUR, None), (2, -3 * HOUR, -3 * HOUR, None)],
        );
        check(
            "three hours back for a second",
            &[(0, 0, 0, None), (1, -3 * HOUR, -3 * HOUR, None), (2, 0, 0, None), (3, 0, 0, None)],
        );
        check(
            "back, and then further ahead than it was",
            &[
                (0, 0, 0, None),
                (1, -3 * HOUR, -3 * HOUR, None),
                (2, 2 * HOUR, -3 * HOUR, Some(Doubted(Millis::seconds(5 * HOUR)))),
                (3, 0, 0, Some(Recovered)),
            ],
        );
    }

    #[test]
    fn a_step_back_that_has_lasted_leaves_no_way_forward() {
        let three = Millis::seconds(3 * HOUR);
        check(
            "wrong at the start, put right, and wrong again for a second",
            &[
                (0, 3 * HOUR, 3 * HOUR, None),
                (1, 0, 0, None),
                (2 * MINUTE, 0, 0, None),
                (1 + 2 * MINUTE, 3 * HOUR, 0, Some(Doubted(three))),
                (2 + 2 * MINUTE, 0, 0, Some(Recovered)),
            ],
        );
        check(
            "put right in between, and wrong again in time",
            &[(0, 3 * HOUR, 3 * HOUR, None), (1, 0, 0, None), (2 * MINUTE, 3 * HOUR, 3 * HOUR, None)],
        );
        check(
            "back twice: each step back counts for itself",
            &[
                (0, 0, 0, None),
                (1, -3 * HOUR, -3 * HOUR, None),
                (100, -6 * HOUR, -6 * HOUR, None),
                (99 + 2 * MINUTE, -3 * HOUR, -3 * HOUR, None),
                (101 + 2 * MINUTE, 0, -3 * HOUR, Some(Doubted(three))),
            ],
        );
    }
}
