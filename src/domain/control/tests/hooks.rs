//! Endpoints in the fold: what is told of which command, and how their health is judged.

use super::super::command::{Redelivery, WebhookDraft, WebhookHealth, WebhookPatch, WebhookReport, WebhookRotation};
use super::super::resource::{DisabledReason, WebhookStatus};
use super::*;
use crate::domain::id::WebhookId;
use crate::domain::limits::{WEBHOOK_FAILING_MAX, WEBHOOK_SECRETS_MAX};
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

#[test]
fn dropped_deliveries_show_until_they_are_replayed() {
    use super::super::command::DropReport;
    use crate::domain::id::{Log as LogName, PartitionId, ReplayId};
    use crate::domain::webhook::rows::Again;
    let mut log = Log::new();
    log.done(create(ONE, "alert.*"));
    log.done(create(TWO, "webhook.*"));
    let since = log.now;
    let drop =
        |log: &mut Log, dropped| kinds(&log.submit(Command::ReportDrops(DropReport { id: ONE, dropped, since })));
    assert_eq!(drop(&mut log, 1), [EventType::WebhookOverflowing]);
    log.now = since.plus(Millis::minutes(1));
    assert_eq!(drop(&mut log, 400), [], "it is the same overflow");
    let overflow = log.control.webhook(TENANT, ONE).unwrap().overflow.unwrap();
    assert_eq!((overflow.dropped, overflow.since, overflow.until), (401, since, log.now));
    let again = |at| Again {
        event: crate::domain::id::NotificationId(1),
        kind: EventType::AlertFiring,
        log: LogName::Partition(PartitionId(0)),
        created_at: at,
        attempts: 0,
    };
    let replay = |at, replay: Option<u128>| {
        Command::Redeliver(Redelivery { webhook: ONE, replay: replay.map(ReplayId), deliveries: vec![again(at)] })
    };
    log.done(replay(since, None));
    log.done(replay(log.now, Some(1)));
    assert!(log.control.webhook(TENANT, ONE).unwrap().overflow.is_some(), "neither of these had all of them");
    log.done(replay(since, Some(2)));
    assert_eq!(log.control.webhook(TENANT, ONE).unwrap().overflow, None);
    // Much later it is told anew.
    assert_eq!(drop(&mut log, 1), [EventType::WebhookOverflowing]);
    log.now = log.now.plus(Millis::hours(2));
    assert_eq!(drop(&mut log, 1), [EventType::WebhookOverflowing]);
    assert_eq!(log.control.webhook(TENANT, ONE).unwrap().overflow.unwrap().dropped, 1);
    log.check_refold();
}
