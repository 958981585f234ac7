//! What happens, as a seed tells it: events with late, repeated, conflicting and broken ones among them, and edits of
//! quotas, rules and metrics.

use super::{TENANT, Timestamp};
use crate::load::Random;
use crate::log::{metric, scope};
use highwater::domain::control::command::{AlertDraft, AlertPatch, ChannelChoice, ChannelDraft, Command, RulePatch};
use highwater::domain::control::resource::ChannelKind;
use highwater::domain::definition::{Fold, InconclusivePolicy, MetricDefinition, NoDataPolicy, Quota, Severity};
use highwater::domain::id::{AlertId, ChannelId};
use highwater::domain::quantity::Quantity;
use highwater::domain::time::{Millis, Period};
use std::collections::{BTreeMap, VecDeque};

/// Monday, 2024-03-04T00:00:00Z. A broker takes no times that are far ahead of its own.
const BEGINS: Timestamp = Timestamp(1_709_510_400_000);
const ACCOUNTS: u64 = 30;
const METRICS: [&str; 4] = ["api.requests", "storage.gb", "jobs", "tokens"];
const BATCH: usize = 250;
/// How many events are remembered to be sent again.
const REMEMBERED: usize = 5_000;
const CHANNEL: ChannelId = ChannelId(1);

pub(super) enum Step {
    /// From here on it is so late.
    Time(Timestamp),
    /// Time alone is recorded.
    Tick,
    /// Somebody asks for something.
    Ask(Box<Command>),
    /// Lines of JSON arrive.
    Events(Vec<String>),
}

pub(super) struct Plan {
    pub(super) begins: Timestamp,
    pub(super) steps: Vec<Step>,
}

impl Plan {
    pub(super) fn from_seed(seed: u64, count: usize) -> Self {
        assert_eq!(TENANT.workspace.0, 7);
        let mut maker =
            Maker { random: Random(seed), sent: VecDeque::new(), number: 0, now: BEGINS, alerts: Vec::new() };
        let mut steps = Vec::new();
        steps.extend(maker.first_commands().into_iter().map(|command| Step::Ask(Box::new(command))));
        let batches = count.div_ceil(BATCH);
        // Edits stand apart by the same share of the history, however long it is.
        let between = (batches / 40).max(1);
        for number in 0..batches {
            maker.now = maker.now.plus(Millis(1 + maker.random.below(40_000).cast_signed()));
            steps.push(Step::Time(maker.now));
            if number % between == between - 1 {
                steps.push(Step::Ask(Box::new(maker.edit())));
            }
            if maker.random.below(4) == 0 {
                steps.push(Step::Tick);
            }
            steps.push(Step::Events((0..BATCH).map(|_| maker.line()).collect()));
        }
        // Windows close and periods end.
        for hours in [1, 24, 48] {
            steps.push(Step::Time(maker.now.plus(Millis::hours(hours))));
            steps.push(Step::Tick);
        }
        Self { begins: BEGINS, steps }
    }
}

struct Maker {
    random: Random,
    sent: VecDeque<String>,
    number: u64,
    now: Timestamp,
    alerts: Vec<AlertId>,
}

impl Maker {
    fn first_commands(&mut self) -> Vec<Command> {
        let channel = ChannelDraft {
            kind: ChannelKind::Webhook,
            name: "ops".to_owned(),
            default: true,
            sealed: String::new(),
            hint: String::new(),
            project: None,
        };
        let definition = MetricDefinition { unit: None, aggregate: Fold::Sum, group_by: vec!["region".to_owned()] };
        let mut commands = vec![
            Command::CreateChannel { id: CHANNEL, draft: channel },
            Command::PutMetric { metric: metric("jobs"), definition },
        ];
        commands.extend(METRICS.map(|name| quota("*", name, 4_000, Period::Day)));
        let rules = [
            "quota_percent > 50",
            "quota_percent >= 85 && remaining < 1000",
            "sum > 120",
            "max > 90 || count > 8",
            "avg < 10",
            "rate > 0.05",
            "sum(\"tokens\") > sum(\"jobs\")",
        ];
        commands.extend(rules.map(|rule| self.alert(rule)));
        commands
    }

    fn alert(&mut self, rule: &str) -> Command {
        let id = AlertId(100 + self.alerts.len() as u128);
        self.alerts.push(id);
        let spans = [Millis::ZERO, Millis::ZERO, Millis::minutes(6)];
        let draft = AlertDraft {
            account: scope("*"),
            metric: None,
            rule: rule.to_owned(),
            normalized: rule.to_owned(),
            warnings: Vec::new(),
            recover: None,
            grammar: 1,
            hold: spans[self.alerts.len() % 3],
            keep_firing_for: spans[(self.alerts.len() + 1) % 3],
            repeat_interval: Millis::hours(1),
            severity: Severity::Warning,
            no_data: NoDataPolicy::Alert,
            inconclusive: InconclusivePolicy::Keep,
            name: None,
            message: None,
            labels: BTreeMap::new(),
            metadata: BTreeMap::new(),
            project: None,
            channel: ChannelChoice::One("webhook".to_owned()),
            channels: vec![CHANNEL],
        };
        Command::CreateAlert { id, draft: Box::new(draft) }
    }

    fn edit(&mut self) -> Command {
        let account = format!("acc_{}", self.random.below(ACCOUNTS));
        let name = METRICS[self.random.below(4) as usize];
        let id = self.alerts[self.random.below(self.alerts.len() as u64) as usize];
        match self.random.below(8) {
            0 | 1 => quota("*", name, 500 + self.random.below(8_000).cast_signed(), Period::Hour),
            2 | 3 => quota(&account, name, 100 + self.random.below(8_000).cast_signed(), Period::Day),
            4 => {
                let rule = format!("quota_percent > {}", 20 + self.random.below(90));
                let rule = RulePatch { normalized: rule.clone(), source: rule, warnings: Vec::new(), grammar: 1 };
                Command::UpdateAlert { id, patch: Box::new(AlertPatch { rule: Some(rule), ..AlertPatch::default() }) }
            }
            5 => Command::PauseAlert { id, until: Some(self.now.plus(Millis::minutes(20))) },
            6 => {
                let rule = format!("sum >= {}", 50 + self.random.below(300));
                self.alert(&rule)
            }
            _ => {
                let group_by = if self.random.below(2) == 0 { vec!["region".to_owned()] } else { Vec::new() };
                let definition = MetricDefinition { unit: None, aggregate: Fold::Sum, group_by };
                Command::PutMetric { metric: metric(name), definition }
            }
        }
    }

    fn line(&mut self) -> String {
        let kind = self.random.below(1_000);
        match kind {
            0..5 => return "{\"account_id\": \"acc_1\", \"metric\"".to_owned(),
            5..60 if !self.sent.is_empty() => {
                return self.sent[self.random.below(self.sent.len() as u64) as usize].clone();
            }
            _ => {}
        }
        self.number += 1;
        // Now and then an id comes again with another payload.
        let number = if (60..65).contains(&kind) { self.number / 2 } else { self.number };
        let value = match self.random.below(20) {
            0 => "-3".to_owned(),
            1 => "0.25".to_owned(),
            _ => (1 + self.random.below(100)).to_string(),
        };
        let back = match self.random.below(100) {
            0..60 => None,
            60..90 => Some(Millis(self.random.below(60_000).cast_signed())),
            90..97 => Some(Millis(self.random.below(3 * 3_600_000).cast_signed())),
            97..99 => Some(Millis(self.random.below(40 * 3_600_000).cast_signed())),
            _ => Some(Millis::hours(50)),
        };
        let timestamp =
            back.map_or_else(String::new, |back| format!(",\"timestamp\":\"{}\"", Timestamp(self.now.0 - back.0)));
        let line = format!(
            "{{\"account_id\":\"acc_{}\",\"metric\":\"{}\",\"value\":{value},\"id\":\"e{number}\"{timestamp},\
             \"dimensions\":{{\"region\":\"r{}\"}}}}",
            self.random.below(ACCOUNTS),
            METRICS[self.random.below(4) as usize],
            self.random.below(3)
        );
        self.sent.push_back(line.clone());
        if self.sent.len() > REMEMBERED {
            self.sent.pop_front();
        }
        line
    }
}

fn quota(account: &str, name: &str, limit: i64, period: Period) -> Command {
    let quota = Quota { limit: Quantity::whole(limit), period, aggregate: Fold::Sum };
    Command::PutQuota { account: scope(account), metric: metric(name), quota }
}
