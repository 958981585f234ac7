//! Which groups of an hour are told apart: the first 1,000 of each series. The fold counts so many each time an hour is in
//! memory, and does not know what the store holds of it already, so that a store may hold more.

use crate::domain::id::{AccountId, MetricName, Position};
use crate::domain::limits::GROUPS_PER_HOUR_MAX;
use crate::domain::partition::effect::OVERFLOW_GROUP;
use crate::domain::time::{Millis, Timestamp};
use crate::store::{UsagePart, UsageQuery};
use std::collections::{BTreeMap, BTreeSet};

const HOUR: Millis = Millis::hours(1);

type Series = (AccountId, MetricName);

/// When each group of a series first counted, by hour.
#[derive(Debug, Default)]
pub(super) struct HourGroups(BTreeMap<Series, BTreeMap<String, BTreeMap<Timestamp, Position>>>);

/// Hours with more groups than are told apart, each with those that are.
#[derive(Debug, Default)]
pub(super) struct CrowdedHours(BTreeMap<Series, BTreeMap<Timestamp, BTreeSet<String>>>);

/// Returns the query over the whole hours that a query touches.
pub(super) fn whole_hours(query: &UsageQuery) -> UsageQuery {
    UsageQuery { from: query.from.window_start(HOUR), to: query.to.round_up(HOUR), ..query.clone() }
}

impl HourGroups {
    /// Takes note of a part of a group, of its account's present epoch.
    pub(super) fn note(&mut self, part: &UsagePart) {
        if part.group.is_empty() || part.group == OVERFLOW_GROUP {
            return;
        }
        let groups = self.0.entry((part.account.clone(), part.metric.clone())).or_default();
        if !groups.contains_key(&part.group) {
            groups.insert(part.group.clone(), BTreeMap::new());
        }
        let Some(hours) = groups.get_mut(&part.group) else { return };
        let first = hours.entry(part.start.window_start(HOUR)).or_insert(part.part);
        *first = part.part.min(*first);
    }

    /// Returns the hours with too many groups. What came first is told apart, and of what one record began the least text,
    /// so that groups that come later never change which ones these are.
    pub(super) fn crowded(&self) -> CrowdedHours {
        let crowded = self.0.iter().map(|(series, groups)| (series.clone(), crowded(groups)));
        CrowdedHours(crowded.filter(|(_, hours)| !hours.is_empty()).collect())
    }
}

fn crowded(groups: &BTreeMap<String, BTreeMap<Timestamp, Position>>) -> BTreeMap<Timestamp, BTreeSet<String>> {
    let mut counts: BTreeMap<Timestamp, usize> = BTreeMap::new();
    for hour in groups.values().flat_map(BTreeMap::keys) {
        *counts.entry(*hour).or_default() += 1;
    }
    counts.retain(|_, count| *count > GROUPS_PER_HOUR_MAX);
    let told = |hour: Timestamp| {
        let of_hour = groups.iter().filter_map(|(group, hours)| Some((*hours.get(&hour)?, group)));
        let first: BTreeSet<(Position, &String)> = of_hour.collect();
        (hour, first.into_iter().take(GROUPS_PER_HOUR_MAX).map(|(_, group)| group.clone()).collect())
    };
    counts.into_keys().map(told).collect()
}

impl CrowdedHours {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns a part as it is told: of a group that is not told apart it is one of what has no group of its own.
    pub(super) fn told(&self, part: UsagePart) -> UsagePart {
        if self.is_empty() {
            return part;
        }
        let hours = self.0.get(&(part.account.clone(), part.metric.clone()));
        let told = hours.and_then(|hours| hours.get(&part.start.window_start(HOUR)));
        if told.is_none_or(|groups| groups.contains(&part.group)) {
            return part;
        }
        UsagePart { group: OVERFLOW_GROUP.to_owned(), ..part }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Epoch;
    use crate::domain::partition::aggregate::Aggregate;

    fn part(hour: i64, group: usize, opened_by: u64) -> UsagePart {
        UsagePart {
            account: AccountId::new("acme").unwrap(),
            epoch: Epoch(0),
            metric: MetricName::new("m").unwrap(),
            group: format!("{{\"n\":{group}}}"),
            start: Timestamp(hour * HOUR.0 + 300_000),
            part: Position(opened_by),
            aggregate: Aggregate::default(),
            late_events: 0,
            revision: Position(opened_by),
        }
    }

    #[test]
    fn the_first_groups_of_an_hour_are_told_apart_in_whatever_order_they_are_read() {
        let most = GROUPS_PER_HOUR_MAX;
        // One record began 1,100 groups, a later one 100 of another hour too.
        let mut parts: Vec<UsagePart> = (0..most + 100).map(|n| part(1, n + 10_000, 2)).collect();
        parts.extend((0..100).map(|n| part(1, n, 3)));
        parts.extend((0..100).map(|n| part(2, n, 3)));
        // The text of the last of these is the greatest, and it came first.
        parts.push(part(1, 99_999, 9));
        parts.push(part(1, 99_999, 1));
        let told = |parts: &[UsagePart]| {
            let mut hours = HourGroups::default();
            parts.iter().for_each(|part| hours.note(part));
            let crowded = hours.crowded();
            let own = |n: usize, hour: i64| crowded.told(part(hour, n, 0)).group != OVERFLOW_GROUP;
            assert!(own(99_999, 1) && own(10_000 + most - 2, 1));
            assert!(!own(10_000 + most - 1, 1) && !own(5, 1), "no room");
            assert!(own(5, 2) && own(123_456, 2), "an hour with room");
            format!("{crowded:?}")
        };
        let forth = told(&parts);
        parts.reverse();
        assert_eq!(told(&parts), forth);
        parts.truncate(most);
        let mut hours = HourGroups::default();
        parts.iter().for_each(|part| hours.note(part));
        assert!(hours.crowded().is_empty());
    }
}
