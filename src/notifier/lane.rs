//! One destination's messages: in which order they leave, how fast, and how many at once. Pure.

use super::queue::{DestinationKind, Ticket};
use crate::domain::definition::Severity;
use crate::domain::id::NotificationId;
use crate::domain::limits::{
    DELIVERIES_PER_DESTINATION_MAX, DIGEST_MESSAGES_MAX, SLACK_PAGES_ALONE_MAX, SLACK_PAGES_SPAN,
};
use crate::domain::time::{Millis, Timestamp};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Slack takes about one message a second and channel, and short bursts.
const SLACK_SPACING: Millis = Millis::seconds(1);
const SLACK_BURST: i64 = 3;

/// Of so many messages in a row at least one is a due retry, where one waits, and at least one is none, where one waits:
/// whatever the severities.
const TURN_EVERY: u32 = 4;

/// The order among messages that are due.
type Place = (Reverse<Severity>, Timestamp, NotificationId);

const fn place(ticket: &Ticket) -> Place {
    (Reverse(ticket.rank.severity), ticket.rank.decided_at, ticket.id)
}

/// What was taken last, and how often in a row.
#[derive(Clone, Copy, Debug, Default)]
struct Streak {
    of_retries: bool,
    length: u32,
}

/// What waits for one destination, and what is under way to it.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) kind: DestinationKind,
    waits: BTreeMap<NotificationId, Ticket>,
    /// What is not due yet, by when it is.
    later: BTreeSet<(Timestamp, NotificationId)>,
    /// What is due and was never tried.
    fresh: BTreeSet<Place>,
    /// What is due and was tried before.
    retries: BTreeSet<Place>,
    streak: Streak,
    pub(super) under_way: BTreeMap<NotificationId, Ticket>,
    /// What is due again of those under way, where that was said before they ended.
    again: BTreeMap<NotificationId, Ticket>,
    requests: usize,
    not_before: Timestamp,
    /// When the next message would be due if every one took its second; lags behind `now` while there is burst left.
    spaced: Timestamp,
    /// When the newest pages went that had a message of their own.
    pages: VecDeque<Timestamp>,
}

impl Lane {
    pub(super) fn new(kind: DestinationKind) -> Self {
        Self {
            kind,
            waits: BTreeMap::new(),
            later: BTreeSet::new(),
            fresh: BTreeSet::new(),
            retries: BTreeSet::new(),
            streak: Streak::default(),
            under_way: BTreeMap::new(),
            again: BTreeMap::new(),
            requests: 0,
            not_before: Timestamp::MIN,
            spaced: Timestamp::MIN,
            pages: VecDeque::new(),
        }
    }

    /// Adds a message, or changes when it is due. One that is under way stays so, and is due again once it ends.
    pub(super) fn add(&mut self, ticket: Ticket) {
        if self.under_way.contains_key(&ticket.id) {
            // The outcome of an attempt may come back from the fold before the attempt itself ends here.
            self.again.insert(ticket.id, ticket);
            return;
        }
        self.drop_waiting(ticket.id);
        self.waits.insert(ticket.id, ticket);
        self.later.insert((ticket.due, ticket.id));
    }

    pub(super) fn remove(&mut self, id: NotificationId) {
        self.again.remove(&id);
        self.drop_waiting(id);
    }

    fn drop_waiting(&mut self, id: NotificationId) {
        if let Some(ticket) = self.waits.remove(&id) {
            self.later.remove(&(ticket.due, id));
            self.fresh.remove(&place(&ticket));
            self.retries.remove(&place(&ticket));
        }
    }

    /// When the next message may leave; `None` while as many are under way as may be, or where nothing waits.
    pub(super) fn ready_at(&self) -> Option<Timestamp> {
        let is_due = !self.fresh.is_empty() || !self.retries.is_empty();
        let first = if is_due { Timestamp::MIN } else { self.later.first()?.0 };
        let at = first.max(self.not_before);
        match self.kind {
            DestinationKind::Slack if self.requests > 0 => None,
            DestinationKind::Slack => Some(at.max(self.spaced.minus(Millis(SLACK_SPACING.0 * (SLACK_BURST - 1))))),
            DestinationKind::Webhook | DestinationKind::Paced(_) if self.requests >= DELIVERIES_PER_DESTINATION_MAX => {
                None
            }
            DestinationKind::Webhook => Some(at),
            DestinationKind::Paced(_) => Some(at.max(self.spaced)),
        }
    }

    /// Takes the next message: the ids of several for a digest. Call it where [`Self::ready_at`] has come.
    pub(super) fn take(&mut self, now: Timestamp) -> Vec<NotificationId> {
        self.make_due(now);
        let taken = match self.kind {
            DestinationKind::Webhook => self.take_first(),
            DestinationKind::Paced(spacing) => {
                self.spaced = self.spaced.max(now).plus(spacing);
                self.take_first()
            }
            DestinationKind::Slack => {
                let taken = self.take_for_slack(now);
                self.spaced = self.spaced.max(now).plus(SLACK_SPACING);
                taken
            }
        };
        self.requests = self.requests.saturating_add(1);
        taken
    }

    /// Ends a message. `retry_at` puts what it told of back; `penalty_until` leaves the destination alone until then.
    pub(super) fn done(
        &mut self,
        ids: &[NotificationId],
        retry_at: Option<Timestamp>,
        penalty_until: Option<Timestamp>,
    ) {
        self.requests = self.requests.saturating_sub(1);
        self.not_before = self.not_before.max(penalty_until.unwrap_or(Timestamp::MIN));
        let mut due_again = Vec::new();
        for id in ids {
            let tried = self.under_way.remove(id);
            let said = self.again.remove(id);
            due_again.extend(retry_at.and_then(|due| Some(Ticket { due, ..said.or(tried)? })).or(said));
        }
        for ticket in due_again {
            self.add(ticket);
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waits.len()
    }

    fn make_due(&mut self, now: Timestamp) {
        while let Some((at, id)) = self.later.first().copied().filter(|(at, _)| *at <= now) {
            self.later.remove(&(at, id));
            if let Some(ticket) = self.waits.get(&id) {
                let due = if ticket.is_retry { &mut self.retries } else { &mut self.fresh };
                due.insert(place(ticket));
            }
        }
    }

    fn start(&mut self, id: NotificationId) {
        let ticket = self.waits.get(&id).copied();
        self.drop_waiting(id);
        self.under_way.extend(ticket.map(|ticket| (id, ticket)));
    }

    /// Takes the message whose turn it is: the more severe of the first fresh one and the first retry. Where these are
    /// alike they alternate, so that neither a stream of fresh ones nor a heap of retries holds up the other.
    fn take_first(&mut self) -> Vec<NotificationId> {
        let (fresh, retry) = (self.fresh.first().copied(), self.retries.first().copied());
        let (of_retries, first) = match (fresh, retry) {
            (Some(fresh), Some(retry)) => {
                let more_severe = if fresh.0 == retry.0 { None } else { Some(retry.0 < fresh.0) };
                let limit = if more_severe.is_none() { 1 } else { TURN_EVERY.saturating_sub(1) };
                let of_retries = match more_severe {
                    _ if self.streak.length >= limit => !self.streak.of_retries,
                    Some(retries_first) => retries_first,
                    None => false,
                };
                (of_retries, if of_retries { retry } else { fresh })
            }
            (Some(fresh), None) => (false, fresh),
            (None, Some(retry)) => (true, retry),
            (None, None) => return Vec::new(),
        };
        let length = if of_retries == self.streak.of_retries { self.streak.length.saturating_add(1) } else { 1 };
        self.streak = Streak { of_retries, length };
        self.start(first.2);
        vec![first.2]
    }

    /// Pages go alone, as many in a span as people can read. What else waits goes alone while there is burst left, and is
    /// one digest where there is none: the most severe first, so that pages past their number are the first it names.
    fn take_for_slack(&mut self, now: Timestamp) -> Vec<NotificationId> {
        let oldest = now.minus(SLACK_PAGES_SPAN);
        self.pages.retain(|at| *at > oldest);
        // Pages are critical, and what is critical stands first.
        let critical = |place: &&Place| place.0 == Reverse(Severity::Critical);
        let mut critical = self.fresh.union(&self.retries).take_while(critical).map(|place| place.2);
        let page = critical.find(|id| self.waits.get(id).is_some_and(|ticket| ticket.rank.is_page));
        if let Some(page) = page.filter(|_| self.pages.len() < SLACK_PAGES_ALONE_MAX) {
            self.pages.push_back(now);
            self.start(page);
            return vec![page];
        }
        let most = if page.is_none() && self.spaced <= now { 1 } else { DIGEST_MESSAGES_MAX };
        let ids: Vec<NotificationId> = self.fresh.union(&self.retries).take(most).map(|place| place.2).collect();
        for id in &ids {
            self.start(*id);
        }
        ids
    }
}
