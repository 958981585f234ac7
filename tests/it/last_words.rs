//! What a channel hears last is how things stand: engine version 3.

use crate::script::check;

#[test]
fn whatever_sent_a_resolve_lets_the_next_firing_be_sent_in_the_same_period() {
    // A refund, and a limit that is raised and set back.
    check(
        "engine 3
         delivers
         quota acme calls 100 month
         alert high  quota_percent > 85
         at 01:00  usage acme calls 90    -> firing high acme, notify 1 firing
         at 02:00  usage acme calls -20   -> ok high acme, notify 2 resolved after 1
         at 03:00  usage acme calls 20    -> firing high acme, notify 3 firing
         at 04:00  quota acme calls 200 month
           -> ok high acme redefined, notify 4 resolved after 3
         at 05:00  quota acme calls 100 month
           -> firing high acme redefined, notify 5 firing",
    );
    // An edit of the rule, and a pause.
    check(
        "engine 3
         delivers
         quota acme calls 100 month
         alert high  quota_percent > 85
         at 01:00  usage acme calls 90    -> firing high acme, notify 1 firing
         at 02:00  edit high  quota_percent > 95
           -> ok high acme edited, notify 2 resolved after 1
         at 03:00  edit high  quota_percent > 85
           -> firing high acme edited, notify 3 firing
         at 04:00  pause high             -> ok high acme paused, notify 4 resolved after 3
         at 05:00  resume high            -> firing high acme, notify 5 firing",
    );
    // A gauge that falls.
    check(
        "engine 3
         delivers
         quota acme calls 100 month last
         alert high  used > 85
         at 01:00  usage acme calls 90    -> firing high acme, notify 1 firing
         at 02:00  usage acme calls 10    -> ok high acme, notify 2 resolved after 1
         at 03:00  usage acme calls 90    -> firing high acme, notify 3 firing",
    );
    // A silence holds the firing until it ends.
    check(
        "engine 3
         delivers
         quota acme calls 100 month
         alert high  quota_percent > 85
         at 01:00  usage acme calls 90    -> firing high acme, notify 1 firing
         at 02:00  usage acme calls -20   -> ok high acme, notify 2 resolved after 1
         silence 1 name=high until 10:00
         at 03:00  usage acme calls 20    -> firing high acme
         at 10:00  tick                   -> firing high acme silence_ended, notify 3 firing",
    );
}

#[test]
fn a_log_of_an_earlier_version_folds_as_before() {
    check(
        "delivers
         quota acme calls 100 month
         alert high  quota_percent > 85
         at 01:00  usage acme calls 90    -> firing high acme, notify 1 firing
         at 02:00  usage acme calls -20   -> ok high acme, notify 2 resolved after 1
         at 03:00  usage acme calls 20    -> firing high acme
         at 04:00  engine 3
         at 05:00  usage acme calls -20   -> ok high acme
         at 06:00  usage acme calls 20    -> firing high acme, notify 3 firing",
    );
}

#[test]
fn one_message_of_an_instance_is_pending_for_a_channel() {
    // The resolve could not be sent; the next firing takes its place and names the earlier one, and one resolve closes both.
    check(
        "engine 3
         quota acme calls 100 month
         alert high  quota_percent > 85
         at 01:00  usage acme calls 90    -> firing high acme, notify 1 firing
         sends                            -> 1 ops
         at 01:01  attempt 1 ops delivered -> delivered 1 ops
         at 02:00  usage acme calls -20   -> ok high acme, notify 2 resolved after 1
         at 02:01  attempt 2 ops retry    -> retries 2 ops
         at 03:00  usage acme calls 20    -> firing high acme, notify 3 firing, superseded 2 ops
         sends
         owes                             -> 3 ops waits since 02:00
         at 03:01  attempt 2 ops unsent   -> released 3 ops
         sends                            -> 3 ops after 1
         at 03:02  attempt 3 ops delivered -> delivered 3 ops
         at 04:00  usage acme calls -20   -> ok high acme, notify 4 resolved after 3
         sends                            -> 4 ops after 3 closes 1+3
         at 04:01  attempt 4 ops delivered -> delivered 4 ops
         at 05:00  usage acme calls 20    -> firing high acme, notify 5 firing
         sends                            -> 5 ops",
    );
    // The attempt under way was taken after all: the resolve was heard, so the next firing begins anew.
    check(
        "engine 3
         quota acme calls 100 month
         alert high  quota_percent > 85
         at 01:00  usage acme calls 90    -> firing high acme, notify 1 firing
         at 01:01  attempt 1 ops delivered -> delivered 1 ops
         at 02:00  usage acme calls -20   -> ok high acme, notify 2 resolved after 1
         at 03:00  usage acme calls 20    -> firing high acme, notify 3 firing, superseded 2 ops
         at 03:01  attempt 2 ops delivered -> delivered 2 ops, released 3 ops
         sends                            -> 3 ops",
    );
}

#[test]
fn a_resolve_whose_firing_never_left_is_not_sent() {
    let begin = "engine 3
         quota acme calls 100 month
         alert high  quota_percent > 85 | to ops+dev
         at 01:00  usage acme calls 90    -> firing high acme, notify 1 firing to ops+dev
         at 01:01  attempt 1 ops retry    -> retries 1 ops
         at 01:01  attempt 1 dev delivered -> delivered 1 dev
         at 02:00  usage acme calls -20
           -> ok high acme, notify 2 resolved after 1 to ops+dev, superseded 1 ops
         sends                            -> 2 dev after 1
        ";
    check(&format!("{begin}  at 02:01  attempt 1 ops unsent  -> dropped 2 ops"));
    // The attempt that was under way failed, or nobody knows.
    check(&format!("{begin}  at 02:01  attempt 1 ops retry  -> superseded 1 ops, dropped 2 ops"));
    check(&format!(
        "{begin}  at 02:01  attempt 1 ops unanswered  -> superseded 1 ops, released 2 ops
         sends  -> 2 dev after 1, 2 ops after 1"
    ));
    check(&format!(
        "{begin}  at 02:01  attempt 1 ops delivered  -> delivered 1 ops, released 2 ops
         sends  -> 2 dev after 1, 2 ops after 1"
    ));
    // A firing that was given up was not heard, and its resolve is not sent; one without an answer may have been.
    check(
        "engine 3
         quota acme calls 100 month
         alert high  quota_percent > 85
         at 01:00  usage acme calls 90    -> firing high acme, notify 1 firing
         at 01:01  attempt 1 ops failed   -> failed 1 ops
         at 02:00  usage acme calls -20   -> ok high acme, notify 2 resolved after 1, dropped 2 ops",
    );
    check(
        "engine 3
         quota acme calls 100 month
         alert high  quota_percent > 85
         at 01:00  usage acme calls 90    -> firing high acme, notify 1 firing
         at 01:01  attempt 1 ops unanswered -> failed 1 ops
         at 02:00  usage acme calls -20   -> ok high acme, notify 2 resolved after 1
         sends                            -> 2 ops after 1",
    );
}

#[test]
fn a_flapping_instance_leaves_its_newest_message() {
    check(
        "engine 3
         quota acme calls 100 month
         alert high  quota_percent > 85
         at 01:00  usage acme calls 90    -> firing high acme, notify 1 firing
         at 02:00  usage acme calls -20   -> ok high acme, notify 2 resolved after 1, superseded 1 ops
         at 03:00  usage acme calls 20    -> firing high acme, notify 3 firing, superseded 2 ops
         at 04:00  usage acme calls -20   -> ok high acme, notify 4 resolved after 3, superseded 3 ops
         owes                             -> 4 ops waits since 01:00
         at 04:01  attempt 1 ops unsent   -> dropped 4 ops
         owes
         at 05:00  usage acme calls 20    -> firing high acme, notify 5 firing
         owes                             -> 5 ops since 01:00
         at 05:01  attempt 5 ops delivered -> delivered 5 ops
         at 06:00  usage acme calls -20   -> ok high acme, notify 6 resolved after 5
         owes                             -> 6 ops
         at 06:01  attempt 6 ops delivered -> delivered 6 ops",
    );
    // What came to nothing long ago is no part of it.
    check(
        "engine 3
         quota acme calls 100 month
         alert high  quota_percent > 85
         at 01:00  usage acme calls 90    -> firing high acme, notify 1 firing
         at 02:00  usage acme calls -20   -> ok high acme, notify 2 resolved after 1, superseded 1 ops
         at 02:01  attempt 1 ops unsent   -> dropped 2 ops
         at 20:00  usage acme calls 20    -> firing high acme, notify 3 firing
         owes                             -> 3 ops",
    );
}

#[test]
fn corrections_stand_apart() {
    check(
        "engine 3
         alert spike  sum(\"calls\") > 100
         usage acme calls 1
         at 06:00  usage acme calls 150   -> firing spike acme, notify 1 firing
         at 06:01  attempt 1 ops delivered -> delivered 1 ops
         at 15:30  tick                   -> ok spike acme, notify 2 resolved after 1
         at 17:00  usage acme calls -100 at 06:30  -> ok spike acme retraction, notify 3 corrected after 1
         sends                            -> 2 ops after 1, 3 ops after 1",
    );
    // Of a firing that never left nothing is taken back.
    check(
        "engine 3
         alert spike  sum(\"calls\") > 100
         usage acme calls 1
         at 06:00  usage acme calls 150   -> firing spike acme, notify 1 firing
         at 15:30  tick                   -> ok spike acme, notify 2 resolved after 1, superseded 1 ops
         at 15:31  attempt 1 ops unsent   -> dropped 2 ops
         at 17:00  usage acme calls -100 at 06:30
           -> ok spike acme retraction, notify 3 corrected after 1, dropped 3 ops",
    );
}

#[test]
fn a_channel_that_the_alert_has_left_hears_the_resolve() {
    check(
        "engine 3
         quota acme calls 100 month
         alert high  quota_percent > 85
         at 01:00  usage acme calls 90    -> firing high acme, notify 1 firing
         at 01:01  attempt 1 ops delivered -> delivered 1 ops
         at 02:00  usage acme calls -20   -> ok high acme, notify 2 resolved after 1
         at 02:01  attempt 2 ops retry    -> retries 2 ops
         at 02:30  edit high  quota_percent > 85 | to dev
         at 03:00  usage acme calls 20    -> firing high acme, notify 3 firing to dev
         at 03:01  attempt 3 dev delivered -> delivered 3 dev
         at 04:00  usage acme calls -20
           -> ok high acme, notify 4 resolved after 3 to ops+dev, superseded 2 ops",
    );
}

#[test]
fn an_upgrade_keeps_what_is_pending_and_pages_nobody() {
    check(
        "quota acme calls 100 month
         alert high  quota_percent > 85
         at 01:00  usage acme calls 90    -> firing high acme, notify 1 firing
         at 01:01  attempt 1 ops delivered -> delivered 1 ops
         at 02:00  engine 3
         at 03:00  usage acme calls -20   -> ok high acme, notify 2 resolved after 1
         sends                            -> 2 ops after 1",
    );
    check(
        "alert spike  sum(\"calls\") > 100
         usage acme calls 150             -> firing spike acme, notify 1 firing
         at 05:30  tick
         at 10:30  tick                   -> ok spike acme, notify 2 resolved after 1
         owes                             -> 1 ops, 2 ops waits
         at 11:00  engine 3               -> superseded 1 ops, released 2 ops
         owes                             -> 2 ops waits
         at 11:01  attempt 1 ops unsent   -> dropped 2 ops
         owes",
    );
}

#[test]
fn catching_up_ends_with_one_message_about_each() {
    // `for` ran out while nothing was processed; the customer has stopped.
    check(
        "engine 3
         delivers
         quota acme calls 100 month
         alert high  quota_percent > 85 | for 10m
         at 01:00  usage acme calls 90    -> pending high acme
         at 02:00:00  tick
           -> firing high acme held @11:00, firing high acme caught_up, notify 1 firing meanwhile 1",
    );
    // A silence ended meanwhile.
    check(
        "engine 3
         delivers
         quota acme calls 100 month
         alert high  quota_percent > 85
         silence 1 name=high until 10:00
         at 01:00  usage acme calls 90    -> firing high acme
         at 02:00:00  tick                -> firing high acme silence_ended, notify 1 firing",
    );
    // Repeats of the gap are one.
    check(
        "engine 3
         delivers
         alert busy  sum(\"calls\") >= 0 | repeat 20m
         usage acme calls 0               -> firing busy acme, notify 1 firing
         at 02:10:00  tick                -> firing busy acme repeat @02:00:00, notify 2 firing after 1",
    );
    // A pause ended meanwhile.
    check(
        "engine 3
         delivers
         quota acme calls 100 month
         alert high  quota_percent > 85
         at 01:00  pause high until 10:00
         at 02:00  usage acme calls 90
         at 02:00:00  tick
           -> firing high acme @10:00, firing high acme caught_up, notify 1 firing meanwhile 1",
    );
    // A firing that was told ended meanwhile.
    check(
        "engine 3
         delivers
         alert spike  sum(\"calls\") > 100
         usage acme calls 1
         at 05:30  tick
         at 06:00  usage acme calls 150   -> firing spike acme, notify 1 firing
         at 02:00:00  tick                -> ok spike acme @15:30, ok spike acme caught_up @01:45:30, notify 2 resolved after 1",
    );
}

#[test]
fn an_upgrade_loses_no_closing_word() {
    // The firing arrived, its resolve could not be sent.
    check(
        "quota acme calls 100 month
         alert high  quota_percent > 85
         at 01:00  usage acme calls 90    -> firing high acme, notify 1 firing
         at 01:01  attempt 1 ops delivered -> delivered 1 ops
         at 02:00  usage acme calls -20   -> ok high acme, notify 2 resolved after 1
         at 02:01  attempt 2 ops retry    -> retries 2 ops
         at 03:00  engine 3
         sends                            -> 2 ops after 1
         at 03:01  attempt 2 ops delivered -> delivered 2 ops
         at 04:00  usage acme calls 20    -> firing high acme, notify 3 firing
         sends                            -> 3 ops",
    );
    // The window closes in the record of the upgrade itself.
    check(
        "alert spike  sum(\"calls\") > 100
         usage acme calls 1
         at 05:30  tick
         at 06:00  usage acme calls 150   -> firing spike acme, notify 1 firing
         at 06:01  attempt 1 ops delivered -> delivered 1 ops
         at 15:30  engine 3               -> ok spike acme, notify 2 resolved after 1
         sends                            -> 2 ops after 1",
    );
    // A firing follows at once: it takes the place of the resolve, and its own closes both.
    check(
        "quota acme calls 100 month
         alert high  used(\"calls\") > 85
         at 01:00  usage acme calls 90    -> firing high acme, notify 1 firing
         at 01:01  attempt 1 ops delivered -> delivered 1 ops
         at 02:00  usage acme calls -20   -> ok high acme, notify 2 resolved after 1
         at 02:01  attempt 2 ops retry    -> retries 2 ops
         at 03:00  engine 3
         at 04:00  usage acme calls 20    -> firing high acme, notify 3 firing, superseded 2 ops
         at 04:01  attempt 2 ops unsent   -> released 3 ops
         sends                            -> 3 ops after 1",
    );
}

#[test]
fn catching_up_ends_in_the_record_of_an_upgrade_too() {
    check(
        "delivers
         quota acme calls 100 month
         alert high  quota_percent > 85 | for 10m
         alert held  quota_percent > 80
         silence 1 name=held until 10:00
         at 01:00  usage acme calls 90    -> pending high acme, firing held acme
         at 02:00:00  engine 3
           -> firing high acme held @11:00, firing high acme caught_up, notify 1 firing meanwhile 1, firing held acme silence_ended, notify 2 firing",
    );
}

#[test]
fn a_stop_of_any_length_leaves_the_closing_word() {
    check(
        "engine 3
         delivers
         alert spike  sum(\"calls\") > 100
         usage acme calls 1
         at 05:30  tick
         at 06:00  usage acme calls 150   -> firing spike acme, notify 1 firing
         at 2200:00:00  tick
           -> ok spike acme @15:30, ok spike acme caught_up @91d15:45:30, notify 2 resolved after 1",
    );
}
