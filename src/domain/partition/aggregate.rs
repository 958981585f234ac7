//! The summary of a span of events: a monoid, so that any split of the events gives the same answer.

use crate::domain::definition::Fold;
use crate::domain::quantity::Quantity;
use crate::domain::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Count, sum, extremes and latest value of some events. The default is the summary of none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregate {
    /// How many events.
    pub count: u64,
    /// Their sum.
    pub sum: Quantity,
    /// The least value; zero where there is no event.
    pub min: Quantity,
    /// The greatest value; zero where there is no event.
    pub max: Quantity,
    /// The value with the latest event time; of equals the one recorded last.
    pub last: Quantity,
    /// The event time of `last`.
    pub last_at: Timestamp,
}

impl Default for Aggregate {
    fn default() -> Self {
        Self {
            count: 0,
            sum: Quantity::ZERO,
            min: Quantity::ZERO,
            max: Quantity::ZERO,
            last: Quantity::ZERO,
            last_at: Timestamp::MIN,
        }
    }
}

impl Aggregate {
    /// Returns the summary of one event.
    pub const fn of(value: Quantity, at: Timestamp) -> Self {
        Self { count: 1, sum: value, min: value, max: value, last: value, last_at: at }
    }

    /// Tells whether there is no event.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds one event that was recorded after all the others.
    pub fn add(&mut self, value: Quantity, at: Timestamp) {
        if self.count == 0 {
            *self = Self::of(value, at);
            return;
        }
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.plus(value);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        if at >= self.last_at {
            self.last = value;
            self.last_at = at;
        }
    }

    /// Adds a summary of events that were recorded after those of `self`.
    pub fn merge(&mut self, later: &Self) {
        if later.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *later;
            return;
        }
        self.count = self.count.saturating_add(later.count);
        self.sum = self.sum.plus(later.sum);
        self.min = self.min.min(later.min);
        self.max = self.max.max(later.max);
        if later.last_at >= self.last_at {
            self.last = later.last;
            self.last_at = later.last_at;
        }
    }

    /// Returns the one number that a fold makes of the events; zero where there is none.
    pub const fn value(&self, fold: Fold) -> Quantity {
        match fold {
            Fold::Sum => self.sum,
            Fold::Max => self.max,
            Fold::Last => self.last,
        }
    }

    /// Returns the mean, rounded towards minus infinity at the ninth decimal; `None` where there is no event.
    pub fn mean(&self) -> Option<Quantity> {
        self.sum.divided_by(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn summary(events: &[(i64, i64)]) -> Aggregate {
        let mut all = Aggregate::default();
        for (value, at) in events {
            all.add(Quantity::whole(*value), Timestamp(*at));
        }
        all
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(events in prop::collection::vec((-50_i64..50, 0_i64..20), 0..40), at in 0_usize..40) {
            let cut = at.min(events.len());
            let mut merged = summary(&events[..cut]);
            merged.merge(&summary(&events[cut..]));
            prop_assert_eq!(merged, summary(&events));
        }

        #[test]
        fn merging_is_associative(
            a in prop::collection::vec((-9_i64..9, 0_i64..9), 0..8),
            b in prop::collection::vec((-9_i64..9, 0_i64..9), 0..8),
            c in prop::collection::vec((-9_i64..9, 0_i64..9), 0..8),
        ) {
            let (a, b, c) = (summary(&a), summary(&b), summary(&c));
            let mut left = a;
            left.merge(&b);
            left.merge(&c);
            let mut tail = b;
            tail.merge(&c);
            let mut right = a;
            right.merge(&tail);
            prop_assert_eq!(left, right);
        }
    }
}
