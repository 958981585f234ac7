//! Performing a step: the transition row, the notification where one is due, the timers and the debts.

use super::debts::Debts;
use super::effect::{Effects, InstanceKey, InstanceRow, Reason, State, TransitionRow};
use super::instance::{Decided, Instance, Missed, Step, Told};
use super::judge::Cause;
use super::notification::{Notification, NotificationKind, notification_id};
use super::state::{Account, Compiled, Dirty, Due, Horizons, TenantState};
use super::values::View;
use crate::domain::id::{ChannelId, NotificationId, PartitionId, Stamp};
use crate::domain::time::Timestamp;
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
    pub(super) timers: &'a mut BTreeSet<(Timestamp, Due)>,
    pub(super) dirty: &'a mut Dirty,
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
struct Message {
    kind: NotificationKind,
    reason: Reason,
    follows: Option<NotificationId>,
    fired_meanwhile: u32,
    channels: Vec<ChannelId>,
}

impl Site<'_> {
    fn is_silenced(&self, account: &Account, place: usize) -> bool {
        let metric = account.instances.get(place).and_then(|instance| instance.metric.as_ref());
        self.tenant.is_silenced(self.compiled, &account.name, metric, self.cause.at)
    }

    fn view<'v>(&'v self, account: &'v Account, place: usize) -> View<'v> {
        let own = account.instances.get(place).and_then(|instance| instance.metric.as_ref());
        View { tenant: self.tenant, account, own, window: self.window, at: self.cause.at }
    }

    /// The step's own reason, or what led to it where that says more.
    const fn reason(&self, step: Reason) -> Reason {
        if matches!(step, Reason::Condition) { self.cause.reason } else { step }
    }
}

impl World<'_> {
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
        let known = !key.is_empty() && instance.told_for == key;
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
            fired_meanwhile,
            channels: site.compiled.definition.channels.clone(),
        });
        let told = self.transit(site, account, place, (State::Firing, reason), message);
        self.note_told(site, account, place, told, key);
    }

    /// Remembers that people know of the present firing.
    fn note_told(
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
        if site.compiled.reads_window() {
            instance.fired_in = Some((site.window, told.clone()));
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
        let Some(instance) = account.instances.get_mut(place) else { return };
        let told = instance.told.take();
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
        let message = told.map(|told| resolved(told, reason, fired_meanwhile));
        self.transit(site, account, place, (to, reason), message);
    }

    fn tell_no_data(&mut self, site: Site<'_>, account: &mut Account, place: usize) {
        let silenced = site.is_silenced(account, place);
        let Some(instance) = account.instances.get_mut(place) else { return };
        let follows = instance.told.as_ref().map(|told| told.id);
        instance.false_since = None;
        instance.repeat_at = None;
        let message = (!silenced && !site.cause.stale).then(|| Message {
            kind: NotificationKind::NoData,
            reason: Reason::NoData,
            follows,
            fired_meanwhile: 0,
            channels: site.compiled.definition.channels.clone(),
        });
        let told = self.transit(site, account, place, (State::NoData, Reason::NoData), message);
        if let (Some(told), Some(instance)) = (told, account.instances.get_mut(place)) {
            instance.told = Some(told);
        }
    }

    /// Tells a firing again: repeats, a silence that ended, a changed limit.
    pub(super) fn remind(&mut self, site: Site<'_>, account: &mut Account, place: usize, reason: Reason) {
        let silenced = site.is_silenced(account, place);
        let key = quota_key(site, account, place);
        let Some(instance) = account.instances.get_mut(place) else { return };
        let wanted = if reason == Reason::SilenceEnded {
            instance.held
        } else {
            reason != Reason::Redefined || (instance.told_for != key && !key.is_empty())
        };
        if instance.state != State::Firing || !wanted {
            return;
        }
        if reason == Reason::Repeat {
            instance.repeat_at = Some(site.cause.at.plus(site.compiled.definition.repeat_interval));
        }
        if silenced || site.cause.stale {
            instance.held |= silenced && reason != Reason::Repeat;
            return;
        }
        let first = instance.told.clone();
        let message = Message {
            kind: NotificationKind::Firing,
            reason,
            follows: first.as_ref().map(|told| told.id),
            fired_meanwhile: 0,
            channels: site.compiled.definition.channels.clone(),
        };
        let told = self.transit(site, account, place, (State::Firing, reason), Some(message));
        // A resolve follows the first message of a firing, so that threads and receivers find it.
        let kept = if reason == Reason::Repeat { first.or(told) } else { told };
        self.note_told(site, account, place, kept, key);
    }

    /// Tells in one message how an instance stands after times that were passed over in silence.
    fn catch_up(&mut self, site: Site<'_>, account: &mut Account, place: usize, missed: Missed) {
        let silenced = site.is_silenced(account, place);
        let key = quota_key(site, account, place);
        let Some(instance) = account.instances.get(place) else { return };
        let reason = Reason::CaughtUp;
        if instance.state == State::Firing {
            let known = !key.is_empty() && instance.told_for == key;
            if instance.told.is_some() || known {
                return;
            }
            if silenced {
                set(account, place, |instance| instance.held = true);
                return;
            }
            let channels = site.compiled.definition.channels.clone();
            let message = Message {
                kind: NotificationKind::Firing,
                reason,
                follows: None,
                fired_meanwhile: missed.fired,
                channels,
            };
            let told = self.transit(site, account, place, (State::Firing, reason), Some(message));
            self.note_told(site, account, place, told, key);
            return;
        }
        let state = instance.state;
        let message = match missed.ended {
            Some(told) => Some(resolved(told, reason, missed.fired)),
            None if missed.fired > 0 && !silenced => Some(Message {
                kind: NotificationKind::Resolved,
                reason,
                follows: None,
                fired_meanwhile: missed.fired,
                channels: site.compiled.definition.channels.clone(),
            }),
            None => None,
        };
        if message.is_some() {
            self.transit(site, account, place, (state, reason), message);
        }
    }

    /// Tells that a late event overturned what an older window had decided.
    pub(super) fn correct(&mut self, site: Site<'_>, account: &mut Account, place: usize, before: &Decided) {
        let silenced = site.is_silenced(account, place);
        let Some(state) = account.instances.get(place).map(|instance| instance.state) else { return };
        let fired = before.verdict == crate::domain::rule::Verdict::True;
        let reason = if fired { Reason::Retraction } else { Reason::LateFire };
        let message = match (&before.told, fired) {
            (Some(told), true) => Some((Some(told.id), told.channels.clone())),
            (None, true) => None,
            (_, false) if silenced => None,
            (_, false) => Some((None, site.compiled.definition.channels.clone())),
        };
        let message = message.map(|(follows, channels)| Message {
            kind: NotificationKind::Corrected,
            reason,
            follows,
            fired_meanwhile: 0,
            channels,
        });
        self.transit(site, account, place, (state, reason), message);
        self.touch(account, place, site.cause.at);
    }

    /// Ends an instance's episode for a reason that is not its condition: pause, deletion, the end of a period.
    pub(super) fn reset(&mut self, site: Site<'_>, account: &mut Account, place: usize, reason: Reason) {
        let Some(instance) = account.instances.get(place) else { return };
        match instance.state {
            State::Firing => self.resolve(site, account, place, (State::Ok, reason), 0),
            State::NoData if instance.told.is_some() => self.resolve(site, account, place, (State::Ok, reason), 0),
            State::Pending | State::NoData | State::Inconclusive => {
                self.transit(site, account, place, (State::Ok, reason), None);
            }
            State::Ok => {}
        }
        self.set_timer(site, account, place);
        self.touch(account, place, site.cause.at);
    }

    /// Records a transition, with the notification that goes with it.
    fn transit(
        &mut self,
        site: Site<'_>,
        account: &mut Account,
        place: usize,
        (to, reason): (State, Reason),
        message: Option<Message>,
    ) -> Option<Told> {
        let evidence = site.view(account, place).evidence(site.compiled);
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
        let notification = message.filter(|message| !message.channels.is_empty()).map(|message| Notification {
            id: notification_id(&key, epoch, period, instance.sequence),
            kind: message.kind,
            reason: message.reason,
            key: key.clone(),
            epoch,
            sequence: instance.sequence,
            state: to,
            alert_name: definition.name.clone(),
            message: definition.message.clone(),
            severity: definition.severity,
            labels: definition.labels.clone(),
            evidence: evidence.clone(),
            follows: message.follows,
            fired_meanwhile: message.fired_meanwhile,
            at: site.cause.at,
            recorded_at: self.stamp.recorded_at,
            accepted_at: site.cause.accepted_at,
            partition: self.partition,
            position: self.stamp.position,
            index: *self.index,
            channels: message.channels,
        });
        let told = notification.as_ref().map(|n| Told { id: n.id, channels: n.channels.clone() });
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
        if let Some(notification) = notification {
            *self.index = self.index.saturating_add(1);
            self.effects.deliveries.extend(self.debts.owe(&notification, self.stamp));
            self.effects.notifications.push(notification);
        }
        told
    }

    /// Marks an instance as one whose row is to be stored.
    pub(super) fn touch(&mut self, account: &mut Account, place: usize, at: Timestamp) {
        let Some(instance) = account.instances.get_mut(place) else { return };
        instance.dirty = true;
        instance.touched = self.stamp.position;
        instance.evaluated_at = at;
        if !std::mem::replace(&mut account.dirty, true) {
            self.dirty.accounts.push(account.slot);
        }
    }

    /// Stores at once that an instance is gone.
    pub(super) fn remove(&mut self, account: &Account, instance: &Instance, at: Timestamp) {
        self.effects.instances.push(InstanceRow {
            key: InstanceKey {
                tenant: account.tenant,
                alert: instance.alert,
                account: account.name.clone(),
                metric: instance.metric.clone(),
            },
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
        let due = instance.due(&site.compiled.definition).map(|at| at.minus(site.tenant.advance));
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

fn resolved(told: Told, reason: Reason, fired_meanwhile: u32) -> Message {
    Message {
        kind: NotificationKind::Resolved,
        reason,
        follows: Some(told.id),
        fired_meanwhile,
        channels: told.channels,
    }
}

fn set(account: &mut Account, place: usize, change: impl FnOnce(&mut Instance)) {
    if let Some(instance) = account.instances.get_mut(place) {
        change(instance);
    }
}

fn quota_key(site: Site<'_>, account: &Account, place: usize) -> Vec<(Timestamp, crate::domain::quantity::Quantity)> {
    let view = site.view(account, place);
    site.compiled.rule.as_ref().map(|program| view.quota_key(program)).unwrap_or_default()
}
