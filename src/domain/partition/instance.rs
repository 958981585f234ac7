//! An alert instance: its state, and the pure step that a verdict makes it take.

use super::account::Account;
use super::effect::{InstanceKey, Reason, State};
use super::step::Runs;
use crate::domain::definition::{AlertDefinition, Fold, NoDataPolicy};
use crate::domain::id::{AlertId, ChannelId, MetricName, NotificationId, Position};
use crate::domain::quantity::Quantity;
use crate::domain::rule::Verdict;
use crate::domain::time::{Millis, Period, Timestamp, WINDOW};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// One alert on one account and metric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Instance {
    pub(super) alert: AlertId,
    pub(super) metric: Option<MetricName>,
    pub(super) state: State,
    pub(super) since: Timestamp,
    pub(super) sequence: u64,
    /// When the condition of a firing became false, while `keep_firing_for` runs.
    pub(super) false_since: Option<Timestamp>,
    /// What was told of the present firing.
    pub(super) told: Option<Told>,
    /// A silence holds the present firing's message.
    pub(super) held: bool,
    pub(super) repeat_at: Option<Timestamp>,
    /// The periods and limits that were told of: once per period and limit.
    pub(super) told_for: Vec<(Timestamp, Quantity)>,
    /// The newest window that fired before it closed.
    pub(super) early: Option<Timestamp>,
    /// The window that caused the newest firing that was told, until it closes.
    pub(super) fired_in: Option<(Timestamp, Told)>,
    /// What the closed windows that are still held decided.
    pub(super) decided: VecDeque<Decided>,
    /// What happened at times too long past to be told singly.
    pub(super) missed: Option<Missed>,
    pub(super) value: Option<Quantity>,
    pub(super) evaluated_at: Timestamp,
    #[serde(skip)]
    pub(super) gate: Gate,
    #[serde(skip)]
    pub(super) timer: Option<Timestamp>,
    #[serde(skip)]
    pub(super) dirty: bool,
    /// Whether `value` is yet to be read.
    #[serde(skip)]
    pub(super) unread: bool,
    /// The record that last touched the instance.
    #[serde(skip)]
    pub(super) touched: Position,
    /// What closed windows in a row said; snapshots keep it behind the older layout.
    #[serde(skip)]
    pub(super) runs: Runs,
    /// The start of the first window whose close is evaluated; snapshots keep it behind the older layout.
    #[serde(skip)]
    pub(super) first_window: Timestamp,
    /// Whether endpoints were sent a firing, or that data is missing, and no resolve since; snapshots keep it behind the
    /// older layout.
    #[serde(skip)]
    pub(super) event_open: bool,
    /// Whether catching up passed over a repeat. It never outlives a record.
    #[serde(skip)]
    pub(super) repeat_missed: bool,
}

/// A firing that people were told of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) id: NotificationId,
    pub(super) channels: Vec<ChannelId>,
    /// What told it again and may not have settled yet.
    pub(super) reminders: Vec<NotificationId>,
}

/// The verdict on a closed window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Decided {
    pub(super) start: Timestamp,
    pub(super) verdict: Verdict,
    /// The firing that this window caused.
    pub(super) told: Option<Told>,
    pub(super) corrected: bool,
}

/// What catching up passed over in silence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Missed {
    pub(super) fired: u32,
    /// The firing that had been told of and ended meanwhile.
    pub(super) ended: Option<Told>,
}

/// When an event need not lead to an evaluation, because the verdict is proven unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Gate {
    /// Always evaluate.
    #[default]
    Open,
    /// Not while the level in the judged period stays between these bounds, both inclusive.
    Level { least: Quantity, most: Quantity, period: Period, fold: Fold },
    /// Not unless the event's open window passes the threshold of the rule.
    Threshold,
    /// Never: only closed windows are read.
    Closed,
}

/// What an instance does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing changes.
    Stay,
    /// A quiet change of state.
    Become(State),
    /// The firing's condition is false; it lasts for `keep_firing_for` at most.
    Fade,
    /// The condition holds again.
    Revive,
    Fire(Reason),
    Resolve(Reason, State),
    /// Tell that there is no data.
    TellNoData,
    /// Tell once more that it fires.
    Remind(Reason),
}

impl Instance {
    pub(super) const fn new(alert: AlertId, metric: Option<MetricName>, at: Timestamp) -> Self {
        Self {
            alert,
            metric,
            state: State::Ok,
            since: at,
            sequence: 0,
            false_since: None,
            told: None,
            held: false,
            repeat_at: None,
            told_for: Vec::new(),
            early: None,
            fired_in: None,
            decided: VecDeque::new(),
            missed: None,
            value: None,
            evaluated_at: at,
            gate: Gate::Open,
            timer: None,
            dirty: false,
            unread: false,
            touched: Position::START,
            runs: Runs::NONE,
            first_window: Timestamp(0),
            event_open: false,
            repeat_missed: false,
        }
    }

    /// Names it, on its account.
    pub(super) fn key(&self, account: &Account) -> InstanceKey {
        InstanceKey {
            tenant: account.tenant,
            alert: self.alert,
            account: account.name.clone(),
            metric: self.metric.clone(),
        }
    }

    /// Forgets what the rule said of windows: another rule, or none, is in force from here on.
    pub(super) fn forget_windows(&mut self) {
        self.early = None;
        self.fired_in = None;
        self.decided.clear();
        self.runs = Runs::NONE;
    }

    /// Lets nothing be of a time behind `at`, which the clock was set back to. Windows that begin at `closed` or later are open
    /// again.
    pub(super) fn turn_back(&mut self, at: Timestamp, closed: Timestamp, repeat_interval: Millis) {
        self.since = self.since.min(at);
        self.false_since = self.false_since.map(|since| since.min(at));
        self.repeat_at = self.repeat_at.map(|repeat| repeat.min(at.plus(repeat_interval)));
        self.early = self.early.filter(|start| *start <= at);
        self.fired_in = self.fired_in.take().filter(|(start, _)| *start <= at);
        self.decided.retain(|decided| decided.start < closed);
        self.evaluated_at = self.evaluated_at.min(at);
        // What fired in a time that never was is no news; who heard of its end, or of the firing before it, hears how it stands.
        self.missed = self.missed.take().and_then(|missed| Some(Missed { fired: 0, ended: Some(missed.ended?) }));
        if self.told.is_none() {
            self.told_for.clear();
        }
        self.runs = Runs::NONE;
        self.repeat_missed = false;
        self.first_window = self.first_window.min(at.window_start(WINDOW).plus(WINDOW));
        self.gate = Gate::Open;
    }

    /// Decides what a verdict at `at` leads to before engine version 3. `recovered` is what the `recover` expression says,
    /// where there is one.
    pub(super) fn step(
        &self,
        policy: &AlertDefinition,
        verdict: Verdict,
        recovered: Option<Verdict>,
        at: Timestamp,
    ) -> Step {
        match verdict {
            Verdict::True => self.on_true(policy.hold, at),
            Verdict::False => match recovered {
                Some(Verdict::False | Verdict::Inconclusive | Verdict::NoData) if self.state == State::Firing => {
                    if self.false_since.is_some() { Step::Revive } else { Step::Stay }
                }
                Some(_) | None => self.on_false(policy.keep_firing_for, at),
            },
            Verdict::NoData => self.on_no_data(policy.no_data),
            Verdict::Inconclusive => match self.state {
                State::Ok | State::NoData if self.told.is_none() => Step::Become(State::Inconclusive),
                State::Ok | State::NoData | State::Pending | State::Firing | State::Inconclusive => Step::Stay,
            },
        }
    }

    fn on_true(&self, hold: Millis, at: Timestamp) -> Step {
        match self.state {
            State::Firing if self.false_since.is_some() => Step::Revive,
            State::Firing => Step::Stay,
            State::Pending if self.since.plus(hold) <= at => Step::Fire(Reason::Held),
            State::Pending => Step::Stay,
            State::Ok | State::NoData | State::Inconclusive if hold > Millis::ZERO => Step::Become(State::Pending),
            State::Ok | State::NoData | State::Inconclusive => Step::Fire(Reason::Condition),
        }
    }

    fn on_false(&self, keep: Millis, at: Timestamp) -> Step {
        match (self.state, self.false_since) {
            (State::Ok, _) => Step::Stay,
            (State::Firing, None) if keep > Millis::ZERO => Step::Fade,
            (State::Firing, Some(since)) if since.plus(keep) > at => Step::Stay,
            (State::Firing, Some(_)) => Step::Resolve(Reason::Held, State::Ok),
            (State::Firing, None) => Step::Resolve(Reason::Condition, State::Ok),
            (State::NoData, _) if self.told.is_some() => Step::Resolve(Reason::Condition, State::Ok),
            (State::Pending | State::NoData | State::Inconclusive, _) => Step::Become(State::Ok),
        }
    }

    const fn on_no_data(&self, policy: NoDataPolicy) -> Step {
        match (policy, self.state) {
            (_, State::NoData) | (NoDataPolicy::Keep, State::Firing) => Step::Stay,
            (NoDataPolicy::Ok, State::Firing) => Step::Resolve(Reason::NoData, State::NoData),
            (NoDataPolicy::Alert, _) => Step::TellNoData,
            (NoDataPolicy::Ok | NoDataPolicy::Keep, State::Ok | State::Pending | State::Inconclusive) => {
                Step::Become(State::NoData)
            }
        }
    }

    /// Returns when time alone may change the instance before engine version 3.
    ///
    /// A deadline that an evaluation has passed is over: an inconclusive verdict left the state as it was, and the next
    /// evaluation decides.
    pub(super) fn due(&self, policy: &AlertDefinition) -> Option<Timestamp> {
        let (held, repeated) = match self.state {
            State::Pending => (Some(self.since.plus(policy.hold)), None),
            State::Firing => (self.false_since.map(|since| since.plus(policy.keep_firing_for)), self.repeat_at),
            State::Ok | State::NoData | State::Inconclusive => (None, None),
        };
        held.into_iter().chain(repeated).filter(|due| *due > self.evaluated_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::definition::Severity;
    use crate::domain::id::AccountScope;
    use std::collections::BTreeMap;

    fn policy(hold: i64, keep: i64, no_data: NoDataPolicy) -> AlertDefinition {
        AlertDefinition {
            id: AlertId(1),
            version: 1,
            account: AccountScope::All,
            metric: None,
            rule: String::new(),
            recover: None,
            grammar: 1,
            hold: Millis::seconds(hold),
            keep_firing_for: Millis::seconds(keep),
            repeat_interval: Millis::hours(4),
            severity: Severity::Warning,
            no_data,
            inconclusive: Default::default(),
            name: None,
            message: None,
            labels: BTreeMap::new(),
            project: None,
            channels: Vec::new(),
            pause: None,
        }
    }

    #[test]
    fn every_state_has_a_step_for_every_verdict() {
        let check = |state, verdict, hold, keep, no_data, want: Step| {
            let mut instance = Instance::new(AlertId(1), None, Timestamp(0));
            instance.state = state;
            let step = instance.step(&policy(hold, keep, no_data), verdict, None, Timestamp(10_000));
            assert_eq!(step, want, "{state:?} {verdict:?} for {hold} keep {keep} {no_data:?}");
        };
        use NoDataPolicy as P;
        use State as S;
        use Verdict as V;
        check(S::Ok, V::True, 0, 0, P::Ok, Step::Fire(Reason::Condition));
        check(S::Ok, V::True, 5, 0, P::Ok, Step::Become(S::Pending));
        check(S::Pending, V::True, 30, 0, P::Ok, Step::Stay);
        check(S::Pending, V::True, 10, 0, P::Ok, Step::Fire(Reason::Held));
        check(S::Pending, V::False, 30, 0, P::Ok, Step::Become(S::Ok));
        check(S::Firing, V::True, 0, 0, P::Ok, Step::Stay);
        check(S::Firing, V::False, 0, 0, P::Ok, Step::Resolve(Reason::Condition, S::Ok));
        check(S::Firing, V::False, 0, 60, P::Ok, Step::Fade);
        check(S::Firing, V::NoData, 0, 0, P::Ok, Step::Resolve(Reason::NoData, S::NoData));
        check(S::Firing, V::NoData, 0, 0, P::Keep, Step::Stay);
        check(S::Firing, V::NoData, 0, 0, P::Alert, Step::TellNoData);
        check(S::Firing, V::Inconclusive, 0, 0, P::Ok, Step::Stay);
        check(S::Pending, V::Inconclusive, 5, 0, P::Ok, Step::Stay);
        check(S::Ok, V::Inconclusive, 0, 0, P::Ok, Step::Become(S::Inconclusive));
        check(S::NoData, V::False, 0, 0, P::Ok, Step::Become(S::Ok));
        check(S::Ok, V::False, 0, 0, P::Ok, Step::Stay);
    }
}
