//! Sandboxes: opened once, reset by people and by days, with a clock of their own.

use super::*;
use crate::domain::control::intake::{GapCause, IntakeGap};
use crate::domain::control::outcome::Change;
use crate::domain::control::sandbox::{Seed, SeedAccount, SeedUsage, outbox_channel};
use crate::domain::control::silences::SilenceDraft;
use crate::domain::definition::{Fold, MatchOp, Matcher, MetricDefinition, Quota};
use crate::domain::id::{Epoch, MetricName, SilenceId};
use crate::domain::limits::SANDBOX_ADVANCE_MAX;
use crate::domain::partition::fact::V3;
use crate::domain::quantity::Quantity;
use crate::domain::time::Period;

const SANDBOX: Tenant = Tenant { workspace: WorkspaceId(1), mode: Mode::Sandbox };
const DAY: Millis = Millis::days(1);

fn seed(alert: u128) -> Box<Seed> {
    let metric = MetricName::new("calls").unwrap();
    let quota = Quota { limit: Quantity::whole(10), period: Period::Day, aggregate: Fold::Sum };
    let Command::CreateAlert { id, draft } = create_alert(alert, 0) else { panic!() };
    let channels = vec![outbox_channel(SANDBOX.workspace, ChannelKind::Slack)];
    let demo = account("demo");
    Box::new(Seed {
        channels: vec![],
        accounts: vec![SeedAccount {
            account: demo.clone(),
            name: "Demo".to_owned(),
            metadata: BTreeMap::new(),
            quotas: vec![(metric.clone(), quota)],
        }],
        alerts: vec![(id, AlertDraft { channels, ..*draft })],
        usage: vec![SeedUsage { account: demo, metric, ago: DAY, every: Millis::hours(1), values: vec![1, 2] }],
    })
}

fn sandboxed(command: Command) -> Entry {
    Entry { tenant: SANDBOX, ..entry(command) }
}

fn reset(alert: u128, midnight: Option<Timestamp>) -> Entry {
    sandboxed(Command::ResetSandbox { midnight, seed: seed(alert) })
}

fn opened() -> Log {
    let mut log = Log::new();
    let open = || sandboxed(Command::OpenSandbox { seed: seed(1) });
    let first = log.apply(open());
    let named = |change: &Change| serde_json::to_value(change).unwrap()["change"].as_str().unwrap().to_owned();
    let told: Vec<String> = first.changes.iter().map(named).collect();
    assert_eq!(told, ["quota", "alert", "usage_seeded"]);
    assert!(log.apply(open()).changes.is_empty(), "it is opened once");
    log
}

#[test]
fn a_reset_forgets_everything_but_channels_and_keys() {
    let mut log = opened();
    let Command::CreateKey { key } = create_key(7, None) else { panic!() };
    log.apply(sandboxed(Command::CreateKey { key: ApiKey { mode: Mode::Sandbox, ..key } }));
    log.apply(sandboxed(create_channel(3, ChannelKind::Webhook, false)));
    log.apply(Entry { tenant: SANDBOX, ..repeatable("r", "f", create_account("acme")) });
    log.apply(Entry { tenant: TENANT, ..repeatable("live", "f", create_account("acme")) });
    log.apply(sandboxed(create_alert(9, 3)));
    log.apply(sandboxed(Command::AdvanceClock { by: DAY }));
    let applied =
        log.apply(Entry { idempotency: repeatable("reset", "f", create_account("x")).idempotency, ..reset(2, None) });
    assert!(matches!(applied.changes[0], Change::SandboxReset { tenant: SANDBOX }));
    let control = &log.control;
    let sandbox = control.sandbox(SANDBOX).unwrap();
    assert_eq!((sandbox.epoch, sandbox.advance), (Epoch(log.position), Millis::ZERO));
    assert_eq!(control.epoch_of(SANDBOX, &account("anyone")), Epoch(log.position));
    assert_eq!(control.epoch_of(TENANT, &account("anyone")), Epoch(0), "live data is not touched");
    assert!(
        control.account(SANDBOX, &account("acme")).is_none() && control.account(TENANT, &account("acme")).is_some()
    );
    assert!(control.alert(SANDBOX, AlertId(9)).is_none() && control.alert(SANDBOX, AlertId(2)).is_some());
    assert!(control.channel(SANDBOX, ChannelId(3)).is_some() && control.key(KeyId(7)).is_some());
    assert!(control.account(SANDBOX, &account("demo")).is_some(), "it begins anew with what it is given");
    // Idempotency records went with it, but for that of the reset itself, and those of live data.
    let again = log.apply(Entry { tenant: SANDBOX, ..repeatable("r", "f", create_account("acme")) });
    assert!(again.replayed_from.is_none() && matches!(again.outcome, Outcome::Created(_)));
    assert!(log.apply(repeatable("live", "f", create_account("acme"))).replayed_from.is_some());
    let repeated =
        log.apply(Entry { idempotency: repeatable("reset", "f", create_account("x")).idempotency, ..reset(4, None) });
    assert!(repeated.replayed_from.is_some() && repeated.changes.is_empty());
    log.check_refold();
}

#[test]
fn each_day_resets_once_whoever_asks_and_never_early() {
    let mut log = opened();
    let midnight = log.now.window_start(DAY).plus(DAY);
    log.now = midnight.minus(Millis(1));
    let early = log.apply(reset(2, Some(midnight)));
    assert!(matches!(early.outcome, Outcome::Refused(Refused::Conflict { .. })), "{early:?}");
    log.now = midnight;
    assert!(!log.apply(reset(3, Some(midnight))).changes.is_empty());
    for alert in 4..6 {
        assert!(log.apply(reset(alert, Some(midnight))).changes.is_empty(), "another node asked before");
    }
    log.now = midnight.plus(DAY).plus(Millis(5));
    log.apply(reset(6, None));
    assert!(log.apply(reset(7, Some(midnight.plus(DAY)))).changes.is_empty(), "people did it on that day already");
    log.now = midnight.plus(Millis::days(5));
    assert!(!log.apply(reset(8, Some(log.now))).changes.is_empty(), "days without a node are passed over");
    log.check_refold();
}

#[test]
fn the_clock_goes_forward_within_its_bound() {
    let mut log = opened();
    let advance = |log: &mut Log, by: Millis| log.apply(sandboxed(Command::AdvanceClock { by }));
    let told = advance(&mut log, Millis::hours(1)).changes;
    assert_eq!(told, [Change::ClockAdvanced { tenant: SANDBOX, by: Millis::hours(1) }]);
    advance(&mut log, Millis::hours(2));
    assert_eq!(log.control.advance_of(SANDBOX), Millis::hours(3));
    let too_far = advance(&mut log, SANDBOX_ADVANCE_MAX);
    assert!(matches!(too_far.outcome, Outcome::Refused(Refused::LimitReached { .. })), "{too_far:?}");
    log.apply(reset(2, None));
    assert_eq!(log.control.advance_of(SANDBOX), Millis::ZERO);
    assert!(!advance(&mut log, SANDBOX_ADVANCE_MAX).changes.is_empty());
    log.check_refold();
}

/// Whatever ends between two steps of a sandbox's clock, be they ticks or advances, is told once.
#[test]
fn what_ends_on_the_sandboxs_clock_is_told_once() {
    let mut log = opened();
    log.apply(sandboxed(hooks::create(hooks::ONE, "silence.expired")));
    let begun = log.now;
    let matchers = vec![Matcher { name: "severity".to_owned(), value: "info".to_owned(), op: MatchOp::Equal }];
    for (number, minutes) in [10, 20, 30, 33, 50].into_iter().enumerate() {
        let (starts_at, ends_at) = (begun, begun.plus(Millis::minutes(minutes)));
        let draft = SilenceDraft { matchers: matchers.clone(), starts_at, ends_at, comment: None };
        log.apply(sandboxed(Command::CreateSilence { id: SilenceId(number as u128 + 1), draft }));
    }
    let mut step = |minutes: i64, command: Command, told: &[i64]| {
        log.now = log.now.plus(Millis::minutes(minutes));
        let at = log.now;
        let came = log.apply(sandboxed(command.clone())).rows.events;
        let ends: Vec<i64> = came.iter().map(|event| event.at.since(begun).0 / 60_000).collect();
        assert_eq!(ends, told, "{command:?} at {at}");
    };
    let advance = |minutes: i64| Command::AdvanceClock { by: Millis::minutes(minutes) };
    step(0, Command::Tick, &[]);
    step(5, advance(4), &[]);
    // 7 minutes on everybody's clock, 11 on the sandbox's.
    step(2, Command::Tick, &[10]);
    step(0, Command::Tick, &[]);
    // To minute 34 at once; what lies between the last tick and now is for the next one.
    step(3, advance(20), &[20, 30]);
    step(0, Command::Tick, &[33]);
    step(0, advance(100), &[50]);
    step(600, Command::Tick, &[]);
    log.check_refold();
}

#[test]
fn live_data_has_none_of_it() {
    let mut log = opened();
    let commands = [
        Command::OpenSandbox { seed: seed(1) },
        Command::ResetSandbox { midnight: None, seed: seed(1) },
        Command::AdvanceClock { by: DAY },
    ];
    for command in commands {
        assert!(matches!(log.refused(command), Refused::NotFound { .. }));
    }
    let outbox = outbox_channel(TENANT.workspace, ChannelKind::Slack);
    let Command::CreateAlert { id, draft } = create_alert(1, outbox.0) else { panic!() };
    assert!(matches!(log.refused(Command::CreateAlert { id, draft }), Refused::ChannelNotConfigured { .. }));
}

/// What is told in a sandbox's time is of the moment that it was recorded at: putting the clock forward moves none of it.
#[test]
fn what_was_recorded_keeps_its_place_in_a_sandboxs_time() {
    for (version, ahead) in [(2, Millis::ZERO), (V3, DAY)] {
        let mut log = opened();
        log.done(Command::EngineVersion { version });
        let now = log.now;
        let calls = MetricName::new("calls").unwrap();
        let group_by = |names: &[&str]| {
            let group_by = names.iter().map(|name| (*name).to_owned()).collect();
            let definition = MetricDefinition { group_by, ..MetricDefinition::default() };
            sandboxed(Command::PutMetric { metric: calls.clone(), definition })
        };
        let gap = IntakeGap {
            topic: "usage".to_owned(),
            partition: 1,
            cause: GapCause::Removed,
            from: Some(10),
            to: 20,
            read_until: Some(now.minus(Millis::hours(1))),
            left_from: now,
        };
        let matcher = Matcher { name: "severity".to_owned(), op: MatchOp::Equal, value: "info".to_owned() };
        let draft = SilenceDraft { matchers: vec![matcher], starts_at: now, ends_at: now.plus(DAY), comment: None };
        log.apply(sandboxed(Command::AdvanceClock { by: DAY }));
        log.apply(group_by(&["region"]));
        log.done(Command::RecordIntakeGap(gap.clone()));
        log.apply(sandboxed(Command::CreateSilence { id: SilenceId(1), draft }));
        log.apply(sandboxed(Command::AdvanceClock { by: DAY }));
        log.apply(group_by(&["region", "tier"]));
        let since = &log.control.metric(SANDBOX, &calls).unwrap().kept_since;
        let expected = [("region".to_owned(), now.plus(ahead)), ("tier".to_owned(), now.plus(ahead).plus(ahead))];
        assert_eq!(*since, BTreeMap::from(expected));
        let noted = &log.control.intake().gaps()[0];
        let moved = IntakeGap {
            read_until: gap.read_until.map(|at| at.plus(ahead)),
            left_from: now.plus(ahead),
            ..gap.clone()
        };
        assert_eq!(noted.in_world(SANDBOX), moved);
        let other = Tenant { mode: Mode::Sandbox, ..OTHER };
        assert!([TENANT, other].iter().all(|tenant| noted.in_world(*tenant) == gap), "no other clock is ahead");
        let silence = log.control.silence(SANDBOX, SilenceId(1)).unwrap();
        assert_eq!(silence.changed_at, (version == V3).then(|| now.plus(DAY)));
        log.check_refold();
    }
}
