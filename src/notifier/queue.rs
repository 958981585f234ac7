//! Who is sent to next. Pure: no destination is sent to faster than it may be, and none waits for another.

use crate::domain::id::{ChannelId, NotificationId};
use crate::domain::limits::{DELIVERIES_PER_DESTINATION_MAX, DIGEST_ITEMS_MAX};
use crate::domain::time::{Millis, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Slack takes about one message a second and channel, and short bursts.
const SLACK_SPACING: Millis = Millis::seconds(1);
const SLACK_BURST: i64 = 3;
/// Most notifications that one digest settles; it names fewer.
const DIGEST_MAX: usize = 10 * DIGEST_ITEMS_MAX;

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

#[derive(Debug)]
struct Lane {
    kind: DestinationKind,
    due: BTreeSet<(Timestamp, NotificationId)>,
    waits: BTreeMap<NotificationId, Timestamp>,
    under_way: BTreeSet<NotificationId>,
    /// When those under way are due again, where that was said before they ended.
    again: BTreeMap<NotificationId, Timestamp>,
    requests: usize,
    not_before: Timestamp,
    /// When the next message would be due if every one took its second; lags behind `now` while there is burst left.
    spaced: Timestamp,
}

impl Lane {
    fn new(kind: DestinationKind) -> Self {
        Self {
            kind,
            due: BTreeSet::new(),
            waits: BTreeMap::new(),
            under_way: BTreeSet::new(),
            again: BTreeMap::new(),
            requests: 0,
            not_before: Timestamp::MIN,
            spaced: Timestamp::MIN,
        }
    }

    /// When the next message may leave; `None` while as many are under way as may be.
    fn ready_at(&self) -> Option<Timestamp> {
        let (first, _) = self.due.first()?;
        let at = (*first).max(self.not_before);
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

    fn take(&mut self, now: Timestamp) -> Vec<NotificationId> {
        let most = match self.kind {
            DestinationKind::Webhook | DestinationKind::Paced(_) => 1,
            // While there is burst left, messages go singly; then what waits is merged.
            DestinationKind::Slack if self.spaced <= now => 1,
            DestinationKind::Slack => DIGEST_MAX,
        };
        let taken: Vec<_> = self.due.iter().take_while(|(at, _)| *at <= now).take(most).copied().collect();
        for (at, id) in &taken {
            self.due.remove(&(*at, *id));
            self.waits.remove(id);
            self.under_way.insert(*id);
        }
        match self.kind {
            DestinationKind::Slack => self.spaced = self.spaced.max(now).plus(SLACK_SPACING),
            DestinationKind::Paced(spacing) => self.spaced = self.spaced.max(now).plus(spacing),
            DestinationKind::Webhook => {}
        }
        self.requests += 1;
        taken.into_iter().map(|(_, id)| id).collect()
    }
}

impl Queue {
    /// Adds a notification, or changes when it is due. One that is under way stays so, and is due again once it ends.
    pub fn add(&mut self, channel: ChannelId, kind: DestinationKind, id: NotificationId, due: Timestamp) {
        let lane = self.lanes.entry(channel).or_insert_with(|| Lane::new(kind));
        lane.kind = kind;
        if lane.under_way.contains(&id) {
            // The outcome of an attempt may come back from the fold before the attempt itself ends here.
            lane.again.insert(id, due);
            return;
        }
        if let Some(before) = lane.waits.insert(id, due) {
            lane.due.remove(&(before, id));
        }
        lane.due.insert((due, id));
    }

    /// Takes a notification out; one that is under way ends, and is not due again.
    pub fn remove(&mut self, channel: ChannelId, id: NotificationId) {
        let Some(lane) = self.lanes.get_mut(&channel) else { return };
        lane.again.remove(&id);
        if let Some(due) = lane.waits.remove(&id) {
            lane.due.remove(&(due, id));
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
        let Some(lane) = self.lanes.get_mut(&channel) else { return };
        lane.requests = lane.requests.saturating_sub(1);
        lane.not_before = lane.not_before.max(penalty_until.unwrap_or(Timestamp::MIN));
        let kind = lane.kind;
        let mut due_again = Vec::new();
        for id in ids {
            lane.under_way.remove(id);
            let said = lane.again.remove(id);
            due_again.extend(retry_at.or(said).map(|at| (*id, at)));
        }
        for (id, at) in due_again {
            self.add(channel, kind, id, at);
        }
    }

    /// When something may leave that may not yet.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.lanes.values().filter_map(Lane::ready_at).min()
    }

    /// How many notifications wait.
    pub fn pending(&self) -> usize {
        self.lanes.values().map(|lane| lane.due.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slack_overflow_becomes_a_digest() {
        let mut queue = Queue::default();
        let channel = ChannelId(1);
        for id in 0..30 {
            queue.add(channel, DestinationKind::Slack, NotificationId(id), Timestamp(0));
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
            queue.add(ChannelId(channel), DestinationKind::Webhook, NotificationId(1), Timestamp(0));
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
        queue.add(channel, kind, id, Timestamp(0));
        let work = queue.next(Timestamp(0)).unwrap();
        queue.add(channel, kind, id, Timestamp(5_000));
        assert_eq!(queue.next(Timestamp(9_000)), None, "it is under way");
        queue.done(channel, &work.ids, None, None);
        assert_eq!(queue.next_wakeup(), Some(Timestamp(5_000)));
        let work = queue.next(Timestamp(5_000)).unwrap();
        // Settled meanwhile: it ends for good.
        queue.add(channel, kind, id, Timestamp(7_000));
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
                queue.add(ChannelId(*channel), kind(*channel), NotificationId(*id), Timestamp(*due));
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
                for pair in times.windows(SLACK_BURST as usize + 1) {
                    prop_assert!(pair[SLACK_BURST as usize] - pair[0] >= 1_000);
                }
            }
        }
    }
}
