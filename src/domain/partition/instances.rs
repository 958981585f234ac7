//! The alert instances of one account, by alert and metric.
//!
//! Each has a place of its own for as long as it stands: others come and go without a trace on what names it by its place.

use super::instance::Instance;
use crate::domain::id::{AlertId, MetricName};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Ordering;

/// The instances of an account.
#[derive(Clone, Debug, Default)]
pub(super) struct Instances {
    held: Vec<Option<Instance>>,
    free: Vec<usize>,
    /// The places of each alert's instances, by alert, then by metric.
    order: Vec<(AlertId, Vec<usize>)>,
}

impl Instances {
    pub(super) fn get(&self, place: usize) -> Option<&Instance> {
        self.held.get(place)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut Instance> {
        self.held.get_mut(place)?.as_mut()
    }

    /// All of them, by alert and metric.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Instance> {
        self.order.iter().flat_map(|(_, places)| places).filter_map(|place| self.get(*place))
    }

    /// All of them, in no particular order.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Instance> {
        self.held.iter_mut().flatten()
    }

    /// The places of all, by alert and metric.
    pub(super) fn places(&self) -> Vec<usize> {
        self.order.iter().flat_map(|(_, places)| places).copied().collect()
    }

    /// The places of an alert's instances, by metric.
    pub(super) fn places_of(&self, alert: AlertId) -> &[usize] {
        let found = self.order.binary_search_by_key(&alert, |(alert, _)| *alert).ok();
        found.and_then(|at| self.order.get(at)).map_or(&[], |(_, places)| places)
    }

    /// The place of an alert's instance on a metric.
    pub(super) fn place_of(&self, alert: AlertId, metric: Option<&MetricName>) -> Option<usize> {
        let places = self.places_of(alert);
        let at = places.binary_search_by(|place| self.metric_at(*place).cmp(&metric)).ok()?;
        places.get(at).copied()
    }

    /// The instance of an alert on a metric.
    pub(super) fn find(&self, alert: AlertId, metric: Option<&MetricName>) -> Option<&Instance> {
        self.get(self.place_of(alert, metric)?)
    }

    /// Puts in an instance, and returns its place. There must be none of the same alert and metric.
    pub(super) fn insert(&mut self, instance: Instance) -> usize {
        let alert = instance.alert;
        let at = self.order.binary_search_by_key(&alert, |(alert, _)| *alert);
        let at = at.unwrap_or_else(|at| {
            self.order.insert(at, (alert, Vec::with_capacity(1)));
            at
        });
        let behind = self.order.get(at).map_or(0, |(_, places)| {
            let metric = instance.metric.as_ref();
            places.partition_point(|place| self.metric_at(*place) < metric)
        });
        let place = self.free.pop().unwrap_or(self.held.len());
        match self.held.get_mut(place) {
            Some(free) => *free = Some(instance),
            None => self.held.push(Some(instance)),
        }
        if let Some((_, places)) = self.order.get_mut(at) {
            places.insert(behind, place);
        }
        place
    }

    /// Takes an instance out.
    pub(super) fn remove(&mut self, place: usize) -> Option<Instance> {
        let removed = self.held.get_mut(place)?.take()?;
        self.free.push(place);
        if let Ok(at) = self.order.binary_search_by_key(&removed.alert, |(alert, _)| *alert)
            && let Some((_, places)) = self.order.get_mut(at)
        {
            places.retain(|other| *other != place);
            if places.is_empty() {
                self.order.remove(at);
            }
        }
        Some(removed)
    }

    /// Takes all of an alert's instances out, by metric.
    pub(super) fn remove_alert(&mut self, alert: AlertId) -> Vec<Instance> {
        let Ok(at) = self.order.binary_search_by_key(&alert, |(alert, _)| *alert) else { return Vec::new() };
        let (_, places) = self.order.remove(at);
        let mut removed = Vec::with_capacity(places.len());
        for place in places {
            removed.extend(self.held.get_mut(place).and_then(Option::take));
            self.free.push(place);
        }
        removed
    }

    /// Takes all of them out, by alert and metric.
    pub(super) fn take(&mut self) -> Vec<Instance> {
        let Self { mut held, order, .. } = std::mem::take(self);
        let places = order.into_iter().flat_map(|(_, places)| places);
        places.filter_map(|place| held.get_mut(place).and_then(Option::take)).collect()
    }

    /// Tells which of two comes first.
    pub(super) fn compare(&self, one: usize, other: usize) -> Ordering {
        let key = |place: usize| self.get(place).map(|instance| (instance.alert, instance.metric.as_ref()));
        key(one).cmp(&key(other))
    }

    fn metric_at(&self, place: usize) -> Option<&MetricName> {
        self.get(place).and_then(|instance| instance.metric.as_ref())
    }
}

impl Serialize for Instances {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().collect::<Vec<_>>())
    }
}

impl<'de> Deserialize<'de> for Instances {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut instances = Self::default();
        for instance in Vec::<Instance>::deserialize(deserializer)? {
            instances.insert(instance);
        }
        Ok(instances)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Timestamp;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn instance(alert: u128, metric: u8) -> Instance {
        let metric = (metric > 0).then(|| MetricName::new(&format!("m{metric}")).unwrap());
        Instance::new(AlertId(alert), metric, Timestamp(0))
    }

    proptest! {
        /// Whatever comes and goes, they are found as in a map, in its order, and stay at their places.
        #[test]
        fn they_are_a_map_with_places(steps in prop::collection::vec((0_u128..5, 0_u8..5, 0_u8..4), 0..200)) {
            let mut instances = Instances::default();
            let mut map: BTreeMap<(AlertId, Option<MetricName>), usize> = BTreeMap::new();
            for (alert, metric, action) in steps {
                let one = instance(alert, metric);
                let key = (one.alert, one.metric.clone());
                match action {
                    0 | 1 => {
                        if !map.contains_key(&key) {
                            let place = instances.insert(one);
                            prop_assert!(!map.values().any(|other| *other == place));
                            map.insert(key, place);
                        }
                    }
                    2 => {
                        let place = map.remove(&key);
                        prop_assert_eq!(place.is_some(), place.and_then(|place| instances.remove(place)).is_some());
                    }
                    _ => {
                        let removed = instances.remove_alert(one.alert);
                        let keys: Vec<_> = map.keys().filter(|(alert, _)| *alert == one.alert).cloned().collect();
                        prop_assert!(removed.iter().map(|one| (one.alert, one.metric.clone())).eq(keys.iter().cloned()));
                        map.retain(|(alert, _), _| *alert != one.alert);
                    }
                }
                prop_assert!(instances.places().iter().eq(map.values()));
                prop_assert!(instances.iter().map(|one| (one.alert, one.metric.clone())).eq(map.keys().cloned()));
                for ((alert, metric), place) in &map {
                    prop_assert_eq!(instances.place_of(*alert, metric.as_ref()), Some(*place));
                }
                let bytes = postcard::to_allocvec(&instances).unwrap();
                prop_assert_eq!(&bytes, &postcard::to_allocvec(&instances.iter().collect::<Vec<_>>()).unwrap());
                let read: Instances = postcard::from_bytes(&bytes).unwrap();
                prop_assert!(read.iter().eq(instances.iter()));
            }
        }
    }
}
