//! What a channel was sent about an alert instance: the messages that no resolve has closed yet, and the pending one.
//!
//! From engine version 3 on at most one message of an instance is pending for a channel: the newest. An older one settles
//! as `superseded`, and the newer one is held until it is known whether an attempt of the older one left: that decides
//! whether a resolve has anything to close, and which firing a later firing follows. Corrections and test messages stand
//! apart. An attempt without an answer counts as sent.

use super::debts::{Debts, row};
use super::effect::{DeliveryRow, DeliveryStatus, InstanceKey};
use super::notification::{Attempted, Debt, Notification, NotificationKind};
use crate::domain::id::{ChannelId, NotificationId, Stamp};
use crate::domain::limits::OPEN_MESSAGES_MAX;
use crate::domain::time::{Millis, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How long behind a message that a channel did not take the next one counts as part of the same trouble.
pub(super) const BEHIND_KEPT_FOR: Millis = Millis::minutes(15);

/// An alert instance and a channel.
pub(super) type Subject = (InstanceKey, ChannelId);

/// What one channel was sent about one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Conversation {
    /// The firings and messages of missing data that left and that no resolve has closed, oldest first.
    pub(super) open: Vec<NotificationId>,
    /// The message that is to be sent.
    pub(super) pending: Option<NotificationId>,
    /// A superseded message of which it is not known yet whether it left, and whether it opens something.
    pub(super) unsure: Option<(NotificationId, Opens)>,
    /// How often the pending message was tried, and what came of that last.
    pub(super) tried: Option<(u32, String)>,
    /// Since when the channel has taken none of the messages that were pending, one after the other.
    pub(super) behind_since: Option<Timestamp>,
    /// When this last changed, on the log's clock.
    pub(super) changed_at: Timestamp,
}

/// What a message does to what is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Opens {
    /// It opens something, or says again that it lasts.
    Yes,
    /// It closes everything that is open.
    Closes,
}

impl Opens {
    fn of(kind: NotificationKind) -> Option<Self> {
        match kind {
            NotificationKind::Firing | NotificationKind::NoData => Some(Self::Yes),
            NotificationKind::Resolved => Some(Self::Closes),
            NotificationKind::Corrected | NotificationKind::Pending | NotificationKind::Test => None,
        }
    }
}

impl Conversation {
    /// Notes that a message left that opens something. `repeats` is the firing that it says again to last.
    fn opened(&mut self, id: NotificationId, repeats: Option<NotificationId>) {
        let repeats = repeats.is_some_and(|first| self.open.contains(&first));
        if self.open.contains(&id) || repeats {
            return;
        }
        if self.open.len() >= OPEN_MESSAGES_MAX {
            // The first one is what threads hang on.
            self.open.remove(1);
        }
        self.open.push(id);
    }

    /// Whether nothing is open, pending or unsure.
    pub(super) const fn is_over(&self) -> bool {
        self.open.is_empty() && self.pending.is_none() && self.unsure.is_none()
    }

    /// Notes that another message is pending: the channel is behind since the first of those that it did not take.
    fn fall_behind(&mut self, now: Timestamp) {
        let goes_on = now.since(self.changed_at) <= BEHIND_KEPT_FOR;
        self.behind_since = Some(self.behind_since.filter(|_| goes_on).unwrap_or(now));
    }
}

impl Debts {
    /// Enqueues a message for a channel in place of what is pending there for its instance; returns the rows.
    ///
    /// A resolve that has nothing to close is dropped.
    pub(super) fn enqueue(
        &mut self,
        notification: &Notification,
        channel: ChannelId,
        stamp: Stamp,
    ) -> Vec<DeliveryRow> {
        let subject = (notification.key.clone(), channel);
        let mut conversation = self.conversations.remove(&subject).unwrap_or_default();
        let mut rows = Vec::new();
        let tried = conversation.tried.take();
        if let Some(prior) = conversation.pending.take() {
            let superseded = self.supersede(prior, channel, &mut conversation, stamp);
            rows.extend(superseded.map(|row| match tried {
                Some((attempts, outcome)) => DeliveryRow { attempts, outcome: Some(outcome), ..row },
                None => row,
            }));
        }
        let closes = notification.kind == NotificationKind::Resolved;
        let may_close = !conversation.open.is_empty() || matches!(conversation.unsure, Some((_, Opens::Yes)));
        if closes && !may_close {
            self.failures.insert((notification.id, channel), stamp.recorded_at);
            rows.push(row(notification, channel, DeliveryStatus::Dropped, stamp));
        } else {
            conversation.fall_behind(stamp.recorded_at);
            let debt = Debt { attempts: 0, next_at: None, waits_for: Vec::new() };
            self.owed.insert((notification.id, channel), debt);
            conversation.pending = Some(notification.id);
            rows.push(row(notification, channel, DeliveryStatus::Pending, stamp));
        }
        conversation.changed_at = stamp.recorded_at;
        self.keep_conversation(subject, conversation);
        rows
    }

    /// Notes that a message that had settled is to be sent once more; one that is pending already stays the newest.
    pub(super) fn note_pending(&mut self, notification: &Notification, channel: ChannelId, stamp: Stamp) {
        let conversation = self.conversations.entry((notification.key.clone(), channel)).or_default();
        conversation.pending.get_or_insert(notification.id);
        conversation.fall_behind(stamp.recorded_at);
        conversation.changed_at = stamp.recorded_at;
    }

    /// Settles a pending message for which a newer one stands. One that was held cannot have left.
    fn supersede(
        &mut self,
        prior: NotificationId,
        channel: ChannelId,
        conversation: &mut Conversation,
        stamp: Stamp,
    ) -> Option<DeliveryRow> {
        self.owed.remove(&(prior, channel))?;
        let notification = self.notifications.get(&prior)?;
        let settled = row(notification, channel, DeliveryStatus::Superseded, stamp);
        if conversation.unsure.is_none()
            && let Some(opens) = Opens::of(notification.kind)
        {
            conversation.unsure = Some((prior, opens));
        }
        if !conversation.open.contains(&prior) {
            self.failures.insert((prior, channel), stamp.recorded_at);
        }
        self.forget_settled(prior);
        Some(settled)
    }

    /// Notes what came of an attempt on the pending message of a conversation.
    pub(super) fn note_attempt(&mut self, attempted: &Attempted, notification: &Notification, stamp: Stamp) {
        let subject = (notification.key.clone(), attempted.channel);
        let Some(mut conversation) = self.conversations.remove(&subject) else { return };
        if attempted.channel_deleted {
            return;
        }
        let left = attempted.delivered || attempted.unanswered;
        match Opens::of(notification.kind) {
            Some(Opens::Yes) if left => {
                let repeats = notification.follows.filter(|_| notification.kind == NotificationKind::Firing);
                conversation.opened(notification.id, repeats);
            }
            Some(Opens::Closes) if attempted.delivered => conversation.open.clear(),
            Some(Opens::Yes | Opens::Closes) | None => {}
        }
        if attempted.delivered {
            conversation.behind_since = None;
        }
        if conversation.pending == Some(notification.id) {
            if attempted.delivered || attempted.next_at.is_none() {
                (conversation.pending, conversation.tried) = (None, None);
            } else {
                conversation.tried = Some((attempted.attempt, attempted.outcome.clone()));
            }
        }
        conversation.changed_at = stamp.recorded_at;
        self.keep_conversation(subject, conversation);
    }

    /// Takes in whether a superseded message left, and lets the newer one go; drops it where it closes nothing.
    pub(super) fn settle_superseded(&mut self, attempted: &Attempted, stamp: Stamp, rows: &mut Vec<DeliveryRow>) {
        let pair = (attempted.id, attempted.channel);
        let Some(key) = self.unsure.remove(&pair) else { return };
        let subject = (key, attempted.channel);
        let Some(mut conversation) = self.conversations.remove(&subject) else { return };
        let Some((id, opens)) = conversation.unsure.take() else { return };
        let left = attempted.delivered || attempted.unanswered;
        match opens {
            Opens::Yes if left => {
                conversation.opened(id, None);
                self.failures.remove(&pair);
            }
            Opens::Closes if attempted.delivered => {
                conversation.open.clear();
                self.failures.remove(&pair);
            }
            Opens::Yes | Opens::Closes => {}
        }
        if attempted.delivered {
            conversation.behind_since = None;
        }
        if attempted.attempt > 0 {
            let status = if attempted.delivered { DeliveryStatus::Succeeded } else { DeliveryStatus::Superseded };
            rows.push(DeliveryRow {
                tenant: subject.0.tenant,
                notification: id,
                channel: attempted.channel,
                status,
                attempts: attempted.attempt,
                outcome: Some(attempted.outcome.clone()),
                next_at: None,
                at: stamp.recorded_at,
                revision: stamp.position,
            });
        }
        if let Some(newest) = conversation.pending
            && let Some(notification) = self.notifications.get(&newest)
        {
            let has_nothing_to_close = notification.kind == NotificationKind::Resolved && conversation.open.is_empty();
            let status = if has_nothing_to_close { DeliveryStatus::Dropped } else { DeliveryStatus::Pending };
            rows.push(row(notification, attempted.channel, status, stamp));
            if has_nothing_to_close {
                conversation.pending = None;
                self.owed.remove(&(newest, attempted.channel));
                self.failures.insert((newest, attempted.channel), stamp.recorded_at);
                self.forget_settled(newest);
            }
        }
        conversation.changed_at = stamp.recorded_at;
        self.keep_conversation(subject, conversation);
    }

    fn keep_conversation(&mut self, subject: Subject, conversation: Conversation) {
        if let Some((id, _)) = conversation.unsure {
            self.unsure.insert((id, subject.1), subject.0.clone());
        }
        if !conversation.is_over() || conversation.behind_since.is_some() {
            self.conversations.insert(subject, conversation);
        }
    }

    /// What was sent of an instance and is not closed, nor about to be: the first of it, and the channels that heard of it.
    pub(super) fn left_open(&self, key: &InstanceKey) -> Option<(NotificationId, Vec<ChannelId>)> {
        let from = (key.clone(), ChannelId(0));
        let to = (key.clone(), ChannelId(u128::MAX));
        let conversations = self.conversations.range(from..=to);
        let mut open = conversations.filter(|(_, of)| of.pending.is_none() && !of.open.is_empty()).peekable();
        let first = open.peek().and_then(|(_, of)| of.open.first().copied())?;
        Some((first, open.map(|((_, channel), _)| *channel).collect()))
    }

    /// The channels that something is open or pending at for an instance, in their order.
    pub(super) fn channels_of(&self, key: &InstanceKey) -> Vec<ChannelId> {
        let from = (key.clone(), ChannelId(0));
        let to = (key.clone(), ChannelId(u128::MAX));
        let conversations = self.conversations.range(from..=to).filter(|(_, conversation)| !conversation.is_over());
        conversations.map(|((_, channel), _)| *channel).collect()
    }

    /// Since when a channel has taken none of the messages about an instance that were pending, one after the other.
    pub(super) fn behind_since(&self, notification: &Notification, channel: ChannelId) -> Timestamp {
        let behind = Opens::of(notification.kind)
            .and_then(|_| self.conversations.get(&(notification.key.clone(), channel))?.behind_since);
        behind.unwrap_or(notification.recorded_at)
    }

    /// The superseded message whose outcome a pending one waits for, where there is one.
    pub(super) fn waits_for_outcome(&self, notification: &Notification, channel: ChannelId) -> Option<NotificationId> {
        Opens::of(notification.kind)?;
        let conversation = self.conversations.get(&(notification.key.clone(), channel))?;
        conversation.unsure.map(|(id, _)| id)
    }

    /// What a message names at a channel: the message that it follows, and those that it closes.
    pub(super) fn names(
        &self,
        notification: &Notification,
        channel: ChannelId,
    ) -> (Option<NotificationId>, Vec<NotificationId>) {
        let conversation = Opens::of(notification.kind)
            .and_then(|opens| Some((opens, self.conversations.get(&(notification.key.clone(), channel))?)));
        let Some((opens, conversation)) = conversation else { return (notification.follows, Vec::new()) };
        let known = notification.follows.filter(|first| conversation.open.contains(first));
        let follows = known.or(conversation.open.first().copied());
        match opens {
            Opens::Yes => (follows.filter(|first| *first != notification.id), Vec::new()),
            Opens::Closes => (follows.or(notification.follows), conversation.open.clone()),
        }
    }

    /// From here on at most one message of an instance is pending for a channel. `open` are the messages that people
    /// heard last of what lasts, by their instance and channel.
    pub(super) fn keep_newest_only(
        &mut self,
        open: Vec<(Subject, NotificationId)>,
        stamp: Stamp,
        rows: &mut Vec<DeliveryRow>,
    ) {
        self.newest_only = true;
        for (subject, id) in open {
            let pair = (id, subject.1);
            if !self.failures.contains_key(&pair) && !self.owed.contains_key(&pair) {
                let conversation = Conversation { open: vec![id], changed_at: stamp.recorded_at, ..Default::default() };
                self.conversations.insert(subject, conversation);
            }
        }
        self.open_what_pending_follows(stamp);
        let mut pending: Vec<(u64, NotificationId, ChannelId)> = Vec::new();
        for (id, channel) in self.owed.keys() {
            let notification = self.notifications.get(id).filter(|notification| Opens::of(notification.kind).is_some());
            pending.extend(notification.map(|notification| (notification.sequence, *id, *channel)));
        }
        pending.sort_unstable();
        let mut settled = Vec::new();
        for (_, id, channel) in pending {
            let Some(notification) = self.notifications.get(&id).cloned() else { continue };
            let before = self.owed.remove(&(id, channel));
            self.waiting.retain(|(first, at, _)| *first != id || *at != channel);
            self.waiting.retain(|(_, at, last)| *last != id || *at != channel);
            let as_before = before.as_ref().is_some_and(|debt| debt.waits_for.is_empty());
            let mut enqueued = self.enqueue(&notification, channel, stamp);
            // What goes on to be pending as it was needs no row.
            if as_before && self.waits_for_outcome(&notification, channel).is_none() {
                enqueued.retain(|row| row.status != DeliveryStatus::Pending);
            }
            settled.append(&mut enqueued);
            if let (Some(before), Some(debt)) = (before, self.owed.get_mut(&(id, channel))) {
                *debt = Debt { waits_for: Vec::new(), ..before };
            }
        }
        let stays = |row: &DeliveryRow| self.owed.contains_key(&(row.notification, row.channel));
        settled.retain(|row| row.status != DeliveryStatus::Pending || stays(row));
        rows.append(&mut settled);
    }

    /// Takes what a pending message ends, and what reached its channel, for open: the instance itself may have forgotten it.
    fn open_what_pending_follows(&mut self, stamp: Stamp) {
        for (id, channel) in self.owed.keys() {
            let Some(notification) = self.notifications.get(id) else { continue };
            let ends = matches!(notification.kind, NotificationKind::Resolved | NotificationKind::NoData);
            let Some(first) = notification.follows.filter(|_| ends) else { continue };
            let pair = (first, *channel);
            if self.failures.contains_key(&pair) || self.owed.contains_key(&pair) {
                continue;
            }
            let conversation = self.conversations.entry((notification.key.clone(), *channel)).or_default();
            conversation.opened(first, None);
            conversation.changed_at = stamp.recorded_at;
        }
    }

    /// What snapshots keep beside the older layout.
    pub(super) fn saved_conversations(&self) -> BTreeMap<Subject, Conversation> {
        self.conversations.clone()
    }

    /// Puts back what [`Self::saved_conversations`] took.
    pub(super) fn restore_conversations(&mut self, conversations: BTreeMap<Subject, Conversation>) {
        self.newest_only = true;
        let unsure = |(subject, conversation): (&Subject, &Conversation)| {
            conversation.unsure.map(|(id, _)| ((id, subject.1), subject.0.clone()))
        };
        self.unsure = conversations.iter().filter_map(unsure).collect();
        self.conversations = conversations;
    }
}
