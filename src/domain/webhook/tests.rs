//! Tests of what a log owes to endpoints.

use super::event::{Content, Event, Source};
use super::kind::EventType;
use super::outbox::{Concern, Intake, Outbox, Subscription};
use super::rows::{Again, DeliveryId, Posted, Rows};
use crate::domain::control::outcome::Change;
use crate::domain::id::{Log, Mode, NotificationId, Position, Stamp, Tenant, WebhookId, WorkspaceId};
use crate::domain::limits::OWED_PER_WEBHOOK_MAX;
use crate::domain::partition::effect::DeliveryStatus;
use crate::domain::partition::fact::{QUOTAS_TOLD, V3};
use crate::domain::time::Timestamp;

const TENANT: Tenant = Tenant { workspace: WorkspaceId(1), mode: Mode::Live };

/// An outbox and how often it was told something.
#[derive(Default)]
struct Bench {
    outbox: Outbox,
    position: u64,
}

impl Bench {
    fn stamp(&mut self) -> Stamp {
        self.position += 1;
        Stamp { position: Position(self.position), recorded_at: Timestamp(1_000 * self.position.cast_signed()) }
    }

    fn subscribe(&mut self, webhook: u128, pattern: &str, intake: Intake) -> Rows {
        let subscription = Some(Subscription { event_types: vec![pattern.to_owned()], intake });
        self.learn(&Change::Webhook { tenant: TENANT, webhook: WebhookId(webhook), subscription, project: None })
    }

    fn learn(&mut self, change: &Change) -> Rows {
        self.learn_as_of(V3, change)
    }

    fn learn_as_of(&mut self, engine_version: u32, change: &Change) -> Rows {
        let (stamp, mut rows) = (self.stamp(), Rows::default());
        self.outbox.learn(change, (Log::Control, engine_version), stamp, &mut rows);
        rows
    }

    fn publish(&mut self, kind: EventType) -> (Event, Rows) {
        let (stamp, mut rows, mut index) = (self.stamp(), Rows::default(), 0);
        let mut source = Source { log: Log::Control, stamp, index: &mut index };
        let event = source.event(TENANT, kind, stamp.recorded_at, Content::json(&serde_json::json!({})));
        self.outbox.publish(event.clone(), Concern::Workspace, stamp, &mut rows);
        (event, rows)
    }

    fn attempt(&mut self, id: DeliveryId, delivered: bool, next_at: Option<Timestamp>) -> Rows {
        let (stamp, mut rows, mut index) = (self.stamp(), Rows::default(), 0);
        let attempt = self.outbox.get(id).map_or(1, |(owed, _)| owed.attempts + 1);
        let outcome = "x".to_owned();
        let posted = Posted { id, attempt, delivered, status: None, outcome, duration_ms: 1, next_at };
        let mut source = Source { log: Log::Control, stamp, index: &mut index };
        self.outbox.attempted(&posted, &mut source, &mut rows);
        rows
    }
}

fn statuses(rows: &Rows) -> Vec<(u128, DeliveryStatus)> {
    rows.deliveries.iter().map(|row| (row.id.webhook.0, row.status)).collect()
}

#[test]
fn patterns_are_names_and_prefixes() {
    for (pattern, matches) in [
        ("alert.firing", true),
        ("alert.*", true),
        ("*", true),
        ("alert.resolved", false),
        ("al*", false),
        ("alert*", false),
    ] {
        assert_eq!(EventType::AlertFiring.matches(pattern), matches, "{pattern}");
    }
    assert!(EventType::ALL.iter().all(|kind| EventType::parse(kind.name()) == Some(*kind)));
}

#[test]
fn a_delivery_has_one_spelling() {
    let id = DeliveryId { event: NotificationId(0xabc << 100), webhook: WebhookId(0xdef) };
    assert_eq!(id.to_string().parse(), Ok(id));
    for bad in
        ["", "dlv_", "dlv_7", &id.to_string().to_lowercase(), &format!("{id}0"), "dlv_äääääääääääääääääääääääääää"]
    {
        assert!(bad.parse::<DeliveryId>().is_err(), "{bad}");
    }
}

#[test]
fn an_event_is_owed_to_those_who_want_it() {
    let mut bench = Bench::default();
    bench.subscribe(1, "alert.*", Intake::Open);
    bench.subscribe(2, "account.created", Intake::Open);
    bench.subscribe(3, "*", Intake::Paused);
    let (event, rows) = bench.publish(EventType::AccountCreated);
    assert_eq!(statuses(&rows), [(2, DeliveryStatus::Pending), (3, DeliveryStatus::Dropped)]);
    assert_eq!((rows.events, bench.outbox.count()), (vec![event.clone()], 1));
    let id = DeliveryId { event: event.id, webhook: WebhookId(2) };
    let rows = bench.attempt(id, false, Some(Timestamp(9)));
    assert_eq!((statuses(&rows), rows.attempts.len()), (vec![(2, DeliveryStatus::Pending)], 1));
    let (owed, held) = bench.outbox.get(id).unwrap();
    assert_eq!((owed.attempts, owed.next_at, held), (1, Some(Timestamp(9)), Some(&event)));
    let rows = bench.attempt(id, true, None);
    assert_eq!(statuses(&rows), [(2, DeliveryStatus::Succeeded)]);
    assert_eq!(bench.attempt(id, true, None), Rows::default(), "what is not owed is ignored");
    assert_eq!(bench.outbox.outstanding().count(), 0);
    // What came during the pause is owed when it is asked for, by its log alone.
    bench.subscribe(3, "*", Intake::Open);
    let again = |log| Again { event: event.id, kind: event.kind, log, created_at: Timestamp(2), attempts: 4 };
    let other = again(Log::Partition(crate::domain::id::PartitionId(0)));
    for (deliveries, owed) in [(vec![other], 0), (vec![again(Log::Control)], 1)] {
        bench.learn(&Change::Redeliver { tenant: TENANT, webhook: WebhookId(3), deliveries });
        assert_eq!(bench.outbox.count(), owed);
    }
    let id = DeliveryId { event: event.id, webhook: WebhookId(3) };
    let rows = bench.attempt(id, true, None);
    assert_eq!((rows.deliveries[0].attempts, rows.deliveries[0].created_at), (5, Timestamp(2)), "it is counted on");
}

#[test]
fn the_last_failure_is_an_event_and_begets_no_other() {
    let mut bench = Bench::default();
    bench.subscribe(1, "account.*", Intake::Open);
    bench.subscribe(2, "delivery.exhausted", Intake::Open);
    bench.subscribe(3, "delivery.exhausted", Intake::Open);
    let (event, _) = bench.publish(EventType::AccountDeleted);
    let rows = bench.attempt(DeliveryId { event: event.id, webhook: WebhookId(1) }, false, None);
    let wanted = [(1, DeliveryStatus::Failed), (2, DeliveryStatus::Pending), (3, DeliveryStatus::Pending)];
    assert_eq!(statuses(&rows), wanted);
    let exhausted = rows.events[0].id;
    let rows = bench.attempt(DeliveryId { event: exhausted, webhook: WebhookId(2) }, false, None);
    assert_eq!(statuses(&rows), [(2, DeliveryStatus::Failed)]);
}

#[test]
fn who_is_gone_is_owed_nothing_and_nobody_too_much() {
    let mut bench = Bench::default();
    bench.subscribe(1, "*", Intake::Open);
    for _ in 0..OWED_PER_WEBHOOK_MAX {
        bench.publish(EventType::AlertCreated);
    }
    let (_, rows) = bench.publish(EventType::AlertCreated);
    assert_eq!(statuses(&rows), [(1, DeliveryStatus::Dropped)]);
    let bytes = postcard::to_allocvec(&bench.outbox).unwrap();
    assert_eq!(postcard::from_bytes::<Outbox>(&bytes).unwrap(), bench.outbox);
    let rows = bench.subscribe(1, "*", Intake::Disabled);
    assert!(rows.deliveries.len() == OWED_PER_WEBHOOK_MAX);
    assert!(rows.deliveries.iter().all(|row| row.status == DeliveryStatus::Failed && row.outcome.is_some()));
    bench.learn(&Change::Webhook { tenant: TENANT, webhook: WebhookId(1), subscription: None, project: None });
    assert!(bench.outbox.is_empty());
}

#[test]
fn what_is_asked_for_again_and_does_not_fit_is_dropped_aloud() {
    let mut bench = Bench::default();
    bench.subscribe(1, "*", Intake::Open);
    let mut ids: Vec<NotificationId> =
        (0..=OWED_PER_WEBHOOK_MAX).map(|_| bench.publish(EventType::AlertCreated).0.id).collect();
    let (last, first) = (ids.pop().unwrap(), DeliveryId { event: ids[0], webhook: WebhookId(1) });
    let again = |event, attempts| {
        let (kind, created_at) = (EventType::AlertCreated, Timestamp(7));
        Again { event, kind, log: Log::Control, created_at, attempts }
    };
    let redeliver = |deliveries| Change::Redeliver { tenant: TENANT, webhook: WebhookId(1), deliveries };
    let change = redeliver(vec![again(last, 3), again(ids[0], 0)]);
    let rows = bench.learn(&change);
    assert_eq!(statuses(&rows), [(1, DeliveryStatus::Dropped), (1, DeliveryStatus::Pending)], "what waits, waits on");
    let dropped = &rows.deliveries[0];
    assert!(dropped.is_overflow(), "{dropped:?}");
    assert_eq!((dropped.id.event, dropped.created_at, dropped.attempts), (last, Timestamp(7), 3));
    assert_eq!((bench.outbox.count(), bench.outbox.room_for(WebhookId(1))), (OWED_PER_WEBHOOK_MAX, 0));
    let silent = bench.learn_as_of(QUOTAS_TOLD, &change);
    assert_eq!(statuses(&silent), [(1, DeliveryStatus::Pending)], "older releases said nothing");
    bench.attempt(first, true, None);
    let rows = bench.learn(&redeliver(vec![again(last, 3), again(ids[0], 1)]));
    assert_eq!(statuses(&rows), [(1, DeliveryStatus::Pending), (1, DeliveryStatus::Dropped)], "there was room for one");
}
