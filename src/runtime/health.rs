//! How endpoints do at this node, summed up for the control fold, which judges them.

use super::control::{Asking, ControlPlane};
use crate::domain::control::command::{Command, WebhookHealth, WebhookReport};
use crate::domain::id::{Tenant, WebhookId};
use crate::domain::limits::HEALTH_EVERY;
use crate::domain::time::Timestamp;
use crate::notifier::Attempt;
use std::collections::BTreeMap;

/// The sums of the running hour.
#[derive(Debug)]
pub(super) struct Health {
    control: ControlPlane,
    began: Timestamp,
    sums: BTreeMap<(Tenant, WebhookId), WebhookHealth>,
}

impl Health {
    pub(super) const fn new(control: ControlPlane, now: Timestamp) -> Self {
        Self { control, began: now, sums: BTreeMap::new() }
    }

    /// Notes what came of an attempt. That an endpoint is gone, or takes events again, is told at once.
    pub(super) fn note(&mut self, (tenant, webhook): (Tenant, WebhookId), attempt: &Attempt, now: Timestamp) {
        let sum = self.sums.entry((tenant, webhook)).or_default();
        match &attempt.result {
            Ok(_) => sum.succeeded += 1,
            Err(_) => {
                sum.failed += 1;
                sum.first_failed_at.get_or_insert(now);
                sum.gone |= attempt.status() == Some(410);
            }
        }
        let failing = {
            let state = self.control.state();
            state.webhook(tenant, webhook).is_some_and(|webhook| webhook.failing_since.is_some())
        };
        if sum.gone || (failing && sum.succeeded > 0) {
            self.report(tenant, webhook);
        }
    }

    /// Tells of those that failed, once an hour.
    pub(super) fn sum_up(&mut self, now: Timestamp) {
        if now.since(self.began) < HEALTH_EVERY {
            return;
        }
        self.began = now;
        let failed: Vec<(Tenant, WebhookId)> =
            self.sums.iter().filter(|(_, sum)| sum.failed > 0 && sum.succeeded == 0).map(|(key, _)| *key).collect();
        for (tenant, webhook) in failed {
            self.report(tenant, webhook);
        }
        self.sums.clear();
    }

    fn report(&mut self, tenant: Tenant, webhook: WebhookId) {
        let Some(health) = self.sums.remove(&(tenant, webhook)) else { return };
        let control = self.control.clone();
        tokio::spawn(async move {
            let command = Command::ReportWebhookHealth(WebhookReport { id: webhook, health });
            if let Err(error) = control.submit(Asking::by_command_line(tenant), command).await {
                let cause = crate::telemetry::chain(&error);
                tracing::warn!(webhook = %webhook, error = %cause, "how an endpoint does could not be recorded");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::Failure;

    #[tokio::test]
    async fn an_hour_of_failures_is_told_once() {
        let journal = crate::journal::Journal::Memory(crate::journal::MemoryJournal::new(1));
        let control = ControlPlane::open(journal).unwrap();
        let mut health = Health::new(control.clone(), Timestamp(0));
        let key = (
            Tenant { workspace: crate::domain::id::WorkspaceId(1), mode: crate::domain::id::Mode::Live },
            WebhookId(1),
        );
        let failed = Attempt { result: Err(Failure::Timeout) };
        health.note(key, &failed, Timestamp(1));
        health.note(key, &failed, Timestamp(2));
        health.sum_up(Timestamp(HEALTH_EVERY.0 - 1));
        assert_eq!(health.sums.get(&key).map(|sum| (sum.failed, sum.first_failed_at)), Some((2, Some(Timestamp(1)))));
        health.sum_up(Timestamp(HEALTH_EVERY.0));
        assert!(health.sums.is_empty());
    }
}
