//! Records that come twice, come too early, or say again what is known.

use crate::log::{Kind, Log, MIDNIGHT, Usage, account, fold, frame, metric, scope, tenant};
use crate::properties::fold_in;
use highwater::domain::control::outcome::Change;
use highwater::domain::definition::{Fold, Quota};
use highwater::domain::id::{Epoch, Position, QuarantineId};
use highwater::domain::limits::QUARANTINE_REMEMBERED_MAX;
use highwater::domain::partition::effect::{Effects, QuarantineRow, QuarantineStatus};
use highwater::domain::partition::fact::{Note, V3};
use highwater::domain::quantity::Quantity;
use highwater::domain::time::{Millis, Period};
use std::collections::BTreeSet;

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
        epoch: None,
        repeats: None,
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

/// From engine version 3 on one entry stands for each event and what it says, whatever else comes between, however the log
/// is cut and wherever it is restarted.
#[test]
fn an_event_that_is_set_aside_again_and_again_is_one_entry() {
    let at = |seconds| MIDNIGHT.plus(Millis::seconds(seconds));
    let mut log = Log::default();
    log.note(MIDNIGHT, &Note::EngineVersion { version: V3 });
    let event = |value: i64| Usage::new("acme", "calls", Quantity::whole(value), "once");
    log.push(at(1), frame(at(1), &[event(1)], Kind::Ordinary));
    // The time is the log's, so that it is no part of what the sender said.
    for second in 2..32 {
        let events = vec![event(2); 1_000];
        log.push(at(second), frame(at(second), &events, Kind::Ordinary));
    }
    log.push(at(40), frame(at(40), &[event(3), event(2)], Kind::Ordinary));
    let refused = QuarantineRow {
        tenant: tenant(),
        id: QuarantineId(0),
        code: "invalid_event".to_owned(),
        detail: "no account (topic:0:1)".to_owned(),
        account: None,
        body: "{}".to_owned(),
        at: MIDNIGHT,
        status: QuarantineStatus::Open,
        revision: Position(0),
        epoch: None,
        repeats: None,
    };
    for offset in 1..4 {
        let row = QuarantineRow { id: QuarantineId(offset), at: at(40 + offset as i64), ..refused.clone() };
        log.note(at(45), &Note::EventRefused { row });
    }
    let entries = |log: &Log| {
        let (rows, _, fold) = fold_in(&log.records, |_| true, |_| false);
        for every in [1, 2, usize::MAX] {
            let (other, _, other_fold) = fold_in(&log.records, |_| false, |at| at.is_multiple_of(every));
            assert_eq!(rows.quarantine, other.quarantine);
            assert_eq!(fold.partition.digest().unwrap(), other_fold.partition.digest().unwrap());
        }
        let mut entries: Vec<QuarantineRow> = rows.quarantine.into_values().collect();
        entries.sort_by_key(|row| (row.at, row.revision));
        entries
    };
    let seen = |entries: &[QuarantineRow]| -> Vec<_> {
        let of = |row: &QuarantineRow| {
            let (count, last) = row.repeats.map_or((1, row.at), |repeats| (repeats.count, repeats.last_at));
            (count, row.at, last, row.status)
        };
        entries.iter().map(of).collect()
    };
    let open = QuarantineStatus::Open;
    let before = entries(&log);
    let expected = [(30_001, at(2), at(40), open), (1, at(40), at(40), open), (3, at(41), at(43), open)];
    assert_eq!(seen(&before), expected);
    // What was given up stays so.
    let row = QuarantineRow { status: QuarantineStatus::Discarded, ..before[0].clone() };
    log.note(at(50), &Note::QuarantineSettled { row });
    log.push(at(60), frame(at(60), &[event(2), event(3)], Kind::Ordinary));
    let after = seen(&entries(&log));
    assert_eq!(after[0], (30_002, at(2), at(60), QuarantineStatus::Discarded));
    assert_eq!(after[1], (2, at(40), at(60), open));
}

/// A log of before lists each copy by itself, as it did.
#[test]
fn copies_are_entries_of_their_own_up_to_engine_version_2() {
    let mut log = Log::default();
    let event = |value: i64| Usage::new("acme", "calls", Quantity::whole(value), "once");
    log.push(MIDNIGHT, frame(MIDNIGHT, &[event(1), event(2), event(2)], Kind::Ordinary));
    let (rows, _, _) = fold_in(&log.records, |_| true, |_| false);
    assert_eq!(rows.quarantine.len(), 2);
    assert!(rows.quarantine.values().all(|row| row.epoch.is_none() && row.repeats.is_none()));
}

#[test]
fn the_newest_entries_of_a_tenant_are_remembered() {
    let at = |seconds| MIDNIGHT.plus(Millis::seconds(seconds));
    let mut log = Log::default();
    log.note(MIDNIGHT, &Note::EngineVersion { version: V3 });
    let event = |value: i64| Usage::new("acme", "calls", Quantity::whole(value), "once");
    log.push(at(1), frame(at(1), &[event(0)], Kind::Ordinary));
    let most = QUARANTINE_REMEMBERED_MAX as i64;
    log.push(at(2), frame(at(2), &[event(1)], Kind::Ordinary));
    log.push(at(3), frame(at(3), &[event(2)], Kind::Ordinary));
    log.push(at(4), frame(at(4), &[event(1)], Kind::Ordinary));
    let others: Vec<Usage> = (3..most + 2).map(event).collect();
    log.push(at(5), frame(at(5), &others, Kind::Ordinary));
    log.push(at(6), frame(at(6), &[event(1), event(2)], Kind::Ordinary));
    let (rows, _, _) = fold_in(&log.records, |_| true, |at| at.is_multiple_of(2));
    let of = |value: i64| {
        let row = rows.quarantine.values().find(|row| row.body.contains(&format!("\"value\":{value},"))).unwrap();
        (row.repeats.map_or(1, |repeats| repeats.count), row.at)
    };
    assert_eq!(of(1), (3, at(2)), "it came again in time");
    assert_eq!(of(2), (1, at(6)), "it was forgotten, and begins anew");
}

/// What is known of a deleted account's events goes with it, and nothing brings an entry of theirs back.
#[test]
fn a_deletion_takes_the_entries_of_the_account_along() {
    let at = |seconds| MIDNIGHT.plus(Millis::seconds(seconds));
    let mut log = Log::default();
    log.note(MIDNIGHT, &Note::EngineVersion { version: V3 });
    let event = |account: &str, value: i64| Usage::new(account, "calls", Quantity::whole(value), "once");
    let both = |value: i64| ["acme", "other"].map(|account| event(account, value));
    log.push(at(1), frame(at(1), &[both(1), both(2)].concat(), Kind::Ordinary));
    let (before, _, _) = fold_in(&log.records, |_| true, |_| false);
    let mine = before.quarantine.values().find(|row| row.account == Some(account("acme"))).unwrap().clone();
    log.change(at(2), vec![Change::AccountDeleted { tenant: tenant(), account: account("acme") }]);
    let settled = QuarantineRow { status: QuarantineStatus::Replayed, ..mine.clone() };
    log.note(at(3), &Note::QuarantineSettled { row: settled });
    let mut fold = fold();
    let mut effects = Effects::default();
    fold.take(&log.records, &mut effects).unwrap();
    let purged: Vec<_> =
        effects.purges.iter().map(|purge| (purge.account.as_str(), purge.from, purge.through)).collect();
    assert_eq!(purged, [("acme", Epoch(0), Epoch(0))]);
    assert!(effects.quarantine.iter().all(|row| row.status == QuarantineStatus::Open), "{:?}", effects.quarantine);
    // The same events of the account that came back are others.
    let anew = both(1).into_iter().chain(both(2)).map(|usage| Usage { epoch: Epoch(1), ..usage }).collect::<Vec<_>>();
    log.push(at(4), frame(at(4), &anew, Kind::Ordinary));
    let (rows, _, _) = fold_in(&log.records, |_| true, |_| false);
    let entries: Vec<_> = rows.quarantine.values().filter(|row| row.account == Some(account("acme"))).collect();
    let epochs: BTreeSet<_> = entries.iter().map(|row| row.epoch).collect();
    assert_eq!((entries.len(), epochs), (2, BTreeSet::from([Some(Epoch(0)), Some(Epoch(1))])));
    assert!(entries.iter().all(|row| row.repeats.is_none()));
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
