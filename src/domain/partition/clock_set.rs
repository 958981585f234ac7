//! Setting the clock of a fold back, where the log's own was wrong: what is behind the new time is evaluated again.
//!
//! What the wrong clock made the fold forget cannot be found in its state any more, so the fact brings it along: whoever
//! appends it has read the whole log.

use super::aggregate::Aggregate;
use super::alerts::Compiled;
use super::changes::Turn;
use super::effect::Reason;
use super::judge::{Cause, judge};
use super::state::{Hush, Judged, Partition};
use crate::domain::definition::Silence;
use crate::domain::id::{AccountId, Epoch, MetricName, Tenant};
use crate::domain::limits::STALE_AFTER;
use crate::domain::time::{Millis, Period, Timestamp, WINDOW};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What a fold knows again once its clock is set. It may come in several parts, each within the bounds of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Which part it is, from 0 on.
    pub part: u32,
    /// How many parts there are.
    pub parts: u32,
    /// Silences that have not ended by the new time.
    pub silences: Vec<(Tenant, Silence)>,
    /// What series used in the periods that the new time is in, or that come behind it.
    pub used: Vec<RestoredUse>,
}

/// What one series used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredUse {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// The account.
    pub account: AccountId,
    /// The epoch that it was used in; what ended with an earlier one is passed over.
    pub epoch: Epoch,
    /// The metric.
    pub metric: MetricName,
    /// By period and its start.
    pub periods: Vec<(Period, Timestamp, Aggregate)>,
}

impl Restored {
    const fn is_first(&self) -> bool {
        self.part == 0
    }

    const fn is_last(&self) -> bool {
        self.part.saturating_add(1) >= self.parts
    }
}

/// The start of the oldest period of a length that a fold keeps, by its tenant's clock.
pub fn oldest_period_kept(period: Period, clock: Timestamp) -> Timestamp {
    super::level::oldest_kept(period, clock)
}

impl Partition {
    /// A tenant's clock if the fold's were `clock`: that of a sandbox may be ahead.
    pub fn tenant_clock_at(&self, tenant: Tenant, clock: Timestamp) -> Timestamp {
        clock.plus(self.tenants.get(&tenant).map(|state| state.advance).unwrap_or_default())
    }

    /// The epoch of an account that is known here.
    pub fn epoch_of(&self, tenant: Tenant, account: &AccountId) -> Option<Epoch> {
        let slot = self.tenants.get(&tenant)?.accounts.get(account)?;
        self.accounts.get(*slot).map(|account| account.epoch)
    }

    /// Puts the clock back to `to`.
    ///
    /// Windows and periods that had passed are evaluated again as they come. Nobody is told of the past: every instance is
    /// evaluated once, and where `to` was long ago when it was set, what comes of that is told once it has caught up.
    pub(super) fn set_clock(&mut self, (to, set_at): (Timestamp, Timestamp), restored: &Restored, turn: &mut Turn<'_>) {
        // What the old clock has passed goes by the old clock, whether or not it has left the memory.
        self.flush(turn.effects);
        let tenants: Vec<Tenant> = self.tenants.keys().copied().collect();
        if restored.is_first() {
            self.forget_passed(&tenants);
            self.clock.recorded_max = to;
            self.clock.reached = to;
            self.clock.intake_through = self.clock.intake_through.map(|through| through.min(to));
            for tenant in &tenants {
                self.turn_back(*tenant, turn);
            }
            self.debts.due_by(to);
            self.outbox.due_by(to);
        }
        self.know_again(restored);
        self.rebuild_timers();
        if restored.is_last() {
            self.take_as_told();
            let stale = set_at.since(to) > STALE_AFTER;
            for tenant in &tenants {
                let cause = Cause { stale, ..Cause::of(Reason::Condition, self.tenant_clock(*tenant)) };
                self.each_account(*tenant, turn, |world, state, account| {
                    for place in account.instances.places() {
                        judge(world, state, account, place, cause);
                    }
                });
            }
            self.rebuild_timers();
        }
    }

    /// Drops what the present clock has passed, as a snapshot does.
    fn forget_passed(&mut self, tenants: &[Tenant]) {
        for tenant in tenants {
            let clock = self.tenant_clock(*tenant);
            let Some(state) = self.tenants.get(tenant) else { continue };
            for slot in state.accounts.values() {
                let Some(account) = self.accounts.get_mut(*slot) else { continue };
                for series in account.series.iter_mut() {
                    series.levels = series.levels.canonical(clock);
                    series.windows = series.windows.canonical(clock);
                    for windows in series.groups.values_mut() {
                        *windows = windows.canonical(clock);
                    }
                    series.groups.retain(|_, windows| !windows.is_empty());
                    series.group_hours = series.group_hours.canonical(clock);
                    series.full_until = Timestamp::MIN;
                }
            }
        }
    }

    /// Lets a tenant's windows, periods, pauses and instances begin again where its clock now is.
    fn turn_back(&mut self, tenant: Tenant, turn: &mut Turn<'_>) {
        let (clock, horizons) = (self.tenant_clock(tenant), self.horizons);
        let settled = clock.minus(horizons.grace);
        let Some(state) = self.tenants.get_mut(&tenant) else { return };
        state.closed = state.closed.min(settled.window_start(WINDOW));
        let hour = settled.window_start(Millis::hours(1));
        if hour < state.turned.instant {
            state.turned = Judged::at(hour);
        }
        for hush in state.silences.values_mut() {
            hush.started = hush.silence.starts_at <= clock;
        }
        let goes_on = |compiled: &&Arc<Compiled>| {
            let until = compiled.definition.pause.and_then(|pause| pause.until);
            !compiled.paused && until.is_some_and(|until| until > clock)
        };
        let resumed: Vec<Arc<Compiled>> = state.alerts.values().filter(goes_on).cloned().collect();
        for compiled in resumed {
            self.end_all(tenant, &compiled, Cause::of(Reason::Paused, clock), turn);
            let paused = Arc::new(Compiled::new(compiled.definition.clone(), true));
            self.tenant_mut(tenant).alerts.insert(paused);
        }
        let Some(state) = self.tenants.get(&tenant) else { return };
        for slot in state.accounts.values() {
            let Some(account) = self.accounts.get_mut(*slot) else { continue };
            account.wire_all(&state.alerts);
            for series in account.series.iter_mut() {
                series.windows.hold_at_most(clock, horizons.grace, horizons.correction);
                for windows in series.groups.values_mut() {
                    windows.hold_at_most(clock, horizons.grace, horizons.correction);
                }
                series.group_hours.hold_at_most(clock, horizons.grace, horizons.correction);
            }
            for instance in account.instances.iter_mut() {
                let repeat = state.alerts.get(&instance.alert).map(|compiled| compiled.definition.repeat_interval);
                instance.turn_back(clock, state.closed, repeat.unwrap_or_default());
            }
        }
    }

    /// Takes in what the wrong clock made the fold forget.
    fn know_again(&mut self, restored: &Restored) {
        for (tenant, silence) in &restored.silences {
            let clock = self.tenant_clock(*tenant);
            if silence.ends_at > clock {
                let hush = Hush::new(silence.clone(), clock);
                self.tenant_mut(*tenant).silences.entry(silence.id).or_insert(hush);
            }
        }
        for RestoredUse { tenant, account, epoch, metric, periods } in &restored.used {
            let slot = self.tenants.get(tenant).and_then(|state| state.accounts.get(account));
            let account = slot.and_then(|slot| self.accounts.get_mut(*slot)).filter(|known| known.epoch == *epoch);
            let series = account.and_then(|account| account.series.find_mut(metric));
            if let Some(series) = series {
                series.levels.restore(periods);
            }
        }
    }
}
