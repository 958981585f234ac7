//! The state of a partition: tenants, accounts, series, instances, timers and debts.

use super::debts::Debts;
use super::effect::SeriesKey;
use super::fact::V3;
use super::group_hours::GroupHours;
use super::instance::Instance;
use super::level::Levels;
use super::reach;
use super::set_aside::QuarantineMemory;
use super::unheard::Unheard;
use super::window::Windows;
use crate::domain::definition::{AlertDefinition, MetricDefinition, Quota, Silence};
use crate::domain::id::{AccountId, AlertId, Epoch, MetricName, PartitionId, Position, SilenceId, Tenant};
use crate::domain::limits::GROUPS_PER_SERIES_MAX;
use crate::domain::rule::RuleProgram;
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
    pub(super) alerts: BTreeMap<AlertId, Arc<Compiled>>,
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
            alerts: BTreeMap::new(),
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

/// An alert that is ready to be evaluated.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) definition: AlertDefinition,
    /// Absent where this release cannot read the rule; such an alert stays inconclusive.
    pub(super) rule: Option<RuleProgram>,
    pub(super) recover: Option<RuleProgram>,
    pub(super) paused: bool,
}

impl Compiled {
    pub(super) fn new(definition: AlertDefinition, paused: bool) -> Self {
        Self {
            rule: RuleProgram::compile(&definition.rule).ok(),
            recover: definition.recover.as_deref().and_then(|source| RuleProgram::compile(source).ok()),
            paused,
            definition,
        }
    }

    pub(super) fn programs(&self) -> impl Iterator<Item = &RuleProgram> {
        self.rule.iter().chain(self.recover.iter())
    }

    pub(super) fn reads_quota(&self) -> bool {
        self.programs().any(RuleProgram::reads_quota)
    }

    pub(super) fn reads_window(&self) -> bool {
        self.programs().any(RuleProgram::reads_window)
    }

    /// Whether the alert is evaluated at every window close.
    pub(super) fn judges_closes(&self) -> bool {
        self.programs().any(|program| program.reads_window() || program.reads_time())
    }

    pub(super) fn reads_own_metric(&self) -> bool {
        self.programs().any(RuleProgram::reads_own_metric)
    }

    /// Whether some unqualified name needs a quota, and whether one needs data.
    pub(super) fn own_needs(&self) -> (bool, bool) {
        let own = |quota: bool| {
            self.programs().flat_map(|program| program.inputs()).any(|input| {
                input.metric.is_none() && if quota { input.name.reads_quota() } else { input.name.reads_window() }
            })
        };
        (own(true), own(false))
    }

    /// Whether an open window may fire. Where `for` counts closed windows, from engine version 3 on, none does.
    pub(super) fn fires_early(&self, engine_version: u32) -> bool {
        let waits = engine_version >= V3 && self.definition.hold > Millis::ZERO;
        self.rule.as_ref().is_some_and(RuleProgram::fires_early) && !waits
    }

    /// When time alone may change an instance, on the tenant's clock.
    pub(super) fn due(&self, instance: &Instance, engine_version: u32) -> Option<Timestamp> {
        if engine_version >= V3 {
            instance.next_due(&self.definition, self.reads_window())
        } else {
            instance.due(&self.definition)
        }
    }

    /// Tells whether an instance on `own` reads a metric.
    pub(super) fn reads(&self, own: Option<&MetricName>, metric: &MetricName) -> bool {
        self.programs()
            .flat_map(|program| program.inputs())
            .any(|input| input.metric.as_ref().or(own).is_some_and(|read| read == metric))
    }

    /// Tells whether an instance may stand on a metric at all.
    pub(super) fn admits(&self, account: &AccountId, metric: Option<&MetricName>) -> bool {
        let metric_fits = match (self.reads_own_metric(), metric) {
            (true, Some(metric)) => self.definition.metric.as_ref().is_none_or(|fixed| fixed == metric),
            (false, None) => true,
            (true, None) | (false, Some(_)) => false,
        };
        metric_fits && self.definition.account.covers(account)
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

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) tenant: Tenant,
    pub(super) name: AccountId,
    pub(super) epoch: Epoch,
    /// Whether an event of this epoch was counted.
    pub(super) seen: bool,
    pub(super) quotas: BTreeMap<MetricName, Quota>,
    pub(super) series: Vec<Series>,
    /// By alert and metric.
    pub(super) instances: Vec<Instance>,
    /// How far instances counted that are gone, so that no id is ever used twice.
    pub(super) retired: BTreeMap<AlertId, BTreeMap<Option<MetricName>, u64>>,
    /// The account's place in the partition.
    #[serde(skip)]
    pub(super) slot: usize,
    #[serde(skip)]
    pub(super) dirty: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Series {
    pub(super) metric: MetricName,
    pub(super) levels: Levels,
    pub(super) windows: Windows,
    /// Up to engine version 2; empty from there on.
    pub(super) groups: BTreeMap<Arc<str>, Windows>,
    /// From engine version 3 on; snapshots keep them at their end.
    #[serde(skip)]
    pub(super) group_hours: GroupHours,
    /// Until when the groups are known to be as many as may be.
    #[serde(skip)]
    pub(super) full_until: Timestamp,
    /// The instances that read this series, by their place in the account.
    #[serde(skip)]
    pub(super) readers: Vec<usize>,
    /// What was told of its quota; snapshots keep it at their end.
    #[serde(skip)]
    pub(super) told: Option<reach::Told>,
    #[serde(skip)]
    pub(super) watch: reach::Watch,
}

impl Series {
    /// Tells whether there is room for an event of a group.
    ///
    /// Only groups that hold a window count, so that it does not matter when the others are dropped.
    pub(super) fn has_room(&mut self, group: &str, clock: Timestamp) -> bool {
        if self.groups.len() < GROUPS_PER_SERIES_MAX {
            return true;
        }
        if self.groups.get(group).is_some_and(|windows| windows.held_until() > clock) {
            return true;
        }
        if clock < self.full_until {
            return false;
        }
        let held = self.groups.values().map(Windows::held_until).filter(|until| *until > clock);
        let (count, first_end) = held.fold((0_usize, Timestamp::MAX), |(count, first_end), until| {
            (count.saturating_add(1), first_end.min(until))
        });
        if count < GROUPS_PER_SERIES_MAX {
            return true;
        }
        self.full_until = first_end;
        false
    }
}

impl Account {
    pub(super) const fn new(tenant: Tenant, name: AccountId, epoch: Epoch) -> Self {
        Self {
            tenant,
            name,
            epoch,
            seen: false,
            quotas: BTreeMap::new(),
            series: Vec::new(),
            instances: Vec::new(),
            retired: BTreeMap::new(),
            slot: 0,
            dirty: false,
        }
    }

    pub(super) fn series_of(&self, metric: &MetricName) -> Option<&Series> {
        self.series.iter().find(|series| series.metric == *metric)
    }

    pub(super) fn series_key(&self, series: &Series, group: Option<&str>) -> SeriesKey {
        SeriesKey {
            tenant: self.tenant,
            epoch: self.epoch,
            account: self.name.clone(),
            metric: series.metric.clone(),
            group: group.unwrap_or("").to_owned(),
        }
    }

    /// Returns the place of a series, made where it is missing; tells whether it was made.
    pub(super) fn series_place(&mut self, metric: &MetricName) -> (usize, bool) {
        if let Some(place) = self.series.iter().position(|series| series.metric == *metric) {
            return (place, false);
        }
        self.series.push(Series {
            metric: metric.clone(),
            levels: Levels::default(),
            windows: Windows::default(),
            groups: BTreeMap::new(),
            group_hours: GroupHours::default(),
            full_until: Timestamp::MIN,
            readers: Vec::new(),
            told: None,
            watch: reach::Watch::default(),
        });
        (self.series.len().saturating_sub(1), true)
    }

    /// Works out anew which instances read which series. Those of a paused alert read nothing.
    pub(super) fn wire(&mut self, alerts: &BTreeMap<AlertId, Arc<Compiled>>) {
        for series in &mut self.series {
            series.readers.clear();
            for (place, instance) in self.instances.iter().enumerate() {
                let reads = alerts
                    .get(&instance.alert)
                    .is_some_and(|c| !c.paused && c.reads(instance.metric.as_ref(), &series.metric));
                if reads {
                    series.readers.push(place);
                }
            }
        }
    }

    /// Returns what a snapshot keeps: no trace of what the clock has passed, nor of the order of arrival.
    pub(super) fn canonical(&self, clock: Timestamp) -> Self {
        let mut series: Vec<Series> = self
            .series
            .iter()
            .map(|series| Series {
                metric: series.metric.clone(),
                levels: series.levels.canonical(clock),
                windows: series.windows.canonical(clock),
                groups: series
                    .groups
                    .iter()
                    .map(|(group, windows)| (group.clone(), windows.canonical(clock)))
                    .filter(|(_, windows)| !windows.is_empty())
                    .collect(),
                group_hours: series.group_hours.canonical(clock),
                full_until: Timestamp::MIN,
                readers: Vec::new(),
                told: series.told,
                watch: reach::Watch::default(),
            })
            .collect();
        series.sort_by(|a, b| a.metric.cmp(&b.metric));
        Self {
            tenant: self.tenant,
            name: self.name.clone(),
            epoch: self.epoch,
            seen: self.seen,
            quotas: self.quotas.clone(),
            series,
            instances: self.instances.clone(),
            retired: self.retired.clone(),
            slot: self.slot,
            dirty: self.dirty,
        }
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
