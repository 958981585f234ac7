//! How far the groups that a question reads make up the whole: what its warnings are made of.

use super::usage_totals::Terms;
use crate::domain::id::MetricName;
use crate::domain::partition::effect::OVERFLOW_GROUP;
use crate::domain::time::WINDOW;
use crate::store::UsagePart;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};

/// A group's dimensions, each value as it is written.
pub(super) type Dimensions<'a> = BTreeMap<String, &'a RawValue>;

/// What was met while groups were read, whether it is asked for or not.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    /// The events of each metric.
    pub counted: BTreeMap<MetricName, Counted>,
    /// Values that are asked for and that no group had so far, by dimension.
    pub missing: BTreeMap<String, BTreeSet<String>>,
}

/// Events of one metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// All of them.
    pub events: u64,
    /// Those in windows that began before the dimensions were kept; of groups only those that had every dimension then.
    pub early: u64,
    /// Whether some are in no group of their own.
    pub overflow: bool,
}

impl Coverage {
    /// Begins with all values missing.
    pub(super) fn of(only: &BTreeMap<String, Vec<String>>) -> Self {
        let missing = only.iter().map(|(name, values)| (name.clone(), values.iter().cloned().collect())).collect();
        Self { counted: BTreeMap::new(), missing }
    }

    /// Takes note of a part of a group.
    pub(super) fn note(&mut self, part: &UsagePart, dimensions: &Dimensions<'_>, terms: &Terms) {
        let mut asked = terms.dimensions.iter().chain(terms.only.keys());
        // What had no room in a group had its dimensions all the same.
        let whole = part.group == OVERFLOW_GROUP || asked.all(|name| dimensions.contains_key(name));
        self.count(part, whole, terms);
        self.found(dimensions, &terms.only);
    }

    /// Counts a part's events; `whole` where it has every dimension that is asked for.
    pub(super) fn count(&mut self, part: &UsagePart, whole: bool, terms: &Terms) {
        if !self.counted.contains_key(&part.metric) {
            self.counted.insert(part.metric.clone(), Counted::default());
        }
        let Some(counted) = self.counted.get_mut(&part.metric) else { return };
        counted.events = counted.events.saturating_add(part.aggregate.count);
        counted.overflow |= part.group == OVERFLOW_GROUP;
        let since = terms.kept_since.get(&part.metric);
        if whole && since.is_some_and(|since| part.start < since.round_up(WINDOW)) {
            counted.early = counted.early.saturating_add(part.aggregate.count);
        }
    }

    /// Strikes out what a group has of the values that are missing, where it fits all that is asked for.
    pub(super) fn found(&mut self, dimensions: &Dimensions<'_>, only: &BTreeMap<String, Vec<String>>) {
        if self.missing.is_empty() {
            return;
        }
        let values = only.iter().map(|(name, values)| Some((name, value_in(dimensions, name, values)?)));
        let Some(values) = values.collect::<Option<Vec<_>>>() else { return };
        for (name, value) in values {
            if let Some(missing) = self.missing.get_mut(name) {
                missing.remove(value);
            }
        }
        self.missing.retain(|_, values| !values.is_empty());
    }
}

/// Which of some values a group has of a dimension: a text is compared with what it says, anything else as it is written.
pub(super) fn value_in<'a>(dimensions: &Dimensions<'_>, name: &str, values: &'a [String]) -> Option<&'a String> {
    let value = dimensions.get(name)?;
    let text = serde_json::from_str::<String>(value.get());
    let text = text.as_deref().unwrap_or(value.get());
    values.iter().find(|wanted| *wanted == text)
}
