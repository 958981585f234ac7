//! What a series used in the calendar periods that quotas may be set for.
//!
//! Every series carries the previous, the current and every later hour, day, week and month that has events, so a quota
//! set in mid-period is right at once.

use super::aggregate::Aggregate;
use crate::domain::quantity::Quantity;
use crate::domain::time::{Period, Timestamp};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Level {
    start: Timestamp,
    end: Timestamp,
    aggregate: Aggregate,
}

/// The levels of one series.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Levels {
    /// What was counted last, all of one hour, and is yet to be merged into the hour, day, week and month that hold it.
    /// Events of different hours never have the same time, so it does not matter when that is done.
    #[serde(skip)]
    open: Option<Level>,
    hours: Vec<Level>,
    days: Vec<Level>,
    weeks: Vec<Level>,
    months: Vec<Level>,
}

impl Levels {
    /// Counts an event, unless it lies before the previous period of the clock.
    pub(super) fn count(&mut self, value: Quantity, at: Timestamp, clock: Timestamp) {
        // Nearly every event lies in the hour of the one before it.
        if let Some(open) = &mut self.open
            && open.start <= at
            && at < open.end
            && clock < open.end
        {
            open.aggregate.add(value, at);
            return;
        }
        self.settle();
        let (start, end) = Period::Hour.bounds(at);
        let event = Level { start, end, aggregate: Aggregate::of(value, at) };
        for period in Period::ALL {
            let oldest = oldest_kept(period, clock);
            self.of_mut(period).retain(|level| level.start >= oldest);
        }
        if clock < end {
            self.open = Some(event);
            return;
        }
        for period in Period::ALL {
            if period.bounds(at).0 >= oldest_kept(period, clock) {
                merge(self.of_mut(period), period, &event);
            }
        }
    }

    /// Counts all events of one window, unless they lie before the previous period of the clock.
    pub(super) fn count_window(&mut self, aggregate: &Aggregate, at: Timestamp, clock: Timestamp) {
        self.settle();
        let (start, end) = Period::Hour.bounds(at);
        let events = Level { start, end, aggregate: *aggregate };
        for period in Period::ALL {
            let oldest = oldest_kept(period, clock);
            self.of_mut(period).retain(|level| level.start >= oldest);
            if period.bounds(at).0 >= oldest {
                merge(self.of_mut(period), period, &events);
            }
        }
    }

    /// Returns what was used in a period with these bounds.
    pub(super) fn used(&self, period: Period, (start, end): (Timestamp, Timestamp)) -> Aggregate {
        let level = self.of(period).iter().rev().find(|level| level.start == start);
        let mut used = level.map(|level| level.aggregate).unwrap_or_default();
        if let Some(open) = self.open.as_ref().filter(|open| start <= open.start && open.start < end) {
            used.merge(&open.aggregate);
        }
        used
    }

    /// Returns what a snapshot keeps.
    pub(super) fn canonical(&self, clock: Timestamp) -> Self {
        let mut kept = self.clone();
        kept.settle();
        for period in Period::ALL {
            let oldest = oldest_kept(period, clock);
            kept.of_mut(period).retain(|level| level.start >= oldest);
        }
        kept
    }

    /// Becomes what was used in these periods, each named by an instant in it.
    pub(super) fn restore(&mut self, periods: &[(Period, Timestamp, Aggregate)]) {
        *self = Self::default();
        for (period, at, aggregate) in periods {
            let (start, end) = period.bounds(*at);
            let levels = self.of_mut(*period);
            let place = levels.partition_point(|level| level.start < start);
            levels.insert(place, Level { start, end, aggregate: *aggregate });
        }
    }

    fn settle(&mut self) {
        let Some(open) = self.open.take() else { return };
        for period in Period::ALL {
            merge(self.of_mut(period), period, &open);
        }
    }

    const fn of(&self, period: Period) -> &Vec<Level> {
        match period {
            Period::Hour => &self.hours,
            Period::Day => &self.days,
            Period::Week => &self.weeks,
            Period::Month => &self.months,
        }
    }

    const fn of_mut(&mut self, period: Period) -> &mut Vec<Level> {
        match period {
            Period::Hour => &mut self.hours,
            Period::Day => &mut self.days,
            Period::Week => &mut self.weeks,
            Period::Month => &mut self.months,
        }
    }
}

pub(super) fn oldest_kept(period: Period, clock: Timestamp) -> Timestamp {
    let (current, _) = period.bounds(clock);
    period.bounds(Timestamp(current.0.saturating_sub(1))).0
}

/// Merges what lies in one hour into the level that holds it.
fn merge(levels: &mut Vec<Level>, period: Period, hour: &Level) {
    let (start, end) = period.bounds(hour.start);
    match levels.binary_search_by_key(&start, |level| level.start) {
        Ok(found) => {
            if let Some(level) = levels.get_mut(found) {
                level.aggregate.merge(&hour.aggregate);
            }
        }
        Err(place) => levels.insert(place, Level { start, end, aggregate: hour.aggregate }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Millis;
    use proptest::prelude::*;

    const HOUR: i64 = 3_600_000;
    /// Friday 2026-05-29 22:00, before the turn of an hour, a day, a week and a month.
    const START: Timestamp = Timestamp(1_780_092_000_000);

    proptest! {
        #[test]
        fn every_period_holds_its_events(
            events in prop::collection::vec((0_i64..40, -20_i64..2, -9_i64..9), 1..60),
        ) {
            let (mut levels, mut clock, mut counted) = (Levels::default(), START, Vec::new());
            for (number, (pause, back, value)) in events.into_iter().enumerate() {
                clock = clock.plus(Millis(pause * HOUR / 4));
                // No two events have the same time: which of these is the last is another matter.
                let at = clock.plus(Millis(back * HOUR / 3 + number as i64));
                levels.count(Quantity::whole(value), at, clock);
                counted.push((value, at));
                for period in Period::ALL {
                    for shown in [clock, period.bounds(clock).0.minus(Millis(1))] {
                        let (start, end) = period.bounds(shown);
                        let mut expected = Aggregate::default();
                        for (value, at) in counted.iter().filter(|(_, at)| start <= *at && *at < end) {
                            expected.add(Quantity::whole(*value), *at);
                        }
                        prop_assert_eq!(levels.used(period, (start, end)), expected);
                        prop_assert_eq!(levels.canonical(clock).used(period, (start, end)), expected);
                    }
                }
            }
        }
    }
}
