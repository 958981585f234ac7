//! Performing a step: the transition row, the notification where one is due, the timers and the debts.

use super::account::Account;
use super::alerts::Compiled;
use super::debts::Debts;
use super::effect::{Effects, InstanceKey, InstanceRow, Reason, State, TransitionRow};
use super::endpoint_event::{closing_event, event_of, note_event};
use super::fact::{QUOTAS_TOLD, V3};
use super::instance::{Instance, Step, Told};
use super::judge::Cause;
use super::notification::{Notification, NotificationKind, notification_id};
use super::state::{Dirty, Due, Horizons, TenantState};
use super::values::View;
use crate::domain::id::{ChannelId, Log, NotificationId, PartitionId, Stamp};
use crate::domain::time::Timestamp;
use crate::domain::webhook::event::{Content, Event};
use crate::domain::webhook::outbox::{Concern, Outbox};
use std::collections::BTreeSet;

/// Everything that a decision may change apart from the account itself.
pub(super) struct World<'a> {
    pub(super) partition: PartitionId,
    pub(super) stamp: Stamp,
    /// How many notifications this record has caused.
    pub(super) index: &'a mut u32,
    pub(super) horizons: Horizons,
    pub(super) effects: &'a mut Effects,
    pub(super) debts: &'a mut Debts,
    pub(super) outbox: &'a mut Outbox,
    pub(super) timers: &'a mut BTreeSet<(Timestamp, Due)>,
    pub(super) dirty: &'a mut Dirty,
    /// How the log asks to be folded.
    pub(super) engine_version: u32,
}

/// Where a decision was made.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub(super) tenant: &'a TenantState,
    pub(super) compiled: &'a Compiled,
    /// The window that was looked at.
    pub(super) window: Timestamp,
    pub(super) cause: Cause,
}

/// A message that a transition may cause.
pub(super) struct Message {
    pub(super) kind: NotificationKind,
    pub(super) reason: Reason,
    pub(super) follows: Option<NotificationId>,
    /// What else must settle before it.
    pub(super) reminders: Vec<NotificationId>,
    pub(super) fired_meanwhile: u32,
    pub(super) channels: Vec<ChannelId>,
}

impl Site<'_> {
    pub(super) fn is_silenced(&self, account: &Account, place: usize) -> bool {
        let metric = account.instances.get(place).and_then(|instance| instance.metric.as_ref());
        self.tenant.is_silenced(self.compiled, &account.name, metric, self.cause.at)
    }

    fn view<'v>(&'v self, account: &'v Account, place: usize) -> View<'v> {
        let instance = account.instances.get(place);
        let own = instance.and_then(|instance| instance.metric.as_ref());
        // What is told again of a firing that an open window proves rests on that window, and not on the closed one.
        let fires = instance.filter(|instance| instance.state == State::Firing && self.tenant.engine_version >= V3);
        let early = fires.and_then(|instance| instance.early).filter(|start| *start >= self.tenant.closed);
        // A correction is about the window that it names.
        let names_newest = self.window == self.tenant.newest_closed();
        let window = early.filter(|_| names_newest).unwrap_or(self.window);
        View { tenant: self.tenant, account, own, window, at: self.cause.at }
    }

    /// The step's own reason, or what led to it where that says more.
    const fn reason(&self, step: Reason) -> Reason {
        if matches!(step, Reason::Condition) { self.cause.reason } else { step }
    }
}

impl World<'_> {
    /// Whether the log asks for events about quotas.
    pub(super) const fn tells_quotas(&self) -> bool {
        self.engine_version >= QUOTAS_TOLD
    }

    /// Whether the log asks for the semantics of engine version 3.
    pub(super) const fn is_v3(&self) -> bool {
        self.engine_version >= V3
    }

    /// Performs a step, and tells in one message what was missed before.
    pub(super) fn perform(&mut self, site: Site<'_>, account: &mut Account, place: usize, step: Step) {
        let missed = match account.instances.get_mut(place) {
            Some(instance) if !site.cause.stale => instance.missed.take(),
            Some(_) => None,
            None => return,
        };
        let told_before = *self.index;
        self.take_step(site, account, place, step, missed.as_ref().map_or(0, |missed| missed.fired));
        if let Some(missed) = missed.filter(|_| *self.index == told_before) {
            self.catch_up(site, account, place, missed);
        }
        self.set_timer(site, account, place);
    }

    fn take_step(&mut self, site: Site<'_>, account: &mut Account, place: usize, step: Step, fired_meanwhile: u32) {
        let at = site.cause.at;
        match step {
            Step::Stay => {}
            Step::Fade => set(account, place, |instance| instance.false_since = Some(at)),
            Step::Revive => set(account, place, |instance| instance.false_since = None),
            Step::Become(state) => {
                set(account, place, |instance| instance.held = false);
                self.transit(site, account, place, (state, site.reason(Reason::Condition)), None);
            }
            Step::Fire(reason) => self.fire(site, account, place, site.reason(reason), fired_meanwhile),
            Step::Resolve(reason, to) => self.resolve(site, account, place, (to, site.reason(reason)), fired_meanwhile),
            Step::TellNoData => self.tell_no_data(site, account, place),
            Step::Remind(reason) => self.remind(site, account, place, reason),
        }
    }

    fn fire(&mut self, site: Site<'_>, account: &mut Account, place: usize, reason: Reason, fired_meanwhile: u32) {
        let silenced = site.is_silenced(account, place);
        let key = quota_key(site, account, place);
        let Some(instance) = account.instances.get_mut(place) else { return };
        let known = !key.is_empty() && instance.told_for == key && !self.is_v3();
        instance.false_since = None;
        instance.told = None;
        instance.held = silenced && !known;
        instance.repeat_at = None;
        if site.cause.stale {
            instance.held = false;
            let missed = instance.missed.get_or_insert_default();
            missed.fired = missed.fired.saturating_add(1);
        }
        let message = (!known && !silenced && !site.cause.stale).then(|| Message {
            kind: NotificationKind::Firing,
            reason,
            follows: None,
            reminders: Vec::new(),
            fired_meanwhile,
            channels: site.compiled.definition.channels.clone(),
        });
        let told = self.transit(site, account, place, (State::Firing, reason), message);
        self.note_fired_in(site, account, place, told.as_ref());
        self.note_told(site, account, place, told, key);
    }

    /// Remembers which window people were told of.
    fn note_fired_in(&mut self, site: Site<'_>, account: &mut Account, place: usize, told: Option<&Told>) {
        if let (Some(told), true) = (told, site.compiled.reads_window()) {
            set(account, place, |instance| instance.fired_in = Some((site.window, told.clone())));
        }
    }

    /// Remembers that people know of the present firing.
    pub(super) fn note_told(
        &mut self,
        site: Site<'_>,
        account: &mut Account,
        place: usize,
        told: Option<Told>,
        key: Vec<(Timestamp, crate::domain::quantity::Quantity)>,
    ) {
        let (Some(told), Some(instance)) = (told, account.instances.get_mut(place)) else { return };
        if key.is_empty() {
            instance.repeat_at = Some(site.cause.at.plus(site.compiled.definition.repeat_interval));
        }
        instance.told_for = key;
        instance.held = false;
        instance.told = Some(told);
    }

    fn resolve(
        &mut self,
        site: Site<'_>,
        account: &mut Account,
        place: usize,
        (to, reason): (State, Reason),
        fired_meanwhile: u32,
    ) {
        let Some(key) = account.instances.get(place).map(|instance| instance.key(account)) else { return };
        let Some(instance) = account.instances.get_mut(place) else { return };
        let told = instance.told.take().or_else(|| {
            // Nothing was told of this firing, and what was told of an earlier one is still open somewhere.
            let (id, channels) = self.debts.left_open(&key)?;
            Some(Told { id, channels, reminders: Vec::new() })
        });
        instance.false_since = None;
        instance.held = false;
        instance.repeat_at = None;
        instance.early = None;
        if site.cause.stale
            && let Some(told) = told
        {
            instance.missed.get_or_insert_default().ended = Some(told);
            self.transit(site, account, place, (to, reason), None);
            return;
        }
        let message = told.map(|told| self.resolved(account, place, told, (reason, fired_meanwhile)));
        self.transit(site, account, place, (to, reason), message);
    }

    /// Makes the resolve of what people were told, and lets the next firing be told, in the same period too.
    pub(super) fn resolved(
        &self,
        account: &mut Account,
        place: usize,
        told: Told,
        (reason, fired_meanwhile): (Reason, u32),
    ) -> Message {
        let mut message = resolved(told, reason, fired_meanwhile);
        let key = account.instances.get(place).map(|instance| instance.key(account));
        if self.is_v3()
            && let (Some(key), Some(instance)) = (key, account.instances.get_mut(place))
        {
            instance.told_for.clear();
            // Also those that heard of an earlier firing, or of missing data, and that the alert has left since.
            message.channels.extend(self.debts.channels_of(&key));
            message.channels.sort_unstable();
            message.channels.dedup();
        }
        message
    }

    pub(super) fn tell_no_data(&mut self, site: Site<'_>, account: &mut Account, place: usize) {
        let silenced = site.is_silenced(account, place);
        let Some(instance) = account.instances.get_mut(place) else { return };
        let follows = instance.told.as_ref().map(|told| told.id);
        let reminders = instance.told.as_ref().map(|told| told.reminders.clone()).unwrap_or_default();
        instance.false_since = None;
        instance.repeat_at = None;
        instance.held = silenced && !site.cause.stale;
        if site.cause.stale {
            let told = instance.told.take();
            let missed = instance.missed.get_or_insert_default();
            missed.ended = told.or(missed.ended.take());
        }
        let message = (!silenced && !site.cause.stale).then(|| Message {
            kind: NotificationKind::NoData,
            reason: Reason::NoData,
            follows,
            reminders,
            fired_meanwhile: 0,
            channels: site.compiled.definition.channels.clone(),
        });
        let told = self.transit(site, account, place, (State::NoData, Reason::NoData), message);
        if let (Some(told), Some(instance)) = (told, account.instances.get_mut(place)) {
            instance.told = Some(told);
        }
    }

    /// Tells of missing data that a silence held.
    pub(super) fn tell_held_no_data(&mut self, site: Site<'_>, account: &mut Account, place: usize) {
        let silenced = site.is_silenced(account, place);
        let Some(instance) = account.instances.get_mut(place) else { return };
        if instance.state != State::NoData || !instance.held || silenced || site.cause.stale {
            return;
        }
        instance.held = false;
        let told = instance.told.take();
        let message = Message {
            kind: NotificationKind::NoData,
            reason: Reason::SilenceEnded,
            follows: told.as_ref().map(|told| told.id),
            reminders: told.map(|told| told.reminders).unwrap_or_default(),
            fired_meanwhile: 0,
            channels: site.compiled.definition.channels.clone(),
        };
        let told = self.transit(site, account, place, (State::NoData, Reason::SilenceEnded), Some(message));
        set(account, place, |instance| instance.told = told);
    }

    /// Ends an instance's episode for a reason that is not its condition: pause, deletion, the end of a period.
    pub(super) fn reset(&mut self, site: Site<'_>, account: &mut Account, place: usize, reason: Reason) {
        let Some(instance) = account.instances.get(place) else { return };
        match instance.state {
            State::Firing => self.resolve(site, account, place, (State::Ok, reason), 0),
            State::NoData if instance.told.is_some() => self.resolve(site, account, place, (State::Ok, reason), 0),
            State::Pending | State::Inconclusive if self.is_v3() && instance.told.is_some() => {
                self.resolve(site, account, place, (State::Ok, reason), 0);
            }
            State::Pending | State::NoData | State::Inconclusive => {
                set(account, place, |instance| instance.held = false);
                self.transit(site, account, place, (State::Ok, reason), None);
            }
            State::Ok => {}
        }
        self.set_timer(site, account, place);
        self.touch(site.tenant, account, place, site.cause.at);
    }

    /// Records a transition, with the notification that goes with it.
    pub(super) fn transit(
        &mut self,
        site: Site<'_>,
        account: &mut Account,
        place: usize,
        (to, reason): (State, Reason),
        message: Option<Message>,
    ) -> Option<Told> {
        let evidence = site.view(account, place).evidence(site.compiled);
        let silenced = site.is_silenced(account, place);
        let (tenant, name, epoch) = (account.tenant, account.name.clone(), account.epoch);
        let instance = account.instances.get_mut(place)?;
        instance.sequence = instance.sequence.saturating_add(1);
        let from = std::mem::replace(&mut instance.state, to);
        if from != to {
            instance.since = site.cause.at;
        }
        let key = InstanceKey { tenant, alert: instance.alert, account: name, metric: instance.metric.clone() };
        let period = evidence.quota.map_or(Timestamp(0), |quota| quota.start);
        let definition = &site.compiled.definition;
        let reminders = message.as_ref().map(|message| message.reminders.clone()).unwrap_or_default();
        let wanted = event_of((from, to, reason), message.as_ref(), site.cause.stale);
        let is_quiet = message.is_none() && !site.cause.stale;
        let wanted = wanted.or(closing_event(to, instance, is_quiet && self.engine_version >= V3));
        note_event(instance, wanted);
        let wanted = wanted.filter(|kind| self.outbox.wants(tenant, kind.event_type()));
        let sequence = instance.sequence;
        let id = notification_id(&key, epoch, period, sequence);
        let make = |kind: NotificationKind, follows, fired_meanwhile, channels| Notification {
            id,
            kind,
            reason,
            key: key.clone(),
            epoch,
            sequence,
            state: to,
            alert_name: definition.name.clone(),
            message: definition.message.clone(),
            severity: definition.severity,
            labels: definition.labels.clone(),
            evidence: evidence.clone(),
            follows,
            closes: Vec::new(),
            fired_meanwhile,
            at: site.cause.at,
            recorded_at: self.stamp.recorded_at,
            accepted_at: site.cause.accepted_at,
            partition: self.partition,
            position: self.stamp.position,
            index: *self.index,
            channels,
        };
        let event = wanted.map(|kind| {
            let plain = || make(kind, None, 0, Vec::new());
            message.as_ref().map_or_else(plain, |told| Notification {
                reason: told.reason,
                ..make(kind, told.follows, told.fired_meanwhile, Vec::new())
            })
        });
        let notification = message.filter(|message| !message.channels.is_empty()).map(|message| Notification {
            // A message may give a reason of its own.
            reason: message.reason,
            ..make(message.kind, message.follows, message.fired_meanwhile, message.channels)
        });
        if notification.is_some() {
            instance.repeat_missed = false;
        }
        let told =
            notification.as_ref().map(|n| Told { id: n.id, channels: n.channels.clone(), reminders: Vec::new() });
        self.effects.transitions.push(TransitionRow {
            key,
            epoch,
            sequence: instance.sequence,
            from,
            to,
            reason,
            at: site.cause.at,
            recorded_at: self.stamp.recorded_at,
            position: self.stamp.position,
            evidence,
            notification: told.as_ref().map(|told| told.id),
        });
        let is_sent = notification.is_some() || event.is_some();
        *self.index = self.index.saturating_add(u32::from(is_sent));
        if let Some(event) = event {
            self.publish(event, silenced, Concern::of(definition.project));
        }
        self.enqueue(notification, &reminders);
        told
    }

    fn enqueue(&mut self, notification: Option<Notification>, reminders: &[NotificationId]) {
        if let Some(notification) = notification {
            self.effects.deliveries.extend(self.debts.owe(&notification, reminders, self.stamp));
            self.effects.notifications.push(notification);
        }
    }

    /// Owes an event to the endpoints that want it.
    fn publish(&mut self, notification: Notification, silenced: bool, concern: Concern) {
        let event = Event {
            id: notification.id,
            tenant: notification.key.tenant,
            kind: notification.kind.event_type(),
            at: notification.at,
            log: Log::Partition(notification.partition),
            position: notification.position,
            index: notification.index,
            content: Content::Alert { notification: Box::new(notification), silenced },
        };
        self.outbox.publish(event, concern, self.stamp, &mut self.effects.webhooks);
    }

    /// Marks an instance as one whose row is to be stored.
    ///
    /// Its value is read when the row is handed over, or before what changes the value without touching the instance:
    /// a backfill, and anything at all while its alert is paused.
    pub(super) fn touch(&mut self, tenant: &TenantState, account: &mut Account, place: usize, at: Timestamp) {
        self.mark(account, place, at);
        let alert = account.instances.get(place).and_then(|instance| tenant.alerts.get(&instance.alert));
        if alert.is_some_and(|compiled| compiled.paused) {
            account.read_value(tenant, place);
        }
    }

    /// As [`Self::touch`], for an instance whose alert runs.
    pub(super) fn mark(&mut self, account: &mut Account, place: usize, at: Timestamp) {
        let Some(instance) = account.instances.get_mut(place) else { return };
        instance.unread = true;
        instance.touched = self.stamp.position;
        instance.evaluated_at = at;
        if std::mem::replace(&mut instance.dirty, true) {
            return;
        }
        if account.dirty.is_empty() {
            self.dirty.accounts.push(account.slot);
        }
        account.dirty.push(place);
    }

    /// Stores at once that an instance is gone.
    pub(super) fn remove(&mut self, account: &Account, instance: &Instance, at: Timestamp) {
        self.effects.instances.push(InstanceRow {
            key: instance.key(account),
            epoch: account.epoch,
            state: None,
            since: at,
            silenced: false,
            value: None,
            evaluated_at: at,
            revision: self.stamp.position,
        });
        if let Some(due) = instance.timer {
            self.timers.remove(&(due, due_key(account, instance)));
        }
    }

    pub(super) fn set_timer(&mut self, site: Site<'_>, account: &mut Account, place: usize) {
        let Some(instance) = account.instances.get(place) else { return };
        let due = site.compiled.due(instance, self.engine_version).map(|at| at.minus(site.tenant.advance));
        if due == instance.timer {
            return;
        }
        let key = due_key(account, instance);
        if let Some(old) = instance.timer {
            self.timers.remove(&(old, key.clone()));
        }
        if let Some(due) = due {
            self.timers.insert((due, key));
        }
        set(account, place, |instance| instance.timer = due);
    }
}

pub(super) fn due_key(account: &Account, instance: &Instance) -> Due {
    Due::Instance(account.tenant, account.name.clone(), instance.alert, instance.metric.clone())
}

pub(super) fn resolved(told: Told, reason: Reason, fired_meanwhile: u32) -> Message {
    Message {
        kind: NotificationKind::Resolved,
        reason,
        follows: Some(told.id),
        reminders: told.reminders,
        fired_meanwhile,
        channels: told.channels,
    }
}

pub(super) fn set(account: &mut Account, place: usize, change: impl FnOnce(&mut Instance)) {
    if let Some(instance) = account.instances.get_mut(place) {
        change(instance);
    }
}

pub(super) fn quota_key(
    site: Site<'_>,
    account: &Account,
    place: usize,
) -> Vec<(Timestamp, crate::domain::quantity::Quantity)> {
    let view = site.view(account, place);
    site.compiled.rule.as_ref().map(|program| view.quota_key(program)).unwrap_or_default()
}
