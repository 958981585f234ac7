//! Sends what is owed: one loop, one queue, bounded attempts under way; every attempt becomes a fact.

use super::channel_health;
use super::clock;
use super::control::ControlPlane;
pub use super::dispatch::Dispatch;
use super::outbox::{self, Route};
use super::pending::{Pending, patience_left};
use super::target::Target;
use super::unsent::Unsent;
use crate::domain::control::resource::ChannelKind;
use crate::domain::control::sandbox::kept_as;
use crate::domain::id::{ChannelId, Log, Mode, NotificationId, PartitionId, Tenant};
use crate::domain::partition::effect::DeliveryStatus;
use crate::domain::partition::fact::Note;
use crate::domain::partition::notification::{Attempted, Notification, NotificationKind};
use crate::domain::time::{Millis, Timestamp};
use crate::journal::Journal;
use crate::notifier::backoff::{self, Try};
use crate::notifier::{Attempt, Destination, DestinationKind, Notifier, Outgoing, Queue, Rank, Ticket, Work};
use crate::store::Store;
use crate::vault::Vault;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// What sending takes.
#[derive(Clone, Debug)]
pub struct Means {
    /// Where outcomes are recorded.
    pub journal: Journal,
    /// Where channels are looked up.
    pub control: ControlPlane,
    /// Where the threads of earlier messages are looked up.
    pub store: Store,
    /// What sends.
    pub notifier: Notifier,
    /// What opens the channels' targets.
    pub vault: Arc<Vault>,
}

#[derive(Clone, Debug)]
struct Debt {
    partition: PartitionId,
    notification: Arc<Notification>,
    attempts: u32,
    /// A former owner may have begun an attempt: without a recorded outcome it counts as sent.
    maybe_sent: bool,
}

/// What a finished attempt tells the loop.
#[derive(Debug)]
struct Finished {
    work: Work,
    /// Whose debts they were.
    partitions: Vec<PartitionId>,
    /// When the destination may be tried again.
    penalty_until: Option<Timestamp>,
    /// The outcome is a fact; where not, the pairs are tried again.
    recorded: bool,
}

/// Counts for the metrics.
#[derive(Debug, Default)]
pub struct Tally {
    /// Messages that receivers took.
    pub delivered: AtomicU64,
    /// Attempts that failed.
    pub failed: AtomicU64,
    /// Messages that are tried no more.
    pub lost: AtomicU64,
    /// Messages of sandboxes that were kept.
    pub kept: AtomicU64,
    /// Pairs that wait or are under way.
    pub pending: AtomicU64,
    /// Since when each of them does.
    pub undelivered: Pending<(ChannelId, NotificationId)>,
}

#[derive(Debug)]
struct Dispatcher {
    means: Means,
    queue: Queue,
    debts: BTreeMap<(ChannelId, NotificationId), Debt>,
    finished: mpsc::UnboundedSender<Finished>,
    tally: Arc<Tally>,
    /// How many attempts are under way, by partition.
    under_way: BTreeMap<PartitionId, usize>,
    releasing: Vec<(PartitionId, oneshot::Sender<()>)>,
    /// The attempts under way; those that are left when the loop ends are cut off.
    attempts: tokio::task::JoinSet<()>,
    /// Pairs that were superseded while an attempt was under way.
    superseded: BTreeMap<(ChannelId, NotificationId), PartitionId>,
}

/// Runs the loop until `stop` says so, then waits for the attempts under way, for as long as [`patience_left`] says.
pub async fn run(
    means: Means,
    mut inbox: mpsc::UnboundedReceiver<Dispatch>,
    mut stop: watch::Receiver<bool>,
    tally: Arc<Tally>,
) {
    let (finished, mut finishing) = mpsc::unbounded_channel();
    let mut dispatcher = Dispatcher {
        means,
        queue: Queue::default(),
        debts: BTreeMap::new(),
        finished,
        tally: Arc::clone(&tally),
        under_way: BTreeMap::new(),
        releasing: Vec::new(),
        attempts: tokio::task::JoinSet::new(),
        superseded: BTreeMap::new(),
    };
    let (mut under_way, mut until) = (0_usize, None);
    loop {
        let stopping = *stop.borrow();
        if stopping && under_way == 0 {
            return;
        }
        let left = patience_left(stopping, &mut until);
        let now = clock::now();
        if !stopping {
            while let Some(work) = dispatcher.queue.next(now) {
                under_way += 1;
                dispatcher.start(work);
            }
        }
        tally.pending.store(dispatcher.debts.len() as u64, Ordering::Relaxed);
        let wake = dispatcher.queue.next_wakeup().map_or(Duration::from_secs(3_600), |at| {
            Duration::from_millis(u64::try_from(at.since(now).0).unwrap_or(0).max(1))
        });
        tokio::select! {
            message = inbox.recv(), if !stopping => match message {
                Some(message) => {
                    dispatcher.learn(message);
                    while let Ok(message) = inbox.try_recv() {
                        dispatcher.learn(message);
                    }
                }
                None => return,
            },
            Some(done) = finishing.recv() => {
                under_way -= 1;
                while dispatcher.attempts.try_join_next().is_some() {}
                dispatcher.finish(done);
            }
            () = tokio::time::sleep(left), if stopping => {
                tracing::warn!(attempts = under_way, "some attempts did not end in time; they are made again under their ids");
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

impl Dispatcher {
    fn learn(&mut self, message: Dispatch) {
        match message {
            Dispatch::Owed { partition, notification, channel, attempts, next_at, behind_since, inherited } => {
                let kind = self.kind_of(notification.key.tenant, channel);
                let id = notification.id;
                self.tally.undelivered.add((channel, id), behind_since);
                // What was due when the partition came may have been begun before.
                let maybe_sent = inherited && next_at.is_none_or(|at| at <= clock::now());
                let due = next_at.unwrap_or(Timestamp::MIN);
                let ticket = Ticket { id, due, rank: Rank::of(&notification), is_retry: attempts > 0 };
                self.debts.insert((channel, id), Debt { partition, notification, attempts, maybe_sent });
                self.queue.add(channel, kind, ticket);
            }
            Dispatch::Superseded { partition, id, channel, inherited } => {
                self.tally.undelivered.remove((channel, id));
                let debt = self.debts.remove(&(channel, id));
                let is_under_way = self.queue.is_under_way(channel, id);
                self.queue.remove(channel, id);
                if is_under_way {
                    self.superseded.insert((channel, id), partition);
                } else {
                    let maybe_sent = inherited || debt.is_some_and(|debt| debt.maybe_sent);
                    Unsent { partition, id, channel, maybe_sent }.record(&self.means.journal);
                }
            }
            Dispatch::Settled { id, channel } => {
                self.tally.undelivered.remove((channel, id));
                self.debts.remove(&(channel, id));
                self.queue.remove(channel, id);
            }
            Dispatch::Released { partition, ended } => {
                let pairs = self.debts.iter().filter(|(_, debt)| debt.partition == partition);
                let pairs: Vec<(ChannelId, NotificationId)> = pairs.map(|(pair, _)| *pair).collect();
                for (channel, id) in pairs {
                    self.tally.undelivered.remove((channel, id));
                    self.debts.remove(&(channel, id));
                    self.queue.remove(channel, id);
                }
                self.releasing.push((partition, ended));
                self.release();
            }
        }
    }

    fn kind_of(&self, tenant: Tenant, channel: ChannelId) -> DestinationKind {
        if tenant.mode == Mode::Sandbox {
            // What is kept needs no pace, and is shown message by message.
            return DestinationKind::Webhook;
        }
        let state = self.means.control.state();
        match state.channel(tenant, channel).map(|channel| channel.kind) {
            Some(ChannelKind::Slack) => DestinationKind::Slack,
            Some(ChannelKind::Webhook) | None => DestinationKind::Webhook,
        }
    }

    fn start(&mut self, work: Work) {
        let debts: Vec<Debt> = work.ids.iter().filter_map(|id| self.debts.get(&(work.channel, *id)).cloned()).collect();
        for debt in &debts {
            *self.under_way.entry(debt.partition).or_default() += 1;
        }
        let (means, finished, tally) = (self.means.clone(), self.finished.clone(), Arc::clone(&self.tally));
        self.attempts.spawn(async move {
            let done = perform(means, work, debts, &tally).await;
            // The loop waits for every attempt under way, so it is there to hear of this one.
            if finished.send(done).is_err() {
                tracing::debug!("the dispatcher has stopped");
            }
        });
    }

    fn finish(&mut self, done: Finished) {
        // A recorded outcome comes back from the fold as the next due time; an unrecorded one is tried again soon.
        let retry_at = (!done.recorded).then(|| clock::now().plus(Millis::seconds(1)));
        self.queue.done(done.work.channel, &done.work.ids, retry_at, done.penalty_until);
        let channel = done.work.channel;
        for id in done.work.ids.iter().copied() {
            if let Some(partition) = self.superseded.remove(&(channel, id)) {
                self.queue.remove(channel, id);
                // Its outcome may stand before the record that superseded it, and so have released nothing.
                Unsent { partition, id, channel, maybe_sent: !done.recorded }.record(&self.means.journal);
            }
        }
        for partition in &done.partitions {
            if let Some(count) = self.under_way.get_mut(partition) {
                *count = count.saturating_sub(1);
            }
        }
        self.release();
    }

    /// Tells those who give partitions back, once nothing is under way for them.
    fn release(&mut self) {
        let waiting = std::mem::take(&mut self.releasing);
        for (partition, ended) in waiting {
            if self.under_way.get(&partition).is_some_and(|count| *count > 0) {
                self.releasing.push((partition, ended));
            } else {
                self.under_way.remove(&partition);
                if ended.send(()).is_err() {
                    tracing::debug!(partition = partition.0, "nobody waits for the partition's end any more");
                }
            }
        }
    }
}

async fn perform(means: Means, work: Work, debts: Vec<Debt>, tally: &Tally) -> Finished {
    let Some(first) = debts.first() else {
        return Finished { work, partitions: Vec::new(), penalty_until: None, recorded: true };
    };
    let tenant = first.notification.key.tenant;
    let came = match route(&means, tenant, work.channel) {
        Ok(Route::Send(destination)) => Came::Tried(send(&means, &destination, &debts, work.channel).await),
        Ok(Route::Keep(kind)) => Came::Kept(kind),
        Err(Unroutable::Deleted) => Came::Deleted,
        Err(Unroutable::Unreadable(cause)) => Came::Tried(Attempt::refused(cause)),
    };
    let now = clock::now();
    let counter = match &came {
        Came::Kept(_) | Came::Deleted => &tally.kept,
        Came::Tried(attempt) if attempt.result.is_ok() => &tally.delivered,
        Came::Tried(_) => &tally.failed,
    };
    counter.fetch_add(debts.len() as u64, Ordering::Relaxed);
    let partitions: Vec<PartitionId> = debts.iter().map(|debt| debt.partition).collect();
    let (facts, penalty_until) = match &came {
        Came::Tried(attempt) => {
            let facts: Vec<Attempted> = debts.iter().map(|debt| outcome(debt, work.channel, attempt, now)).collect();
            (facts, backoff::penalty(attempt, now))
        }
        Came::Kept(kind) => (debts.iter().map(|debt| kept(debt, work.channel, *kind)).collect(), None),
        Came::Deleted => (debts.iter().map(|debt| unsent(debt, work.channel)).collect(), None),
    };
    let is_lost = |fact: &&Attempted| !fact.delivered && fact.next_at.is_none() && !fact.channel_deleted;
    let lost = facts.iter().filter(is_lost).count();
    let destination = (tenant, work.channel);
    if lost > 0
        && let Err(error) = channel_health::tell_lost(&means.control, destination, now).await
    {
        let cause = crate::telemetry::chain(&error);
        tracing::warn!(channel = %work.channel, error = %cause, "a loss could not be recorded; the attempt will be repeated");
        return Finished { work, partitions, penalty_until, recorded: false };
    }
    let notes = debts
        .iter()
        .zip(facts)
        .map(|(debt, fact)| (Log::Partition(debt.partition), Bytes::from(Note::NotificationAttempted(fact).encode())));
    let recorded = match means.journal.append(notes.collect()).await {
        Ok(_) => true,
        Err(error) => {
            let cause = crate::telemetry::chain(&error);
            tracing::warn!(channel = %work.channel, error = %cause, "an attempt could not be recorded; it will be repeated");
            false
        }
    };
    if recorded {
        tally.lost.fetch_add(lost as u64, Ordering::Relaxed);
    }
    if recorded && matches!(&came, Came::Tried(attempt) if attempt.result.is_ok()) {
        let is_test = debts.iter().any(|debt| debt.notification.kind == NotificationKind::Test);
        channel_health::tell_taken(&means.control, destination, is_test, now).await;
    }
    Finished { work, partitions, penalty_until, recorded }
}

/// What became of a message.
enum Came {
    Tried(Attempt),
    Kept(ChannelKind),
    /// The channel was deleted: there is nobody who could miss it.
    Deleted,
}

/// Why there is no way to a channel.
enum Unroutable {
    Deleted,
    /// Its target cannot be unsealed.
    Unreadable(String),
}

/// Where a message goes: to its destination, or into the outbox of its sandbox.
fn route(means: &Means, tenant: Tenant, channel: ChannelId) -> Result<Route, Unroutable> {
    let kind = means.control.state().channel(tenant, channel).map(|channel| channel.kind);
    if let Some(kept) = outbox::keeps_unseen(tenant, channel, kind) {
        return Ok(Route::Keep(kept));
    }
    let destination = destination(means, tenant, channel)?;
    Ok(outbox::route(tenant.mode, means.notifier.guard(), destination))
}

fn kept(debt: &Debt, channel: ChannelId, kind: ChannelKind) -> Attempted {
    Attempted {
        id: debt.notification.id,
        channel,
        attempt: debt.attempts.saturating_add(1),
        delivered: true,
        outcome: kept_as(kind).to_owned(),
        next_at: None,
        unanswered: false,
        channel_deleted: false,
    }
}

fn unsent(debt: &Debt, channel: ChannelId) -> Attempted {
    Attempted {
        id: debt.notification.id,
        channel,
        attempt: debt.attempts,
        delivered: false,
        outcome: "the channel was deleted".to_owned(),
        next_at: None,
        unanswered: false,
        channel_deleted: true,
    }
}

async fn send(means: &Means, destination: &Destination, debts: &[Debt], channel: ChannelId) -> Attempt {
    let now = clock::now();
    if let [only] = debts {
        let thread = thread_of(means, destination, &only.notification, channel).await;
        return means.notifier.send(destination, Outgoing::One(&only.notification, thread.as_deref()), now).await;
    }
    let notifications: Vec<Notification> = debts.iter().map(|debt| debt.notification.as_ref().clone()).collect();
    means.notifier.send(destination, Outgoing::Digest(&notifications), now).await
}

/// Finds the thread that a message about an earlier one belongs to.
async fn thread_of(
    means: &Means,
    destination: &Destination,
    notification: &Notification,
    channel: ChannelId,
) -> Option<String> {
    if !destination.has_threads() {
        return None;
    }
    let first = notification.follows?;
    // The fold knows already that the first one was settled; its row may be a moment late.
    for _ in 0..THREAD_LOOKS {
        let rows = means.store.deliveries_of(notification.key.tenant, first).await.ok()?;
        let row = rows.into_iter().find(|row| row.channel == channel);
        if let Some(row) = row.filter(|row| row.status != DeliveryStatus::Pending) {
            return Some(row.outcome?.split_once(THREAD_MARK)?.1.to_owned());
        }
        tokio::time::sleep(THREAD_LOOK_SPACING).await;
    }
    None
}

/// How often, and how far apart, the thread of an earlier message is looked for before one is sent outside of it.
const THREAD_LOOKS: usize = 20;
const THREAD_LOOK_SPACING: Duration = Duration::from_millis(100);

/// Stands between an outcome and the thread that the message opened.
const THREAD_MARK: &str = "; thread ";

fn outcome(debt: &Debt, channel: ChannelId, attempt: &Attempt, now: Timestamp) -> Attempted {
    let number = debt.attempts.saturating_add(1);
    let id = debt.notification.id;
    match &attempt.result {
        Ok(sent) => {
            let thread = sent.thread.as_ref().map(|thread| format!("{THREAD_MARK}{thread}")).unwrap_or_default();
            Attempted {
                id,
                channel,
                attempt: number,
                delivered: true,
                outcome: format!("{}{thread}", sent.status),
                next_at: None,
                unanswered: false,
                channel_deleted: false,
            }
        }
        Err(failure) => {
            let next_at = backoff::next_attempt(&Try { id, channel, attempt: number, failure }, now);
            let next_at = next_at.filter(|_| outbox::may_try_again(debt.notification.key.tenant.mode, number));
            let outcome = failure.text();
            match next_at {
                Some(at) => tracing::warn!(
                    notification = %id, channel = %channel, attempt = number, outcome, next_at = %at, "a delivery failed"
                ),
                None => tracing::error!(
                    notification = %id, channel = %channel, attempt = number, outcome, "a channel lost a message"
                ),
            }
            let (outcome, unanswered) = (failure.text(), failure.is_unanswered());
            Attempted {
                id,
                channel,
                attempt: number,
                delivered: false,
                outcome,
                next_at,
                unanswered,
                channel_deleted: false,
            }
        }
    }
}

fn destination(means: &Means, tenant: Tenant, channel: ChannelId) -> Result<Destination, Unroutable> {
    let state = means.control.state();
    let found = state.channel(tenant, channel).ok_or(Unroutable::Deleted)?.clone();
    drop(state);
    Ok(match Target::open(&means.vault, &found).map_err(Unroutable::Unreadable)? {
        Target::Webhook { url, secrets } => {
            Destination::Webhook { url: url.into(), secrets: secrets.into_iter().map(Into::into).collect() }
        }
        Target::SlackWebhook { url } => Destination::SlackWebhook { url: url.into() },
        Target::SlackBot { token, channel, api } => {
            let api = api.and_then(|base| base.parse().ok());
            Destination::SlackBot { token: token.into(), channel, api }
        }
    })
}
