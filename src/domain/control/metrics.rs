//! Metrics that people defined. Undeclared ones work too and have no record.

use super::command::MetricPatch;
use super::outcome::{Change, Resource};
use super::patch::set;
use super::resource::{Life, MetricRecord};
use super::verdict::{Accepted, Context, Verdict, not_found, room_for_one};
use crate::domain::definition::MetricDefinition;
use crate::domain::id::MetricName;
use crate::domain::limits::METRICS_MAX;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The metric definitions of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Metrics {
    pub(super) records: BTreeMap<MetricName, MetricRecord>,
}

impl Metrics {
    pub(super) fn put(&mut self, context: Context, metric: &MetricName, definition: &MetricDefinition) -> Verdict {
        let known = self.records.get(metric).map(|record| record.life);
        context.expect_version(known.map_or(0, |life| life.version))?;
        let Some(mut life) = known else {
            room_for_one(self.records.len(), METRICS_MAX, "metrics")?;
            let (resource, change) = self.insert(context, metric, definition.clone(), Life::begun(context.now));
            return Ok(Accepted::created(resource).telling(change));
        };
        life.touch(context.now);
        let (resource, change) = self.insert(context, metric, definition.clone(), life);
        Ok(Accepted::done(resource).telling(change))
    }

    pub(super) fn update(&mut self, context: Context, metric: &MetricName, patch: &MetricPatch) -> Verdict {
        let known = self.records.get(metric).ok_or_else(|| not_found("metric", metric))?;
        context.expect_version(known.life.version)?;
        let MetricRecord { mut definition, mut life, .. } = known.clone();
        set(&mut definition.unit, &patch.unit);
        set(&mut definition.aggregate, &patch.aggregate);
        set(&mut definition.group_by, &patch.group_by);
        life.touch(context.now);
        let (resource, change) = self.insert(context, metric, definition, life);
        Ok(Accepted::done(resource).telling(change))
    }

    pub(super) fn delete(&mut self, context: Context, metric: &MetricName) -> Verdict {
        let known = self.records.get(metric).ok_or_else(|| not_found("metric", metric))?;
        context.expect_version(known.life.version)?;
        self.records.remove(metric);
        let change = Change::Metric { tenant: context.tenant, metric: metric.clone(), definition: None };
        Ok(Accepted::deleted().telling(change))
    }

    fn insert(
        &mut self,
        context: Context,
        metric: &MetricName,
        definition: MetricDefinition,
        life: Life,
    ) -> (Resource, Change) {
        let known = self.records.get(metric).map(|record| &record.kept_since);
        let since = |name: &String| known.and_then(|known| known.get(name)).copied().unwrap_or(context.in_world);
        let kept_since = definition.group_by.iter().map(|name| (name.clone(), since(name))).collect();
        let record = MetricRecord { metric: metric.clone(), definition: definition.clone(), kept_since, life };
        self.records.insert(metric.clone(), record.clone());
        let change = Change::Metric { tenant: context.tenant, metric: metric.clone(), definition: Some(definition) };
        (Resource::Metric(record), change)
    }
}
