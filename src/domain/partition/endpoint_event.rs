//! Which event endpoints are sent of a transition: states, where channels are sent messages.

use super::effect::{Reason, State};
use super::instance::Instance;
use super::notification::NotificationKind;
use super::tell::Message;

/// What endpoints are sent of a transition. They are sent states, not messages: nothing of a reminder, and of a firing
/// also where a silence holds its message. What is stale is told to nobody singly.
pub(super) fn event_of(
    (from, to, reason): (State, State, Reason),
    message: Option<&Message>,
    stale: bool,
) -> Option<NotificationKind> {
    let is_reminder = matches!(reason, Reason::Repeat | Reason::SilenceEnded | Reason::ChannelAdded);
    match message {
        Some(message) => (!is_reminder || from != to).then_some(message.kind),
        None if stale || from == to => None,
        None => match (from, to) {
            (_, State::Firing) => Some(NotificationKind::Firing),
            (State::Firing, _) => Some(NotificationKind::Resolved),
            (_, State::NoData) => Some(NotificationKind::NoData),
            (State::NoData, State::Ok) => Some(NotificationKind::Resolved),
            (_, State::Pending) => Some(NotificationKind::Pending),
            (_, State::Ok | State::Inconclusive) => None,
        },
    }
}

/// The resolve of a quiet change to `ok`, where endpoints were sent something that it closes; from engine version 3 on.
pub(super) fn closing_event(to: State, instance: &Instance, is_asked: bool) -> Option<NotificationKind> {
    (is_asked && to == State::Ok && instance.event_open).then_some(NotificationKind::Resolved)
}

/// Remembers whether endpoints were sent something that a resolve has yet to close.
pub(super) const fn note_event(instance: &mut Instance, sent: Option<NotificationKind>) {
    match sent {
        Some(NotificationKind::Firing | NotificationKind::NoData) => instance.event_open = true,
        Some(NotificationKind::Resolved) => instance.event_open = false,
        Some(NotificationKind::Corrected | NotificationKind::Pending | NotificationKind::Test) | None => {}
    }
}
