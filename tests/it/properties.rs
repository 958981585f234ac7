//! What holds for any history.

use crate::history::{steps, write};
use crate::log::{KEY, Log, fold};
use crate::rows::{Rows, add};
use highwater::domain::event::Frame;
use highwater::domain::id::{self, PartitionId};
use highwater::domain::partition::effect::{Counts, Effects, InstanceKey, Reason, SeriesKey, State};
use highwater::domain::partition::fact::Fact;
use highwater::domain::quantity::Quantity;
use highwater::domain::time::{Millis, Timestamp};
use highwater::journal::{Journal, MemoryJournal, Record};
use highwater::runtime::offline::replay;
use highwater::runtime::processor::Fold;
use highwater::store::{Progress, ScannedRow, SqliteStore, Store};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// The same histories in every run; a failing one is printed, step by step. `PROPTEST_CASES` asks for more of them.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    let cases = ProptestConfig::default().cases.max(256) / 256 * cases;
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x6877_6174_6572),
        ..Default::default()
    }
}

/// Folds a log in batches that end where `cuts` says, and starts anew from a snapshot where `restarts` says.
pub(crate) fn fold_in(
    records: &[Record],
    cuts: impl Fn(usize) -> bool,
    restarts: impl Fn(usize) -> bool,
) -> (Rows, Counts, Fold) {
    let (mut rows, mut counts, mut fold) = (Rows::default(), Counts::default(), fold());
    let mut from = 0;
    for to in 1..=records.len() {
        if to < records.len() && !cuts(to) && !restarts(to) {
            continue;
        }
        let mut effects = Effects::default();
        fold.take(&records[from..to], &mut effects).unwrap();
        add(&mut counts, &effects.counts);
        rows.take(effects);
        from = to;
        if restarts(to) {
            fold = Fold::restore(PartitionId(0), KEY, &fold.snapshot().unwrap()).unwrap();
        }
    }
    (rows, counts, fold)
}

/// Count, sum, least, most, last, and how many were late.
type Sums = (u64, Quantity, Quantity, Quantity, Quantity, u64);

/// The sums of windows, whatever their parts.
fn sums(rows: &Rows) -> BTreeMap<(SeriesKey, Timestamp), Sums> {
    let mut windows: BTreeMap<(SeriesKey, Timestamp), _> = BTreeMap::new();
    for ((series, start, _), row) in &rows.windows {
        let (aggregate, late) = windows.entry((series.clone(), *start)).or_insert_with(|| (Default::default(), 0));
        let aggregate: &mut highwater::domain::partition::aggregate::Aggregate = aggregate;
        aggregate.merge(&row.aggregate);
        *late += row.late_events;
    }
    let plain = |(a, late): (highwater::domain::partition::aggregate::Aggregate, u64)| {
        (a.count, a.sum, a.min, a.max, a.last, late)
    };
    windows.into_iter().map(|(key, value)| (key, plain(value))).collect()
}

type Told = (InstanceKey, u64, State, State, Reason, Timestamp, Option<Quantity>, bool);

fn told(rows: &Rows) -> Vec<Told> {
    let row = |row: &highwater::domain::partition::effect::TransitionRow| {
        let (from, to) = (row.from, row.to);
        (row.key.clone(), row.sequence, from, to, row.reason, row.at, row.evidence.value, row.notification.is_some())
    };
    rows.transitions.values().map(row).collect()
}

fn frames(log: &Log) -> impl Iterator<Item = (usize, Frame)> {
    let decoded = log.records.iter().enumerate().map(|(at, record)| (at, Fact::decode(&record.payload).unwrap()));
    decoded.filter_map(|(at, fact)| match fact {
        Fact::UsageRecorded(frame) => Some((at, frame)),
        Fact::Note(_) => None,
    })
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn any_batch_split_gives_the_same(
        steps in steps(70),
        cuts in prop::collection::vec(prop::bool::weighted(0.2), 80),
    ) {
        let log = write(&steps);
        let (rows, counts, fold) = fold_in(&log.records, |_| true, |_| false);
        let digest = fold.partition.digest().unwrap();
        for cut in [Vec::new(), cuts] {
            let cuts = |at: usize| cut.get(at).copied().unwrap_or(false);
            let (other, other_counts, fold) = fold_in(&log.records, cuts, |_| false);
            prop_assert_eq!(&rows, &other);
            prop_assert_eq!(&digest, &fold.partition.digest().unwrap());
            prop_assert_eq!(Counts { evaluations: 0, ..counts }, Counts { evaluations: 0, ..other_counts });
        }
    }

    #[test]
    fn any_restart_gives_the_same(
        steps in steps(70),
        restarts in prop::collection::vec(prop::bool::weighted(0.2), 80),
    ) {
        let log = write(&steps);
        let (rows, _, live) = fold_in(&log.records, |_| false, |_| false);
        let seldom = |at: usize| restarts.get(at).copied().unwrap_or(false);
        for always in [true, false] {
            let (other, _, fold) = fold_in(&log.records, |_| false, |at| always || seldom(at));
            prop_assert_eq!(&rows, &other);
            prop_assert_eq!(live.partition.digest().unwrap(), fold.partition.digest().unwrap());
            prop_assert_eq!(live.snapshot().unwrap(), fold.snapshot().unwrap());
        }
    }

    #[test]
    fn a_record_counts_once(steps in steps(50), which in any::<prop::sample::Index>()) {
        let log = write(&steps);
        prop_assume!(!log.records.is_empty());
        let (rows, _, mut fold) = fold_in(&log.records, |_| false, |_| false);
        let digest = fold.partition.digest().unwrap();
        let mut effects = Effects::default();
        fold.take(&log.records[which.index(log.records.len())..], &mut effects).unwrap();
        let mut again = rows.clone();
        again.take(effects);
        prop_assert_eq!(&rows, &again);
        prop_assert_eq!(digest, fold.partition.digest().unwrap());
    }

    /// Every event comes a second time, in a record behind its own: before anything that starts its account anew, and while
    /// the first of its identity is remembered for certain.
    #[test]
    fn events_that_come_twice_count_once(steps in steps(60), delays in prop::collection::vec(0_usize..6, 80)) {
        let log = write(&steps);
        let mut twice: Vec<Record> = Vec::new();
        let mut waiting: Vec<(usize, Record)> = Vec::new();
        for (at, record) in log.records.iter().enumerate() {
            let text = String::from_utf8_lossy(&record.payload);
            let renews = text.contains("account_deleted") || text.contains("sandbox_reset");
            let usage = match Fact::decode(&record.payload).unwrap() {
                Fact::UsageRecorded(frame) => Some(frame),
                Fact::Note(_) => None,
            };
            let renews = renews || usage.as_ref().is_some_and(|frame| frame.accounts.iter().any(|a| a.epoch.0 > 0));
            let forgets = record.recorded_at > log.records[0].recorded_at.plus(Millis::hours(48));
            let renews = renews || forgets;
            let due = |(until, _): &(usize, Record)| renews || *until <= at;
            let before = twice.last().map_or(record.recorded_at, |last: &Record| last.recorded_at);
            for (_, copy) in waiting.extract_if(.., |entry| due(entry)) {
                // Copies are recorded at the time of the record before, so that they bring no time of their own.
                twice.push(Record { recorded_at: before, ..copy });
            }
            twice.push(record.clone());
            if usage.is_some_and(|frame| !frame.backfill) {
                if renews {
                    twice.push(record.clone());
                } else {
                    waiting.push((at + delays.get(at).copied().unwrap_or(1), record.clone()));
                }
            }
        }
        for (at, record) in twice.iter_mut().enumerate() {
            record.position = id::Position(at as u64 + 1);
        }
        let (once, _, _) = fold_in(&log.records, |_| false, |_| false);
        let (rows, _, _) = fold_in(&twice, |_| false, |_| false);
        prop_assert_eq!(sums(&once), sums(&rows));
        prop_assert_eq!(told(&once), told(&rows));
    }

    #[test]
    fn every_accepted_event_is_accounted_for(steps in steps(60)) {
        let log = write(&steps);
        let (rows, counts, _) = fold_in(&log.records, |_| false, |_| false);
        let accepted: usize = frames(&log).map(|(_, frame)| frame.events.len()).sum();
        // An entry stands for every copy of its event, whatever set the last one aside.
        let copies = rows.quarantine.values().map(|row| row.repeats.map_or(1, |repeats| repeats.count));
        let set_aside = copies.sum::<u64>();
        prop_assert!(counts.conflicts <= set_aside);
        prop_assert_eq!(accepted as u64, counts.events + counts.duplicates + set_aside);
        let totals = rows.windows.iter().filter(|((series, _, _), _)| series.group.is_empty());
        prop_assert_eq!(counts.events + counts.sown, totals.map(|(_, row)| row.aggregate.count).sum::<u64>());
        let late = rows.windows.iter().filter(|((series, _, _), _)| series.group.is_empty());
        prop_assert_eq!(counts.late, late.map(|(_, row)| row.late_events).sum::<u64>());
    }
}

proptest! {
    #![proptest_config(config(12))]

    /// A store that was written live, over restarts, holds what a replay writes from the journal.
    #[test]
    fn replay_equals_live(steps in steps(60), restarts in prop::collection::vec(prop::bool::weighted(0.2), 80)) {
        let log = write(&steps);
        let memory = MemoryJournal::new(1);
        let journal = Journal::Memory(memory.clone());
        for record in &log.records {
            memory.set_time(record.recorded_at);
            journal.append_blocking(vec![(id::Log::Partition(PartitionId(0)), record.payload.clone())]).unwrap();
        }
        let live = Store::Sqlite(SqliteStore::in_memory().unwrap());
        let mut fold = fold();
        let mut from = 0;
        for to in 1..=log.records.len() {
            if to < log.records.len() && !restarts[to.min(79)] {
                continue;
            }
            let mut effects = Effects::default();
            fold.take(&log.records[from..to], &mut effects).unwrap();
            let progress = Progress { position: fold.partition.position(), clock: fold.partition.clock() };
            live.write_blocking(PartitionId(0), effects.into(), progress).unwrap();
            fold = Fold::restore(PartitionId(0), KEY, &fold.snapshot().unwrap()).unwrap();
            from = to;
        }
        let replayed = Store::Sqlite(SqliteStore::in_memory().unwrap());
        let report = replay(&journal, KEY, &replayed).unwrap();
        prop_assert_eq!(report.records, log.records.len() as u64);
        prop_assert_eq!(&report.digests[0].2, &fold.partition.digest().unwrap());
        prop_assert_eq!(scan(&live), scan(&replayed));
    }
}

fn scan(store: &Store) -> Vec<ScannedRow> {
    let mut rows = Vec::new();
    store
        .scan(&mut |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}
