//! Quotas of single accounts and of all of them. How much is used of one is the partitions' business.

use super::accounts::Accounts;
use super::outcome::{Change, Resource};
use super::resource::{Life, QuotaRecord};
use super::verdict::{Accepted, Context, Verdict, not_found, room_for_one};
use crate::domain::definition::Quota;
use crate::domain::id::{AccountId, AccountScope, MetricName};
use crate::domain::limits::QUOTAS_PER_ACCOUNT_MAX;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

type ByMetric = BTreeMap<MetricName, QuotaRecord>;

/// The quotas of one tenant. No map of an account is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Quotas {
    all: ByMetric,
    one: BTreeMap<AccountId, ByMetric>,
}

impl Quotas {
    pub(super) fn get(&self, account: &AccountScope, metric: &MetricName) -> Option<&QuotaRecord> {
        self.of(account)?.get(metric)
    }

    pub(super) fn of(&self, account: &AccountScope) -> Option<&ByMetric> {
        match account {
            AccountScope::All => Some(&self.all),
            AccountScope::One(account) => self.one.get(account),
        }
    }

    /// Returns what holds for an account: its own quota, else that of all accounts.
    pub(super) fn effective(&self, account: &AccountId, metric: &MetricName) -> Option<&QuotaRecord> {
        self.one.get(account).and_then(|own| own.get(metric)).or_else(|| self.all.get(metric))
    }

    /// Returns everything that holds for an account, in the order of the metrics.
    pub(super) fn effective_all(&self, account: &AccountId) -> BTreeMap<&MetricName, &QuotaRecord> {
        let own = self.one.get(account);
        self.all.iter().chain(own.into_iter().flatten()).collect()
    }

    pub(super) fn put(
        &mut self,
        context: Context,
        accounts: &mut Accounts,
        (account, metric): (&AccountScope, &MetricName),
        quota: Quota,
    ) -> Verdict {
        let known = self.get(account, metric);
        context.expect_version(known.map_or(0, |record| record.life.version))?;
        let record = match known {
            Some(known) => {
                let mut life = known.life;
                life.touch(context.now);
                QuotaRecord { account: account.clone(), metric: metric.clone(), quota, life }
            }
            None => {
                room_for_one(self.of(account).map_or(0, BTreeMap::len), QUOTAS_PER_ACCOUNT_MAX, "quotas per account")?;
                let life = Life::begun(context.now);
                QuotaRecord { account: account.clone(), metric: metric.clone(), quota, life }
            }
        };
        let resource = Resource::Quota(record.clone());
        let accepted = if known.is_some() { Accepted::done(resource) } else { Accepted::created(resource) };
        match account {
            AccountScope::All => self.all.insert(metric.clone(), record),
            AccountScope::One(one) => {
                accounts.check_room_for(one)?;
                accounts.ensure(context, one);
                self.one.entry(one.clone()).or_default().insert(metric.clone(), record)
            }
        };
        Ok(accepted.telling(change(context, account, metric, Some(quota))))
    }

    pub(super) fn delete(&mut self, context: Context, account: &AccountScope, metric: &MetricName) -> Verdict {
        let known = self.get(account, metric).ok_or_else(|| not_found("quota", format!("{account} {metric}")))?;
        context.expect_version(known.life.version)?;
        match account {
            AccountScope::All => {
                self.all.remove(metric);
            }
            AccountScope::One(one) => {
                if let Some(own) = self.one.get_mut(one) {
                    own.remove(metric);
                    if own.is_empty() {
                        self.one.remove(one);
                    }
                }
            }
        }
        Ok(Accepted::deleted().telling(change(context, account, metric, None)))
    }

    /// Removes an account's own quotas and returns whose metrics they were on.
    pub(super) fn forget_account(&mut self, account: &AccountId) -> impl Iterator<Item = MetricName> + use<> {
        self.one.remove(account).unwrap_or_default().into_keys()
    }
}

fn change(context: Context, account: &AccountScope, metric: &MetricName, quota: Option<Quota>) -> Change {
    Change::Quota { tenant: context.tenant, account: account.clone(), metric: metric.clone(), quota }
}
