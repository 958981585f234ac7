//! The alerts of a tenant, ready to be evaluated, and which of them what concerns.

use super::fact::V3;
use super::instance::Instance;
use crate::domain::definition::AlertDefinition;
use crate::domain::id::{AccountId, AccountScope, AlertId, MetricName};
use crate::domain::rule::RuleProgram;
use crate::domain::time::{Millis, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An alert that is ready to be evaluated.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) definition: AlertDefinition,
    /// Absent where this release cannot read the rule; such an alert stays inconclusive.
    pub(super) rule: Option<RuleProgram>,
    pub(super) recover: Option<RuleProgram>,
    pub(super) paused: bool,
}

impl Compiled {
    pub(super) fn new(definition: AlertDefinition, paused: bool) -> Self {
        Self {
            rule: RuleProgram::compile(&definition.rule).ok(),
            recover: definition.recover.as_deref().and_then(|source| RuleProgram::compile(source).ok()),
            paused,
            definition,
        }
    }

    pub(super) fn programs(&self) -> impl Iterator<Item = &RuleProgram> {
        self.rule.iter().chain(self.recover.iter())
    }

    pub(super) fn reads_quota(&self) -> bool {
        self.programs().any(RuleProgram::reads_quota)
    }

    pub(super) fn reads_window(&self) -> bool {
        self.programs().any(RuleProgram::reads_window)
    }

    /// Whether the alert is evaluated at every window close.
    pub(super) fn judges_closes(&self) -> bool {
        self.programs().any(|program| program.reads_window() || program.reads_time())
    }

    pub(super) fn reads_own_metric(&self) -> bool {
        self.programs().any(RuleProgram::reads_own_metric)
    }

    /// Whether some unqualified name needs a quota, and whether one needs data.
    pub(super) fn own_needs(&self) -> (bool, bool) {
        let own = |quota: bool| {
            self.programs().flat_map(|program| program.inputs()).any(|input| {
                input.metric.is_none() && if quota { input.name.reads_quota() } else { input.name.reads_window() }
            })
        };
        (own(true), own(false))
    }

    /// Whether an open window may fire. Where `for` counts closed windows, from engine version 3 on, none does.
    pub(super) fn fires_early(&self, engine_version: u32) -> bool {
        let waits = engine_version >= V3 && self.definition.hold > Millis::ZERO;
        self.rule.as_ref().is_some_and(RuleProgram::fires_early) && !waits
    }

    /// When time alone may change an instance, on the tenant's clock.
    pub(super) fn due(&self, instance: &Instance, engine_version: u32) -> Option<Timestamp> {
        if engine_version >= V3 {
            instance.next_due(&self.definition, self.reads_window())
        } else {
            instance.due(&self.definition)
        }
    }

    /// The metrics that an instance on `own` reads; one may come more than once.
    pub(super) fn metrics_read<'a>(&'a self, own: Option<&'a MetricName>) -> impl Iterator<Item = &'a MetricName> {
        self.programs().flat_map(move |program| program.metrics(own))
    }

    /// Tells whether an instance on `own` reads a metric.
    pub(super) fn reads(&self, own: Option<&MetricName>, metric: &MetricName) -> bool {
        self.metrics_read(own).any(|read| read == metric)
    }

    /// Whether the alert has an instance on each metric that has what its unqualified names need.
    pub(super) fn is_on_every_metric(&self) -> bool {
        self.definition.metric.is_none() && self.reads_own_metric()
    }

    /// The metrics that the alert or its rule names; one may come more than once.
    fn names(&self) -> impl Iterator<Item = &MetricName> {
        self.definition.metric.iter().chain(self.metrics_read(None))
    }

    /// Tells whether an instance may stand on a metric at all.
    pub(super) fn admits(&self, account: &AccountId, metric: Option<&MetricName>) -> bool {
        let metric_fits = match (self.reads_own_metric(), metric) {
            _ if self.rule.is_none() => metric == self.definition.metric.as_ref(),
            (true, Some(metric)) => self.definition.metric.as_ref().is_none_or(|fixed| fixed == metric),
            (false, None) => true,
            (true, None) | (false, Some(_)) => false,
        };
        metric_fits && self.definition.account.covers(account)
    }
}

/// The alerts of a tenant.
#[derive(Debug, Default)]
pub(super) struct Alerts {
    by_id: BTreeMap<AlertId, Arc<Compiled>>,
    /// Those on all accounts.
    of_all: Concerns,
    /// Those on one account.
    of_one: BTreeMap<AccountId, Concerns>,
}

/// Which alerts of one scope something concerns.
#[derive(Debug, Default)]
struct Concerns {
    all: BTreeSet<AlertId>,
    /// Those that have an instance on every metric that has what they need.
    on_every: BTreeSet<AlertId>,
    /// Those that name a metric.
    named: BTreeMap<MetricName, BTreeSet<AlertId>>,
}

impl Alerts {
    pub(super) fn get(&self, alert: &AlertId) -> Option<&Arc<Compiled>> {
        self.by_id.get(alert)
    }

    /// All of them, by id.
    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<Compiled>> {
        self.by_id.values()
    }

    /// All ids, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &AlertId> {
        self.by_id.keys()
    }

    /// Puts in an alert, for the one with its id; returns that one.
    pub(super) fn insert(&mut self, compiled: Arc<Compiled>) -> Option<Arc<Compiled>> {
        let before = self.remove(compiled.definition.id);
        self.concerns_mut(&compiled.definition.account).note(&compiled);
        self.by_id.insert(compiled.definition.id, compiled);
        before
    }

    pub(super) fn remove(&mut self, alert: AlertId) -> Option<Arc<Compiled>> {
        let removed = self.by_id.remove(&alert)?;
        self.concerns_mut(&removed.definition.account).forget(&removed);
        if let AccountScope::One(account) = &removed.definition.account
            && self.of_one.get(account).is_some_and(|concerns| concerns.all.is_empty())
        {
            self.of_one.remove(account);
        }
        Some(removed)
    }

    /// Those on an account, by id.
    pub(super) fn covering(&self, account: &AccountId) -> Vec<Arc<Compiled>> {
        self.named_by(self.scopes(account).flat_map(|concerns| &concerns.all).copied().collect())
    }

    /// Those that a metric of an account may concern, by id: they name it, or may have an instance on it.
    pub(super) fn concerned_by(&self, account: &AccountId, metric: &MetricName) -> Vec<Arc<Compiled>> {
        let concerned = self
            .scopes(account)
            .flat_map(|concerns| concerns.on_every.iter().chain(concerns.named.get(metric).into_iter().flatten()));
        self.named_by(concerned.copied().collect())
    }

    fn scopes(&self, account: &AccountId) -> impl Iterator<Item = &Concerns> {
        [&self.of_all].into_iter().chain(self.of_one.get(account))
    }

    fn named_by(&self, ids: BTreeSet<AlertId>) -> Vec<Arc<Compiled>> {
        ids.iter().filter_map(|id| self.by_id.get(id)).cloned().collect()
    }

    fn concerns_mut(&mut self, scope: &AccountScope) -> &mut Concerns {
        match scope {
            AccountScope::All => &mut self.of_all,
            AccountScope::One(account) => self.of_one.entry(account.clone()).or_default(),
        }
    }

    /// The definition of an alert, for what does not say what concerns it.
    pub(super) fn definition_mut(&mut self, alert: AlertId) -> Option<&mut AlertDefinition> {
        let compiled = self.by_id.get_mut(&alert).and_then(Arc::get_mut)?;
        Some(&mut compiled.definition)
    }
}

impl FromIterator<Compiled> for Alerts {
    fn from_iter<I: IntoIterator<Item = Compiled>>(all: I) -> Self {
        let mut alerts = Self::default();
        for compiled in all {
            alerts.insert(Arc::new(compiled));
        }
        alerts
    }
}

impl Concerns {
    fn note(&mut self, compiled: &Compiled) {
        let id = compiled.definition.id;
        self.all.insert(id);
        if compiled.is_on_every_metric() {
            self.on_every.insert(id);
        }
        for metric in compiled.names() {
            self.named.entry(metric.clone()).or_default().insert(id);
        }
    }

    fn forget(&mut self, compiled: &Compiled) {
        let id = compiled.definition.id;
        for ids in [&mut self.all, &mut self.on_every] {
            ids.remove(&id);
        }
        for metric in compiled.names() {
            if let Some(ids) = self.named.get_mut(metric) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.named.remove(metric);
                }
            }
        }
    }
}
