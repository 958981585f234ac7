//! A script that a person can read: lines of what happens, each with everything that comes of it.
//!
//! ```text
//! alert spike  sum("api.calls") > 100 | for 30s, channels ops
//! at 00:20  usage acme api.calls 140   -> pending spike acme
//! at 00:50  tick                       -> firing spike acme held, notify 1 firing
//! ```
//!
//! Times are `[Nd]mm:ss` or `[Nd]hh:mm:ss` behind noon. A line is one record, or a look at the state. What a line does not
//! name must not happen. Behind the last line the same log is folded again in one batch, and restarted behind every
//! record: it must come out the same.

use crate::log::{Kind, Log, MIDNIGHT, Usage, account, fold, frame, metric, scope, tenant};
use crate::words::{self, Words};
use highwater::domain::control::fold::Control;
use highwater::domain::control::outcome::Change;
use highwater::domain::definition::{AlertDefinition, MetricDefinition, Pause, Quota, Silence};
use highwater::domain::id::{ChannelId, Log as JournalLog, NotificationId, PartitionId, SilenceId};
use highwater::domain::partition::effect::{DeliveryStatus, Effects, InstanceRow, Reason, TransitionRow};
use highwater::domain::partition::fact::{Fact, Note};
use highwater::domain::partition::notification::{Attempted, Notification};
use highwater::domain::quantity::Quantity;
use highwater::domain::time::{Millis, Timestamp};
use highwater::domain::webhook::event::{Content, Event};
use highwater::journal::{Journal, MemoryJournal};
use highwater::runtime::processor::Fold;
use highwater::runtime::repair::ClockRepair;
use std::collections::BTreeMap;

/// Noon of the tests' day: no hour, day, week or month turns in a script's first minutes.
const NOON: Timestamp = Timestamp(MIDNIGHT.0 + 12 * 3_600_000);

const CHANNELS: [&str; 3] = ["ops", "dev", "web"];

/// Runs a script and compares everything that happens with what its lines say.
pub(crate) fn check(script: &str) {
    let mut stage = Stage::new();
    for line in lines(script) {
        stage.line(&line);
    }
    stage.again();
}

/// Joins continued lines (`-> …` on a line of its own) and drops comments.
fn lines(script: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match lines.last_mut().filter(|_| line.starts_with("->") || line.starts_with(',')) {
            Some(last) => *last = format!("{last} {line}"),
            None => lines.push(line.to_owned()),
        }
    }
    lines
}

struct Stage {
    log: Log,
    fold: Fold,
    now: Timestamp,
    alerts: BTreeMap<String, AlertDefinition>,
    notifications: Vec<NotificationId>,
    sent: BTreeMap<NotificationId, Notification>,
    instances: BTreeMap<String, InstanceRow>,
    transitions: Vec<TransitionRow>,
    events: Vec<Event>,
    event_count: usize,
    silences: BTreeMap<SilenceId, Silence>,
    /// Whether channels take whatever is sent at once.
    delivers: bool,
}

impl Stage {
    fn new() -> Self {
        Self {
            log: Log::default(),
            fold: fold(),
            now: NOON,
            alerts: BTreeMap::new(),
            notifications: Vec::new(),
            sent: BTreeMap::new(),
            instances: BTreeMap::new(),
            transitions: Vec::new(),
            events: Vec::new(),
            event_count: 0,
            silences: BTreeMap::new(),
            delivers: false,
        }
    }

    fn line(&mut self, line: &str) {
        let (action, expected) = line.split_once("->").unwrap_or((line, ""));
        let mut words = Words::new(action);
        if words.take_if("at") {
            self.now = NOON.plus(words::time(words.next()));
        }
        let happened = match words.next() {
            "show" => self.show(words.next()),
            "owes" => self.owes(),
            "sends" => self.sends(),
            "delivers" => {
                self.delivers = true;
                Vec::new()
            }
            action => {
                self.record(action, &mut words);
                let happened = self.fold_last();
                self.deliver();
                happened
            }
        };
        let wanted: Vec<&str> = expected.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
        assert_eq!(happened, wanted, "\n  {line}\n");
    }

    /// Appends the record that a line stands for.
    #[expect(clippy::too_many_lines, reason = "a few lines for each word")]
    fn record(&mut self, action: &str, words: &mut Words<'_>) {
        let (now, tenant) = (self.now, tenant());
        let change = match action {
            "tick" => {
                let intake_through = words.take_if("through").then(|| NOON.plus(words::time(words.next())));
                self.log.note(now, &Note::Ticked { intake_through });
                return;
            }
            "usage" | "backfill" => {
                let kind = if action == "usage" { Kind::Ordinary } else { Kind::Backfill };
                let events = self.events(words);
                self.log.push(now, frame(now, &events, kind));
                return;
            }
            "attempt" => {
                let attempted = self.attempted(words);
                self.log.note(now, &Note::NotificationAttempted(attempted));
                return;
            }
            "alert" | "edit" => {
                let name = words.next().to_owned();
                let version = self.alerts.get(&name).map_or(0, |known| known.version) + 1;
                let id = self.alerts.get(&name).map_or(self.alerts.len() as u128 + 1, |known| known.id.0);
                let definition = words::alert(&name, id, version, words.rest(), &CHANNELS);
                self.alerts.insert(name, definition.clone());
                Change::Alert { tenant, definition: Box::new(definition) }
            }
            "pause" | "resume" => {
                let definition = self.alerts.get_mut(words.next()).unwrap();
                let until = words.take_if("until").then(|| NOON.plus(words::time(words.next())));
                definition.pause = (action == "pause").then_some(Pause { until });
                Change::Alert { tenant, definition: Box::new(definition.clone()) }
            }
            "delete" => Change::AlertDeleted { tenant, alert: self.alerts[words.next()].id },
            "quota" => {
                let (account, metric) = (scope(words.next()), metric(words.next()));
                let quota = match words.next() {
                    "none" => None,
                    limit => Some(Quota {
                        limit: Quantity::parse(limit).unwrap(),
                        period: words::period(words.next()),
                        aggregate: words::aggregate(words.next_or("sum")),
                    }),
                };
                Change::Quota { tenant, account, metric, quota }
            }
            "metric" => {
                let name = metric(words.next());
                let group_by = words.rest().split_whitespace().map(str::to_owned).collect();
                let definition = MetricDefinition { group_by, ..MetricDefinition::default() };
                Change::Metric { tenant, metric: name, definition: Some(definition) }
            }
            "silence" => {
                let id = SilenceId(words.next().parse().unwrap());
                let matchers = words::matchers(words);
                let starts_at = if words.take_if("from") { NOON.plus(words::time(words.next())) } else { now };
                assert!(words.take_if("until"), "a silence needs an end");
                let ends_at = NOON.plus(words::time(words.next()));
                let silence = Silence { id, matchers, starts_at, ends_at };
                self.silences.insert(id, silence.clone());
                Change::Silence { tenant, silence }
            }
            "unsilence" => Change::SilenceDeleted { tenant, silence: SilenceId(words.next().parse().unwrap()) },
            "clock" => return self.set_clock(words),
            "engine" => {
                self.log.note(now, &Note::EngineVersion { version: words.next().parse().unwrap() });
                return;
            }
            "repair" => Change::ChannelRepaired { tenant, channel: words::channel(words.next(), &CHANNELS) },
            "redeliver" => {
                let id = self.notifications[words.next().parse::<usize>().unwrap() - 1];
                let notification = Box::new(self.sent[&id].clone());
                let channel = words::channel(words.next(), &CHANNELS);
                Change::RedeliverMessage { tenant, channel, notification, attempts: 1 }
            }
            "listen" => words::listen(words.next()),
            "forget" => Change::AccountDeleted { tenant, account: account(words.next()) },
            "reset" => Change::SandboxReset { tenant },
            "seed" => {
                let (account, metric) = (account(words.next()), metric(words.next()));
                let from = NOON.plus(words::time(words.next()));
                let every = Millis::parse(words.next()).unwrap();
                let values = words.rest().split_whitespace().map(|value| value.parse().unwrap()).collect();
                Change::UsageSeeded { tenant, account, metric, from, every, values }
            }
            "advance" => Change::ClockAdvanced { tenant, by: Millis::parse(words.next()).unwrap() },
            other => panic!("no such action: {other}"),
        };
        self.log.change(now, vec![change]);
    }

    /// Repairs the log as the command line does, with the present as the new time; `set TIME` says when it is done.
    fn set_clock(&mut self, words: &mut Words<'_>) {
        let set_at = if words.take_if("set") { NOON.plus(words::time(words.next())) } else { self.now };
        let partition = JournalLog::Partition(PartitionId(0));
        let journal = Journal::Memory(MemoryJournal::new(1));
        for record in &self.log.records {
            let record = journal.append_at(vec![(partition, record.payload.clone())], record.recorded_at);
            futures::executor::block_on(record).unwrap();
        }
        let end = journal.end(partition);
        let repair = ClockRepair::plan(&journal, &Control::default(), (self.now, set_at)).unwrap();
        futures::executor::block_on(repair.append(&journal, "req_test".to_owned())).unwrap();
        for record in journal.read(partition, end, usize::MAX, usize::MAX).unwrap() {
            let Fact::Note(Note::ClockSet { to, set_at, mut restored }) = Fact::decode(&record.payload).unwrap() else {
                panic!("a script sets the clock of a log of this engine version");
            };
            restored.silences = self.silences.values().map(|silence| (tenant(), silence.clone())).collect();
            self.log.note(self.now, &Note::ClockSet { to, set_at, restored });
        }
    }

    /// `ACCOUNT METRIC VALUE [at TIME] [id ID] [NAME=VALUE…]`, several joined by `+`.
    fn events(&mut self, words: &mut Words<'_>) -> Vec<Usage> {
        let mut events = Vec::new();
        for part in words.rest().split(" + ") {
            let mut words = Words::new(part);
            self.event_count += 1;
            let (account, metric) = (words.next(), words.next());
            let value = Quantity::parse(words.next()).unwrap();
            let mut usage = Usage::new(account, metric, value, &format!("event-{}", self.event_count));
            while let Some(word) = words.try_next() {
                match word {
                    "at" => usage.at = Some(NOON.plus(words::time(words.next()))),
                    "id" => usage.id = words.next().to_owned(),
                    "epoch" => usage.epoch = highwater::domain::id::Epoch(words.next().parse().unwrap()),
                    pair => {
                        let (name, value) = pair.split_once('=').unwrap();
                        usage.dimensions.push((name.to_owned(), value.to_owned()));
                    }
                }
            }
            events.push(usage);
        }
        events
    }

    /// `NUMBER CHANNEL delivered|failed|retry|unanswered|unsent|deleted`
    fn attempted(&self, words: &mut Words<'_>) -> Attempted {
        let number: usize = words.next().parse().unwrap();
        let channel = words::channel(words.next(), &CHANNELS);
        let outcome = words.next();
        Attempted {
            id: self.notifications[number - 1],
            channel,
            attempt: u32::from(!["unsent", "deleted"].contains(&outcome)),
            delivered: outcome == "delivered",
            outcome: outcome.to_owned(),
            next_at: (outcome == "retry").then(|| self.now.plus(Millis::seconds(5))),
            unanswered: outcome == "unanswered",
            channel_deleted: outcome == "deleted",
        }
    }

    fn fold_last(&mut self) -> Vec<String> {
        let mut effects = Effects::default();
        let last = self.log.records.len() - 1;
        self.fold.take(&self.log.records[last..], &mut effects).unwrap();
        let mut happened = Vec::new();
        let mut notifications = effects.notifications.iter();
        for row in &effects.transitions {
            happened.push(self.transition(row));
            if row.notification.is_some() {
                let notification = notifications.next().unwrap();
                assert_eq!(Some(notification.id), row.notification);
                happened.push(self.notification(notification));
            }
        }
        assert_eq!(notifications.next(), None, "a notification without a transition");
        assert!(
            effects.notifications.iter().map(|notification| notification.index).eq(0..notification_count(&effects))
        );
        let fresh: Vec<NotificationId> = effects.notifications.iter().map(|notification| notification.id).collect();
        for row in &effects.deliveries {
            let word = match row.status {
                DeliveryStatus::Pending if fresh.contains(&row.notification) => continue,
                DeliveryStatus::Pending if row.attempts == 0 => "released",
                DeliveryStatus::Pending => "retries",
                DeliveryStatus::Succeeded => "delivered",
                DeliveryStatus::Failed => "failed",
                DeliveryStatus::Dropped => "dropped",
                DeliveryStatus::Superseded => "superseded",
            };
            happened.push(format!("{word} {} {}", self.number(row.notification), name_of(row.channel)));
        }
        happened.extend(effects.webhooks.events.iter().map(|event| self.told(event)));
        happened.extend(effects.quarantine.iter().map(|row| format!("quarantined {}", row.code)));
        happened.extend((effects.counts.duplicates > 0).then(|| "duplicate".to_owned()));
        happened.extend((effects.counts.late_uncorrected > 0).then(|| "uncorrected".to_owned()));
        for row in effects.instances {
            self.instances.insert(format!("{} {}", self.alert_name(row.key.alert), subject(&row.key)), row);
        }
        self.transitions.extend(effects.transitions);
        self.events.extend(effects.webhooks.events);
        happened
    }

    fn transition(&self, row: &TransitionRow) -> String {
        let mut text = format!("{} {} {}", row.to.name(), self.alert_name(row.key.alert), subject(&row.key));
        if row.reason != Reason::Condition {
            text += &format!(" {}", row.reason.name());
        }
        if row.at != self.now {
            text += &format!(" @{}", words::clock(row.at.since(NOON)));
        }
        text
    }

    fn notification(&mut self, notification: &Notification) -> String {
        assert!(!self.notifications.contains(&notification.id), "an id stands for two notifications");
        self.notifications.push(notification.id);
        self.sent.insert(notification.id, notification.clone());
        let kind = notification.kind.event_type().name().trim_start_matches("alert.");
        let mut text = format!("notify {} {kind}", self.notifications.len());
        if let Some(first) = notification.follows {
            text += &format!(" after {}", self.number(first));
        }
        if notification.fired_meanwhile > 0 {
            text += &format!(" meanwhile {}", notification.fired_meanwhile);
        }
        let channels: Vec<&str> = notification.channels.iter().map(|channel| name_of(*channel)).collect();
        if channels != ["ops"] {
            text += &format!(" to {}", channels.join("+"));
        }
        text
    }

    /// What endpoints are told; of quotas, what was used of which limit, and of the period that ended.
    fn told(&self, event: &Event) -> String {
        let mut text = format!("told {}", event.kind);
        if let Content::Quota(told) = &event.content {
            text += &format!(" {}/{} {} of {}", told.account, told.metric, told.quota.used, told.quota.limit);
            text += &told.ended.map(|ended| format!(" after {}", ended.used)).unwrap_or_default();
        }
        if event.at != self.now {
            text += &format!(" @{}", words::clock(event.at.since(NOON)));
        }
        text
    }

    fn number(&self, id: NotificationId) -> usize {
        self.notifications.iter().position(|known| *known == id).expect("a notification that was seen") + 1
    }

    fn alert_name(&self, id: highwater::domain::id::AlertId) -> &str {
        self.alerts.iter().find(|(_, definition)| definition.id == id).map(|(name, _)| name).unwrap()
    }

    /// The instances of an alert with their states, and values where they have one.
    fn show(&self, alert: &str) -> Vec<String> {
        let rows = self.instances.values().filter(|row| row.key.alert == self.alerts[alert].id);
        rows.map(|row| {
            let state = row.state.map_or("gone", |state| state.name());
            let value = row.value.map(|value| format!(" {value}")).unwrap_or_default();
            let silenced = if row.silenced { " silenced" } else { "" };
            format!("{} {state}{value}{silenced}", subject(&row.key))
        })
        .collect()
    }

    fn owes(&self) -> Vec<String> {
        let mut owed: Vec<String> = Vec::new();
        for debt in self.fold.partition.outstanding() {
            let waits = if debt.waits { " waits" } else { "" };
            // In whose place it stands may have been pending for longer.
            let since = debt.behind_since();
            let is_behind = since < debt.notification.recorded_at;
            let behind = if is_behind { format!(" since {}", words::clock(since.since(NOON))) } else { String::new() };
            owed.push(format!("{} {}{waits}{behind}", self.number(debt.notification.id), name_of(debt.channel)));
        }
        owed.sort();
        owed
    }

    /// Lets the channels take what may be sent.
    fn deliver(&mut self) {
        while self.delivers {
            let owed = self.fold.partition.outstanding().find(|owed| !owed.waits);
            let Some((id, channel)) = owed.map(|owed| (owed.notification.id, owed.channel)) else { return };
            let (outcome, next_at) = ("delivered".to_owned(), None);
            let attempted = Attempted {
                id,
                channel,
                attempt: 1,
                delivered: true,
                outcome,
                next_at,
                unanswered: false,
                channel_deleted: false,
            };
            self.log.note(self.now, &Note::NotificationAttempted(attempted));
            assert_eq!(self.fold_last().len(), 1);
        }
    }

    /// What may be sent, with what it names at its channel.
    fn sends(&self) -> Vec<String> {
        let mut sent = Vec::new();
        for owed in self.fold.partition.outstanding().filter(|owed| !owed.waits) {
            let message = owed.message();
            let after = message.follows.map(|id| format!(" after {}", self.number(id))).unwrap_or_default();
            let mut text = format!("{} {}{after}", self.number(message.id), name_of(owed.channel));
            if message.closes.iter().any(|id| Some(*id) != message.follows) {
                let closes: Vec<String> = message.closes.iter().map(|id| self.number(*id).to_string()).collect();
                text += &format!(" closes {}", closes.join("+"));
            }
            sent.push(text);
        }
        sent.sort();
        sent
    }

    /// Folds the log in one batch, and with a restart behind every record.
    fn again(&self) {
        let digest = self.fold.partition.digest().unwrap();
        let mut whole = fold();
        let mut effects = Effects::default();
        whole.take(&self.log.records, &mut effects).unwrap();
        assert_eq!(effects.transitions, self.transitions, "one batch gives other transitions");
        assert_eq!(effects.webhooks.events, self.events, "one batch tells something else");
        assert_eq!(whole.partition.digest().unwrap(), digest, "one batch gives another state");
        let mut restarted = fold();
        let (mut transitions, mut events) = (Vec::new(), Vec::new());
        for record in &self.log.records {
            let mut effects = Effects::default();
            restarted.take(std::slice::from_ref(record), &mut effects).unwrap();
            transitions.extend(effects.transitions);
            events.extend(effects.webhooks.events);
            let snapshot = restarted.snapshot().unwrap();
            restarted = Fold::restore(PartitionId(0), crate::log::KEY, &snapshot).unwrap();
        }
        assert_eq!(transitions, self.transitions, "restarts give other transitions");
        assert_eq!(events, self.events, "restarts tell something else");
        assert_eq!(restarted.partition.digest().unwrap(), digest, "restarts give another state");
    }
}

fn name_of(channel: ChannelId) -> &'static str {
    CHANNELS[usize::try_from(channel.0).unwrap() - 1]
}

/// `acme`, or `acme/api.calls` where the instance stands on a metric of its own other than `calls`.
fn subject(key: &highwater::domain::partition::effect::InstanceKey) -> String {
    match key.metric.as_ref().map(|metric| metric.as_str()).filter(|metric| *metric != "calls") {
        Some(metric) => format!("{}/{metric}", key.account),
        None => key.account.to_string(),
    }
}

fn notification_count(effects: &Effects) -> u32 {
    u32::try_from(effects.notifications.len()).unwrap()
}
