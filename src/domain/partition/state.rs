//! The state of a partition: tenants, accounts, series, instances, timers and debts.

use super::account::Account;
use super::alerts::{Alerts, Compiled};
use super::debts::Debts;
use super::fact::V3;
use super::set_aside::QuarantineMemory;
use super::unheard::Unheard;
use crate::domain::definition::{MetricDefinition, Quota, Silence};
use crate::domain::id::{AccountId, AlertId, Epoch, MetricName, PartitionId, Position, SilenceId, Tenant};
use crate::domain::silence::{MatcherSemantics, MatcherSet, SilenceSubject};
use crate::domain::time::{Millis, Period, Timestamp, WINDOW};
use crate::domain::webhook::outbox::Outbox;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One partition's self-contained state machine over its own log.
#[derive(Debug)]
pub struct Partition {
    pub(super) id: PartitionId,
    pub(super) partition_count: u32,
    pub(super) clock: Clock,
    pub(super) horizons: Horizons,
    pub(super) control_through: Position,
    pub(super) engine_version: u32,
    pub(super) tenants: BTreeMap<Tenant, TenantState>,
    pub(super) accounts: Vec<Account>,
    pub(super) timers: BTreeSet<(Timestamp, Due)>,
    pub(super) debts: Debts,
    pub(super) outbox: Outbox,
    pub(super) quarantine: QuarantineMemory,
    pub(super) unheard: Unheard,
    pub(super) dirty: Dirty,
}

/// How far the fold has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Clock {
    pub(super) position: Position,
    pub(super) recorded_max: Timestamp,
    pub(super) intake_through: Option<Timestamp>,
    pub(super) reached: Timestamp,
}

impl Clock {
    /// The fold's clock: what is recorded, held back by what the intake still holds. It never goes back, not even when
    /// the first intake appears.
    pub(super) const fn now(&self) -> Timestamp {
        self.reached
    }

    /// Returns the clock behind a record.
    pub(super) fn with(self, recorded_at: Timestamp, intake_through: Option<Timestamp>) -> Self {
        let recorded_max = self.recorded_max.max(recorded_at);
        let intake_through = self.intake_through.max(intake_through);
        let now = intake_through.map_or(recorded_max, |through| through.min(recorded_max));
        Self { recorded_max, intake_through, reached: self.reached.max(now), ..self }
    }
}

/// The settings that the fold goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Horizons {
    pub(super) grace: Millis,
    pub(super) dedup: Millis,
    pub(super) correction: Millis,
}

/// What only time brings about. The order is that of handling at the same instant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Close(Tenant),
    Turn(Tenant),
    Instance(Tenant, AccountId, AlertId, Option<MetricName>),
    PauseEnds(Tenant, AlertId),
    SilenceEnds(Tenant, SilenceId),
    SilenceStarts(Tenant, SilenceId),
}

/// What is to be stored at the end of the batch.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) parts: Vec<DirtyPart>,
    pub(super) accounts: Vec<usize>,
}

#[derive(Debug)]
pub(super) struct DirtyPart {
    pub(super) account: usize,
    pub(super) series: usize,
    pub(super) group: Option<Arc<str>>,
    pub(super) start: Timestamp,
}

#[derive(Debug)]
pub(super) struct TenantState {
    /// The partition's.
    pub(super) engine_version: u32,
    pub(super) epoch: Epoch,
    pub(super) advance: Millis,
    pub(super) metrics: BTreeMap<MetricName, MetricDefinition>,
    pub(super) quotas: BTreeMap<MetricName, Quota>,
    pub(super) alerts: Alerts,
    pub(super) silences: BTreeMap<SilenceId, Hush>,
    /// The end of the newest closed window.
    pub(super) closed: Timestamp,
    pub(super) turned: Judged,
    pub(super) accounts: BTreeMap<AccountId, usize>,
}

/// The periods that are judged: those that hold an instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judged {
    pub(super) instant: Timestamp,
    hour: (Timestamp, Timestamp),
    day: (Timestamp, Timestamp),
    week: (Timestamp, Timestamp),
    month: (Timestamp, Timestamp),
}

impl Judged {
    pub(super) const fn at(instant: Timestamp) -> Self {
        Self {
            instant,
            hour: Period::Hour.bounds(instant),
            day: Period::Day.bounds(instant),
            week: Period::Week.bounds(instant),
            month: Period::Month.bounds(instant),
        }
    }

    const fn bounds(&self, period: Period) -> (Timestamp, Timestamp) {
        match period {
            Period::Hour => self.hour,
            Period::Day => self.day,
            Period::Week => self.week,
            Period::Month => self.month,
        }
    }
}

impl TenantState {
    pub(super) fn new(engine_version: u32, clock: Timestamp, grace: Millis) -> Self {
        let settled = clock.minus(grace);
        Self {
            engine_version,
            epoch: Epoch(0),
            advance: Millis::ZERO,
            metrics: BTreeMap::new(),
            quotas: BTreeMap::new(),
            alerts: Alerts::default(),
            silences: BTreeMap::new(),
            closed: settled.window_start(WINDOW),
            turned: Judged::at(settled.window_start(Millis::hours(1))),
            accounts: BTreeMap::new(),
        }
    }

    /// The bounds of the period that is judged.
    pub(super) const fn judged(&self, period: Period) -> (Timestamp, Timestamp) {
        self.turned.bounds(period)
    }

    /// The start of the newest closed window.
    pub(super) const fn newest_closed(&self) -> Timestamp {
        self.closed.minus(WINDOW)
    }

    pub(super) fn is_silenced(
        &self,
        compiled: &Compiled,
        account: &AccountId,
        metric: Option<&MetricName>,
        at: Timestamp,
    ) -> bool {
        let semantics =
            if self.engine_version >= V3 { MatcherSemantics::NamedMetrics } else { MatcherSemantics::OwnMetric };
        let definition = &compiled.definition;
        let subject = SilenceSubject { definition, rule: compiled.rule.as_ref(), account, metric };
        self.silences.values().any(|hush| hush.holds(subject, semantics, at))
    }
}

/// A silence that is ready to be matched.
#[derive(Debug)]
pub(super) struct Hush {
    pub(super) silence: Silence,
    /// Whether its beginning has come.
    pub(super) started: bool,
    matchers: MatcherSet,
}

impl Hush {
    /// `clock` is the tenant's.
    pub(super) fn new(silence: Silence, clock: Timestamp) -> Self {
        let matchers = MatcherSet::new(&silence.matchers);
        Self { started: silence.starts_at <= clock, silence, matchers }
    }

    fn holds(&self, subject: SilenceSubject<'_>, semantics: MatcherSemantics, at: Timestamp) -> bool {
        let runs = self.silence.starts_at <= at && at < self.silence.ends_at;
        runs && self.matchers.matches(subject, semantics)
    }
}

impl Default for Horizons {
    fn default() -> Self {
        use crate::domain::limits::{CORRECTION_HORIZON, DEDUP_HORIZON, GRACE};
        Self { grace: GRACE, dedup: DEDUP_HORIZON, correction: CORRECTION_HORIZON }
    }
}

impl Partition {
    /// Makes the state before the first record.
    pub fn new(id: PartitionId, partition_count: u32) -> Self {
        Self {
            id,
            partition_count,
            clock: Clock {
                position: Position::START,
                recorded_max: Timestamp::MIN,
                intake_through: None,
                reached: Timestamp::MIN,
            },
            horizons: Horizons::default(),
            control_through: Position::START,
            engine_version: 1,
            tenants: BTreeMap::new(),
            accounts: Vec::new(),
            timers: BTreeSet::new(),
            debts: Debts::default(),
            outbox: Outbox::default(),
            quarantine: QuarantineMemory::default(),
            unheard: Unheard::default(),
            dirty: Dirty::default(),
        }
    }
}
