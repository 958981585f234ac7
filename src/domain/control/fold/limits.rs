//! What the folded control log says of quotas.

use super::Control;
use crate::domain::control::resource::QuotaRecord;
use crate::domain::definition::Quota;
use crate::domain::id::{AccountId, AccountScope, MetricName, Tenant};

impl Control {
    /// Returns the quota that was set on a scope itself.
    pub fn quota(&self, tenant: Tenant, scope: &AccountScope, metric: &MetricName) -> Option<&QuotaRecord> {
        self.world(tenant)?.quotas.get(scope, metric)
    }

    /// Returns the quotas that were set on a scope itself, in the order of their metrics.
    pub fn quotas_of(&self, tenant: Tenant, scope: &AccountScope) -> impl DoubleEndedIterator<Item = &QuotaRecord> {
        self.world(tenant).and_then(|world| world.quotas.of(scope)).into_iter().flat_map(|quotas| quotas.values())
    }

    /// Returns the quota that holds for an account, its own before that of `*`, and the scope that it was set on.
    pub fn effective_quota(
        &self,
        tenant: Tenant,
        account: &AccountId,
        metric: &MetricName,
    ) -> Option<(&Quota, AccountScope)> {
        let record = self.world(tenant)?.quotas.effective(account, metric)?;
        Some((&record.quota, record.account.clone()))
    }

    /// Returns every quota that holds for an account, in the order of their metrics.
    pub fn effective_quotas(&self, tenant: Tenant, account: &AccountId) -> Vec<(MetricName, Quota)> {
        let effective = self.world(tenant).map(|world| world.quotas.effective_all(account)).unwrap_or_default();
        effective.into_iter().map(|(metric, record)| (metric.clone(), record.quota)).collect()
    }
}
