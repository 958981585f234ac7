//! Test messages: owed like any other, so that they go the whole way; they change no state of an alert.

use super::changes::Turn;
use super::effect::{Evidence, InstanceKey, Reason, State};
use super::notification::{Notification, NotificationKind};
use super::state::Partition;
use crate::domain::control::trials::TestMessage;
use crate::domain::definition::{AlertDefinition, Severity};
use crate::domain::id::{AccountId, AccountScope, AlertId, Epoch, Tenant};
use crate::domain::routing::partition_of;

/// Stands for the account where there is none.
const NO_ACCOUNT: &str = "test";

impl Partition {
    /// Takes on a test message, in the one partition that its account has.
    pub(super) fn owe_test(&mut self, tenant: Tenant, test: &TestMessage, turn: &mut Turn<'_>) {
        let alert = test.alert.as_deref();
        let account = match alert.map(|alert| &alert.account) {
            Some(AccountScope::One(account)) => Some(account.clone()),
            Some(AccountScope::All) | None => AccountId::new(NO_ACCOUNT).ok(),
        };
        let Some(account) = account else { return };
        if partition_of(tenant.workspace, &account, self.partition_count) != self.id {
            return;
        }
        let notification = Notification {
            partition: self.id,
            recorded_at: turn.stamp.recorded_at,
            position: turn.stamp.position,
            index: *turn.index,
            ..notification(tenant, account, test)
        };
        *turn.index = turn.index.saturating_add(1);
        turn.effects.deliveries.extend(self.debts.owe(&notification, &[], turn.stamp));
        turn.effects.notifications.push(notification);
    }
}

fn notification(tenant: Tenant, account: AccountId, test: &TestMessage) -> Notification {
    let alert = test.alert.as_deref();
    let evidence = Evidence {
        alert_version: alert.map_or(0, |alert| alert.version),
        rule: alert.map(|alert| alert.rule.clone()).unwrap_or_default(),
        trace: Default::default(),
        value_name: None,
        value: None,
        window: None,
        quota: None,
    };
    let name = |alert: &AlertDefinition| alert.name.clone();
    Notification {
        id: test.id,
        kind: NotificationKind::Test,
        reason: Reason::Test,
        key: InstanceKey {
            tenant,
            alert: alert.map_or(AlertId(0), |alert| alert.id),
            account,
            metric: alert.and_then(|alert| alert.metric.clone()),
        },
        epoch: Epoch(0),
        sequence: 0,
        state: State::Ok,
        alert_name: alert.map_or_else(|| Some("a channel".to_owned()), name),
        message: alert.and_then(|alert| alert.message.clone()),
        severity: alert.map_or(Severity::Info, |alert| alert.severity),
        labels: alert.map(|alert| alert.labels.clone()).unwrap_or_default(),
        evidence,
        follows: None,
        closes: Vec::new(),
        fired_meanwhile: 0,
        at: test.at,
        recorded_at: test.at,
        accepted_at: None,
        partition: crate::domain::id::PartitionId(0),
        position: crate::domain::id::Position::START,
        index: 0,
        channels: test.channels.clone(),
    }
}
