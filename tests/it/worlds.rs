//! A sandbox through the fold: its clock, its resets, and the usage that it begins with.

use crate::script::check;

#[test]
fn an_hour_of_holding_passes_at_once() {
    check(
        "alert busy  sum(\"calls\") > 10 | for 20m
         at 01:00  usage acme calls 20        -> pending busy acme
         at 01:10  advance 10m                -> ok busy acme @10:30",
    );
    check(
        "quota acme calls 100 day
         alert high  quota_percent > 85 | for 1h
         at 01:00  usage acme calls 90        -> pending high acme
         at 01:10  advance 30m
         show high                            -> acme pending 90
         at 01:20  advance 30m                -> firing high acme held @01:01:00, notify 1 firing
         at 01:30  usage acme calls 1",
    );
}

#[test]
fn a_reset_puts_the_clock_right_and_counts_nothing_of_before() {
    check(
        "quota acme calls 100 day
         alert high  quota_percent > 85
         at 01:00  usage acme calls 90        -> firing high acme, notify 1 firing
         at 01:10  advance 2h
         at 01:20  reset                      -> ok high acme account_deleted @02:01:20, notify 2 resolved after 1
         quota acme calls 100 day
         alert next  quota_percent > 50
         at 01:30  usage acme calls 40 epoch 4
         at 01:40  usage acme calls 20 epoch 4 -> firing next acme, notify 3 firing",
    );
}

#[test]
fn seeded_usage_is_judged_as_if_it_had_been_sent() {
    check(
        "at 01:00  quota acme calls 100 day
         alert high  quota_percent > 85
         seed acme calls 00:30 1s 40 40 10    -> firing high acme, notify 1 firing
         at 01:20  usage acme calls 1
         show high                            -> acme firing 91",
    );
    // Nothing is sown on an account that was deleted since.
    check(
        "alert busy  sum(\"calls\") > 10
         at 01:00  usage acme calls 1 epoch 9
         at 01:10  seed acme calls 01:00 1s 40",
    );
}
