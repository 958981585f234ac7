//! What is still owed to the world: (notification, destination) pairs that have not settled.

use super::conversation::{BEHIND_KEPT_FOR, Conversation, Subject};
use super::effect::{DeliveryRow, DeliveryStatus, InstanceKey};
use super::notification::{Attempted, Debt, Notification, NotificationKind};
use crate::domain::id::{ChannelId, NotificationId, Stamp};
use crate::domain::time::{Millis, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How long it is remembered that a notification never reached a destination.
const FAILURES_KEPT: Millis = Millis::days(90);

/// The debts of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Debts {
    pub(super) owed: BTreeMap<(NotificationId, ChannelId), Debt>,
    pub(super) notifications: BTreeMap<NotificationId, Notification>,
    /// Who waits for a pair to settle; from engine version 3 on corrections alone.
    pub(super) waiting: BTreeSet<(NotificationId, ChannelId, NotificationId)>,
    /// Pairs that settled without success: what would end or repeat them is not sent there.
    pub(super) failures: BTreeMap<(NotificationId, ChannelId), Timestamp>,
    /// Whether at most one message of an instance is pending for a channel: from engine version 3 on.
    #[serde(skip)]
    pub(super) newest_only: bool,
    /// What channels were sent; snapshots keep it behind the older layout.
    #[serde(skip)]
    pub(super) conversations: BTreeMap<Subject, Conversation>,
    /// The instances of superseded messages of which it is not known yet whether they left.
    #[serde(skip)]
    pub(super) unsure: BTreeMap<(NotificationId, ChannelId), InstanceKey>,
}

/// A debt with all that sending it takes.
#[derive(Clone, Copy, Debug)]
pub struct Owed<'a> {
    /// What is owed.
    pub notification: &'a Notification,
    /// To whom.
    pub channel: ChannelId,
    /// How far it got.
    pub debt: &'a Debt,
    /// Whether another notification must settle there first.
    pub waits: bool,
    /// The superseded message whose outcome it waits for: where no attempt of it is under way, that must be recorded.
    pub waits_for_outcome: Option<NotificationId>,
    debts: &'a Debts,
}

impl Owed<'_> {
    /// Since when the channel is behind: since this message, or one before it in whose place it stands.
    pub fn behind_since(&self) -> Timestamp {
        if self.debts.newest_only {
            self.debts.behind_since(self.notification, self.channel)
        } else {
            self.notification.recorded_at
        }
    }

    /// The message as it is sent to this channel: it names what it follows and what it closes there.
    pub fn message(&self) -> Notification {
        let (follows, closes) = if self.debts.newest_only {
            self.debts.names(self.notification, self.channel)
        } else {
            (self.notification.follows, Vec::new())
        };
        Notification { follows, closes, ..self.notification.clone() }
    }
}

impl Debts {
    /// Takes on a notification; returns the rows of its pairs. It waits for what it follows and for the `reminders` of that.
    ///
    /// A pair is dropped at once where nothing of what it ends or takes back reached the destination.
    pub(super) fn owe(
        &mut self,
        notification: &Notification,
        reminders: &[NotificationId],
        stamp: Stamp,
    ) -> Vec<DeliveryRow> {
        let mut rows = Vec::with_capacity(notification.channels.len());
        for channel in notification.channels.iter().copied() {
            if self.newest_only && stands_for_older(notification.kind) {
                rows.extend(self.enqueue(notification, channel, stamp));
                continue;
            }
            // A firing that is told again waits for nobody; only what ends or takes back does.
            let follows = notification.follows.filter(|_| notification.kind != NotificationKind::Firing);
            let before = follows.iter().chain(reminders).copied();
            let waits_for: Vec<_> = before.filter(|first| self.owed.contains_key(&(*first, channel))).collect();
            if waits_for.is_empty() && follows.is_some_and(|first| self.failures.contains_key(&(first, channel))) {
                self.failures.insert((notification.id, channel), stamp.recorded_at);
                rows.push(row(notification, channel, DeliveryStatus::Dropped, stamp));
                continue;
            }
            self.waiting.extend(waits_for.iter().map(|first| (*first, channel, notification.id)));
            self.owed.insert((notification.id, channel), Debt { attempts: 0, next_at: None, waits_for });
            rows.push(row(notification, channel, DeliveryStatus::Pending, stamp));
        }
        if rows.iter().any(|row| row.notification == notification.id && row.status == DeliveryStatus::Pending) {
            self.notifications.insert(notification.id, notification.clone());
        }
        rows
    }

    /// Takes in what came of an attempt; anything about a pair that is not owed is ignored.
    pub(super) fn attempted(&mut self, attempted: &Attempted, stamp: Stamp, rows: &mut Vec<DeliveryRow>) {
        let pair = (attempted.id, attempted.channel);
        if self.unsure.contains_key(&pair) {
            return self.settle_superseded(attempted, stamp, rows);
        }
        let Some(debt) = self.owed.get_mut(&pair) else { return };
        let Some(notification) = self.notifications.get(&attempted.id) else { return };
        debt.attempts = debt.attempts.max(attempted.attempt);
        let status = match (attempted.delivered, attempted.next_at) {
            (true, _) => DeliveryStatus::Succeeded,
            (false, Some(_)) => DeliveryStatus::Pending,
            (false, None) if attempted.channel_deleted && self.newest_only => DeliveryStatus::Dropped,
            (false, None) => DeliveryStatus::Failed,
        };
        debt.next_at = attempted.next_at;
        rows.push(DeliveryRow {
            attempts: debt.attempts,
            outcome: Some(attempted.outcome.clone()),
            next_at: if status == DeliveryStatus::Pending { attempted.next_at } else { None },
            ..row(notification, attempted.channel, status, stamp)
        });
        if self.newest_only {
            let notification = notification.clone();
            self.note_attempt(attempted, &notification, stamp);
        }
        let Some(notification) = self.notifications.get(&attempted.id) else { return };
        match status {
            DeliveryStatus::Pending => {}
            DeliveryStatus::Succeeded => {
                // The reminder left, so the firing is known there even if its first message was not taken.
                if let Some(first) = notification.follows.filter(|_| notification.kind == NotificationKind::Firing) {
                    self.failures.remove(&(first, attempted.channel));
                }
                self.settle(pair, false, stamp, rows);
            }
            DeliveryStatus::Failed | DeliveryStatus::Dropped | DeliveryStatus::Superseded => {
                let left = self.newest_only && self.is_open(attempted);
                self.settle(pair, !left, stamp, rows);
            }
        }
    }

    /// Ends a pair. Who waited for it alone goes on, or is dropped where nothing reached the destination.
    fn settle(
        &mut self,
        first: (NotificationId, ChannelId),
        first_failed: bool,
        stamp: Stamp,
        rows: &mut Vec<DeliveryRow>,
    ) {
        let mut ended = vec![(first, first_failed)];
        while let Some(((id, channel), failed)) = ended.pop() {
            self.owed.remove(&(id, channel));
            if failed {
                self.failures.insert((id, channel), stamp.recorded_at);
            }
            let from = (id, channel, NotificationId(0));
            let to = (id, channel, NotificationId(u128::MAX));
            let waiting: Vec<_> = self.waiting.range(from..=to).copied().collect();
            for entry in waiting {
                self.waiting.remove(&entry);
                let pair = (entry.2, channel);
                let Some(debt) = self.owed.get_mut(&pair) else { continue };
                debt.waits_for.retain(|other| *other != id);
                let Some(notification) = self.notifications.get(&pair.0).filter(|_| debt.waits_for.is_empty()) else {
                    continue;
                };
                let lost = notification.follows.is_some_and(|first| self.failures.contains_key(&(first, channel)));
                let status = if lost { DeliveryStatus::Dropped } else { DeliveryStatus::Pending };
                rows.push(row(notification, channel, status, stamp));
                if lost {
                    ended.push((pair, true));
                }
            }
            self.forget_settled(id);
        }
    }

    /// Takes on a pair that is settled; one that is not settled is due at once.
    pub(super) fn owe_again(&mut self, notification: &Notification, channel: ChannelId, stamp: Stamp) -> DeliveryRow {
        let pair = (notification.id, channel);
        self.failures.remove(&pair);
        let fresh = || Debt { attempts: 0, next_at: None, waits_for: Vec::new() };
        let debt = self.owed.entry(pair).or_insert_with(fresh);
        debt.next_at = None;
        let attempts = debt.attempts;
        if self.newest_only && stands_for_older(notification.kind) {
            self.note_pending(notification, channel, stamp);
        }
        self.notifications.entry(notification.id).or_insert_with(|| notification.clone());
        DeliveryRow { attempts, ..row(notification, channel, DeliveryStatus::Pending, stamp) }
    }

    /// Makes due at once what waits for a retry at a channel.
    pub(super) fn hasten(&mut self, channel: ChannelId, stamp: Stamp, rows: &mut Vec<DeliveryRow>) {
        let waiting = self.owed.iter_mut().filter(|((_, to), debt)| *to == channel && debt.next_at.is_some());
        for ((id, _), debt) in waiting {
            debt.next_at = None;
            let Some(notification) = self.notifications.get(id) else { continue };
            let outcome = Some("due at once: the channel was repaired".to_owned());
            let row = row(notification, channel, DeliveryStatus::Pending, stamp);
            rows.push(DeliveryRow { attempts: debt.attempts, outcome, ..row });
        }
    }

    /// Tells whether a notification is still owed to anyone.
    pub(super) fn owes(&self, id: NotificationId) -> bool {
        self.notifications.contains_key(&id)
    }

    /// Tells whether a message that was given up may have reached its channel all the same.
    fn is_open(&self, attempted: &Attempted) -> bool {
        let Some(notification) = self.notifications.get(&attempted.id) else { return false };
        let conversation = self.conversations.get(&(notification.key.clone(), attempted.channel));
        conversation.is_some_and(|conversation| conversation.open.contains(&attempted.id))
    }

    pub(super) fn forget_settled(&mut self, id: NotificationId) {
        let from = (id, ChannelId(0));
        let to = (id, ChannelId(u128::MAX));
        if self.owed.range(from..=to).next().is_none() {
            self.notifications.remove(&id);
        }
    }

    /// Lets no attempt be due later than `at`: the clock was set back to it.
    pub(super) fn due_by(&mut self, at: Timestamp) {
        for debt in self.owed.values_mut() {
            debt.next_at = debt.next_at.map(|next| next.min(at));
        }
    }

    /// Forgets failures that nothing refers to any more, and what channels were sent long ago of instances that are
    /// not `open` any more.
    pub(super) fn prune(&mut self, clock: Timestamp, open: impl Fn(&InstanceKey) -> bool) {
        let oldest = clock.minus(FAILURES_KEPT);
        self.failures.retain(|_, at| *at >= oldest);
        self.conversations.retain(|(key, _), conversation| {
            conversation.pending.is_some()
                || (!conversation.is_over() && (conversation.changed_at >= oldest || open(key)))
                || clock.since(conversation.changed_at) <= BEHIND_KEPT_FOR
        });
    }

    /// Lists what is owed, by notification and destination.
    pub(super) fn outstanding(&self) -> impl Iterator<Item = Owed<'_>> {
        self.owed.iter().filter_map(|((id, channel), debt)| self.describe(*id, *channel, debt))
    }

    pub(super) fn get(&self, id: NotificationId, channel: ChannelId) -> Option<Owed<'_>> {
        self.describe(id, channel, self.owed.get(&(id, channel))?)
    }

    fn describe<'a>(&'a self, id: NotificationId, channel: ChannelId, debt: &'a Debt) -> Option<Owed<'a>> {
        let notification = self.notifications.get(&id)?;
        let waits_for_outcome = self.waits_for_outcome(notification, channel);
        let waits = !debt.waits_for.is_empty() || waits_for_outcome.is_some();
        Some(Owed { notification, channel, debt, waits, waits_for_outcome, debts: self })
    }

    pub(super) fn count(&self) -> usize {
        self.owed.len()
    }
}

/// Whether a message takes the place of an older one that is pending for the same instance and channel.
const fn stands_for_older(kind: NotificationKind) -> bool {
    match kind {
        NotificationKind::Firing | NotificationKind::Resolved | NotificationKind::NoData => true,
        NotificationKind::Corrected | NotificationKind::Pending | NotificationKind::Test => false,
    }
}

pub(super) fn row(
    notification: &Notification,
    channel: ChannelId,
    status: DeliveryStatus,
    stamp: Stamp,
) -> DeliveryRow {
    DeliveryRow {
        tenant: notification.key.tenant,
        notification: notification.id,
        channel,
        status,
        attempts: 0,
        outcome: None,
        next_at: None,
        at: stamp.recorded_at,
        revision: stamp.position,
    }
}
