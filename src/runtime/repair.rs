//! Setting the clock of every log back, while nothing serves them: reads what a wrong clock made the folds forget, and appends it
//! with the new time.

use super::offline::{OfflineError, fold_all};
use super::processor::Fold;
use crate::domain::control::command::{Command, Entry};
use crate::domain::control::fold::Control;
use crate::domain::definition::Silence;
use crate::domain::id::{AccountId, Epoch, Log, MetricName, Mode, PartitionId, Position, Stamp, Tenant, WorkspaceId};
use crate::domain::limits::{AHEAD_MAX, READ_BYTES_MAX, REPAIR_PART_BYTES};
use crate::domain::partition::aggregate::Aggregate;
use crate::domain::partition::archive::EventRow;
use crate::domain::partition::clock_set::{Restored, RestoredUse, oldest_period_kept};
use crate::domain::partition::effect::Effects;
use crate::domain::partition::fact::{Note, V3};
use crate::domain::time::{Period, Timestamp};
use crate::journal::{AppendError, Journal};
use bytes::Bytes;
use std::collections::BTreeMap;

/// What setting the clock does to each log, before anything is appended.
#[derive(Debug)]
pub struct ClockRepair {
    /// The new time.
    pub to: Timestamp,
    /// The control log's clock.
    pub control_clock: Timestamp,
    /// What it does to each partition.
    pub partitions: Vec<PartitionRepair>,
}

/// What setting the clock does to one partition.
#[derive(Debug)]
pub struct PartitionRepair {
    /// Which one.
    pub partition: PartitionId,
    /// The last record that was read.
    pub end: Position,
    /// The fold's clock there.
    pub clock: Timestamp,
    /// Ids of events that were accepted from the first to the second are not remembered any more.
    pub forgotten: Option<(Timestamp, Timestamp)>,
    /// Events that were set aside as too old since the clock was ahead of the new time.
    pub refused_too_old: u64,
    /// Events that were counted at times that have not come by the new time.
    pub counted_ahead: u64,
    notes: Vec<Note>,
}

/// Why the clock cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// A log cannot be folded.
    #[error(transparent)]
    Offline(#[from] OfflineError),
    /// The journal did not take it. It may be in some logs: repair again.
    #[error("append the new time")]
    Append(#[from] AppendError),
    /// The log is folded in an older way, which knows of no such fact.
    #[error(
        "the log of partition {} is at engine version {version}, and its clock can be set from version {V3} on: serve it once \
         with this release, without --engine-version, until /readyz says so",
        partition.0
    )]
    EngineVersion {
        /// Whose log.
        partition: PartitionId,
        /// The version that it asks for.
        version: u32,
    },
    /// Something appends to the logs meanwhile.
    #[error("log {log} got other records meanwhile: stop every node, then repair again")]
    NotAlone {
        /// Which one.
        log: Log,
    },
}

impl ClockRepair {
    /// Reads every log and works out what setting the clock to `to` does, where it is set at `set_at`; blocks, and appends
    /// nothing.
    ///
    /// # Errors
    /// Where a log cannot be folded.
    pub fn plan(
        journal: &Journal,
        control: &Control,
        (to, set_at): (Timestamp, Timestamp),
    ) -> Result<Self, RepairError> {
        let key = control.fingerprint_key().unwrap_or_default();
        let silences: Vec<(Tenant, Silence)> = control.all_silences().collect();
        let plan = |partition| plan_partition(journal, (partition, key), (to, set_at), &silences);
        let partitions = (0..journal.partitions()).map(PartitionId).map(plan).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { to, control_clock: control.clock(), partitions })
    }

    /// Tells whether any clock is ahead of the new time.
    pub fn is_needed(&self) -> bool {
        self.to < self.control_clock || self.partitions.iter().any(|partition| self.to < partition.clock)
    }

    /// Appends the new time to every log.
    ///
    /// # Errors
    /// Where a log did not take it.
    pub async fn append(self, journal: &Journal, request_id: String) -> Result<Appended, RepairError> {
        let entry = Entry {
            tenant: Tenant { workspace: WorkspaceId(0), mode: Mode::Live },
            actor: None,
            request_id,
            if_match: None,
            idempotency: None,
            ip: None,
            command: Command::SetClock { to: self.to },
        };
        let mut facts = vec![(Log::Control, Bytes::from(entry.encode()))];
        let mut ends = BTreeMap::new();
        for PartitionRepair { partition, end, notes, .. } in self.partitions {
            let log = Log::Partition(partition);
            ends.insert(log, end);
            facts.extend(notes.into_iter().map(|note| (log, Bytes::from(note.encode()))));
        }
        let logs: Vec<Log> = facts.iter().map(|(log, _)| *log).collect();
        let stamps = journal.append_at(facts, self.to).await?;
        let mut appended = Appended { recorded_at: self.to, begins: Vec::new() };
        for (log, Stamp { position, recorded_at }) in logs.into_iter().zip(stamps) {
            appended.recorded_at = appended.recorded_at.max(recorded_at);
            // The first record of each log; the others stand behind it.
            appended.begins.extend(ends.remove(&log).map(|end| (log, end, position)));
        }
        Ok(appended)
    }
}

/// What was appended.
#[derive(Debug)]
pub struct Appended {
    /// When the journal took it in, by its own word.
    pub recorded_at: Timestamp,
    /// Of each partition's log where it was read to, and where the new time stands.
    begins: Vec<(Log, Position, Position)>,
}

impl Appended {
    /// Makes sure that nothing was appended between the reading of a log and the new time; blocks.
    ///
    /// # Errors
    /// Where something was: it is missing in what is restored.
    pub fn expect_alone(&self, journal: &Journal) -> Result<(), RepairError> {
        for (log, end, position) in &self.begins {
            let records = journal.read_known(*log, *end, 1, READ_BYTES_MAX).map_err(OfflineError::from)?;
            if records.first().is_none_or(|first| first.position != *position) {
                return Err(RepairError::NotAlone { log: *log });
            }
        }
        Ok(())
    }
}

fn plan_partition(
    journal: &Journal,
    (partition, key): (PartitionId, [u8; 16]),
    (to, set_at): (Timestamp, Timestamp),
    silences: &[(Tenant, Silence)],
) -> Result<PartitionRepair, RepairError> {
    let end = journal.end(Log::Partition(partition));
    let mut uses = Uses::default();
    let (mut refused_too_old, mut counted_ahead) = (0, 0);
    // Every event that counts is handed over, as to a store that archives.
    let fold = Fold::new(partition, journal.partitions(), key).archiving(true);
    let (fold, _) = fold_all(journal, fold, end, &[], |fold, effects: Effects, _| {
        for row in effects.events.iter().flatten() {
            counted_ahead += u64::from(row.timestamp > fold.partition.tenant_clock_at(row.tenant, to).plus(AHEAD_MAX));
            uses.add(row, to);
        }
        let too_old = effects.quarantine.iter().filter(|row| row.code == "timestamp_too_old" && row.at > to);
        refused_too_old += too_old.count() as u64;
        Ok(())
    })?;
    let state = &fold.partition;
    let clock = state.clock();
    let horizon = state.dedup_horizon();
    let forgotten_to = to.min(clock.minus(horizon));
    let forgotten = (to < clock && to.minus(horizon) < forgotten_to).then(|| (to.minus(horizon), forgotten_to));
    let version = state.engine_version();
    if version < V3 && end > Position::START {
        return Err(RepairError::EngineVersion { partition, version });
    }
    let used = uses.restored(|tenant, account| state.epoch_of(tenant, account), |t| state.tenant_clock_at(t, to));
    let ends_later = |(tenant, silence): &&(Tenant, Silence)| silence.ends_at > state.tenant_clock_at(*tenant, to);
    let silences = silences.iter().filter(ends_later).cloned().collect();
    // A log without records has no clock.
    let parts = if end > Position::START { parts(silences, used) } else { Vec::new() };
    let notes = parts.into_iter().map(|restored| Note::ClockSet { to, set_at, restored }).collect();
    Ok(PartitionRepair { partition, end, clock, forgotten, refused_too_old, counted_ahead, notes })
}

/// Splits what is restored into parts that fit into records.
fn parts(silences: Vec<(Tenant, Silence)>, used: Vec<RestoredUse>) -> Vec<Restored> {
    let mut all = vec![Restored { silences, ..Restored::default() }];
    let mut bytes = 0;
    for one in used {
        let weight = serde_json::to_vec(&one).map_or(0, |text| text.len());
        if bytes + weight > REPAIR_PART_BYTES {
            all.push(Restored::default());
            bytes = 0;
        }
        bytes += weight;
        if let Some(last) = all.last_mut() {
            last.used.push(one);
        }
    }
    let parts = u32::try_from(all.len()).unwrap_or(u32::MAX);
    for (part, restored) in (0_u32..).zip(&mut all) {
        (restored.part, restored.parts) = (part, parts);
    }
    all
}

/// What series used, by period, as a fold that never saw the wrong time would have it.
#[derive(Debug, Default)]
struct Uses(BTreeMap<(Tenant, AccountId, MetricName), SeriesUse>);

#[derive(Debug, Default)]
struct SeriesUse {
    epoch: Epoch,
    periods: BTreeMap<(Period, Timestamp), Aggregate>,
}

impl Uses {
    fn add(&mut self, row: &EventRow, to: Timestamp) {
        let key = (row.tenant, row.account.clone(), row.metric.clone());
        let series = self.0.entry(key).or_default();
        if row.epoch > series.epoch {
            *series = SeriesUse { epoch: row.epoch, ..SeriesUse::default() };
        }
        for period in Period::ALL {
            let (start, _) = period.bounds(row.timestamp);
            if row.epoch == series.epoch && start >= oldest_period_kept(period, to) {
                series.periods.entry((period, start)).or_default().add(row.value, row.timestamp);
            }
        }
    }

    /// What still belongs to its account, and to a period that is kept.
    fn restored(
        self,
        epoch_of: impl Fn(Tenant, &AccountId) -> Option<Epoch>,
        clock_of: impl Fn(Tenant) -> Timestamp,
    ) -> Vec<RestoredUse> {
        let series = self.0.into_iter().filter_map(|((tenant, account, metric), SeriesUse { epoch, periods })| {
            let clock = clock_of(tenant);
            let kept = |(period, start): &(Period, Timestamp)| *start >= oldest_period_kept(*period, clock);
            let periods: Vec<_> = periods.into_iter().filter(|(key, _)| kept(key)).collect();
            let is_present = epoch_of(tenant, &account) == Some(epoch) && !periods.is_empty();
            let periods = periods.into_iter().map(|((period, start), aggregate)| (period, start, aggregate)).collect();
            is_present.then_some(RestoredUse { tenant, account, epoch, metric, periods })
        });
        series.collect()
    }
}
