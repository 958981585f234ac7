//! Which instances an alert has on an account: making them, dropping them, evaluating those that are new.

use super::account::Account;
use super::alerts::Compiled;
use super::effect::{Reason, State};
use super::fact::V3;
use super::instance::Instance;
use super::judge::{Cause, judge};
use super::state::TenantState;
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
    // An account that nothing was counted of may exist by its first quota.
    let fitted = if account.seen {
        state.alerts.concerned_by(&account.name, metric)
    } else {
        state.alerts.covering(&account.name)
    };
    for compiled in fitted.iter().filter(|compiled| compiled.reads_quota()) {
        world.count_steps(1);
        if account.seen {
            fit_metric(world, state, account, (compiled, metric, Judging::Fresh), cause);
        } else {
            refit(world, state, account, (compiled, Judging::Fresh), None, cause);
        }
    }
    for compiled in state.alerts.concerned_by(&account.name, metric) {
        for place in reading(account, &compiled, metric) {
            world.count_steps(1);
            if compiled.reads_quota() {
                judge(world, state, account, place, cause);
            }
        }
    }
}

/// The places of an alert's instances that read a metric, in order.
fn reading(account: &Account, compiled: &Compiled, metric: &MetricName) -> Vec<usize> {
    let alert = compiled.definition.id;
    if compiled.reads(None, metric) {
        account.instances.places_of(alert).to_vec()
    } else {
        let own = account.instances.place_of(alert, Some(metric)).filter(|_| compiled.reads_own_metric());
        own.into_iter().collect()
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
    for compiled in state.alerts.concerned_by(&account.name, metric).iter().filter(|compiled| !compiled.paused) {
        for place in reading(account, compiled, metric) {
            world.count_steps(1);
            let Some(instance) = account.instances.get(place) else { continue };
            let (own, window) = (instance.metric.as_ref(), state.newest_closed());
            let view = View { tenant: state, account, own, window, at: cause.at };
            let rule_reads =
                compiled.rule.as_ref().is_some_and(|rule| view.quota_metrics(rule).any(|read| read == metric));
            if rule_reads && matches!(instance.state, State::Firing | State::Pending) {
                let site = Site { tenant: state, compiled, window, cause };
                world.reset(site, account, place, Reason::QuotaRemoved);
            }
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

/// Makes the instances that a series which is new brings about, and lets it know of those that read it. On an account that
/// was not seen before, every alert may begin.
pub(super) fn fit_series(
    world: &mut World<'_>,
    state: &TenantState,
    account: &mut Account,
    (series, is_first, judging): (usize, bool, Judging),
    cause: Cause,
) {
    let Some(metric) = account.series.get(series).map(|series| series.metric.clone()) else { return };
    let alerts = &state.alerts;
    let fitted = if is_first { alerts.covering(&account.name) } else { alerts.concerned_by(&account.name, &metric) };
    for compiled in fitted {
        world.count_steps(1);
        for place in reading(account, &compiled, &metric) {
            world.count_steps(1);
            if !compiled.paused {
                account.add_reader(series, place);
            }
        }
        if is_first {
            refit(world, state, account, (&compiled, judging), None, cause);
        } else {
            fit_metric(world, state, account, (&compiled, &metric, judging), cause);
        }
    }
}

/// Makes the instance of an alert on a metric where there should be one and is none.
fn fit_metric(
    world: &mut World<'_>,
    state: &TenantState,
    account: &mut Account,
    (compiled, metric, judging): (&Compiled, &MetricName, Judging),
    cause: Cause,
) {
    let alert = compiled.definition.id;
    let is_wanted = compiled.rule.is_some()
        && compiled.is_on_every_metric()
        && has_needs(state, account, compiled.own_needs(), metric);
    if !is_wanted || account.instances.place_of(alert, Some(metric)).is_some() {
        return;
    }
    let place = begin(world, account, (alert, Some(metric.clone())), cause);
    account.wire(place, compiled);
    if judging == Judging::Fresh {
        judge(world, state, account, place, cause);
    }
    world.touch(state, account, place, cause.at);
    world.set_timer(Site { tenant: state, compiled, window: state.newest_closed(), cause }, account, place);
}

/// Makes the instances that an alert should have on an account, drops those that it should not, and evaluates the new
/// ones, or as many as `judging` says. `before` is the definition that another one took the place of.
pub(super) fn refit(
    world: &mut World<'_>,
    state: &TenantState,
    account: &mut Account,
    (compiled, judging): (&Compiled, Judging),
    before: Option<&Compiled>,
    cause: Cause,
) {
    let alert = compiled.definition.id;
    if let Some(before) = before {
        for place in account.instances.places_of(alert).to_vec() {
            account.unwire(place, before);
        }
        drop_unfit(world, state, account, compiled, cause);
    }
    let mut fresh = BTreeSet::new();
    for metric in wanted(state, account, compiled) {
        world.count_steps(1);
        if account.instances.place_of(alert, metric.as_ref()).is_none() {
            fresh.insert(begin(world, account, (alert, metric), cause));
        }
    }
    if before.is_none() && fresh.is_empty() {
        return;
    }
    for place in account.instances.places_of(alert).to_vec() {
        account.wire(place, compiled);
    }
    for place in account.instances.places_of(alert).to_vec() {
        world.count_steps(1);
        let is_fresh = fresh.contains(&place);
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

/// Drops the instances that an alert has no longer by its present definition.
fn drop_unfit(world: &mut World<'_>, state: &TenantState, account: &mut Account, compiled: &Compiled, cause: Cause) {
    let is_unfit = |place: &usize| {
        let instance = account.instances.get(*place);
        instance.is_some_and(|instance| !compiled.admits(&account.name, instance.metric.as_ref()))
    };
    let places = account.instances.places_of(compiled.definition.id).iter().copied();
    let unfit: Vec<usize> = places.filter(is_unfit).collect();
    for place in &unfit {
        let site = Site { tenant: state, compiled, window: state.newest_closed(), cause };
        world.reset(site, account, *place, cause.reason);
    }
    for place in unfit {
        if let Some(instance) = account.instances.remove(place) {
            retire(world, account, instance, cause.at);
        }
    }
}

/// Makes an instance, and returns its place.
fn begin(
    world: &World<'_>,
    account: &mut Account,
    (alert, metric): (AlertId, Option<MetricName>),
    cause: Cause,
) -> usize {
    let retired = account.retired.get(&alert).and_then(|metrics| metrics.get(&metric));
    let mut instance = Instance::new(alert, metric, cause.at);
    instance.sequence = retired.copied().unwrap_or(0);
    if world.is_v3() {
        instance.first_window = cause.at.window_start(WINDOW).plus(WINDOW);
    }
    account.instances.insert(instance)
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
    let needs = compiled.own_needs();
    let with_data = account.series.iter().map(|series| &series.metric);
    for metric in with_data.chain(account.quotas.keys()) {
        if has_needs(state, account, needs, metric) {
            wanted.insert(Some(metric.clone()));
        }
    }
    wanted
}

/// Whether a metric has what an alert's unqualified names need.
fn has_needs(
    state: &TenantState,
    account: &Account,
    (needs_quota, needs_data): (bool, bool),
    metric: &MetricName,
) -> bool {
    (!needs_quota || account.quota_of(state, metric).is_some())
        && (!needs_data || account.series.place_of(metric).is_some())
}

/// Takes all instances of an alert off an account.
pub(super) fn drop_alert(world: &mut World<'_>, account: &mut Account, compiled: &Compiled, at: Timestamp) {
    let alert = compiled.definition.id;
    for place in account.instances.places_of(alert).to_vec() {
        account.unwire(place, compiled);
    }
    for instance in account.instances.remove_alert(alert) {
        world.count_steps(1);
        retire(world, account, instance, at);
    }
}

/// Remembers how far an instance counted that is gone.
pub(super) fn retire(world: &mut World<'_>, account: &mut Account, instance: Instance, at: Timestamp) {
    world.remove(account, &instance, at);
    account.retired.entry(instance.alert).or_default().insert(instance.metric, instance.sequence);
}

#[cfg(test)]
mod tests;
