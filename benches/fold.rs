//! How fast one core folds decoded events: dedup, windows, levels, and one quota rule on every account.
//!
//! `cargo bench --bench fold`; the figure is events a second on one core.

#![expect(missing_docs, reason = "the functions that the macros of criterion make have none")]
#![expect(clippy::expect_used, reason = "a bench that cannot run says so")]

#[path = "support/allocator.rs"]
mod allocator;
#[path = "support/history.rs"]
mod history;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use highwater::domain::id::Stamp;
use highwater::domain::partition::effect::Effects;
use highwater::domain::partition::fact::Fact;
use highwater::runtime::processor::Fold;
use history::{EVENTS, METRICS, fold, records, stamp};
use std::hint::black_box;

const ACCOUNTS: u64 = 1_000;
/// A live fold hands its rows over when the store has written the ones before; this many frames stand for that.
const FLUSH_FRAMES: usize = 32;

/// Some account's some metric.
fn mixed(number: u64) -> (u64, usize) {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    (mixed % ACCOUNTS, (mixed >> 13) as usize % METRICS.len())
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
    let records = records(mixed);
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
