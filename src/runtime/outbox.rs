//! What leaves a sandbox, and what is kept: only the operator's own receivers are sent to.

use crate::domain::control::resource::ChannelKind;
use crate::domain::control::sandbox::outbox_kind;
use crate::domain::id::{ChannelId, Mode, Tenant};
use crate::domain::limits::SANDBOX_DELIVERY_ATTEMPTS_MAX;
use crate::notifier::{Destination, Guard};
use secrecy::ExposeSecret;

/// Where a message goes.
#[derive(Debug)]
pub enum Route {
    /// To its destination.
    Send(Destination),
    /// Nowhere: it is shown as what would have been sent.
    Keep(ChannelKind),
}

/// Tells whether a message is kept whatever its target is: everything for Slack, and what has no channel of its own.
pub fn keeps_unseen(tenant: Tenant, channel: ChannelId, kind: Option<ChannelKind>) -> Option<ChannelKind> {
    match (tenant.mode, kind) {
        (Mode::Live, _) | (Mode::Sandbox, Some(ChannelKind::Webhook)) => None,
        (Mode::Sandbox, Some(ChannelKind::Slack)) => Some(ChannelKind::Slack),
        (Mode::Sandbox, None) => outbox_kind(tenant, channel),
    }
}

/// Decides on a destination.
pub fn route(mode: Mode, guard: &Guard, destination: Destination) -> Route {
    let leaves = match (mode, &destination) {
        (Mode::Live, _) => true,
        (Mode::Sandbox, Destination::Webhook { url, .. }) => {
            url.expose_secret().parse().is_ok_and(|url| guard.lists(&url))
        }
        (Mode::Sandbox, Destination::SlackWebhook { .. } | Destination::SlackBot { .. }) => false,
    };
    match (leaves, &destination) {
        (true, _) => Route::Send(destination),
        (false, Destination::Webhook { .. }) => Route::Keep(ChannelKind::Webhook),
        (false, Destination::SlackWebhook { .. } | Destination::SlackBot { .. }) => Route::Keep(ChannelKind::Slack),
    }
}

/// Tells whether a failed attempt, counted from 1, may be followed by another.
pub const fn may_try_again(mode: Mode, attempt: u32) -> bool {
    match mode {
        Mode::Live => true,
        Mode::Sandbox => attempt < SANDBOX_DELIVERY_ATTEMPTS_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_operator_lists_leaves_a_sandbox() {
        let guard = Guard {
            allow_cidrs: vec!["127.0.0.0/8".parse().unwrap()],
            allow_hosts: vec!["hooks.corp.example".to_owned()],
        };
        let leaves = |mode: Mode, destination: Destination| matches!(route(mode, &guard, destination), Route::Send(_));
        let webhook = |url: &str| Destination::Webhook { url: url.to_owned().into(), secrets: Vec::new() };
        for (url, sandbox) in [
            ("http://127.0.0.1:9/hook", true),
            ("http://localhost:9/hook", true),
            ("https://hooks.corp.example/x", true),
            ("https://hooks.corp.example.evil.example/x", false),
            ("https://example.com/hook", false),
            ("not a url", false),
        ] {
            assert_eq!(leaves(Mode::Sandbox, webhook(url)), sandbox, "{url}");
            assert!(leaves(Mode::Live, webhook(url)), "{url}");
        }
        let slack = || Destination::SlackWebhook { url: "http://127.0.0.1:9/services/x".to_owned().into() };
        assert!(!leaves(Mode::Sandbox, slack()) && leaves(Mode::Live, slack()));
    }

    #[test]
    fn a_sandbox_tries_three_times() {
        let tries = |mode| (1..10).take_while(|attempt| may_try_again(mode, *attempt)).count() + 1;
        assert_eq!(tries(Mode::Sandbox), 3);
        assert!(tries(Mode::Live) > 3);
    }
}
