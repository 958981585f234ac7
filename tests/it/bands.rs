//! What endpoints are told of quotas.

use crate::log::{KEY, Log, MIDNIGHT, fold};
use crate::script::check;
use highwater::domain::id::PartitionId;
use highwater::domain::partition::effect::Effects;
use highwater::domain::partition::fact::{ENGINE_VERSION, Note};
use highwater::runtime::processor::{Fold, FoldError};
use highwater::snapshot::Snapshot;

#[test]
fn each_band_is_told_once_for_a_period_and_a_quota() {
    check(
        "engine 2
         listen quota.*
         quota acme calls 100 hour
         at 01:00  usage acme calls 79.999999999
         at 01:01  usage acme calls 0.000000001  -> told quota.threshold_reached acme/calls 80 of 100
         at 01:02  usage acme calls 20
         at 01:03  usage acme calls 0.000000001  -> told quota.exceeded acme/calls 100.000000001 of 100
         at 01:04  usage acme calls -90
         at 01:05  usage acme calls 90
         at 60:30  tick                          -> told quota.reset acme/calls 0 of 100 after 100.000000001
         at 120:30 tick",
    );
    // One event leads past both, and one that is late as well.
    check(
        "engine 2
         listen quota.*
         quota * calls 100 day
         at 10:00  tick
         at 11:00  usage acme calls 120 at 01:00
           -> told quota.threshold_reached acme/calls 120 of 100, told quota.exceeded acme/calls 120 of 100
         at 12:00  usage zen jobs 120",
    );
    // Nothing is below a limit of zero but nothing.
    check(
        "engine 2
         listen quota.*
         quota acme calls 0 day
         at 01:00  usage acme calls 0
         at 02:00  usage acme calls 1  -> told quota.exceeded acme/calls 1 of 0",
    );
    check(
        "engine 2
         listen quota.exceeded
         quota acme calls 10 day max
         at 01:00  usage acme calls 9 + acme calls 9
         at 02:00  usage acme calls 11 -> told quota.exceeded acme/calls 11 of 10",
    );
}

#[test]
fn any_use_of_a_limit_of_zero_is_over_every_threshold() {
    check(
        "engine 3
         delivers
         quota acme calls 0 day
         alert high  quota_percent > 85 | on acme/calls
         alert sum  quota_percent + 1 > 2 | on acme/calls
         show high                               -> acme ok 0
         at 01:00  usage acme calls 0
         at 02:00  usage acme calls 0.000000001
           -> firing high acme, notify 1 firing, inconclusive sum acme
         show high                               -> acme firing
         show sum                                -> acme inconclusive
         at 03:00  usage acme calls 5
         at 04:00  usage acme calls -5.000000001 -> ok high acme, notify 2 resolved after 1, ok sum acme
         show high                               -> acme ok 0
         at 05:00  usage acme calls -1
         show high                               -> acme ok 0",
    );
    check(
        "engine 3
         delivers
         quota acme calls 0 day
         alert low  quota_percent < 10 | on acme/calls  -> firing low acme, notify 1 firing
         at 02:00  usage acme calls 1                   -> ok low acme, notify 2 resolved after 1",
    );
    // A log of an earlier release goes on as it did, up to the record that raises the version and the next event.
    check(
        "quota acme calls 0 day
         alert high  quota_percent > 85 | on acme/calls -> inconclusive high acme
         at 01:00  usage acme calls 1
         show high                                      -> acme inconclusive
         at 02:00  engine 3
         delivers
         at 03:00  usage acme calls 1                   -> firing high acme, notify 1 firing",
    );
}

#[test]
fn a_changed_quota_is_told_of_anew() {
    check(
        "engine 2
         listen quota.*
         at 01:00  usage acme calls 90
         at 02:00  quota acme calls 100 hour  -> told quota.threshold_reached acme/calls 90 of 100
         at 02:10  quota acme calls 100 hour
         at 02:20  quota acme calls 110 hour  -> told quota.threshold_reached acme/calls 90 of 110
         at 02:30  quota acme calls 50 hour
           -> told quota.threshold_reached acme/calls 90 of 50, told quota.exceeded acme/calls 90 of 50
         at 02:40  quota acme calls 1000 hour
         at 60:30  tick",
    );
    // Where its own is gone, that of all counts.
    check(
        "engine 2
         listen quota.*
         quota * calls 50 hour
         quota acme calls 1000 hour
         at 01:00  usage acme calls 49
         at 02:00  quota acme calls none  -> told quota.threshold_reached acme/calls 49 of 50
         at 03:00  quota * calls none
         at 60:30  tick",
    );
}

#[test]
fn what_the_new_period_holds_already_is_told_at_its_turn() {
    check(
        "engine 2
         listen quota.*
         quota acme calls 100 hour
         at 60:10  usage acme calls 90 at 59:00 + acme calls 150 at 60:05
           -> told quota.threshold_reached acme/calls 90 of 100
         at 60:30  tick
           -> told quota.reset acme/calls 150 of 100 after 90, told quota.threshold_reached acme/calls 150 of 100
           , told quota.exceeded acme/calls 150 of 100",
    );
    // After a standstill, each at its own time, and nothing of hours in which nothing was used.
    check(
        "engine 2
         listen quota.*
         quota acme calls 100 hour
         at 01:00  usage acme calls 101
           -> told quota.threshold_reached acme/calls 101 of 100, told quota.exceeded acme/calls 101 of 100
         at 1d00:00  tick  -> told quota.reset acme/calls 0 of 100 after 101 @01:00:30",
    );
}

#[test]
fn what_is_told_at_a_turn_comes_by_metric() {
    check(
        "engine 2
         listen quota.*
         quota * calls 100 hour
         quota * jobs 10 hour
         at 01:00  usage acme jobs 9 + acme calls 90 + zen jobs 8
           -> told quota.threshold_reached acme/jobs 9 of 10, told quota.threshold_reached acme/calls 90 of 100
           , told quota.threshold_reached zen/jobs 8 of 10
         at 60:30  tick
           -> told quota.reset acme/calls 0 of 100 after 90, told quota.reset acme/jobs 0 of 10 after 9
           , told quota.reset zen/jobs 0 of 10 after 8",
    );
}

#[test]
fn a_reset_leaves_nothing_told() {
    // An event that knows of the reset already comes before the reset itself.
    check(
        "engine 2
         listen quota.*
         at 01:00  quota * calls 100 hour
         at 01:10  usage acme calls 90   -> told quota.threshold_reached acme/calls 90 of 100
         at 01:20  usage acme calls 85 epoch 3 -> told quota.threshold_reached acme/calls 85 of 100
         at 01:30  reset
         at 01:40  usage acme calls 5 epoch 3
         at 01:50  quota * calls 100 hour -> told quota.threshold_reached acme/calls 90 of 100",
    );
}

#[test]
fn a_deleted_account_and_a_backfill_tell_nothing() {
    check(
        "engine 2
         listen quota.*
         quota * calls 100 hour
         at 01:00  backfill acme calls 90
         at 02:00  usage acme calls 1 -> told quota.threshold_reached acme/calls 91 of 100
         at 03:00  forget acme
         at 04:00  usage acme calls 1
         at 60:30  tick",
    );
}

#[test]
fn what_an_older_release_folded_is_no_news() {
    check(
        "listen quota.*
         quota acme calls 100 hour
         quota zen calls 100 hour
         at 01:00  usage acme calls 90 + zen calls 10
         at 02:00  engine 2
         at 03:00  usage acme calls 1 + zen calls 75  -> told quota.threshold_reached zen/calls 85 of 100
         at 04:00  usage acme calls 10                -> told quota.exceeded acme/calls 101 of 100
         at 05:00  engine 2
         at 60:30  tick
           -> told quota.reset acme/calls 0 of 100 after 101, told quota.reset zen/calls 0 of 100 after 85",
    );
}

#[test]
fn a_log_that_a_later_release_took_over_is_not_folded_on() {
    let mut log = Log::default();
    log.note(MIDNIGHT, &Note::EngineVersion { version: ENGINE_VERSION });
    log.note(MIDNIGHT, &Note::EngineVersion { version: ENGINE_VERSION + 1 });
    let mut fold = fold();
    let error = fold.take(&log.records, &mut Effects::default()).unwrap_err();
    assert!(matches!(error, FoldError::TooNew { .. }) && error.to_string().contains("update this node"), "{error}");
    assert_eq!(fold.partition.position().0, 1, "what stands before it is taken in");
}

#[test]
fn a_snapshot_that_an_older_release_took_of_a_newer_log_is_passed_over() {
    let mut log = Log::default();
    log.note(MIDNIGHT, &Note::EngineVersion { version: ENGINE_VERSION });
    let mut fold = fold();
    fold.take(&log.records, &mut Effects::default()).unwrap();
    let snapshot = fold.snapshot().unwrap();
    Fold::restore(PartitionId(0), KEY, &snapshot).unwrap();
    let older = Snapshot { format: 2, ..snapshot };
    assert!(Fold::restore(PartitionId(0), KEY, &older).is_err(), "it has nothing of what was told");
}
