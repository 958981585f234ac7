//! Records that come twice, come too early, or say again what is known.

use crate::log::{Kind, Log, MIDNIGHT, Usage, account, fold, frame, metric, scope, tenant};
use crate::properties::fold_in;
use highwater::domain::control::outcome::Change;
use highwater::domain::definition::{Fold, Quota};
use highwater::domain::id::{Epoch, Position, QuarantineId};
use highwater::domain::partition::effect::{Effects, QuarantineRow, QuarantineStatus};
use highwater::domain::partition::fact::Note;
use highwater::domain::quantity::Quantity;
use highwater::domain::time::{Millis, Period};

fn quota(limit: i64) -> Change {
    let quota = Quota { limit: Quantity::whole(limit), period: Period::Day, aggregate: Fold::Sum };
    Change::Quota { tenant: tenant(), account: scope("acme"), metric: metric("calls"), quota: Some(quota) }
}

#[test]
fn copies_of_the_control_plane_are_taken_in_once_and_without_gaps() {
    let copied = |after: u64, through: u64, limits: &[(u64, i64)]| Note::ControlCopied {
        after: Position(after),
        through: Position(through),
        changes: limits.iter().map(|(position, limit)| (Position(*position), quota(*limit))).collect(),
    };
    let digest = |notes: &[Note]| {
        let mut log = Log::default();
        for note in notes {
            log.note(MIDNIGHT, note);
        }
        // Ticks make up for other numbers of records.
        while log.records.len() < 6 {
            log.note(MIDNIGHT, &Note::Ticked { intake_through: None });
        }
        let (_, _, fold) = fold_in(&log.records, |_| true, |_| false);
        (fold.partition.control_through(), fold.partition.digest().unwrap())
    };
    let plain = digest(&[copied(0, 2, &[(1, 100), (2, 200)]), copied(2, 3, &[(3, 300)])]);
    assert_eq!(plain.0, Position(3));
    let check = |notes: &[Note]| assert_eq!(digest(notes), plain, "{notes:?}");
    // The same copy again, from two owners of one moment.
    check(&[copied(0, 2, &[(1, 100), (2, 200)]), copied(0, 2, &[(1, 100), (2, 200)]), copied(2, 3, &[(3, 300)])]);
    // Copies that overlap.
    check(&[copied(0, 2, &[(1, 100), (2, 200)]), copied(0, 3, &[(1, 100), (2, 200), (3, 300)])]);
    check(&[copied(0, 3, &[(1, 100), (2, 200), (3, 300)]), copied(0, 2, &[(1, 100), (2, 200)])]);
    // A copy whose predecessor was lost is passed over until all is copied again.
    check(&[copied(2, 3, &[(3, 900)]), copied(0, 2, &[(1, 100), (2, 200)]), copied(2, 3, &[(3, 300)])]);
}

#[test]
fn one_frame_may_name_an_account_under_two_epochs() {
    let mut log = Log::default();
    log.change(MIDNIGHT, vec![quota(100), Change::AccountDeleted { tenant: tenant(), account: account("acme") }]);
    let event = |metric: &str, id: &str, epoch: u64| {
        let usage = Usage::new("acme", metric, Quantity::whole(1), id);
        Usage { epoch: Epoch(epoch), ..usage }
    };
    // Epoch 5 is news to the fold; what was accepted before the deletion comes between.
    let events = [event("calls", "a", 2), event("jobs", "b", 2), event("bytes", "c", 5), event("jobs", "d", 2)];
    log.push(MIDNIGHT, frame(MIDNIGHT, &events, Kind::Ordinary));
    log.push(MIDNIGHT, frame(MIDNIGHT, &events.map(|usage| Usage { epoch: Epoch(5), ..usage }), Kind::Ordinary));
    let (rows, counts, _) = fold_in(&log.records, |_| false, |_| false);
    let windows =
        rows.windows.values().map(|row| format!("{} {} {}", row.series.epoch.0, row.series.metric, row.aggregate.sum));
    assert_eq!(windows.collect::<Vec<_>>(), ["5 bytes 1", "5 calls 1", "5 jobs 2"]);
    assert_eq!((counts.events, counts.duplicates), (4, 4));
}

#[test]
fn an_event_counts_once_within_the_horizon_and_never_behind_it() {
    let hours = |hours| MIDNIGHT.plus(Millis::hours(hours));
    let mut log = Log::default();
    let usage = Usage { at: Some(MIDNIGHT), ..Usage::new("acme", "calls", Quantity::whole(1), "once") };
    let other = Usage { value: Quantity::whole(2), ..usage.clone() };
    for (hour, events) in
        [(0, [usage.clone(), usage.clone()]), (48, [usage.clone(), other.clone()]), (49, [usage, other])]
    {
        log.push(hours(hour), frame(hours(hour), &events, Kind::Ordinary));
    }
    let (rows, counts, _) = fold_in(&log.records, |_| true, |_| false);
    assert_eq!((counts.events, counts.duplicates, counts.conflicts), (1, 2, 1));
    let mut codes: Vec<&str> = rows.quarantine.values().map(|row| row.code.as_str()).collect();
    codes.sort_unstable();
    assert_eq!(codes, ["event_conflict", "timestamp_too_old", "timestamp_too_old"]);
}

#[test]
fn a_quarantined_event_lists_once_and_settles() {
    let mut log = Log::default();
    let row = |status| QuarantineRow {
        tenant: tenant(),
        id: QuarantineId(9),
        code: "invalid_event".to_owned(),
        detail: "no account".to_owned(),
        account: None,
        body: "{}".to_owned(),
        at: MIDNIGHT,
        status,
        revision: Position(0),
    };
    let refused = Note::EventRefused { row: row(QuarantineStatus::Open) };
    log.note(MIDNIGHT, &refused);
    log.note(MIDNIGHT, &refused);
    let (rows, _, _) = fold_in(&log.records, |_| true, |_| false);
    assert_eq!(rows.quarantine.len(), 1);
    log.note(MIDNIGHT, &Note::QuarantineSettled { row: row(QuarantineStatus::Discarded) });
    let (rows, _, _) = fold_in(&log.records, |_| true, |_| false);
    let row = rows.quarantine.values().next().unwrap();
    assert_eq!((row.status, row.revision), (QuarantineStatus::Discarded, Position(3)));
}

#[test]
fn a_record_that_is_no_fact_stops_the_fold_before_it() {
    let mut log = Log::default();
    log.note(MIDNIGHT, &Note::Ticked { intake_through: None });
    log.push(MIDNIGHT, b"{\"v\":2,\"fact\":\"ticked\"}".to_vec());
    log.note(MIDNIGHT, &Note::Ticked { intake_through: None });
    let mut fold = fold();
    let error = fold.take(&log.records, &mut Effects::default()).unwrap_err();
    assert_eq!(error.to_string(), "record 2 of partition 0");
    assert_eq!(fold.partition.position(), Position(1));
}
