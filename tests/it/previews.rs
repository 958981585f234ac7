//! A preview tells what the engine would have done.

use crate::log::{Kind, Log, MIDNIGHT, Usage, frame, metric, scope, tenant};
use crate::properties::fold_in;
use crate::words;
use highwater::domain::control::outcome::Change;
use highwater::domain::definition::{AlertDefinition, Fold, Quota};
use highwater::domain::incident;
use highwater::domain::limits::{CORRECTION_HORIZON, DEDUP_HORIZON};
use highwater::domain::partition::aggregate::Aggregate;
use highwater::domain::partition::fact::{ENGINE_VERSION, Note};
use highwater::domain::partition::rehearsal::{PastWindow, Script, rehearse};
use highwater::domain::quantity::Quantity;
use highwater::domain::time::{Millis, Period, Timestamp, WINDOW};
use proptest::prelude::*;

const GRACE: Millis = Millis::seconds(30);
const RULES: [&str; 7] = [
    "sum > 100",
    "sum < 50",
    "count == 0",
    "max > 100 && quota_percent > 20",
    "quota_percent > 40",
    "sum / count > 60",
    "avg > 60 || last < 3",
];
const SPANS: [i64; 6] = [0, 1, 5, 7, 10, 15];

fn quantity(value: u32) -> Quantity {
    Quantity::whole(i64::from(value))
}

fn last_instant(start: Timestamp) -> Timestamp {
    start.plus(WINDOW).minus(Millis(1))
}

fn starts(values: &[Option<u32>]) -> impl Iterator<Item = (Timestamp, Option<u32>)> {
    (0..).map(|n| MIDNIGHT.plus(Millis(n * WINDOW.0))).zip(values.iter().copied())
}

fn limit() -> Quota {
    Quota { limit: quantity(500), period: Period::Day, aggregate: Fold::Sum }
}

/// The firings of an alert that was made a moment before the second window, with one event in each window that has one.
fn lived(definition: &AlertDefinition, values: &[Option<u32>]) -> Vec<(Timestamp, Option<Timestamp>)> {
    let mut log = Log::default();
    log.note(MIDNIGHT, &Note::EngineVersion { version: ENGINE_VERSION });
    let (grace, account) = (GRACE, scope("acme"));
    let settings = Change::Settings { grace, dedup_horizon: DEDUP_HORIZON, correction_horizon: CORRECTION_HORIZON };
    let quota = Change::Quota { tenant: tenant(), account, metric: metric("calls"), quota: Some(limit()) };
    log.change(MIDNIGHT, vec![settings, quota]);
    let alert = Change::Alert { tenant: tenant(), definition: Box::new(definition.clone()) };
    for (n, (start, value)) in starts(values).enumerate() {
        if let Some(value) = value {
            let usage = Usage::new("acme", "calls", quantity(value), &format!("e{n}"));
            log.push(last_instant(start), frame(last_instant(start), &[usage], Kind::Ordinary));
        }
        let end = start.plus(WINDOW);
        if n == 0 {
            log.change(end.minus(Millis(1)), vec![alert.clone()]);
        }
        // As the log stands at a window's end, with the close of the one before it.
        log.note(end.plus(GRACE), &Note::Ticked { intake_through: None });
    }
    let (rows, ..) = fold_in(&log.records, |_| true, |_| false);
    let mut firings = Vec::new();
    for row in rows.transitions.values() {
        if incident::begins(row) {
            firings.push((row.at, None));
        } else if incident::ends(row)
            && let Some(last) = firings.last_mut()
        {
            last.1 = Some(row.at);
        }
    }
    firings
}

proptest! {
    #![proptest_config(crate::properties::config(400))]

    #[test]
    fn a_preview_agrees_with_the_engine(
        rule in prop::sample::select(&RULES[..]),
        (hold, keep) in (prop::sample::select(&SPANS[..]), prop::sample::select(&SPANS[..])),
        recover in prop::option::weighted(0.3, Just("sum < 20")),
        (inconclusive, no_data) in
            (prop::sample::select(&["keep", "ok"][..]), prop::sample::select(&["ok", "keep", "alert"][..])),
        values in prop::collection::vec(prop::option::weighted(0.7, 0_u32..160), 1..14),
    ) {
        let values: Vec<Option<u32>> = std::iter::once(Some(1)).chain(values).collect();
        let mut options = format!("{rule} | on acme/calls, inconclusive {inconclusive}, no_data {no_data}");
        for (name, minutes) in [("for", hold), ("keep", keep)] {
            if minutes > 0 {
                options.push_str(&format!(", {name} {minutes}m"));
            }
        }
        if let Some(recover) = recover {
            options.push_str(&format!(", recover {recover}"));
        }
        let definition = words::alert("tried", 1, 1, &options, &[]);
        let counted = |(start, value): (Timestamp, Option<u32>)| {
            let aggregate = Aggregate::of(quantity(value?), last_instant(start));
            Some(PastWindow { metric: metric("calls"), start, aggregate })
        };
        let windows: Vec<PastWindow> = starts(&values).filter_map(counted).collect();
        let quotas = [(metric("calls"), limit())];
        let (definition, from) = (&definition, MIDNIGHT.plus(WINDOW));
        let script = Script { definition, quotas: &quotas, grace: GRACE, windows: &windows, from };
        let to = MIDNIGHT.plus(Millis(WINDOW.0 * values.len() as i64));
        let previewed = rehearse(script, to, to.plus(GRACE));
        let previewed: Vec<_> = previewed.episodes.into_iter().map(|episode| (episode.from, episode.to)).collect();
        prop_assert_eq!(lived(definition, &values), previewed);
    }
}

#[test]
fn a_window_that_is_open_ends_nothing() {
    let definition = words::alert("tried", 1, 1, "sum > 100 | on acme/calls", &[]);
    let start = |n: i64| MIDNIGHT.plus(Millis(n * WINDOW.0));
    let counted = |n: i64, value| PastWindow {
        metric: metric("calls"),
        start: start(n),
        aggregate: Aggregate::of(quantity(value), last_instant(start(n))),
    };
    let windows = [counted(0, 1), counted(1, 150), counted(2, 1)];
    let script = Script { definition: &definition, quotas: &[], grace: GRACE, windows: &windows, from: start(1) };
    let firings = |now: Timestamp| -> Vec<(Timestamp, Option<Timestamp>)> {
        let previewed = rehearse(script, start(3), now).episodes;
        previewed.into_iter().map(|episode| (episode.from, episode.to)).collect()
    };
    let begun = last_instant(start(1));
    assert_eq!(firings(start(3).plus(GRACE)), [(begun, Some(start(3).plus(GRACE)))]);
    assert_eq!(firings(start(3)), [(begun, None)], "its close has not come");
    assert_eq!(firings(start(2)), [(begun, None)]);
    // Of the window that holds the present moment no time is named that has not come.
    let moment = start(1).plus(Millis::minutes(2));
    assert_eq!(firings(moment), [(moment, None)]);
}
