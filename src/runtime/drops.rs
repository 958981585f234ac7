//! Deliveries to endpoints that were dropped at this node, summed up for the control fold, which shows them.

use super::control::{Asking, ControlPlane};
use crate::domain::control::command::{Command, DropReport};
use crate::domain::id::{Tenant, WebhookId};
use crate::domain::limits::DROPS_TOLD_EVERY;
use crate::domain::partition::fact::V3;
use crate::domain::time::Timestamp;
use std::collections::BTreeMap;

/// What was dropped and not told yet, by endpoint.
#[derive(Debug)]
pub(super) struct Drops {
    control: ControlPlane,
    sums: BTreeMap<(Tenant, WebhookId), Sum>,
}

#[derive(Clone, Copy, Debug)]
struct Sum {
    dropped: u64,
    since: Timestamp,
    told_at: Option<Timestamp>,
}

impl Drops {
    pub(super) const fn new(control: ControlPlane) -> Self {
        Self { control, sums: BTreeMap::new() }
    }

    /// Notes an event that was dropped.
    pub(super) fn note(&mut self, endpoint: (Tenant, WebhookId), at: Timestamp) {
        let sum = self.sums.entry(endpoint).or_insert(Sum { dropped: 0, since: at, told_at: None });
        sum.since = if sum.dropped == 0 { at } else { sum.since.min(at) };
        sum.dropped = sum.dropped.saturating_add(1);
    }

    /// Tells what was dropped: the first of it at once, then once in a while.
    pub(super) fn tell(&mut self, now: Timestamp) {
        let is_due = |sum: &Sum| sum.told_at.is_none_or(|at| now.since(at) >= DROPS_TOLD_EVERY);
        for ((tenant, id), sum) in &mut self.sums {
            if sum.dropped == 0 || !is_due(sum) {
                continue;
            }
            let report = DropReport { id: *id, dropped: std::mem::take(&mut sum.dropped), since: sum.since };
            sum.told_at = Some(now);
            tracing::warn!(
                webhook = %id, dropped = report.dropped, since = %report.since,
                "events for an endpoint were dropped: as many deliveries wait as may; replay them once it takes them"
            );
            tell(self.control.clone(), *tenant, report);
        }
        // What was told long ago and has nothing new is forgotten.
        self.sums.retain(|_, sum| sum.dropped > 0 || !is_due(sum));
    }
}

fn tell(control: ControlPlane, tenant: Tenant, report: DropReport) {
    if control.state().engine_version() < V3 {
        return;
    }
    tokio::spawn(async move {
        if let Err(error) = control.submit(Asking::by_command_line(tenant), Command::ReportDrops(report)).await {
            let cause = crate::telemetry::chain(&error);
            tracing::warn!(webhook = %report.id, error = %cause, "dropped events could not be recorded");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::control::outcome::Change;
    use crate::domain::id::{Log, Mode, PartitionId, Position, Stamp, WorkspaceId};
    use crate::domain::limits::OWED_PER_WEBHOOK_MAX;
    use crate::domain::webhook::event::{Content, Source};
    use crate::domain::webhook::kind::EventType;
    use crate::domain::webhook::outbox::{Concern, Intake, Outbox, Subscription};
    use crate::domain::webhook::rows::Rows;
    use crate::runtime::courier::Post;

    const TENANT: Tenant = Tenant { workspace: WorkspaceId(1), mode: Mode::Live };

    #[test]
    fn what_comes_while_as_many_wait_as_may_is_told() {
        let log = Log::Partition(PartitionId(0));
        let subscription = Some(Subscription { event_types: vec!["*".to_owned()], intake: Intake::Open });
        let webhook = Change::Webhook { tenant: TENANT, webhook: WebhookId(1), subscription, project: None };
        let mut outbox = Outbox::default();
        let stamp = |position| Stamp { position: Position(position), recorded_at: Timestamp(5) };
        outbox.learn(&webhook, log, stamp(1), &mut Rows::default());
        let mut dropped = 0;
        for position in 2..OWED_PER_WEBHOOK_MAX as u64 + 5 {
            let (mut index, mut rows) = (0, Rows::default());
            let mut source = Source { log, stamp: stamp(position), index: &mut index };
            let event = source.event(TENANT, EventType::AlertFiring, Timestamp(5), Content::Data("{}".to_owned()));
            outbox.publish(event, Concern::Everybody, stamp(position), &mut rows);
            let told = Post::changed(log, &outbox, &rows);
            dropped += told.iter().filter(|post| matches!(post, Post::Dropped { at: Timestamp(5), .. })).count();
        }
        assert_eq!((outbox.count(), dropped), (OWED_PER_WEBHOOK_MAX, 3));
    }

    #[tokio::test]
    async fn the_first_is_told_at_once_and_the_others_together() {
        let journal = crate::journal::Journal::Memory(crate::journal::MemoryJournal::new(1));
        let mut drops = Drops::new(ControlPlane::open(journal).unwrap());
        let endpoint = (TENANT, WebhookId(1));
        let waiting = |drops: &Drops| drops.sums.get(&endpoint).map(|sum| (sum.dropped, sum.since.0));
        drops.note(endpoint, Timestamp(7));
        drops.tell(Timestamp(10));
        assert_eq!(waiting(&drops), Some((0, 7)));
        drops.note(endpoint, Timestamp(9));
        drops.note(endpoint, Timestamp(8));
        drops.tell(Timestamp(11));
        assert_eq!(waiting(&drops), Some((2, 8)));
        drops.tell(Timestamp(10 + DROPS_TOLD_EVERY.0));
        assert_eq!(waiting(&drops), Some((0, 8)));
        drops.tell(Timestamp(10 + 2 * DROPS_TOLD_EVERY.0));
        assert_eq!(waiting(&drops), None);
    }
}
