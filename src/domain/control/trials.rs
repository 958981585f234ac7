//! Test messages: what they are about, and how many a tenant may send.

use super::alerts::Alerts;
use super::channels::Channels;
use super::outcome::{Change, Refused, Resource};
use super::verdict::{Accepted, Context, Verdict, not_found};
use crate::domain::definition::AlertDefinition;
use crate::domain::id::{AlertId, ChannelId, NotificationId};
use crate::domain::limits::{TESTS_MAX, TESTS_SPAN};
use crate::domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// What a test message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestSubject {
    /// An alert, with all of its channels.
    Alert(AlertId),
    /// One channel.
    Channel(ChannelId),
}

/// A test message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestMessage {
    /// Its id.
    pub id: NotificationId,
    /// The alert that it is about, as it stands; absent where a channel is tried.
    pub alert: Option<Box<AlertDefinition>>,
    /// Where it goes.
    pub channels: Vec<ChannelId>,
    /// When it was asked for, on the log's clock.
    pub at: Timestamp,
}

/// When a tenant sent test messages, one entry a destination. No more than [`TESTS_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Trials {
    sent: VecDeque<Timestamp>,
}

impl Trials {
    /// Forgets what was sent behind a time that the clock is set back to.
    pub(super) fn set_clock(&mut self, to: Timestamp) {
        self.sent.retain(|at| *at <= to);
    }

    pub(super) fn send(
        &mut self,
        context: Context,
        (channels, alerts): (&Channels, &Alerts),
        id: NotificationId,
        subject: TestSubject,
    ) -> Verdict {
        let (alert, to) = match subject {
            TestSubject::Alert(alert) => {
                let found = alerts.records.get(&alert).ok_or_else(|| not_found("alert", alert))?;
                (Some(Box::new(found.definition.clone())), found.definition.channels.clone())
            }
            TestSubject::Channel(channel) => (None, vec![channel]),
        };
        channels.check_all(context.tenant, &to)?;
        let oldest = context.now.minus(TESTS_SPAN);
        let spent: Vec<Timestamp> = self.sent.iter().copied().filter(|at| *at > oldest).collect();
        let free = TESTS_MAX.saturating_sub(spent.len());
        if to.len() > free {
            let frees = spent.get(to.len().saturating_sub(free).saturating_sub(1));
            let again_at = frees.copied().unwrap_or(context.now).plus(TESTS_SPAN);
            let what = "test messages an hour, counted by destination".to_owned();
            return Err(Refused::TooOften { what, limit: TESTS_MAX, again_at, at: context.now });
        }
        self.sent = spent.into_iter().chain(to.iter().map(|_| context.now)).collect();
        let test = TestMessage { id, alert, channels: to, at: context.now };
        let change = Change::Test { tenant: context.tenant, test: test.clone() };
        Ok(Accepted::done(Resource::Test(test)).telling(change))
    }
}
