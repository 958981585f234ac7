//! How a rule evaluates at a moment, as an explanation shows it: on the windows that the engine would look at then.

use crate::log::{MIDNIGHT, metric};
use crate::words;
use highwater::domain::definition::{AlertDefinition, Fold, Quota};
use highwater::domain::id::{AccountScope, MetricName};
use highwater::domain::limits::GRACE;
use highwater::domain::partition::aggregate::Aggregate;
use highwater::domain::partition::rehearsal::{PastWindow, Script, appraise, rehearse};
use highwater::domain::quantity::Quantity;
use highwater::domain::rule::Verdict;
use highwater::domain::time::{Millis, Period, Timestamp, WINDOW};

const NOON: Timestamp = Timestamp(MIDNIGHT.0 + 12 * 3_600_000);

fn alert(rule: &str) -> AlertDefinition {
    let account = AccountScope::try_from("acme".to_owned()).unwrap();
    AlertDefinition { account, metric: Some(metric("calls")), ..words::alert("a", 1, 1, rule, &["ops"]) }
}

/// Windows by their number behind noon, each with the values of its events.
fn windows(counted: &[(i64, &[i64])]) -> Vec<PastWindow> {
    let window = |(number, values): &(i64, &[i64])| {
        let start = NOON.plus(Millis(number * WINDOW.0));
        let mut aggregate = Aggregate::default();
        for (n, value) in (0..).zip(*values) {
            aggregate.add(Quantity::whole(*value), start.plus(Millis::seconds(n)));
        }
        PastWindow { metric: metric("calls"), start, aggregate }
    };
    counted.iter().map(window).collect()
}

fn script<'a>(
    definition: &'a AlertDefinition,
    quotas: &'a [(MetricName, Quota)],
    windows: &'a [PastWindow],
    from: Timestamp,
) -> Script<'a> {
    Script { definition, quotas, grace: GRACE, windows, from }
}

#[test]
fn the_window_that_the_engine_looks_at_is_looked_at() {
    let check =
        |rule: &str, counted: &[(i64, &[i64])], seconds: i64, verdict: Verdict, value: i64, (window, closed)| {
            let (definition, counted) = (alert(rule), windows(counted));
            let at = NOON.plus(Millis::seconds(seconds));
            let standings = appraise(script(&definition, &[], &counted, at), at);
            let [standing] = standings.as_slice() else { panic!("one instance, found {standings:?}") };
            let evidence = &standing.evidence;
            let shown = evidence.window.unwrap();
            let start = NOON.plus(Millis(window * WINDOW.0));
            let context = format!("{rule} at {seconds}");
            assert_eq!((standing.verdict, evidence.value), (verdict, Some(Quantity::whole(value))), "{context}");
            assert_eq!((shown.start, shown.closed), (start, closed), "{context}");
        };
    use Verdict::{False, True};
    let busy = "sum > 100";
    // An open window that proves the rule already, and one that does not yet.
    check(busy, &[(0, &[150])], 70, True, 150, (0, false));
    check(busy, &[(0, &[50])], 70, False, 0, (-1, true));
    check(busy, &[(0, &[150, -10])], 70, False, 0, (-1, true));
    // Sent ahead of the clock by less than 5 minutes.
    check(busy, &[(1, &[150])], 70, True, 150, (1, false));
    // In the first 30 seconds of a window the one before is open still; that an event came since changes nothing of it.
    check(busy, &[(-2, &[120]), (-1, &[20])], 10, True, 120, (-2, true));
    check(busy, &[(-2, &[120]), (-1, &[20]), (0, &[1])], 10, True, 120, (-2, true));
    check(busy, &[(-2, &[120]), (-1, &[20]), (0, &[1])], 30, False, 20, (-1, true));
    check("sum < 30", &[(-2, &[120]), (-1, &[20]), (0, &[1])], 10, False, 120, (-2, true));
    check("sum < 30", &[(-2, &[120]), (-1, &[20]), (0, &[1])], 31, True, 20, (-1, true));
    // It has ended, and is open still.
    check(busy, &[(-1, &[150])], 10, True, 150, (-1, false));
    check(busy, &[(-1, &[150])], 40, True, 150, (-1, true));
    // What is no proof waits for the close.
    check("avg > 100", &[(-1, &[1]), (0, &[150])], 70, False, 1, (-1, true));
}

#[test]
fn a_limit_of_zero_allows_nothing() {
    let quota = Quota { limit: Quantity::ZERO, period: Period::Day, aggregate: Fold::Sum };
    let quotas = [(metric("calls"), quota)];
    let definition = alert("quota_percent > 85");
    let at = NOON.plus(Millis::minutes(7));
    let appraised = |counted: &[(i64, &[i64])]| {
        let counted = windows(counted);
        let standing = appraise(script(&definition, &quotas, &counted, at), at).remove(0);
        (standing.verdict, standing.evidence.value, standing.evidence.is_over())
    };
    assert_eq!(appraised(&[]), (Verdict::False, Some(Quantity::ZERO), false));
    assert_eq!(appraised(&[(-3, &[0])]), (Verdict::False, Some(Quantity::ZERO), false));
    assert_eq!(appraised(&[(-3, &[1])]), (Verdict::True, None, true));
    assert_eq!(appraised(&[(1, &[1])]), (Verdict::True, None, true));
    let counted = windows(&[(-3, &[0]), (2, &[1])]);
    let rehearsed =
        rehearse(script(&definition, &quotas, &counted, NOON), NOON.plus(Millis::minutes(30)), Timestamp::MAX);
    let episodes: Vec<_> = rehearsed.episodes.iter().map(|episode| (episode.peak, episode.over)).collect();
    assert_eq!(episodes, [(None, true)]);
}
