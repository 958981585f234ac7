//! Late events, grace, missed windows and stale decisions.

use crate::script::check;

#[test]
fn a_window_closes_behind_its_grace() {
    check(
        "alert mean  avg(\"calls\") > 10
         at 05:20  usage acme calls 20 at 04:50   -> no_data mean acme
         at 05:29  tick
         at 05:30  tick                           -> firing mean acme, notify 1 firing",
    );
    // At the very moment of its close an event is late.
    check(
        "alert mean  avg(\"calls\") > 10
         at 05:00  usage acme calls 1
           -> no_data mean acme
         at 05:30  usage acme calls 20 at 04:50   -> firing mean acme late, notify 1 firing",
    );
    // The intake holds the clock back.
    check(
        "alert mean  avg(\"calls\") > 10
         at 01:00  usage acme calls 20            -> no_data mean acme
         at 06:00  tick through 05:29
         at 06:10  tick through 05:20
         at 06:20  usage acme calls 1
         at 06:30  tick through 05:31             -> firing mean acme @05:30, notify 1 firing",
    );
    // The first word of an intake does not put the clock back.
    check(
        "alert mean  avg(\"calls\") > 10
         at 01:00     usage acme calls 20         -> no_data mean acme
         at 01:10:00  tick
           -> firing mean acme @05:30, no_data mean acme no_data @10:30
           , no_data mean acme caught_up @55:30, notify 1 resolved meanwhile 1
         at 01:10:10  tick through 04:00
         at 01:10:20  usage acme calls 20 at 04:00   -> uncorrected",
    );
}

#[test]
fn missed_windows_are_judged_in_order_at_their_own_times() {
    check(
        "alert mean  avg(\"calls\") > 10
         at 01:00  usage acme calls 20            -> no_data mean acme
         at 05:10  usage acme calls 1
         at 17:00  tick
           -> firing mean acme @05:30, notify 1 firing
           , ok mean acme @10:30, notify 2 resolved after 1, no_data mean acme @15:30",
    );
    check(
        "alert spike  sum(\"calls\") > 10 | for 8m
         at 01:00  usage acme calls 20            -> pending spike acme
         at 06:00  usage acme calls 20
         at 17:00  tick
           -> firing spike acme held @09:00, notify 1 firing, ok spike acme @15:30, notify 2 resolved after 1",
    );
}

#[test]
fn stale_decisions_become_one_message() {
    check(
        "alert mean  avg(\"calls\") > 10
         at 01:00     usage acme calls 20         -> no_data mean acme
         at 01:00:00  tick
           -> firing mean acme @05:30, no_data mean acme no_data @10:30
           , no_data mean acme caught_up @45:30, notify 1 resolved meanwhile 1",
    );
    check(
        "alert high  quota_percent > 85 | for 10m
         quota acme calls 100 day
         at 01:00     usage acme calls 90         -> pending high acme
         at 01:01:00  tick                        -> firing high acme held @11:00
         at 01:02:00  usage acme calls 1          -> firing high acme caught_up, notify 1 firing meanwhile 1
         at 01:03:00  usage acme calls -40        -> ok high acme, notify 2 resolved after 1",
    );
    // A firing that left and ended meanwhile.
    check(
        "alert spike  sum(\"calls\") > 10
         at 01:00     usage acme calls 20         -> firing spike acme, notify 1 firing
         at 01:00:00  tick
           -> ok spike acme @10:30, ok spike acme caught_up @45:30, notify 2 resolved after 1",
    );
    check(
        "alert odd  max(\"calls\") > 5 | no_data alert
         at 01:00     usage acme calls 9
           -> no_data odd acme no_data, notify 1 no_data, firing odd acme, notify 2 firing
         at 01:00:00  tick
           -> no_data odd acme no_data @10:30, no_data odd acme no_data @45:30, notify 3 no_data after 2",
    );
}

#[test]
fn a_late_event_may_change_the_newest_closed_window() {
    check(
        "alert mean  avg(\"calls\") > 10
         at 01:00  usage acme calls 1             -> no_data mean acme
         at 05:30  tick                           -> ok mean acme
         at 06:00  usage acme calls 99 at 02:00   -> firing mean acme late, notify 1 firing
         at 07:00  usage acme calls -99 at 02:00  -> ok mean acme late, notify 2 resolved after 1",
    );
    check(
        "alert high  quota_percent > 85
         quota acme calls 100 day
         at 31:00  usage acme calls 90 at 02:00   -> firing high acme late, notify 1 firing",
    );
}

#[test]
fn a_late_event_that_overturns_an_older_window_is_told_as_a_correction() {
    check(
        "alert spike  sum(\"calls\") > 10
         at 01:00  usage acme calls 1
         at 11:00  usage acme calls 50 at 02:00   -> ok spike acme late_fire, notify 1 corrected
         at 12:00  usage acme calls -50 at 02:00
         at 13:00  usage acme calls 50 at 02:00",
    );
    check(
        "alert spike  sum(\"calls\") > 10
         at 01:00  usage acme calls 20            -> firing spike acme, notify 1 firing
         at 10:30  tick                           -> ok spike acme, notify 2 resolved after 1
         at 11:00  usage acme calls -15 at 02:00  -> ok spike acme retraction, notify 3 corrected after 1",
    );
    // Only what left is taken back.
    check(
        "alert spike  sum(\"calls\") > 10
         silence 1 account_id=acme until 40:00
         at 01:00  usage acme calls 20            -> firing spike acme
         at 10:30  tick                           -> ok spike acme
         at 11:00  usage acme calls -15 at 02:00  -> ok spike acme retraction",
    );
    // A reminder is not what the window told.
    check(
        "alert spike  sum(\"calls\") > 10 | repeat 1m
         at 06:00  usage acme calls 20            -> firing spike acme, notify 1 firing
         at 07:00  tick                           -> firing spike acme repeat, notify 2 firing after 1
         edit spike  sum(\"calls\") > 10 | repeat 4h
         at 08:00  tick                           -> firing spike acme repeat, notify 3 firing after 1
         at 10:30  tick
         at 15:30  tick                           -> ok spike acme, notify 4 resolved after 1
         at 16:00  usage acme calls -15 at 07:00  -> ok spike acme retraction, notify 5 corrected after 1",
    );
}

#[test]
fn what_cannot_be_corrected_is_counted() {
    check(
        "alert spike  sum(\"calls\") > 10 | for 10m
         at 01:00     usage acme calls 1
         at 11:00     usage acme calls 50 at 02:00   -> uncorrected",
    );
    check(
        "alert spike  sum(\"calls\") > 10 | keep 10m
         at 01:00     usage acme calls 1
         at 11:00     usage acme calls 50 at 02:00   -> uncorrected",
    );
    // The window is held for an hour behind its close.
    check(
        "alert spike  sum(\"calls\") > 10
         at 01:00     usage acme calls 1
         at 01:05:29  usage acme calls 50 at 02:00   -> ok spike acme late_fire, notify 1 corrected
         at 01:05:30  usage acme calls 50 at 02:00   -> uncorrected",
    );
    // Another rule than the present one decided the window.
    check(
        "alert spike  sum(\"calls\") > 100
         at 01:00     usage acme calls 50
         at 10:40     tick
         edit spike  sum(\"calls\") > 10
         at 11:00     usage acme calls 1 at 02:00    -> uncorrected",
    );
}

#[test]
fn a_backfill_evaluates_nothing() {
    check(
        "alert high  quota_percent > 85
         alert quiet  count(\"calls\") < 1 | on acme   -> firing quiet acme, notify 1 firing
         quota acme calls 100 day
         at 01:00  backfill acme calls 90
         at 02:00  backfill acme calls 1 at -40:00
         at 03:00  usage acme calls 1                 -> firing high acme, notify 2 firing
         show high                                    -> acme firing 92",
    );
    check(
        "alert quiet  sum(\"calls\") < 20
         at 00:10  usage acme calls 1                 -> firing quiet acme, notify 1 firing
         at 00:40  backfill acme calls 90 at -00:01
         at 00:50  usage acme calls 1                 -> ok quiet acme, notify 2 resolved after 1",
    );
    check(
        "alert quiet  count(\"calls\") < 1
         at 01:00  backfill acme calls 90
         at 05:30  tick
         at 10:30  tick                               -> firing quiet acme, notify 1 firing",
    );
}
