//! What a channel lost, and hears once it takes messages again; and what one hears that an edit adds.

use crate::script::check;

#[test]
fn a_repaired_channel_hears_how_things_stand() {
    // What it lost still fires: the same message, once.
    check(
        "engine 3
         alert busy  sum(\"calls\") > 10
         at 01:00  usage acme calls 20     -> firing busy acme, notify 1 firing
         at 01:01  attempt 1 ops failed    -> failed 1 ops
         at 02:00  repair dev
         at 02:00  repair ops              -> retries 1 ops
         owes                              -> 1 ops
         at 02:01  attempt 1 ops delivered -> delivered 1 ops
         at 03:00  repair ops
         at 10:30  tick                    -> ok busy acme, notify 2 resolved after 1
         at 10:31  attempt 2 ops delivered -> delivered 2 ops",
    );
    // What ended meanwhile says nothing to who never heard of it.
    check(
        "engine 3
         alert busy  sum(\"calls\") > 10
         at 01:00  usage acme calls 20     -> firing busy acme, notify 1 firing
         at 01:01  attempt 1 ops failed    -> failed 1 ops
         at 10:30  tick                    -> ok busy acme, notify 2 resolved after 1, dropped 2 ops
         at 11:00  repair ops
         owes",
    );
    // Who heard of the firing hears of its end, also of an alert that is gone by then.
    check(
        "engine 3
         alert busy  sum(\"calls\") > 10
         at 01:00  usage acme calls 20     -> firing busy acme, notify 1 firing
         at 01:01  attempt 1 ops delivered -> delivered 1 ops
         at 02:00  delete busy             -> ok busy acme deleted, notify 2 resolved after 1
         at 02:01  attempt 2 ops failed    -> failed 2 ops
         at 03:00  repair ops              -> retries 2 ops
         at 03:01  attempt 2 ops delivered -> delivered 2 ops
         at 04:00  repair ops",
    );
    // What waits for a retry is not heard, either.
    check(
        "engine 3
         alert busy  sum(\"calls\") > 10
         at 01:00  usage acme calls 20     -> firing busy acme, notify 1 firing
         at 01:01  attempt 1 ops retry     -> retries 1 ops
         at 01:02  repair ops              -> retries 1 ops
         at 01:02  repair ops
         at 01:03  attempt 1 ops delivered -> delivered 1 ops",
    );
    // A newer message that arrived tells more than one that was lost.
    check(
        "engine 3
         alert busy  sum(\"calls\") > 10 | repeat 1m
         at 01:00  usage acme calls 20     -> firing busy acme, notify 1 firing
         at 01:01  attempt 1 ops failed    -> failed 1 ops
         at 02:00  tick                    -> firing busy acme repeat, notify 2 firing after 1
         at 02:01  attempt 2 ops delivered -> delivered 2 ops
         at 02:30  repair ops",
    );
    // Each is lost again, and told again.
    check(
        "engine 3
         alert busy  sum(\"calls\") > 10
         at 01:00  usage acme calls 20     -> firing busy acme, notify 1 firing
         at 01:01  attempt 1 ops failed    -> failed 1 ops
         at 02:00  repair ops              -> retries 1 ops
         at 02:01  attempt 1 ops failed    -> failed 1 ops
         at 03:00  repair ops              -> retries 1 ops",
    );
}

#[test]
fn a_silence_holds_what_a_channel_lost() {
    check(
        "engine 3
         alert busy  sum(\"calls\") > 10
         at 01:00  usage acme calls 20     -> firing busy acme, notify 1 firing
         at 01:01  attempt 1 ops failed    -> failed 1 ops
         at 01:02  silence 1 name=busy until 03:00
         at 02:00  repair ops
         at 03:00  tick                    -> retries 1 ops
         at 03:01  repair ops",
    );
    // The channel was not repaired by then.
    check(
        "engine 3
         alert busy  sum(\"calls\") > 10
         at 01:00  usage acme calls 20     -> firing busy acme, notify 1 firing
         at 01:01  attempt 1 ops failed    -> failed 1 ops
         at 01:02  silence 1 name=busy until 03:00
         at 03:00  tick
         at 03:01  repair ops              -> retries 1 ops",
    );
    // Another silence still holds it; what ended meanwhile is not said.
    check(
        "engine 3
         alert busy  sum(\"calls\") > 10
         at 01:00  usage acme calls 20     -> firing busy acme, notify 1 firing
         at 01:01  attempt 1 ops failed    -> failed 1 ops
         at 01:02  silence 1 name=busy until 03:00
         at 01:03  silence 2 name=busy until 12:00
         at 02:00  repair ops
         at 03:00  tick
         at 10:30  tick                    -> ok busy acme, notify 2 resolved after 1, dropped 2 ops
         at 12:00  tick",
    );
}

#[test]
fn a_channel_that_an_edit_adds_hears_what_fires() {
    check(
        "engine 3
         alert busy  sum(\"calls\") > 10
         at 01:00  usage acme calls 20     -> firing busy acme, notify 1 firing
         at 01:01  attempt 1 ops delivered -> delivered 1 ops
         at 02:00  edit busy  sum(\"calls\") > 10 | to ops+dev
                   -> firing busy acme channel_added, notify 2 firing after 1 to dev
         at 02:01  attempt 2 dev delivered -> delivered 2 dev
         at 03:00  edit busy  sum(\"calls\") > 10 | to ops+dev
         at 10:30  tick                    -> ok busy acme, notify 3 resolved after 1 to ops+dev",
    );
    // A silence holds it until it ends.
    check(
        "engine 3
         delivers
         alert busy  sum(\"calls\") > 10
         at 01:00  usage acme calls 20     -> firing busy acme, notify 1 firing
         at 01:02  silence 1 name=busy until 03:00
         at 02:00  edit busy  sum(\"calls\") > 10 | to ops+dev
         at 03:00  tick  -> firing busy acme channel_added, notify 2 firing after 1 to dev",
    );
    // What is silenced, or does not fire, is told to nobody; nor is what the edit itself makes fire told twice.
    check(
        "engine 3
         alert busy  sum(\"calls\") > 30
         silence 1 account_id=zen until 50:00
         at 01:00  usage acme calls 20 + zen calls 40 -> firing busy zen
         at 02:00  edit busy  sum(\"calls\") > 30 | to ops+dev
         at 03:00  edit busy  sum(\"calls\") > 10 | to ops+dev+web
                   -> firing busy acme edited, notify 1 firing to ops+dev+web",
    );
}

#[test]
fn a_message_is_sent_again_when_somebody_asks() {
    check(
        "engine 3
         listen delivery.*
         alert busy  sum(\"calls\") > 10
         at 01:00  usage acme calls 20     -> firing busy acme, notify 1 firing
         at 01:01  attempt 1 ops failed    -> failed 1 ops, told delivery.exhausted
         at 02:00  redeliver 1 ops         -> retries 1 ops
         at 02:01  redeliver 1 ops         -> retries 1 ops
         at 02:02  attempt 1 ops delivered -> delivered 1 ops
         at 02:03  redeliver 1 ops         -> retries 1 ops
         at 02:04  attempt 1 ops retry     -> retries 1 ops
         at 02:05  attempt 1 ops delivered -> delivered 1 ops",
    );
}

#[test]
fn a_log_of_an_earlier_version_sends_nothing_of_it() {
    check(
        "engine 2
         listen delivery.*
         alert busy  sum(\"calls\") > 10
         at 01:00  usage acme calls 20     -> firing busy acme, notify 1 firing
         at 01:01  attempt 1 ops failed    -> failed 1 ops
         at 02:00  repair ops
         at 02:01  redeliver 1 ops
         at 03:00  edit busy  sum(\"calls\") > 10 | to ops+dev",
    );
}

#[test]
fn a_lost_resolve_is_told_whatever_quiet_state_followed() {
    // No data came after it, about which nobody is told.
    check(
        "engine 3
         alert busy  sum(\"calls\") > 10 | keep 1s
         usage acme calls 1
         at 05:30  tick
         at 06:00  usage acme calls 20     -> firing busy acme, notify 1 firing
         at 06:01  attempt 1 ops delivered -> delivered 1 ops
         at 11:00  usage acme calls 1
         at 15:30  tick                    -> ok busy acme held, notify 2 resolved after 1
         at 15:31  attempt 2 ops failed    -> failed 2 ops
         at 20:30  tick
         at 21:00  repair ops              -> retries 2 ops",
    );
    check(
        "engine 3
         alert most  max(\"calls\") > 10
         usage acme calls 1
         at 05:30  tick
         at 06:00  usage acme calls 20     -> firing most acme, notify 1 firing
         at 06:01  attempt 1 ops delivered -> delivered 1 ops
         at 15:30  tick                    -> no_data most acme no_data, notify 2 resolved after 1
         at 15:31  attempt 2 ops failed    -> failed 2 ops
         at 16:00  repair ops              -> retries 2 ops",
    );
    // A silence holds the next firing, which ends without having been told: its end closes the earlier one.
    let begin = "engine 3
         quota acme calls 100 month
         alert high  quota_percent > 85
         at 01:00  usage acme calls 90     -> firing high acme, notify 1 firing
         at 01:01  attempt 1 ops delivered -> delivered 1 ops
         at 02:00  usage acme calls -20    -> ok high acme, notify 2 resolved after 1
         at 02:01  attempt 2 ops failed    -> failed 2 ops
         silence 1 name=high until 10:00
         at 03:00  usage acme calls 20     -> firing high acme
         at 04:00  repair ops
        ";
    check(&format!(
        "{begin}  at 05:00  usage acme calls -20  -> ok high acme, notify 3 resolved after 1
         sends                             -> 3 ops after 1
         at 05:01  attempt 3 ops delivered -> delivered 3 ops
         at 10:00  tick
         at 11:00  repair ops"
    ));
    // Where it is told in the end, that says more than the lost one.
    check(&format!(
        "{begin}  at 10:00  tick  -> firing high acme silence_ended, notify 3 firing
         sends                             -> 3 ops after 1
         at 10:01  attempt 3 ops delivered -> delivered 3 ops
         at 11:00  repair ops"
    ));
}

#[test]
fn an_edit_that_takes_an_alert_out_of_a_silence_sends_what_was_held() {
    check(
        "engine 3
         delivers
         alert busy  sum(\"calls\") > 10 | label team=x
         silence 1 team=x until 50:00
         at 01:00  usage acme calls 20     -> firing busy acme
         at 02:00  edit busy  sum(\"calls\") > 10 | label team=y
           -> firing busy acme silence_ended, notify 1 firing",
    );
    // Of what a channel lost, too.
    check(
        "engine 3
         alert busy  sum(\"calls\") > 10 | label team=x
         at 01:00  usage acme calls 20     -> firing busy acme, notify 1 firing
         at 01:01  attempt 1 ops failed    -> failed 1 ops
         silence 1 team=x until 50:00
         at 02:00  repair ops
         at 03:00  edit busy  sum(\"calls\") > 10 | label team=y  -> retries 1 ops",
    );
}

#[test]
fn a_channel_that_comes_back_to_an_alert_hears_what_it_lost() {
    check(
        "engine 3
         alert busy  sum(\"calls\") > 10 | to ops+dev
         at 01:00  usage acme calls 20     -> firing busy acme, notify 1 firing to ops+dev
         at 01:01  attempt 1 ops delivered -> delivered 1 ops
         at 01:01  attempt 1 dev failed    -> failed 1 dev
         at 02:00  edit busy  sum(\"calls\") > 10 | to ops
         at 03:00  edit busy  sum(\"calls\") > 10 | to ops+dev
           -> firing busy acme channel_added, notify 2 firing after 1 to dev
         at 03:01  attempt 2 dev delivered -> delivered 2 dev
         at 04:00  repair dev",
    );
}

#[test]
fn what_no_longer_says_how_things_stand_is_not_sent_again() {
    check(
        "engine 3
         quota acme calls 100 month
         alert high  quota_percent > 85
         at 01:00  usage acme calls 90     -> firing high acme, notify 1 firing
         at 01:01  attempt 1 ops delivered -> delivered 1 ops
         at 02:00  usage acme calls -20    -> ok high acme, notify 2 resolved after 1
         at 02:01  attempt 2 ops delivered -> delivered 2 ops
         at 02:02  redeliver 1 ops
         at 02:03  redeliver 2 ops         -> retries 2 ops
         at 02:04  attempt 2 ops delivered -> delivered 2 ops
         at 03:00  usage acme calls 20     -> firing high acme, notify 3 firing
         at 03:01  attempt 3 ops delivered -> delivered 3 ops
         at 03:02  redeliver 2 ops
         at 04:00  usage acme calls -20    -> ok high acme, notify 4 resolved after 3
         sends                             -> 4 ops after 3",
    );
}

#[test]
fn a_channel_that_was_deleted_loses_nothing() {
    check(
        "engine 3
         listen delivery.*
         alert busy  sum(\"calls\") > 10 | to ops+dev
         at 01:00  usage acme calls 20     -> firing busy acme, notify 1 firing to ops+dev
         at 01:01  attempt 1 ops delivered -> delivered 1 ops
         at 01:01  attempt 1 dev delivered -> delivered 1 dev
         at 02:00  edit busy  sum(\"calls\") > 10 | to ops
         at 10:30  tick                    -> ok busy acme, notify 2 resolved after 1 to ops+dev
         at 10:31  attempt 2 dev deleted   -> dropped 2 dev
         at 10:31  attempt 2 ops delivered -> delivered 2 ops
         at 11:00  usage acme calls 20     -> firing busy acme, notify 3 firing
         at 11:01  attempt 3 ops delivered -> delivered 3 ops
         at 20:30  tick                    -> ok busy acme, notify 4 resolved after 3",
    );
}
