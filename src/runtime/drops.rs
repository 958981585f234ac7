//! Deliveries to endpoints that were dropped at this node, summed up for the control fold, which shows them and tells of them.
//!
//! What is not told yet at a clean end is told there. A process that is killed loses the sums of its last minute.

use super::clock;
use super::control::{Asking, ControlPlane, SubmitError};
use crate::domain::control::command::{Command, DropReport};
use crate::domain::id::{Position, Tenant, WebhookId};
use crate::domain::limits::{DROPS_GATHERED, DROPS_TOLD_EVERY};
use crate::domain::partition::fact::V3;
use crate::domain::time::Timestamp;
use crate::domain::webhook::rows::Rows;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How often what was dropped is looked for.
const ROUND: Duration = Duration::from_secs(1);

/// What was dropped and not told yet, by endpoint; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Drops(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    sums: Mutex<BTreeMap<Endpoint, Sum>>,
    total: AtomicU64,
}

type Endpoint = (Tenant, WebhookId);

#[derive(Clone, Copy, Debug)]
struct Sum {
    dropped: u64,
    since: Timestamp,
    /// When it is told next; absent until it is looked at.
    due_at: Option<Timestamp>,
}

impl Drops {
    /// Notes what was dropped because as many deliveries wait as may. Rows that the store has were noted when they were made.
    pub(super) fn note(&self, rows: &Rows, stored: Position) {
        let mut dropped = rows.deliveries.iter().filter(|row| row.is_overflow() && row.revision > stored).peekable();
        if dropped.peek().is_none() {
            return;
        }
        let mut sums = self.lock();
        for row in dropped {
            let empty = Sum { dropped: 0, since: row.created_at, due_at: None };
            let sum = sums.entry((row.tenant, row.id.webhook)).or_insert(empty);
            sum.since = if sum.dropped == 0 { row.created_at } else { sum.since.min(row.created_at) };
            sum.dropped = sum.dropped.saturating_add(1);
            self.0.total.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many were dropped here.
    pub fn total(&self) -> u64 {
        self.0.total.load(Ordering::Relaxed)
    }

    /// Takes what is to be told now: the first of it a moment behind it, so that a burst is one report, then once in a while.
    fn due(&self, now: Timestamp) -> Vec<(Tenant, DropReport)> {
        let mut sums = self.lock();
        // What was told long ago and has nothing new is forgotten.
        sums.retain(|_, sum| sum.dropped > 0 || sum.due_at.is_some_and(|at| now < at));
        let due = sums.iter_mut().filter(|(_, sum)| sum.dropped > 0);
        due.filter_map(|(endpoint, sum)| {
            let at = *sum.due_at.get_or_insert(now.plus(DROPS_GATHERED));
            (at <= now).then(|| sum.take(*endpoint, now))
        })
        .collect()
    }

    /// Takes all that there is of one endpoint, or of every one.
    fn all(&self, of: Option<Endpoint>, now: Timestamp) -> Vec<(Tenant, DropReport)> {
        let mut sums = self.lock();
        let asked = sums.iter_mut().filter(|(endpoint, sum)| sum.dropped > 0 && of.is_none_or(|one| one == **endpoint));
        asked.map(|(endpoint, sum)| sum.take(*endpoint, now)).collect()
    }

    /// Takes back what could not be told.
    fn put_back(&self, tenant: Tenant, report: DropReport) {
        let mut sums = self.lock();
        let empty = Sum { dropped: 0, since: report.since, due_at: None };
        let sum = sums.entry((tenant, report.id)).or_insert(empty);
        let since = if sum.dropped == 0 { report.since } else { sum.since.min(report.since) };
        *sum = Sum { dropped: sum.dropped.saturating_add(report.dropped), since, due_at: None };
    }

    /// Tells at once what was dropped for one endpoint, so that it counts for who asks next.
    pub async fn tell_of(&self, endpoint: (Tenant, WebhookId), control: &ControlPlane) {
        if knows_drops(control) {
            self.tell(self.all(Some(endpoint), clock::now()), control).await;
        }
    }

    /// Tells everything: nothing is folded here any more.
    pub(super) async fn tell_rest(&self, control: &ControlPlane) {
        if knows_drops(control) {
            self.tell(self.all(None, clock::now()), control).await;
        }
    }

    async fn tell(&self, reports: Vec<(Tenant, DropReport)>, control: &ControlPlane) {
        for (tenant, report) in reports {
            tracing::warn!(
                webhook = %report.id, dropped = report.dropped, since = %report.since,
                "events for an endpoint were dropped: as many deliveries wait as may; replay them once it takes them"
            );
            let told = control.submit(Asking::by_command_line(tenant), Command::ReportDrops(report)).await;
            let Err(error) = told else { continue };
            let cause = crate::telemetry::chain(&error);
            tracing::warn!(webhook = %report.id, error = %cause, "dropped events are not recorded yet");
            // Behind any other error the record is there.
            if matches!(error, SubmitError::Append(_)) {
                self.put_back(tenant, report);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Endpoint, Sum>> {
        self.0.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sum {
    fn take(&mut self, (tenant, id): Endpoint, now: Timestamp) -> (Tenant, DropReport) {
        self.due_at = Some(now.plus(DROPS_TOLD_EVERY));
        (tenant, DropReport { id, dropped: std::mem::take(&mut self.dropped), since: self.since })
    }
}

/// Older releases of a cluster do not.
fn knows_drops(control: &ControlPlane) -> bool {
    control.state().engine_version() >= V3
}

/// Tells what was dropped, until `stop` says so.
pub(super) async fn run(drops: Drops, control: ControlPlane, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        tokio::select! {
            () = tokio::time::sleep(ROUND) => {}
            _ = stop.changed() => return,
        }
        if knows_drops(&control) {
            drops.tell(drops.due(clock::now()), &control).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::control::outcome::Change;
    use crate::domain::id::{Log, Mode, PartitionId, Stamp, WorkspaceId};
    use crate::domain::limits::OWED_PER_WEBHOOK_MAX;
    use crate::domain::webhook::event::{Content, Source};
    use crate::domain::webhook::kind::EventType;
    use crate::domain::webhook::outbox::{Concern, Intake, Outbox, Subscription};

    const TENANT: Tenant = Tenant { workspace: WorkspaceId(1), mode: Mode::Live };
    const ONE: WebhookId = WebhookId(1);

    /// What an outbox makes of more events than it takes, each a millisecond behind the one before.
    fn overflowing(extra: usize) -> Vec<Rows> {
        let log = Log::Partition(PartitionId(0));
        let subscription = Some(Subscription { event_types: vec!["*".to_owned()], intake: Intake::Open });
        let webhook = Change::Webhook { tenant: TENANT, webhook: ONE, subscription, project: None };
        let mut outbox = Outbox::default();
        let stamp = |n: usize| Stamp { position: Position(n as u64), recorded_at: Timestamp(n as i64) };
        outbox.learn(&webhook, (log, V3), stamp(0), &mut Rows::default());
        let publish = |n: usize| {
            let (mut index, mut rows) = (0, Rows::default());
            let mut source = Source { log, stamp: stamp(n), index: &mut index };
            let event = source.event(TENANT, EventType::AlertFiring, Timestamp(5), Content::Data("{}".to_owned()));
            outbox.publish(event, Concern::Everybody, stamp(n), &mut rows);
            rows
        };
        (1..=OWED_PER_WEBHOOK_MAX + extra).map(publish).collect()
    }

    fn report(dropped: u64, behind: i64) -> Vec<(Tenant, DropReport)> {
        let since = Timestamp(OWED_PER_WEBHOOK_MAX as i64 + behind);
        vec![(TENANT, DropReport { id: ONE, dropped, since })]
    }

    #[test]
    fn a_burst_is_told_in_one_and_what_follows_once_a_minute() {
        let (drops, all) = (Drops::default(), overflowing(6));
        let (first, later) = all.split_at(OWED_PER_WEBHOOK_MAX + 3);
        first.iter().for_each(|rows| drops.note(rows, Position::START));
        assert_eq!(drops.due(Timestamp(0)), [], "more may come at once");
        assert_eq!(drops.due(Timestamp(DROPS_GATHERED.0)), report(3, 1));
        later.iter().for_each(|rows| drops.note(rows, Position::START));
        let again = DROPS_GATHERED.0 + DROPS_TOLD_EVERY.0;
        assert_eq!(drops.due(Timestamp(again - 1)), []);
        assert_eq!(drops.due(Timestamp(again)), report(3, 4));
        assert_eq!((drops.due(Timestamp(again + DROPS_TOLD_EVERY.0)), drops.total()), (vec![], 6));
        assert!(drops.lock().is_empty());
    }

    #[test]
    fn what_is_stored_was_told_and_what_could_not_be_told_stays() {
        let (drops, all) = (Drops::default(), overflowing(4));
        let stored = Position(OWED_PER_WEBHOOK_MAX as u64 + 1);
        all.iter().for_each(|rows| drops.note(rows, stored));
        assert_eq!(drops.all(Some((TENANT, WebhookId(2))), Timestamp(0)), []);
        let told = drops.all(Some((TENANT, ONE)), Timestamp(0));
        assert_eq!(told, report(3, 2));
        drops.put_back(TENANT, told[0].1);
        all.iter().skip(OWED_PER_WEBHOOK_MAX).take(1).for_each(|rows| drops.note(rows, Position::START));
        assert_eq!(drops.all(None, Timestamp(0)), report(4, 1));
    }
}
