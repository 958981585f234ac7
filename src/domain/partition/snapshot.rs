//! The engine's state as bytes: what a snapshot holds and what a digest is taken of.
//!
//! The bytes are canonical: two folds of the same log have the same ones, however their records were batched and
//! wherever they were restarted.

use super::account::Account;
use super::alerts::Compiled;
use super::conversation::{Conversation, Subject};
use super::debts::Debts;
use super::fact::{QUOTAS_TOLD, V3};
use super::group_hours::GroupHours;
use super::instance::Instance;
use super::reach::Told;
use super::series::Series;
use super::set_aside::{QuarantineMemory, SavedQuarantine};
use super::state::{Clock, Dirty, Horizons, Hush, Judged, Partition, TenantState};
use super::step::Runs;
use super::unheard::Unheard;
use crate::domain::definition::{AlertDefinition, InconclusivePolicy, MetricDefinition, Quota, Silence};
use crate::domain::id::{AlertId, Epoch, MetricName, PartitionId, Position, ProjectId, Tenant, WebhookId};
use crate::domain::time::{Millis, Timestamp};
use crate::domain::webhook::outbox::Outbox;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// The format that this release writes.
///
/// 2 has the outbox at its end; 3 has a tail behind that, where there is something to keep in it; 5 has [`Extras`] behind
/// the tail, where the log asks for engine version 3 or there is something to keep in them. 4 had them in another form, which no release wrote.
pub const SNAPSHOT_FORMAT: u32 = 5;

/// The first format with a tail.
const FORMAT_WITH_TAIL: u32 = 3;

/// The first format with [`Extras`].
const FORMAT_WITH_EXTRAS: u32 = 5;

/// Why bytes are not a state.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A later release wrote them.
    #[error("snapshot format {found}, this release reads up to {SNAPSHOT_FORMAT}")]
    TooNew {
        /// The format found.
        found: u32,
    },
    /// An earlier release wrote them of a log that asks for more than it knew.
    #[error(
        "snapshot format {found} of a log of engine version {version}: an earlier release left out what it did not know"
    )]
    TooOld {
        /// The format found.
        found: u32,
        /// What the log asks for.
        version: u32,
    },
    /// They are damaged.
    #[error("damaged snapshot")]
    Damaged(#[from] postcard::Error),
    /// They belong to another partition.
    #[error("a snapshot of partition {found}, wanted {wanted}")]
    OtherPartition {
        /// Whose they are.
        found: u32,
        /// Whose they should be.
        wanted: u32,
    },
}

#[derive(Serialize, Deserialize)]
struct Saved {
    id: PartitionId,
    partition_count: u32,
    clock: Clock,
    horizons: Horizons,
    control_through: Position,
    engine_version: u32,
    tenants: Vec<SavedTenant>,
    debts: Debts,
}

#[derive(Serialize, Deserialize)]
struct SavedTenant {
    tenant: Tenant,
    epoch: Epoch,
    advance: Millis,
    metrics: BTreeMap<MetricName, MetricDefinition>,
    quotas: BTreeMap<MetricName, Quota>,
    alerts: Vec<(AlertDefinition, bool)>,
    silences: Vec<Silence>,
    closed: Timestamp,
    turned: Timestamp,
    account_count: u64,
}

/// What format 3 has at its end.
#[derive(Default, Serialize, Deserialize)]
struct Tail {
    /// The projects of endpoints.
    labels: BTreeMap<WebhookId, ProjectId>,
    told: Vec<SavedTold>,
}

/// What format 5 has behind the tail: the state that engine version 3 added. No earlier layout changes for it.
#[derive(Default, Serialize, Deserialize)]
struct Extras {
    group_hours: Vec<SavedGroups>,
    quarantine: SavedQuarantine,
    unheard: Unheard,
    conversations: BTreeMap<Subject, Conversation>,
    /// One for each instance, in the order of the accounts and their instances.
    instances: Vec<SavedInstance>,
    /// The alerts that end a firing when their rule cannot be decided.
    ends_inconclusive: Vec<(Tenant, AlertId)>,
}

/// What engine version 3 added to one instance.
#[derive(Serialize, Deserialize)]
struct SavedInstance {
    runs: Runs,
    first_window: Timestamp,
    event_open: bool,
}

/// The groups of one series.
#[derive(Serialize, Deserialize)]
struct SavedGroups {
    /// The account's place in the snapshot.
    account: u64,
    metric: MetricName,
    hours: GroupHours,
}

/// What was told of one series.
#[derive(Serialize, Deserialize)]
struct SavedTold {
    /// The account's place in the snapshot.
    account: u64,
    metric: MetricName,
    told: Told,
}

impl SavedInstance {
    const fn of(instance: &Instance) -> Self {
        Self { runs: instance.runs, first_window: instance.first_window, event_open: instance.event_open }
    }
}

impl Partition {
    /// Writes the state. Call it only when [`Partition::flush`] has handed everything over.
    ///
    /// # Errors
    /// Where the state cannot be written in the format, which no state that was folded can cause.
    pub fn snapshot(&self) -> Result<Vec<u8>, RestoreError> {
        let saved = Saved {
            id: self.id,
            partition_count: self.partition_count,
            clock: self.clock,
            horizons: self.horizons,
            control_through: self.control_through,
            engine_version: self.engine_version,
            tenants: self.tenants.iter().map(|(tenant, state)| saved_tenant(*tenant, state)).collect(),
            debts: self.debts.clone(),
        };
        let mut bytes = postcard::to_allocvec(&saved)?;
        // Where there is nothing of it the bytes are those of an older format.
        let tells_quotas = self.engine_version >= QUOTAS_TOLD;
        let mut tail = Tail { labels: self.outbox.labels().clone(), told: Vec::new() };
        let mut extras = self.extras();
        let is_v3 = self.engine_version >= V3;
        let states = self.tenants.values().flat_map(|state| state.accounts.values().map(move |slot| (state, slot)));
        for (place, (state, slot)) in (0_u64..).zip(states) {
            let Some(account) = self.accounts.get(*slot) else { continue };
            let account = account.canonical(self.clock.now().plus(state.advance));
            bytes = postcard::to_extend(&account, bytes)?;
            if is_v3 {
                extras.instances.extend(account.instances.iter().map(SavedInstance::of));
            }
            for Series { metric, told, group_hours: hours, .. } in account.series {
                if let Some(told) = told.filter(|_| tells_quotas) {
                    tail.told.push(SavedTold { account: place, metric: metric.clone(), told });
                }
                if is_v3 && !hours.is_empty() {
                    extras.group_hours.push(SavedGroups { account: place, metric, hours });
                }
            }
        }
        // A field that does nothing before engine version 3 is known to the fold before, too.
        let has_extras = is_v3 || !extras.ends_inconclusive.is_empty();
        let has_tail = tells_quotas || has_extras || !tail.labels.is_empty();
        if has_tail || !self.outbox.is_empty() {
            bytes = postcard::to_extend(&self.outbox, bytes)?;
        }
        if has_tail {
            bytes = postcard::to_extend(&tail, bytes)?;
        }
        if has_extras {
            bytes = postcard::to_extend(&extras, bytes)?;
        }
        Ok(bytes)
    }

    /// What is kept behind the accounts, but for what each account adds to it.
    fn extras(&self) -> Extras {
        let alerts =
            self.tenants.iter().flat_map(|(tenant, state)| state.alerts.values().map(|alert| (*tenant, alert)));
        let ending = alerts.filter(|(_, compiled)| compiled.definition.inconclusive == InconclusivePolicy::Ok);
        let ends_inconclusive = ending.map(|(tenant, compiled)| (tenant, compiled.definition.id)).collect();
        if self.engine_version < V3 {
            return Extras { ends_inconclusive, ..Extras::default() };
        }
        Extras {
            group_hours: Vec::new(),
            quarantine: self.quarantine.saved(),
            unheard: self.unheard.clone(),
            conversations: self.debts.saved_conversations(),
            instances: Vec::new(),
            ends_inconclusive,
        }
    }

    /// Puts back the extras.
    fn restore_extras(&mut self, extras: Extras) {
        let Extras { group_hours, quarantine, unheard, conversations, instances, ends_inconclusive } = extras;
        self.unheard = unheard;
        self.debts.restore_conversations(conversations);
        // What was just read stands in its order.
        let of_accounts = self.accounts.iter_mut().flat_map(|account| account.instances.iter_mut());
        for (instance, saved) in of_accounts.zip(instances) {
            instance.runs = saved.runs;
            instance.first_window = saved.first_window;
            instance.event_open = saved.event_open;
        }
        for (tenant, alert) in ends_inconclusive {
            let state = self.tenants.get_mut(&tenant);
            if let Some(definition) = state.and_then(|state| state.alerts.definition_mut(alert)) {
                definition.inconclusive = InconclusivePolicy::Ok;
            }
        }
        self.quarantine = QuarantineMemory::restored(quarantine);
        for SavedGroups { account, metric, hours } in group_hours {
            let account = usize::try_from(account).ok().and_then(|slot| self.accounts.get_mut(slot));
            let series = account.and_then(|account| account.series.find_mut(&metric));
            if let Some(series) = series {
                series.group_hours = hours;
            }
        }
    }

    /// Reads a state that [`Partition::snapshot`] wrote.
    ///
    /// # Errors
    /// Where the bytes are damaged, of a later format or of another partition.
    pub fn restore(id: PartitionId, format: u32, bytes: &[u8]) -> Result<Self, RestoreError> {
        if format > SNAPSHOT_FORMAT {
            return Err(RestoreError::TooNew { found: format });
        }
        let (saved, mut rest): (Saved, &[u8]) = postcard::take_from_bytes(bytes)?;
        if saved.id != id {
            return Err(RestoreError::OtherPartition { found: saved.id.0, wanted: id.0 });
        }
        if format < FORMAT_WITH_TAIL && saved.engine_version >= QUOTAS_TOLD {
            return Err(RestoreError::TooOld { found: format, version: saved.engine_version });
        }
        if format < FORMAT_WITH_EXTRAS && saved.engine_version >= V3 {
            return Err(RestoreError::TooOld { found: format, version: saved.engine_version });
        }
        let mut accounts: Vec<Account> = Vec::new();
        let mut tenants = BTreeMap::new();
        for saved_tenant in saved.tenants {
            let tenant = saved_tenant.tenant;
            let account_count = saved_tenant.account_count;
            let mut state = restored_tenant(saved.engine_version, saved_tenant, saved.clock.now());
            for _ in 0..account_count {
                let (mut account, left): (Account, &[u8]) = postcard::take_from_bytes(rest)?;
                rest = left;
                account.slot = accounts.len();
                account.wire_all(&state.alerts);
                state.accounts.insert(account.name.clone(), account.slot);
                accounts.push(account);
            }
            tenants.insert(tenant, state);
        }
        let (mut outbox, rest): (Outbox, &[u8]) =
            if rest.is_empty() { (Outbox::default(), rest) } else { postcard::take_from_bytes(rest)? };
        let (tail, rest): (Tail, &[u8]) =
            if rest.is_empty() { (Tail::default(), rest) } else { postcard::take_from_bytes(rest)? };
        let has_extras = saved.engine_version >= V3 || !rest.is_empty();
        let extras: Extras = if has_extras { postcard::from_bytes(rest)? } else { Extras::default() };
        outbox.set_labels(tail.labels);
        for SavedTold { account, metric, told } in tail.told {
            let account = usize::try_from(account).ok().and_then(|slot| accounts.get_mut(slot));
            let series = account.and_then(|account| account.series.find_mut(&metric));
            if let Some(series) = series {
                series.told = Some(told);
            }
        }
        let mut partition = Self {
            id,
            partition_count: saved.partition_count,
            clock: saved.clock,
            horizons: saved.horizons,
            control_through: saved.control_through,
            engine_version: saved.engine_version,
            tenants,
            accounts,
            timers: BTreeSet::new(),
            debts: saved.debts,
            outbox,
            quarantine: QuarantineMemory::default(),
            unheard: Unheard::default(),
            dirty: Dirty::default(),
        };
        if has_extras {
            partition.restore_extras(extras);
        }
        partition.rebuild_timers();
        Ok(partition)
    }

    /// Returns the SHA-256 of the state, in lower-case hex.
    ///
    /// # Errors
    /// As [`Partition::snapshot`].
    pub fn digest(&self) -> Result<String, RestoreError> {
        let digest = Sha256::digest(self.snapshot()?);
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

fn saved_tenant(tenant: Tenant, state: &TenantState) -> SavedTenant {
    SavedTenant {
        tenant,
        epoch: state.epoch,
        advance: state.advance,
        metrics: state.metrics.clone(),
        quotas: state.quotas.clone(),
        alerts: state.alerts.values().map(|compiled| (compiled.definition.clone(), compiled.paused)).collect(),
        silences: state.silences.values().map(|hush| hush.silence.clone()).collect(),
        closed: state.closed,
        turned: state.turned.instant,
        account_count: u64::try_from(state.accounts.len()).unwrap_or(u64::MAX),
    }
}

fn restored_tenant(engine_version: u32, saved: SavedTenant, clock: Timestamp) -> TenantState {
    // What begins by the clock of a snapshot has begun: deadlines are handled before the record that passes them.
    let hush = |silence: Silence| (silence.id, Hush::new(silence, clock.plus(saved.advance)));
    let compiled = |(definition, paused): (AlertDefinition, bool)| Compiled::new(definition, paused);
    TenantState {
        engine_version,
        epoch: saved.epoch,
        advance: saved.advance,
        metrics: saved.metrics,
        quotas: saved.quotas,
        alerts: saved.alerts.into_iter().map(compiled).collect(),
        silences: saved.silences.into_iter().map(hush).collect(),
        closed: saved.closed,
        turned: Judged::at(saved.turned),
        accounts: BTreeMap::new(),
    }
}
