//! Taking in what changed in the control plane.

use super::alerts::Compiled;
use super::deadlines::{pause_timer, silence_timers};
use super::effect::{Effects, Purge, Reason};
use super::fact::V3;
use super::fit::{Judging, drop_alert, end_without_quota, refit, requota, retire};
use super::judge::Cause;
use super::reach::look_anew;
use super::series::Series;
use super::state::{Horizons, Hush, Partition, TenantState};
use super::step::Look;
use super::tell::Site;
use crate::domain::control::outcome::{Change, PositionedChange};
use crate::domain::definition::{AlertDefinition, Quota};
use crate::domain::event::{Frame, FrameAccount};
use crate::domain::id::{AccountScope, AlertId, Epoch, Log, MetricName, Position, SilenceId, Stamp, Tenant};
use crate::domain::time::Timestamp;
use std::sync::Arc;

impl Partition {
    /// Takes in a copy of control changes; what was copied before is passed over.
    pub(super) fn take_changes(
        &mut self,
        (after, through): (Position, Position),
        changes: &[PositionedChange],
        turn: &mut Turn<'_>,
    ) {
        if after > self.control_through {
            return;
        }
        for (position, change) in changes {
            if *position > self.control_through {
                self.take_change(change, Epoch(position.0), turn);
            }
        }
        self.control_through = self.control_through.max(through);
    }

    fn take_change(&mut self, change: &Change, epoch: Epoch, turn: &mut Turn<'_>) {
        match change {
            Change::Settings { grace, dedup_horizon, correction_horizon } => {
                self.horizons = Horizons { grace: *grace, dedup: *dedup_horizon, correction: *correction_horizon };
                self.rebuild_timers();
            }
            Change::Metric { tenant, metric, definition } => {
                let metrics = &mut self.tenant_mut(*tenant).metrics;
                match definition {
                    Some(definition) => metrics.insert(metric.clone(), definition.clone()),
                    None => metrics.remove(metric),
                };
            }
            Change::Quota { tenant, account, metric, quota } => {
                self.change_quota((*tenant, epoch), account, (metric, *quota), turn);
            }
            Change::Alert { tenant, definition } => self.change_alert(*tenant, definition, turn),
            Change::AlertDeleted { tenant, alert } => self.delete_alert(*tenant, *alert, Reason::Deleted, turn),
            Change::AccountDeleted { tenant, account } => {
                if let Some(slot) = self.tenant_mut(*tenant).accounts.get(account).copied() {
                    self.renew_account(slot, epoch, turn);
                } else if self.routes_here(*tenant, account) {
                    // The epoch must be known even where nothing was counted yet.
                    let slot = self.account_slot(*tenant, account);
                    self.renew_account(slot, epoch, turn);
                }
            }
            Change::SandboxReset { tenant } => self.reset_tenant(*tenant, epoch, turn),
            Change::ClockAdvanced { tenant, by } => {
                self.tenant_mut(*tenant);
                self.clear_timers_of(*tenant);
                let state = self.tenant_mut(*tenant);
                state.advance = state.advance.plus(*by);
                self.set_timers_of(*tenant);
                self.run_deadlines(turn, self.clock.now().minus(*by), true);
            }
            Change::UsageSeeded { tenant, account, metric, from, every, values } => {
                let accepted_at = self.tenant_clock(*tenant);
                let account = FrameAccount { tenant: *tenant, epoch: Epoch::default(), account: account.clone() };
                let frame = Frame::regular(account, metric.clone(), (*from, *every), values, accepted_at);
                self.seed_usage(&frame, epoch, turn);
            }
            Change::Silence { tenant, silence } => {
                let hush = Hush::new(silence.clone(), self.tenant_clock(*tenant));
                self.put_silence(*tenant, silence.id, Some(hush));
                self.after_silence(*tenant, turn);
            }
            Change::SilenceDeleted { tenant, silence } => {
                self.put_silence(*tenant, *silence, None);
                self.after_silence(*tenant, turn);
            }
            Change::Webhook { .. } | Change::Redeliver { .. } => {
                let log = (Log::Partition(self.id), self.engine_version);
                self.outbox.learn(change, log, turn.stamp, &mut turn.effects.webhooks);
            }
            Change::ChannelRepaired { tenant, channel } => self.repair_channel(*tenant, *channel, turn),
            Change::RedeliverMessage { tenant: _, channel, notification, attempts } => {
                self.redeliver(*channel, notification, *attempts, turn);
            }
            Change::Test { tenant, test } => self.owe_test(*tenant, test, turn),
        }
    }

    /// Puts a silence, or none, where another may have stood.
    fn put_silence(&mut self, tenant: Tenant, id: SilenceId, hush: Option<Hush>) {
        let before = self.tenant_mut(tenant).silences.remove(&id);
        let Some(state) = self.tenants.get_mut(&tenant) else { return };
        for timer in before.iter().flat_map(|before| silence_timers(tenant, state, before)) {
            self.timers.remove(&timer);
        }
        if let Some(hush) = hush {
            self.timers.extend(silence_timers(tenant, state, &hush));
            state.silences.insert(id, hush);
        }
    }

    /// Tells the tenants that the engine version was raised. Silences may hold other instances from here on; nothing is sent
    /// for that.
    pub(super) fn hand_down_version(&mut self, before: u32, turn: &mut Turn<'_>) {
        let version = self.engine_version;
        self.tenants.values_mut().for_each(|state| state.engine_version = version);
        if before < V3 && V3 <= version {
            let silenced = self.tenants.iter().filter(|(_, state)| !state.silences.is_empty());
            let tenants: Vec<Tenant> = silenced.map(|(tenant, _)| *tenant).collect();
            for tenant in tenants {
                self.show_all_silenced(tenant, turn);
            }
        }
    }

    /// Stores anew whether silences hold instances.
    fn show_all_silenced(&mut self, tenant: Tenant, turn: &mut Turn<'_>) {
        let at = self.tenant_clock(tenant);
        self.each_account(tenant, turn, |world, state, account| {
            for place in account.instances.places() {
                world.touch(state, account, place, at);
            }
        });
    }

    /// Counts usage that nobody sent; nothing where the account was deleted since.
    fn seed_usage(&mut self, frame: &Frame, epoch: Epoch, turn: &mut Turn<'_>) {
        let Some(named) = frame.accounts.first() else { return };
        if !self.routes_here(named.tenant, &named.account) {
            return;
        }
        let slot = self.account_slot(named.tenant, &named.account);
        if self.accounts.get(slot).is_some_and(|account| account.epoch <= epoch) {
            let before = turn.effects.counts.events;
            self.count_frame(frame, &[], turn);
            // Nobody sent these, so they are none of the events that are counted as taken in.
            let counts = &mut turn.effects.counts;
            counts.sown = counts.sown.saturating_add(counts.events.saturating_sub(before));
            counts.events = before;
        }
    }

    fn change_quota(
        &mut self,
        (tenant, epoch): (Tenant, Epoch),
        scope: &AccountScope,
        (metric, quota): (&MetricName, Option<Quota>),
        turn: &mut Turn<'_>,
    ) {
        let at = self.tenant_clock(tenant);
        let cause = Cause::of(Reason::Redefined, at);
        match scope {
            AccountScope::One(account) => {
                if !self.routes_here(tenant, account) {
                    return;
                }
                let slot = self.account_slot(tenant, account);
                // An event may have told of a deletion that the copies have yet to reach.
                if self.accounts.get(slot).is_some_and(|account| epoch < account.epoch) {
                    return;
                }
                let removes = quota.is_none()
                    && self.accounts.get(slot).is_some_and(|account| account.quotas.contains_key(metric));
                let ends = removes && self.engine_version >= V3 && !self.has_quota_for_all(tenant, metric);
                if ends {
                    self.on_account(slot, turn, |world, state, account| {
                        end_without_quota(world, state, account, metric, cause);
                    });
                }
                if let Some(account) = self.accounts.get_mut(slot) {
                    put(&mut account.quotas, metric, quota);
                }
                self.on_account(slot, turn, |world, state, account| {
                    requota(world, state, account, metric, cause);
                    look_anew(world, state, account, metric, at);
                });
            }
            AccountScope::All => {
                let removes = quota.is_none() && self.has_quota_for_all(tenant, metric);
                if removes && self.engine_version >= V3 {
                    self.each_account(tenant, turn, |world, state, account| {
                        if !account.quotas.contains_key(metric) {
                            end_without_quota(world, state, account, metric, cause);
                        }
                    });
                }
                put(&mut self.tenant_mut(tenant).quotas, metric, quota);
                self.each_account(tenant, turn, |world, state, account| {
                    if !account.quotas.contains_key(metric) {
                        requota(world, state, account, metric, cause);
                        look_anew(world, state, account, metric, at);
                    }
                });
            }
        }
    }

    fn has_quota_for_all(&self, tenant: Tenant, metric: &MetricName) -> bool {
        self.tenants.get(&tenant).is_some_and(|state| state.quotas.contains_key(metric))
    }

    fn change_alert(&mut self, tenant: Tenant, definition: &AlertDefinition, turn: &mut Turn<'_>) {
        let at = self.tenant_clock(tenant);
        if let AccountScope::One(account) = &definition.account
            && self.routes_here(tenant, account)
        {
            self.account_slot(tenant, account);
        }
        let paused = definition.pause.is_some_and(|pause| pause.until.is_none_or(|until| until > at));
        let compiled = Arc::new(Compiled::new(definition.clone(), paused));
        let old = self.tenant_mut(tenant).alerts.get(&definition.id).cloned();
        if paused && let Some(old) = &old {
            // What ends by the pause is told as the alert stood before.
            let cause = Cause::of(Reason::Paused, at);
            self.end_all(tenant, old, cause, turn);
        }
        self.put_alert(tenant, Arc::clone(&compiled));
        let judging = Judging::of(old.as_deref(), (definition, paused), self.engine_version);
        let resumed_or_new = old.as_ref().is_none_or(|old| old.paused);
        let reason = if resumed_or_new { Reason::Condition } else { Reason::Edited };
        let cause = Cause::of(reason, at);
        let scopes = old.iter().chain([&compiled]).map(|compiled| &compiled.definition.account);
        let scopes: Vec<&AccountScope> = scopes.collect();
        self.each_covered(tenant, &scopes, turn, |world, state, account| {
            refit(world, state, account, (&compiled, judging), old.as_deref(), cause);
            // Labels, severity or name may bring an instance under a silence, or out of it.
            for place in account.instances.places_of(definition.id).to_vec() {
                if world.is_v3() {
                    world.tell_unsilenced(state, account, place, cause);
                }
                world.touch(state, account, place, cause.at);
            }
        });
        self.send_held(tenant, turn);
        self.tell_added(tenant, (old.as_deref(), definition), at, turn);
    }

    /// Ends the episodes of all instances of an alert.
    pub(super) fn end_all(&mut self, tenant: Tenant, compiled: &Compiled, cause: Cause, turn: &mut Turn<'_>) {
        self.each_covered(tenant, &[&compiled.definition.account], turn, |world, state, account| {
            for place in account.instances.places_of(compiled.definition.id).to_vec() {
                let site = Site { tenant: state, compiled, window: state.newest_closed(), cause };
                world.reset(site, account, place, cause.reason);
            }
        });
    }

    fn delete_alert(&mut self, tenant: Tenant, alert: AlertId, reason: Reason, turn: &mut Turn<'_>) {
        let cause = Cause::of(reason, self.tenant_clock(tenant));
        let Some(compiled) = self.tenant_mut(tenant).alerts.get(&alert).cloned() else { return };
        self.end_all(tenant, &compiled, cause, turn);
        self.tenant_mut(tenant).alerts.remove(alert);
        self.forget_pause(tenant, &compiled);
        self.each_covered(tenant, &[&compiled.definition.account], turn, |world, _, account| {
            drop_alert(world, account, &compiled, cause.at);
            account.retired.remove(&alert);
        });
    }

    /// Starts an account anew: its usage, quotas and episodes end.
    pub(super) fn renew_account(&mut self, slot: usize, epoch: Epoch, turn: &mut Turn<'_>) {
        let Some(account) = self.accounts.get(slot) else { return };
        if epoch <= account.epoch {
            return;
        }
        let cause = Cause::of(Reason::AccountDeleted, self.tenant_clock(account.tenant));
        self.quarantine.forget(account.tenant, Some(&account.name));
        if self.engine_version >= V3 {
            let (tenant, name, ended) = (account.tenant, account.name.clone(), account.epoch);
            let position = turn.stamp.position;
            turn.effects.purges.push(Purge { tenant, account: name, from: ended, through: ended, position });
        }
        self.flush_account(slot, turn.effects);
        self.on_account(slot, turn, |world, state, account| {
            for place in account.instances.places() {
                let alert = account.instances.get(place).and_then(|instance| state.alerts.get(&instance.alert));
                if let Some(compiled) = alert {
                    let site = Site { tenant: state, compiled, window: state.newest_closed(), cause };
                    world.reset(site, account, place, cause.reason);
                }
            }
            for instance in account.instances.take() {
                retire(world, account, instance, cause.at);
            }
            account.series.clear();
            account.quotas.clear();
            account.seen = false;
            account.epoch = epoch;
            let cause = Cause::of(Reason::Condition, cause.at);
            for compiled in state.alerts.covering(&account.name) {
                refit(world, state, account, (&compiled, Judging::Fresh), None, cause);
            }
        });
    }

    fn reset_tenant(&mut self, tenant: Tenant, epoch: Epoch, turn: &mut Turn<'_>) {
        let alerts: Vec<AlertId> = self.tenant_mut(tenant).alerts.keys().copied().collect();
        for alert in alerts {
            self.delete_alert(tenant, alert, Reason::AccountDeleted, turn);
        }
        let slots: Vec<usize> = self.tenant_mut(tenant).accounts.values().copied().collect();
        let purge_count = turn.effects.purges.len();
        for slot in &slots {
            self.renew_account(*slot, epoch, turn);
        }
        // A sandbox's old rows stay, unread.
        turn.effects.purges.truncate(purge_count);
        self.quarantine.forget(tenant, None);
        let (version, clock, grace) = (self.engine_version, self.clock.now(), self.horizons.grace);
        self.clear_timers_of(tenant);
        let state = self.tenant_mut(tenant);
        let accounts = std::mem::take(&mut state.accounts);
        // The clock goes back to the fold's own, and what closes and turns with it.
        *state = TenantState { epoch, accounts, ..TenantState::new(version, clock, grace) };
        // An event that knew of the reset may have renewed its account before.
        for slot in slots {
            let account = self.accounts.get_mut(slot);
            account.into_iter().flat_map(|account| account.series.iter_mut()).for_each(Series::forget_told);
        }
        self.set_timers_of(tenant);
    }

    /// Puts an alert where another definition of it may have stood.
    fn put_alert(&mut self, tenant: Tenant, compiled: Arc<Compiled>) {
        let before = self.tenant_mut(tenant).alerts.insert(Arc::clone(&compiled));
        if let Some(before) = before {
            self.forget_pause(tenant, &before);
        }
        if let Some(state) = self.tenants.get(&tenant) {
            self.timers.extend(pause_timer(tenant, state, &compiled));
        }
    }

    /// Drops the timer of an alert's pause.
    fn forget_pause(&mut self, tenant: Tenant, compiled: &Compiled) {
        if let Some(timer) = self.tenants.get(&tenant).and_then(|state| pause_timer(tenant, state, compiled)) {
            self.timers.remove(&timer);
        }
    }

    /// Ends a pause whose time has come.
    pub(super) fn end_pause(&mut self, tenant: Tenant, alert: AlertId, cause: Cause, turn: &mut Turn<'_>) {
        let Some(compiled) = self.tenant_mut(tenant).alerts.get(&alert).filter(|compiled| compiled.paused) else {
            return;
        };
        let resumed = Arc::new(Compiled::new(compiled.definition.clone(), false));
        let paused = self.tenant_mut(tenant).alerts.insert(Arc::clone(&resumed));
        self.each_covered(tenant, &[&resumed.definition.account], turn, |world, state, account| {
            refit(world, state, account, (&resumed, Judging::All), paused.as_deref(), cause);
        });
    }

    /// Sends what silences held and hold no longer.
    pub(super) fn after_silence(&mut self, tenant: Tenant, turn: &mut Turn<'_>) {
        let cause = Cause::of(Reason::SilenceEnded, self.tenant_clock(tenant));
        self.tell_held(tenant, cause, turn);
    }

    /// Stores that a silence holds instances, now that it has begun.
    pub(super) fn show_silenced(&mut self, tenant: Tenant, at: Timestamp, turn: &mut Turn<'_>) {
        self.each_account(tenant, turn, |world, state, account| {
            for place in account.instances.places() {
                let Some(instance) = account.instances.get(place) else { continue };
                let compiled = state.alerts.get(&instance.alert);
                let own = instance.metric.as_ref();
                if compiled.is_some_and(|compiled| state.is_silenced(compiled, &account.name, own, at)) {
                    world.touch(state, account, place, at);
                }
            }
        });
    }

    pub(super) fn tell_held(&mut self, tenant: Tenant, cause: Cause, turn: &mut Turn<'_>) {
        self.each_account(tenant, turn, |world, state, account| {
            for place in account.instances.places() {
                world.tell_unsilenced(state, account, place, cause);
                world.touch(state, account, place, cause.at);
            }
        });
        self.send_held(tenant, turn);
    }
}

/// The record that is being taken in, and what it has caused so far.
pub(super) struct Turn<'a> {
    pub(super) stamp: Stamp,
    pub(super) index: &'a mut u32,
    pub(super) effects: &'a mut Effects,
}

impl Cause {
    pub(super) const fn of(reason: Reason, at: Timestamp) -> Self {
        Self { reason, at, stale: false, accepted_at: None, open_window: None, look: Look::Between }
    }
}

fn put(quotas: &mut std::collections::BTreeMap<MetricName, Quota>, metric: &MetricName, quota: Option<Quota>) {
    match quota {
        Some(quota) => quotas.insert(metric.clone(), quota),
        None => quotas.remove(metric),
    };
}
