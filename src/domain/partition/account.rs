//! An account: its quotas, its series and the alert instances on it.

use super::alerts::{Alerts, Compiled};
use super::effect::SeriesKey;
use super::instances::Instances;
use super::series::{AllSeries, Series};
use crate::domain::definition::Quota;
use crate::domain::id::{AccountId, AlertId, Epoch, MetricName, Tenant};
use crate::domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) tenant: Tenant,
    pub(super) name: AccountId,
    pub(super) epoch: Epoch,
    /// Whether an event of this epoch was counted.
    pub(super) seen: bool,
    pub(super) quotas: BTreeMap<MetricName, Quota>,
    pub(super) series: AllSeries,
    pub(super) instances: Instances,
    /// How far instances counted that are gone, so that no id is ever used twice.
    pub(super) retired: BTreeMap<AlertId, BTreeMap<Option<MetricName>, u64>>,
    /// The account's place in the partition.
    #[serde(skip)]
    pub(super) slot: usize,
    /// The instances whose rows are to be stored, by their places.
    #[serde(skip)]
    pub(super) dirty: Vec<usize>,
}

impl Account {
    pub(super) fn new(tenant: Tenant, name: AccountId, epoch: Epoch) -> Self {
        Self {
            tenant,
            name,
            epoch,
            seen: false,
            quotas: BTreeMap::new(),
            series: AllSeries::default(),
            instances: Instances::default(),
            retired: BTreeMap::new(),
            slot: 0,
            dirty: Vec::new(),
        }
    }

    pub(super) fn series_of(&self, metric: &MetricName) -> Option<&Series> {
        self.series.find(metric)
    }

    pub(super) fn series_key(&self, series: &Series, group: Option<&str>) -> SeriesKey {
        SeriesKey {
            tenant: self.tenant,
            epoch: self.epoch,
            account: self.name.clone(),
            metric: series.metric.clone(),
            group: group.unwrap_or("").to_owned(),
        }
    }

    /// Lets the series that an instance reads know of it. An instance of a paused alert reads nothing.
    pub(super) fn wire(&mut self, place: usize, compiled: &Compiled) {
        for series in self.read_by(place, compiled) {
            self.add_reader(series, place);
        }
    }

    /// Lets a series know of an instance that reads it.
    pub(super) fn add_reader(&mut self, series: usize, place: usize) {
        let Some(readers) = self.series.get(series).map(|series| &series.readers) else { return };
        if let Err(at) = readers.binary_search_by(|other| self.instances.compare(*other, place))
            && let Some(series) = self.series.get_mut(series)
        {
            series.readers.insert(at, place);
        }
    }

    /// Undoes [`Self::wire`], with the definition that it was done by.
    pub(super) fn unwire(&mut self, place: usize, compiled: &Compiled) {
        for series in self.read_by(place, compiled) {
            let Some(readers) = self.series.get(series).map(|series| &series.readers) else { continue };
            if let Ok(at) = readers.binary_search_by(|other| self.instances.compare(*other, place))
                && let Some(series) = self.series.get_mut(series)
            {
                series.readers.remove(at);
            }
        }
    }

    /// Works out anew which instances read which series.
    pub(super) fn wire_all(&mut self, alerts: &Alerts) {
        self.series.iter_mut().for_each(|series| series.readers.clear());
        for place in self.instances.places() {
            if let Some(compiled) = self.instances.get(place).and_then(|instance| alerts.get(&instance.alert)) {
                self.wire(place, compiled);
            }
        }
    }

    fn read_by(&self, place: usize, compiled: &Compiled) -> Vec<usize> {
        let own = self.instances.get(place).and_then(|instance| instance.metric.as_ref());
        let read = compiled.metrics_read(own).filter(|_| !compiled.paused);
        read.filter_map(|metric| self.series.place_of(metric)).collect()
    }

    /// Returns what a snapshot keeps: no trace of what the clock has passed, nor of the order of arrival.
    pub(super) fn canonical(&self, clock: Timestamp) -> Self {
        Self {
            tenant: self.tenant,
            name: self.name.clone(),
            epoch: self.epoch,
            seen: self.seen,
            quotas: self.quotas.clone(),
            series: self.series.canonical(clock),
            instances: self.instances.clone(),
            retired: self.retired.clone(),
            slot: self.slot,
            dirty: Vec::new(),
        }
    }
}
