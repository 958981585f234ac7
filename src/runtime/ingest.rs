//! The one way in for events, whoever sends them: decide → group by partition → append → acknowledge.

use super::clock::{self, Stopwatch};
use super::control::ControlPlane;
use super::requests::SYSTEM_WORKSPACE;
use crate::domain::event::{
    Acceptance, AccountPlace, EventWarning, FrameBuilder, Refusal, RefusalCode, UsageEvent, decide, derived_id,
};
use crate::domain::id::{AccountId, Epoch, Log, MetricName, PartitionId, Position, Stamp, Tenant};
use crate::domain::limits::{AHEAD_MAX, FRAME_BYTES_MAX, FRAME_EVENTS_MAX};
use crate::domain::routing::partition_of;
use crate::domain::time::{Millis, Timestamp};
use crate::journal::{AppendError, Journal};
use bytes::Bytes;
use hashbrown::HashMap;
use std::collections::BTreeMap;

/// A handle on the way in.
#[derive(Clone, Debug)]
pub struct Ingest {
    journal: Journal,
    control: ControlPlane,
}

/// Who sends events, and how they are identified.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The workspace and mode.
    pub tenant: Tenant,
    /// Where ids of events without one come from.
    pub ids: IdSource,
    /// Whether events of any age count, and fire nothing.
    pub backfill: bool,
}

/// What an event without an id is identified by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdSource {
    /// A fresh one each time: a retry counts again.
    Fresh,
    /// H(lineage, key, index, bytes): a retry with the same key counts once.
    Derived {
        /// The credential's lineage, or the file's digest.
        lineage: String,
        /// The idempotency key.
        key: String,
    },
}

/// Frames that are ready to be appended.
#[derive(Debug, Default)]
pub struct Prepared {
    frames: Vec<(Log, Bytes)>,
    /// How many events they hold.
    pub accepted: usize,
    /// How many of them have a warning.
    pub warned: usize,
    /// The accepted events that the answer names: those with a warning, or all where that was asked for.
    pub named: Vec<NamedEvent>,
}

/// An accepted event that the answer names.
#[derive(Debug)]
pub struct NamedEvent {
    /// Its place in the request.
    pub index: usize,
    /// Its id.
    pub id: String,
    /// What was changed about it.
    pub warnings: Vec<EventWarning>,
}

/// Builds frames of one sender's events.
#[derive(Debug)]
pub struct Batch<'a> {
    sender: &'a Sender,
    control: &'a ControlPlane,
    acceptance: Acceptance,
    /// How far the sender's clock is ahead.
    advance: Millis,
    strict: bool,
    partition_count: u32,
    accounts: HashMap<Box<str>, Option<Routed>>,
    /// Frames that take events, each with its number among those that were begun.
    open: BTreeMap<PartitionId, (usize, FrameBuilder)>,
    begun: usize,
    full: Vec<(Log, Bytes)>,
    accepted: usize,
    warned: usize,
    named: Vec<NamedEvent>,
    names_all: bool,
}

/// Where an account's events go.
#[derive(Clone, Debug)]
struct Routed {
    account: AccountId,
    partition: PartitionId,
    epoch: Epoch,
    /// Its place in the frame of a number.
    placed: Option<(usize, AccountPlace)>,
}

impl Ingest {
    /// Makes the way in to a journal.
    pub const fn new(journal: Journal, control: ControlPlane) -> Self {
        Self { journal, control }
    }

    /// Begins a batch that is accepted now.
    pub fn batch<'a>(&'a self, sender: &'a Sender) -> Batch<'a> {
        let (settings, advance) = {
            let state = self.control.state();
            (state.settings(), state.advance_of(sender.tenant))
        };
        let acceptance = Acceptance {
            accepted_at: clock::now(),
            lateness_horizon: settings.lateness_horizon,
            ahead_max: AHEAD_MAX,
            backfill: sender.backfill,
        };
        Batch {
            sender,
            control: &self.control,
            acceptance,
            strict: settings.strict_accounts && sender.tenant.workspace != SYSTEM_WORKSPACE,
            advance,
            partition_count: self.journal.partitions(),
            accounts: HashMap::new(),
            open: BTreeMap::new(),
            begun: 0,
            full: Vec::new(),
            accepted: 0,
            warned: 0,
            named: Vec::new(),
            names_all: false,
        }
    }

    /// Appends frames; returns when they are durable.
    ///
    /// # Errors
    /// Where the journal did not take all of them. Any subset may be in; ids make a retry safe.
    pub async fn append(&self, prepared: Prepared) -> Result<Vec<(Log, Position)>, AppendError> {
        let logs: Vec<Log> = prepared.frames.iter().map(|(log, _)| *log).collect();
        let stopwatch = Stopwatch::start();
        let stamps = self.journal.append(prepared.frames).await?;
        crate::telemetry::seconds("highwater_log_append_duration_seconds", vec![], stopwatch.elapsed());
        Ok(newest(logs, stamps))
    }

    /// How many partitions the data has.
    pub fn partitions(&self) -> u32 {
        self.journal.partitions()
    }

    /// As [`Self::append`], for frames and other facts together.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub async fn append_facts(&self, facts: Vec<(Log, Bytes)>) -> Result<Vec<Stamp>, AppendError> {
        self.journal.append(facts).await
    }

    /// As [`Self::append`], for threads that may block.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn append_blocking(&self, prepared: Prepared) -> Result<Vec<(Log, Position)>, AppendError> {
        let logs: Vec<Log> = prepared.frames.iter().map(|(log, _)| *log).collect();
        let stamps = self.journal.append_blocking(prepared.frames)?;
        Ok(newest(logs, stamps))
    }
}

fn newest(logs: Vec<Log>, stamps: Vec<Stamp>) -> Vec<(Log, Position)> {
    let mut newest = BTreeMap::new();
    for (log, stamp) in logs.into_iter().zip(stamps) {
        let position = newest.entry(log).or_insert(stamp.position);
        *position = stamp.position.max(*position);
    }
    newest.into_iter().collect()
}

impl Prepared {
    /// The frames as facts, with others behind them.
    pub fn into_facts(mut self, others: Vec<(Log, Bytes)>) -> Vec<(Log, Bytes)> {
        self.frames.extend(others);
        self.frames
    }

    /// Takes another's frames in.
    pub fn absorb(&mut self, other: Self) {
        self.frames.extend(other.frames);
        self.accepted += other.accepted;
        self.warned += other.warned;
        self.named.extend(other.named);
    }
}

impl Batch<'_> {
    /// Names all accepted events in the answer.
    #[must_use]
    pub fn naming_all(mut self) -> Self {
        self.names_all = true;
        self
    }

    /// Decides on one event, and takes it in where it is accepted.
    ///
    /// `index` and `bytes` identify an event that has no id of its own.
    ///
    /// # Errors
    /// Where the event is refused; nothing else of the batch is lost with it.
    pub fn push(&mut self, index: usize, bytes: &[u8], event: &UsageEvent<'_>) -> Result<(), Refusal> {
        let made;
        let id = match (&event.id, &self.sender.ids) {
            (Some(id), _) => id.as_ref(),
            (None, IdSource::Derived { lineage, key }) => {
                made = derived_id(lineage, key, index, bytes);
                &made
            }
            (None, IdSource::Fresh) => {
                made = format!("evt_{}", ulid::Ulid(clock::ulid()));
                &made
            }
        };
        let warnings = self.push_as(event, id, self.acceptance.accepted_at)?;
        if self.names_all || !warnings.is_empty() {
            self.named.push(NamedEvent { index, id: id.to_owned(), warnings });
        }
        Ok(())
    }

    /// Decides on one event that was accepted at another time than the batch, under an id that stands for its own; returns
    /// what was changed about it.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn push_as(
        &mut self,
        event: &UsageEvent<'_>,
        id: &str,
        accepted_at: Timestamp,
    ) -> Result<Vec<EventWarning>, Refusal> {
        let accepted_at = accepted_at.plus(self.advance);
        let timestamp = decide(event, &Acceptance { accepted_at, ..self.acceptance })?;
        let (tenant, backfill) = (self.sender.tenant, self.sender.backfill);
        let known = self.accounts.entry_ref(event.account_id.as_ref());
        let look_up = || routed(self.control, tenant, self.strict, self.partition_count, &event.account_id);
        let routed = known.or_insert_with(look_up).as_mut().ok_or_else(|| Refusal {
            code: RefusalCode::UnknownAccount,
            detail: format!("account {} does not exist, and strict_accounts is on: create it first", event.account_id),
            pointer: Some("/account_id".to_owned()),
        })?;
        let begun = &mut self.begun;
        let (number, frame) = self.open.entry(routed.partition).or_insert_with(|| {
            *begun += 1;
            (*begun, FrameBuilder::new(backfill))
        });
        let place = match routed.placed {
            Some((of, place)) if of == *number => place,
            Some(_) | None => frame.account(tenant, routed.epoch, &routed.account),
        };
        routed.placed = Some((*number, place));
        let reduced = event.reduction.as_ref().and_then(|_| event.reduced(&group_by(self.control, tenant, event)));
        frame.push(place, reduced.as_ref().map_or(event, |(event, _)| event), id, timestamp, accepted_at);
        self.accepted += 1;
        if frame.len() >= FRAME_EVENTS_MAX || frame.bytes() >= FRAME_BYTES_MAX {
            let full = self.open.remove(&routed.partition);
            self.full.extend(full.map(|(_, full)| (Log::Partition(routed.partition), Bytes::from(full.finish()))));
        }
        let warnings = reduced.map(|(_, warnings)| warnings).unwrap_or_default();
        for EventWarning { code, .. } in &warnings {
            crate::telemetry::counter("highwater_event_warnings_total", &[("code", code.text())], 1);
        }
        self.warned += usize::from(!warnings.is_empty());
        Ok(warnings)
    }

    /// Closes the frames.
    pub fn finish(mut self) -> Prepared {
        for (partition, (_, frame)) in self.open {
            if !frame.is_empty() {
                self.full.push((Log::Partition(partition), Bytes::from(frame.finish())));
            }
        }
        Prepared { frames: self.full, accepted: self.accepted, warned: self.warned, named: self.named }
    }
}

/// The dimensions that an event's metric groups by.
fn group_by(control: &ControlPlane, tenant: Tenant, event: &UsageEvent<'_>) -> Vec<String> {
    let Ok(metric) = MetricName::new(event.metric.as_ref()) else { return Vec::new() };
    control.state().metric(tenant, &metric).map(|record| record.definition.group_by.clone()).unwrap_or_default()
}

/// Looks an account up; `None` where only known accounts are accepted and it is not one.
fn routed(control: &ControlPlane, tenant: Tenant, strict: bool, partition_count: u32, account: &str) -> Option<Routed> {
    let account = AccountId::new(account).ok()?;
    let state = control.state();
    let known = !strict || state.account(tenant, &account).is_some();
    known.then(|| Routed {
        partition: partition_of(tenant.workspace, &account, partition_count),
        epoch: state.epoch_of(tenant, &account),
        placed: None,
        account,
    })
}
