//! Taking in what changed in the control plane.

use super::effect::{Effects, Purge, Reason};
use super::fact::V3;
use super::fit::{Judging, drop_instances, end_without_quota, refit, requota};
use super::judge::Cause;
use super::reach::look_anew;
use super::state::{Account, Compiled, Due, Horizons, Hush, Partition, Series, TenantState};
use super::step::Look;
use super::tell::{Site, World};
use crate::domain::control::outcome::{Change, PositionedChange};
use crate::domain::definition::{AlertDefinition, Quota};
use crate::domain::event::{Frame, FrameAccount};
use crate::domain::id::{AccountId, AccountScope, AlertId, Epoch, Log, MetricName, Position, Stamp, Tenant};
use crate::domain::routing::partition_of;
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
                let state = self.tenant_mut(*tenant);
                state.advance = state.advance.plus(*by);
                self.rebuild_timers();
                self.run_deadlines(turn, self.clock.now().minus(*by), true);
            }
            Change::UsageSeeded { tenant, account, metric, from, every, values } => {
                let accepted_at = self.tenant_clock(*tenant);
                let account = FrameAccount { tenant: *tenant, epoch: Epoch::default(), account: account.clone() };
                let frame = Frame::regular(account, metric.clone(), (*from, *every), values, accepted_at);
                self.seed_usage(&frame, epoch, turn);
            }
            Change::Silence { tenant, silence } => {
                let (key, clock) = (silence.id, self.tenant_clock(*tenant));
                self.tenant_mut(*tenant).silences.insert(key, Hush::new(silence.clone(), clock));
                self.rebuild_timers();
                self.after_silence(*tenant, turn);
            }
            Change::SilenceDeleted { tenant, silence } => {
                self.tenant_mut(*tenant).silences.remove(silence);
                let (starts, ends) = (Due::SilenceStarts(*tenant, *silence), Due::SilenceEnds(*tenant, *silence));
                self.timers.retain(|(_, due)| *due != starts && *due != ends);
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
            for place in 0..account.instances.len() {
                world.touch(state, account, place, at);
            }
        });
    }

    pub(super) fn tenant_mut(&mut self, tenant: Tenant) -> &mut TenantState {
        let (version, clock, grace) = (self.engine_version, self.clock.now(), self.horizons.grace);
        if !self.tenants.contains_key(&tenant) {
            let state = TenantState::new(version, clock, grace);
            self.timers.extend(super::deadlines::tenant_timers(tenant, &state, grace));
            self.tenants.insert(tenant, state);
        }
        self.tenants.entry(tenant).or_insert_with(|| TenantState::new(version, clock, grace))
    }

    /// Returns an account's place, made where it is missing.
    pub(super) fn account_slot(&mut self, tenant: Tenant, account: &AccountId) -> usize {
        let slot = self.accounts.len();
        let state = self.tenant_mut(tenant);
        if let Some(found) = state.accounts.get(account) {
            return *found;
        }
        let epoch = state.epoch;
        state.accounts.insert(account.clone(), slot);
        self.accounts.push(Account { slot, ..Account::new(tenant, account.clone(), epoch) });
        slot
    }

    fn routes_here(&self, tenant: Tenant, account: &AccountId) -> bool {
        partition_of(tenant.workspace, account, self.partition_count) == self.id
    }

    pub(super) fn tenant_clock(&self, tenant: Tenant) -> Timestamp {
        let advance = self.tenants.get(&tenant).map(|state| state.advance).unwrap_or_default();
        self.clock.now().plus(advance)
    }

    /// Runs `act` on accounts of a tenant, in order of their names.
    pub(super) fn each_account(
        &mut self,
        tenant: Tenant,
        turn: &mut Turn<'_>,
        mut act: impl FnMut(&mut World<'_>, &TenantState, &mut Account),
    ) {
        let Some(state) = self.tenants.get(&tenant) else { return };
        let mut world = World {
            partition: self.id,
            stamp: turn.stamp,
            index: turn.index,
            horizons: self.horizons,
            effects: turn.effects,
            debts: &mut self.debts,
            outbox: &mut self.outbox,
            timers: &mut self.timers,
            dirty: &mut self.dirty,
            engine_version: self.engine_version,
        };
        for slot in state.accounts.values() {
            if let Some(account) = self.accounts.get_mut(*slot) {
                act(&mut world, state, account);
            }
        }
    }

    /// Runs `act` on one account.
    pub(super) fn on_account<T>(
        &mut self,
        slot: usize,
        turn: &mut Turn<'_>,
        act: impl FnOnce(&mut World<'_>, &TenantState, &mut Account) -> T,
    ) -> Option<T> {
        let account = self.accounts.get_mut(slot)?;
        let state = self.tenants.get(&account.tenant)?;
        let mut world = World {
            partition: self.id,
            stamp: turn.stamp,
            index: turn.index,
            horizons: self.horizons,
            effects: turn.effects,
            debts: &mut self.debts,
            outbox: &mut self.outbox,
            timers: &mut self.timers,
            dirty: &mut self.dirty,
            engine_version: self.engine_version,
        };
        Some(act(&mut world, state, account))
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
        self.tenant_mut(tenant).alerts.insert(definition.id, compiled);
        self.add_pause_timer(tenant, definition);
        let judging = Judging::of(old.as_deref(), (definition, paused), self.engine_version);
        let resumed_or_new = old.as_ref().is_none_or(|old| old.paused);
        let reason = if resumed_or_new { Reason::Condition } else { Reason::Edited };
        let cause = Cause::of(reason, at);
        self.each_account(tenant, turn, |world, state, account| {
            refit(world, state, account, (definition.id, judging), cause);
            // Labels, severity or name may bring an instance under a silence, or out of it.
            for place in 0..account.instances.len() {
                if account.instances.get(place).is_some_and(|instance| instance.alert == definition.id) {
                    if world.is_v3() {
                        world.tell_unsilenced(state, account, place, cause);
                    }
                    world.touch(state, account, place, cause.at);
                }
            }
        });
        self.send_held(tenant, turn);
        self.tell_added(tenant, (old.as_deref(), definition), at, turn);
    }

    /// Ends the episodes of all instances of an alert.
    pub(super) fn end_all(&mut self, tenant: Tenant, compiled: &Compiled, cause: Cause, turn: &mut Turn<'_>) {
        self.each_account(tenant, turn, |world, state, account| {
            for place in 0..account.instances.len() {
                if account.instances.get(place).is_some_and(|instance| instance.alert == compiled.definition.id) {
                    let site = Site { tenant: state, compiled, window: state.newest_closed(), cause };
                    world.reset(site, account, place, cause.reason);
                }
            }
        });
    }

    fn delete_alert(&mut self, tenant: Tenant, alert: AlertId, reason: Reason, turn: &mut Turn<'_>) {
        let cause = Cause::of(reason, self.tenant_clock(tenant));
        let Some(compiled) = self.tenant_mut(tenant).alerts.get(&alert).cloned() else { return };
        self.end_all(tenant, &compiled, cause, turn);
        self.tenant_mut(tenant).alerts.remove(&alert);
        self.each_account(tenant, turn, |world, state, account| {
            drop_instances(world, account, cause.at, |instance| instance.alert == alert);
            account.retired.remove(&alert);
            account.wire(&state.alerts);
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
            for place in 0..account.instances.len() {
                let alert = account.instances.get(place).and_then(|instance| state.alerts.get(&instance.alert));
                if let Some(compiled) = alert {
                    let site = Site { tenant: state, compiled, window: state.newest_closed(), cause };
                    world.reset(site, account, place, cause.reason);
                }
            }
            drop_instances(world, account, cause.at, |_| true);
            account.series.clear();
            account.quotas.clear();
            account.seen = false;
            account.epoch = epoch;
            let alerts: Vec<AlertId> = state.alerts.keys().copied().collect();
            for alert in alerts {
                refit(world, state, account, (alert, Judging::Fresh), Cause::of(Reason::Condition, cause.at));
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
        let state = self.tenant_mut(tenant);
        let accounts = std::mem::take(&mut state.accounts);
        // The clock goes back to the fold's own, and what closes and turns with it.
        *state = TenantState { epoch, accounts, ..TenantState::new(version, clock, grace) };
        // An event that knew of the reset may have renewed its account before.
        for slot in slots {
            let series = self.accounts.get_mut(slot).into_iter().flat_map(|account| &mut account.series);
            series.for_each(Series::forget_told);
        }
        self.rebuild_timers();
    }

    fn add_pause_timer(&mut self, tenant: Tenant, definition: &AlertDefinition) {
        let due = Due::PauseEnds(tenant, definition.id);
        self.timers.retain(|(_, other)| *other != due);
        let advance = self.tenant_mut(tenant).advance;
        if let Some(until) = definition.pause.and_then(|pause| pause.until) {
            self.timers.insert((until.minus(advance), due));
        }
    }

    /// Ends a pause whose time has come.
    pub(super) fn end_pause(&mut self, tenant: Tenant, alert: AlertId, cause: Cause, turn: &mut Turn<'_>) {
        let Some(compiled) = self.tenant_mut(tenant).alerts.get(&alert).filter(|compiled| compiled.paused) else {
            return;
        };
        let resumed = Arc::new(Compiled::new(compiled.definition.clone(), false));
        self.tenant_mut(tenant).alerts.insert(alert, resumed);
        self.each_account(tenant, turn, |world, state, account| {
            refit(world, state, account, (alert, Judging::All), cause);
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
            for place in 0..account.instances.len() {
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
            for place in 0..account.instances.len() {
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
