//! What a store holds behind a log: rows by key, the greater revision wins.

use highwater::domain::id::{AccountId, ChannelId, Epoch, NotificationId, Position, QuarantineId};
use highwater::domain::partition::effect::{
    AccountRow, Counts, DeliveryRow, Effects, InstanceKey, InstanceRow, QuarantineRow, SeriesKey, TransitionRow,
    WindowRow,
};
use highwater::domain::partition::notification::Notification;
use highwater::domain::time::Timestamp;
use highwater::domain::webhook::event::Event;
use highwater::domain::webhook::rows::{Delivery, DeliveryId};
use std::collections::BTreeMap;

/// A store as plain maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) windows: BTreeMap<(SeriesKey, Timestamp, Position), WindowRow>,
    pub(crate) accounts: BTreeMap<(AccountId, Epoch), AccountRow>,
    pub(crate) instances: BTreeMap<InstanceKey, InstanceRow>,
    pub(crate) transitions: BTreeMap<(InstanceKey, u64), TransitionRow>,
    pub(crate) notifications: BTreeMap<NotificationId, Notification>,
    pub(crate) deliveries: BTreeMap<(NotificationId, ChannelId), DeliveryRow>,
    pub(crate) quarantine: BTreeMap<QuarantineId, QuarantineRow>,
    pub(crate) events: BTreeMap<NotificationId, Event>,
    pub(crate) owed: BTreeMap<DeliveryId, Delivery>,
}

impl Rows {
    pub(crate) fn take(&mut self, effects: Effects) {
        for row in effects.windows {
            let key = (row.series.clone(), row.start, row.part);
            newer(&mut self.windows, key, row, |row| row.revision);
        }
        for row in effects.accounts {
            newer(&mut self.accounts, (row.account.clone(), row.epoch), row, |row| row.revision);
        }
        for row in effects.instances {
            newer(&mut self.instances, row.key.clone(), row, |row| row.revision);
        }
        for row in effects.transitions {
            self.transitions.insert((row.key.clone(), row.sequence), row);
        }
        for row in effects.notifications {
            self.notifications.insert(row.id, row);
        }
        for row in effects.deliveries {
            newer(&mut self.deliveries, (row.notification, row.channel), row, |row| row.revision);
        }
        for event in effects.webhooks.events {
            self.events.insert(event.id, event);
        }
        for row in effects.webhooks.deliveries {
            newer(&mut self.owed, row.id, row, |row| row.revision);
        }
        for row in effects.quarantine {
            newer(&mut self.quarantine, row.id, row, |row| row.revision);
        }
    }
}

fn newer<K: Ord, V>(rows: &mut BTreeMap<K, V>, key: K, row: V, revision: impl Fn(&V) -> Position) {
    if rows.get(&key).is_none_or(|known| revision(known) <= revision(&row)) {
        rows.insert(key, row);
    }
}

/// Adds up counts of several batches.
pub(crate) fn add(sum: &mut Counts, counts: &Counts) {
    sum.events += counts.events;
    sum.duplicates += counts.duplicates;
    sum.conflicts += counts.conflicts;
    sum.late += counts.late;
    sum.late_uncorrected += counts.late_uncorrected;
    sum.ungrouped += counts.ungrouped;
    sum.sown += counts.sown;
}
