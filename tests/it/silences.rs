//! What silences do to messages, and what they do not do to states.

use crate::log::{Kind, Log, MIDNIGHT, Usage, fold, frame, tenant};
use crate::script::check;
use crate::words;
use highwater::domain::control::outcome::Change;
use highwater::domain::definition::{MatchOp, Matcher, Silence};
use highwater::domain::id::SilenceId;
use highwater::domain::partition::effect::{Effects, State, TransitionRow};
use highwater::domain::partition::fact::Note;
use highwater::domain::partition::notification::{Notification, NotificationKind};
use highwater::domain::quantity::Quantity;
use highwater::domain::time::{Millis, Timestamp};
use proptest::prelude::*;
use std::ops::Range;

#[test]
fn a_silence_that_begins_later_holds_from_then_on() {
    check(
        "alert busy  sum(\"calls\") > 10 | repeat 2m
         silence 1 account_id=acme from 02:00 until 06:00
         at 01:00  usage acme calls 20    -> firing busy acme, notify 1 firing
         show busy                        -> acme firing 20
         at 02:00  tick
         show busy                        -> acme firing 20 silenced
         at 03:00  tick
         at 05:00  tick
         at 06:00  tick
         show busy                        -> acme firing 20
         at 07:00  tick                   -> firing busy acme repeat, notify 2 firing after 1
         at 10:30  tick
           -> firing busy acme repeat @09:00, notify 3 firing after 1, ok busy acme, notify 4 resolved after 1",
    );
    // Two silences, one behind the other, hold as one.
    check(
        "alert busy  sum(\"calls\") > 10
         silence 1 name=busy until 02:00
         silence 2 name=busy from 02:00 until 03:00
         at 01:00  usage acme calls 20    -> firing busy acme
         at 02:00  tick
         at 03:00  tick                   -> firing busy acme silence_ended, notify 1 firing",
    );
    // Moved before it began, and given up before it began.
    check(
        "alert busy  sum(\"calls\") > 10
         silence 1 name=busy from 20:00 until 30:00
         silence 1 name=busy from 00:30 until 02:00
         silence 2 name=busy from 20:00 until 30:00
         unsilence 2
         at 01:00  usage acme calls 20    -> firing busy acme
         show busy                        -> acme firing 20 silenced
         at 02:00  tick                   -> firing busy acme silence_ended, notify 1 firing
         at 21:00  tick                   -> ok busy acme @10:30, notify 2 resolved after 1",
    );
    // A sandbox's clock that is put forward passes beginnings, too.
    check(
        "alert busy  sum(\"calls\") > 10 | repeat 1h
         silence 1 name=busy from 02:00 until 50:00
         at 01:00  usage acme calls 20    -> firing busy acme, notify 1 firing
         advance 2m
         show busy                        -> acme firing 20 silenced",
    );
}

#[test]
fn missing_data_that_a_silence_held_is_told_when_it_ends() {
    check(
        "silence 1 name=mean until 12:00
         alert mean  avg(\"calls\") > 10 | no_data alert
         at 01:00  usage acme calls 2     -> no_data mean acme no_data
         at 05:30  tick                   -> ok mean acme
         at 10:30  tick                   -> no_data mean acme no_data
         at 12:00  tick                   -> no_data mean acme silence_ended, notify 1 no_data
         at 12:10  usage acme calls 2
         at 15:30  tick                   -> ok mean acme, notify 2 resolved after 1",
    );
    // Back before the silence ends: nothing is told.
    check(
        "silence 1 name=mean until 04:00
         alert mean  avg(\"calls\") > 10 | no_data alert
         at 01:00  usage acme calls 2     -> no_data mean acme no_data
         at 02:00  pause mean             -> ok mean acme paused
         at 04:00  tick",
    );
}

#[test]
fn a_matcher_looks_at_every_metric_that_the_rule_names() {
    // The rule names all of its metrics, so the instance has none of its own.
    check(
        "engine 3
         alert paid  sum(\"pay\") > 10 && count(\"refunds\") >= 0
         silence 1 metric=pay until 02:00
         at 01:00  usage acme pay 20      -> firing paid acme
         show paid                        -> acme firing 20 silenced
         at 02:00  tick                   -> firing paid acme silence_ended, notify 1 firing",
    );
    check(
        "engine 3
         alert paid  sum(\"pay\") > 10 && count(\"refunds\") >= 0
         silence 1 metric!=refunds name=paid until 02:00
         silence 2 metric!~other|ref.* name=paid until 02:00
         silence 3 metric=~other|paying until 02:00
         at 01:00  usage acme pay 20      -> firing paid acme, notify 1 firing
         silence 4 metric=~ref.* until 02:00
         show paid                        -> acme firing 20 silenced",
    );
    // Beside its own metric, those that are named count.
    check(
        "engine 3
         alert more  sum > 10 && sum(\"base\") >= 0 | on acme/calls
         silence 1 metric=base until 09:00
         at 01:00  usage acme calls 20    -> firing more acme
         show more                        -> acme firing 20 silenced",
    );
}

#[test]
fn an_expression_that_no_longer_compiles_holds_nothing() {
    // No release takes it today; one that did may have stored it.
    check(
        "engine 3
         alert busy  sum(\"calls\") > 10
         silence 1 account_id=acme team!~( until 02:00
         at 01:00  usage acme calls 20    -> firing busy acme, notify 1 firing
         show busy                        -> acme firing 20",
    );
}

#[test]
fn a_log_of_an_earlier_release_is_folded_as_it_was() {
    check(
        "alert paid  sum(\"pay\") > 10
         alert busy  sum(\"calls\") > 10
         silence 1 metric=pay until 20:00
         silence 2 name=busy team!~( until 20:00
         at 01:00  usage acme pay 20      -> firing paid acme, notify 1 firing
         at 01:10  usage acme calls 20    -> firing busy acme
         show paid                        -> acme firing 20
         show busy                        -> acme firing 20 silenced
         # The upgrade tells nobody anything, and shows what holds from here on.
         at 02:00  engine 3
         show paid                        -> acme firing 20 silenced
         show busy                        -> acme firing 20",
    );
    // A silence that holds everything goes on to do so.
    check(
        "engine 3
         alert busy  sum(\"calls\") > 10
         silence 1 team=~.* until 02:00
         at 01:00  usage acme calls 20    -> firing busy acme
         at 02:00  tick                   -> firing busy acme silence_ended, notify 1 firing",
    );
}

#[test]
fn expressions_match_whole_texts() {
    let matcher = |value: &str| Matcher { name: "metric".to_owned(), value: value.to_owned(), op: MatchOp::Matches };
    for (value, text, matches) in [
        ("api", "api.calls", false),
        ("api.*", "api.calls", true),
        ("a|api.calls", "api.calls", true),
        ("a|api", "api.calls", false),
        ("(?i)API\\.CALLS", "api.calls", true),
        ("", "", true),
        ("(a+)+", &"a".repeat(5_000), true),
    ] {
        assert_eq!(matcher(value).expression().unwrap().is_match(text), matches, "{value}");
    }
    for refused in ["a)|(b", "(", "(?:a{1000}){1000}", "a{1000}{1000}", "\\1", "(?=a)"] {
        assert!(matcher(refused).expression().is_err(), "{refused}");
    }
}

const NOON: Timestamp = Timestamp(MIDNIGHT.0 + 12 * 3_600_000);
const MINUTES: i64 = 60;

/// What happens at a minute. Bounds of silences lie beside the minutes, so that none coincides with anything else.
#[derive(Clone, Debug)]
enum Act {
    Tick,
    Usage,
    Silence { id: u128, from: i64, minutes: i64 },
    Unsilence(u128),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => Just(Act::Tick),
        3 => Just(Act::Usage),
        2 => (1_u128..4, -3_i64..8, 1_i64..15).prop_map(|(id, from, minutes)| Act::Silence { id, from, minutes }),
        1 => (1_u128..4).prop_map(Act::Unsilence),
    ];
    prop::collection::vec(act, MINUTES as usize)
}

struct Told {
    transitions: Vec<TransitionRow>,
    notifications: Vec<Notification>,
}

fn minute(n: i64) -> Timestamp {
    NOON.plus(Millis::minutes(n))
}

/// Folds what happens; returns with it what was covered by which silence.
fn run(acts: &[Act], silences: bool) -> (Told, Vec<Range<Timestamp>>) {
    let (mut log, mut covered) = (Log::default(), Vec::new());
    let mut running: [Option<Range<Timestamp>>; 4] = [const { None }; 4];
    let definition = words::alert("busy", 1, 1, "sum(\"calls\") > 10 | repeat 30d", &["ops"]);
    log.change(NOON, vec![Change::Alert { tenant: tenant(), definition: Box::new(definition) }]);
    let mut end = |slot: &mut Option<Range<Timestamp>>, now: Timestamp| {
        if let Some(span) = slot.take().filter(|span| span.start < now) {
            covered.push(span.start..span.end.min(now));
        }
    };
    for (n, act) in (1..).zip(acts) {
        let now = minute(n);
        let change = match act {
            Act::Usage => {
                let usage = Usage::new("acme", "calls", Quantity::whole(20), &format!("e{n}"));
                log.push(now, frame(now, &[usage], Kind::Ordinary));
                continue;
            }
            Act::Silence { id, from, minutes } => {
                let starts_at = minute(n + from).plus(Millis::seconds(7));
                let ends_at = starts_at.plus(Millis::minutes(*minutes));
                let slot = &mut running[*id as usize];
                end(slot, now);
                *slot = (ends_at > now).then(|| starts_at.max(now)..ends_at);
                let matcher = Matcher { name: "name".to_owned(), value: "bu.y".to_owned(), op: MatchOp::Matches };
                let silence = Silence { id: SilenceId(*id), matchers: vec![matcher], starts_at, ends_at };
                Change::Silence { tenant: tenant(), silence }
            }
            Act::Unsilence(id) => {
                end(&mut running[*id as usize], now);
                Change::SilenceDeleted { tenant: tenant(), silence: SilenceId(*id) }
            }
            Act::Tick => {
                log.note(now, &Note::Ticked { intake_through: None });
                continue;
            }
        };
        if silences {
            log.change(now, vec![change]);
        } else {
            log.note(now, &Note::Ticked { intake_through: None });
        }
    }
    for n in MINUTES + 1..MINUTES + 30 {
        log.note(minute(n), &Note::Ticked { intake_through: None });
    }
    running.iter_mut().for_each(|slot| end(slot, minute(MINUTES + 30)));
    let mut effects = Effects::default();
    fold().take(&log.records, &mut effects).unwrap();
    (Told { transitions: effects.transitions, notifications: effects.notifications }, covered)
}

/// Whether every instant of a span is covered.
fn is_covered(covered: &[Range<Timestamp>], span: &Range<Timestamp>) -> bool {
    let mut reached = span.start;
    while let Some(next) = covered.iter().filter(|c| c.start <= reached && reached < c.end).map(|c| c.end).max() {
        reached = next;
        if reached >= span.end {
            return true;
        }
    }
    false
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_silence_changes_no_state_and_loses_no_firing_that_outlives_it(acts in acts()) {
        let (held, covered) = run(&acts, true);
        let (plain, _) = run(&acts, false);
        let path = |told: &Told| -> Vec<(Timestamp, State, State)> {
            told.transitions.iter().filter(|row| row.from != row.to).map(|row| (row.at, row.from, row.to)).collect()
        };
        prop_assert_eq!(path(&held), path(&plain));
        let changes: Vec<&TransitionRow> = held.transitions.iter().filter(|row| row.from != row.to).collect();
        for (at, begin) in changes.iter().enumerate().filter(|(_, row)| row.to == State::Firing) {
            let end = changes[at + 1..].first().expect("the end comes within the last ticks");
            let span = begin.at..end.at;
            let within = |kind| held.notifications.iter().filter(move |n| n.kind == kind);
            let firing = within(NotificationKind::Firing).filter(|n| (begin.sequence..end.sequence).contains(&n.sequence));
            let firing = firing.count();
            let resolved = within(NotificationKind::Resolved).filter(|n| n.sequence == end.sequence).count();
            prop_assert_eq!(firing, usize::from(!is_covered(&covered, &span)), "{:?} of {:?}", span, covered);
            prop_assert_eq!(resolved, firing, "{:?}", span);
        }
    }
}
