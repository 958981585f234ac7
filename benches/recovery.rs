//! How long a partition of a million series takes to be back from its snapshot.
//!
//! `cargo bench --bench recovery`. How long a whole node takes, with and without snapshots, is in the bench `cluster`.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench says what it found, or that it cannot run")]

#[path = "support/allocator.rs"]
mod allocator;
#[path = "support/history.rs"]
mod history;

use highwater::domain::id::Position;
use highwater::domain::partition::effect::Effects;
use highwater::runtime::clock::Stopwatch;
use highwater::runtime::processor::Fold;
use highwater::snapshot::Snapshots;
use history::{EVENTS, KEY, METRICS, PARTITION, fold, records};

const ROUNDS: usize = 3;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run());
}

async fn run() {
    // Every event has a series of its own.
    let records = records(|number| (number / METRICS.len() as u64, number as usize % METRICS.len()));
    let mut fold = fold();
    let mut effects = Effects::default();
    for (stamp, fact) in &records {
        fold.take_fact(*stamp, fact, &mut effects);
    }
    fold.flush(&mut effects);
    let folder = tempfile::tempdir().expect("a folder");
    let snapshots = Snapshots::local(folder.path()).expect("snapshots");
    let stopwatch = Stopwatch::start();
    let snapshot = fold.snapshot().expect("a snapshot");
    let (position, written) = (snapshot.position, stopwatch.elapsed());
    let bytes: usize = snapshot.parts.iter().map(|(_, part)| part.len()).sum();
    snapshots.publish(PARTITION, snapshot.clone()).await.expect("published");
    println!(
        "{EVENTS} series and as many identities: {} MB, written in {:.2} s (the fold stands still for that), published {:.2} s behind its start",
        bytes / 1_000_000,
        written.as_secs_f64(),
        stopwatch.elapsed().as_secs_f64()
    );
    for _ in 0..ROUNDS {
        let stopwatch = Stopwatch::start();
        let loaded = snapshots.newest_at_or_below(PARTITION, Position(u64::MAX)).await.expect("snapshots");
        let found = loaded.snapshot.expect("a snapshot");
        let read = stopwatch.elapsed();
        let restored = Fold::restore(PARTITION, KEY, &found).expect("a state");
        let elapsed = stopwatch.elapsed();
        assert_eq!(restored.partition.position(), position);
        assert!(restored.snapshot().expect("a snapshot") == snapshot, "what came back is what was there");
        println!(
            "restored in {:.2} s, of which {:.2} s to read, check and unpack",
            elapsed.as_secs_f64(),
            read.as_secs_f64()
        );
    }
}
