//! The 5-minute windows of one series that are still in memory.

use super::aggregate::Aggregate;
use crate::domain::id::Position;
use crate::domain::quantity::Quantity;
use crate::domain::time::{Millis, Timestamp, WINDOW};
use serde::{Deserialize, Serialize};

/// One part of one window: the events that were recorded while it was held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) start: Timestamp,
    pub(super) name: Position,
    pub(super) aggregate: Aggregate,
    pub(super) late_events: u64,
    pub(super) has_negative: bool,
    pub(super) revision: Position,
    /// Evicted once the clock reaches this.
    pub(super) held_until: Timestamp,
    #[serde(skip)]
    pub(super) dirty: bool,
}

/// The parts of a series, by start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Windows {
    parts: Vec<Part>,
}

/// Where and how an event counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) at: Timestamp,
    pub(super) value: Quantity,
    pub(super) position: Position,
    /// The tenant's clock.
    pub(super) clock: Timestamp,
    pub(super) grace: Millis,
    pub(super) correction_horizon: Millis,
}

impl Arrival {
    pub(super) const fn window(&self) -> Timestamp {
        self.at.window_start(WINDOW)
    }

    /// Tells whether the event's window had closed.
    pub(super) fn is_late(&self) -> bool {
        self.window().plus(WINDOW).plus(self.grace) <= self.clock
    }
}

/// What counting an event did to its part.
pub(super) struct Counted {
    /// Whether the part was clean before, and must be stored from here on.
    pub(super) newly_dirty: bool,
    /// A part of the same window that is evicted by this, where it was still to be stored.
    pub(super) evicted: Option<Part>,
}

impl Windows {
    /// Counts an event.
    pub(super) fn count(&mut self, arrival: &Arrival) -> Counted {
        let start = arrival.window();
        let index = match self.parts.last() {
            Some(last) if last.start == start => Ok(self.parts.len().saturating_sub(1)),
            _ => self.parts.binary_search_by_key(&start, |part| part.start),
        };
        let mut evicted = None;
        let at = match index {
            Ok(at) => {
                if let Some(part) = self.parts.get_mut(at)
                    && part.held_until <= arrival.clock
                {
                    let old = std::mem::replace(part, new_part(arrival));
                    evicted = old.dirty.then_some(old);
                }
                at
            }
            Err(at) => {
                self.parts.insert(at, new_part(arrival));
                at
            }
        };
        let Some(part) = self.parts.get_mut(at) else { return Counted { newly_dirty: false, evicted } };
        part.aggregate.add(arrival.value, arrival.at);
        part.late_events = part.late_events.saturating_add(u64::from(arrival.is_late()));
        part.has_negative |= arrival.value.is_negative();
        part.revision = arrival.position;
        let newly_dirty = !part.dirty;
        part.dirty = true;
        Counted { newly_dirty, evicted }
    }

    /// Puts a window with all of its events.
    pub(super) fn put(&mut self, arrival: &Arrival, aggregate: &Aggregate) {
        let has_negative = aggregate.min.is_negative();
        let part = Part { aggregate: *aggregate, has_negative, ..new_part(arrival) };
        match self.parts.binary_search_by_key(&part.start, |part| part.start) {
            Ok(at) => {
                if let Some(held) = self.parts.get_mut(at) {
                    *held = part;
                }
            }
            Err(at) => self.parts.insert(at, part),
        }
    }

    /// Returns the held part of a window.
    pub(super) fn get(&self, start: Timestamp, clock: Timestamp) -> Option<&Part> {
        let at = match self.parts.last() {
            Some(last) if last.start == start => self.parts.len().checked_sub(1)?,
            _ => self.parts.binary_search_by_key(&start, |part| part.start).ok()?,
        };
        self.parts.get(at).filter(|part| part.held_until > clock)
    }

    /// Returns the starts of the windows that begin at or after `from`.
    pub(super) fn starts_from(&self, from: Timestamp) -> impl Iterator<Item = Timestamp> {
        let at = self.parts.partition_point(|part| part.start < from);
        self.parts.iter().skip(at).map(|part| part.start)
    }

    /// Hands over a part that is to be stored, and marks it stored.
    pub(super) fn take_dirty(&mut self, start: Timestamp) -> Option<&Part> {
        let at = self.parts.binary_search_by_key(&start, |part| part.start).ok()?;
        let part = self.parts.get_mut(at)?;
        std::mem::take(&mut part.dirty).then_some(&*part)
    }

    /// Drops what the clock has passed. Parts that are still to be stored stay until they are.
    pub(super) fn evict(&mut self, clock: Timestamp) {
        self.parts.retain(|part| part.dirty || part.held_until > clock);
    }

    /// Returns what a snapshot keeps: the parts that the clock has not passed.
    pub(super) fn canonical(&self, clock: Timestamp) -> Self {
        let held = self.parts.iter().filter(|part| part.held_until > clock);
        Self { parts: held.map(|part| Part { dirty: false, ..part.clone() }).collect() }
    }

    /// Returns the parts that are still to be stored.
    pub(super) fn dirty_parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| part.dirty)
    }

    /// Returns the parts that the clock has not passed.
    pub(super) fn into_held(self, clock: Timestamp) -> impl Iterator<Item = Part> {
        self.parts.into_iter().filter(move |part| part.held_until > clock)
    }

    /// Adds the newest part.
    pub(super) fn push(&mut self, part: Part) {
        self.parts.push(part);
    }

    /// Holds no part for longer than one that is opened by now.
    pub(super) fn hold_at_most(&mut self, clock: Timestamp, grace: Millis, correction_horizon: Millis) {
        for part in &mut self.parts {
            let ordinary = part.start.plus(WINDOW).plus(grace).plus(correction_horizon);
            part.held_until = part.held_until.min(ordinary.max(clock.plus(correction_horizon)));
        }
    }

    /// Until when some window is held.
    pub(super) fn held_until(&self) -> Timestamp {
        self.parts.iter().map(|part| part.held_until).max().unwrap_or(Timestamp::MIN)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

fn new_part(arrival: &Arrival) -> Part {
    let start = arrival.window();
    let ordinary = start.plus(WINDOW).plus(arrival.grace).plus(arrival.correction_horizon);
    // A window that was evicted before comes back as a part of its own, held for as long as a correction may take.
    let held_until = if ordinary > arrival.clock { ordinary } else { arrival.clock.plus(arrival.correction_horizon) };
    Part {
        start,
        name: arrival.position,
        aggregate: Aggregate::default(),
        late_events: 0,
        has_negative: false,
        revision: arrival.position,
        held_until,
        dirty: false,
    }
}
