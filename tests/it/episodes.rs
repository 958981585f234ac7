//! What ends or holds an episode from outside: silences, edits, pauses, deletions, periods. And what is owed of it.

use crate::script::check;

#[test]
fn a_silence_holds_messages_and_not_states() {
    check(
        "alert busy  sum(\"calls\") > 10
         silence 1 account_id=acme until 10:00
         at 01:00  usage acme calls 20    -> firing busy acme
         show busy                        -> acme firing 20 silenced
         at 10:00  tick                   -> firing busy acme silence_ended, notify 1 firing
         show busy                        -> acme firing 20
         at 10:30  tick                   -> ok busy acme, notify 2 resolved after 1",
    );
    // What left is resolved in spite of the silence; what did not is not.
    check(
        "alert busy  sum(\"calls\") > 10
         at 01:00  usage acme calls 20    -> firing busy acme, notify 1 firing
         at 02:00  silence 1 name=busy until 50:00
         at 03:00  usage zen calls 20     -> firing busy zen
         at 10:30  tick                   -> ok busy acme, notify 2 resolved after 1, ok busy zen
         at 51:00  tick",
    );
    check(
        "alert busy  sum(\"calls\") > 10 | repeat 1h, label team=core
         silence 1 team=~co.e account_id!=zen until 50:00
         silence 2 severity=warning until 50:00
         at 01:00     usage acme calls 20 + acme calls 20 at 05:59 -> firing busy acme
         at 02:00     unsilence 1
         at 03:00     unsilence 2         -> firing busy acme silence_ended, notify 1 firing
         at 10:30     tick
         at 15:30     tick                -> ok busy acme, notify 2 resolved after 1",
    );
    // The repeats begin with what the end of the silence told.
    check(
        "alert high  sum(\"calls\") > 10 | repeat 1m
         silence 1 name=high until 02:00
         at 01:00  usage acme calls 20    -> firing high acme
         at 02:00  tick                   -> firing high acme silence_ended, notify 1 firing
         at 03:00  tick                   -> firing high acme repeat, notify 2 firing after 1",
    );
    // One that was taken back does not end again.
    check(
        "alert high  used(\"calls\") > 60
         at 00:10  tick through 00:10
         silence 1 name=high until 00:20
         at 00:15  unsilence 1
         at 00:30  usage acme calls 0      -> inconclusive high acme @00:10
         show high                        -> acme inconclusive
         at 00:40  tick through 00:40",
    );
    // New labels bring an instance under a silence.
    check(
        "alert busy  sum(\"calls\") > 10
         silence 1 team=core until 50:00
         at 01:00  usage acme calls 20    -> firing busy acme, notify 1 firing
         edit busy  sum(\"calls\") > 10 | label team=core
         show busy                        -> acme firing 20 silenced",
    );
}

#[test]
fn an_edit_is_judged_at_once() {
    check(
        "alert busy  sum(\"calls\") > 10
         at 01:00  usage acme calls 20            -> firing busy acme, notify 1 firing
         at 05:30  tick
         at 06:00  edit busy sum(\"calls\") > 15
         at 06:10  edit busy sum(\"calls\") > 15 | message Look
         at 06:20  edit busy sum(\"calls\") > 25  -> ok busy acme edited, notify 2 resolved after 1
         at 06:30  edit busy sum(\"calls\") > 5   -> firing busy acme edited, notify 3 firing",
    );
    // What the old rule proved of an open window says nothing under the new one.
    check(
        "alert busy  sum(\"calls\") > 10
         at 01:00  usage acme calls 20            -> firing busy acme, notify 1 firing
         at 02:00  edit busy sum(\"calls\") > 25  -> ok busy acme edited, notify 2 resolved after 1",
    );
    check(
        "alert busy  sum(\"calls\") > 10
         at 01:00  usage acme calls 20            -> firing busy acme, notify 1 firing
         at 05:30  tick
         at 06:00  edit busy sum(\"calls\") > 10 | recover sum(\"calls\") < 1
         at 06:10  edit busy sum(\"calls\") > 99 | recover sum(\"calls\") < 1
         at 06:20  edit busy sum(\"calls\") > 99  -> ok busy acme edited, notify 2 resolved after 1",
    );
    // A shorter span counts from when the condition began.
    check(
        "alert busy  sum(\"calls\") > 10 | for 1h
         at 01:00  usage acme calls 20                    -> pending busy acme
         at 03:00  edit busy sum(\"calls\") > 10 | for 1m -> firing busy acme held, notify 1 firing",
    );
    // Another scope.
    check(
        "alert busy  sum > 10
         at 01:00  usage acme calls 20 + zen calls 20
           -> firing busy acme, notify 1 firing, firing busy zen, notify 2 firing
         at 02:00  edit busy sum > 10 | on zen  -> ok busy acme edited, notify 3 resolved after 1
         show busy                              -> acme gone, zen firing 20",
    );
}

#[test]
fn pauses_and_deletions_end_episodes_once() {
    check(
        "alert busy  sum(\"calls\") > 10
         at 01:00  usage acme calls 20    -> firing busy acme, notify 1 firing
         at 02:00  pause busy             -> ok busy acme paused, notify 2 resolved after 1
         at 03:00  usage acme calls 20
         show busy                        -> acme ok 0
         at 04:00  resume busy            -> firing busy acme, notify 3 firing
         at 04:10  delete busy            -> ok busy acme deleted, notify 4 resolved after 3
         show busy                        -> acme gone",
    );
    check(
        "alert busy  sum(\"calls\") > 10 | for 30s
         at 01:00  usage acme calls 20           -> pending busy acme
         at 01:10  pause busy until 04:00        -> ok busy acme paused
         at 02:00  tick
         at 04:00  tick                          -> pending busy acme
         at 04:10  delete busy                   -> ok busy acme deleted",
    );
    check(
        "alert busy  sum(\"calls\") > 10
         alert high  used > 10
         quota acme calls 100 day
         at 01:00  usage acme calls 20
           -> firing busy acme, notify 1 firing, firing high acme, notify 2 firing
         at 02:00  forget acme
           -> ok busy acme account_deleted, notify 3 resolved after 1
           , ok high acme account_deleted, notify 4 resolved after 2
         show high                        -> acme gone
         at 03:00  usage acme calls 20 id again    -> firing busy acme, notify 5 firing
         at 03:10  usage acme calls 20 id again    -> duplicate
         show high                        -> acme gone",
    );
}

#[test]
fn an_epoch_that_events_know_first_is_no_other_epoch() {
    // The deletion at control position 3 is copied behind an event that knows of it already.
    check(
        "alert high  used > 10
         quota acme calls 100 day
         at 01:00  usage acme calls 20                        -> firing high acme, notify 1 firing
         at 02:00  usage acme calls 5 epoch 3 + acme jobs 7
           -> ok high acme account_deleted, notify 2 resolved after 1
         at 03:00  forget acme
         at 04:00  usage acme calls 20
         show high                                            -> acme gone",
    );
}

#[test]
fn a_period_is_judged_until_its_grace_is_over() {
    check(
        "alert high  quota_percent > 85
         at 00:40     quota acme calls 100 hour
         at 01:00     usage acme calls 90                 -> firing high acme, notify 1 firing
         at 01:00:10  usage acme calls 95 at 01:00:05 + acme calls -1 at 59:59
         at 01:00:29  tick
         at 01:00:30  tick
           -> ok high acme period_ended, notify 2 resolved after 1, firing high acme, notify 3 firing
         at 03:05:00  tick
           -> ok high acme period_ended @02:00:30, ok high acme caught_up @03:00:30, notify 4 resolved after 3",
    );
    check(
        "alert high  used > 10 | for 10m
         at 00:40     quota acme calls 100 hour
         at 55:00     usage acme calls 90             -> pending high acme
         at 01:00:30  tick                            -> ok high acme period_ended
         at 01:01:00  usage acme calls 11             -> pending high acme
         at 01:11:00  tick                            -> firing high acme held, notify 1 firing",
    );
}

#[test]
fn a_resolve_waits_until_its_firing_has_settled() {
    let start = "alert busy  sum(\"calls\") > 10 | to ops+dev
         at 01:00  usage acme calls 20     -> firing busy acme, notify 1 firing to ops+dev
         at 02:00  attempt 1 ops retry     -> retries 1 ops
         at 10:30  tick                    -> ok busy acme, notify 2 resolved after 1 to ops+dev
         owes                              -> 1 dev, 1 ops, 2 dev waits, 2 ops waits
        ";
    check(&format!(
        "{start}
         at 11:00  attempt 1 ops delivered -> delivered 1 ops, released 2 ops
         owes                              -> 1 dev, 2 dev waits, 2 ops
         at 11:10  attempt 1 dev failed    -> failed 1 dev, dropped 2 dev
         owes                              -> 2 ops
         at 11:20  attempt 2 dev delivered
         at 11:30  attempt 2 ops delivered -> delivered 2 ops
         at 11:40  attempt 2 ops delivered
         owes"
    ));
    check(
        "alert busy  sum(\"calls\") > 10
         at 01:00  usage acme calls 20     -> firing busy acme, notify 1 firing
         at 02:00  attempt 1 ops failed    -> failed 1 ops
         at 10:30  tick                    -> ok busy acme, notify 2 resolved after 1, dropped 2 ops
         owes",
    );
}

#[test]
fn a_resolve_waits_for_the_reminders_of_its_firing_too() {
    let start = "alert busy  sum(\"calls\") > 10 | repeat 5m
         at 01:00  usage acme calls 20      -> firing busy acme, notify 1 firing
         at 06:00  tick                     -> firing busy acme repeat, notify 2 firing after 1
         at 10:30  tick                     -> ok busy acme, notify 3 resolved after 1
         owes                               -> 1 ops, 2 ops, 3 ops waits
        ";
    check(&format!(
        "{start}
         attempt 1 ops delivered            -> delivered 1 ops
         owes                               -> 2 ops, 3 ops waits
         attempt 2 ops failed               -> failed 2 ops, released 3 ops
         attempt 3 ops delivered            -> delivered 3 ops"
    ));
    // The reminder left, so the firing is known there.
    check(&format!(
        "{start}
         attempt 1 ops failed               -> failed 1 ops
         attempt 2 ops delivered            -> delivered 2 ops, released 3 ops"
    ));
    check(&format!(
        "{start}
         attempt 2 ops failed               -> failed 2 ops
         attempt 1 ops failed               -> failed 1 ops, dropped 3 ops
         owes"
    ));
    // Who was told first only when it was told again, is told of the end as well.
    check(
        "alert high  used > 10
         quota acme calls 100 day
         at 01:00  usage acme calls 20      -> firing high acme, notify 1 firing
         at 02:00  edit high  used > 10 | to dev
         at 03:00  quota acme calls 90 day  -> firing high acme redefined, notify 2 firing after 1 to dev
         at 04:00  usage acme calls -15     -> ok high acme, notify 3 resolved after 1 to ops+dev",
    );
}

#[test]
fn a_sandbox_has_a_clock_of_its_own() {
    check(
        "alert busy  sum(\"calls\") > 10
         at 01:00  usage acme calls 20     -> firing busy acme, notify 1 firing
         at 01:10  advance 10m             -> ok busy acme @10:30, notify 2 resolved after 1
         at 01:20  usage acme calls 20 at 11:15 -> firing busy acme @11:20, notify 3 firing
         at 01:30  reset                   -> ok busy acme account_deleted @11:30, notify 4 resolved after 3
         at 02:00  alert mean  avg(\"calls\") > 10
         at 02:10  usage acme calls 20     -> no_data mean acme
         at 05:30  tick                    -> firing mean acme, notify 5 firing",
    );
    // Long spans are put forward to see what happens: nothing of that is stale.
    check(
        "alert mean  avg(\"calls\") > 10
         at 01:00  usage acme calls 20     -> no_data mean acme
         advance 2h
           -> firing mean acme @05:30, notify 1 firing
           , no_data mean acme no_data @10:30, notify 2 resolved after 1",
    );
    // A silence that ended before the sandbox's time begins ends at once.
    check(
        "alert busy  sum < 10 | repeat 1m, on acme/calls  -> firing busy acme, notify 1 firing
         advance 30s
         silence 1 name=busy until 00:10
         at 00:35  tick                    -> firing busy acme repeat @01:00, notify 2 firing after 1",
    );
}

#[test]
fn decisions_of_one_record_are_numbered_through() {
    check(
        "alert high  used > 10 | for 1m
         quota acme calls 100 day
         at 01:00  usage acme calls 20     -> pending high acme
         at 02:00  alert low  used > 5
           -> firing high acme held, notify 1 firing, firing low acme, notify 2 firing",
    );
}
