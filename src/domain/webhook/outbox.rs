//! What a log's fold owes to endpoints: who wants what, and which (event, endpoint) pairs have not settled.

use super::event::{Content, Event, Source};
use super::kind::EventType;
use super::rows::{Again, Attempt, Delivery, DeliveryId, Posted, Rows};
use crate::domain::control::outcome::Change;
use crate::domain::id::{Log, NotificationId, ProjectId, Stamp, Tenant, WebhookId};
use crate::domain::limits::OWED_PER_WEBHOOK_MAX;
use crate::domain::partition::effect::DeliveryStatus;
use crate::domain::partition::fact::V3;
use crate::domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// Why an event is dropped that comes for an endpoint for which as many deliveries wait as may.
pub const TOO_MANY_WAIT: &str = "too many deliveries wait already";

/// What an endpoint wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Names of event types, or `prefix.*`.
    pub event_types: Vec<String>,
    /// Whether it is sent to.
    pub intake: Intake,
}

/// Whom an event concerns. An endpoint that is labelled with a project hears of what is everybody's and of its project's
/// own; any other one hears of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern {
    /// Everybody: usage belongs to accounts, and these to the workspace.
    Everybody,
    /// Those of a project.
    Project(ProjectId),
    /// Those who are bound to no project.
    Workspace,
}

impl Concern {
    /// That of something with a label, or with none.
    pub const fn of(label: Option<ProjectId>) -> Self {
        match label {
            Some(project) => Self::Project(project),
            None => Self::Workspace,
        }
    }

    fn reaches(self, label: Option<ProjectId>) -> bool {
        match (self, label) {
            (_, None) | (Self::Everybody, Some(_)) => true,
            (Self::Project(project), Some(label)) => project == label,
            (Self::Workspace, Some(_)) => false,
        }
    }
}

/// Whether an endpoint is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intake {
    /// It is.
    Open,
    /// What is owed waits; what comes is dropped.
    Paused,
    /// What is owed is given up; what comes is dropped.
    Disabled,
}

/// How far an owed pair got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owed {
    /// Workspace and mode.
    pub tenant: Tenant,
    /// The event's type.
    pub kind: EventType,
    /// When it was first owed.
    pub created_at: Timestamp,
    /// Attempts so far.
    pub attempts: u32,
    /// Those of them since it was last asked for: the schedule goes by them.
    pub round: u32,
    /// When the next attempt is due; at once where absent.
    pub next_at: Option<Timestamp>,
    /// Whether the event is held for it; else the store has it.
    pub holds: bool,
}

/// An event that is owed to someone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    event: Event,
    owed_to: u32,
}

/// The endpoints and debts of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outbox {
    #[serde(with = "pairs")]
    subscriptions: BTreeMap<Tenant, BTreeMap<WebhookId, Subscription>>,
    events: BTreeMap<NotificationId, Held>,
    owed: BTreeMap<WebhookId, BTreeMap<NotificationId, Owed>>,
    /// The projects of endpoints that are labelled with one. Snapshots keep it apart: older ones have none.
    #[serde(skip)]
    labels: BTreeMap<WebhookId, ProjectId>,
}

impl Outbox {
    /// The projects of endpoints that are labelled with one.
    pub const fn labels(&self) -> &BTreeMap<WebhookId, ProjectId> {
        &self.labels
    }

    /// Takes the labels of a snapshot.
    pub fn set_labels(&mut self, labels: BTreeMap<WebhookId, ProjectId>) {
        self.labels = labels;
    }

    /// Tells whether nobody wants anything and nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.subscriptions.is_empty() && self.events.is_empty() && self.owed.is_empty()
    }

    /// Tells whether anybody in a tenant wants a type.
    pub fn wants(&self, tenant: Tenant, kind: EventType) -> bool {
        self.subscriptions.get(&tenant).is_some_and(|all| all.values().any(|one| one.wants(kind)))
    }

    /// How many pairs are owed.
    pub fn count(&self) -> usize {
        self.owed.values().map(BTreeMap::len).sum()
    }

    /// Lists what is owed, with the event where it is held: one that is asked for again is in the store alone.
    pub fn outstanding(&self) -> impl Iterator<Item = (DeliveryId, &Owed, Option<&Event>)> {
        self.owed.iter().flat_map(|(webhook, owed)| {
            owed.iter().map(|(event, owed)| {
                let held = self.events.get(event).map(|held| &held.event);
                (DeliveryId { event: *event, webhook: *webhook }, owed, held)
            })
        })
    }

    /// One pair, where it is owed.
    pub fn get(&self, id: DeliveryId) -> Option<(&Owed, Option<&Event>)> {
        let owed = self.owed.get(&id.webhook)?.get(&id.event)?;
        Some((owed, self.events.get(&id.event).map(|held| &held.event)))
    }

    /// Tells for how many deliveries to an endpoint there is room beside those that are owed.
    pub fn room_for(&self, webhook: WebhookId) -> usize {
        OWED_PER_WEBHOOK_MAX.saturating_sub(self.owed.get(&webhook).map_or(0, BTreeMap::len))
    }

    /// Takes in what the control plane says of endpoints, as of an engine version.
    pub fn learn(&mut self, change: &Change, (log, engine_version): (Log, u32), stamp: Stamp, rows: &mut Rows) {
        match change {
            Change::Webhook { tenant, webhook, subscription, project } => {
                match project.filter(|_| subscription.is_some()) {
                    Some(project) => self.labels.insert(*webhook, project),
                    None => self.labels.remove(webhook),
                };
                self.subscribe((*tenant, *webhook), subscription.clone(), (log, stamp), rows);
            }
            Change::Redeliver { tenant, webhook, deliveries } => {
                for again in deliveries.iter().filter(|again| again.log == log) {
                    self.owe_again((*tenant, *webhook), (again, engine_version), stamp, rows);
                }
            }
            Change::Settings { .. }
            | Change::Test { .. }
            | Change::ChannelRepaired { .. }
            | Change::RedeliverMessage { .. }
            | Change::Metric { .. }
            | Change::Quota { .. }
            | Change::Alert { .. }
            | Change::AlertDeleted { .. }
            | Change::AccountDeleted { .. }
            | Change::SandboxReset { .. }
            | Change::ClockAdvanced { .. }
            | Change::Silence { .. }
            | Change::SilenceDeleted { .. }
            | Change::UsageSeeded { .. } => {}
        }
    }

    fn subscribe(
        &mut self,
        (tenant, webhook): (Tenant, WebhookId),
        subscription: Option<Subscription>,
        (log, stamp): (Log, Stamp),
        rows: &mut Rows,
    ) {
        let gives_up = match &subscription {
            None => Some("the endpoint was deleted"),
            Some(one) if one.intake == Intake::Disabled => Some("the endpoint was disabled"),
            Some(_) => None,
        };
        let all = self.subscriptions.entry(tenant).or_default();
        match subscription {
            Some(one) => all.insert(webhook, one),
            None => all.remove(&webhook),
        };
        if all.is_empty() {
            self.subscriptions.remove(&tenant);
        }
        let Some(why) = gives_up else { return };
        for (event, owed) in self.owed.remove(&webhook).unwrap_or_default() {
            let row = owed.row(DeliveryId { event, webhook }, (log, stamp));
            rows.deliveries.push(Delivery { status: DeliveryStatus::Failed, outcome: Some(why.to_owned()), ..row });
            self.release(event, &owed);
        }
    }

    /// Owes an event to everyone whom it concerns and who wants it.
    pub fn publish(&mut self, event: Event, concern: Concern, stamp: Stamp, rows: &mut Rows) {
        self.publish_except(event, (concern, None), stamp, rows);
    }

    fn publish_except(
        &mut self,
        event: Event,
        (concern, except): (Concern, Option<WebhookId>),
        stamp: Stamp,
        rows: &mut Rows,
    ) {
        let Some(all) = self.subscriptions.get(&event.tenant) else { return };
        let is_told = |id: &WebhookId| Some(*id) != except && concern.reaches(self.labels.get(id).copied());
        let wanting = all.iter().filter(|(id, one)| is_told(id) && one.wants(event.kind));
        let wanting: Vec<(WebhookId, Intake)> = wanting.map(|(id, one)| (*id, one.intake)).collect();
        self.owe(event, &wanting, stamp, rows);
    }

    /// Owes an event to one endpoint, whatever it wants.
    pub fn publish_to(&mut self, event: Event, webhook: WebhookId, stamp: Stamp, rows: &mut Rows) {
        self.owe(event, &[(webhook, Intake::Open)], stamp, rows);
    }

    fn owe(&mut self, event: Event, wanting: &[(WebhookId, Intake)], stamp: Stamp, rows: &mut Rows) {
        if wanting.is_empty() {
            return;
        }
        let owed = Owed {
            tenant: event.tenant,
            kind: event.kind,
            created_at: stamp.recorded_at,
            attempts: 0,
            round: 0,
            next_at: None,
            holds: true,
        };
        let mut owed_to = 0_u32;
        for (webhook, intake) in wanting {
            let row = owed.row(DeliveryId { event: event.id, webhook: *webhook }, (event.log, stamp));
            let waiting = self.owed.get(webhook).map_or(0, BTreeMap::len);
            let dropped = match intake {
                Intake::Open if waiting < OWED_PER_WEBHOOK_MAX => None,
                Intake::Open => Some(TOO_MANY_WAIT),
                Intake::Paused => Some("the endpoint was paused"),
                Intake::Disabled => Some("the endpoint was disabled"),
            };
            match dropped {
                None => {
                    self.owed.entry(*webhook).or_default().insert(event.id, owed);
                    owed_to = owed_to.saturating_add(1);
                    rows.deliveries.push(row);
                }
                Some(why) => {
                    let outcome = Some(why.to_owned());
                    rows.deliveries.push(Delivery { status: DeliveryStatus::Dropped, outcome, ..row });
                }
            }
        }
        rows.events.push(event.clone());
        if owed_to > 0 {
            self.events.insert(event.id, Held { event, owed_to });
        }
    }

    /// What does not fit is dropped again, and its row says so.
    fn owe_again(
        &mut self,
        (tenant, webhook): (Tenant, WebhookId),
        (again, engine_version): (&Again, u32),
        stamp: Stamp,
        rows: &mut Rows,
    ) {
        let takes = self.subscriptions.get(&tenant).and_then(|all| all.get(&webhook));
        if takes.is_none_or(|one| one.intake != Intake::Open) {
            return;
        }
        let afresh = Owed {
            tenant,
            kind: again.kind,
            created_at: again.created_at,
            attempts: again.attempts,
            round: 0,
            next_at: None,
            holds: false,
        };
        let id = DeliveryId { event: again.event, webhook };
        let waiting = self.owed.entry(webhook).or_default();
        let owed = match waiting.get(&again.event) {
            Some(owed) => Owed { round: 0, next_at: None, ..*owed },
            None if waiting.len() >= OWED_PER_WEBHOOK_MAX => {
                if engine_version >= V3 {
                    let (status, outcome) = (DeliveryStatus::Dropped, Some(TOO_MANY_WAIT.to_owned()));
                    rows.deliveries.push(Delivery { status, outcome, ..afresh.row(id, (again.log, stamp)) });
                }
                return;
            }
            None => afresh,
        };
        waiting.insert(again.event, owed);
        rows.deliveries.push(owed.row(id, (again.log, stamp)));
    }

    /// Takes in what came of an attempt; anything about a pair that is not owed is ignored. The last failure of a
    /// schedule is an event itself, unless it was about such an event.
    pub fn attempted(&mut self, posted: &Posted, source: &mut Source<'_>, rows: &mut Rows) {
        let id = posted.id;
        let Some(owed) = self.owed.get_mut(&id.webhook).and_then(|all| all.get_mut(&id.event)) else { return };
        owed.attempts = owed.attempts.max(posted.attempt);
        owed.round = owed.round.saturating_add(1);
        owed.next_at = posted.next_at;
        let status = match (posted.delivered, posted.next_at) {
            (true, _) => DeliveryStatus::Succeeded,
            (false, Some(_)) => DeliveryStatus::Pending,
            (false, None) => DeliveryStatus::Failed,
        };
        let (owed, stamp) = (*owed, source.stamp);
        rows.attempts.push(Attempt {
            tenant: owed.tenant,
            posted: posted.clone(),
            at: stamp.recorded_at,
            revision: stamp.position,
        });
        let next_at = if status == DeliveryStatus::Pending { posted.next_at } else { None };
        let row = owed.row(id, (source.log, stamp));
        rows.deliveries.push(Delivery { status, outcome: Some(posted.outcome.clone()), next_at, ..row });
        if status == DeliveryStatus::Pending {
            return;
        }
        if let Some(all) = self.owed.get_mut(&id.webhook) {
            all.remove(&id.event);
            if all.is_empty() {
                self.owed.remove(&id.webhook);
            }
        }
        self.release(id.event, &owed);
        let kind = EventType::DeliveryExhausted;
        if status == DeliveryStatus::Failed && owed.kind != kind && self.wants(owed.tenant, kind) {
            let data = json!({
                "delivery_id": id.to_string(), "webhook_id": id.webhook.to_string(), "event_id": id.event.to_string(),
                "event_type": owed.kind.name(), "attempts": owed.attempts,
            });
            let event = source.event(owed.tenant, kind, stamp.recorded_at, Content::json(&data));
            let concern = Concern::of(self.labels.get(&id.webhook).copied());
            self.publish_except(event, (concern, Some(id.webhook)), stamp, rows);
        }
    }

    /// Lets no attempt be due later than `at`: the clock was set back to it.
    pub fn due_by(&mut self, at: Timestamp) {
        for owed in self.owed.values_mut().flat_map(BTreeMap::values_mut) {
            owed.next_at = owed.next_at.map(|next| next.min(at));
        }
    }

    /// Lets go of an event that is owed to one less.
    fn release(&mut self, id: NotificationId, owed: &Owed) {
        if !owed.holds {
            return;
        }
        let Some(held) = self.events.get_mut(&id) else { return };
        held.owed_to = held.owed_to.saturating_sub(1);
        if held.owed_to == 0 {
            self.events.remove(&id);
        }
    }
}

impl Subscription {
    fn wants(&self, kind: EventType) -> bool {
        self.event_types.iter().any(|pattern| kind.matches(pattern))
    }
}

impl Owed {
    fn row(&self, id: DeliveryId, (log, stamp): (Log, Stamp)) -> Delivery {
        Delivery {
            tenant: self.tenant,
            id,
            kind: self.kind,
            log,
            created_at: self.created_at,
            status: DeliveryStatus::Pending,
            attempts: self.attempts,
            outcome: None,
            next_at: None,
            at: stamp.recorded_at,
            revision: stamp.position,
        }
    }
}

/// A map whose keys are no texts, as a list of pairs: JSON has no other way.
mod pairs {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::collections::BTreeMap;

    pub(super) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(super) fn deserialize<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<K, V>, D::Error> {
        Ok(Vec::deserialize(deserializer)?.into_iter().collect())
    }
}
