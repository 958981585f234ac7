//! What is told afterwards: that a firing lasts, how things stand after a pause in processing, that a decision was wrong.

use super::account::Account;
use super::effect::{Reason, State};
use super::instance::{Decided, Missed};
use super::judge::Cause;
use super::notification::NotificationKind;
use super::state::TenantState;
use super::tell::{Message, Site, World, quota_key, set};
use crate::domain::definition::NoDataPolicy;
use crate::domain::rule::Verdict;

impl World<'_> {
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
            instance.repeat_missed |= site.cause.stale && !silenced && reason == Reason::Repeat && self.is_v3();
            return;
        }
        let first = instance.told.clone();
        let message = Message {
            kind: NotificationKind::Firing,
            reason,
            follows: first.as_ref().map(|told| told.id),
            reminders: Vec::new(),
            fired_meanwhile: 0,
            channels: site.compiled.definition.channels.clone(),
        };
        let told = self.transit(site, account, place, (State::Firing, reason), Some(message));
        // A resolve follows the first message of a firing, so that threads and receivers find it, and waits for all.
        let kept = match (first, told) {
            (Some(mut first), Some(again)) => {
                first.reminders.retain(|reminder| self.debts.owes(*reminder));
                first.reminders.push(again.id);
                first.channels.extend(again.channels);
                first.channels.sort_unstable();
                first.channels.dedup();
                Some(first)
            }
            (first, told) => first.or(told),
        };
        self.note_told(site, account, place, kept, key);
    }

    /// Sends of an instance what a silence held and holds no longer.
    pub(super) fn tell_unsilenced(&mut self, state: &TenantState, account: &mut Account, place: usize, cause: Cause) {
        let Some(instance) = account.instances.get(place) else { return };
        let Some(compiled) = state.alerts.get(&instance.alert) else { return };
        let site = Site { tenant: state, compiled, window: state.newest_closed(), cause };
        self.remind(site, account, place, Reason::SilenceEnded);
        self.tell_held_no_data(site, account, place);
        self.tell_added_meanwhile(site, account, place);
        self.set_timer(site, account, place);
    }

    /// Tells in one message how an instance stands after times that were passed over in silence.
    pub(super) fn catch_up(&mut self, site: Site<'_>, account: &mut Account, place: usize, missed: Missed) {
        let silenced = site.is_silenced(account, place);
        let key = quota_key(site, account, place);
        let Some(instance) = account.instances.get(place) else { return };
        let reason = Reason::CaughtUp;
        if instance.state == State::Firing {
            let heard = missed.ended.is_some() || !self.is_v3();
            let known = !key.is_empty() && instance.told_for == key && heard;
            if instance.told.is_some() {
                return;
            }
            if known || silenced {
                // Who heard of the firing before still takes it to last.
                set(account, place, |instance| {
                    instance.held = !known;
                    instance.told = missed.ended;
                });
                return;
            }
            let channels = site.compiled.definition.channels.clone();
            let message = Message {
                kind: NotificationKind::Firing,
                reason,
                follows: None,
                reminders: Vec::new(),
                fired_meanwhile: missed.fired,
                channels,
            };
            let told = self.transit(site, account, place, (State::Firing, reason), Some(message));
            self.note_told(site, account, place, told, key);
            return;
        }
        let state = instance.state;
        if state == State::NoData && instance.told.is_some() {
            return;
        }
        if state == State::NoData && site.compiled.definition.no_data == NoDataPolicy::Alert && !silenced {
            set(account, place, |instance| instance.told = missed.ended);
            self.tell_no_data(site, account, place);
            return;
        }
        if state == State::NoData && site.compiled.definition.no_data == NoDataPolicy::Alert {
            set(account, place, |instance| instance.held = silenced);
        }
        let message = match missed.ended {
            Some(told) => Some(self.resolved(account, place, told, (reason, missed.fired))),
            None if missed.fired > 0 && !silenced => Some(Message {
                kind: NotificationKind::Resolved,
                reason,
                follows: None,
                reminders: Vec::new(),
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
        let fired = before.verdict == Verdict::True;
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
            reminders: Vec::new(),
            fired_meanwhile: 0,
            channels,
        });
        self.transit(site, account, place, (state, reason), message);
        self.touch(site.tenant, account, place, site.cause.at);
    }
}
