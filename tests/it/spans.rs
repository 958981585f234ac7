//! What `for` and `keep_firing_for` count, what a missing verdict means, and which windows an instance evaluates: engine
//! version 3.

use crate::script::check;

#[test]
fn for_counts_closed_windows_where_the_rule_reads_one() {
    // One burst is one window: `for: 5m` takes it, `for: 10m` does not.
    check(
        "engine 3
         delivers
         alert one  sum(\"calls\") > 100 | for 5m
         alert two  sum(\"calls\") > 100 | for 10m
         usage acme calls 1
         at 05:30  tick
         at 06:00  usage acme calls 500
         at 10:30  tick                   -> firing one acme held, notify 1 firing, pending two acme
         at 15:30  tick                   -> ok one acme, notify 2 resolved after 1, ok two acme",
    );
    check(
        "engine 3
         delivers
         alert two  sum(\"calls\") > 100 | for 6m
         usage acme calls 1
         at 05:30  tick
         at 06:00  usage acme calls 500
         at 10:30  tick                   -> pending two acme
         at 11:00  usage acme calls 500
         at 14:00  tick
         at 15:30  tick                   -> firing two acme held, notify 1 firing",
    );
    // A late event takes the newest window out of the row, or brings it in.
    check(
        "engine 3
         delivers
         alert two  sum(\"calls\") > 100 | for 10m
         usage acme calls 1
         at 05:30  tick
         at 06:00  usage acme calls 500
         at 10:30  tick                   -> pending two acme
         at 11:00  usage acme calls -450 at 07:00  -> ok two acme late
         at 12:00  usage acme calls 500
         at 13:00  usage acme calls 450 at 07:00   -> pending two acme late
         at 15:30  tick                   -> firing two acme held, notify 1 firing",
    );
    // Beside a quota, too: what the level does between two closes waits for the next.
    check(
        "engine 3
         delivers
         quota acme calls 1000 month
         alert both  sum > 100 && quota_percent > 50 | for 10m
         usage acme calls 1
         at 05:30  tick
         at 06:00  usage acme calls 600
         at 10:30  tick                   -> pending both acme
         at 11:00  usage acme calls 200
         at 15:30  tick                   -> firing both acme held, notify 1 firing",
    );
    // Rules that read no window go by the clock.
    check(
        "engine 3
         delivers
         quota acme calls 100 month
         alert high  quota_percent > 85 | for 7m
         at 01:00  usage acme calls 90    -> pending high acme
         at 08:00  tick                   -> firing high acme held, notify 1 firing",
    );
}

#[test]
fn keep_firing_for_counts_closed_windows_where_the_rule_reads_one() {
    check(
        "engine 3
         delivers
         alert busy  sum(\"calls\") > 100 | keep 10m
         usage acme calls 1
         at 05:30  tick
         at 06:00  usage acme calls 500   -> firing busy acme, notify 1 firing
         at 10:30  tick
         at 15:30  tick
         at 16:00  usage acme calls 500
         at 20:30  tick
         at 25:30  tick
         at 30:30  tick                   -> ok busy acme held, notify 2 resolved after 1",
    );
}

#[test]
fn a_missing_verdict_ends_pending_and_leaves_a_firing_alone() {
    check(
        "engine 3
         delivers
         alert ratio  sum(\"bad\") / sum(\"all\") > 0.5 | for 10m
         usage acme all 10
         at 05:30  tick
         at 06:00  usage acme all 10 + acme bad 9
         at 10:30  tick                   -> pending ratio acme
         at 15:30  tick                   -> inconclusive ratio acme
         at 20:00  usage acme all 10 + acme bad 9
         at 25:30  tick                   -> pending ratio acme
         at 26:00  usage acme all 10 + acme bad 9
         at 30:30  tick                   -> firing ratio acme held, notify 1 firing
         at 35:30  tick
         at 36:00  usage acme all 10
         at 40:30  tick                   -> ok ratio acme, notify 2 resolved after 1",
    );
    check(
        "engine 3
         delivers
         alert ratio  sum(\"bad\") / sum(\"all\") > 0.5 | inconclusive ok
         usage acme all 10
         at 05:30  tick
         at 06:00  usage acme all 10 + acme bad 9
         at 10:30  tick                   -> firing ratio acme, notify 1 firing
         at 15:30  tick                   -> inconclusive ratio acme inconclusive, notify 2 resolved after 1",
    );
}

#[test]
fn whatever_opened_something_is_closed() {
    check(
        "engine 3
         alert quiet  avg(\"calls\") > 100 | for 10m, no_data alert
         listen alert.*
         usage acme calls 1
         at 05:30  tick
         at 10:30  tick                   -> no_data quiet acme no_data, notify 1 no_data, told alert.no_data
         at 10:31  attempt 1 ops delivered -> delivered 1 ops
         at 11:00  usage acme calls 500
         at 15:30  tick                   -> pending quiet acme, told alert.pending
         at 16:00  usage acme calls 5
         at 20:30  tick
           -> ok quiet acme, notify 2 resolved after 1, told alert.resolved
         sends                            -> 2 ops after 1",
    );
    check(
        "engine 3
         alert quiet  avg(\"calls\") > 100 | no_data alert
         usage acme calls 1
         at 05:30  tick
         at 10:30  tick                   -> no_data quiet acme no_data, notify 1 no_data
         at 10:31  attempt 1 ops delivered -> delivered 1 ops
         at 11:00  usage acme calls 500
         at 15:30  tick                   -> firing quiet acme, notify 2 firing
         sends                            -> 2 ops after 1
         at 15:31  attempt 2 ops delivered -> delivered 2 ops
         at 16:00  usage acme calls 5
         at 20:30  tick                   -> ok quiet acme, notify 3 resolved after 2
         sends                            -> 3 ops after 2 closes 1+2",
    );
}

#[test]
fn a_quota_that_is_removed_ends_a_firing() {
    check(
        "engine 3
         delivers
         quota acme calls 100 month
         alert high  quota_percent > 85
         at 01:00  usage acme calls 90    -> firing high acme, notify 1 firing
         at 02:00  quota acme calls none
           -> ok high acme quota_removed, notify 2 resolved after 1, inconclusive high acme redefined",
    );
    // The quota of all takes the place of the account's own.
    check(
        "engine 3
         delivers
         quota acme calls 100 month
         quota * calls 50 month
         alert high  quota_percent > 85
         at 01:00  usage acme calls 90    -> firing high acme, notify 1 firing
         at 02:00  quota acme calls none  -> firing high acme redefined, notify 2 firing after 1
         at 03:00  quota * calls none
           -> ok high acme quota_removed, notify 3 resolved after 1, inconclusive high acme redefined",
    );
}

#[test]
fn no_window_that_ended_before_an_alert_was_made_is_evaluated() {
    // Nor is the close of the window that holds the moment.
    check(
        "engine 3
         delivers
         usage acme calls 1
         at 12:00  alert none  count(\"calls\") == 0 | on acme
         at 12:00  alert quiet  avg(\"calls\") > 1 | on acme, no_data alert
         at 15:30  tick
         at 20:30  tick
           -> firing none acme, notify 1 firing, no_data quiet acme no_data, notify 2 no_data",
    );
    // For all accounts, the moment is the account's first event.
    check(
        "engine 3
         delivers
         alert low  sum(\"calls\") < 5 | on *
         at 02:00  usage acme calls 1
         at 05:30  tick
         at 10:30  tick                   -> firing low acme, notify 1 firing",
    );
    // That window may fire early, and is then evaluated like any other.
    check(
        "engine 3
         delivers
         at 11:00  usage acme calls 150
         at 12:00  alert busy  sum(\"calls\") > 100 | on acme -> firing busy acme, notify 1 firing
         at 15:30  tick
         at 20:30  tick                   -> ok busy acme, notify 2 resolved after 1",
    );
    // An edit and a resume are evaluated at once.
    check(
        "engine 3
         delivers
         alert busy  sum(\"calls\") > 100 | on acme
         usage acme calls 1
         at 05:30  tick
         at 06:00  usage acme calls 50
         at 10:30  tick
         at 11:00  edit busy  sum(\"calls\") > 40 | on acme  -> firing busy acme edited, notify 1 firing",
    );
}

#[test]
fn an_edit_of_spans_keeps_the_windows_that_were_counted() {
    let begin = |span: &str| {
        let mut script = format!(
            "engine 3
             delivers
             alert busy  sum(\"calls\") > 100 | {span}
             usage acme calls 1
             at 05:30  tick
            "
        );
        for window in 1..=3 {
            let pending = if window == 1 { "-> pending busy acme" } else { "" };
            script.push_str(&format!(
                "at {:02}:00  usage acme calls 500\n at {:02}:30  tick {pending}\n",
                window * 5 + 1,
                window * 5 + 5
            ));
        }
        script
    };
    let next = "at 21:00  usage acme calls 500\n at 25:30  tick";
    // Other options leave `for` alone.
    for other in ["for 20m, keep 5m", "for 20m, recover sum(\"calls\") < 10"] {
        check(&format!(
            "{}  at 20:40  edit busy  sum(\"calls\") > 100 | {other}
             {next}  -> firing busy acme held, notify 1 firing",
            begin("for 20m")
        ));
    }
    // A span that is met by the edit is over.
    check(&format!(
        "{}  at 20:40  edit busy  sum(\"calls\") > 100 | for 15m
           -> firing busy acme held, notify 1 firing",
        begin("for 1h")
    ));
    // Another condition begins anew.
    check(&format!(
        "{}  at 20:40  edit busy  sum(\"calls\") > 200 | for 20m
         {next}",
        begin("for 20m")
    ));
    // The windows towards the end of a firing stay as well, unless it is another end.
    let fading = "engine 3
         delivers
         alert busy  sum(\"calls\") > 100 | keep 15m
         usage acme calls 1
         at 05:30  tick
         at 06:00  usage acme calls 500   -> firing busy acme, notify 1 firing
         at 15:30  tick
         at 20:30  tick
        ";
    check(&format!(
        "{fading}  at 20:40  edit busy  sum(\"calls\") > 100 | for 10m, keep 15m
         at 25:30  tick  -> ok busy acme held, notify 2 resolved after 1"
    ));
    check(&format!(
        "{fading}  at 20:40  edit busy  sum(\"calls\") > 100 | keep 15m, recover sum(\"calls\") < 10
         at 25:30  tick
         at 30:30  tick  -> ok busy acme held, notify 2 resolved after 1"
    ));
}

#[test]
fn what_ends_a_firing_is_known_to_snapshots_before_it_does_anything() {
    // Behind the last line the log is folded with a restart behind each record, too.
    check(
        "engine 2
         delivers
         alert ratio  sum(\"bad\") / sum(\"all\") > 0.5 | inconclusive ok
         usage acme all 10 + acme bad 9   -> inconclusive ratio acme
         at 05:30  tick                   -> firing ratio acme, notify 1 firing
         at 06:00  engine 3
         at 10:30  tick                   -> inconclusive ratio acme inconclusive, notify 2 resolved after 1",
    );
}
