//! Series with groups: their sums, and how many groups there may be.

use crate::log::{Kind, Log, MIDNIGHT, Usage, frame, metric, tenant};
use crate::properties::fold_in;
use highwater::domain::control::outcome::Change;
use highwater::domain::definition::MetricDefinition;
use highwater::domain::limits::GROUPS_PER_SERIES_MAX;
use highwater::domain::partition::fact::Note;
use highwater::domain::quantity::Quantity;
use highwater::domain::time::{Millis, Timestamp};

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
