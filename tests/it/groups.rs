//! Series with groups: their sums, and how many groups there may be.

use crate::log::{Kind, Log, MIDNIGHT, Usage, frame, metric, tenant};
use crate::properties::fold_in;
use crate::rows::Rows;
use highwater::domain::control::outcome::Change;
use highwater::domain::definition::MetricDefinition;
use highwater::domain::limits::{GROUPS_HELD_MAX, GROUPS_PER_HOUR_MAX, GROUPS_PER_SERIES_MAX};
use highwater::domain::partition::effect::{Counts, OVERFLOW_GROUP};
use highwater::domain::partition::fact::{Note, V3};
use highwater::domain::quantity::Quantity;
use highwater::domain::time::{Millis, Timestamp};
use highwater::runtime::processor::Fold;
use std::collections::{BTreeMap, BTreeSet};

fn grouped(log: &mut Log, at: Timestamp, regions: std::ops::Range<usize>) {
    let event = |number: usize| {
        let id = format!("event-{}-{number}", log.records.len());
        let mut usage = Usage::new("acme", "calls", Quantity::whole(1), &id);
        usage.dimensions.push(("region".to_owned(), format!("r{number}")));
        usage.dimensions.push(("shard".to_owned(), id));
        usage
    };
    let events: Vec<Usage> = regions.map(event).collect();
    log.push(at, frame(at, &events, Kind::Ordinary));
}

fn log() -> Log {
    let mut log = Log::default();
    let definition = MetricDefinition { group_by: vec!["region".to_owned()], ..MetricDefinition::default() };
    let change = Change::Metric { tenant: tenant(), metric: metric("calls"), definition: Some(definition) };
    log.change(MIDNIGHT, vec![change]);
    log
}

#[test]
fn a_group_is_what_the_metric_is_grouped_by() {
    let mut log = log();
    grouped(&mut log, MIDNIGHT, 0..3);
    grouped(&mut log, MIDNIGHT, 1..3);
    let (rows, counts, _) = fold_in(&log.records, |_| false, |_| false);
    let windows = rows.windows.values().map(|row| format!("{}={}", row.series.group, row.aggregate.sum));
    let windows: Vec<String> = windows.collect();
    assert_eq!(windows, ["=5", "{\"region\":\"r0\"}=1", "{\"region\":\"r1\"}=2", "{\"region\":\"r2\"}=2"]);
    assert_eq!(counts.ungrouped, 0);
}

/// Whether there is room for another group depends on the log alone: not on when windows are stored and dropped.
#[test]
fn groups_past_the_cap_count_in_the_total_alone() {
    let minutes = |minutes| MIDNIGHT.plus(Millis::minutes(minutes));
    let mut log = log();
    let cap = GROUPS_PER_SERIES_MAX;
    grouped(&mut log, minutes(1), 0..cap + 2);
    grouped(&mut log, minutes(2), cap..cap + 1);
    // The first of the windows are held until 00:05:30 and an hour; those of one region for longer.
    grouped(&mut log, minutes(20), 0..1);
    grouped(&mut log, minutes(65), cap..cap + 1);
    log.note(minutes(66), &Note::Ticked { intake_through: None });
    grouped(&mut log, minutes(67), cap..2 * cap);
    let (rows, counts, fold) = fold_in(&log.records, |_| true, |_| false);
    assert_eq!(counts.ungrouped, 2 + 1 + 1 + 1);
    let total: u64 =
        rows.windows.values().filter(|row| row.series.group.is_empty()).map(|row| row.aggregate.count).sum();
    assert_eq!(total, counts.events);
    for (cuts, restarts) in [(false, false), (false, true)] {
        let (other, other_counts, other_fold) = fold_in(&log.records, |_| cuts, |_| restarts);
        assert_eq!(rows, other);
        assert_eq!(counts.ungrouped, other_counts.ungrouped);
        assert_eq!(fold.partition.digest().unwrap(), other_fold.partition.digest().unwrap());
    }
}

/// From engine version 3 on.
fn log_by_hour() -> Log {
    let mut log = log();
    log.note(MIDNIGHT, &Note::EngineVersion { version: V3 });
    log
}

fn at(minutes: i64) -> Timestamp {
    MIDNIGHT.plus(Millis::minutes(minutes))
}

/// Counts events of regions that happened at `when`, recorded at `at`.
fn counted(log: &mut Log, at: Timestamp, when: Timestamp, regions: impl IntoIterator<Item = usize>, kind: Kind) {
    let event = |number: usize| {
        let id = format!("event-{}-{number}", log.records.len());
        let mut usage = Usage::new("acme", "calls", Quantity::whole(1), &id);
        usage.at = Some(when);
        usage.dimensions.push(("region".to_owned(), format!("r{number}")));
        usage
    };
    let events: Vec<Usage> = regions.into_iter().map(event).collect();
    log.push(at, frame(at, &events, kind));
}

/// By window: the events of the total, those of groups of their own, how many these are, and those of no such group.
fn windows(rows: &Rows) -> BTreeMap<Timestamp, (u64, u64, usize, u64)> {
    let mut windows: BTreeMap<Timestamp, (u64, u64, BTreeSet<&str>, u64)> = BTreeMap::new();
    for row in rows.windows.values() {
        let window = windows.entry(row.start).or_default();
        match row.series.group.as_str() {
            "" => window.0 += row.aggregate.count,
            OVERFLOW_GROUP => window.3 += row.aggregate.count,
            group => {
                window.1 += row.aggregate.count;
                window.2.insert(group);
            }
        }
    }
    windows.into_iter().map(|(start, (total, own, groups, rest))| (start, (total, own, groups.len(), rest))).collect()
}

/// The same rows, counts and state, however the log is cut and wherever it is restarted.
fn folded(log: &Log, restarts: &[usize]) -> (Rows, Counts, Fold) {
    let (rows, counts, fold) = fold_in(&log.records, |_| true, |_| false);
    let digest = fold.partition.digest().unwrap();
    for every in restarts.iter().chain(&[usize::MAX]) {
        let (other, other_counts, other_fold) = fold_in(&log.records, |_| false, |at| at.is_multiple_of(*every));
        assert!(rows == other, "other rows where every {every} records are folded anew");
        assert_eq!(counts.ungrouped, other_counts.ungrouped);
        assert_eq!(digest, other_fold.partition.digest().unwrap());
    }
    for (start, (total, own, _, rest)) in windows(&rows) {
        assert_eq!(total, own + rest, "{start}");
    }
    (rows, counts, fold)
}

#[test]
fn groups_add_up_to_the_total_and_each_hour_has_room_for_its_own() {
    let mut log = log_by_hour();
    let cap = GROUPS_PER_HOUR_MAX;
    counted(&mut log, at(1), at(1), 0..cap + 2, Kind::Ordinary);
    // Who came first stays, who came too late stays out, for the whole hour.
    counted(&mut log, at(20), at(20), [0, cap, cap + 7], Kind::Ordinary);
    counted(&mut log, at(59), at(59), [1, cap + 1], Kind::Ordinary);
    // The next hour has room of its own, and the one before still knows who came first.
    counted(&mut log, at(61), at(61), cap..2 * cap, Kind::Ordinary);
    counted(&mut log, at(62), at(55), [2, cap + 1], Kind::Ordinary);
    let (rows, counts, _) = folded(&log, &[1, 2, 3]);
    let seen: Vec<_> = windows(&rows).into_values().collect();
    assert_eq!(seen, [(1_002, 1_000, 1_000, 2), (3, 1, 1, 2), (4, 2, 2, 2), (1_000, 1_000, 1_000, 0)]);
    assert_eq!(counts.ungrouped, 2 + 2 + 1 + 1);
}

/// 40 groups of each day's own: none of them is lost, and none stays in memory.
#[test]
fn a_backfill_of_many_days_keeps_all_of_its_groups() {
    let mut log = log_by_hour();
    let days = 90_i64;
    for day in 0..days {
        for hour in [0, 9, 23] {
            let when = MIDNIGHT.minus(Millis::hours(24 * (days - day) - hour));
            let regions = day as usize * 40..day as usize * 40 + 40;
            counted(&mut log, at(day * 3 / days), when, regions, Kind::Backfill);
        }
    }
    log.note(at(75), &Note::Ticked { intake_through: None });
    let (rows, counts, fold) = folded(&log, &[100]);
    assert_eq!(counts.ungrouped, 0);
    assert!(windows(&rows).values().all(|(total, own, groups, _)| (*total, *own, *groups) == (40, 40, 40)));
    let holds_groups =
        |fold: &Fold| fold.partition.snapshot().unwrap().windows(10).any(|bytes| bytes == b"{\"region\":");
    assert!(!holds_groups(&fold), "they left");
    log.records.pop();
    assert!(holds_groups(&fold_in(&log.records, |_| false, |_| false).2));
}

/// What is held is bounded: hours that are over leave early, come again, and their windows stay whole.
#[test]
fn hours_that_are_over_make_room_for_others() {
    let mut log = log_by_hour();
    let hours = 30;
    for round in 0..2_usize {
        for hour in 0..hours {
            let when = MIDNIGHT.minus(Millis::hours(hours - hour));
            // A record that counts in many hours keeps all of them.
            counted(&mut log, at(1), when, round * 300..round * 300 + 700, Kind::Backfill);
        }
    }
    let all: Vec<Usage> = (0..hours)
        .flat_map(|hour| (0..200_usize).map(move |region| (hour, region)))
        .map(|(hour, region)| {
            let mut usage = Usage::new("acme", "calls", Quantity::whole(1), &format!("all-{hour}-{region}"));
            usage.at = Some(MIDNIGHT.minus(Millis::hours(hour + 1)));
            usage.dimensions.push(("region".to_owned(), format!("s{region}")));
            usage
        })
        .collect();
    let twice =
        [all.clone(), all.into_iter().map(|usage| Usage { id: format!("again-{}", usage.id), ..usage }).collect()];
    log.push(at(2), frame(at(2), &twice.concat(), Kind::Backfill));
    assert!(hours as usize * 700 > GROUPS_HELD_MAX);
    let (rows, _, _) = folded(&log, &[5, 61]);
    assert_eq!(windows(&rows).values().map(|(total, ..)| total).sum::<u64>(), hours as u64 * 2 * (700 + 200));
}

/// A log that asks for hours in the midst of one goes on with the parts that it has.
#[test]
fn groups_that_are_held_are_taken_over_into_their_hours() {
    let mut log = log();
    counted(&mut log, at(1), at(1), 0..3, Kind::Ordinary);
    counted(&mut log, at(2), at(1).minus(Millis::hours(30)), 0..3, Kind::Backfill);
    log.note(at(3), &Note::EngineVersion { version: V3 });
    counted(&mut log, at(4), at(1), 1..GROUPS_PER_HOUR_MAX + 1, Kind::Ordinary);
    counted(&mut log, at(5), at(1).minus(Millis::hours(30)), 1..4, Kind::Backfill);
    let (rows, counts, _) = folded(&log, &[1, 2, 3]);
    assert_eq!(counts.ungrouped, 1);
    let parts = |group: &str| rows.windows.values().filter(|row| row.series.group == group).count();
    assert_eq!(parts("{\"region\":\"r1\"}"), 2, "one part of each of the two windows");
}
