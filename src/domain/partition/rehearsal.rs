//! What an alert would have done: the engine itself, fed with windows that were counted before. Nothing is kept of it.
//!
//! It sees windows and not single events, so a level is looked at once a window, and late events as if they had come in
//! time.

use super::aggregate::Aggregate;
use super::changes::Turn;
use super::effect::{Effects, Evidence, InstanceRow, Reason, State, TransitionRow};
use super::fact::{ENGINE_VERSION, Fact, Note};
use super::fit::Judging;
use super::judge::{Cause, open_windows};
use super::state::Partition;
use super::values::View;
use super::window::Arrival;
use crate::domain::control::outcome::{Change, PositionedChange};
use crate::domain::definition::{AlertDefinition, Quota};
use crate::domain::id::{AccountId, AccountScope, MetricName, Mode, PartitionId, Position, Stamp, Tenant, WorkspaceId};
use crate::domain::limits::{CORRECTION_HORIZON, DEDUP_HORIZON};
use crate::domain::quantity::Quantity;
use crate::domain::rule::{Comparison, RuleProgram, Value, Verdict};
use crate::domain::time::{Millis, Timestamp, WINDOW};
use std::collections::BTreeMap;

const TENANT: Tenant = Tenant { workspace: WorkspaceId(0), mode: Mode::Live };

/// A window that was counted.
#[derive(Clone, Debug)]
pub struct PastWindow {
    /// The metric.
    pub metric: MetricName,
    /// The start.
    pub start: Timestamp,
    /// The events.
    pub aggregate: Aggregate,
}

/// What is rehearsed.
#[derive(Clone, Copy, Debug)]
pub struct Script<'a> {
    /// The alert, on one account.
    pub definition: &'a AlertDefinition,
    /// The quotas of the account, as if they had been set all the time.
    pub quotas: &'a [(MetricName, Quota)],
    /// How long a window stays open behind its end.
    pub grace: Millis,
    /// The windows of the account, by start. Those before `from` make up the levels.
    pub windows: &'a [PastWindow],
    /// When the alert begins; the start of a window.
    pub from: Timestamp,
}

/// One firing that would have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Episode {
    /// The instance's metric.
    pub metric: Option<MetricName>,
    /// When it would have begun.
    pub from: Timestamp,
    /// When it would have ended; absent where it would last.
    pub to: Option<Timestamp>,
    /// The most extreme value of the first input while it would have lasted.
    pub peak: Option<Quantity>,
    /// Whether that value was greater than every number.
    pub over: bool,
}

/// What would have been.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rehearsed {
    /// The firings, by their beginning.
    pub episodes: Vec<Episode>,
    /// How often the rule was evaluated.
    pub evaluations: u64,
    /// When the condition would first have held.
    pub first_match: Option<Timestamp>,
}

/// How a rule stands on an instance.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The instance's metric.
    pub metric: Option<MetricName>,
    /// What the rule says.
    pub verdict: Verdict,
    /// What that rests on.
    pub evidence: Evidence,
}

/// Rehearses an alert up to `to`, the end of a window; a window that has not closed at `now` does not close.
pub fn rehearse(script: Script<'_>, to: Timestamp, now: Timestamp) -> Rehearsed {
    let mut stage = Stage::set(script);
    let mut windows = script.windows.iter().filter(|window| window.start >= script.from).peekable();
    let mut start = script.from;
    while start < to && start <= now {
        while let Some(window) = windows.next_if(|window| window.start <= start) {
            stage.count(window, last_instant(window).min(now), Judged::Yes);
        }
        let close = start.plus(WINDOW).plus(script.grace);
        if close > now {
            break;
        }
        stage.step(close, Note::Ticked { intake_through: None });
        start = start.plus(WINDOW);
    }
    stage.rehearsed
}

/// Tells how an alert's rule stands at `at` on each of its instances.
pub fn appraise(script: Script<'_>, at: Timestamp) -> Vec<Standing> {
    let mut stage = Stage::set(Script { from: at, ..script });
    // Counted by the clock of that moment, so that no window closes for it.
    for window in script.windows.iter().filter(|window| window.start.plus(WINDOW) > at) {
        stage.count(window, at, Judged::No);
    }
    let partition = &stage.partition;
    let mut standings = Vec::new();
    let Some(tenant) = partition.tenants.get(&TENANT) else { return standings };
    for account in &partition.accounts {
        for instance in account.instances.iter() {
            let Some(compiled) = tenant.alerts.get(&instance.alert) else { continue };
            let own = instance.metric.as_ref();
            let closed = View { tenant, account, own, window: tenant.newest_closed(), at };
            let proven = compiled.rule.as_ref().filter(|_| compiled.fires_early(ENGINE_VERSION)).and_then(|rule| {
                let holds = |window: &Timestamp| View { window: *window, ..closed }.proves(rule);
                open_windows(account, rule, own, tenant.closed).into_iter().find(holds)
            });
            let is_true = compiled.rule.as_ref().is_some_and(|rule| closed.verdict(rule) == Verdict::True);
            let view = proven.filter(|_| !is_true).map_or(closed, |window| View { window, ..closed });
            let verdict = compiled.rule.as_ref().map_or(Verdict::Inconclusive, |rule| view.verdict(rule));
            let evidence = view.evidence(compiled);
            standings.push(Standing { metric: instance.metric.clone(), verdict, evidence });
        }
    }
    standings
}

fn last_instant(window: &PastWindow) -> Timestamp {
    window.start.plus(WINDOW).minus(Millis(1))
}

/// Whether a window that is counted is judged, too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judged {
    Yes,
    No,
}

struct Stage<'a> {
    script: Script<'a>,
    account: Option<AccountId>,
    partition: Partition,
    position: Position,
    control: Position,
    /// Whether the least value is the most extreme one.
    falls: bool,
    open: BTreeMap<Option<MetricName>, usize>,
    rehearsed: Rehearsed,
}

impl<'a> Stage<'a> {
    /// Counts what was before, and lets the alert begin.
    fn set(script: Script<'a>) -> Self {
        let account = match &script.definition.account {
            AccountScope::One(account) => Some(account.clone()),
            AccountScope::All => None,
        };
        let threshold = RuleProgram::compile(&script.definition.rule).ok().and_then(|rule| rule.threshold());
        let mut stage = Self {
            script,
            account,
            partition: Partition::new(PartitionId(0), 1),
            position: Position::START,
            control: Position::START,
            falls: threshold.is_some_and(|t| matches!(t.op, Comparison::Less | Comparison::LessOrEqual)),
            open: BTreeMap::new(),
            rehearsed: Rehearsed::default(),
        };
        let begin = script.windows.first().map_or(script.from, |window| window.start).min(script.from);
        let quotas = script.quotas.iter().map(|(metric, quota)| Change::Quota {
            tenant: TENANT,
            account: script.definition.account.clone(),
            metric: metric.clone(),
            quota: Some(*quota),
        });
        let settings = Change::Settings {
            grace: script.grace,
            dedup_horizon: DEDUP_HORIZON,
            correction_horizon: CORRECTION_HORIZON,
        };
        stage.step(begin, Note::EngineVersion { version: ENGINE_VERSION });
        stage.change(begin, std::iter::once(settings).chain(quotas).collect());
        for window in script.windows.iter().filter(|window| window.start.plus(WINDOW) <= script.from) {
            stage.count(window, last_instant(window), Judged::No);
        }
        let alert = Change::Alert { tenant: TENANT, definition: Box::new(script.definition.clone()) };
        // A moment earlier: the close of the window that holds an alert's beginning is not evaluated.
        stage.change(script.from.minus(Millis(1)), vec![alert]);
        stage
    }

    fn change(&mut self, at: Timestamp, changes: Vec<Change>) {
        let after = self.control;
        let mut positioned: Vec<PositionedChange> = Vec::new();
        for change in changes {
            self.control = self.control.next();
            positioned.push((self.control, change));
        }
        let through = self.control;
        self.step(at, Note::ControlCopied { after, through, changes: positioned });
    }

    fn step(&mut self, at: Timestamp, note: Note) {
        self.position = self.position.next();
        let stamp = Stamp { position: self.position, recorded_at: at };
        let mut effects = Effects::default();
        self.partition.apply(stamp, &Fact::Note(note), &[], &mut effects);
        self.take(effects);
    }

    /// Counts a window at an instant.
    fn count(&mut self, window: &PastWindow, at: Timestamp, judged: Judged) {
        let Some(account) = self.account.clone() else { return };
        self.step(at, Note::Ticked { intake_through: None });
        let slot = self.partition.account_slot(TENANT, &account);
        let clock = self.partition.clock();
        let Some(known) = self.partition.accounts.get_mut(slot) else { return };
        let (series, made) = known.series.place(&window.metric);
        let is_first = !std::mem::replace(&mut known.seen, true);
        let Some(counted_in) = known.series.get_mut(series) else { return };
        counted_in.levels.count_window(&window.aggregate, window.start, clock);
        let arrival = Arrival {
            at: window.start,
            value: Quantity::ZERO,
            position: self.position,
            clock,
            grace: self.script.grace,
            correction_horizon: CORRECTION_HORIZON,
        };
        counted_in.windows.put(&arrival, &window.aggregate);
        let stamp = Stamp { position: self.position, recorded_at: at };
        let (mut index, mut effects) = (0, Effects::default());
        let mut turn = Turn { stamp, index: &mut index, effects: &mut effects };
        if made {
            let judging = if judged == Judged::Yes { Judging::Fresh } else { Judging::None };
            self.partition.fit_alerts(slot, (series, is_first, judging), &mut turn);
        }
        if judged == Judged::Yes {
            let cause = Cause { open_window: Some(window.start), ..Cause::of(Reason::Condition, clock) };
            self.partition.judge_readers((slot, series), window.start, cause, &mut turn);
        }
        self.take(effects);
    }

    /// Takes down what happened.
    fn take(&mut self, mut effects: Effects) {
        self.partition.flush(&mut effects);
        self.rehearsed.evaluations = self.rehearsed.evaluations.saturating_add(effects.counts.evaluations);
        for row in &effects.transitions {
            self.take_transition(row);
        }
        let firing = effects.instances.iter().filter(|row| row.state == Some(State::Firing));
        for row in firing {
            let place = self.open.get(&row.key.metric).copied();
            let is_over = self.is_over(row);
            let episode = place.and_then(|place| self.rehearsed.episodes.get_mut(place));
            let Some(episode) = episode else { continue };
            episode.over |= is_over;
            if let Some(value) = row.value {
                let more = |peak: Quantity| if self.falls { peak.min(value) } else { peak.max(value) };
                episode.peak = Some(episode.peak.map_or(value, more));
            }
        }
    }

    /// Whether the first input of an instance is greater than every number.
    fn is_over(&self, row: &InstanceRow) -> bool {
        let Some(tenant) = self.partition.tenants.get(&TENANT) else { return false };
        let account = tenant.accounts.get(&row.key.account).and_then(|slot| self.partition.accounts.get(*slot));
        let rule = tenant.alerts.get(&row.key.alert).and_then(|compiled| compiled.rule.as_ref());
        let (Some(account), Some(input)) = (account, rule.and_then(|rule| rule.inputs().first())) else { return false };
        let own = row.key.metric.as_ref();
        let view = View { tenant, account, own, window: tenant.newest_closed(), at: row.evaluated_at };
        view.value(input) == Value::Over
    }

    fn take_transition(&mut self, row: &TransitionRow) {
        if matches!(row.to, State::Pending | State::Firing) {
            let first = self.rehearsed.first_match.unwrap_or(row.at);
            self.rehearsed.first_match = Some(first.min(row.at));
        }
        let metric = row.key.metric.clone();
        if crate::domain::incident::begins(row) {
            self.open.insert(metric.clone(), self.rehearsed.episodes.len());
            let (peak, over) = (row.evidence.value, row.evidence.is_over());
            self.rehearsed.episodes.push(Episode { metric, from: row.at, to: None, peak, over });
        } else if crate::domain::incident::ends(row)
            && let Some(place) = self.open.remove(&metric)
            && let Some(episode) = self.rehearsed.episodes.get_mut(place)
        {
            episode.to = Some(row.at);
        }
    }
}
