//! How far a series has come with its quota: what `quota.*` events tell, each once for a period and a quota.
//!
//! A band that was told stays told until its period ends or its quota changes, also where negative values lead back below
//! it. A backfill tells nothing; the next ordinary event does, of the level as it then stands.

use super::account::Account;
use super::changes::Turn;
use super::effect::QuotaEvidence;
use super::series::Series;
use super::state::{Partition, TenantState};
use super::tell::World;
use super::values::View;
use crate::domain::definition::{Fold, Quota};
use crate::domain::id::{Log, MetricName};
use crate::domain::limits::QUOTA_THRESHOLD_PERCENT;
use crate::domain::quantity::Quantity;
use crate::domain::time::{Period, Timestamp};
use crate::domain::webhook::event::{Content, QuotaTold, Source};
use crate::domain::webhook::kind::EventType;
use crate::domain::webhook::outbox::Concern;
use serde::{Deserialize, Serialize};

/// How much of a quota is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Band {
    /// Less than the threshold.
    Below,
    /// The threshold or more. A limit of zero has none.
    Reached,
    /// More than the limit.
    Exceeded,
}

/// What was told of a series in the period that is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    /// The quota that it was told of.
    pub(super) quota: Quota,
    /// The highest band.
    pub(super) band: Band,
}

/// From where on an event of a series leads to a look at its quota. No part of the state: it follows from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Watch {
    /// At the next event.
    #[default]
    Now,
    /// Not before the quota or the period changes.
    Rests,
    /// When this much is used.
    From { least: Quantity, period: Period, fold: Fold },
}

impl Band {
    fn of(used: Quantity, limit: Quantity) -> Self {
        if used > limit {
            Self::Exceeded
        } else if threshold(limit).is_some_and(|threshold| threshold <= used) {
            Self::Reached
        } else {
            Self::Below
        }
    }

    /// The least use of the next higher band.
    fn next(self, limit: Quantity) -> Option<Quantity> {
        let past = limit.plus(Quantity(1));
        match self {
            Self::Below => Some(threshold(limit).unwrap_or(past)),
            Self::Reached => Some(past),
            Self::Exceeded => None,
        }
    }
}

/// The least amount that is the threshold's share of a limit.
fn threshold(limit: Quantity) -> Option<Quantity> {
    let hundredfold = limit.0.checked_mul(i128::from(QUOTA_THRESHOLD_PERCENT))?;
    (limit > Quantity::ZERO).then_some(Quantity(hundredfold.checked_add(99)?.checked_div(100)?))
}

impl Series {
    /// Tells whether an event may have brought the series to a higher band.
    pub(super) fn may_reach(&self, tenant: &TenantState) -> bool {
        match self.watch {
            Watch::Now => true,
            Watch::Rests => false,
            Watch::From { least, period, fold } => least <= self.levels.used(period, tenant.judged(period)).value(fold),
        }
    }
}

/// Looks at what a series used of its quota, and tells the bands that it has newly come to.
pub(super) fn look(world: &mut World<'_>, state: &TenantState, account: &mut Account, place: usize, at: Timestamp) {
    let found = if world.tells_quotas() { find(state, account, place) } else { None };
    let Some(series) = account.series.get_mut(place) else { return };
    let told = series.told;
    series.set_told(found);
    let Some(found) = found else { return };
    let before = told.filter(|told| told.quota == found.quota).map_or(Band::Below, |told| told.band);
    let steps = [(Band::Reached, EventType::QuotaThresholdReached), (Band::Exceeded, EventType::QuotaExceeded)];
    for (band, kind) in steps {
        let has_threshold = found.quota.limit > Quantity::ZERO || band == Band::Exceeded;
        if before < band && band <= found.band && has_threshold {
            world.tell_quota(state, account, (place, kind), None, at);
        }
    }
}

/// What is to be remembered of a series from here on; nothing where it has no quota.
fn find(state: &TenantState, account: &Account, place: usize) -> Option<Told> {
    let series = account.series.get(place)?;
    let quota = *account.quota_of(state, &series.metric)?;
    let used = series.levels.used(quota.period, state.judged(quota.period)).value(quota.aggregate);
    let known = series.told.filter(|told| told.quota == quota).map_or(Band::Below, |told| told.band);
    Some(Told { quota, band: known.max(Band::of(used, quota.limit)) })
}

impl Series {
    fn set_told(&mut self, found: Option<Told>) {
        let least = found.and_then(|found| Some((found.quota, found.band.next(found.quota.limit)?)));
        self.watch = least.map_or(Watch::Rests, |(quota, least)| Watch::From {
            least,
            period: quota.period,
            fold: quota.aggregate,
        });
        self.told = found.filter(|found| found.band > Band::Below);
    }
}

/// Looks at a metric's quota that changed; what was told of another one counts no more.
pub(super) fn look_anew(
    world: &mut World<'_>,
    state: &TenantState,
    account: &mut Account,
    metric: &MetricName,
    at: Timestamp,
) {
    if let Some(place) = account.series.place_of(metric) {
        look(world, state, account, place, at);
    }
}

/// A series whose quota's period ends, with what was used of it where that had been told of.
pub(super) struct Ended {
    slot: usize,
    place: usize,
    told_of: Option<QuotaEvidence>,
}

/// Collects the series of an account whose quotas' periods end, while these are still the judged ones.
pub(super) fn ending(
    state: &TenantState,
    account: &mut Account,
    turns: impl Fn(Period) -> bool,
    ended: &mut Vec<Ended>,
) {
    // By metric: the places tell of the order of arrival, and are others behind a restart.
    for place in account.series.places() {
        let Some(series) = account.series.get(place) else { continue };
        let quota = account.quota_of(state, &series.metric).copied();
        let Some(quota) = quota.filter(|quota| turns(quota.period)) else { continue };
        let view = View { tenant: state, account, own: None, window: state.newest_closed(), at: state.closed };
        let told_of = series.told.and_then(|_| view.quota_evidence(&series.metric));
        ended.push(Ended { slot: account.slot, place, told_of });
        if let Some(series) = account.series.get_mut(place) {
            series.set_told(Some(Told { quota, band: Band::Below }));
        }
    }
}

impl Series {
    /// Forgets what was told: there is no quota any more, and the period may be another one.
    pub(super) fn forget_told(&mut self) {
        self.told = None;
        self.watch = Watch::Now;
    }
}

impl Partition {
    /// Looks at the quota of a series that an event was counted in, where that may matter.
    pub(super) fn look_at_quota(&mut self, (slot, place): (usize, usize), at: Timestamp, turn: &mut Turn<'_>) {
        let Some(account) = self.accounts.get(slot) else { return };
        let Some(state) = self.tenants.get(&account.tenant) else { return };
        if account.series.get(place).is_some_and(|series| series.may_reach(state)) {
            self.on_account(slot, turn, |world, state, account| look(world, state, account, place, at));
        }
    }

    /// Tells that quotas began anew, and what their new periods hold already.
    pub(super) fn begin_anew(&mut self, ended: Vec<Ended>, at: Timestamp, turn: &mut Turn<'_>) {
        for Ended { slot, place, told_of } in ended {
            self.on_account(slot, turn, |world, state, account| {
                if told_of.is_some() && world.tells_quotas() {
                    world.tell_quota(state, account, (place, EventType::QuotaReset), told_of, at);
                }
                look(world, state, account, place, at);
            });
        }
    }

    /// Takes what is used by now as told: earlier releases told nothing of it, and it is news to nobody.
    pub(super) fn take_as_told(&mut self) {
        for state in self.tenants.values() {
            for slot in state.accounts.values() {
                let Some(account) = self.accounts.get_mut(*slot) else { continue };
                for place in 0..account.series.len() {
                    let found = find(state, account, place);
                    if let Some(series) = account.series.get_mut(place) {
                        series.set_told(found);
                    }
                }
            }
        }
    }
}

impl World<'_> {
    /// Owes an event about a series' quota to the endpoints that want it.
    fn tell_quota(
        &mut self,
        state: &TenantState,
        account: &Account,
        (place, kind): (usize, EventType),
        ended: Option<QuotaEvidence>,
        at: Timestamp,
    ) {
        let tenant = account.tenant;
        let Some(series) = account.series.get(place).filter(|_| self.outbox.wants(tenant, kind)) else { return };
        let metric = series.metric.clone();
        let view = View { tenant: state, account, own: None, window: state.newest_closed(), at };
        let Some(quota) = view.quota_evidence(&metric) else { return };
        let told = QuotaTold { account: account.name.clone(), metric, quota, ended };
        let mut source = Source { log: Log::Partition(self.partition), stamp: self.stamp, index: self.index };
        let event = source.event(tenant, kind, at, Content::Quota(Box::new(told)));
        self.outbox.publish(event, Concern::Everybody, self.stamp, &mut self.effects.webhooks);
    }
}
