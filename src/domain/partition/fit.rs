//! Which instances an alert has on an account: making them, dropping them, evaluating those that are new.

use super::effect::{Reason, State};
use super::fact::V3;
use super::instance::Instance;
use super::judge::{Cause, judge};
use super::state::{Account, Compiled, TenantState};
use super::step::{Look, Run};
use super::tell::{Site, World};
use super::values::View;
use crate::domain::definition::AlertDefinition;
use crate::domain::id::{AccountScope, AlertId, MetricName};
use crate::domain::time::{Timestamp, WINDOW};
use std::collections::BTreeSet;

/// Evaluates what reads a quota that changed, and makes the instances that it brings about.
pub(super) fn requota(
    world: &mut World<'_>,
    state: &TenantState,
    account: &mut Account,
    metric: &MetricName,
    cause: Cause,
) {
    let alerts: Vec<AlertId> = state.alerts.values().filter(|c| c.reads_quota()).map(|c| c.definition.id).collect();
    for alert in alerts {
        refit(world, state, account, (alert, Judging::Fresh), cause);
    }
    for place in 0..account.instances.len() {
        let reads = account.instances.get(place).is_some_and(|instance| {
            let compiled = state.alerts.get(&instance.alert);
            compiled.is_some_and(|c| c.reads_quota() && c.reads(instance.metric.as_ref(), metric))
        });
        if reads {
            judge(world, state, account, place, cause);
        }
    }
}

/// Ends the episodes that rest on a quota which is to be removed, while their evidence still shows it.
pub(super) fn end_without_quota(
    world: &mut World<'_>,
    state: &TenantState,
    account: &mut Account,
    metric: &MetricName,
    cause: Cause,
) {
    let cause = Cause { reason: Reason::QuotaRemoved, ..cause };
    for place in 0..account.instances.len() {
        let Some(instance) = account.instances.get(place) else { continue };
        let Some(compiled) = state.alerts.get(&instance.alert).filter(|compiled| !compiled.paused) else { continue };
        let view =
            View { tenant: state, account, own: instance.metric.as_ref(), window: state.newest_closed(), at: cause.at };
        let rule_reads = compiled.rule.as_ref().is_some_and(|rule| view.quota_metrics(rule).any(|read| read == metric));
        if rule_reads && matches!(instance.state, State::Firing | State::Pending) {
            let site = Site { tenant: state, compiled, window: state.newest_closed(), cause };
            world.reset(site, account, place, Reason::QuotaRemoved);
        }
    }
}

/// Which instances of an alert are evaluated when it is fitted to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judging {
    /// None: a backfill made them.
    None,
    /// Those that are made.
    Fresh,
    /// All, by what may be another rule.
    All,
    /// All, by the same rule: other spans, or another condition for the end of a firing.
    Again {
        /// Whether the windows that were counted towards the end of a firing stand.
        same_recover: bool,
    },
}

impl Judging {
    /// Which instances are evaluated when a definition is set, and what they keep of the windows before.
    pub(super) fn of(old: Option<&Compiled>, (new, paused): (&AlertDefinition, bool), engine_version: u32) -> Self {
        let Some(old) = old else { return Self::All };
        let before = &old.definition;
        let same_rule = old.paused == paused
            && before.rule == new.rule
            && before.metric == new.metric
            && before.account == new.account;
        let same_recover = before.recover == new.recover;
        let same_spans = before.hold == new.hold && before.keep_firing_for == new.keep_firing_for;
        if same_rule && same_recover && same_spans {
            Self::Fresh
        } else if same_rule && engine_version >= V3 {
            Self::Again { same_recover }
        } else {
            Self::All
        }
    }
}

/// Makes the instances that an alert should have on an account, drops those that it should not, and evaluates the new
/// ones, or as many as `judging` says.
pub(super) fn refit(
    world: &mut World<'_>,
    state: &TenantState,
    account: &mut Account,
    (alert, judging): (AlertId, Judging),
    cause: Cause,
) {
    let Some(compiled) = state.alerts.get(&alert) else { return };
    let unfit = |account: &Account, instance: &Instance| {
        instance.alert == alert && !compiled.admits(&account.name, instance.metric.as_ref())
    };
    if account.instances.iter().any(|instance| unfit(account, instance)) {
        for place in 0..account.instances.len() {
            if account.instances.get(place).is_some_and(|instance| unfit(account, instance)) {
                let site = Site { tenant: state, compiled, window: state.newest_closed(), cause };
                world.reset(site, account, place, cause.reason);
            }
        }
        let name = account.name.clone();
        drop_instances(world, account, cause.at, |instance| {
            instance.alert == alert && !compiled.admits(&name, instance.metric.as_ref())
        });
    }
    let mut fresh = BTreeSet::new();
    for metric in wanted(state, account, compiled) {
        let key = (alert, metric.clone());
        if let Err(place) = account.instances.binary_search_by(|i| (i.alert, i.metric.clone()).cmp(&key)) {
            let mut instance = Instance::new(alert, metric.clone(), cause.at);
            let retired = account.retired.get(&alert).and_then(|metrics| metrics.get(&metric));
            instance.sequence = retired.copied().unwrap_or(0);
            if world.is_v3() {
                instance.first_window = cause.at.window_start(WINDOW).plus(WINDOW);
            }
            account.instances.insert(place, instance);
            fresh.insert(metric);
        }
    }
    account.wire(&state.alerts);
    for place in 0..account.instances.len() {
        let Some(instance) = account.instances.get(place).filter(|instance| instance.alert == alert) else { continue };
        let is_fresh = fresh.contains(&instance.metric);
        let is_all = matches!(judging, Judging::All | Judging::Again { .. });
        if let Some(instance) = account.instances.get_mut(place) {
            match judging {
                Judging::All => instance.forget_windows(),
                Judging::Again { same_recover: false } => instance.runs.recovered = Run::NONE,
                Judging::Again { same_recover: true } | Judging::Fresh | Judging::None => {}
            }
        }
        let cause = Cause { look: if is_all { Look::Newest } else { cause.look }, ..cause };
        if is_all || (judging == Judging::Fresh && is_fresh) {
            judge(world, state, account, place, cause);
        }
        if is_all || is_fresh {
            world.touch(state, account, place, cause.at);
        }
        let site = Site { tenant: state, compiled, window: state.newest_closed(), cause };
        world.set_timer(site, account, place);
    }
}

/// The metrics that an alert has instances on: those that have what its unqualified names need.
fn wanted(state: &TenantState, account: &Account, compiled: &Compiled) -> BTreeSet<Option<MetricName>> {
    let mut wanted = BTreeSet::new();
    let covers = compiled.definition.account.covers(&account.name);
    let exists = account.seen || !account.quotas.is_empty() || compiled.definition.account != AccountScope::All;
    if !covers || !exists {
        return wanted;
    }
    if compiled.rule.is_none() {
        wanted.insert(compiled.definition.metric.clone());
        return wanted;
    }
    if !compiled.reads_own_metric() {
        wanted.insert(None);
        return wanted;
    }
    if let Some(metric) = &compiled.definition.metric {
        wanted.insert(Some(metric.clone()));
        return wanted;
    }
    let (needs_quota, needs_data) = compiled.own_needs();
    let with_data = account.series.iter().map(|series| &series.metric);
    for metric in with_data.chain(account.quotas.keys()) {
        let has_quota = account.quotas.contains_key(metric) || state.quotas.contains_key(metric);
        let has_data = account.series_of(metric).is_some();
        if (!needs_quota || has_quota) && (!needs_data || has_data) {
            wanted.insert(Some(metric.clone()));
        }
    }
    wanted
}

pub(super) fn drop_instances(
    world: &mut World<'_>,
    account: &mut Account,
    at: Timestamp,
    gone: impl Fn(&Instance) -> bool,
) {
    let (dropped, kept) = std::mem::take(&mut account.instances).into_iter().partition(|instance| gone(instance));
    account.instances = kept;
    let dropped: Vec<Instance> = dropped;
    for instance in dropped {
        world.remove(account, &instance, at);
        account.retired.entry(instance.alert).or_default().insert(instance.metric, instance.sequence);
    }
    for series in &mut account.series {
        series.readers.clear();
    }
}
