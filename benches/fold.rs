//! How fast one core folds decoded events: dedup, windows, levels, and one quota rule on every account.
//!
//! `cargo bench --bench fold`; the figure is events a second on one core.

#![expect(missing_docs, reason = "the functions that the macros of criterion make have none")]
#![expect(clippy::expect_used, reason = "a bench that cannot run says so")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use highwater::domain::control::outcome::Change;
use highwater::domain::definition::{AlertDefinition, Fold as Aggregate, NoDataPolicy, Quota, Severity};
use highwater::domain::event::{Frame, FrameBuilder, parse_line};
use highwater::domain::id::{
    AccountScope, AlertId, Epoch, MetricName, Mode, PartitionId, Position, Stamp, Tenant, WorkspaceId,
};
use highwater::domain::partition::effect::Effects;
use highwater::domain::partition::fact::{Fact, Note};
use highwater::domain::quantity::Quantity;
use highwater::domain::time::{Millis, Period, Timestamp};
use highwater::runtime::processor::Fold;
use std::collections::BTreeMap;
use std::hint::black_box;

const EVENTS: u64 = 1_000_000;
const ACCOUNTS: u64 = 1_000;
const METRICS: [&str; 5] = ["api.requests", "storage.bytes", "compute.ms", "egress.bytes", "jobs.run"];
const FRAME_EVENTS: usize = 6_000;
/// A live fold hands its rows over when the store has written the ones before; this many frames stand for that.
const FLUSH_FRAMES: usize = 32;
const START: Timestamp = Timestamp(1_795_000_000_000);
const TENANT: Tenant = Tenant { workspace: WorkspaceId(1), mode: Mode::Live };

fn stamp(position: u64, at: Timestamp) -> Stamp {
    Stamp { position: Position(position), recorded_at: at }
}

/// Events of one hour in order of time, as the records of a log.
fn records(first_id: u64) -> Vec<(Stamp, Fact)> {
    let mut records = Vec::new();
    let mut frame = FrameBuilder::new(false);
    for number in 0..EVENTS {
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let (account, metric) = (mixed % ACCOUNTS, METRICS[(mixed >> 13) as usize % METRICS.len()]);
        let line = format!(r#"{{"account_id":"acc_{account:05}","metric":"{metric}","value":{}}}"#, 1 + mixed % 9);
        let event = parse_line(line.as_bytes()).expect("a valid event");
        let at = START.plus(Millis((number * 3_600_000 / EVENTS) as i64));
        frame.push(TENANT, Epoch(0), &event, &format!("event-{:012}", first_id + number), at, at);
        if frame.len() == FRAME_EVENTS || number + 1 == EVENTS {
            let full = std::mem::replace(&mut frame, FrameBuilder::new(false));
            let frame = Frame::decode(&full.finish()).expect("a frame");
            records.push((stamp(records.len() as u64 + 2, at), Fact::UsageRecorded(frame)));
        }
    }
    records
}

/// A fold with a quota on every account, and a rule that reads it.
fn fold() -> Fold {
    let mut fold = Fold::new(PartitionId(0), 1, [7; 16]);
    let quota = Quota { limit: Quantity::whole(1_000_000), period: Period::Month, aggregate: Aggregate::Sum };
    let metric = MetricName::new(METRICS[0]).expect("a metric");
    let changes = vec![
        (Position(1), Change::Quota { tenant: TENANT, account: AccountScope::All, metric, quota: Some(quota) }),
        (Position(2), Change::Alert { tenant: TENANT, definition: Box::new(alert()) }),
    ];
    let copied = Note::ControlCopied { after: Position(0), through: Position(2), changes };
    fold.take_fact(stamp(1, START), &Fact::Note(copied), &mut Effects::default());
    fold
}

fn alert() -> AlertDefinition {
    AlertDefinition {
        id: AlertId(1),
        version: 1,
        account: AccountScope::All,
        metric: None,
        rule: "quota_percent > 85".to_owned(),
        recover: None,
        grammar: 1,
        hold: Millis(0),
        keep_firing_for: Millis(0),
        repeat_interval: Millis::hours(4),
        severity: Severity::Warning,
        no_data: NoDataPolicy::Ok,
        name: None,
        message: None,
        labels: BTreeMap::new(),
        project: None,
        channels: Vec::new(),
        pause: None,
    }
}

fn take(mut fold: Fold, records: &[(Stamp, Fact)]) -> Fold {
    for batch in records.chunks(FLUSH_FRAMES) {
        let mut effects = Effects::default();
        for (stamp, fact) in batch {
            fold.take_fact(*stamp, fact, &mut effects);
        }
        fold.flush(&mut effects);
        black_box(&effects);
    }
    fold
}

fn bench(c: &mut Criterion) {
    let records = records(0);
    let mut group = c.benchmark_group("fold");
    group.sample_size(10).throughput(Throughput::Elements(EVENTS));
    group.bench_function("dedup, windows, levels, one rule an account", |b| {
        b.iter_batched(fold, |fold| take(fold, &records), BatchSize::PerIteration);
    });
    group.bench_function("the same events again: all duplicates", |b| {
        let again: Vec<(Stamp, Fact)> = records
            .iter()
            .map(|(at, fact)| (stamp(at.position.0 + records.len() as u64, at.recorded_at), fact.clone()))
            .collect();
        b.iter_batched(|| take(fold(), &records), |fold| take(fold, &again), BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
