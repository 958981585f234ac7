//! What an alert does, case by case: conditions, durations, missing data, instances.

use crate::script::check;

#[test]
fn a_condition_must_hold_for_its_span() {
    check(
        "alert spike  sum(\"calls\") > 100 | for 30s
         at 00:10  usage acme calls 80
         at 00:20  usage acme calls 40    -> pending spike acme
         at 00:49  tick
         at 00:50  tick                   -> firing spike acme held, notify 1 firing
         at 05:30  tick
         at 10:30  tick                   -> ok spike acme, notify 2 resolved after 1",
    );
    // The deadline has a time of its own, whenever the next record comes.
    check(
        "alert spike  sum(\"calls\") > 100 | for 30s
         at 00:20  usage acme calls 140   -> pending spike acme
         at 01:40  usage acme calls 1     -> firing spike acme held @00:50, notify 1 firing",
    );
    check(
        "alert high  quota_percent > 85 | for 1m
         quota acme calls 100 day
         at 01:00  usage acme calls 90    -> pending high acme
         at 01:30  usage acme calls -10   -> ok high acme
         at 02:30  usage acme calls 10    -> pending high acme
         at 03:30  tick                   -> firing high acme held, notify 1 firing",
    );
    // An event in another open window takes nothing back from the one that is over.
    check(
        "alert spike  sum(\"calls\") > 100 | for 1m
         at 04:59  usage acme calls 140             -> pending spike acme
         at 05:05  usage acme calls 1
         at 05:10  usage acme calls 1 at 04:58
         at 05:59  tick                             -> firing spike acme held, notify 1 firing",
    );
    // What was proven on an open window no longer is once a negative value came.
    check(
        "alert spike  sum(\"calls\") > 100 | for 1m
         at 01:00  usage acme calls 140   -> pending spike acme
         at 01:30  usage acme calls -60   -> ok spike acme",
    );
}

#[test]
fn a_firing_may_outlive_its_condition() {
    check(
        "alert high  quota_percent > 85 | keep 2m
         quota acme calls 100 day
         at 01:00  usage acme calls 90    -> firing high acme, notify 1 firing
         at 02:00  usage acme calls -10
         at 03:00  usage acme calls 10
         at 05:00  usage acme calls -20
         at 06:59  tick
         at 07:00  tick                   -> ok high acme held, notify 2 resolved after 1",
    );
    check(
        "alert high  quota_percent > 85 | recover quota_percent < 70
         quota acme calls 100 day
         at 01:00  usage acme calls 90    -> firing high acme, notify 1 firing
         at 02:00  usage acme calls -10
         at 03:00  usage acme calls -11   -> ok high acme, notify 2 resolved after 1",
    );
    check(
        "alert busy  sum(\"calls\") > 100 | recover sum(\"calls\") < 50
         at 01:00  usage acme calls 120   -> firing busy acme, notify 1 firing
         at 06:00  usage acme calls 60
         at 10:30  tick
         at 11:00  usage acme calls 40
         at 15:30  tick                   -> ok busy acme, notify 2 resolved after 1",
    );
}

#[test]
fn what_recovers_may_read_more_than_the_rule() {
    check(
        "alert busy  sum(\"calls\") > 100 | recover used(\"calls\") < 50
         quota acme calls 1000 day
         at 01:00  usage acme calls 120             -> firing busy acme, notify 1 firing
         at 10:30  tick
         at 11:00  usage acme calls -80             -> ok busy acme, notify 2 resolved after 1",
    );
    check(
        "alert busy  sum(\"calls\") > 100 | recover remaining(\"calls\") > 500
         quota acme calls 500 day
         at 01:00  usage acme calls 120             -> firing busy acme, notify 1 firing
         at 10:30  tick
         at 11:00  quota acme calls 1000 day        -> ok busy acme redefined, notify 2 resolved after 1",
    );
}

#[test]
fn a_firing_that_lasts_is_told_again() {
    check(
        "alert busy  sum(\"calls\") > 10 | repeat 10m
         at 01:00  usage acme calls 20    -> firing busy acme, notify 1 firing
         at 06:00  usage acme calls 20
         at 11:00  usage acme calls 20    -> firing busy acme repeat, notify 2 firing after 1
         at 15:30  tick
         at 20:30  tick                   -> ok busy acme, notify 3 resolved after 1
         at 31:00  tick",
    );
    // A rule that reads a quota: once per period and limit.
    check(
        "alert high  quota_percent > 85 | repeat 10m
         quota acme calls 100 day
         at 01:00     usage acme calls 90       -> firing high acme, notify 1 firing
         at 05:00:00  tick
         at 05:01:00  usage acme calls -50      -> ok high acme, notify 2 resolved after 1
         at 05:02:00  usage acme calls 50       -> firing high acme
         at 05:03:00  quota acme calls 95 day   -> firing high acme redefined, notify 3 firing
         at 05:04:00  quota acme calls 90 day   -> firing high acme redefined, notify 4 firing after 3
         at 05:05:00  quota acme calls 90 day
         at 05:06:00  quota acme calls 200 day  -> ok high acme redefined, notify 5 resolved after 3
         at 05:07:00  quota acme calls 90 day   -> firing high acme redefined
         at 05:08:00  usage acme calls -80      -> ok high acme",
    );
}

#[test]
fn refunds_cause_no_second_notice_in_the_period() {
    check(
        "alert high  used > 50
         quota acme calls 100 day
         at 01:00     usage acme calls 60       -> firing high acme, notify 1 firing
         at 02:00     usage acme calls -20      -> ok high acme, notify 2 resolved after 1
         at 03:00     usage acme calls 20       -> firing high acme
         at 04:00     usage acme calls -20      -> ok high acme
         at 12:00:30  tick
         at 12:01:00  usage acme calls 60       -> firing high acme, notify 3 firing",
    );
}

#[test]
fn a_percentage_of_a_large_quota_is_exact_to_nine_places() {
    check(
        "alert high  quota_percent > 85
         quota acme calls 1000000000000 day
         at 01:00  usage acme calls 850000000009
         at 02:00  usage acme calls 2     -> firing high acme, notify 1 firing
         at 03:00  usage acme calls -1
         at 04:00  usage acme calls -1    -> ok high acme, notify 2 resolved after 1",
    );
}

#[test]
fn missing_events_are_zero_or_no_data() {
    check(
        "alert quiet  count(\"calls\") < 1
         at 01:00  usage acme calls 1     -> firing quiet acme, notify 1 firing
         at 05:30  tick                   -> ok quiet acme, notify 2 resolved after 1
         at 10:30  tick                   -> firing quiet acme, notify 3 firing",
    );
    check(
        "alert unused  used < 10
         quota acme calls 100 day         -> firing unused acme redefined, notify 1 firing
         at 01:00  usage acme calls 20    -> ok unused acme, notify 2 resolved after 1",
    );
    check(
        "alert odd  max(\"calls\") > 5
         at 01:00  usage acme calls 1     -> no_data odd acme
         at 05:30  tick                   -> ok odd acme
         at 06:00  usage acme calls 9     -> firing odd acme, notify 1 firing
         at 10:30  tick
         at 15:30  tick                   -> no_data odd acme no_data, notify 2 resolved after 1",
    );
    check(
        "alert odd  max(\"calls\") > 5 | no_data alert
         at 01:00  usage acme calls 1     -> no_data odd acme no_data, notify 1 no_data
         at 05:30  tick                   -> ok odd acme, notify 2 resolved after 1
         at 06:00  usage acme calls 9     -> firing odd acme, notify 3 firing
         at 15:30  tick                   -> no_data odd acme no_data, notify 4 no_data after 3
         at 16:00  usage acme calls 1
         at 20:30  tick                   -> ok odd acme, notify 5 resolved after 4",
    );
    check(
        "alert odd  max(\"calls\") > 5 | no_data keep
         at 01:00  usage acme calls 9     -> no_data odd acme, firing odd acme, notify 1 firing
         at 15:30  tick
         at 16:00  usage acme calls 1
         at 20:30  tick                   -> ok odd acme, notify 2 resolved after 1",
    );
}

#[test]
fn what_is_partly_missing_is_inconclusive() {
    check(
        "alert odd  max(\"calls\") > 5 || max(\"errors\") > 5
         at 01:00  usage acme calls 1     -> no_data odd acme
         at 05:30  tick                   -> inconclusive odd acme
         at 06:00  usage acme errors 9    -> firing odd acme, notify 1 firing
         at 10:30  tick
         at 11:00  usage acme calls 1
         at 15:30  tick
         at 20:30  tick                   -> no_data odd acme no_data, notify 2 resolved after 1",
    );
    check(
        "alert ratio  sum(\"errors\") / sum(\"calls\") > 0.5
         at 01:00  usage acme errors 6    -> inconclusive ratio acme
         at 02:00  usage acme calls 10
         at 05:30  tick                   -> firing ratio acme, notify 1 firing
         at 10:30  tick
         show ratio                       -> acme firing 0",
    );
}

#[test]
fn without_a_quota_nothing_is_concluded() {
    check(
        "alert high  quota_percent > 85 | on acme/calls   -> inconclusive high acme
         at 01:00  usage acme calls 90
         at 02:00  quota acme calls 100 day                -> firing high acme redefined, notify 1 firing
         at 03:00  quota acme calls none
         at 04:00  usage acme calls -90
         at 05:00  quota acme calls 100 day                -> ok high acme redefined, notify 2 resolved after 1",
    );
    // A pending one whose quota goes stays pending, past its deadline too.
    check(
        "alert high  quota_percent > 85 | for 1m
         quota acme calls 100 day
         at 01:00  usage acme calls 90             -> pending high acme
         at 01:30  quota acme calls none
         at 02:30  tick
         at 03:00  usage acme calls 1
         at 04:00  quota acme calls 100 day        -> firing high acme held, notify 1 firing",
    );
    // An override goes before the quota of all.
    check(
        "alert high  quota_percent > 85
         quota * calls 100 day
         quota zen calls 1000 day
         at 01:00  usage acme calls 90 + zen calls 90  -> firing high acme, notify 1 firing
         at 02:00  quota zen calls none                -> firing high zen redefined, notify 2 firing
         at 03:00  quota * calls 1000 day
           -> ok high acme redefined, notify 3 resolved after 1, ok high zen redefined, notify 4 resolved after 2",
    );
}

#[test]
fn unqualified_names_have_an_instance_for_each_metric() {
    check(
        "alert busy  sum > 10
         at 01:00  usage acme calls 20 + acme jobs 30 + acme idle 1
           -> firing busy acme, notify 1 firing, firing busy acme/jobs, notify 2 firing
         show busy  -> acme firing 20, acme/idle ok 0, acme/jobs firing 30",
    );
    check(
        "alert high  used > 10
         at 01:00  usage acme calls 20 + acme jobs 30
         at 02:00  quota acme jobs 100 day  -> firing high acme/jobs redefined, notify 1 firing
         show high  -> acme/jobs firing 30",
    );
    check(
        "alert both  sum(\"calls\") > 10 && sum(\"jobs\") > 10
         at 01:00  usage acme calls 20
         at 02:00  usage acme jobs 20 + zen jobs 20  -> firing both acme, notify 1 firing
         show both  -> acme firing 20, zen ok 0",
    );
    check(
        "alert jobs  sum > 10 | on */jobs, to ops+dev
         at 01:00  usage acme calls 20
         at 02:00  usage acme jobs 20    -> firing jobs acme/jobs, notify 1 firing to ops+dev",
    );
}

#[test]
fn only_what_is_final_fires_before_its_window_closes() {
    let waits = |rule: &str| {
        check(&format!(
            "alert odd  {rule}
             usage acme other 1
             at 00:30  tick
             at 01:00  usage acme calls 20
             at 05:29  tick
             at 05:30  tick                   -> firing odd acme, notify 1 firing"
        ));
    };
    waits("sum(\"calls\") != 0");
    waits("count(\"calls\") == 1");
    waits("sum(\"calls\") > 10 && sum(\"calls\") < 30");
    waits("sum(\"calls\") * 1 > 10");
    waits("sum(\"calls\") > count(\"calls\")");
    let early = |rule: &str| {
        check(&format!(
            "alert odd  {rule}
             usage acme other 1
             at 00:30  tick
             at 01:00  usage acme calls 20    -> firing odd acme, notify 1 firing
             at 05:30  tick"
        ));
    };
    early("sum(\"calls\") > 10");
    early("10 <= sum(\"calls\")");
    early("count(\"calls\") >= 1");
    early("sum(\"calls\") > 10 && count(\"calls\") > 0");
    early("sum(\"calls\") > 10 || count(\"calls\") > 5");
    // A negative value before: nothing is final until the close.
    check(
        "alert spike  sum(\"calls\") > 10
         at 01:00  usage acme calls -1
         at 01:10  usage acme calls 20
         at 05:30  tick                   -> firing spike acme, notify 1 firing",
    );
    // A negative value after: what was told stays until the close.
    check(
        "alert spike  sum(\"calls\") > 10
         at 01:00  usage acme calls 20    -> firing spike acme, notify 1 firing
         at 02:00  usage acme calls -15
         at 05:30  tick                   -> ok spike acme, notify 2 resolved after 1",
    );
}
