//! The words of a script's lines.

use crate::log::{metric, scope, tenant};
use highwater::domain::control::outcome::Change;
use highwater::domain::definition::{
    AlertDefinition, Fold, InconclusivePolicy, MatchOp, Matcher, NoDataPolicy, Severity,
};
use highwater::domain::id::{AccountScope, AlertId, ChannelId, ProjectId, WebhookId};
use highwater::domain::time::{Millis, Period};
use highwater::domain::webhook::outbox::{Intake, Subscription};
use std::collections::BTreeMap;

pub(crate) struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self(text.trim())
    }

    pub(crate) fn try_next(&mut self) -> Option<&'a str> {
        let (word, rest) = self.0.split_once(char::is_whitespace).unwrap_or((self.0, ""));
        self.0 = rest.trim_start();
        Some(word).filter(|word| !word.is_empty())
    }

    pub(crate) fn next(&mut self) -> &'a str {
        self.try_next().expect("one more word")
    }

    pub(crate) fn next_or(&mut self, default: &'a str) -> &'a str {
        self.try_next().unwrap_or(default)
    }

    pub(crate) fn take_if(&mut self, wanted: &str) -> bool {
        let mut ahead = Words(self.0);
        let found = ahead.try_next() == Some(wanted);
        if found {
            self.0 = ahead.0;
        }
        found
    }

    pub(crate) fn rest(&mut self) -> &'a str {
        std::mem::take(&mut self.0)
    }
}

/// `mm:ss`, `hh:mm:ss`, each with `Nd` or `-` before it.
pub(crate) fn time(text: &str) -> Millis {
    if let Some(text) = text.strip_prefix('-') {
        return Millis(-time(text).0);
    }
    let (days, clock) = text.split_once('d').unwrap_or(("0", text));
    let parts: Vec<i64> = clock.split(':').map(|part| part.parse().expect("a time")).collect();
    let seconds = parts.iter().fold(0, |sum, part| sum * 60 + part);
    Millis::days(days.parse().unwrap()).plus(Millis::seconds(seconds))
}

/// The shortest form that [`time`] reads.
pub(crate) fn clock(span: Millis) -> String {
    let (days, seconds) = (span.0.div_euclid(86_400_000), span.0.rem_euclid(86_400_000) / 1_000);
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes:02}:{seconds:02}"),
        (0, _) => format!("{hours:02}:{minutes:02}:{seconds:02}"),
        (_, _) => format!("{days}d{hours:02}:{minutes:02}:{seconds:02}"),
    }
}

pub(crate) fn period(text: &str) -> Period {
    Period::ALL.into_iter().find(|period| period.name() == text).expect("a period")
}

pub(crate) fn aggregate(text: &str) -> Fold {
    [Fold::Sum, Fold::Max, Fold::Last].into_iter().find(|fold| fold.name() == text).expect("an aggregate")
}

pub(crate) fn channel(name: &str, known: &[&str]) -> ChannelId {
    ChannelId(known.iter().position(|channel| *channel == name).expect("a channel") as u128 + 1)
}

/// `RULE [| OPTION, OPTION…]`
pub(crate) fn alert(name: &str, id: u128, version: u64, text: &str, channels: &[&str]) -> AlertDefinition {
    let (rule, options) = text.split_once(" | ").unwrap_or((text, ""));
    let mut definition = AlertDefinition {
        id: AlertId(id),
        version,
        account: AccountScope::All,
        metric: None,
        rule: rule.trim().to_owned(),
        recover: None,
        grammar: 1,
        hold: Millis::ZERO,
        keep_firing_for: Millis::ZERO,
        repeat_interval: Millis::hours(4),
        severity: Severity::Warning,
        no_data: NoDataPolicy::Ok,
        inconclusive: InconclusivePolicy::Keep,
        name: Some(name.to_owned()),
        message: None,
        labels: BTreeMap::new(),
        project: None,
        channels: vec![ChannelId(1)],
        pause: None,
    };
    for option in options.split(',').map(str::trim).filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once(' ').expect("an option and its value");
        let span = || Millis::parse(value).expect("a duration");
        match key {
            "for" => definition.hold = span(),
            "keep" => definition.keep_firing_for = span(),
            "repeat" => definition.repeat_interval = span(),
            "recover" => definition.recover = Some(value.to_owned()),
            "on" => {
                let (account, own) = value.split_once('/').map_or((value, None), |(a, m)| (a, Some(m)));
                definition.account = scope(account);
                definition.metric = own.map(metric);
            }
            "no_data" => {
                definition.no_data = match value {
                    "ok" => NoDataPolicy::Ok,
                    "alert" => NoDataPolicy::Alert,
                    "keep" => NoDataPolicy::Keep,
                    other => panic!("no such policy: {other}"),
                }
            }
            "inconclusive" => {
                definition.inconclusive = match value {
                    "keep" => InconclusivePolicy::Keep,
                    "ok" => InconclusivePolicy::Ok,
                    other => panic!("no such policy: {other}"),
                }
            }
            "to" => definition.channels = value.split('+').map(|name| channel(name, channels)).collect(),
            "message" => definition.message = Some(value.to_owned()),
            "label" => {
                let (name, value) = value.split_once('=').expect("a label");
                definition.labels.insert(name.to_owned(), value.to_owned());
            }
            other => panic!("no such option: {other}"),
        }
    }
    definition
}

/// `NAME=VALUE`, `NAME!=VALUE`, `NAME=~EXPRESSION` or `NAME!~EXPRESSION`, as long as they come.
pub(crate) fn matchers(words: &mut Words<'_>) -> Vec<Matcher> {
    let mut matchers = Vec::new();
    while let Some(pair) = Words(words.0).try_next().filter(|word| word.contains(['=', '~'])) {
        words.next();
        let (at, op, length) = [("!=", MatchOp::NotEqual), ("=~", MatchOp::Matches), ("!~", MatchOp::MatchesNot)]
            .into_iter()
            .find_map(|(text, op)| Some((pair.find(text)?, op, 2)))
            .unwrap_or_else(|| (pair.find('=').unwrap(), MatchOp::Equal, 1));
        matchers.push(Matcher { name: pair[..at].to_owned(), value: pair[at + length..].to_owned(), op });
    }
    matchers
}

/// An endpoint that wants what a pattern names.
pub(crate) fn listen(pattern: &str) -> Change {
    listen_for(1, pattern, None)
}

/// An endpoint that wants what a pattern names, of a project.
pub(crate) fn listen_for(id: u128, pattern: &str, project: Option<ProjectId>) -> Change {
    let subscription = Subscription { event_types: vec![pattern.to_owned()], intake: Intake::Open };
    Change::Webhook { tenant: tenant(), webhook: WebhookId(id), subscription: Some(subscription), project }
}
