//! Sends events to endpoints: one loop, one queue, bounded attempts under way; every attempt becomes a fact in the log that
//! owes it.

use super::clock;
use super::control::{Asking, ControlPlane};
use super::health::Health;
use super::pending::{Pending, patience_left};
use crate::domain::control::command::Command;
use crate::domain::control::resource::{Webhook, WebhookStatus};
use crate::domain::definition::Severity;
use crate::domain::id::{ChannelId, Log, Mode, Tenant, WebhookId};
use crate::domain::limits::{DELIVERY_ATTEMPTS_MAX, SANDBOX_ATTEMPTS_MAX};
use crate::domain::partition::effect::DeliveryStatus;
use crate::domain::partition::fact::Note;
use crate::domain::time::{Millis, Timestamp};
use crate::domain::webhook::event::{Content, Event};
use crate::domain::webhook::outbox::{Outbox, Owed};
use crate::domain::webhook::rows::{DeliveryId, Posted, Rows};
use crate::journal::Journal;
use crate::notifier::backoff::{self, Try};
use crate::notifier::{Attempt, DestinationKind, Endpoint, Notifier, Queue, Rank, Ticket, Work, event_body};
use crate::store::{EventQuery, Store};
use crate::vault::Vault;
use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// How long an endpoint that is not to be sent to is left alone before it is looked at again.
const HELD_FOR: Millis = Millis::seconds(2);
/// How long the loop sleeps at most: health is summed up between two rounds.
const ROUND: Duration = Duration::from_secs(60);

/// What the folds tell the courier.
#[derive(Debug)]
pub enum Post {
    /// A pair is due.
    Owed {
        /// The log that owes it.
        log: Log,
        /// Which event, and where to.
        id: DeliveryId,
        /// How far it got.
        owed: Owed,
        /// The event; where absent the store has it.
        event: Option<Arc<Event>>,
    },
    /// A pair needs no more attempts.
    Settled(DeliveryId),
    /// A log is given back: nothing more is sent for it.
    Released {
        /// Which one.
        log: Log,
        /// Told when no attempt for it is under way any more, and every outcome is recorded.
        ended: oneshot::Sender<()>,
    },
}

impl Post {
    /// Tells of everything that is owed.
    pub fn outstanding(log: Log, outbox: &Outbox) -> Vec<Self> {
        outbox.outstanding().map(|(id, owed, event)| Self::owed(log, id, owed, event)).collect()
    }

    /// Tells what became due, and what settled, in the order of the rows.
    pub fn changed(log: Log, outbox: &Outbox, rows: &Rows) -> Vec<Self> {
        let post = |row: &crate::domain::webhook::rows::Delivery| match row.status {
            DeliveryStatus::Pending => outbox.get(row.id).map(|(owed, event)| Self::owed(log, row.id, owed, event)),
            DeliveryStatus::Succeeded
            | DeliveryStatus::Failed
            | DeliveryStatus::Dropped
            | DeliveryStatus::Superseded => Some(Self::Settled(row.id)),
        };
        rows.deliveries.iter().filter_map(post).collect()
    }

    fn owed(log: Log, id: DeliveryId, owed: &Owed, event: Option<&Event>) -> Self {
        Self::Owed { log, id, owed: *owed, event: event.map(|event| Arc::new(event.clone())) }
    }
}

/// What sending takes.
#[derive(Clone, Debug)]
pub struct Means {
    /// Where outcomes are recorded.
    pub journal: Journal,
    /// Where endpoints are looked up, and the control log's outcomes are recorded.
    pub control: ControlPlane,
    /// Where events are that are asked for again.
    pub store: Store,
    /// What sends.
    pub notifier: Notifier,
    /// What opens the endpoints' secrets.
    pub vault: Arc<Vault>,
}

#[derive(Clone, Debug)]
struct Debt {
    log: Log,
    owed: Owed,
    event: Option<Arc<Event>>,
}

/// What a finished attempt tells the loop.
struct Finished {
    id: DeliveryId,
    debt: Option<Debt>,
    end: End,
}

enum End {
    /// It was made, and the outcome is a fact.
    Recorded { attempt: Attempt, penalty_until: Option<Timestamp> },
    /// It is made again soon: the endpoint is not to be sent to, or something that it takes is away.
    Held { until: Timestamp },
}

/// Counts for the metrics.
#[derive(Debug, Default)]
pub struct Tally {
    /// Events that endpoints took.
    pub delivered: AtomicU64,
    /// Attempts that failed.
    pub failed: AtomicU64,
    /// Pairs that wait or are under way.
    pub pending: AtomicU64,
    /// Since when each of them does.
    pub undelivered: Pending<(Tenant, DeliveryId)>,
}

struct Courier {
    means: Means,
    queue: Queue,
    debts: BTreeMap<DeliveryId, Debt>,
    finished: mpsc::UnboundedSender<Finished>,
    health: Health,
    /// How many attempts are under way, by log.
    under_way: BTreeMap<Log, usize>,
    releasing: Vec<(Log, oneshot::Sender<()>)>,
    tally: Arc<Tally>,
    /// The attempts under way; those that are left when the loop ends are cut off.
    attempts: JoinSet<()>,
}

/// Runs the loop until `stop` says so, then waits for the attempts under way, for at most
/// [`DELIVERIES_STOP_TIMEOUT`](crate::domain::limits::DELIVERIES_STOP_TIMEOUT).
pub async fn run(
    means: Means,
    mut inbox: mpsc::UnboundedReceiver<Post>,
    mut stop: watch::Receiver<bool>,
    tally: Arc<Tally>,
) {
    let (finished, mut finishing) = mpsc::unbounded_channel();
    let mut courier = Courier {
        health: Health::new(means.control.clone(), clock::now()),
        means,
        queue: Queue::default(),
        debts: BTreeMap::new(),
        finished,
        under_way: BTreeMap::new(),
        releasing: Vec::new(),
        tally,
        attempts: JoinSet::new(),
    };
    let mut until = None;
    loop {
        let stopping = *stop.borrow();
        if stopping && courier.under_way.values().all(|count| *count == 0) {
            return;
        }
        let left = patience_left(stopping, &mut until);
        let now = clock::now();
        if !stopping {
            while let Some(work) = courier.queue.next(now) {
                courier.start(&work);
            }
            courier.health.sum_up(now);
        }
        courier.tally.pending.store(courier.debts.len() as u64, Ordering::Relaxed);
        let wake = courier
            .queue
            .next_wakeup()
            .map_or(ROUND, |at| Duration::from_millis(u64::try_from(at.since(now).0).unwrap_or(0).max(1)).min(ROUND));
        tokio::select! {
            message = inbox.recv(), if !stopping => match message {
                Some(message) => {
                    courier.learn(message);
                    while let Ok(message) = inbox.try_recv() {
                        courier.learn(message);
                    }
                }
                None => return,
            },
            Some(done) = finishing.recv() => {
                while courier.attempts.try_join_next().is_some() {}
                courier.finish(done);
            }
            () = tokio::time::sleep(left), if stopping => {
                tracing::warn!("some attempts at endpoints did not end in time; they are made again under their ids");
                return;
            }
            () = tokio::time::sleep(wake), if !stopping => {}
            changed = stop.changed(), if !stopping => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// The queue knows destinations by one kind of name; ids of channels and endpoints never meet in one queue.
const fn lane(webhook: WebhookId) -> ChannelId {
    ChannelId(webhook.0)
}

/// What alerts come to goes by their severity; what is not about an alert, or is asked for again, waits behind.
fn rank(owed: &Owed, event: Option<&Event>) -> Rank {
    match event.map(|event| &event.content) {
        Some(Content::Alert { notification, .. }) => Rank::of(notification),
        Some(Content::Data(_) | Content::Quota(_)) | None => {
            Rank { severity: Severity::Info, decided_at: owed.created_at, is_page: false }
        }
    }
}

impl Courier {
    fn learn(&mut self, message: Post) {
        match message {
            Post::Owed { log, id, owed, event } => {
                if self.debts.get(&id).is_some_and(|known| known.owed == owed) {
                    // Told twice, where a taking over overlaps with what came meanwhile.
                    return;
                }
                let kind = self.pace(owed.tenant, id.webhook);
                // What is sent again because somebody asked for it is as old as that question.
                let since = if owed.holds { owed.created_at } else { clock::now() };
                self.tally.undelivered.add((owed.tenant, id), since);
                let due = owed.next_at.unwrap_or(Timestamp::MIN);
                let ticket =
                    Ticket { id: id.event, due, rank: rank(&owed, event.as_deref()), is_retry: owed.round > 0 };
                self.debts.insert(id, Debt { log, owed, event });
                self.queue.add(lane(id.webhook), kind, ticket);
            }
            Post::Settled(id) => {
                self.forget(id);
                self.queue.remove(lane(id.webhook), id.event);
            }
            Post::Released { log, ended } => {
                let ids: Vec<DeliveryId> =
                    self.debts.iter().filter(|(_, debt)| debt.log == log).map(|(id, _)| *id).collect();
                for id in ids {
                    self.forget(id);
                    self.queue.remove(lane(id.webhook), id.event);
                }
                self.releasing.push((log, ended));
                self.release();
            }
        }
    }

    fn forget(&mut self, id: DeliveryId) {
        if let Some(debt) = self.debts.remove(&id) {
            self.tally.undelivered.remove((debt.owed.tenant, id));
        }
    }

    fn pace(&self, tenant: Tenant, webhook: WebhookId) -> DestinationKind {
        let state = self.means.control.state();
        match state.webhook(tenant, webhook).and_then(|webhook| webhook.rate_limit) {
            Some(limit) => DestinationKind::Paced(Millis(1_000 / i64::from(limit.max(1)))),
            None => DestinationKind::Webhook,
        }
    }

    fn start(&mut self, work: &Work) {
        for event in &work.ids {
            let id = DeliveryId { event: *event, webhook: WebhookId(work.channel.0) };
            let debt = self.debts.get(&id).cloned();
            if let Some(debt) = &debt {
                *self.under_way.entry(debt.log).or_default() += 1;
            }
            let (means, finished) = (self.means.clone(), self.finished.clone());
            self.attempts.spawn(async move {
                let end = match &debt {
                    Some(debt) => perform(&means, id, debt).await,
                    None => End::Held { until: Timestamp::MIN },
                };
                // The loop waits for every attempt under way, so it is there to hear of this one.
                if finished.send(Finished { id, debt, end }).is_err() {
                    tracing::debug!("the courier has stopped");
                }
            });
        }
    }

    fn finish(&mut self, done: Finished) {
        let Finished { id, debt, end } = done;
        let (lane, events) = (lane(id.webhook), [id.event]);
        match end {
            End::Recorded { attempt, penalty_until } => {
                // What comes next follows from the recorded outcome, and is told by the fold.
                self.queue.done(lane, &events, None, penalty_until);
                let counter = if attempt.result.is_ok() { &self.tally.delivered } else { &self.tally.failed };
                counter.fetch_add(1, Ordering::Relaxed);
                if let Some(debt) = &debt {
                    self.health.note((debt.owed.tenant, id.webhook), &attempt, clock::now());
                }
            }
            End::Held { until } => {
                let again = self.debts.contains_key(&id).then_some(until);
                self.queue.done(lane, &events, again, Some(until));
            }
        }
        if let Some(count) = debt.and_then(|debt| self.under_way.get_mut(&debt.log)) {
            *count = count.saturating_sub(1);
        }
        self.release();
    }

    /// Tells those who give logs back, once nothing is under way for them.
    fn release(&mut self) {
        let waiting = std::mem::take(&mut self.releasing);
        for (log, ended) in waiting {
            if self.under_way.get(&log).is_some_and(|count| *count > 0) {
                self.releasing.push((log, ended));
            } else if ended.send(()).is_err() {
                tracing::debug!(log = %log, "nobody waits for the log's end any more");
            }
        }
    }
}

async fn perform(means: &Means, id: DeliveryId, debt: &Debt) -> End {
    let now = clock::now();
    let held = || End::Held { until: clock::now().plus(HELD_FOR) };
    let webhook = means.control.state().webhook(debt.owed.tenant, id.webhook).cloned();
    let Some(webhook) = webhook.filter(|webhook| webhook.status == WebhookStatus::Enabled) else {
        // Paused: it waits. Deleted or disabled: the fold that owes it has yet to learn of it.
        return held();
    };
    let event = match &debt.event {
        Some(event) => Ok(Some(Arc::clone(event))),
        None => {
            let query = EventQuery { tenant: debt.owed.tenant, id: id.event };
            means.store.webhook_event(query).await.map(|event| event.map(Arc::new))
        }
    };
    let stopwatch = clock::Stopwatch::start();
    let attempt = match (event, endpoint(&means.vault, &webhook, now)) {
        (Err(error), _) => {
            tracing::warn!(error = %crate::telemetry::chain(&error), "an event that is sent again cannot be read yet");
            return held();
        }
        (Ok(None), _) => Attempt::refused("the event is not stored any more".to_owned()),
        (Ok(Some(_)), Err(why)) => Attempt::refused(why),
        (Ok(Some(event)), Ok(endpoint)) => {
            let body = event_body(&event, means.notifier.base_url());
            means.notifier.post(&endpoint, &id.event.to_string(), body, now).await
        }
    };
    let elapsed = stopwatch.elapsed();
    crate::telemetry::seconds("highwater_webhook_delivery_duration_seconds", vec![], elapsed);
    let duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    let posted = outcome(id, debt, &attempt, duration_ms);
    match record(means, debt, posted).await {
        Ok(()) => {
            let penalty_until = backoff::penalty(&attempt, clock::now());
            End::Recorded { attempt, penalty_until }
        }
        Err(error) => {
            let cause = crate::telemetry::chain(&*error);
            tracing::warn!(webhook = %id.webhook, error = %cause, "an attempt could not be recorded; it will be repeated");
            held()
        }
    }
}

async fn record(means: &Means, debt: &Debt, posted: Posted) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    match debt.log {
        Log::Partition(_) => {
            let note = Bytes::from(Note::DeliveryAttempted { posted }.encode());
            means.journal.append(vec![(debt.log, note)]).await?;
        }
        Log::Control => {
            let asking = Asking::by_command_line(debt.owed.tenant);
            means.control.submit(asking, Command::RecordDelivery(posted)).await?;
        }
    }
    Ok(())
}

fn outcome(id: DeliveryId, debt: &Debt, attempt: &Attempt, duration_ms: u64) -> Posted {
    let number = debt.owed.attempts.saturating_add(1);
    let round = debt.owed.round.saturating_add(1);
    let posted = Posted {
        id,
        attempt: number,
        delivered: true,
        status: attempt.status(),
        outcome: String::new(),
        duration_ms,
        next_at: None,
    };
    let failure = match &attempt.result {
        Ok(sent) => return Posted { outcome: format!("status {}", sent.status), ..posted },
        Err(failure) => failure,
    };
    let most = match debt.owed.tenant.mode {
        Mode::Live => DELIVERY_ATTEMPTS_MAX,
        Mode::Sandbox => SANDBOX_ATTEMPTS_MAX,
    };
    let tried = Try { id: id.event, channel: lane(id.webhook), attempt: round, failure };
    let next_at = backoff::next_attempt(&tried, clock::now()).filter(|_| round < most);
    let text = failure.text();
    match next_at {
        Some(at) => tracing::warn!(
            event = %id.event, webhook = %id.webhook, attempt = number, outcome = text, next_at = %at, "a delivery failed"
        ),
        None => tracing::error!(
            event = %id.event, webhook = %id.webhook, attempt = number, outcome = text, "an endpoint lost an event"
        ),
    }
    Posted { delivered: false, outcome: failure.text(), next_at, ..posted }
}

/// What an endpoint's sealed secrets and headers are sealed for.
#[derive(Clone, Copy, Debug)]
pub enum Sealed {
    /// A secret that signs.
    Secret,
    /// Headers of its own: a JSON object.
    Headers,
}

impl Sealed {
    /// The context that the vault seals for.
    pub fn context(self, webhook: WebhookId) -> String {
        match self {
            Self::Secret => format!("webhook-secret:{webhook}"),
            Self::Headers => format!("webhook-headers:{webhook}"),
        }
    }

    fn open(self, vault: &Vault, webhook: WebhookId, sealed: &str) -> Result<Vec<u8>, String> {
        let opened = vault.open(&self.context(webhook), sealed).map_err(|error| error.to_string())?;
        Ok(opened.expose_secret().to_vec())
    }
}

/// Opens the secrets that sign at an instant, the newest first.
///
/// # Errors
/// Where the master key is another one, or a text is damaged.
pub fn secrets(vault: &Vault, webhook: &Webhook, now: Timestamp) -> Result<Vec<SecretString>, String> {
    let signing = webhook.secrets.iter().filter(|secret| secret.signs_at(now));
    let open = |sealed: &str| {
        let bytes = Sealed::Secret.open(vault, webhook.id, sealed)?;
        String::from_utf8(bytes).map(SecretString::from).map_err(|error| error.to_string())
    };
    signing.map(|secret| open(&secret.sealed)).collect()
}

fn endpoint(vault: &Vault, webhook: &Webhook, now: Timestamp) -> Result<Endpoint, String> {
    let headers: BTreeMap<String, String> = match &webhook.sealed_headers {
        Some(sealed) => {
            let json = Sealed::Headers.open(vault, webhook.id, sealed)?;
            serde_json::from_slice(&json).map_err(|error| error.to_string())?
        }
        None => BTreeMap::new(),
    };
    let headers = headers.into_iter().map(|(name, value)| (name, value.into())).collect();
    Ok(Endpoint { url: webhook.url.clone().into(), secrets: secrets(vault, webhook, now)?, headers })
}
