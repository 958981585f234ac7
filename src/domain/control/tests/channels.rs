//! Channels in the fold: since when one loses messages, and when the partitions send what it has not heard.

use super::super::command::{ChannelPatch, ChannelReport};
use super::super::outcome::Change;
use super::hooks::create as endpoint;
use super::*;
use crate::domain::partition::fact::V3;
use crate::domain::webhook::kind::EventType;

const OPS: ChannelId = ChannelId(7);

fn log() -> Log {
    let mut log = Log::new();
    log.done(Command::EngineVersion { version: V3 });
    log.done(endpoint(super::hooks::ONE, "channel.*"));
    log.done(create_channel(OPS.0, ChannelKind::Slack, false));
    log
}

/// Reports, and returns what is told, whether partitions send what was not heard, and since when the channel fails.
fn report(log: &mut Log, delivered: bool, is_test: bool) -> (Vec<EventType>, bool, Option<Timestamp>) {
    let at = log.now;
    let applied = log.submit(Command::ReportChannel(ChannelReport { id: OPS, delivered, is_test, at }));
    let kinds = applied.rows.events.iter().map(|event| event.kind).collect();
    let repaired = applied.changes == [Change::ChannelRepaired { tenant: TENANT, channel: OPS }];
    (kinds, repaired, log.control.channel(TENANT, OPS).unwrap().failing_since)
}

#[test]
fn a_channel_fails_from_the_first_message_that_it_loses_until_it_takes_one() {
    let mut log = log();
    let first = log.now;
    assert_eq!(report(&mut log, true, false), (vec![], false, None));
    assert_eq!(report(&mut log, false, false), (vec![EventType::ChannelFailing], false, Some(first)));
    assert_eq!(log.control.channels(TENANT).filter(|channel| channel.status() == "failing").count(), 1);
    log.now = first.plus(Millis::hours(1));
    assert_eq!(report(&mut log, false, false), (vec![], false, Some(first)), "it failed before");
    assert_eq!(report(&mut log, true, false), (vec![EventType::ChannelRecovered], true, None));
    assert_eq!(report(&mut log, true, false), (vec![], false, None), "it had recovered before");
    // A test that arrives says so whatever was known.
    assert_eq!(report(&mut log, true, true), (vec![], true, None));
    log.check_refold();
}

#[test]
fn another_target_hears_what_the_one_before_lost() {
    let mut log = log();
    let patch = |target| ChannelPatch { name: Some("on call".to_owned()), default: None, target };
    let changes = |log: &mut Log, target| log.submit(Command::UpdateChannel { id: OPS, patch: patch(target) }).changes;
    assert_eq!(changes(&mut log, None), []);
    let target = Some(("v1.y".to_owned(), "https://hooks.slack.com/…".to_owned()));
    assert_eq!(changes(&mut log, target.clone()), [Change::ChannelRepaired { tenant: TENANT, channel: OPS }]);
    // A log of an earlier version folds as it did.
    let mut old = Log::new();
    old.done(create_channel(OPS.0, ChannelKind::Slack, false));
    assert_eq!(changes(&mut old, target), []);
}
