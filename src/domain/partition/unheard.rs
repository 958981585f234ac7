//! What a channel has not heard: the messages that it lost, for as long as they say how their instance stands. They are
//! sent once more when the channel takes messages again; a channel that an edit adds to an alert hears what fires.
//! All of it from engine version 3 on.

use super::account::Account;
use super::alerts::Compiled;
use super::changes::Turn;
use super::effect::{DeliveryRow, DeliveryStatus, InstanceKey, Reason, State};
use super::fact::V3;
use super::judge::Cause;
use super::notification::{Attempted, Notification, NotificationKind};
use super::state::Partition;
use super::tell::{Message, Site, World, set};
use crate::domain::definition::AlertDefinition;
use crate::domain::id::{ChannelId, Log, NotificationId, Tenant};
use crate::domain::limits::{LOST_MESSAGES_KEPT_FOR, LOST_MESSAGES_KEPT_MAX};
use crate::domain::time::Timestamp;
use crate::domain::webhook::event::{Content, Source};
use crate::domain::webhook::kind::EventType;
use crate::domain::webhook::outbox::Concern;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// A message that a channel lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lost {
    notification: Notification,
    attempts: u32,
    /// Whether the channel takes messages again and a silence holds this one.
    held: bool,
}

/// What channels have not heard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unheard {
    /// The newest lost message of each instance.
    lost: BTreeMap<ChannelId, BTreeMap<InstanceKey, Lost>>,
    /// How often what is sent once more was tried before.
    tried: BTreeMap<(NotificationId, ChannelId), u32>,
}

impl Unheard {
    /// Forgets what was lost long ago: a channel that is gone never takes messages again.
    pub(super) fn prune(&mut self, clock: Timestamp) {
        let oldest = clock.minus(LOST_MESSAGES_KEPT_FOR);
        self.lost.retain(|_, lost| {
            lost.retain(|_, lost| lost.notification.recorded_at >= oldest);
            !lost.is_empty()
        });
    }

    /// Counts on from the attempts of earlier rounds.
    fn count_on(&mut self, rows: &mut [DeliveryRow]) {
        for row in rows {
            let pair = (row.notification, row.channel);
            let Some(before) = self.tried.get(&pair).copied() else { continue };
            row.attempts = row.attempts.saturating_add(before);
            if row.status != DeliveryStatus::Pending {
                self.tried.remove(&pair);
            }
        }
    }

    /// A channel took a message: what it lost of the instance before is no longer how that stands.
    fn hear(&mut self, channel: ChannelId, notification: &Notification) {
        if !says_state(notification.kind) {
            return;
        }
        let Some(lost) = self.lost.get_mut(&channel) else { return };
        if lost.get(&notification.key).is_some_and(|lost| lost.notification.sequence <= notification.sequence) {
            lost.remove(&notification.key);
        }
        if lost.is_empty() {
            self.lost.remove(&channel);
        }
    }

    fn lose(&mut self, channel: ChannelId, notification: &Notification, attempts: u32) {
        let lost = self.lost.entry(channel).or_default();
        let newest = lost.get(&notification.key).is_none_or(|lost| lost.notification.sequence <= notification.sequence);
        let has_room = lost.len() < LOST_MESSAGES_KEPT_MAX || lost.contains_key(&notification.key);
        if says_state(notification.kind) && newest && has_room {
            lost.insert(notification.key.clone(), Lost { notification: notification.clone(), attempts, held: false });
        }
        if lost.is_empty() {
            self.lost.remove(&channel);
        }
    }
}

/// Whether a message says how its instance stands.
const fn says_state(kind: NotificationKind) -> bool {
    match kind {
        NotificationKind::Firing | NotificationKind::Resolved | NotificationKind::NoData => true,
        NotificationKind::Corrected | NotificationKind::Pending | NotificationKind::Test => false,
    }
}

/// What becomes of a lost message when its channel takes messages again.
enum Fate {
    /// It says how the instance stands: it is sent.
    Sent,
    /// It does, and a silence holds it.
    Held,
    /// The instance stands otherwise, or something else that is on its way says so.
    Forgotten,
}

impl Partition {
    /// Takes in what came of an attempt to deliver.
    pub(super) fn take_attempt(&mut self, attempted: &Attempted, turn: &mut Turn<'_>) {
        let owed = self.debts.get(attempted.id, attempted.channel).filter(|_| self.engine_version >= V3);
        let notification = owed.map(|owed| owed.notification.clone());
        let before = turn.effects.deliveries.len();
        self.debts.attempted(attempted, turn.stamp, &mut turn.effects.deliveries);
        let Some(notification) = notification else { return };
        let rows = turn.effects.deliveries.get_mut(before..).unwrap_or_default();
        self.unheard.count_on(rows);
        let of_pair = |row: &&DeliveryRow| (row.notification, row.channel) == (attempted.id, attempted.channel);
        let Some((status, attempts)) = rows.iter().find(of_pair).map(|row| (row.status, row.attempts)) else { return };
        match status {
            DeliveryStatus::Pending | DeliveryStatus::Superseded => {}
            DeliveryStatus::Dropped => {
                // The channel was deleted.
                self.unheard.lost.remove(&attempted.channel);
            }
            DeliveryStatus::Succeeded => self.unheard.hear(attempted.channel, &notification),
            DeliveryStatus::Failed => {
                self.unheard.lose(attempted.channel, &notification, attempts);
                self.tell_exhausted(attempted.channel, &notification, attempts, turn);
            }
        }
    }

    /// Tells endpoints that a channel lost a message.
    fn tell_exhausted(&mut self, channel: ChannelId, notification: &Notification, attempts: u32, turn: &mut Turn<'_>) {
        let (tenant, kind) = (notification.key.tenant, EventType::DeliveryExhausted);
        if !self.outbox.wants(tenant, kind) {
            return;
        }
        let about_alert = notification.is_about_alert();
        let data = json!({
            "delivery_id": notification.id, "webhook_id": null, "channel_id": channel, "event_id": notification.id,
            "event_type": notification.kind.event_type().name(), "attempts": attempts,
            "alert_id": about_alert.then_some(notification.key.alert), "account_id": notification.key.account,
            "metric": notification.key.metric, "severity": notification.severity.name(),
        });
        let alert = self.tenants.get(&tenant).and_then(|state| state.alerts.get(&notification.key.alert));
        let concern = Concern::of(alert.and_then(|compiled| compiled.definition.project));
        let mut source = Source { log: Log::Partition(self.id), stamp: turn.stamp, index: turn.index };
        let event = source.event(tenant, kind, turn.stamp.recorded_at, Content::json(&data));
        self.outbox.publish(event, concern, turn.stamp, &mut turn.effects.webhooks);
    }

    /// Sends a channel what it has not heard: what waits for a retry is due at once, and of what it lost each message that
    /// says how its instance stands is sent once more, under its id.
    pub(super) fn repair_channel(&mut self, tenant: Tenant, channel: ChannelId, turn: &mut Turn<'_>) {
        if self.engine_version < V3 {
            return;
        }
        let before = turn.effects.deliveries.len();
        self.debts.hasten(channel, turn.stamp, &mut turn.effects.deliveries);
        self.send_lost(channel, turn, |lost| lost.notification.key.tenant == tenant);
        self.unheard.count_on(turn.effects.deliveries.get_mut(before..).unwrap_or_default());
    }

    /// Sends what repaired channels lost and a silence held, now that one has ended.
    pub(super) fn send_held(&mut self, tenant: Tenant, turn: &mut Turn<'_>) {
        let is_held = |lost: &Lost| lost.held && lost.notification.key.tenant == tenant;
        let mut channels: Vec<ChannelId> = Vec::new();
        for (channel, lost) in &self.unheard.lost {
            channels.extend(lost.values().any(is_held).then_some(*channel));
        }
        for channel in channels {
            let before = turn.effects.deliveries.len();
            self.send_lost(channel, turn, is_held);
            self.unheard.count_on(turn.effects.deliveries.get_mut(before..).unwrap_or_default());
        }
    }

    /// Sends once more what a channel lost of what is asked for, where it still says how its instance stands.
    fn send_lost(&mut self, channel: ChannelId, turn: &mut Turn<'_>, is_asked: impl Fn(&Lost) -> bool) {
        let outstanding = self.debts.outstanding();
        let of_channel = outstanding.filter(|owed| owed.channel == channel && says_state(owed.notification.kind));
        let on_its_way: BTreeSet<InstanceKey> = of_channel.map(|owed| owed.notification.key.clone()).collect();
        let lost = self.unheard.lost.remove(&channel).unwrap_or_default();
        let mut kept = BTreeMap::new();
        for (key, lost) in lost {
            if !is_asked(&lost) {
                kept.insert(key, lost);
                continue;
            }
            let fate = if on_its_way.contains(&key) { Fate::Forgotten } else { self.fate_of(&lost.notification) };
            match fate {
                Fate::Sent => {
                    self.unheard.tried.insert((lost.notification.id, channel), lost.attempts);
                    let row = self.debts.owe_again(&lost.notification, channel, turn.stamp);
                    turn.effects.deliveries.push(row);
                }
                Fate::Held => {
                    kept.insert(key, Lost { held: true, ..lost });
                }
                Fate::Forgotten => {}
            }
        }
        if !kept.is_empty() {
            self.unheard.lost.insert(channel, kept);
        }
    }

    fn fate_of(&self, notification: &Notification) -> Fate {
        let key = &notification.key;
        let state = self.tenants.get(&key.tenant);
        let slot = state.and_then(|state| state.accounts.get(&key.account));
        let account = slot.and_then(|slot| self.accounts.get(*slot));
        let account = account.filter(|account| account.epoch == notification.epoch);
        let instance = account.and_then(|account| account.instances.find(key.alert, key.metric.as_ref()));
        let stands = instance.map(|instance| instance.state);
        // What is held of the present firing may never be told: then its end closes the earlier one.
        let waits = notification.kind == NotificationKind::Resolved
            && instance.is_some_and(|instance| instance.state == State::Firing && instance.told.is_none());
        let says = match notification.kind {
            NotificationKind::Firing => stands == Some(State::Firing),
            NotificationKind::NoData => stands == Some(State::NoData),
            // Whoever heard of the firing is to hear of its end, also of an alert that is gone.
            NotificationKind::Resolved => stands != Some(State::Firing),
            NotificationKind::Corrected | NotificationKind::Pending | NotificationKind::Test => false,
        };
        let compiled = state.and_then(|state| state.alerts.get(&key.alert));
        let at = self.tenant_clock(key.tenant);
        let is_silenced = state
            .zip(compiled)
            .is_some_and(|(state, compiled)| state.is_silenced(compiled, &key.account, key.metric.as_ref(), at));
        match (says, is_silenced && notification.kind != NotificationKind::Resolved) {
            (true, false) => Fate::Sent,
            (true, true) => Fate::Held,
            (false, _) if waits => Fate::Held,
            (false, _) => Fate::Forgotten,
        }
    }

    /// Sends a message once more because somebody asks for it.
    pub(super) fn redeliver(
        &mut self,
        channel: ChannelId,
        notification: &Notification,
        attempts: u32,
        turn: &mut Turn<'_>,
    ) {
        if self.engine_version < V3 || notification.partition != self.id {
            return;
        }
        // A channel would hear last how its instance does not stand.
        if says_state(notification.kind) && matches!(self.fate_of(notification), Fate::Forgotten) {
            return;
        }
        if self.debts.get(notification.id, channel).is_none() {
            self.unheard.tried.insert((notification.id, channel), attempts);
        }
        let mut row = [self.debts.owe_again(notification, channel, turn.stamp)];
        self.unheard.count_on(&mut row);
        turn.effects.deliveries.extend(row);
    }

    /// Tells channels that an edit added to an alert what of it fires.
    pub(super) fn tell_added(
        &mut self,
        tenant: Tenant,
        (old, new): (Option<&Compiled>, &AlertDefinition),
        at: Timestamp,
        turn: &mut Turn<'_>,
    ) {
        let Some(old) = old.filter(|_| self.engine_version >= V3) else { return };
        let known = &old.definition.channels;
        let added: Vec<ChannelId> = new.channels.iter().copied().filter(|channel| !known.contains(channel)).collect();
        if added.is_empty() {
            return;
        }
        let cause = Cause::of(Reason::ChannelAdded, at);
        self.each_covered(tenant, &[&new.account], turn, |world, state, account| {
            let Some(compiled) = state.alerts.get(&new.id).filter(|compiled| !compiled.paused) else { return };
            for place in account.instances.places_of(new.id).to_vec() {
                let site = Site { tenant: state, compiled, window: state.newest_closed(), cause };
                world.tell_added(site, account, place, &added);
            }
        });
    }
}

impl World<'_> {
    /// Tells channels what lasts that were added while a silence held it.
    pub(super) fn tell_added_meanwhile(&mut self, site: Site<'_>, account: &mut Account, place: usize) {
        let Some(instance) = account.instances.get_mut(place).filter(|instance| instance.told.is_some()) else {
            return;
        };
        let told = instance.told.as_ref().map(|told| told.channels.clone()).unwrap_or_default();
        let mut channels = site.compiled.definition.channels.clone();
        channels.retain(|channel| !told.contains(channel));
        if channels.is_empty() || !self.is_v3() {
            return;
        }
        if site.cause.stale {
            instance.held = true;
        } else {
            self.tell_added(site, account, place, &channels);
        }
    }

    fn tell_added(&mut self, site: Site<'_>, account: &mut Account, place: usize, added: &[ChannelId]) {
        let silenced = site.is_silenced(account, place);
        let Some(instance) = account.instances.get(place) else { return };
        let (state, first) = (instance.state, instance.told.clone());
        let kind = match state {
            State::Firing => NotificationKind::Firing,
            State::NoData if first.is_some() => NotificationKind::NoData,
            State::Ok | State::Pending | State::NoData | State::Inconclusive => return,
        };
        // They may have heard of it before they left the alert, or hear of it by what the edit made fire.
        let known = instance.key(account);
        let known = self.debts.channels_of(&known);
        let channels: Vec<ChannelId> = added.iter().copied().filter(|channel| !known.contains(channel)).collect();
        if silenced || channels.is_empty() {
            return;
        }
        let message = Message {
            kind,
            reason: Reason::ChannelAdded,
            follows: first.as_ref().map(|told| told.id).filter(|_| kind == NotificationKind::Firing),
            reminders: Vec::new(),
            fired_meanwhile: 0,
            channels,
        };
        let again = self.transit(site, account, place, (state, Reason::ChannelAdded), Some(message));
        let told = match (first, again) {
            (Some(mut first), Some(again)) => {
                first.reminders.push(again.id);
                first.channels.extend(again.channels);
                first.channels.sort_unstable();
                first.channels.dedup();
                Some(first)
            }
            (first, again) => first.or(again),
        };
        set(account, place, |instance| instance.told = told);
        self.touch(site.tenant, account, place, site.cause.at);
    }
}
