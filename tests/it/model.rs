//! A model of usage alerts, written for reading and not for speed, from the design and not from the engine.
//!
//! It keeps every event, counts everything anew for every question, and asks every question that time or a record may
//! have changed the answer to. Instants and spans are milliseconds, amounts are thousandths.

mod judgement;
mod quotas;

pub(crate) use quotas::News;

use std::collections::{BTreeMap, BTreeSet};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const WIDTH: i64 = 5 * MINUTE;
const GRACE: i64 = 30_000;

/// What happens to the model.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    Event { account: u8, metric: u8, at: i64, value: i64 },
    Quota { account: u8, metric: u8, quota: Option<(i64, Span)> },
    Rule { slot: u8, rule: Option<Rule> },
    Tick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    Hour,
    Day,
    Week,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) condition: Condition,
    pub(crate) hold: i64,
    pub(crate) keep: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    PercentOver(i64),
    SumOver(i64),
    SumUnder(i64),
    CountAtLeast(i64),
    MaxOver(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    Missing,
    Unknown,
}

/// One thing that the model says happens to an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) at: i64,
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    pub(crate) reason: &'static str,
    /// What was used of the quota, for rules that read one.
    pub(crate) used: Option<i64>,
}

/// Rule, generation of the rule, account, metric.
pub(crate) type Subject = (u8, u32, u8, u8);

#[derive(Clone, Debug)]
struct Instance {
    state: &'static str,
    since: i64,
    evaluated: i64,
    false_since: Option<i64>,
    /// An open window that proved the condition while it fired.
    proven: Option<i64>,
    /// What closed windows said, and whether that was corrected.
    judged: BTreeMap<i64, (Answer, bool)>,
    /// The first window whose close is evaluated.
    first: i64,
    /// What closed windows said when they closed, or when they were the newest one; since the rule is what it is.
    row: Vec<(i64, Answer)>,
}

struct Event {
    account: u8,
    metric: u8,
    at: i64,
    value: i64,
    late: bool,
}

/// A window's count, sum, least and greatest value, and how many were late.
pub(crate) type Window = (u64, i64, i64, i64, u64);

#[derive(Default)]
pub(crate) struct Model {
    now: Option<i64>,
    events: Vec<Event>,
    quotas: BTreeMap<(u8, u8), (i64, Span)>,
    rules: BTreeMap<u8, (u32, Rule)>,
    generations: BTreeMap<u8, u32>,
    instances: BTreeMap<Subject, Instance>,
    pub(crate) moves: BTreeMap<Subject, Vec<Move>>,
    told: BTreeMap<(u8, u8), quotas::Told>,
    pub(crate) news: Vec<News>,
}

/// The end of the newest window that is closed at an instant.
fn closed_end(at: i64) -> i64 {
    (at - GRACE).div_euclid(WIDTH) * WIDTH
}

/// The period that is judged at an instant.
fn judged_period(span: Span, at: i64) -> (i64, i64) {
    let at = at - GRACE;
    let (width, shift) = match span {
        Span::Hour => (HOUR, 0),
        Span::Day => (DAY, 0),
        // The first day of all was a Thursday.
        Span::Week => (7 * DAY, 3 * DAY),
    };
    let start = (at + shift).div_euclid(width) * width - shift;
    (start, start + width)
}

impl Rule {
    fn reads_quota(&self) -> bool {
        matches!(self.condition, Condition::PercentOver(_))
    }
}

impl Model {
    pub(crate) fn take(&mut self, at: i64, happening: &Happening) {
        self.pass_time(at);
        match happening {
            Happening::Event { account, metric, at: happened, value } => {
                self.event(at, (*account, *metric), *happened, *value);
            }
            Happening::Quota { account, metric, quota } => self.quota(at, (*account, *metric), *quota),
            Happening::Rule { slot, rule } => self.rule(at, *slot, rule.as_ref()),
            Happening::Tick => {}
        }
        self.tell_quotas(at);
    }

    pub(crate) fn windows(&self) -> BTreeMap<(u8, u8, i64), Window> {
        let mut windows: BTreeMap<(u8, u8, i64), Window> = BTreeMap::new();
        for event in &self.events {
            let start = event.at.div_euclid(WIDTH) * WIDTH;
            let key = (event.account, event.metric, start);
            let window = windows.entry(key).or_insert((0, 0, i64::MAX, i64::MIN, 0));
            window.0 += 1;
            window.1 += event.value;
            window.2 = window.2.min(event.value);
            window.3 = window.3.max(event.value);
            window.4 += u64::from(event.late);
        }
        windows
    }

    /// Does everything that is due, in order: closes before turns before what instances wait for.
    fn pass_time(&mut self, to: i64) {
        let Some(from) = self.now else {
            self.now = Some(to);
            return;
        };
        let mut done = from;
        loop {
            let close = closed_end(done) + WIDTH + GRACE;
            let turn = (done - GRACE).div_euclid(HOUR) * HOUR + HOUR + GRACE;
            let due = self.instances.keys().filter_map(|subject| Some((self.due(subject)?, *subject)));
            let due = due.min();
            let first = close.min(turn).min(due.map_or(i64::MAX, |(at, _)| at));
            if first > to {
                break;
            }
            if due.is_some_and(|(at, _)| at == first) && first != close && first != turn {
                let (at, subject) = due.unwrap();
                self.evaluate(subject, at, "condition", None);
                continue;
            }
            if first == close {
                self.close(close);
            }
            if first == turn {
                self.turn(turn);
                self.tell_quotas(turn);
            }
            done = first;
            while let Some((_, subject)) = self.due_at(first) {
                self.evaluate(subject, first, "condition", None);
            }
        }
        self.now = Some(to);
    }

    fn due_at(&self, at: i64) -> Option<(i64, Subject)> {
        let due = self.instances.keys().filter_map(|subject| Some((self.due(subject)?, *subject)));
        due.filter(|(due, _)| *due == at).min()
    }

    /// When a span that an instance waits for is over.
    fn due(&self, subject: &Subject) -> Option<i64> {
        let (instance, rule) = (&self.instances[subject], &self.rules[&subject.0].1);
        if !rule.reads_quota() {
            return None;
        }
        let due = match (instance.state, instance.false_since) {
            ("pending", _) => instance.since + rule.hold,
            ("firing", Some(since)) => since + rule.keep,
            _ => return None,
        };
        Some(due).filter(|due| *due > instance.evaluated)
    }

    fn close(&mut self, at: i64) {
        let start = closed_end(at) - WIDTH;
        for subject in self.instances.keys().copied().collect::<Vec<_>>() {
            if self.rules[&subject.0].1.reads_quota() {
                continue;
            }
            self.note_newest(subject, start);
            self.evaluate(subject, at, "condition", None);
            let answer = self.on_window(subject, start);
            let instance = self.instances.get_mut(&subject).unwrap();
            if start < instance.first {
                continue;
            }
            instance.judged.retain(|start, _| *start > at - HOUR - GRACE - WIDTH);
            instance.judged.insert(start, (answer, false));
        }
    }

    fn turn(&mut self, at: i64) {
        for subject in self.instances.keys().copied().collect::<Vec<_>>() {
            let (_, _, account, metric) = subject;
            let Condition::PercentOver(_) = self.rules[&subject.0].1.condition else { continue };
            let Some((_, span)) = self.quotas.get(&(account, metric)).copied() else { continue };
            if judged_period(span, at) == judged_period(span, at - 1) {
                continue;
            }
            if matches!(self.instances[&subject].state, "firing" | "pending") {
                self.go(subject, at, "ok", "period_ended", at - 1);
            }
            self.evaluate(subject, at, "condition", None);
        }
    }

    fn event(&mut self, now: i64, (account, metric): (u8, u8), at: i64, value: i64) {
        if !self.events.iter().any(|event| (event.account, event.metric) == (account, metric)) {
            for slot in self.rules.keys().copied().collect::<Vec<_>>() {
                self.fit(now, slot, account, Some(metric), "condition");
            }
        }
        let start = at.div_euclid(WIDTH) * WIDTH;
        let late = start < closed_end(now);
        self.events.push(Event { account, metric, at, value, late });
        for subject in self.instances.keys().copied().collect::<Vec<_>>() {
            if (subject.2, subject.3) != (account, metric) {
                continue;
            }
            let reads_quota = matches!(self.rules[&subject.0].1.condition, Condition::PercentOver(_));
            let newest = start == closed_end(now) - WIDTH;
            if !late {
                self.evaluate(subject, now, "condition", Some(start));
            } else if reads_quota || newest {
                if newest && !reads_quota {
                    self.note_newest(subject, start);
                }
                self.evaluate(subject, now, "late", None);
            }
            if late && newest && !reads_quota {
                let answer = self.on_window(subject, start);
                if let Some(judged) = self.instances.get_mut(&subject).unwrap().judged.get_mut(&start) {
                    judged.0 = answer;
                }
            } else if late && !reads_quota {
                self.correct(subject, now, start);
            }
        }
    }

    /// Looks again at an older window that a late event changed.
    fn correct(&mut self, subject: Subject, now: i64, start: i64) {
        let answer = self.on_window(subject, start);
        let rule = &self.rules[&subject.0].1;
        let correctable = rule.hold == 0 && rule.keep == 0;
        let instance = self.instances.get_mut(&subject).unwrap();
        let Some((before, corrected)) = instance.judged.get_mut(&start) else { return };
        let reason = match (*before, answer) {
            (Answer::Yes, Answer::No) => Some("retraction"),
            (Answer::No | Answer::Missing, Answer::Yes) => Some("late_fire"),
            _ => None,
        };
        *before = answer;
        if let Some(reason) = reason.filter(|_| correctable && !*corrected) {
            *corrected = true;
            let state = instance.state;
            self.go(subject, now, state, reason, now);
        }
    }

    fn quota(&mut self, now: i64, (account, metric): (u8, u8), quota: Option<(i64, Span)>) {
        if quota.is_none() && self.quotas.contains_key(&(account, metric)) {
            for subject in self.instances.keys().copied().collect::<Vec<_>>() {
                let reads = self.rules[&subject.0].1.reads_quota() && (subject.2, subject.3) == (account, metric);
                if reads && matches!(self.instances[&subject].state, "firing" | "pending") {
                    self.go(subject, now, "ok", "quota_removed", now);
                }
            }
        }
        match quota {
            Some(quota) => self.quotas.insert((account, metric), quota),
            None => self.quotas.remove(&(account, metric)),
        };
        for slot in self.rules.keys().copied().collect::<Vec<_>>() {
            if matches!(self.rules[&slot].1.condition, Condition::PercentOver(_)) {
                self.fit(now, slot, account, None, "redefined");
                let subject = (slot, self.rules[&slot].0, account, metric);
                if self.instances.contains_key(&subject) {
                    self.evaluate(subject, now, "redefined", None);
                }
            }
        }
    }

    fn rule(&mut self, now: i64, slot: u8, rule: Option<&Rule>) {
        let generation = *self.generations.entry(slot).or_insert(0);
        let Some(rule) = rule else {
            for subject in self.instances.keys().filter(|subject| subject.0 == slot).copied().collect::<Vec<_>>() {
                if self.instances[&subject].state != "ok" {
                    self.go(subject, now, "ok", "deleted", now);
                }
                self.instances.remove(&subject);
            }
            self.rules.remove(&slot);
            *self.generations.get_mut(&slot).unwrap() += 1;
            return;
        };
        let before = self.rules.insert(slot, (generation, rule.clone()));
        let reason = if before.is_some() { "edited" } else { "condition" };
        let before = before.map(|(_, before)| before).filter(|before| before != rule);
        if let Some(before) = before {
            for subject in self.instances.keys().filter(|subject| subject.0 == slot).copied().collect::<Vec<_>>() {
                if before.condition != rule.condition {
                    let instance = self.instances.get_mut(&subject).unwrap();
                    instance.proven = None;
                    instance.judged.clear();
                    instance.row.clear();
                }
                self.note_newest(subject, closed_end(now) - WIDTH);
                self.evaluate(subject, now, reason, None);
            }
        }
        let accounts = self.events.iter().map(|event| event.account).chain(self.quotas.keys().map(|key| key.0));
        for account in accounts.collect::<BTreeSet<u8>>() {
            self.fit(now, slot, account, None, reason);
        }
    }

    /// Makes the instances that a rule has on an account.
    fn fit(&mut self, now: i64, slot: u8, account: u8, comes: Option<u8>, reason: &'static str) {
        let (generation, rule) = self.rules[&slot].clone();
        let own = self.events.iter().filter(|event| event.account == account).map(|event| event.metric);
        let metrics: BTreeSet<u8> = match rule.condition {
            Condition::PercentOver(_) => self.quotas.keys().filter(|key| key.0 == account).map(|key| key.1).collect(),
            Condition::SumOver(_) | Condition::SumUnder(_) | Condition::CountAtLeast(_) | Condition::MaxOver(_) => {
                own.chain(comes).collect()
            }
        };
        for metric in metrics {
            let subject = (slot, generation, account, metric);
            if let std::collections::btree_map::Entry::Vacant(place) = self.instances.entry(subject) {
                place.insert(Instance {
                    state: "ok",
                    since: now,
                    evaluated: now,
                    false_since: None,
                    proven: None,
                    judged: BTreeMap::new(),
                    first: now.div_euclid(WIDTH) * WIDTH + WIDTH,
                    row: Vec::new(),
                });
                self.evaluate(subject, now, reason, None);
            }
        }
    }
}
