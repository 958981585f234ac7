//! Finding tenants and accounts, and visiting accounts one after the other.

use super::account::Account;
use super::changes::Turn;
use super::state::{Partition, TenantState};
use super::tell::World;
use crate::domain::id::{AccountId, AccountScope, Tenant};
use crate::domain::routing::partition_of;
use crate::domain::time::Timestamp;
use std::collections::BTreeSet;

impl Partition {
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

    pub(super) fn routes_here(&self, tenant: Tenant, account: &AccountId) -> bool {
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
                world.count_steps(1);
                act(&mut world, state, account);
            }
        }
    }

    /// Runs `act` on the accounts of a tenant that scopes cover, in order of their names.
    pub(super) fn each_covered(
        &mut self,
        tenant: Tenant,
        scopes: &[&AccountScope],
        turn: &mut Turn<'_>,
        mut act: impl FnMut(&mut World<'_>, &TenantState, &mut Account),
    ) {
        let named = scopes.iter().map(|scope| match scope {
            AccountScope::All => None,
            AccountScope::One(account) => Some(account),
        });
        let Some(named) = named.collect::<Option<BTreeSet<&AccountId>>>() else {
            return self.each_account(tenant, turn, act);
        };
        for account in named {
            if let Some(slot) = self.tenants.get(&tenant).and_then(|state| state.accounts.get(account)).copied() {
                self.on_account(slot, turn, &mut act);
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
}

impl World<'_> {
    /// Counts what is looked at.
    pub(super) fn count_steps(&mut self, steps: u64) {
        self.effects.counts.steps = self.effects.counts.steps.saturating_add(steps);
    }
}
