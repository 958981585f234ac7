//! Two stores that were given the same rows, in whatever order and however often, answer alike.

use super::place::{P, Place};
use super::sample::{EPOCH, STATES, Seed, account, effects, in_order, metric, seeds, tenant};
use crate::domain::id::{
    AlertId, ChannelId, Epoch, IncidentId, NotificationId, Position, QuarantineId, Tenant, WebhookId,
};
use crate::domain::incident;
use crate::domain::partition::aggregate::Aggregate;
use crate::domain::partition::effect::{
    DeliveryStatus, Effects, InstanceKey, InstanceRow, QuarantineStatus, SeriesKey, State, WindowRow,
};
use crate::domain::quantity::Quantity;
use crate::domain::time::{Millis, Timestamp, WINDOW};
use crate::domain::webhook::kind::EventType;
use crate::domain::webhook::rows::DeliveryId;
use crate::store::{
    AccountQuery, Age, AttemptQuery, ChangeQuery, ChannelDeliveryQuery, DeliveryQuery, EventQuery, EventsQuery,
    IncidentQuery, InstanceQuery, LastDeliveryQuery, MetricQuery, NotificationQuery, OutboxQuery, OutcomeQuery,
    OwedQuery, QuarantineQuery, ScannedRow, Store, Summary, TransitionPlace, TransitionQuery, UsageQuery,
    WebhookDeliveryQuery, WindowQuery,
};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use std::fmt::Debug;

/// A write: which rows, and whether it was tried before the ones before it too.
type Write = (Vec<Index>, bool);

#[test]
fn whatever_is_written_in_whatever_order_is_read_alike() {
    let places: Vec<Place> = Place::all();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let writes = prop::collection::vec((prop::collection::vec(any::<Index>(), 0..12), any::<bool>()), 0..4);
    let case = (prop::collection::vec(seeds(), 1..60), writes);
    let workspace = std::cell::Cell::new(1_u128);
    let mut runner = TestRunner::new(Config::with_cases(8));
    let run = |(rows, writes): (Vec<Seed>, Vec<Write>)| {
        // Cases share the databases, each in a workspace of its own.
        workspace.set(workspace.get() + 1);
        let expected = Place::memory();
        for row in in_order(&rows) {
            expected.write(&effects(workspace.get(), &[row]), 1);
        }
        for place in &places {
            shuffled(place, workspace.get(), &rows, &writes);
            let own = |mut all: Vec<ScannedRow>| {
                let prefix = format!("{:032x}|", workspace.get());
                all.retain(|row| row.key.starts_with(&prefix));
                all
            };
            prop_assert_eq!(own(place.dump()), own(expected.dump()), "{:?}", place.store);
            let (answers, wanted) = runtime.block_on(async {
                (answers(&place.store, workspace.get()).await, answers(&expected.store, workspace.get()).await)
            });
            for (answer, wanted) in answers.iter().zip(&wanted) {
                prop_assert_eq!(answer, wanted, "{:?}", place.store);
            }
        }
        Ok(())
    };
    runner.run(&case, run).unwrap();
}

/// Writes some rows before their time and some twice, then all of them.
fn shuffled(place: &Place, workspace: u128, rows: &[Seed], writes: &[Write]) {
    for (picks, twice) in writes {
        let picked: Vec<Seed> = picks.iter().map(|pick| *pick.get(rows)).collect();
        for _ in 0..=u8::from(*twice) {
            place.write(&effects(workspace, &picked), 1);
        }
    }
    for part in rows.chunks(20) {
        place.write(&effects(workspace, part), 1);
    }
}

/// What a store answers to every question of the port.
async fn answers(store: &Store, workspace: u128) -> Vec<String> {
    let mut answers = Answers(Vec::new());
    answers.note("progress", &(), store.progress(P).await.unwrap().map(|progress| progress.position));
    for sandbox in [false, true] {
        let tenant = tenant(workspace, sandbox);
        answers.usage(store, tenant).await;
        answers.alerts(store, tenant).await;
        answers.history(store, tenant).await;
        answers.set_aside(store, tenant).await;
        answers.webhooks(store, tenant).await;
    }
    answers.0
}

const ALERTS: [AlertId; 3] = [AlertId(1 << 100), AlertId((1 << 100) + 1), AlertId(7)];
/// (offset, limit).
const PAGES: [(usize, usize); 3] = [(0, usize::MAX), (0, 2), (2, 3)];

struct Answers(Vec<String>);

impl Answers {
    fn note(&mut self, name: &str, question: &dyn Debug, answer: impl Debug) {
        self.0.push(format!("{name} {question:?}: {answer:?}"));
    }

    async fn usage(&mut self, store: &Store, tenant: Tenant) {
        let second = Timestamp(EPOCH - EPOCH % WINDOW.0 + WINDOW.0);
        let spans = [(Timestamp::MIN, Timestamp::MAX), (second, second.plus(Millis(2 * WINDOW.0)))];
        for (account, epoch) in [(account(0), Epoch(0)), (account(1), Epoch(1))] {
            for (from, to) in spans {
                for width in [WINDOW, Millis::minutes(15)] {
                    for (wanted, groups) in [(None, false), (None, true), (Some(metric(0)), false)] {
                        let account = account.clone();
                        let query = WindowQuery { tenant, epoch, account, metric: wanted, from, to, width, groups };
                        self.note("windows", &query, store.windows(query.clone()).await.unwrap());
                        if width == WINDOW && !groups {
                            self.note("total", &query, store.total(query.clone()).await.unwrap());
                        }
                    }
                }
            }
            self.note("metrics", &account, store.metrics_of(tenant, epoch, account.clone()).await.unwrap());
            self.note("account", &account, store.account(tenant, epoch, account.clone()).await.unwrap());
        }
        for (accounts, epoch, metrics, groups) in [
            (vec![], None, vec![], false),
            (vec![account(1), account(2)], None, vec![metric(0), metric(1)], false),
            (vec![account(1)], Some(Epoch(1)), vec![], false),
            (vec![], None, vec![], true),
        ] {
            let query = UsageQuery { tenant, accounts, epoch, metrics, from: second, to: Timestamp::MAX, groups };
            let found = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
            let seen = std::sync::Arc::clone(&found);
            let take = move |part| {
                seen.lock().unwrap().push(format!("{part:?}"));
                std::ops::ControlFlow::Continue(())
            };
            store.usage(query.clone(), take).await.unwrap();
            let mut found = std::mem::take(&mut *found.lock().unwrap());
            found.sort();
            self.note("usage", &query, found);
        }
        let (from, to) = (Some(Timestamp(EPOCH + 2_000)), Some(Timestamp(EPOCH + 9_000)));
        let all = AccountQuery { tenant, from: None, to: None, age: Age::Falling, after: None, limit: 100 };
        let first = store.accounts_by_age(all.clone()).await.unwrap();
        let after = first.first().map(|row| (row.first_seen_at, row.account.clone(), row.epoch));
        for query in [
            all.clone(),
            AccountQuery { age: Age::Rising, limit: 2, ..all.clone() },
            AccountQuery { after: after.clone(), ..all.clone() },
            AccountQuery { from, to, age: Age::Rising, after, ..all },
        ] {
            self.note("accounts by age", &query, store.accounts_by_age(query.clone()).await.unwrap());
        }
        for (after, limit) in
            [(None, 100), (None, 1), (Some((account(0), Epoch(0))), 2), (Some((account(0), Epoch::LAST)), 2)]
        {
            self.note("accounts", &(&after, limit), store.accounts(tenant, after.clone(), limit).await.unwrap());
        }
    }

    async fn alerts(&mut self, store: &Store, tenant: Tenant) {
        for (offset, limit) in PAGES {
            for states in [vec![], vec![State::Firing, State::Ok], STATES.to_vec()] {
                let query = InstanceQuery {
                    after: None,
                    tenant,
                    alert: ALERTS[0],
                    states: states.clone(),
                    accounts: vec![],
                    offset,
                    limit,
                };
                let rows = store.instances(query.clone()).await.unwrap();
                let last = rows.first().map(|row| (row.key.account.clone(), row.key.metric.clone()));
                self.note("instances", &query, rows);
                let behind = InstanceQuery { after: last, ..query };
                self.note("instances behind", &behind, store.instances(behind.clone()).await.unwrap());
            }
            let accounts = vec![account(1), account(2)];
            let query =
                InstanceQuery { after: None, tenant, alert: ALERTS[1], states: vec![], accounts, offset, limit };
            self.note("instances", &query, store.instances(query.clone()).await.unwrap());
        }
        self.note("summaries", &(), store.summaries(tenant, ALERTS.to_vec()).await.unwrap());
        self.note("summaries", &(), store.summaries(tenant, vec![]).await.unwrap());
    }

    async fn transitions(&mut self, store: &Store, (tenant, offset, limit): (Tenant, usize, usize)) {
        let spans = [(None, None), (Some(Timestamp(EPOCH)), Some(Timestamp(EPOCH + 1_000)))];
        let narrow = [(vec![], None, Age::Falling), (vec![account(2), account(0)], Some(None), Age::Rising)];
        for ((from, to), (accounts, metric, age)) in spans.into_iter().zip(narrow) {
            let alert = ALERTS[0];
            let (after, changes_only) = (None, false);
            let query =
                TransitionQuery { after, tenant, alert, accounts, metric, changes_only, from, to, age, offset, limit };
            for changes_only in [false, true] {
                let all = TransitionQuery { changes_only, accounts: vec![], metric: None, ..query.clone() };
                let rows = store.transitions(all.clone()).await.unwrap();
                assert!(!changes_only || rows.iter().all(|row| row.from != row.to));
                self.note("transitions of all", &all, rows);
            }
            let rows = store.transitions(query.clone()).await.unwrap();
            let last = rows.first().map(|row| TransitionPlace {
                at: row.at,
                account: row.key.account.clone(),
                metric: row.key.metric.clone(),
                sequence: row.sequence,
            });
            self.note("transitions", &query, rows);
            let behind = TransitionQuery { after: last, ..query };
            self.note("transitions behind", &behind, store.transitions(behind.clone()).await.unwrap());
        }
    }

    async fn history(&mut self, store: &Store, tenant: Tenant) {
        for (offset, limit) in PAGES {
            self.transitions(store, (tenant, offset, limit)).await;
            self.incidents(store, (tenant, offset, limit)).await;
            for alert in [None, Some(ALERTS[1])] {
                let query = NotificationQuery { tenant, alert, offset, limit };
                self.note("notifications", &query, store.notifications(query.clone()).await.unwrap());
            }
            for (channel, status) in [(None, None), (Some(ChannelId(1)), None), (None, Some(DeliveryStatus::Failed))] {
                let query = DeliveryQuery { tenant, notification: None, channel, status, offset, limit };
                self.note("deliveries", &query, store.deliveries(query.clone()).await.unwrap());
            }
        }
        let outcomes = [1, 2].map(|revision| format!("{revision}; \u{0}'?"));
        let kept = OutboxQuery {
            tenant,
            epoch: Epoch(0),
            outcomes,
            channels: Vec::new(),
            alerts: Vec::new(),
            among: None,
            from: None,
            to: None,
            age: Age::Falling,
            after: None,
            offset: 0,
            limit: usize::MAX,
        };
        let first = store.outbox(kept.clone()).await.unwrap().into_iter().next();
        let after = first.as_ref().map(|(row, _)| (row.at, row.notification, row.channel));
        let (alert, at) = (first.as_ref().map(|(_, n)| n.key.alert), first.as_ref().map(|(row, _)| row.at));
        for query in [
            kept.clone(),
            OutboxQuery { limit: 2, offset: 1, ..kept.clone() },
            OutboxQuery { after, ..kept.clone() },
            OutboxQuery { after, age: Age::Rising, ..kept.clone() },
            OutboxQuery { age: Age::Rising, limit: 3, ..kept.clone() },
            OutboxQuery { among: Some((Vec::new(), Vec::new())), ..kept.clone() },
            OutboxQuery { among: Some((alert.into_iter().collect(), Vec::new())), ..kept.clone() },
            OutboxQuery { among: Some((alert.into_iter().collect(), vec![ChannelId(1)])), ..kept.clone() },
            OutboxQuery { channels: vec![ChannelId(1), ChannelId(2)], from: at, ..kept.clone() },
            OutboxQuery { alerts: alert.into_iter().collect(), to: at, ..kept.clone() },
            OutboxQuery { epoch: Epoch(1), ..kept },
        ] {
            self.note("outbox", &query, store.outbox(query.clone()).await.unwrap());
        }
        self.channels(store, tenant).await;
        let id = NotificationId((1 << 120) + 1);
        self.note("deliveries of", &id, store.deliveries_of(tenant, id).await.unwrap());
    }

    async fn channels(&mut self, store: &Store, tenant: Tenant) {
        for (offset, limit) in PAGES {
            let all = ChannelDeliveryQuery {
                tenant,
                channel: ChannelId(1),
                notification: None,
                statuses: Vec::new(),
                from: None,
                to: None,
                age: Age::Falling,
                after: None,
                offset,
                limit,
            };
            let rows = store.channel_deliveries(all.clone()).await.unwrap();
            let after = rows.first().map(|(_, notification)| (notification.at, notification.id));
            let statuses = vec![DeliveryStatus::Failed, DeliveryStatus::Succeeded];
            let (from, to) = (Some(Timestamp(EPOCH)), Some(Timestamp(EPOCH + 1_000)));
            self.note("at a channel", &all, rows);
            for query in [
                ChannelDeliveryQuery { channel: ChannelId(0), ..all.clone() },
                ChannelDeliveryQuery { after, ..all.clone() },
                ChannelDeliveryQuery { after, age: Age::Rising, ..all.clone() },
                ChannelDeliveryQuery { notification: Some(NotificationId((1 << 120) + 1)), ..all.clone() },
                ChannelDeliveryQuery { from, to, age: Age::Rising, ..all.clone() },
                ChannelDeliveryQuery { statuses, ..all.clone() },
            ] {
                self.note("at a channel", &query, store.channel_deliveries(query.clone()).await.unwrap());
            }
        }
        for channels in [vec![], vec![ChannelId(1)], vec![ChannelId(1), ChannelId(0), ChannelId(99)]] {
            let query = LastDeliveryQuery { tenant, channels };
            self.note("last deliveries", &query, store.last_deliveries(query.clone()).await.unwrap());
        }
        let ids = [0, 1, 2, 99].map(|n: u128| NotificationId((n << 120) + 1));
        for notifications in [vec![], ids[1..2].to_vec(), ids.to_vec()] {
            let query = OutcomeQuery { tenant, notifications };
            self.note("outcomes", &query, store.outcomes(query.clone()).await.unwrap());
        }
    }

    async fn webhooks(&mut self, store: &Store, tenant: Tenant) {
        let webhook = WebhookId(1);
        for (offset, limit) in PAGES {
            let all = WebhookDeliveryQuery {
                tenant,
                webhook,
                event: None,
                statuses: Vec::new(),
                outcome: None,
                kinds: Vec::new(),
                from: None,
                to: None,
                age: Age::Falling,
                after: None,
                offset,
                limit,
            };
            let rows = store.webhook_deliveries(all.clone()).await.unwrap();
            let after = rows.first().map(|row| (row.created_at, row.id.event));
            let narrowed = WebhookDeliveryQuery {
                statuses: vec![DeliveryStatus::Failed, DeliveryStatus::Pending],
                kinds: vec![EventType::AlertFiring, EventType::WebhookTest],
                ..all.clone()
            };
            let (from, to) = (Some(Timestamp(EPOCH)), Some(Timestamp(EPOCH + 1_000)));
            self.note("owed", &all, rows);
            for query in [
                WebhookDeliveryQuery { after, ..all.clone() },
                WebhookDeliveryQuery { after, age: Age::Rising, ..all.clone() },
                WebhookDeliveryQuery { age: Age::Rising, ..all.clone() },
                WebhookDeliveryQuery { event: Some(NotificationId((1 << 120) + 1)), ..all.clone() },
                WebhookDeliveryQuery { from, to, ..narrowed.clone() },
                WebhookDeliveryQuery { outcome: Some("1; \u{0}'?"), ..all.clone() },
                narrowed,
            ] {
                self.note("owed", &query, store.webhook_deliveries(query.clone()).await.unwrap());
            }
        }
        let query = OwedQuery { tenant, webhook };
        self.note("pending", &query, store.webhook_owed(query).await.unwrap());
        for event in [NotificationId(0), NotificationId((1 << 120) + 1), NotificationId(99)] {
            self.note("event", &event, store.webhook_event(EventQuery { tenant, id: event }).await.unwrap());
            let ids = vec![event, NotificationId(1 << 120), NotificationId(7)];
            let mut events = store.webhook_events(EventsQuery { tenant, ids }).await.unwrap();
            events.sort_by_key(|event| event.id);
            self.note("events", &event, events);
            let query = AttemptQuery { tenant, id: DeliveryId { event, webhook }, limit: 2 };
            self.note("attempts", &query, store.webhook_attempts(query).await.unwrap());
        }
        for (behind, limit) in [(0, 1_000), (0, 3), (4, 1), (11, 2), (40, 5)] {
            let query = ChangeQuery { tenant, behind: Position(behind), limit };
            self.note("changes", &query, store.changes(query).await.unwrap());
        }
    }

    async fn incidents(&mut self, store: &Store, (tenant, offset, limit): (Tenant, usize, usize)) {
        let all = IncidentQuery {
            tenant,
            id: None,
            alerts: vec![],
            accounts: vec![],
            lasts: None,
            from: None,
            to: None,
            age: Age::Falling,
            after: None,
            offset,
            limit,
        };
        let first = store.incidents(all.clone()).await.unwrap().first().map(|entry| entry.begin.clone());
        let after = first.as_ref().map(|begin| (begin.at, incident::id(begin)));
        let id = first.as_ref().map(incident::id);
        let end = Some(Timestamp(EPOCH + 1_000));
        let (alerts, accounts) = (ALERTS[1..].to_vec(), vec![account(0), account(1)]);
        for query in [
            all.clone(),
            IncidentQuery { age: Age::Rising, after, ..all.clone() },
            IncidentQuery { after, ..all.clone() },
            IncidentQuery { id, offset: 0, ..all.clone() },
            IncidentQuery { id: Some(IncidentId(1)), ..all.clone() },
            IncidentQuery { lasts: Some(true), from: Some(Timestamp(EPOCH)), ..all.clone() },
            IncidentQuery { lasts: Some(false), to: end, ..all.clone() },
            IncidentQuery { alerts, accounts, ..all },
        ] {
            self.note("incidents", &query, store.incidents(query.clone()).await.unwrap());
        }
    }

    async fn set_aside(&mut self, store: &Store, tenant: Tenant) {
        let all = |(offset, limit)| QuarantineQuery {
            tenant,
            id: None,
            statuses: vec![],
            codes: vec![],
            accounts: vec![],
            from: None,
            to: None,
            age: Age::Falling,
            since: None,
            after: None,
            offset,
            limit,
        };
        let first = store.quarantine(all(PAGES[0])).await.unwrap();
        let after = first.first().map(|entry| (entry.row.at, entry.row.id));
        let behind = QuarantineQuery { after, ..all(PAGES[0]) };
        let never = crate::domain::id::MetricName::new("never").unwrap();
        for epoch in [0, 1, 1 << 40].map(Epoch) {
            for metrics in [vec![metric(0)], vec![metric(2), never.clone(), metric(1)], vec![never.clone()]] {
                let asked = MetricQuery { tenant, since: epoch, metrics };
                self.note("metrics", &asked, store.metrics_among(asked.clone()).await.unwrap());
            }
        }
        let since = first.last().map(|entry| entry.row.at);
        let newer = QuarantineQuery { since, ..all(PAGES[0]) };
        let statuses = vec![QuarantineStatus::Open, QuarantineStatus::Discarded];
        let open = QuarantineQuery { statuses, age: Age::Rising, ..all(PAGES[1]) };
        let coded = QuarantineQuery { codes: vec!["invalid_event".to_owned()], ..all(PAGES[0]) };
        let (from, to) = (Some(Timestamp(EPOCH)), Some(Timestamp(EPOCH + 1_000)));
        let dated = QuarantineQuery { from, to, age: Age::Rising, after, ..all(PAGES[0]) };
        let one = QuarantineQuery { id: Some(QuarantineId(1 << 64)), ..all(PAGES[0]) };
        let owned = QuarantineQuery { accounts: vec![account(1), account(2)], ..all(PAGES[0]) };
        for query in PAGES.into_iter().map(all).chain([open, coded, dated, one, owned, behind, newer]) {
            self.note("quarantine", &query, store.quarantine(query.clone()).await.unwrap());
        }
    }
}

#[tokio::test]
async fn a_summary_tells_of_the_instance_that_was_evaluated_last_even_without_a_value() {
    let instance = |n: usize, value: Option<i128>| InstanceRow {
        key: InstanceKey { tenant: tenant(1, false), alert: ALERTS[0], account: account(n), metric: None },
        epoch: Epoch(0),
        state: Some(State::Firing),
        since: Timestamp(EPOCH),
        silenced: n == 0,
        value: value.map(Quantity),
        evaluated_at: Timestamp(EPOCH + n as i64),
        revision: Position(1),
    };
    let instances = vec![instance(0, Some(5)), instance(1, None)];
    for place in Place::all() {
        place.write(&Effects { instances: instances.clone(), ..Effects::default() }, 1);
        let summaries = place.store.summaries(tenant(1, false), vec![ALERTS[0]]).await.unwrap();
        let wanted = Summary {
            counts: [(State::Firing, 2)].into(),
            silenced: true,
            last_value: None,
            last_evaluated_at: Some(Timestamp(EPOCH + 1)),
        };
        assert_eq!(summaries, [(ALERTS[0], wanted)].into());
    }
}

/// A window that has changed again since is told where it stands now, and not where it once stood.
#[tokio::test]
async fn changes_up_to_a_position_tell_no_window_that_a_later_one_replaced() {
    let window = |n: usize, revision: u64| WindowRow {
        series: SeriesKey {
            tenant: tenant(1, false),
            epoch: Epoch(0),
            account: account(n),
            metric: metric(0),
            group: String::new(),
        },
        start: Timestamp(EPOCH).window_start(WINDOW),
        part: Position(1),
        aggregate: Aggregate::default(),
        late_events: 0,
        revision: Position(revision),
    };
    for place in Place::all() {
        for windows in [vec![window(0, 5), window(1, 5)], vec![window(0, 7)]] {
            place.write(&Effects { windows, ..Effects::default() }, 1);
        }
        let query = ChangeQuery { tenant: tenant(1, false), behind: Position(4), limit: 1 };
        let first = place.store.changes(query).await.unwrap();
        assert_eq!((first.windows, first.reach), (vec![window(1, 5)], Some(Position(5))), "{:?}", place.store);
        let next = place.store.changes(ChangeQuery { behind: Position(5), limit: 10, ..query }).await.unwrap();
        assert_eq!(next.windows, [window(0, 7)], "{:?}", place.store);
    }
}
