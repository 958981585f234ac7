//! Merging the parts of windows, and adding windows up to wider ones: the same for every adapter.

use super::query::WindowPoint;
use crate::domain::id::{MetricName, Position};
use crate::domain::partition::aggregate::Aggregate;
use crate::domain::time::{Millis, Timestamp};

/// One part of one window, as it is stored.
pub(super) struct Part {
    /// The start of the 5-minute window.
    pub(super) start: Timestamp,
    /// The events.
    pub(super) aggregate: Aggregate,
    /// How many of them were late.
    pub(super) late_events: u64,
    /// The last record that changed it.
    pub(super) revision: Position,
}

/// Takes parts ordered by metric, group, start and part.
pub(super) struct Points {
    width: Millis,
    points: Vec<WindowPoint>,
}

impl Points {
    /// Starts without any, for windows of a width.
    pub(super) const fn new(width: Millis) -> Self {
        Self { width, points: Vec::new() }
    }

    /// Adds a part of a metric's group to its window.
    ///
    /// # Errors
    /// What `name` says of the metric.
    pub(super) fn add<E>(
        &mut self,
        (metric, group): (&str, &str),
        part: Part,
        name: impl FnOnce(&str) -> Result<MetricName, E>,
    ) -> Result<(), E> {
        let start = part.start.window_start(self.width);
        let Part { aggregate, late_events, revision, .. } = part;
        let same =
            |last: &&mut WindowPoint| last.start == start && last.metric.as_str() == metric && last.group == group;
        match self.points.last_mut().filter(same) {
            Some(last) => {
                last.aggregate.merge(&aggregate);
                last.late_events += late_events;
                last.revision = last.revision.max(revision);
            }
            None => {
                let (metric, group) = (name(metric)?, group.to_owned());
                self.points.push(WindowPoint { metric, group, start, aggregate, late_events, revision });
            }
        }
        Ok(())
    }

    /// The windows, by metric, group and start.
    pub(super) fn into_inner(self) -> Vec<WindowPoint> {
        self.points
    }
}
