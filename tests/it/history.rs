//! Random histories of one partition: usage, changes, deliveries and time, as a log.

use crate::log::{Kind, Log, MIDNIGHT, Usage, account, fold, frame, metric, scope, tenant};
use crate::words;
use highwater::domain::control::outcome::Change;
use highwater::domain::definition::{Fold as Aggregate, MetricDefinition, Pause, Quota, Silence};
use highwater::domain::id::{AlertId, ChannelId, Epoch, NotificationId, ProjectId, SilenceId};
use highwater::domain::partition::effect::Effects;
use highwater::domain::partition::fact::{ENGINE_VERSION, Note};
use highwater::domain::partition::notification::Attempted;
use highwater::domain::quantity::Quantity;
use highwater::domain::time::{Millis, Period, Timestamp};
use highwater::runtime::processor::Fold;
use proptest::prelude::*;

const ACCOUNTS: [&str; 3] = ["acme", "beta", "zen"];
const METRICS: [&str; 3] = ["calls", "jobs", "bytes"];
const ALERTS: usize = 6;
/// Every second alert is labelled with it.
const PROJECT: ProjectId = ProjectId(5);

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Wait(i64),
    Tick,
    /// The intake holds nothing older than so many seconds; from here on ticks speak of an intake.
    Intake(i64),
    Usage(Kind, Vec<Event>),
    /// The events of an earlier record come in again.
    Again(prop::sample::Index),
    Change(Edit),
    /// A later release takes the log over.
    Raise,
    Attempt {
        which: prop::sample::Index,
        delivered: bool,
        last: bool,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Event {
    account: usize,
    metric: usize,
    /// In halves.
    value: i64,
    /// How long before its acceptance it happened, in seconds; the sender does not say where absent.
    ago: Option<i64>,
    /// An id that other events may have too.
    shared_id: Option<u8>,
    region: usize,
    /// Whether the accepting node knows the newest control position.
    knows_epoch: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Edit {
    GroupBy(usize, bool),
    Quota { account: usize, metric: usize, quota: Option<(i64, usize, usize)> },
    Alert { slot: usize, text: String },
    Pause { slot: usize, until: Option<i64> },
    DeleteAlert(usize),
    DeleteAccount(usize),
    Silence { id: u128, matcher: usize, starts_in: i64, lasts: i64 },
    Unsilence(u128),
    Advance(i64),
    Reset,
    Seed { account: usize, metric: usize, ago: i64, values: Vec<i64> },
    Grace(i64),
}

fn event() -> impl Strategy<Value = Event> {
    let ago = prop_oneof![
        4 => Just(None),
        6 => (-240_i64..20).prop_map(Some),
        6 => (0_i64..900).prop_map(Some),
        2 => (0_i64..8_000).prop_map(Some),
        1 => (0_i64..250_000).prop_map(Some),
    ];
    let value = prop_oneof![8 => 0_i64..80, 2 => -60_i64..0, 1 => Just(2_000_000_000_000)];
    let shared = prop_oneof![8 => Just(None), 2 => (0_u8..6).prop_map(Some)];
    (0..3_usize, 0..3_usize, value, ago, shared, 0..3_usize, prop::bool::weighted(0.1)).prop_map(
        |(account, metric, value, ago, shared_id, region, knows_epoch)| Event {
            account,
            metric: metric * usize::from(region > 0),
            value,
            ago,
            shared_id,
            region,
            knows_epoch,
        },
    )
}

fn alert_text() -> impl Strategy<Value = String> {
    let rule = prop::sample::select(vec![
        "quota_percent > 85",
        "quota_percent >= 50 && sum > 10",
        "used(\"calls\") > 60",
        "remaining < 20",
        "sum > 50",
        "count >= 3",
        "sum < 20",
        "max > 30",
        "min < 5 || max(\"jobs\") > 30",
        "avg > 15",
        "last(\"calls\") < 10",
        "sum(\"calls\") > 40 && count(\"jobs\") >= 1",
        "sum(\"jobs\") / sum(\"calls\") > 0.5",
        "period_elapsed_percent > 50 && used < 10",
    ]);
    let option = |options: &'static [&'static str]| prop::sample::select(options);
    (
        rule,
        option(&["", "", "for 1m,", "for 20m,"]),
        option(&["", "", "keep 7m,"]),
        option(&["", "", "", "recover sum < 5,", "recover used(\"calls\") < 10,"]),
        option(&["", "repeat 3m,"]),
        option(&["", "no_data alert,", "no_data keep,"]),
        option(&["", "", "on acme,", "on acme/calls,", "on */jobs,"]),
        option(&["", "to ops+dev,", "label team=core,", "message Look,"]),
    )
        .prop_map(|(rule, hold, keep, recover, repeat, no_data, on, other)| {
            format!("{rule} | {hold}{keep}{recover}{repeat}{no_data}{on}{other}")
        })
}

fn edit() -> impl Strategy<Value = Edit> {
    let limit = prop_oneof![1 => Just(0), 8 => 20_i64..300, 1 => Just(1_000_000_000_000)];
    let quota = prop::option::weighted(0.85, (limit, 0..4_usize, 0..3_usize));
    prop_oneof![
        1 => (0..3_usize, any::<bool>()).prop_map(|(metric, on)| Edit::GroupBy(metric, on)),
        5 => (0..4_usize, 0..3_usize, quota)
            .prop_map(|(account, metric, quota)| Edit::Quota { account, metric, quota }),
        8 => (0..ALERTS, alert_text()).prop_map(|(slot, text)| Edit::Alert { slot, text }),
        2 => (0..ALERTS, prop::option::of(1_i64..2_000)).prop_map(|(slot, until)| Edit::Pause { slot, until }),
        1 => (0..ALERTS).prop_map(Edit::DeleteAlert),
        1 => (0..3_usize).prop_map(Edit::DeleteAccount),
        2 => (1_u128..4, 0..4_usize, 0_i64..300, 1_i64..3_000)
            .prop_map(|(id, matcher, starts_in, lasts)| Edit::Silence { id, matcher, starts_in, lasts }),
        1 => (1_u128..4).prop_map(Edit::Unsilence),
        1 => (1_i64..5_000).prop_map(Edit::Advance),
        1 => prop::bool::weighted(0.2).prop_map(|reset| if reset { Edit::Reset } else { Edit::Advance(60) }),
        1 => (0..3_usize, 0..3_usize, 0_i64..7_000, prop::collection::vec(0_i64..60, 1..5))
            .prop_map(|(account, metric, ago, values)| Edit::Seed { account, metric, ago, values }),
        1 => (5_i64..90).prop_map(Edit::Grace),
    ]
}

/// Histories of up to `steps` steps.
pub(crate) fn steps(steps: usize) -> impl Strategy<Value = Vec<Step>> {
    let wait = prop_oneof![10 => 1_i64..40, 6 => 40_i64..400, 2 => 400_i64..4_000, 1 => 4_000_i64..100_000];
    let kind = prop_oneof![9 => Just(Kind::Ordinary), 1 => Just(Kind::Backfill)];
    let step = prop_oneof![
        8 => wait.prop_map(Step::Wait),
        2 => Just(Step::Tick),
        1 => prop::option::weighted(0.3, 0_i64..400).prop_map(|ago| ago.map_or(Step::Tick, Step::Intake)),
        10 => (kind, prop::collection::vec(event(), 1..7)).prop_map(|(kind, events)| Step::Usage(kind, events)),
        1 => any::<prop::sample::Index>().prop_map(Step::Again),
        6 => edit().prop_map(Step::Change),
        1 => Just(Step::Raise),
        4 => (any::<prop::sample::Index>(), prop::bool::weighted(0.7), prop::bool::weighted(0.5))
            .prop_map(|(which, delivered, last)| Step::Attempt { which, delivered, last }),
    ];
    prop::collection::vec(step, 1..steps)
}

/// Writes a history down. It folds along, because deliveries are about what is owed.
pub(crate) fn write(steps: &[Step]) -> Log {
    let mut writer = Writer {
        log: Log::default(),
        fold: fold(),
        now: MIDNIGHT.plus(Millis::hours(12)),
        frames: Vec::new(),
        event_count: 0,
        has_intake: false,
        generations: [0; ALERTS],
        texts: Default::default(),
    };
    // Somebody wants to hear of everything.
    let of_a_project = words::listen_for(2, "*", Some(PROJECT));
    writer.log.change(writer.now, vec![words::listen("*"), of_a_project]);
    for step in steps {
        writer.step(step);
        writer.fold_last();
    }
    writer.log
}

struct Writer {
    log: Log,
    fold: Fold,
    now: Timestamp,
    frames: Vec<Vec<u8>>,
    event_count: usize,
    has_intake: bool,
    generations: [u128; ALERTS],
    texts: [(u64, String); ALERTS],
}

impl Writer {
    fn fold_last(&mut self) {
        let behind = usize::try_from(self.fold.partition.position().0).unwrap();
        self.fold.take(&self.log.records[behind..], &mut Effects::default()).unwrap();
    }

    fn step(&mut self, step: &Step) {
        let now = self.now;
        match step {
            Step::Wait(seconds) => self.now = now.plus(Millis::seconds(*seconds)),
            Step::Tick => {
                let intake_through = self.has_intake.then_some(now);
                self.log.note(now, &Note::Ticked { intake_through });
            }
            Step::Intake(ago) => {
                self.has_intake = true;
                let intake_through = Some(now.minus(Millis::seconds(*ago)));
                self.log.note(now, &Note::Ticked { intake_through });
            }
            Step::Usage(kind, events) => {
                let events: Vec<Usage> = events.iter().map(|event| self.usage(event)).collect();
                let bytes = frame(now, &events, *kind);
                self.frames.push(bytes.clone());
                self.log.push(now, bytes);
            }
            Step::Again(which) if !self.frames.is_empty() => {
                self.log.push(now, which.get(&self.frames).clone());
            }
            Step::Again(_) => {}
            Step::Change(edit) => {
                if let Some(change) = self.change(edit) {
                    self.log.change(now, vec![change]);
                }
            }
            Step::Raise => {
                self.log.note(now, &Note::EngineVersion { version: ENGINE_VERSION });
            }
            Step::Attempt { which, delivered, last } => {
                let owed: Vec<(NotificationId, ChannelId)> =
                    self.fold.partition.outstanding().map(|owed| (owed.notification.id, owed.channel)).collect();
                if !owed.is_empty() {
                    let (id, channel) = *which.get(&owed);
                    let next_at = (!last).then(|| now.plus(Millis::seconds(30)));
                    let outcome = "tried".to_owned();
                    let attempted = Attempted {
                        id,
                        channel,
                        attempt: 1,
                        delivered: *delivered,
                        outcome,
                        next_at,
                        unanswered: false,
                        channel_deleted: false,
                    };
                    self.log.note(now, &Note::NotificationAttempted(attempted));
                }
            }
        }
    }

    fn usage(&mut self, event: &Event) -> Usage {
        self.event_count += 1;
        let id = event.shared_id.map_or_else(|| format!("own-{}", self.event_count), |id| format!("shared-{id}"));
        let value = Quantity(i128::from(event.value) * 500_000_000);
        let mut usage = Usage::new(ACCOUNTS[event.account], METRICS[event.metric], value, &id);
        usage.at = event.ago.map(|ago| self.now.minus(Millis::seconds(ago)));
        usage.epoch = Epoch(if event.knows_epoch { self.log.control } else { 0 });
        if event.region > 0 {
            usage.dimensions.push(("region".to_owned(), format!("r{}", event.region)));
        }
        usage
    }

    fn change(&mut self, edit: &Edit) -> Option<Change> {
        let (now, tenant) = (self.now, tenant());
        let alert_id = |writer: &Self, slot: usize| AlertId(writer.generations[slot] * 10 + slot as u128 + 1);
        Some(match edit {
            Edit::GroupBy(number, on) => {
                let group_by = if *on { vec!["region".to_owned()] } else { Vec::new() };
                let definition = MetricDefinition { group_by, ..MetricDefinition::default() };
                Change::Metric { tenant, metric: metric(METRICS[*number]), definition: Some(definition) }
            }
            Edit::Quota { account, metric: number, quota } => {
                let quota = quota.map(|(limit, period, aggregate)| Quota {
                    limit: Quantity::whole(limit),
                    period: Period::ALL[period],
                    aggregate: [Aggregate::Sum, Aggregate::Max, Aggregate::Last][aggregate],
                });
                let account = scope(ACCOUNTS.get(*account).copied().unwrap_or("*"));
                Change::Quota { tenant, account, metric: metric(METRICS[*number]), quota }
            }
            Edit::Alert { slot, text } => {
                let version = self.texts[*slot].0 + 1;
                self.texts[*slot] = (version, text.clone());
                let id = alert_id(self, *slot);
                let mut definition = words::alert("an alert", id.0, version, text, &["ops", "dev"]);
                definition.project = (slot % 2 == 0).then_some(PROJECT);
                Change::Alert { tenant, definition: Box::new(definition) }
            }
            Edit::Pause { slot, until } => {
                let (version, text) = &self.texts[*slot];
                if *version == 0 {
                    return None;
                }
                let id = alert_id(self, *slot);
                let mut definition = words::alert("an alert", id.0, *version, text, &["ops", "dev"]);
                definition.pause = Some(Pause { until: until.map(|until| now.plus(Millis::seconds(until))) });
                Change::Alert { tenant, definition: Box::new(definition) }
            }
            Edit::DeleteAlert(slot) => {
                let alert = alert_id(self, *slot);
                // An id is never used again.
                self.generations[*slot] += 1;
                self.texts[*slot].0 = 0;
                Change::AlertDeleted { tenant, alert }
            }
            Edit::DeleteAccount(number) => Change::AccountDeleted { tenant, account: account(ACCOUNTS[*number]) },
            Edit::Silence { id, matcher, starts_in, lasts } => {
                let text = ["account_id=acme", "team=core", "metric!=jobs", "name=~an.*"][*matcher];
                let starts_at = now.plus(Millis::seconds(*starts_in));
                let ends_at = starts_at.plus(Millis::seconds(*lasts));
                let matchers = words::matchers(&mut words::Words::new(text));
                Change::Silence { tenant, silence: Silence { id: SilenceId(*id), matchers, starts_at, ends_at } }
            }
            Edit::Unsilence(id) => Change::SilenceDeleted { tenant, silence: SilenceId(*id) },
            Edit::Advance(seconds) => Change::ClockAdvanced { tenant, by: Millis::seconds(*seconds) },
            Edit::Reset => {
                for slot in 0..ALERTS {
                    self.generations[slot] += 1;
                    self.texts[slot].0 = 0;
                }
                Change::SandboxReset { tenant }
            }
            Edit::Seed { account: number, metric: of, ago, values } => Change::UsageSeeded {
                tenant,
                account: account(ACCOUNTS[*number]),
                metric: metric(METRICS[*of]),
                from: now.minus(Millis::seconds(*ago)),
                every: Millis::minutes(3),
                values: values.clone(),
            },
            Edit::Grace(seconds) => Change::Settings {
                grace: Millis::seconds(*seconds),
                dedup_horizon: Millis::hours(49),
                correction_horizon: Millis::hours(1),
            },
        })
    }
}
