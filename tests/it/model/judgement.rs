//! What the model answers to an instance's question, and the step that the answer leads to.

use super::{Answer, Condition, Model, Move, Rule, Subject, WIDTH, closed_end, judged_period};
use std::collections::BTreeSet;

impl Model {
    fn values(&self, (_, _, account, metric): Subject, from: i64, to: i64) -> Vec<i64> {
        let events = self.events.iter().filter(|event| (event.account, event.metric) == (account, metric));
        events.filter(|event| from <= event.at && event.at < to).map(|event| event.value).collect()
    }

    pub(super) fn on_window(&self, subject: Subject, start: i64) -> Answer {
        let values = self.values(subject, start, start + WIDTH);
        let sum: i64 = values.iter().sum();
        let is = match self.rules[&subject.0].1.condition {
            Condition::SumOver(limit) => sum > limit * 1_000,
            Condition::SumUnder(limit) => sum < limit * 1_000,
            Condition::CountAtLeast(limit) => values.len() as i64 >= limit,
            Condition::MaxOver(limit) => match values.iter().max() {
                Some(max) => *max > limit * 1_000,
                None => return Answer::Missing,
            },
            Condition::PercentOver(_) => return Answer::Unknown,
        };
        if is { Answer::Yes } else { Answer::No }
    }

    /// Notes what the newest closed window says, for the windows in a row.
    pub(super) fn note_newest(&mut self, subject: Subject, start: i64) {
        let answer = self.on_window(subject, start);
        let instance = self.instances.get_mut(&subject).unwrap();
        // The close of a window in which it fired before its beginning was over is evaluated, too.
        if start < instance.first {
            return;
        }
        instance.row.retain(|(known, _)| *known != start);
        instance.row.push((start, answer));
    }

    /// How many closed windows in a row said yes, and how many no, those that said nothing left out.
    fn in_a_row(&self, subject: Subject) -> (i64, i64) {
        let row = &self.instances[&subject].row;
        let yes = row.iter().rev().take_while(|(_, answer)| *answer == Answer::Yes).count();
        let no = row.iter().rev().take_while(|(_, answer)| *answer != Answer::Yes);
        (yes as i64, no.filter(|(_, answer)| *answer == Answer::No).count() as i64)
    }

    fn used(&self, subject: Subject, at: i64) -> Option<i64> {
        let (_, span) = self.quotas.get(&(subject.2, subject.3))?;
        let (start, end) = judged_period(*span, at);
        Some(self.values(subject, start, end).iter().sum())
    }

    /// What the period or the newest closed window says at an instant.
    fn answer(&self, subject: Subject, at: i64) -> Answer {
        match self.rules[&subject.0].1.condition {
            Condition::PercentOver(percent) => {
                match (self.quotas.get(&(subject.2, subject.3)), self.used(subject, at)) {
                    // Of a limit of zero any use is more than any share of it.
                    (Some((limit, _)), Some(used)) => {
                        if used * 100 > percent * limit * 1_000 {
                            Answer::Yes
                        } else {
                            Answer::No
                        }
                    }
                    _ => Answer::Unknown,
                }
            }
            Condition::SumOver(_) | Condition::SumUnder(_) | Condition::CountAtLeast(_) | Condition::MaxOver(_) => {
                self.on_window(subject, closed_end(at) - WIDTH)
            }
        }
    }

    /// Asks an instance's question and takes the step that the answer leads to. An event asks about its own open window,
    /// everything else about all of them.
    pub(super) fn evaluate(&mut self, subject: Subject, at: i64, reason: &'static str, own_window: Option<i64>) {
        let Rule { condition, hold, keep } = self.rules[&subject.0].1.clone();
        let closed = closed_end(at);
        let reads_quota = matches!(condition, Condition::PercentOver(_));
        let (first, in_a_row) = (self.instances[&subject].first, self.in_a_row(subject));
        let is_before = !reads_quota && closed - WIDTH < first;
        let mut answer = self.answer(subject, at);
        let state = self.instances[&subject].state;
        self.instances.get_mut(&subject).unwrap().evaluated = at;
        let grows = matches!(condition, Condition::SumOver(_) | Condition::CountAtLeast(_) | Condition::MaxOver(_));
        let mut proven = false;
        if grows && hold == 0 && (is_before || answer != Answer::Yes || state == "firing") {
            let own = self.events.iter().filter(|event| (event.account, event.metric) == (subject.2, subject.3));
            let open: BTreeSet<i64> = own.map(|event| event.at.div_euclid(WIDTH) * WIDTH).collect();
            let proves = |start: &i64| {
                let values = self.values(subject, *start, *start + WIDTH);
                *start >= closed
                    && *start >= first - WIDTH
                    && values.iter().all(|v| *v >= 0)
                    && self.on_window(subject, *start) == Answer::Yes
            };
            let looked_at = |start: &i64| state == "pending" || own_window.is_none_or(|own| own == *start);
            let proof = open.into_iter().filter(looked_at).find(proves);
            let kept = self.instances[&subject].proven.filter(|start| *start >= closed && state == "firing");
            if let Some(window) = proof.max(kept) {
                answer = Answer::Yes;
                proven = true;
                let instance = self.instances.get_mut(&subject).unwrap();
                instance.proven = Some(window);
                instance.first = instance.first.min(window);
            }
        }
        if is_before && !proven {
            return;
        }
        let windows = |span: i64| (span + WIDTH - 1) / WIDTH;
        let instance = self.instances.get_mut(&subject).unwrap();
        let over = |since: i64, span: i64| since + span <= at;
        let step = match (answer, instance.state) {
            (Answer::Yes, "firing") => {
                instance.false_since = None;
                None
            }
            (Answer::Yes, state) if hold > 0 && !reads_quota => {
                let over = in_a_row.0 >= windows(hold);
                let begins = in_a_row.0 > 0 && state != "pending";
                if over { Some(("firing", "held")) } else { begins.then_some(("pending", reason)) }
            }
            (Answer::No, "firing") if keep > 0 && !reads_quota => {
                if in_a_row.1 > 0 {
                    instance.false_since.get_or_insert(at);
                }
                (in_a_row.1 >= windows(keep)).then_some(("ok", "held"))
            }
            (Answer::No, "firing") if !reads_quota => Some(("ok", reason)),
            (Answer::Yes, "pending") => over(instance.since, hold).then_some(("firing", "held")),
            (Answer::Yes, _) if hold > 0 => Some(("pending", reason)),
            (Answer::Yes, _) => Some(("firing", reason)),
            (Answer::No, "ok") => None,
            (Answer::No, "firing") if keep > 0 || instance.false_since.is_some() => match instance.false_since {
                None => {
                    instance.false_since = Some(at);
                    None
                }
                Some(since) => over(since, keep).then_some(("ok", "held")),
            },
            (Answer::No, _) => Some(("ok", reason)),
            (Answer::Missing, "no_data") => None,
            (Answer::Missing, "firing") => Some(("no_data", "no_data")),
            (Answer::Missing, _) => Some(("no_data", reason)),
            (Answer::Unknown, "ok" | "no_data" | "pending") => Some(("inconclusive", reason)),
            (Answer::Unknown, _) => None,
        };
        if let Some((to, reason)) = step {
            self.go(subject, at, to, reason, at);
        }
    }

    /// Notes a move; what was used is that of the period judged at `seen`.
    pub(super) fn go(&mut self, subject: Subject, at: i64, to: &'static str, reason: &'static str, seen: i64) {
        let reads_quota = matches!(self.rules[&subject.0].1.condition, Condition::PercentOver(_));
        let used = self.used(subject, seen).filter(|_| reads_quota);
        let instance = self.instances.get_mut(&subject).unwrap();
        let from = std::mem::replace(&mut instance.state, to);
        if from != to {
            instance.since = at;
            instance.false_since = None;
            if from == "firing" {
                instance.proven = None;
            }
        }
        self.moves.entry(subject).or_default().push(Move { at, from, to, reason, used });
    }
}
