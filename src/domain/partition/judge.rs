//! Evaluating an instance: which window it looks at, what the verdict is, and when an event may be passed over.

use super::account::Account;
use super::alerts::Compiled;
use super::effect::{Reason, State};
use super::instance::{Decided, Gate, Instance, Step};
use super::state::TenantState;
use super::step::{Found, Look};
use super::tell::{Site, World};
use super::values::{View, known};
use crate::domain::definition::Quota;
use crate::domain::id::MetricName;
use crate::domain::quantity::Quantity;
use crate::domain::rule::{Comparison, Name, RuleProgram, Threshold, Verdict};
use crate::domain::time::{Timestamp, WINDOW};

/// What leads to an evaluation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cause {
    pub(super) reason: Reason,
    /// Its own time, on the tenant's clock.
    pub(super) at: Timestamp,
    /// Too long past to be told singly.
    pub(super) stale: bool,
    /// When the deciding event was accepted.
    pub(super) accepted_at: Option<Timestamp>,
    /// The open windows to look at for an early firing: the event's own, or all.
    pub(super) open_window: Option<Timestamp>,
    /// What it says of the closed windows.
    pub(super) look: Look,
}

/// An evaluation that is done: what it looked at and what it found.
struct Finding {
    window: Timestamp,
    verdict: Verdict,
    recovered: Option<Verdict>,
    /// What the newest closed window says by itself; absent where the instance does not evaluate that one.
    closed: Option<(Verdict, Option<Verdict>)>,
}

/// Evaluates an instance and performs the step that follows.
pub(super) fn judge(world: &mut World<'_>, tenant: &TenantState, account: &mut Account, place: usize, cause: Cause) {
    let Some(instance) = account.instances.get(place) else { return };
    let Some(compiled) = tenant.alerts.get(&instance.alert).filter(|compiled| !compiled.paused) else { return };
    world.effects.counts.evaluations = world.effects.counts.evaluations.saturating_add(1);
    let Some(finding) = find(world.engine_version, tenant, account, (compiled, instance), cause) else {
        world.perform(Site { tenant, compiled, window: tenant.newest_closed(), cause }, account, place, Step::Stay);
        world.mark(account, place, cause.at);
        return;
    };
    let still_early = instance.early.filter(|start| *start >= tenant.closed);
    let step = if world.is_v3() {
        let counts_windows = compiled.reads_window();
        if let (true, Some((verdict, recovered))) = (counts_windows, finding.closed)
            && let Some(instance) = account.instances.get_mut(place)
        {
            instance.runs.note(cause.look, verdict, recovered);
        }
        let (verdict, recovered) = (finding.verdict, finding.recovered);
        let found = Found { verdict, recovered, counts_windows, at: cause.at };
        account.instances.get(place).map_or(Step::Stay, |instance| instance.next_step(&compiled.definition, found))
    } else {
        instance.step(&compiled.definition, finding.verdict, finding.recovered, cause.at)
    };
    if let Some(instance) = account.instances.get_mut(place) {
        let is_open = finding.window >= tenant.closed;
        instance.early = if is_open && finding.verdict == Verdict::True { Some(finding.window) } else { still_early };
        if is_open && finding.verdict == Verdict::True {
            // The close of the window that holds an instance's beginning is evaluated where it fired early in it.
            instance.first_window = instance.first_window.min(finding.window);
        }
        instance.evaluated_at = cause.at;
    }
    let site = Site { tenant, compiled, window: finding.window, cause };
    // A changed quota starts "once per period and limit" anew, also for a firing that lasts.
    let redefined = cause.reason == Reason::Redefined && finding.verdict == Verdict::True;
    let step = if step == Step::Stay && redefined { Step::Remind(Reason::Redefined) } else { step };
    world.perform(site, account, place, step);
    let gate = gate(world.engine_version, tenant, account, (place, compiled), finding.verdict);
    if let Some(instance) = account.instances.get_mut(place) {
        instance.gate = gate;
    }
    world.mark(account, place, cause.at);
}

/// Looks at the newest closed window, or at an open one that proves the rule true already. Finds nothing where the
/// instance does not evaluate that window, because it did not exist from the window's beginning on.
fn find(
    engine_version: u32,
    tenant: &TenantState,
    account: &Account,
    (compiled, instance): (&Compiled, &Instance),
    cause: Cause,
) -> Option<Finding> {
    let own = instance.metric.as_ref();
    let closed = View { tenant, account, own, window: tenant.newest_closed(), at: cause.at };
    let Some(program) = &compiled.rule else {
        let (window, verdict) = (closed.window, Verdict::Inconclusive);
        return Some(Finding { window, verdict, recovered: None, closed: None });
    };
    let is_first = closed.window < instance.first_window && compiled.reads_window();
    // What ended before the instance was made is not evaluated.
    let oldest = instance.first_window.minus(WINDOW);
    let verdict = closed.verdict(program);
    let recovered =
        (verdict != Verdict::True).then(|| compiled.recover.as_ref().map(|recover| closed.verdict(recover)));
    let recovered = recovered.flatten();
    let judged = (!is_first).then_some((verdict, recovered));
    if compiled.fires_early(engine_version) && (is_first || verdict != Verdict::True || instance.state == State::Firing)
    {
        let fired = instance.early.filter(|start| *start >= tenant.closed && instance.state == State::Firing);
        let proven = |start: &Timestamp| {
            let view = View { window: *start, ..closed };
            *start >= tenant.closed.max(oldest)
                && view.only_non_negative(program)
                && view.verdict(program) == Verdict::True
        };
        let all = || open_windows(account, program, own, tenant.closed).into_iter().find(proven);
        let open = match cause.open_window.filter(proven) {
            Some(window) => Some(window),
            // Another open window may be what a pending instance waits on.
            None if cause.open_window.is_none() || instance.state == State::Pending => all(),
            None => None,
        };
        if let Some(window) = open.max(fired) {
            return Some(Finding { window, verdict: Verdict::True, recovered: None, closed: judged });
        }
    }
    judged.map(|(verdict, recovered)| Finding { window: closed.window, verdict, recovered, closed: judged })
}

/// The open windows that hold anything of what a rule reads.
pub(super) fn open_windows(
    account: &Account,
    program: &RuleProgram,
    own: Option<&MetricName>,
    closed: Timestamp,
) -> Vec<Timestamp> {
    let metrics = program.inputs().iter().filter_map(|input| input.metric.as_ref().or(own));
    let series = metrics.filter_map(|metric| account.series_of(metric));
    let mut starts: Vec<Timestamp> = series.flat_map(|series| series.windows.starts_from(closed)).collect();
    starts.sort_unstable();
    starts.dedup();
    starts
}

/// Judges a window that has just closed, and remembers the verdict for as long as the window may be corrected.
pub(super) fn judge_close(
    world: &mut World<'_>,
    tenant: &TenantState,
    account: &mut Account,
    place: usize,
    cause: Cause,
) {
    let Some(instance) = account.instances.get(place) else { return };
    let Some(compiled) = tenant.alerts.get(&instance.alert).filter(|compiled| !compiled.paused) else { return };
    let start = tenant.newest_closed();
    let own = instance.metric.clone();
    judge(world, tenant, account, place, Cause { look: Look::Close, ..cause });
    let Some(program) = compiled.rule.as_ref().filter(|program| program.reads_window()) else { return };
    if account.instances.get(place).is_none_or(|instance| start < instance.first_window) {
        return;
    }
    let verdict = View { tenant, account, own: own.as_ref(), window: start, at: cause.at }.verdict(program);
    let oldest = cause.at.minus(world.horizons.correction).minus(world.horizons.grace).minus(WINDOW);
    if let Some(instance) = account.instances.get_mut(place) {
        let told = instance.fired_in.take_if(|(window, _)| *window == start).map(|(_, told)| told);
        instance.decided.retain(|decided| decided.start > oldest);
        instance.decided.push_back(Decided { start, verdict, told, corrected: false });
    }
}

/// Takes in that a late event changed an older closed window that an instance had judged.
pub(super) fn judge_again(
    world: &mut World<'_>,
    tenant: &TenantState,
    account: &mut Account,
    place: usize,
    (start, cause): (Timestamp, Cause),
) {
    let Some(instance) = account.instances.get(place) else { return };
    let Some(compiled) = tenant.alerts.get(&instance.alert).filter(|compiled| !compiled.paused) else { return };
    let Some(program) = compiled.rule.as_ref().filter(|program| program.reads_window()) else { return };
    let Some(at) = instance.decided.iter().position(|decided| decided.start == start) else {
        world.effects.counts.late_uncorrected = world.effects.counts.late_uncorrected.saturating_add(1);
        return;
    };
    let metric = instance.metric.clone();
    let view = View { tenant, account, own: metric.as_ref(), window: start, at: cause.at };
    let verdict = view.verdict(program);
    let Some(before) = instance.decided.get(at).cloned() else { return };
    let policy = &compiled.definition;
    let overturned = matches!(
        (before.verdict, verdict),
        (Verdict::True, Verdict::False) | (Verdict::False | Verdict::NoData, Verdict::True)
    );
    let correctable = policy.hold.0 == 0 && policy.keep_firing_for.0 == 0 && !program.reads_quota();
    if overturned && !correctable {
        world.effects.counts.late_uncorrected = world.effects.counts.late_uncorrected.saturating_add(1);
    }
    let corrects = overturned && correctable && !before.corrected;
    if corrects {
        world.correct(Site { tenant, compiled, window: start, cause }, account, place, &before);
    }
    if let Some(decided) = account.instances.get_mut(place).and_then(|instance| instance.decided.get_mut(at)) {
        decided.verdict = verdict;
        decided.corrected |= corrects;
    }
}

/// Works out when events need not lead to an evaluation.
fn gate(
    engine_version: u32,
    tenant: &TenantState,
    account: &Account,
    (place, compiled): (usize, &Compiled),
    verdict: Verdict,
) -> Gate {
    let Some(instance) = account.instances.get(place) else { return Gate::Open };
    let Some(program) = &compiled.rule else { return Gate::Closed };
    if instance.missed.is_some() {
        return Gate::Open;
    }
    if !compiled.reads_quota() {
        return match (compiled.fires_early(engine_version), program.threshold()) {
            (false, _) => Gate::Closed,
            // A negative value takes back what a pending instance waits on.
            (true, Some(_)) if instance.state != State::Pending => Gate::Threshold,
            (true, _) => Gate::Open,
        };
    }
    let settled = match (verdict, instance.state) {
        (Verdict::False, State::Ok) => true,
        (Verdict::True, State::Firing) => compiled.recover.is_none() && instance.false_since.is_none(),
        (Verdict::True, State::Pending) => true,
        (
            Verdict::True | Verdict::False | Verdict::NoData | Verdict::Inconclusive,
            State::Ok | State::Pending | State::Firing | State::NoData | State::Inconclusive,
        ) => false,
    };
    let Some(threshold) = program.threshold().filter(|_| settled) else { return Gate::Open };
    let Some(input) = program.inputs().get(threshold.slot) else { return Gate::Open };
    let Some(metric) = input.metric.as_ref().or(instance.metric.as_ref()) else { return Gate::Open };
    let view =
        View { tenant, account, own: instance.metric.as_ref(), window: tenant.newest_closed(), at: tenant.closed };
    let Some(quota) = view.quota(metric) else { return Gate::Open };
    let used = view.used(metric, quota);
    level_gate((input.name, used), threshold, quota, verdict).unwrap_or(Gate::Open)
}

/// The range of `used` in which the verdict on a level is proven to stay as it is.
///
/// What rounding may decide, on each side of the crossing, is left to the full evaluation: two units of 10⁻⁹, and for a
/// percentage as much as 10⁻⁹ of a percent of the limit is.
fn level_gate((name, used): (Name, Quantity), threshold: Threshold, quota: &Quota, verdict: Verdict) -> Option<Gate> {
    let (period, fold) = (quota.period, quota.aggregate);
    if name == Name::QuotaPercent && quota.limit == Quantity::ZERO {
        // 0 up to there, and greater than every number from then on.
        let nothing = Gate::Level { least: Quantity(i128::MIN), most: Quantity::ZERO, period, fold };
        let something = Gate::Level { least: Quantity(1), most: Quantity(i128::MAX), period, fold };
        return Some(if used > Quantity::ZERO { something } else { nothing });
    }
    let (crossing, rises) = match name {
        Name::Used => (threshold.constant, true),
        Name::Remaining => (quota.limit.minus(threshold.constant), false),
        Name::QuotaPercent if quota.limit > Quantity::ZERO => {
            let hundredth = quota.limit.0.checked_mul(threshold.constant.0)?.checked_div(100_000_000_000)?;
            (Quantity(hundredth), true)
        }
        Name::QuotaPercent | Name::Limit | Name::PeriodElapsedPercent => return None,
        Name::Sum | Name::Count | Name::Min | Name::Max | Name::Avg | Name::Last | Name::Rate => return None,
    };
    let true_above = match threshold.op {
        Comparison::Greater | Comparison::GreaterOrEqual => rises,
        Comparison::Less | Comparison::LessOrEqual => !rises,
        Comparison::Equal | Comparison::NotEqual => return None,
    };
    let rounded = if name == Name::QuotaPercent { quota.limit.0.checked_div(100_000_000_000)? } else { 0 };
    let margin = Quantity(rounded.saturating_add(2));
    let above = (verdict == Verdict::True) == true_above;
    let (least, most) = if above {
        (crossing.plus(margin), Quantity(i128::MAX))
    } else {
        (Quantity(i128::MIN), crossing.minus(margin))
    };
    Some(Gate::Level { least, most, period, fold })
}

/// Tells whether an event in the open window `start` must lead to an evaluation.
pub(super) fn must_judge(
    tenant: &TenantState,
    account: &Account,
    place: usize,
    series: usize,
    start: Timestamp,
) -> bool {
    let Some(instance) = account.instances.get(place) else { return false };
    let Some(series) = account.series.get(series) else { return false };
    match instance.gate {
        Gate::Open => true,
        Gate::Closed => false,
        Gate::Level { least, most, period, fold } => {
            let used = series.levels.used(period, tenant.judged(period)).value(fold);
            used < least || most < used
        }
        Gate::Threshold => {
            if instance.early.is_some_and(|early| early >= start) && instance.state == State::Firing {
                return false;
            }
            let Some(compiled) = tenant.alerts.get(&instance.alert) else { return false };
            let Some(program) = &compiled.rule else { return false };
            let Some(threshold) = program.threshold() else { return true };
            let Some(input) = program.inputs().get(threshold.slot) else { return true };
            let view = View { tenant, account, own: instance.metric.as_ref(), window: start, at: start };
            known(&view.value(input)).is_some_and(|value| threshold.op.holds(value, threshold.constant))
        }
    }
}
