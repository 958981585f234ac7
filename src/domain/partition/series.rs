//! The series of one account: what windows and levels are kept for.

use super::group_hours::GroupHours;
use super::level::Levels;
use super::reach;
use super::window::Windows;
use crate::domain::id::MetricName;
use crate::domain::limits::GROUPS_PER_SERIES_MAX;
use crate::domain::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Series {
    pub(super) metric: MetricName,
    pub(super) levels: Levels,
    pub(super) windows: Windows,
    /// Up to engine version 2; empty from there on.
    pub(super) groups: BTreeMap<Arc<str>, Windows>,
    /// From engine version 3 on; snapshots keep them at their end.
    #[serde(skip)]
    pub(super) group_hours: GroupHours,
    /// Until when the groups are known to be as many as may be.
    #[serde(skip)]
    pub(super) full_until: Timestamp,
    /// The instances that read this series, by their places, in the order of [`super::instances::Instances`].
    #[serde(skip)]
    pub(super) readers: Vec<usize>,
    /// What was told of its quota; snapshots keep it at their end.
    #[serde(skip)]
    pub(super) told: Option<reach::Told>,
    #[serde(skip)]
    pub(super) watch: reach::Watch,
}

impl Series {
    fn new(metric: MetricName) -> Self {
        Self {
            metric,
            levels: Levels::default(),
            windows: Windows::default(),
            groups: BTreeMap::new(),
            group_hours: GroupHours::default(),
            full_until: Timestamp::MIN,
            readers: Vec::new(),
            told: None,
            watch: reach::Watch::default(),
        }
    }

    fn canonical(&self, clock: Timestamp) -> Self {
        let groups = self.groups.iter().map(|(group, windows)| (group.clone(), windows.canonical(clock)));
        Self {
            levels: self.levels.canonical(clock),
            windows: self.windows.canonical(clock),
            groups: groups.filter(|(_, windows)| !windows.is_empty()).collect(),
            group_hours: self.group_hours.canonical(clock),
            told: self.told,
            ..Self::new(self.metric.clone())
        }
    }

    /// Tells whether there is room for an event of a group.
    ///
    /// Only groups that hold a window count, so that it does not matter when the others are dropped.
    pub(super) fn has_room(&mut self, group: &str, clock: Timestamp) -> bool {
        if self.groups.len() < GROUPS_PER_SERIES_MAX {
            return true;
        }
        if self.groups.get(group).is_some_and(|windows| windows.held_until() > clock) {
            return true;
        }
        if clock < self.full_until {
            return false;
        }
        let held = self.groups.values().map(Windows::held_until).filter(|until| *until > clock);
        let (count, first_end) = held.fold((0_usize, Timestamp::MAX), |(count, first_end), until| {
            (count.saturating_add(1), first_end.min(until))
        });
        if count < GROUPS_PER_SERIES_MAX {
            return true;
        }
        self.full_until = first_end;
        false
    }
}

/// The series of an account. Each keeps its place.
#[derive(Clone, Debug, Default)]
pub(super) struct AllSeries {
    held: Vec<Series>,
    /// The places by metric.
    order: Vec<usize>,
}

impl AllSeries {
    pub(super) fn get(&self, place: usize) -> Option<&Series> {
        self.held.get(place)
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut Series> {
        self.held.get_mut(place)
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// All of them, by metric.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Series> {
        self.order.iter().filter_map(|place| self.held.get(*place))
    }

    /// All of them, in no particular order.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Series> {
        self.held.iter_mut()
    }

    /// The places of all, by metric.
    pub(super) fn places(&self) -> Vec<usize> {
        self.order.clone()
    }

    pub(super) fn place_of(&self, metric: &MetricName) -> Option<usize> {
        self.search(metric).ok().and_then(|at| self.order.get(at)).copied()
    }

    pub(super) fn find(&self, metric: &MetricName) -> Option<&Series> {
        self.get(self.place_of(metric)?)
    }

    pub(super) fn find_mut(&mut self, metric: &MetricName) -> Option<&mut Series> {
        let place = self.place_of(metric)?;
        self.get_mut(place)
    }

    /// Returns the place of a series, made where it is missing; tells whether it was made.
    pub(super) fn place(&mut self, metric: &MetricName) -> (usize, bool) {
        match self.search(metric) {
            Ok(at) => (self.order.get(at).copied().unwrap_or(usize::MAX), false),
            Err(at) => {
                let place = self.held.len();
                self.held.push(Series::new(metric.clone()));
                self.order.insert(at, place);
                (place, true)
            }
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns what a snapshot keeps of each, by metric.
    pub(super) fn canonical(&self, clock: Timestamp) -> Self {
        let held: Vec<Series> = self.iter().map(|series| series.canonical(clock)).collect();
        Self { order: (0..held.len()).collect(), held }
    }

    fn search(&self, metric: &MetricName) -> Result<usize, usize> {
        self.order.binary_search_by(|place| self.held.get(*place).map(|series| &series.metric).cmp(&Some(metric)))
    }
}

impl IntoIterator for AllSeries {
    type Item = Series;
    type IntoIter = std::vec::IntoIter<Series>;

    /// In no particular order; what [`Self::canonical`] returned is by metric.
    fn into_iter(self) -> Self::IntoIter {
        self.held.into_iter()
    }
}

impl Serialize for AllSeries {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.order.iter().filter_map(|place| self.held.get(*place)).collect::<Vec<_>>())
    }
}

impl<'de> Deserialize<'de> for AllSeries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let held = Vec::<Series>::deserialize(deserializer)?;
        let mut order: Vec<usize> = (0..held.len()).collect();
        order.sort_by_key(|place| held.get(*place).map(|series| &series.metric));
        Ok(Self { held, order })
    }
}
