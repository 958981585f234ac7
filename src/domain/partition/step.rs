//! The step that a verdict makes an instance take from engine version 3 on.
//!
//! A rule that reads a window counts closed windows: `for` and `keep_firing_for` are ⌈span / 5m⌉ of them in a row. Other
//! rules go by the fold's clock. A verdict that is missing ends `pending`, and neither ends nor prolongs a firing. Whatever
//! opened something for people is closed by a resolve.

use super::effect::{Reason, State};
use super::instance::{Instance, Step};
use crate::domain::definition::{AlertDefinition, InconclusivePolicy, NoDataPolicy};
use crate::domain::rule::Verdict;
use crate::domain::time::{Millis, Timestamp};
use serde::{Deserialize, Serialize};

/// How many closed windows in a row, up to the newest, had the same verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Runs {
    /// Windows for which the rule is true.
    pub(super) matched: Run,
    /// Windows for which a firing ends: the rule is false, and `recover` is true where there is one.
    pub(super) recovered: Run,
}

/// A count of windows in a row that can be corrected for the newest one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    /// Up to the newest closed window.
    pub(super) count: u32,
    /// Up to the one before it.
    before: u32,
}

/// What an evaluation says of the closed windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing new: a level, a limit or a silence changed between two closes.
    #[default]
    Between,
    /// A window has just closed.
    Close,
    /// The newest closed window changed, or another rule looks at it.
    Newest,
}

impl Run {
    /// No window yet.
    pub(super) const NONE: Self = Self { count: 0, before: 0 };

    /// `holds` says of the newest window whether it belongs to the run; a missing verdict says nothing.
    fn note(&mut self, look: Look, holds: Option<bool>) {
        match look {
            Look::Between => return,
            Look::Close => self.before = self.count,
            Look::Newest => {}
        }
        self.count = match holds {
            Some(true) => self.before.saturating_add(1),
            Some(false) => 0,
            None => self.before,
        };
    }
}

impl Runs {
    /// No window yet.
    pub(super) const NONE: Self = Self { matched: Run::NONE, recovered: Run::NONE };

    /// Takes in the verdict on the newest closed window.
    pub(super) fn note(&mut self, look: Look, verdict: Verdict, recovered: Option<Verdict>) {
        let is_missing = matches!(verdict, Verdict::NoData | Verdict::Inconclusive);
        self.matched.note(look, Some(verdict == Verdict::True));
        if is_missing && look == Look::Between {
            // The span begins anew, also where the verdict went missing between two closes.
            self.matched = Run::NONE;
        }
        let ends = verdict == Verdict::False && recovered.is_none_or(|recovered| recovered == Verdict::True);
        self.recovered.note(look, (!is_missing).then_some(ends));
    }
}

/// What an evaluation found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) verdict: Verdict,
    /// What the `recover` expression says, where there is one.
    pub(super) recovered: Option<Verdict>,
    /// Whether the rule reads a window, so that spans are counted in windows.
    pub(super) counts_windows: bool,
    pub(super) at: Timestamp,
}

impl Instance {
    /// Decides what a verdict leads to.
    pub(super) fn next_step(&self, policy: &AlertDefinition, found: Found) -> Step {
        match found.verdict {
            Verdict::True => self.when_true(policy, found),
            Verdict::False => match found.recovered {
                Some(Verdict::False | Verdict::Inconclusive | Verdict::NoData) if self.state == State::Firing => {
                    if self.false_since.is_some() { Step::Revive } else { Step::Stay }
                }
                Some(_) | None => self.when_false(policy, found),
            },
            Verdict::NoData => self.when_no_data(policy.no_data),
            Verdict::Inconclusive => match (self.state, policy.inconclusive) {
                (State::Firing, InconclusivePolicy::Ok) => Step::Resolve(Reason::Inconclusive, State::Inconclusive),
                (State::Firing, InconclusivePolicy::Keep) | (State::Inconclusive, _) => Step::Stay,
                (State::Ok | State::Pending | State::NoData, _) => Step::Become(State::Inconclusive),
            },
        }
    }

    fn when_true(&self, policy: &AlertDefinition, found: Found) -> Step {
        match self.state {
            State::Firing if self.false_since.is_some() => return Step::Revive,
            State::Firing => return Step::Stay,
            State::Ok | State::Pending | State::NoData | State::Inconclusive => {}
        }
        if policy.hold <= Millis::ZERO {
            // An edit may have ended the span that ran.
            let held = self.state == State::Pending;
            return Step::Fire(if held { Reason::Held } else { Reason::Condition });
        }
        let (begun, over) = if found.counts_windows {
            let count = self.runs.matched.count;
            (count > 0, i64::from(count) >= policy.hold.windows())
        } else {
            (true, self.state == State::Pending && self.since.plus(policy.hold) <= found.at)
        };
        match self.state {
            _ if over => Step::Fire(Reason::Held),
            State::Pending => Step::Stay,
            _ if begun => Step::Become(State::Pending),
            State::Ok | State::NoData | State::Inconclusive | State::Firing => Step::Stay,
        }
    }

    fn when_false(&self, policy: &AlertDefinition, found: Found) -> Step {
        match self.state {
            State::Ok => Step::Stay,
            State::Firing => self.when_recovered(policy, found),
            // Only a close says that the windows in a row are over.
            State::Pending if found.counts_windows && self.runs.matched.count > 0 => Step::Stay,
            State::Pending | State::NoData | State::Inconclusive => self.ended(),
        }
    }

    fn when_recovered(&self, policy: &AlertDefinition, found: Found) -> Step {
        if policy.keep_firing_for <= Millis::ZERO {
            // An edit may have ended the span that ran.
            let held = self.false_since.is_some() && !found.counts_windows;
            return Step::Resolve(if held { Reason::Held } else { Reason::Condition }, State::Ok);
        }
        let (begun, over) = if found.counts_windows {
            let count = self.runs.recovered.count;
            (count > 0, i64::from(count) >= policy.keep_firing_for.windows())
        } else {
            (true, self.false_since.is_some_and(|since| since.plus(policy.keep_firing_for) <= found.at))
        };
        match self.false_since {
            _ if over => Step::Resolve(Reason::Held, State::Ok),
            None if begun => Step::Fade,
            None | Some(_) => Step::Stay,
        }
    }

    /// The step to `ok`: with a resolve where something that people heard is still open.
    const fn ended(&self) -> Step {
        if self.told.is_some() { Step::Resolve(Reason::Condition, State::Ok) } else { Step::Become(State::Ok) }
    }

    const fn when_no_data(&self, policy: NoDataPolicy) -> Step {
        match (policy, self.state) {
            (_, State::NoData) | (NoDataPolicy::Keep, State::Firing) => Step::Stay,
            (NoDataPolicy::Ok, State::Firing) => Step::Resolve(Reason::NoData, State::NoData),
            (NoDataPolicy::Alert, _) => Step::TellNoData,
            (NoDataPolicy::Ok | NoDataPolicy::Keep, State::Ok | State::Pending | State::Inconclusive) => {
                Step::Become(State::NoData)
            }
        }
    }

    /// Returns when time alone may change the instance.
    pub(super) fn next_due(&self, policy: &AlertDefinition, counts_windows: bool) -> Option<Timestamp> {
        let (held, repeated) = match self.state {
            State::Pending => (Some(self.since.plus(policy.hold)), None),
            State::Firing => (self.false_since.map(|since| since.plus(policy.keep_firing_for)), self.repeat_at),
            State::Ok | State::NoData | State::Inconclusive => (None, None),
        };
        let held = held.filter(|_| !counts_windows);
        held.into_iter().chain(repeated).filter(|due| *due > self.evaluated_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_as_many_windows_as_hold_it() {
        let minutes = |minutes: i64| Millis::minutes(minutes).windows();
        assert_eq!([minutes(0), minutes(1), minutes(5), minutes(6), minutes(10)], [0, 1, 1, 2, 2]);
        assert_eq!(Millis::seconds(1).windows(), 1);
    }

    #[test]
    fn a_run_can_be_corrected_for_its_newest_window() {
        let mut runs = Runs::default();
        let mut note = |look, verdict| {
            runs.note(look, verdict, None);
            (runs.matched.count, runs.recovered.count)
        };
        assert_eq!(note(Look::Close, Verdict::True), (1, 0));
        assert_eq!(note(Look::Close, Verdict::False), (0, 1));
        assert_eq!(note(Look::Newest, Verdict::True), (2, 0));
        assert_eq!(note(Look::Between, Verdict::False), (2, 0));
        assert_eq!(note(Look::Newest, Verdict::False), (0, 1));
        assert_eq!(note(Look::Close, Verdict::Inconclusive), (0, 1), "it neither ends nor prolongs");
        assert_eq!(note(Look::Close, Verdict::False), (0, 2));
        assert_eq!(note(Look::Close, Verdict::True), (1, 0), "the span begins anew");
    }
}
