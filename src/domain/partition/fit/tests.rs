//! Whatever changes, accounts have the instances that their alerts want, and getting there costs what it brings about.

use super::*;
use crate::domain::control::outcome::Change;
use crate::domain::definition::{Fold as Aggregate, InconclusivePolicy, NoDataPolicy, Pause, Quota, Severity};
use crate::domain::event::{Frame, FrameAccount};
use crate::domain::id::{AccountId, Epoch, Mode, PartitionId, Position, Stamp, Tenant, WorkspaceId};
use crate::domain::partition::Partition;
use crate::domain::partition::effect::Effects;
use crate::domain::partition::fact::{ENGINE_VERSION, Fact, Note};
use crate::domain::quantity::Quantity;
use crate::domain::time::{Millis, Period};
use proptest::prelude::*;
use std::collections::BTreeMap;

const TENANT: Tenant = Tenant { workspace: WorkspaceId(1), mode: Mode::Live };
const RULES: [&str; 9] = [
    "sum > 1",
    "quota_percent > 85",
    "sum(\"m1\") > 1",
    "sum > 1 && sum(\"m2\") > 3",
    "used > 1 && sum > 1",
    "count == 0",
    "quota_percent(\"m0\") > 85 && sum > 1",
    "used(\"m1\") > 3 || used(\"m2\") > 3",
    "what no release reads",
];

#[derive(Clone, Debug)]
enum Action {
    Event { account: u8, metric: u8 },
    Quota { account: Option<u8>, metric: u8, limit: Option<i64> },
    Alert { alert: u8, account: Option<u8>, metric: Option<u8>, rule: usize, recover: Option<usize>, paused: bool },
    AlertDeleted(u8),
    AccountDeleted(u8),
    Restart,
}

fn action() -> impl Strategy<Value = Action> {
    let account = || prop::option::weighted(0.4, 0_u8..3);
    prop_oneof![
        6 => (0_u8..3, 0_u8..4).prop_map(|(account, metric)| Action::Event { account, metric }),
        3 => (account(), 0_u8..4, prop::option::weighted(0.7, 0_i64..9))
            .prop_map(|(account, metric, limit)| Action::Quota { account, metric, limit }),
        6 => (
            0_u8..4, account(), prop::option::weighted(0.3, 0_u8..4), 0..RULES.len(),
            prop::option::weighted(0.2, 0..RULES.len()), any::<bool>(),
        )
            .prop_map(|(alert, account, metric, rule, recover, paused)| Action::Alert {
                alert, account, metric, rule, recover, paused,
            }),
        1 => (0_u8..4).prop_map(Action::AlertDeleted),
        1 => (0_u8..3).prop_map(Action::AccountDeleted),
        1 => Just(Action::Restart),
    ]
}

fn account(number: impl std::fmt::Display) -> AccountId {
    AccountId::new(&format!("a{number}")).unwrap()
}

fn metric(number: impl std::fmt::Display) -> MetricName {
    MetricName::new(&format!("m{number}")).unwrap()
}

fn alert(id: u128, rule: &str) -> AlertDefinition {
    AlertDefinition {
        id: AlertId(id),
        version: 1,
        account: AccountScope::All,
        metric: None,
        rule: rule.to_owned(),
        recover: None,
        grammar: 1,
        hold: Millis(0),
        keep_firing_for: Millis(0),
        repeat_interval: Millis::hours(4),
        severity: Severity::Warning,
        no_data: NoDataPolicy::Ok,
        inconclusive: InconclusivePolicy::Keep,
        name: None,
        message: None,
        labels: BTreeMap::new(),
        project: None,
        channels: Vec::new(),
        pause: None,
    }
}

struct Log {
    partition: Partition,
    position: u64,
    steps: u64,
}

impl Log {
    fn new() -> Self {
        let mut log = Self { partition: Partition::new(PartitionId(0), 1), position: 0, steps: 0 };
        log.take(&Fact::Note(Note::EngineVersion { version: ENGINE_VERSION }));
        log
    }

    fn take(&mut self, fact: &Fact) {
        self.position += 1;
        let recorded_at = Timestamp(1_795_000_000_000 + i64::try_from(self.position).unwrap());
        let mut effects = Effects::default();
        self.partition.apply(Stamp { position: Position(self.position), recorded_at }, fact, &[], &mut effects);
        self.partition.flush(&mut effects);
        self.steps += effects.counts.steps;
    }

    fn change(&mut self, change: Change) {
        let (after, through) = (Position(self.position), Position(self.position + 1));
        self.take(&Fact::Note(Note::ControlCopied {
            after: self.partition.control_through().min(after),
            through,
            changes: vec![(through, change)],
        }));
    }

    fn event(&mut self, account: &AccountId, metric: &MetricName) {
        let at = Timestamp(1_795_000_000_000);
        let named = FrameAccount { tenant: TENANT, epoch: Epoch(0), account: account.clone() };
        let frame = Frame::regular(named, metric.clone(), (at, Millis::minutes(1)), &[3], at);
        self.take(&Fact::UsageRecorded(frame));
    }

    fn act(&mut self, action: Action) {
        let tenant = TENANT;
        let scope = |number: Option<u8>| number.map_or(AccountScope::All, |number| AccountScope::One(account(number)));
        match action {
            Action::Event { account: number, metric: of } => self.event(&account(number), &metric(of)),
            Action::Quota { account, metric: of, limit } => {
                let quota =
                    |limit| Quota { limit: Quantity::whole(limit), period: Period::Day, aggregate: Aggregate::Sum };
                let (metric, quota) = (metric(of), limit.map(quota));
                self.change(Change::Quota { tenant, account: scope(account), metric, quota });
            }
            Action::Alert { alert: id, account, metric: of, rule, recover, paused } => {
                let definition = AlertDefinition {
                    account: scope(account),
                    metric: of.map(metric),
                    recover: recover.map(|recover| RULES[recover].to_owned()),
                    pause: paused.then_some(Pause { until: None }),
                    ..alert(u128::from(id), RULES[rule])
                };
                self.change(Change::Alert { tenant, definition: Box::new(definition) });
            }
            Action::AlertDeleted(id) => self.change(Change::AlertDeleted { tenant, alert: AlertId(u128::from(id)) }),
            Action::AccountDeleted(number) => self.change(Change::AccountDeleted { tenant, account: account(number) }),
            Action::Restart => {
                let bytes = self.partition.snapshot().unwrap();
                let format = crate::domain::partition::SNAPSHOT_FORMAT;
                self.partition = Partition::restore(PartitionId(0), format, &bytes).unwrap();
            }
        }
    }
}

type Key = (AlertId, Option<MetricName>);

/// What a plain reading of every alert on every account says of instances and readers, beside what there is.
fn check(partition: &Partition) -> Result<(), TestCaseError> {
    let Some(state) = partition.tenants.get(&TENANT) else { return Ok(()) };
    for account in &partition.accounts {
        let keys: Vec<Key> = account.instances.iter().map(|one| (one.alert, one.metric.clone())).collect();
        for compiled in state.alerts.values() {
            // What an account that has nothing but quotas brings about is made by its quotas.
            if account.seen || compiled.reads_quota() {
                for metric in wanted(state, account, compiled) {
                    let key = (compiled.definition.id, metric);
                    prop_assert!(keys.contains(&key), "{:?} of {} is missing", key, account.name);
                }
            }
        }
        for (alert, metric) in &keys {
            let compiled = state.alerts.get(alert);
            prop_assert!(compiled.is_some_and(|compiled| compiled.admits(&account.name, metric.as_ref())));
        }
        for series in account.series.iter() {
            let reads = |(alert, metric): &&Key| {
                let compiled = state.alerts.get(alert);
                compiled.is_some_and(|compiled| !compiled.paused && compiled.reads(metric.as_ref(), &series.metric))
            };
            let want: Vec<&Key> = keys.iter().filter(reads).collect();
            let found = series.readers.iter().filter_map(|place| account.instances.get(*place));
            let found: Vec<Key> = found.map(|one| (one.alert, one.metric.clone())).collect();
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), want, "readers of {}", series.metric);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn accounts_have_the_instances_that_a_plain_reading_says(actions in prop::collection::vec(action(), 1..40)) {
        let mut log = Log::new();
        for action in actions {
            log.act(action);
            check(&log.partition)?;
        }
    }
}

/// Folds events of so many metrics on so many accounts, where so many alerts read each; returns the steps.
fn steps((accounts, metrics, alerts): (u32, u32, u32)) -> u64 {
    let mut log = Log::new();
    for id in 0..alerts {
        let definition = Box::new(alert(u128::from(id), "sum > 1000"));
        log.change(Change::Alert { tenant: TENANT, definition });
    }
    for number in 0..accounts {
        for of in 0..metrics {
            log.event(&account(number), &metric(of));
        }
    }
    let instances = log.partition.accounts.iter().map(|account| account.instances.iter().count()).sum::<usize>();
    assert_eq!(instances, (accounts * metrics * alerts) as usize);
    log.steps
}

#[test]
fn the_steps_of_new_series_go_by_what_they_bring_about() {
    for (small, large) in [
        ((1, 20, 20), (1, 80, 20)),
        ((1, 20, 20), (1, 20, 80)),
        ((20, 1, 20), (80, 1, 20)),
        ((20, 20, 1), (20, 80, 1)),
        ((1, 200, 1), (1, 800, 1)),
        ((200, 1, 1), (800, 1, 1)),
    ] {
        let (few, many) = (steps(small), steps(large));
        assert!(many < 5 * few, "{few} steps for {small:?}, {many} for {large:?}");
        assert!(many < 8 * u64::from(large.0 * large.1 * large.2), "{many} for {large:?}");
    }
}

#[test]
fn what_concerns_no_other_metric_looks_at_none() {
    let mut log = Log::new();
    for of in 0..100 {
        log.event(&account(0), &metric(of));
    }
    for id in 0..100 {
        let definition = alert(id, &format!("sum(\"m{id}\") > 1000"));
        log.change(Change::Alert { tenant: TENANT, definition: Box::new(definition) });
    }
    let steps = |log: &mut Log, act: &dyn Fn(&mut Log)| {
        let before = log.steps;
        act(log);
        log.steps - before
    };
    let of_series = steps(&mut log, &|log| log.event(&account(0), &metric("other")));
    let of_event = steps(&mut log, &|log| log.event(&account(0), &metric(7)));
    let quota = Quota { limit: Quantity::whole(3), period: Period::Day, aggregate: Aggregate::Sum };
    let change = Change::Quota { tenant: TENANT, account: AccountScope::All, metric: metric(7), quota: Some(quota) };
    let of_quota = steps(&mut log, &|log| log.change(change.clone()));
    let edit = Box::new(alert(7, "sum(\"m7\") > 5"));
    let of_edit = steps(&mut log, &|log| log.change(Change::Alert { tenant: TENANT, definition: edit.clone() }));
    assert!(
        of_series < 10 && of_event < 10 && of_quota < 10 && of_edit < 10,
        "{of_series} {of_event} {of_quota} {of_edit}"
    );
}
