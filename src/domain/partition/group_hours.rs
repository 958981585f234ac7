//! The groups of one series by the hour of event time that they were counted in, from engine version 3 on: so many in each
//! hour, first come, and one for everything else, so that the groups of a window always add up to its total.
//!
//! Nothing is evaluated on groups, so an hour that is long over may leave memory at any time: what comes for it behind that
//! is a part of its own, and its groups are counted anew.

use super::effect::OVERFLOW_GROUP;
use super::window::{Arrival, Part, Windows};
use crate::domain::id::Position;
use crate::domain::limits::{GROUPS_HELD_MAX, GROUPS_PER_HOUR_MAX, PAST_GROUPS_HELD};
use crate::domain::time::{Millis, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

const HOUR: Millis = Millis::hours(1);

/// The hours of a series that are in memory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct GroupHours {
    hours: BTreeMap<Timestamp, GroupHour>,
    #[serde(skip)]
    derived: Option<Derived>,
}

/// The groups of one hour.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct GroupHour {
    /// Leaves memory once the clock reaches this.
    held_until: Timestamp,
    /// The last record that counted here.
    revision: Position,
    groups: BTreeMap<Arc<str>, Windows>,
    overflow: Windows,
}

/// What follows from the hours, kept so that it need not be found for each event.
#[derive(Clone, Copy, Debug)]
struct Derived {
    groups: usize,
    /// No hour leaves before this.
    next_end: Timestamp,
}

/// What counting an event in its group did.
pub(super) struct CountedGroup {
    /// The group that it was counted in.
    pub(super) group: Arc<str>,
    /// Whether its part was clean before.
    pub(super) newly_dirty: bool,
    /// Parts that left memory and are still to be stored, each with its group.
    pub(super) evicted: Vec<(Arc<str>, Part)>,
}

impl GroupHours {
    /// Counts an event in its group, or in what there is no room for.
    pub(super) fn count(&mut self, group: &Arc<str>, arrival: &Arrival) -> CountedGroup {
        let mut evicted = Vec::new();
        self.expire(arrival.clock, &mut evicted);
        let start = arrival.at.window_start(HOUR);
        let hour = self.hours.entry(start).or_default();
        let over = start.plus(HOUR).plus(arrival.grace).plus(arrival.correction_horizon);
        hour.held_until = hour.held_until.max(over).max(arrival.clock.plus(PAST_GROUPS_HELD));
        hour.revision = arrival.position;
        let held = hour.groups.len();
        let (group, windows) = if held < GROUPS_PER_HOUR_MAX || hour.groups.contains_key(group) {
            (group.clone(), hour.groups.entry(group.clone()).or_default())
        } else {
            (Arc::from(OVERFLOW_GROUP), &mut hour.overflow)
        };
        let counted = windows.count(arrival);
        evicted.extend(counted.evicted.map(|part| (group.clone(), part)));
        let added = hour.groups.len().saturating_sub(held);
        if let Some(derived) = &mut self.derived {
            derived.groups = derived.groups.saturating_add(added);
        }
        if added > 0 {
            self.make_room(arrival, &mut evicted);
        }
        CountedGroup { group, newly_dirty: counted.newly_dirty, evicted }
    }

    /// Takes over a part that was counted before there were hours.
    pub(super) fn take_over(&mut self, group: &Arc<str>, part: Part, grace: Millis, correction: Millis) {
        let start = part.start.window_start(HOUR);
        let hour = self.hours.entry(start).or_default();
        let over = start.plus(HOUR).plus(grace).plus(correction);
        hour.held_until = hour.held_until.max(over).max(part.held_until);
        hour.revision = hour.revision.max(part.revision);
        hour.groups.entry(group.clone()).or_default().push(part);
        self.derived = None;
    }

    /// Hands over a part that is to be stored, and marks it stored.
    pub(super) fn take_dirty(&mut self, group: &str, start: Timestamp) -> Option<&Part> {
        let hour = self.hours.get_mut(&start.window_start(HOUR))?;
        let windows = if group == OVERFLOW_GROUP { Some(&mut hour.overflow) } else { hour.groups.get_mut(group) };
        windows?.take_dirty(start)
    }

    /// Drops the hours that the clock has passed. Those with parts that are still to be stored stay until they are.
    pub(super) fn evict(&mut self, clock: Timestamp) {
        // Most series have no groups, and every close looks at all of them.
        if self.hours.is_empty() {
            return;
        }
        self.hours.retain(|_, hour| hour.held_until > clock || hour.dirty_parts().next().is_some());
        self.derived = None;
    }

    /// Returns what a snapshot keeps.
    pub(super) fn canonical(&self, clock: Timestamp) -> Self {
        let held = self.hours.iter().filter(|(_, hour)| hour.held_until > clock);
        Self { hours: held.map(|(start, hour)| (*start, hour.canonical(clock))).collect(), derived: None }
    }

    /// Holds no hour for longer than one that is counted in by now.
    pub(super) fn hold_at_most(&mut self, clock: Timestamp, grace: Millis, correction: Millis) {
        for (start, hour) in &mut self.hours {
            let over = start.plus(HOUR).plus(grace).plus(correction);
            hour.held_until = hour.held_until.min(over.max(clock.plus(PAST_GROUPS_HELD)));
            for windows in hour.groups.values_mut().chain([&mut hour.overflow]) {
                windows.hold_at_most(clock, grace, correction);
            }
        }
        self.derived = None;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hours.is_empty()
    }

    /// Drops the hours that the clock has passed, so that only what is held counts.
    fn expire(&mut self, clock: Timestamp, evicted: &mut Vec<(Arc<str>, Part)>) {
        if self.derived.is_some_and(|derived| clock < derived.next_end) {
            return;
        }
        self.hours.retain(|_, hour| {
            let held = hour.held_until > clock;
            if !held {
                evicted.extend(hour.dirty_parts());
            }
            held
        });
        self.derive();
    }

    /// Drops hours that are long over, the first to leave anyway before others, until no more groups are held than may be.
    /// One that this record counted in stays: a part is named by the record that opened it, and has one content.
    fn make_room(&mut self, arrival: &Arrival, evicted: &mut Vec<(Arc<str>, Part)>) {
        while self.derived.is_some_and(|derived| derived.groups > GROUPS_HELD_MAX) {
            let is_over = |start: Timestamp| {
                start.plus(HOUR).plus(arrival.grace).plus(arrival.correction_horizon) <= arrival.clock
            };
            let may_go =
                |(start, hour): &(&Timestamp, &GroupHour)| is_over(**start) && hour.revision < arrival.position;
            let first = self.hours.iter().filter(may_go).map(|(start, hour)| (hour.held_until, *start)).min();
            let Some((_, start)) = first else { return };
            if let Some(hour) = self.hours.remove(&start) {
                evicted.extend(hour.dirty_parts());
            }
            self.derive();
        }
    }

    fn derive(&mut self) {
        let groups = self.hours.values().map(|hour| hour.groups.len()).fold(0, usize::saturating_add);
        let next_end = self.hours.values().map(|hour| hour.held_until).min().unwrap_or(Timestamp::MAX);
        self.derived = Some(Derived { groups, next_end });
    }
}

impl GroupHour {
    /// The parts that are still to be stored.
    fn dirty_parts(&self) -> impl Iterator<Item = (Arc<str>, Part)> {
        let of = |(group, windows): (&Arc<str>, &Windows)| {
            let group = group.clone();
            windows.dirty_parts().map(move |part| (group.clone(), part.clone())).collect::<Vec<_>>()
        };
        let overflow = (Arc::from(OVERFLOW_GROUP), &self.overflow);
        self.groups.iter().flat_map(of).chain(of((&overflow.0, overflow.1)))
    }

    /// A group that was let in stays so, also where all of its windows have left.
    fn canonical(&self, clock: Timestamp) -> Self {
        let groups = self.groups.iter().map(|(group, windows)| (group.clone(), windows.canonical(clock)));
        Self { groups: groups.collect(), overflow: self.overflow.canonical(clock), ..*self }
    }
}
