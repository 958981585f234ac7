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
    hours: Vec<Level>,
    days: Vec<Level>,
    weeks: Vec<Level>,
    months: Vec<Level>,
}

impl Levels {
    /// Counts an event, unless it lies before the previous period of the clock.
    pub(super) fn count(&mut self, value: Quantity, at: Timestamp, clock: Timestamp) {
        for period in Period::ALL {
            count_in(self.of_mut(period), period, (value, at), clock);
        }
    }

    /// Returns what was used in the period that begins at `start`.
    pub(super) fn used(&self, period: Period, start: Timestamp) -> Aggregate {
        let levels = self.of(period);
        levels.iter().rev().find(|level| level.start == start).map(|level| level.aggregate).unwrap_or_default()
    }

    /// Returns what a snapshot keeps.
    pub(super) fn canonical(&self, clock: Timestamp) -> Self {
        let mut kept = self.clone();
        for period in Period::ALL {
            let oldest = oldest_kept(period, clock);
            kept.of_mut(period).retain(|level| level.start >= oldest);
        }
        kept
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

fn oldest_kept(period: Period, clock: Timestamp) -> Timestamp {
    let (current, _) = period.bounds(clock);
    period.bounds(Timestamp(current.0.saturating_sub(1))).0
}

fn count_in(levels: &mut Vec<Level>, period: Period, (value, at): (Quantity, Timestamp), clock: Timestamp) {
    // Nearly every event lies in the newest period.
    if let Some(newest) = levels.last_mut()
        && newest.start <= at
        && at < newest.end
    {
        // The newest level is dropped only by a later one; an event in it may be older than the clock allows.
        if clock < newest.end || newest.start >= oldest_kept(period, clock) {
            newest.aggregate.add(value, at);
            return;
        }
    }
    let oldest = oldest_kept(period, clock);
    levels.retain(|level| level.start >= oldest);
    let (start, end) = period.bounds(at);
    if start < oldest {
        return;
    }
    match levels.binary_search_by_key(&start, |level| level.start) {
        Ok(found) => {
            if let Some(level) = levels.get_mut(found) {
                level.aggregate.add(value, at);
            }
        }
        Err(place) => levels.insert(place, Level { start, end, aggregate: Aggregate::of(value, at) }),
    }
}
