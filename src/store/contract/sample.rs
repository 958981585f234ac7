//! Rows of every kind, made of a few small numbers. As in the fold, a row's content follows from its key and revision;
//! what has no revision follows from its key.

use crate::domain::definition::Severity;
use crate::domain::id::{
    AccountId, AlertId, ChannelId, Epoch, Log, MetricName, Mode, NotificationId, PartitionId, Position, QuarantineId,
    Tenant, WebhookId, WorkspaceId,
};
use crate::domain::partition::aggregate::Aggregate;
use crate::domain::partition::effect::{
    AccountRow, DeliveryRow, DeliveryStatus, Effects, Evidence, InstanceKey, InstanceRow, QuarantineRow,
    QuarantineStatus, QuotaEvidence, Reason, Repeats, SeriesKey, State, TransitionRow, WindowRow,
};
use crate::domain::partition::notification::{Notification, NotificationKind};
use crate::domain::quantity::Quantity;
use crate::domain::rule::Trace;
use crate::domain::time::{Period, Timestamp, WINDOW};
use crate::domain::webhook::event::{Content, Event, QuotaTold};
use crate::domain::webhook::kind::EventType;
use crate::domain::webhook::rows::{Attempt, Delivery, DeliveryId, Posted};
use crate::store::Progress;
use proptest::prelude::*;

pub(super) const STATES: [State; 5] = [State::Ok, State::Pending, State::Firing, State::NoData, State::Inconclusive];
const DELIVERED: [DeliveryStatus; 5] = [
    DeliveryStatus::Pending,
    DeliveryStatus::Succeeded,
    DeliveryStatus::Failed,
    DeliveryStatus::Dropped,
    DeliveryStatus::Superseded,
];
const SETTLED: [QuarantineStatus; 3] =
    [QuarantineStatus::Open, QuarantineStatus::Replayed, QuarantineStatus::Discarded];
/// An instant of the calendar, so that times are like real ones.
pub(super) const EPOCH: i64 = 1_700_000_100_000;

/// Names a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed {
    kind: u8,
    sandbox: bool,
    epoch: u64,
    account: usize,
    one: u64,
    two: u64,
    revision: u64,
}

/// Few keys and many revisions, so that most rows replace others.
pub(super) fn seeds() -> impl Strategy<Value = Seed> {
    let mostly = |n: u64| prop_oneof![4 => Just(0), 1 => 0..n];
    (0_u8..10, prop::bool::weighted(0.1), mostly(2), mostly(3), mostly(4), mostly(3), 1_u64..12).prop_map(
        |(kind, sandbox, epoch, account, one, two, revision)| {
            let account = account as usize;
            Seed { kind, sandbox, epoch, account, one, two, revision }
        },
    )
}

pub(super) fn progress(up_to: u64) -> Progress {
    Progress { position: Position(up_to), clock: Timestamp(EPOCH + up_to.cast_signed()) }
}

pub(super) fn tenant(workspace: u128, sandbox: bool) -> Tenant {
    let mode = if sandbox { Mode::Sandbox } else { Mode::Live };
    Tenant { workspace: WorkspaceId(workspace), mode }
}

/// The names sort by bytes, which is not how people sort.
pub(super) fn account(n: usize) -> AccountId {
    AccountId::new(["Zeta", "acme", "acme:eu.1"][n]).unwrap()
}

pub(super) fn metric(n: u64) -> MetricName {
    MetricName::new(["api.requests", "api_requests", "storage"][n as usize % 3]).unwrap()
}

/// The effects of some rows, in their order.
pub(super) fn effects(workspace: u128, seeds: &[Seed]) -> Effects {
    let mut effects = Effects::default();
    for seed in seeds {
        let row = Sample { seed: *seed, tenant: tenant(workspace, seed.sandbox) };
        match seed.kind {
            0 => effects.windows.push(row.window()),
            1 => effects.accounts.push(row.account()),
            2 => effects.instances.push(row.instance()),
            3 => effects.transitions.push(row.transition()),
            4 => effects.notifications.push(row.notification()),
            5 => effects.deliveries.push(row.delivery()),
            6 => effects.quarantine.push(row.quarantined()),
            7 => effects.webhooks.events.push(row.event()),
            8 => effects.webhooks.deliveries.push(row.owed()),
            _ => effects.webhooks.attempts.push(row.attempt()),
        }
    }
    effects
}

/// The same rows in the order in which the fold would have made them.
pub(super) fn in_order(seeds: &[Seed]) -> Vec<Seed> {
    let mut sorted = seeds.to_vec();
    sorted.sort_by_key(|seed| seed.revision);
    sorted
}

struct Sample {
    seed: Seed,
    tenant: Tenant,
}

impl Sample {
    fn at(&self, n: u64) -> Timestamp {
        Timestamp(EPOCH + n.cast_signed() * 1_000)
    }

    fn key(&self) -> InstanceKey {
        let metric = (self.seed.two > 0).then(|| metric(self.seed.two));
        let alert = AlertId(u128::from(self.seed.one % 2) + (1 << 100));
        InstanceKey { tenant: self.tenant, alert, account: account(self.seed.account), metric }
    }

    fn window(&self) -> WindowRow {
        let Seed { epoch, one, two, revision, .. } = self.seed;
        let start = Timestamp(EPOCH - EPOCH % WINDOW.0 + one.cast_signed() * WINDOW.0);
        let mut aggregate = Aggregate::default();
        for n in 0..revision.cast_signed() {
            let value = if n % 5 == 4 { Quantity(i128::MAX / 90) } else { Quantity(i128::from(3 - n) * 500_000_001) };
            aggregate.add(value, start.plus(crate::domain::time::Millis(n * 7 % 5)));
        }
        let group = if two == 2 { r#"{"region":"eu;\\'?"}"#.to_owned() } else { String::new() };
        WindowRow {
            series: SeriesKey {
                tenant: self.tenant,
                epoch: Epoch(epoch),
                account: account(self.seed.account),
                metric: metric(one + two),
                group,
            },
            start,
            part: Position(two + 1),
            aggregate,
            late_events: revision / 2,
            revision: Position(revision),
        }
    }

    fn account(&self) -> AccountRow {
        let Seed { epoch, revision, .. } = self.seed;
        AccountRow {
            tenant: self.tenant,
            epoch: Epoch(epoch),
            account: account(self.seed.account),
            first_seen_at: self.at(revision),
            revision: Position(revision),
        }
    }

    fn instance(&self) -> InstanceRow {
        let Seed { epoch, revision, .. } = self.seed;
        InstanceRow {
            key: self.key(),
            epoch: Epoch(epoch),
            state: STATES.get(revision as usize % 6).copied(),
            since: self.at(revision),
            silenced: revision % 4 == 1,
            value: (revision % 3 > 0).then_some(Quantity(i128::from(revision) << 70)),
            evaluated_at: self.at(revision / 3),
            revision: Position(revision * 2 + epoch),
        }
    }

    fn evidence(&self) -> Evidence {
        let trace = Trace(Vec::new());
        let (value_name, value) = (Some("quota_percent".to_owned()), Some(Quantity(-1)));
        Evidence { alert_version: 1, rule: "a > 1".to_owned(), trace, value_name, value, window: None, quota: None }
    }

    fn transition(&self) -> TransitionRow {
        let steps = [(State::Ok, State::Firing), (State::Firing, State::Firing), (State::Firing, State::NoData)];
        let (from, to) = steps[(self.seed.one * 2 % 3) as usize];
        TransitionRow {
            key: self.key(),
            epoch: Epoch(0),
            sequence: self.seed.one,
            from,
            to,
            reason: Reason::Condition,
            at: self.at(self.seed.one / 2),
            recorded_at: self.at(self.seed.one),
            position: Position(self.seed.one + 1),
            evidence: self.evidence(),
            notification: None,
        }
    }

    fn id(&self) -> NotificationId {
        NotificationId((u128::from(self.seed.one) << 120) + u128::from(self.seed.two))
    }

    fn notification(&self) -> Notification {
        let Seed { one, two, .. } = self.seed;
        let key = InstanceKey { account: account(0), ..self.key() };
        Notification {
            id: self.id(),
            kind: NotificationKind::Firing,
            reason: Reason::Condition,
            key,
            epoch: Epoch(0),
            sequence: one,
            state: State::Firing,
            alert_name: Some("weiß; 'quoted' \\ \u{0} ?".to_owned()),
            message: None,
            severity: Severity::Warning,
            labels: [("team".to_owned(), "a\tb\n".to_owned())].into(),
            evidence: self.evidence(),
            follows: None,
            closes: Vec::new(),
            fired_meanwhile: 0,
            at: self.at(one / 2),
            recorded_at: self.at(one),
            accepted_at: None,
            partition: PartitionId(0),
            position: Position(one + two + 1),
            index: 0,
            channels: vec![ChannelId(1)],
        }
    }

    fn delivery(&self) -> DeliveryRow {
        let revision = self.seed.revision;
        DeliveryRow {
            tenant: self.tenant,
            notification: self.id(),
            channel: ChannelId(u128::from(self.seed.epoch)),
            status: DELIVERED[revision as usize % 4],
            attempts: revision as u32,
            outcome: (!revision.is_multiple_of(3)).then(|| format!("{revision}; \u{0}'?")),
            next_at: (!revision.is_multiple_of(2)).then(|| self.at(revision)),
            at: self.at(revision / 2),
            revision: Position(revision),
        }
    }

    fn event(&self) -> Event {
        let kind = self.kind();
        let content = if kind == EventType::AlertFiring {
            Content::Alert { notification: Box::new(self.notification()), silenced: self.seed.two == 1 }
        } else if kind == EventType::QuotaReset {
            Content::Quota(Box::new(self.quota_told()))
        } else {
            Content::Data("{\"id\":\"weiß '\\\\ \\u0000\"}".to_owned())
        };
        let (at, position) = (self.at(self.seed.one), Position(self.seed.one + self.seed.two + 1));
        Event { id: self.id(), tenant: self.tenant, kind, at, log: Log::Control, position, index: 0, content }
    }

    fn kind(&self) -> EventType {
        [EventType::AlertFiring, EventType::AccountCreated, EventType::QuotaReset][self.seed.one as usize % 3]
    }

    fn quota_told(&self) -> QuotaTold {
        let (start, end) = Period::Day.bounds(self.at(self.seed.one));
        let limit = Quantity(i128::from(self.seed.two) * 10_i128.pow(24));
        let quota = QuotaEvidence { limit, used: limit.minus(Quantity(1)), period: Period::Day, start, end };
        QuotaTold { account: account(1), metric: metric(1), quota, ended: (self.seed.two == 1).then_some(quota) }
    }

    fn delivery_id(&self) -> DeliveryId {
        DeliveryId { event: self.id(), webhook: WebhookId(u128::from(self.seed.epoch) + 1) }
    }

    fn owed(&self) -> Delivery {
        let row = self.delivery();
        Delivery {
            tenant: self.tenant,
            id: self.delivery_id(),
            kind: self.kind(),
            log: if self.seed.two == 0 { Log::Control } else { Log::Partition(PartitionId(3)) },
            created_at: self.at(self.seed.one / 2),
            status: row.status,
            attempts: row.attempts,
            outcome: row.outcome,
            next_at: row.next_at,
            at: row.at,
            revision: row.revision,
        }
    }

    fn attempt(&self) -> Attempt {
        let revision = self.seed.revision;
        let posted = Posted {
            id: self.delivery_id(),
            attempt: self.seed.account as u32,
            delivered: revision.is_multiple_of(2),
            status: (!revision.is_multiple_of(3)).then_some(500),
            outcome: format!("{revision}; \u{0}'?"),
            duration_ms: revision,
            next_at: None,
        };
        Attempt { tenant: self.tenant, posted, at: self.at(revision), revision: Position(revision) }
    }

    fn quarantined(&self) -> QuarantineRow {
        let Seed { one, two, revision, .. } = self.seed;
        let id = one * 3 + two;
        QuarantineRow {
            tenant: self.tenant,
            id: QuarantineId(u128::from(id) << 64),
            code: ["timestamp_too_old", "invalid_event"][id as usize % 2].to_owned(),
            detail: "older than 48 h".to_owned(),
            account: (id % 3 > 0).then(|| account(id as usize % 3)),
            body: "{\"value\": 1;\u{0}}".repeat(id as usize),
            at: self.at(id / 4),
            status: SETTLED[revision as usize % 3],
            revision: Position(revision),
            epoch: (id % 2 == 1).then_some(Epoch(two)),
            repeats: (revision % 2 == 1).then_some(Repeats { count: revision + 1, last_at: self.at(revision) }),
        }
    }
}
