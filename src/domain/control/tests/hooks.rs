//! Endpoints in the fold: what is told of which command, and how their health is judged.

use super::super::command::{
    DropReport, DropsLeft, Redelivery, WebhookDraft, WebhookHealth, WebhookPatch, WebhookReport, WebhookRotation,
};
use super::super::resource::{DisabledReason, WebhookStatus};
use super::*;
use crate::domain::id::{ReplayId, WebhookId};
use crate::domain::limits::{WEBHOOK_FAILING_MAX, WEBHOOK_SECRETS_MAX};
use crate::domain::webhook::event::Content;
use crate::domain::webhook::kind::EventType;

pub(super) const ONE: WebhookId = WebhookId(1);
const TWO: WebhookId = WebhookId(2);

pub(super) fn create(id: WebhookId, pattern: &str) -> Command {
    let draft = WebhookDraft {
        url: "https://example.com/".to_owned(),
        event_types: vec![pattern.to_owned()],
        description: None,
        headers: None,
        rate_limit: None,
        metadata: BTreeMap::new(),
        sealed_secret: "v1.x".to_owned(),
        project: None,
    };
    Command::CreateWebhook { id, draft: Box::new(draft) }
}

fn kinds(applied: &Applied) -> Vec<EventType> {
    applied.rows.events.iter().map(|event| event.kind).collect()
}

fn report(log: &mut Log, health: WebhookHealth) -> Applied {
    log.submit(Command::ReportWebhookHealth(WebhookReport { id: ONE, health }))
}

#[test]
fn five_days_of_nothing_but_failures_disable_an_endpoint() {
    let mut log = Log::new();
    log.done(create(ONE, "alert.*"));
    log.done(create(TWO, "webhook.*"));
    let failed = |at| WebhookHealth { succeeded: 0, failed: 3, first_failed_at: Some(at), gone: false };
    let begun = log.now;
    assert_eq!(kinds(&report(&mut log, failed(begun))), []);
    log.now = begun.plus(Millis(WEBHOOK_FAILING_MAX.0 - 1));
    let now = log.now;
    report(&mut log, failed(now));
    assert_eq!(log.control.webhook(TENANT, ONE).unwrap().status, WebhookStatus::Enabled);
    // One success and the days are counted anew.
    let taken = WebhookHealth { succeeded: 1, ..failed(now) };
    assert_eq!(kinds(&report(&mut log, taken)), [EventType::WebhookRecovered]);
    assert_eq!(kinds(&report(&mut log, taken)), [], "it had recovered before");
    report(&mut log, failed(now));
    log.now = now.plus(WEBHOOK_FAILING_MAX);
    let now = log.now;
    let applied = report(&mut log, failed(now));
    assert_eq!(kinds(&applied), [EventType::WebhookDisabled]);
    assert_eq!(applied.rows.deliveries[0].id.webhook, TWO, "nothing is told to the one that is disabled");
    let webhook = log.control.webhook(TENANT, ONE).unwrap();
    assert_eq!((webhook.status, webhook.disabled_reason), (WebhookStatus::Disabled, Some(DisabledReason::Failing)));
    log.done(Command::ResumeWebhook { id: ONE });
    let gone = WebhookHealth { gone: true, ..failed(now) };
    assert_eq!(kinds(&report(&mut log, gone)), [EventType::WebhookDisabled]);
    assert_eq!(log.control.webhook(TENANT, ONE).unwrap().disabled_reason, Some(DisabledReason::Gone));
    log.check_refold();
}

#[test]
fn secrets_sign_along_until_their_grace_ends() {
    let mut log = Log::new();
    log.done(create(ONE, "*"));
    let rotate = |log: &mut Log, grace: i64| {
        let until = log.now.plus(Millis::seconds(grace));
        log.done(Command::RotateWebhookSecret(WebhookRotation { id: ONE, sealed: format!("v1.{grace}"), until }));
        let webhook = log.control.webhook(TENANT, ONE).unwrap();
        webhook.secrets.iter().filter(|secret| secret.signs_at(log.now)).count()
    };
    assert_eq!(rotate(&mut log, 60), 2);
    assert_eq!(rotate(&mut log, 30), 3);
    log.now = log.now.plus(Millis::seconds(30));
    assert_eq!(rotate(&mut log, 0), 1, "the last grace is the shorter one");
    for _ in 0..10 {
        rotate(&mut log, 600);
    }
    assert_eq!(log.control.webhook(TENANT, ONE).unwrap().secrets.len(), WEBHOOK_SECRETS_MAX);
    log.check_refold();
}

#[test]
fn a_refused_or_repeated_command_tells_nothing() {
    let mut log = Log::new();
    log.done(create(ONE, "account.*"));
    let account = AccountId::new("acme").unwrap();
    let command = Command::CreateAccount { account: account.clone(), name: None, metadata: BTreeMap::new() };
    let first = log.apply(repeatable("r", "f", command.clone()));
    let again = log.apply(repeatable("r", "f", command.clone()));
    let refused = log.submit(command);
    assert_eq!((kinds(&first), kinds(&again), kinds(&refused)), (vec![EventType::AccountCreated], vec![], vec![]));
    assert_eq!(first.rows.events[0].position, Position(log.position - 2));
    // Nobody wants to hear of it any more.
    let patch = WebhookPatch { event_types: Some(vec!["alert.*".to_owned()]), ..WebhookPatch::default() };
    log.done(Command::UpdateWebhook { id: ONE, patch: Box::new(patch) });
    assert_eq!(kinds(&log.submit(Command::DeleteAccount { account })), []);
    log.check_refold();
}

#[test]
fn a_tick_tells_what_time_alone_brings_about() {
    let mut log = Log::new();
    log.done(create(ONE, "api_key.expiring"));
    let end = log.now.plus(Millis::days(10));
    log.done(create_key(1, Some(end)));
    let mut told = Vec::new();
    while let Some(due) = log.control.next_deadline() {
        log.now = due;
        told.extend(log.submit(Command::Tick).rows.events.into_iter().map(|event| end.since(event.at)));
    }
    assert_eq!(told, [Millis::days(7), Millis::days(1)]);
    assert_eq!(kinds(&log.submit(Command::Tick)), []);
    log.check_refold();
}

fn drop_some(log: &mut Log, dropped: u64, since: Timestamp) -> Vec<EventType> {
    kinds(&log.submit(Command::ReportDrops(DropReport { id: ONE, dropped, since })))
}

/// A replay that leaves so much of an overflow.
fn replay(again: u64, since: Option<Timestamp>) -> Command {
    let (replay, leaves) = (Some(ReplayId(1)), Some(DropsLeft { again, since }));
    Command::Redeliver(Redelivery { webhook: ONE, replay, deliveries: Vec::new(), next: None, leaves })
}

fn overflow(log: &Log) -> Option<(u64, Timestamp)> {
    let overflow = log.control.webhook(TENANT, ONE).unwrap().overflow;
    overflow.map(|overflow| (overflow.dropped, overflow.since))
}

#[test]
fn dropped_deliveries_are_told_when_they_begin_and_when_they_reach_further_back() {
    let mut log = Log::new();
    log.done(create(ONE, "alert.*"));
    log.done(create(TWO, "webhook.*"));
    let since = log.now;
    assert_eq!(drop_some(&mut log, 1, since), [EventType::WebhookOverflowing]);
    log.now = since.plus(Millis::minutes(1));
    let later = log.now;
    assert_eq!(drop_some(&mut log, 400, later), [], "it is the same overflow");
    assert_eq!(overflow(&log), Some((401, since)));
    let before = Timestamp(since.0 - 1);
    let told = log.submit(Command::ReportDrops(DropReport { id: ONE, dropped: 1, since: before }));
    assert_eq!(kinds(&told), [EventType::WebhookOverflowing], "whoever replays must begin before");
    let Content::Data(data) = &told.rows.events[0].content else { panic!() };
    assert!(data.contains(&format!("\"dropped_since\":\"{before}\"")) && data.contains("\"dropped\":402"), "{data}");
    // Much later it is told anew, and reaches back to what nobody replayed.
    log.now = log.now.plus(Millis::hours(2));
    let later = log.now;
    assert_eq!(drop_some(&mut log, 1, later), [EventType::WebhookOverflowing]);
    assert_eq!(overflow(&log), Some((403, before)));
    log.check_refold();
}

#[test]
fn an_overflow_ends_when_nothing_of_it_is_left() {
    let mut log = Log::new();
    log.done(create(ONE, "alert.*"));
    log.done(create(TWO, "webhook.*"));
    let since = log.now;
    let at = |n| since.plus(Millis(n));
    drop_some(&mut log, 30, since);
    let plain = Redelivery { webhook: ONE, replay: Some(ReplayId(1)), deliveries: vec![], next: None, leaves: None };
    log.done(Command::Redeliver(plain));
    assert_eq!(overflow(&log), Some((30, since)), "it was not about what was dropped");
    log.done(replay(10, Some(at(5))));
    assert_eq!(overflow(&log), Some((20, since)), "the store may lack what was dropped just before");
    log.done(replay(10, None));
    assert_eq!(overflow(&log), Some((10, since)), "as it may here");
    log.now = at(60_000);
    log.done(replay(2, Some(at(7))));
    assert_eq!(overflow(&log), Some((8, at(7))), "a replay from here on has all that is left");
    log.done(replay(20, Some(at(8))));
    assert_eq!(overflow(&log), Some((1, at(8))), "more were dropped than was told");
    log.done(replay(0, None));
    assert_eq!(overflow(&log), None, "the rest was deleted");
    // What a replay drops again is told again.
    assert_eq!(drop_some(&mut log, 3, since), [EventType::WebhookOverflowing]);
    log.done(replay(3, None));
    assert_eq!(overflow(&log), None, "all that was told is made again");
    log.check_refold();
}
