//! Requests whose events the journal did not take, by tenant: told to their endpoints once the journal takes records again.
//!
//! What is counted and not told yet is lost with a process that ends. Metrics tell operators at once; this tells the senders.

use super::clock;
use super::control::{Asking, ControlPlane, SubmitError};
use crate::domain::control::command::{Command, PressureReport};
use crate::domain::id::Tenant;
use crate::domain::limits::{PRESSED_TENANTS_MAX, PRESSURE_EVERY};
use crate::domain::time::Timestamp;
use crate::domain::webhook::kind::EventType;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How often what was refused is looked for.
const ROUND: Duration = Duration::from_secs(1);

/// Requests that were refused; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Pressure(Arc<Mutex<BTreeMap<Tenant, Pressed>>>);

/// What is known of one tenant.
#[derive(Clone, Copy, Debug, Default)]
struct Pressed {
    /// What is not told yet.
    open: Option<PressureReport>,
    told_at: Option<Timestamp>,
}

impl Pressure {
    /// Counts a request of a tenant that was refused.
    pub fn note(&self, tenant: Tenant, now: Timestamp) {
        let mut known = self.lock();
        if known.len() >= PRESSED_TENANTS_MAX && !known.contains_key(&tenant) {
            return;
        }
        let open = &mut known.entry(tenant).or_default().open;
        *open = Some(merged(*open, PressureReport { from: now, to: now, refused_requests: 1 }));
    }

    /// Takes what is to be told now: at once, then every 5 minutes for as long as it lasts.
    fn due(&self, now: Timestamp) -> Vec<(Tenant, PressureReport)> {
        let mut known = self.lock();
        let is_over = |told_at: Timestamp| told_at.plus(PRESSURE_EVERY) <= now;
        known.retain(|_, pressed| pressed.open.is_some() || !pressed.told_at.is_some_and(is_over));
        let due = known.iter_mut().filter(|(_, pressed)| pressed.told_at.is_none_or(is_over));
        due.filter_map(|(tenant, pressed)| {
            let report = pressed.open.take()?;
            pressed.told_at = Some(now);
            Some((*tenant, report))
        })
        .collect()
    }

    /// Takes back what could not be told.
    fn put_back(&self, tenant: Tenant, report: PressureReport) {
        let mut known = self.lock();
        let pressed = known.entry(tenant).or_default();
        *pressed = Pressed { open: Some(merged(pressed.open, report)), told_at: None };
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Tenant, Pressed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn merged(open: Option<PressureReport>, more: PressureReport) -> PressureReport {
    open.map_or(more, |open| PressureReport {
        from: open.from.min(more.from),
        to: open.to.max(more.to),
        refused_requests: open.refused_requests.saturating_add(more.refused_requests),
    })
}

/// Tells what was refused, until `stop` says so.
pub(super) async fn run(pressure: Pressure, control: ControlPlane, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        tokio::select! {
            () = tokio::time::sleep(ROUND) => {}
            _ = stop.changed() => return,
        }
        // What nobody wants to hear is no record: the control log is never cut.
        let wanted = |tenant| control.state().wants(tenant, EventType::IngestBackpressure);
        let due = pressure.due(clock::now()).into_iter().filter(|(tenant, _)| wanted(*tenant));
        let mut due: VecDeque<(Tenant, PressureReport)> = due.collect();
        while let Some((tenant, report)) = due.pop_front() {
            let asking = Asking::by_command_line(tenant);
            let Err(error) = control.submit(asking, Command::ReportPressure(report)).await else { continue };
            let cause = crate::telemetry::chain(&error);
            tracing::debug!(error = %cause, "that requests were refused is not told yet");
            // Behind any other error the record is there.
            if matches!(error, SubmitError::Append(_)) {
                due.push_front((tenant, report));
                break;
            }
        }
        due.into_iter().for_each(|(tenant, report)| pressure.put_back(tenant, report));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{Mode, WorkspaceId};

    #[test]
    fn it_is_told_at_once_and_then_every_five_minutes() {
        let pressure = Pressure::default();
        let tenant = Tenant { workspace: WorkspaceId(1), mode: Mode::Live };
        let report = |from, to, refused_requests| {
            vec![(tenant, PressureReport { from: Timestamp(from), to: Timestamp(to), refused_requests })]
        };
        assert_eq!(pressure.due(Timestamp(0)), []);
        pressure.note(tenant, Timestamp(1));
        pressure.note(tenant, Timestamp(2));
        assert_eq!(pressure.due(Timestamp(3)), report(1, 2, 2));
        pressure.note(tenant, Timestamp(4));
        assert_eq!(pressure.due(Timestamp(PRESSURE_EVERY.0)), []);
        assert_eq!(pressure.due(Timestamp(PRESSURE_EVERY.0 + 3)), report(4, 4, 1));
        // What could not be told is told with what comes, as soon as it can.
        pressure.put_back(tenant, report(4, 4, 1)[0].1);
        pressure.note(tenant, Timestamp(9));
        assert_eq!(pressure.due(Timestamp(PRESSURE_EVERY.0 + 4)), report(4, 9, 2));
        assert_eq!(pressure.due(Timestamp(3 * PRESSURE_EVERY.0)), []);
        assert!(pressure.lock().is_empty(), "nothing is kept of who was told of all");
    }
}
