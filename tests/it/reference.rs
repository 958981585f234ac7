//! The engine agrees with a slow and simple model on random histories.

use crate::log::{Log, MIDNIGHT, Usage, account, fold, frame, metric, tenant};
use crate::model::{Condition, Happening, Model, Move, News, Rule, Span, Subject, Window};
use crate::rows::Rows;
use crate::words;
use highwater::domain::control::outcome::Change;
use highwater::domain::definition::{Fold, Quota};
use highwater::domain::id::{AccountScope, AlertId};
use highwater::domain::partition::effect::{Effects, Reason};
use highwater::domain::partition::fact::{ENGINE_VERSION, Note};
use highwater::domain::quantity::Quantity;
use highwater::domain::time::{Period, Timestamp};
use highwater::domain::webhook::event::Content;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::collections::BTreeMap;

const ACCOUNTS: [&str; 2] = ["acme", "zen"];
const METRICS: [&str; 2] = ["calls", "jobs"];

fn rule() -> impl Strategy<Value = Rule> {
    let condition = prop_oneof![
        Just(Condition::PercentOver(85)),
        Just(Condition::PercentOver(50)),
        Just(Condition::SumOver(40)),
        Just(Condition::SumUnder(20)),
        Just(Condition::CountAtLeast(3)),
        Just(Condition::MaxOver(30)),
    ];
    let span = |spans: &'static [i64]| prop::sample::select(spans);
    (condition, span(&[0, 0, 0, 60_000, 600_000]), span(&[0, 0, 0, 420_000])).prop_map(|(condition, hold, keep)| Rule {
        condition,
        hold,
        keep,
    })
}

/// A happening and how many milliseconds pass before it; an event's time is how long before it happened.
fn happening() -> impl Strategy<Value = (i64, Happening)> {
    let wait = prop_oneof![
        4 => Just(0_i64), 8 => 1_000_i64..40_000, 6 => 40_000_i64..400_000, 2 => 400_000_i64..4_000_000,
        1 => 4_000_000_i64..90_000_000, 2 => (0_i64..40).prop_map(|n| n * 30_000),
    ];
    let ago = prop_oneof![
        6 => Just(0_i64), 4 => -200_000_i64..60_000, 6 => 0_i64..900_000, 2 => 0_i64..6_000_000,
    ];
    let value = prop_oneof![8 => 0_i64..60_000, 2 => -50_000_i64..0, 1 => Just(10_000)];
    let span = prop::sample::select(vec![Span::Hour, Span::Hour, Span::Day, Span::Week]);
    let limit = prop_oneof![1 => Just(0_i64), 8 => 20_i64..300];
    let happening = prop_oneof![
        12 => (0..2_u8, 0..2_u8, ago, value)
            .prop_map(|(account, metric, at, value)| Happening::Event { account, metric, at, value }),
        3 => (0..2_u8, 0..2_u8, prop::option::weighted(0.85, (limit, span)))
            .prop_map(|(account, metric, quota)| Happening::Quota { account, metric, quota }),
        3 => (0..3_u8, prop::option::weighted(0.85, rule())).prop_map(|(slot, rule)| Happening::Rule { slot, rule }),
        1 => Just(Happening::Tick),
    ];
    (wait, happening)
}

/// Does what happens to the engine as well as to the model.
struct Both {
    log: Log,
    model: Model,
    now: i64,
    rules: [(u128, u64); 3],
}

impl Both {
    fn step(&mut self, wait: i64, happening: &Happening) {
        self.now += wait;
        let now = Timestamp(self.now);
        let tenant = tenant();
        let mut happening = happening.clone();
        let change = match &mut happening {
            Happening::Event { account, metric, at, value } => {
                *at = self.now - *at;
                let id = format!("event-{}", self.log.records.len());
                let (account, metric) = (ACCOUNTS[usize::from(*account)], METRICS[usize::from(*metric)]);
                let mut usage = Usage::new(account, metric, thousandths(*value), &id);
                usage.at = Some(Timestamp(*at));
                self.log.push(now, frame(now, &[usage], crate::log::Kind::Ordinary));
                None
            }
            Happening::Quota { account: of, metric: number, quota } => Some(Change::Quota {
                tenant,
                account: AccountScope::One(account(ACCOUNTS[usize::from(*of)])),
                metric: metric(METRICS[usize::from(*number)]),
                quota: quota.map(|(limit, span)| Quota {
                    limit: Quantity::whole(limit),
                    period: match span {
                        Span::Hour => Period::Hour,
                        Span::Day => Period::Day,
                        Span::Week => Period::Week,
                    },
                    aggregate: Fold::Sum,
                }),
            }),
            Happening::Rule { slot, rule } => {
                let (generation, version) = &mut self.rules[usize::from(*slot)];
                let id = *generation * 3 + u128::from(*slot) + 1;
                match rule {
                    Some(rule) => {
                        *version += 1;
                        let mut definition = words::alert("an alert", id, *version, &source(rule), &["ops"]);
                        definition.hold = highwater::domain::time::Millis(rule.hold);
                        definition.keep_firing_for = highwater::domain::time::Millis(rule.keep);
                        Some(Change::Alert { tenant, definition: Box::new(definition) })
                    }
                    None => {
                        *generation += 1;
                        Some(Change::AlertDeleted { tenant, alert: AlertId(id) })
                    }
                }
            }
            Happening::Tick => {
                self.log.note(now, &Note::Ticked { intake_through: None });
                None
            }
        };
        if let Some(change) = change {
            self.log.change(now, vec![change]);
        }
        self.model.take(self.now, &happening);
    }
}

fn thousandths(value: i64) -> Quantity {
    Quantity(i128::from(value) * 1_000_000)
}

fn in_thousandths(quantity: Quantity) -> i64 {
    assert_eq!(quantity.0 % 1_000_000, 0);
    i64::try_from(quantity.0 / 1_000_000).unwrap()
}

fn source(rule: &Rule) -> String {
    match rule.condition {
        Condition::PercentOver(percent) => format!("quota_percent > {percent}"),
        Condition::SumOver(limit) => format!("sum > {limit}"),
        Condition::SumUnder(limit) => format!("sum < {limit}"),
        Condition::CountAtLeast(limit) => format!("count >= {limit}"),
        Condition::MaxOver(limit) => format!("max > {limit}"),
    }
}

fn number_of(names: &[&str], name: &str) -> u8 {
    u8::try_from(names.iter().position(|known| *known == name).unwrap()).unwrap()
}

/// The engine's transitions as the model tells them; messages about a state that stays are none of its business.
fn moves(rows: &Rows) -> BTreeMap<Subject, Vec<Move>> {
    let mut moves: BTreeMap<Subject, Vec<Move>> = BTreeMap::new();
    for row in rows.transitions.values() {
        let corrects = matches!(row.reason, Reason::Retraction | Reason::LateFire);
        if row.from == row.to && !corrects {
            continue;
        }
        let number = row.key.alert.0 - 1;
        let slot = u8::try_from(number % 3).unwrap();
        let generation = u32::try_from(number / 3).unwrap();
        let metric = row.key.metric.as_ref().unwrap();
        let account = number_of(&ACCOUNTS, row.key.account.as_str());
        let subject = (slot, generation, account, number_of(&METRICS, metric.as_str()));
        moves.entry(subject).or_default().push(Move {
            at: row.at.0,
            from: row.from.name(),
            to: row.to.name(),
            reason: row.reason.name(),
            used: row.evidence.quota.map(|quota| in_thousandths(quota.used)),
        });
    }
    moves
}

/// What the engine tells of quotas, as the model puts it.
fn news(rows: &Rows) -> Vec<News> {
    let mut news: Vec<News> = Vec::new();
    for event in rows.events.values() {
        let Content::Quota(told) = &event.content else { continue };
        let (account, metric) = (told.account.as_str(), told.metric.as_str());
        let (used, ended) = (told.quota.used, told.ended.map(|ended| in_thousandths(ended.used)));
        let (account, metric) = (number_of(&ACCOUNTS, account), number_of(&METRICS, metric));
        news.push((event.at.0, account, metric, event.kind.name(), in_thousandths(used), ended));
    }
    news.sort_unstable();
    news
}

fn windows(rows: &Rows) -> BTreeMap<(u8, u8, i64), Window> {
    let mut windows: BTreeMap<(u8, u8, i64), Window> = BTreeMap::new();
    for ((series, start, _), row) in &rows.windows {
        let account = number_of(&ACCOUNTS, series.account.as_str());
        let key = (account, number_of(&METRICS, series.metric.as_str()), start.0);
        let window = windows.entry(key).or_insert((0, 0, i64::MAX, i64::MIN, 0));
        window.0 += row.aggregate.count;
        window.1 += in_thousandths(row.aggregate.sum);
        window.2 = window.2.min(in_thousandths(row.aggregate.min));
        window.3 = window.3.max(in_thousandths(row.aggregate.max));
        window.4 += row.late_events;
    }
    windows
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x6d_6f64_656c),
        ..Default::default()
    })]

    #[test]
    fn the_engine_agrees_with_the_model(happenings in prop::collection::vec(happening(), 1..80)) {
        let now = MIDNIGHT.0 + 11 * 3_600_000 + 55 * 60_000;
        let mut both = Both { log: Log::default(), model: Model::default(), now, rules: [(0, 0); 3] };
        both.log.note(Timestamp(now), &Note::EngineVersion { version: ENGINE_VERSION });
        both.log.change(Timestamp(now), vec![words::listen("quota.*")]);
        for (wait, happening) in &happenings {
            both.step(*wait, happening);
        }
        let (mut rows, mut effects) = (Rows::default(), Effects::default());
        fold().take(&both.log.records, &mut effects).unwrap();
        rows.take(effects);
        prop_assert_eq!(both.model.windows(), windows(&rows));
        prop_assert_eq!(&both.model.moves, &moves(&rows));
        both.model.news.sort_unstable();
        prop_assert_eq!(&both.model.news, &news(&rows));
    }
}
