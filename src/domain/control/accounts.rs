//! Accounts that people set something on, and the epochs of those that were deleted. Accounts that only events named are
//! unknown here.

use super::command::AccountPatch;
use super::outcome::{Change, Refused, Resource};
use super::patch::{merge, set};
use super::quotas::Quotas;
use super::resource::{Account, Life};
use super::verdict::{Accepted, Context, Verdict, exists_already, room_for_one};
use crate::domain::id::{AccountId, AccountScope, Epoch};
use crate::domain::limits::ACCOUNTS_MAX;
use crate::domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The accounts of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Accounts {
    pub(super) records: BTreeMap<AccountId, Account>,
    pub(super) epochs: BTreeMap<AccountId, Epoch>,
    /// When the present epoch of each of them began, on the log's clock.
    #[serde(default)]
    pub(super) epochs_since: BTreeMap<AccountId, Timestamp>,
}

impl Accounts {
    pub(super) fn create(
        &mut self,
        context: Context,
        account: &AccountId,
        name: &Option<String>,
        metadata: &BTreeMap<String, String>,
    ) -> Verdict {
        if self.records.contains_key(account) {
            return Err(exists_already("account", account));
        }
        self.check_room_for(account)?;
        let record = Account { name: name.clone(), metadata: metadata.clone(), ..bare(account, context) };
        self.records.insert(account.clone(), record.clone());
        Ok(Accepted::created(Resource::Account(record)))
    }

    pub(super) fn update(&mut self, context: Context, account: &AccountId, patch: &AccountPatch) -> Verdict {
        let known = self.records.get(account);
        context.expect_version(known.map_or(0, |record| record.life.version))?;
        let mut record = match known {
            Some(record) => {
                let mut record = record.clone();
                record.life.touch(context.now);
                record
            }
            None => {
                self.check_room_for(account)?;
                bare(account, context)
            }
        };
        set(&mut record.name, &patch.name);
        merge(&mut record.metadata, &patch.metadata, "metadata entries")?;
        self.records.insert(account.clone(), record.clone());
        Ok(Accepted::done(Resource::Account(record)))
    }

    /// Deletes an account, whether it has a record or was only seen: that it exists at all is the caller's to know.
    pub(super) fn delete(&mut self, context: Context, quotas: &mut Quotas, account: &AccountId) -> Verdict {
        context.expect_version(self.records.get(account).map_or(0, |record| record.life.version))?;
        self.records.remove(account);
        self.epochs.insert(account.clone(), Epoch(context.position.0));
        self.epochs_since.insert(account.clone(), context.now);
        let tenant = context.tenant;
        let mut accepted = Accepted::deleted().telling(Change::AccountDeleted { tenant, account: account.clone() });
        for metric in quotas.forget_account(account) {
            let account = AccountScope::One(account.clone());
            accepted = accepted.telling(Change::Quota { tenant, account, metric, quota: None });
        }
        Ok(accepted)
    }

    /// Refuses an account without a record where there are too many.
    pub(super) fn check_room_for(&self, account: &AccountId) -> Result<(), Refused> {
        if self.records.contains_key(account) {
            return Ok(());
        }
        room_for_one(self.records.len(), ACCOUNTS_MAX, "accounts with settings of their own")
    }

    /// Makes a record for an account that has none.
    pub(super) fn ensure(&mut self, context: Context, account: &AccountId) {
        self.records.entry(account.clone()).or_insert_with(|| bare(account, context));
    }
}

fn bare(account: &AccountId, context: Context) -> Account {
    Account { id: account.clone(), name: None, metadata: BTreeMap::new(), life: Life::begun(context.now) }
}
