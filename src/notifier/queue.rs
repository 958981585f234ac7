//! Who is sent to next. Pure: no destination is sent to faster than it may be, and none waits for another.

use super::lane::Lane;
use crate::domain::definition::Severity;
use crate::domain::id::{ChannelId, NotificationId};
use crate::domain::partition::notification::{Notification, NotificationKind};
use crate::domain::time::{Millis, Timestamp};
use std::collections::BTreeMap;

/// How a destination may be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestinationKind {
    /// One message at a time, about one a second; what overflows is merged.
    Slack,
    /// A few requests at once, one notification each.
    Webhook,
    /// As a webhook, with at least this much between two requests.
    Paced(Millis),
}

/// What the order of a destination's messages goes by: the most severe first, then the one that was decided first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// How bad it is.
    pub severity: Severity,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// Whether somebody is to look at once: Slack gets it in a message of its own.
    pub is_page: bool,
}

impl Rank {
    /// That of a notification. One that only says that something ended pages nobody.
    pub fn of(notification: &Notification) -> Self {
        let severity = notification.severity;
        let ends = notification.kind == NotificationKind::Resolved;
        Self { severity, decided_at: notification.at, is_page: severity == Severity::Critical && !ends }
    }
}

/// A message that waits for its turn at a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// What is sent.
    pub id: NotificationId,
    /// When it may leave.
    pub due: Timestamp,
    /// Its place among what is due.
    pub rank: Rank,
    /// Whether it was tried before. Retries and fresh messages take turns.
    pub is_retry: bool,
}

/// One message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// Where to.
    pub channel: ChannelId,
    /// What: several for a digest.
    pub ids: Vec<NotificationId>,
}

/// What waits, by destination.
#[derive(Debug, Default)]
pub struct Queue {
    lanes: BTreeMap<ChannelId, Lane>,
    /// The destination behind which the next round begins, so that all have their turn.
    turn: Option<ChannelId>,
}

impl Queue {
    /// Adds a message, or changes when it is due. One that is under way stays so, and is due again once it ends.
    pub fn add(&mut self, channel: ChannelId, kind: DestinationKind, ticket: Ticket) {
        let lane = self.lanes.entry(channel).or_insert_with(|| Lane::new(kind));
        lane.kind = kind;
        lane.add(ticket);
    }

    /// Tells whether a notification is being sent to a destination.
    pub fn is_under_way(&self, channel: ChannelId, id: NotificationId) -> bool {
        self.lanes.get(&channel).is_some_and(|lane| lane.under_way.contains_key(&id))
    }

    /// Takes a notification out; one that is under way ends, and is not due again.
    pub fn remove(&mut self, channel: ChannelId, id: NotificationId) {
        if let Some(lane) = self.lanes.get_mut(&channel) {
            lane.remove(id);
        }
    }

    /// Returns the next message that may leave, fair among the destinations.
    pub fn next(&mut self, now: Timestamp) -> Option<Work> {
        let ready = |(channel, lane): (&ChannelId, &Lane)| lane.ready_at().filter(|at| *at <= now).map(|_| *channel);
        let behind = self.turn.and_then(|turn| {
            let bounds = (std::ops::Bound::Excluded(turn), std::ops::Bound::Unbounded);
            self.lanes.range(bounds).find_map(ready)
        });
        let channel = behind.or_else(|| self.lanes.iter().find_map(ready))?;
        self.turn = Some(channel);
        let ids = self.lanes.get_mut(&channel)?.take(now);
        Some(Work { channel, ids })
    }

    /// Ends a message. `retry_at` puts its notifications back; `penalty_until` leaves the destination alone until then.
    pub fn done(
        &mut self,
        channel: ChannelId,
        ids: &[NotificationId],
        retry_at: Option<Timestamp>,
        penalty_until: Option<Timestamp>,
    ) {
        if let Some(lane) = self.lanes.get_mut(&channel) {
            lane.done(ids, retry_at, penalty_until);
        }
    }

    /// When something may leave that may not yet.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.lanes.values().filter_map(Lane::ready_at).min()
    }

    /// How many notifications wait.
    pub fn pending(&self) -> usize {
        self.lanes.values().map(Lane::waiting).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::limits::{DELIVERIES_PER_DESTINATION_MAX, SLACK_PAGES_ALONE_MAX};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn ticket(id: u128, due: i64) -> Ticket {
        ranked(id, Severity::Warning, due)
    }

    /// A fresh message that is due when it is decided.
    fn ranked(id: u128, severity: Severity, at: i64) -> Ticket {
        let (decided_at, is_page) = (Timestamp(at), severity == Severity::Critical);
        let rank = Rank { severity, decided_at, is_page };
        Ticket { id: NotificationId(id), due: decided_at, rank, is_retry: false }
    }

    /// The ids in the order in which one destination gets them, with no more than one under way.
    fn order(kind: DestinationKind, tickets: impl IntoIterator<Item = Ticket>) -> Vec<Vec<u128>> {
        let (mut queue, channel) = (Queue::default(), ChannelId(1));
        tickets.into_iter().for_each(|ticket| queue.add(channel, kind, ticket));
        let mut now = Timestamp(100_000);
        let mut order = Vec::new();
        while let Some(at) = queue.next_wakeup() {
            now = now.max(at);
            let work = queue.next(now).unwrap();
            queue.done(channel, &work.ids, None, None);
            order.push(work.ids.iter().map(|id| id.0).collect());
        }
        order
    }

    #[test]
    fn the_most_severe_leaves_first_and_then_what_was_decided_first() {
        use Severity::{Critical, Info, Warning};
        let tickets = [(1, Info, 5), (9, Warning, 7), (2, Warning, 8), (8, Critical, 9), (3, Critical, 10)];
        let tickets = tickets.map(|(id, severity, at)| ranked(id, severity, at));
        assert_eq!(order(DestinationKind::Webhook, tickets).concat(), [8, 3, 9, 2, 1]);
        let many = (0..300).map(|id| ranked(299 - id, Severity::Warning, id as i64));
        let wanted: Vec<u128> = (0..300).rev().collect();
        assert_eq!(order(DestinationKind::Webhook, many).concat(), wanted);
    }

    #[test]
    fn due_retries_and_fresh_messages_take_turns() {
        use Severity::{Critical, Info, Warning};
        let retry = |id, severity, at| Ticket { is_retry: true, ..ranked(id, severity, at) };
        let fresh = |severity| (0..50).map(move |id| ranked(id, severity, 2_000 + id as i64));
        // As severe: one of each.
        let retries = (90..93).map(|id| retry(id, Warning, 1_000));
        let went = order(DestinationKind::Webhook, fresh(Warning).chain(retries)).concat();
        assert_eq!(went[..6], [0, 90, 1, 91, 2, 92]);
        // Less severe: one of four.
        let retries = (90..93).map(|id| retry(id, Info, 1_000));
        let went = order(DestinationKind::Webhook, fresh(Critical).chain(retries)).concat();
        assert_eq!(went[..8], [0, 1, 2, 90, 3, 4, 5, 91]);
        // A heap of retries holds up no fresh message for longer, either.
        let retries = (100..900).map(|id| retry(id, Critical, 1_000));
        let went = order(DestinationKind::Webhook, fresh(Info).chain(retries)).concat();
        assert_eq!(went.iter().position(|id| *id == 0), Some(3));
    }

    #[test]
    fn slack_gets_ten_pages_a_minute_singly_and_the_further_ones_before_all_others() {
        use Severity::{Critical, Warning};
        let warnings = (0..40).map(|id| ranked(id, Warning, id as i64));
        let pages = (100..113).map(|id| ranked(id, Critical, 1_000 + id as i64));
        let went = order(DestinationKind::Slack, warnings.chain(pages));
        let singly: Vec<Vec<u128>> = (100..110).map(|id| vec![id]).collect();
        assert_eq!((singly.len(), &went[..10]), (SLACK_PAGES_ALONE_MAX, &singly[..]));
        let digest: Vec<u128> = (110..113).chain(0..40).collect();
        assert_eq!(went[10..], [digest]);
    }

    #[test]
    fn slack_overflow_becomes_a_digest() {
        let mut queue = Queue::default();
        let channel = ChannelId(1);
        for id in 0..30 {
            queue.add(channel, DestinationKind::Slack, ticket(id, 0));
        }
        let mut sizes = Vec::new();
        let mut now = Timestamp(10_000);
        while let Some(at) = queue.next_wakeup() {
            now = now.max(at);
            let work = queue.next(now).unwrap();
            assert_eq!(queue.next(now), None, "one at a time");
            sizes.push((work.ids.len(), now.0 - 10_000));
            queue.done(channel, &work.ids, None, None);
        }
        assert_eq!(sizes, [(1, 0), (29, 0)]);
    }

    #[test]
    fn a_penalty_holds_one_destination_only() {
        let mut queue = Queue::default();
        for channel in [1, 2] {
            queue.add(ChannelId(channel), DestinationKind::Webhook, ticket(1, 0));
        }
        let first = queue.next(Timestamp(0)).unwrap();
        queue.done(first.channel, &first.ids, Some(Timestamp(0)), Some(Timestamp(60_000)));
        assert_eq!(queue.next(Timestamp(0)).map(|work| work.channel), Some(ChannelId(2)));
        assert_eq!(queue.next(Timestamp(59_999)), None);
        assert_eq!(queue.next(Timestamp(60_000)).map(|work| work.channel), Some(ChannelId(1)));
    }

    #[test]
    fn what_is_due_again_before_it_ended_is_not_forgotten() {
        let mut queue = Queue::default();
        let (channel, id) = (ChannelId(1), NotificationId(1));
        let kind = DestinationKind::Webhook;
        queue.add(channel, kind, ticket(1, 0));
        let work = queue.next(Timestamp(0)).unwrap();
        queue.add(channel, kind, ticket(1, 5_000));
        assert_eq!(queue.next(Timestamp(9_000)), None, "it is under way");
        queue.done(channel, &work.ids, None, None);
        assert_eq!(queue.next_wakeup(), Some(Timestamp(5_000)));
        let work = queue.next(Timestamp(5_000)).unwrap();
        // Settled meanwhile: it ends for good.
        queue.add(channel, kind, ticket(1, 7_000));
        queue.remove(channel, id);
        queue.done(channel, &work.ids, None, None);
        assert_eq!((queue.next_wakeup(), queue.pending()), (None, 0));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_limit_is_passed(
            adds in prop::collection::vec((0_u128..4, 0_u128..40, 0_i64..5_000), 1..80),
            outcomes in prop::collection::vec(prop::bool::weighted(0.8), 400),
        ) {
            let kind = |channel: u128| if channel < 2 { DestinationKind::Slack } else { DestinationKind::Webhook };
            let mut queue = Queue::default();
            let mut owed = BTreeSet::new();
            for (channel, id, due) in &adds {
                let severity = [Severity::Info, Severity::Warning, Severity::Critical][(*id % 3) as usize];
                queue.add(ChannelId(*channel), kind(*channel), ranked(*id, severity, *due));
                owed.insert((ChannelId(*channel), NotificationId(*id)));
            }
            let mut now = Timestamp(0);
            let mut outcomes = outcomes.into_iter();
            let mut slack_sent: BTreeMap<ChannelId, Vec<i64>> = BTreeMap::new();
            while let Some(at) = queue.next_wakeup() {
                now = now.max(at);
                let mut batch = Vec::new();
                while let Some(work) = queue.next(now) {
                    batch.push(work);
                }
                let mut per_channel: BTreeMap<ChannelId, usize> = BTreeMap::new();
                for work in &batch {
                    *per_channel.entry(work.channel).or_default() += 1;
                    if kind(work.channel.0) == DestinationKind::Slack {
                        slack_sent.entry(work.channel).or_default().push(now.0);
                    } else {
                        prop_assert_eq!(work.ids.len(), 1);
                    }
                }
                for (channel, count) in per_channel {
                    let most = if kind(channel.0) == DestinationKind::Slack { 1 } else { DELIVERIES_PER_DESTINATION_MAX };
                    prop_assert!(count <= most);
                }
                for work in batch {
                    let fails = !outcomes.next().unwrap_or(true);
                    let retry_at = fails.then(|| now.plus(Millis(500)));
                    queue.done(work.channel, &work.ids, retry_at, None);
                    if retry_at.is_none() {
                        for id in &work.ids {
                            prop_assert!(owed.remove(&(work.channel, *id)));
                        }
                    }
                }
            }
            prop_assert!(owed.is_empty());
            for times in slack_sent.values() {
                for pair in times.windows(4) {
                    prop_assert!(pair[3] - pair[0] >= 1_000);
                }
            }
        }
    }
}
