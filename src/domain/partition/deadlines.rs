//! What only time brings about: windows close, periods turn, holds run out, pauses and silences end.

use super::account::Account;
use super::alerts::Compiled;
use super::changes::Turn;
use super::effect::{Reason, State};
use super::fact::V3;
use super::instance::Instance;
use super::judge::{Cause, judge, judge_close};
use super::reach;
use super::state::{Due, Hush, Judged, Partition, TenantState};
use super::tell::Site;
use crate::domain::id::Tenant;
use crate::domain::limits::STALE_AFTER;
use crate::domain::rule::RuleProgram;
use crate::domain::time::{Millis, Period, Timestamp, WINDOW};

const HOUR: Millis = Millis::hours(1);

/// The timers of a tenant that has just appeared.
pub(super) fn tenant_timers(tenant: Tenant, state: &TenantState, grace: Millis) -> Vec<(Timestamp, Due)> {
    let due = |at: Timestamp| at.minus(state.advance);
    let mut timers = vec![
        (due(state.closed.plus(WINDOW).plus(grace)), Due::Close(tenant)),
        (due(state.turned.instant.window_start(HOUR).plus(HOUR).plus(grace)), Due::Turn(tenant)),
    ];
    timers.extend(state.alerts.values().filter_map(|compiled| pause_timer(tenant, state, compiled)));
    timers.extend(state.silences.values().flat_map(|hush| silence_timers(tenant, state, hush)));
    timers
}

/// The timer of an alert that is paused for a time.
pub(super) fn pause_timer(tenant: Tenant, state: &TenantState, compiled: &Compiled) -> Option<(Timestamp, Due)> {
    let until = compiled.definition.pause.filter(|_| compiled.paused).and_then(|pause| pause.until)?;
    Some((until.minus(state.advance), Due::PauseEnds(tenant, compiled.definition.id)))
}

/// The timers of a silence.
pub(super) fn silence_timers(tenant: Tenant, state: &TenantState, hush: &Hush) -> Vec<(Timestamp, Due)> {
    let (silence, advance) = (&hush.silence, state.advance);
    let starts = (silence.starts_at.minus(advance), Due::SilenceStarts(tenant, silence.id));
    let ends = (silence.ends_at.minus(advance), Due::SilenceEnds(tenant, silence.id));
    Some(starts).filter(|_| !hush.started).into_iter().chain([ends]).collect()
}

impl Partition {
    /// Returns when time alone will change the state, on the fold's clock.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Handles everything that is due by the fold's clock, in order, each at its own time.
    ///
    /// What was due before it was known of, such as the end of a silence that came too late, happens at `since`. Tells
    /// whether anything was due so long ago that it was passed over in silence.
    pub(super) fn run_deadlines(&mut self, turn: &mut Turn<'_>, since: Timestamp, fresh: bool) -> bool {
        let now = self.clock.now();
        let mut any_stale = false;
        while let Some((at, due)) = self.timers.first().filter(|(at, _)| *at <= now).cloned() {
            self.timers.remove(&(at, due.clone()));
            let at_or_since = at.max(since);
            let stale = !fresh && now.since(at_or_since) > STALE_AFTER;
            any_stale |= stale;
            self.handle(at_or_since, due, stale, turn);
        }
        if any_stale && self.engine_version >= V3 {
            self.end_catch_up(turn);
        }
        any_stale
    }

    /// Evaluates once, at the present, every instance of which something was passed over: catching up ends with at most
    /// one message about each.
    pub(super) fn end_catch_up(&mut self, turn: &mut Turn<'_>) {
        let tenants: Vec<Tenant> = self.tenants.keys().copied().collect();
        for tenant in tenants {
            let cause = Cause::of(Reason::Condition, self.tenant_clock(tenant));
            self.each_account(tenant, turn, |world, state, account| {
                for place in account.instances.places() {
                    let Some(instance) = account.instances.get_mut(place) else { continue };
                    let repeat_missed = std::mem::take(&mut instance.repeat_missed);
                    if instance.missed.is_none() && !instance.held && !repeat_missed {
                        continue;
                    }
                    let Some(compiled) = state.alerts.get(&instance.alert).filter(|compiled| !compiled.paused) else {
                        continue;
                    };
                    let (site, before) =
                        (Site { tenant: state, compiled, window: state.newest_closed(), cause }, *world.index);
                    judge(world, state, account, place, cause);
                    if *world.index == before {
                        world.remind(site, account, place, Reason::SilenceEnded);
                        world.tell_held_no_data(site, account, place);
                    }
                    if *world.index == before && repeat_missed {
                        world.remind(site, account, place, Reason::Repeat);
                    }
                    world.set_timer(site, account, place);
                    world.touch(state, account, place, cause.at);
                }
            });
        }
    }

    /// Forgets what channels were sent long ago, apart from what lasts.
    fn prune_debts(&mut self) {
        let (tenants, accounts) = (&self.tenants, &self.accounts);
        self.debts.prune(self.clock.now(), |key| {
            let slot = tenants.get(&key.tenant).and_then(|state| state.accounts.get(&key.account));
            let account = slot.and_then(|slot| accounts.get(*slot));
            let instance = account.and_then(|account| account.instances.find(key.alert, key.metric.as_ref()));
            instance.is_some_and(|instance| instance.told.is_some() || instance.missed.is_some())
        });
    }

    fn handle(&mut self, due_at: Timestamp, due: Due, stale: bool, turn: &mut Turn<'_>) {
        let (tenant, advance) = match &due {
            Due::Close(tenant)
            | Due::Turn(tenant)
            | Due::Instance(tenant, ..)
            | Due::PauseEnds(tenant, _)
            | Due::SilenceEnds(tenant, _)
            | Due::SilenceStarts(tenant, _) => {
                (*tenant, self.tenants.get(tenant).map(|state| state.advance).unwrap_or_default())
            }
        };
        let at = due_at.plus(advance);
        let cause = Cause { stale, ..Cause::of(Reason::Condition, at) };
        match due {
            Due::Close(_) => self.close(tenant, cause, turn),
            Due::Turn(_) => self.turn(tenant, cause, turn),
            Due::Instance(_, account, alert, metric) => {
                let slot = self.tenants.get(&tenant).and_then(|state| state.accounts.get(&account)).copied();
                let Some(slot) = slot else { return };
                self.on_account(slot, turn, |world, state, account| {
                    let place = account.instances.place_of(alert, metric.as_ref());
                    let (Some(place), Some(compiled)) = (place, state.alerts.get(&alert)) else { return };
                    let Some(instance) = account.instances.get_mut(place) else { return };
                    instance.timer = None;
                    let repeats = instance.repeat_at.is_some_and(|repeat| repeat <= at);
                    judge(world, state, account, place, cause);
                    if repeats && account.instances.get(place).is_some_and(|i| i.repeat_at.is_some_and(|r| r <= at)) {
                        let site = Site { tenant: state, compiled, window: state.newest_closed(), cause };
                        world.remind(site, account, place, Reason::Repeat);
                        world.set_timer(site, account, place);
                    }
                });
            }
            Due::PauseEnds(_, alert) => self.end_pause(tenant, alert, cause, turn),
            Due::SilenceEnds(_, silence) => {
                self.tenant_mut(tenant).silences.remove(&silence);
                self.tell_held(tenant, Cause { reason: Reason::SilenceEnded, ..cause }, turn);
            }
            Due::SilenceStarts(_, silence) => {
                if let Some(hush) = self.tenant_mut(tenant).silences.get_mut(&silence) {
                    hush.started = true;
                }
                self.show_silenced(tenant, cause.at, turn);
            }
        }
    }

    fn close(&mut self, tenant: Tenant, cause: Cause, turn: &mut Turn<'_>) {
        let now = self.clock.now();
        let Some(state) = self.tenants.get_mut(&tenant) else { return };
        let judges = state.alerts.values().any(|compiled| compiled.judges_closes());
        state.closed = state.closed.plus(WINDOW);
        if !judges {
            // Nobody looks at a single close, so however many are due are one.
            let due = now.plus(state.advance).minus(self.horizons.grace).window_start(WINDOW);
            state.closed = state.closed.max(due);
        }
        let closed_at = state.closed.plus(self.horizons.grace);
        let next = closed_at.plus(WINDOW).minus(state.advance);
        self.timers.insert((next, Due::Close(tenant)));
        // While catching up, one sweep at the end does for all.
        let sweeps = next > now;
        if !judges && !sweeps {
            return;
        }
        self.each_account(tenant, turn, |world, state, account| {
            for place in account.instances.places() {
                world.count_steps(1);
                let alert = account.instances.get(place).and_then(|instance| state.alerts.get(&instance.alert));
                if alert.is_some_and(|compiled| compiled.judges_closes()) {
                    judge_close(world, state, account, place, cause);
                }
            }
            if sweeps {
                for series in account.series.iter_mut() {
                    series.windows.evict(closed_at);
                    for windows in series.groups.values_mut() {
                        windows.evict(closed_at);
                    }
                    series.groups.retain(|_, windows| !windows.is_empty());
                    series.group_hours.evict(closed_at);
                }
            }
        });
    }

    /// The judged periods become those that hold the hour that has just begun.
    fn turn(&mut self, tenant: Tenant, cause: Cause, turn: &mut Turn<'_>) {
        let Some(state) = self.tenants.get_mut(&tenant) else { return };
        let before = state.turned.instant;
        let boundary = before.window_start(HOUR).plus(HOUR);
        let next = boundary.plus(HOUR).plus(self.horizons.grace).minus(state.advance);
        self.timers.insert((next, Due::Turn(tenant)));
        let turns = |period: Period| period.bounds(before) != period.bounds(boundary);
        let ends = |program: &RuleProgram, state: &TenantState, account: &Account, instance: &Instance| {
            let metrics = program.inputs().iter().filter(|input| input.name.reads_quota());
            metrics
                .filter_map(|input| input.metric.as_ref().or(instance.metric.as_ref()))
                .any(|metric| account.quota_of(state, metric).is_some_and(|quota| turns(quota.period)))
        };
        // Firings of the old period end while it is still the judged one, so that their evidence speaks of it.
        let mut ended: Vec<(usize, usize)> = Vec::new();
        let mut quotas = Vec::new();
        self.each_account(tenant, turn, |world, state, account| {
            reach::ending(state, account, turns, &mut quotas);
            for place in account.instances.places() {
                world.count_steps(1);
                let Some(instance) = account.instances.get(place) else { continue };
                let Some(compiled) = state.alerts.get(&instance.alert) else { continue };
                if !compiled.programs().any(|program| ends(program, state, account, instance)) {
                    continue;
                }
                ended.push((account.slot, place));
                let rule_ends = compiled.rule.as_ref().is_some_and(|rule| ends(rule, state, account, instance));
                let is_episode = matches!(instance.state, State::Firing | State::Pending);
                if rule_ends && is_episode && !compiled.paused {
                    let site = Site { tenant: state, compiled, window: state.newest_closed(), cause };
                    world.reset(site, account, place, Reason::PeriodEnded);
                }
            }
        });
        if let Some(state) = self.tenants.get_mut(&tenant) {
            state.turned = Judged::at(boundary);
        }
        self.begin_anew(quotas, cause.at, turn);
        for (slot, place) in ended {
            self.on_account(slot, turn, |world, state, account| judge(world, state, account, place, cause));
        }
        self.prune_debts();
        self.unheard.prune(self.clock.now());
    }

    /// Works out anew what time will bring about.
    pub(super) fn rebuild_timers(&mut self) {
        self.timers.clear();
        let tenants: Vec<Tenant> = self.tenants.keys().copied().collect();
        for tenant in tenants {
            self.set_timers_of(tenant);
        }
    }

    /// Works out anew what time will bring about for one tenant, whose timers were cleared.
    pub(super) fn set_timers_of(&mut self, tenant: Tenant) {
        let Some(state) = self.tenants.get(&tenant) else { return };
        self.timers.extend(tenant_timers(tenant, state, self.horizons.grace));
        for slot in state.accounts.values() {
            let Some(account) = self.accounts.get_mut(*slot) else { continue };
            for place in account.instances.places() {
                let Some(instance) = account.instances.get(place) else { continue };
                let due = state.alerts.get(&instance.alert).and_then(|c| c.due(instance, self.engine_version));
                let due = due.map(|at| at.minus(state.advance));
                if let Some(due) = due {
                    self.timers.insert((due, super::tell::due_key(account, instance)));
                }
                if let Some(instance) = account.instances.get_mut(place) {
                    instance.timer = due;
                }
            }
        }
    }

    /// Drops the timers of one tenant, before what they follow from changes.
    pub(super) fn clear_timers_of(&mut self, tenant: Tenant) {
        let Some(state) = self.tenants.get(&tenant) else { return };
        for timer in tenant_timers(tenant, state, self.horizons.grace) {
            self.timers.remove(&timer);
        }
        let accounts = state.accounts.values().filter_map(|slot| self.accounts.get(*slot));
        for account in accounts {
            for instance in account.instances.iter() {
                if let Some(due) = instance.timer {
                    self.timers.remove(&(due, super::tell::due_key(account, instance)));
                }
            }
        }
    }
}
