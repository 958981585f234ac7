//! Idempotency records and versions.

use super::*;
use crate::domain::limits::IDEMPOTENCY_HORIZON;

#[test]
fn a_repeated_command_is_answered_as_the_first_time() {
    let mut log = Log::new();
    let first = log.apply(repeatable("r", "f", create_account("acme")));
    assert!(matches!(first.outcome, Outcome::Created(_)) && first.replayed_from.is_none());
    // The repetition carries a body of its own; the first one's outcome is what is told.
    let second = log.apply(repeatable("r", "f", create_account("acme")));
    assert_eq!(second.outcome, first.outcome);
    assert_eq!(second.replayed_from.as_deref(), Some("req_1"));
    assert!(second.changes.is_empty(), "what happened once is told once");
    let other = log.apply(repeatable("r", "another body", create_account("globex")));
    assert!(matches!(other.outcome, Outcome::Refused(Refused::IdempotencyKeyReused { .. })), "{other:?}");
    assert!(log.control.account(TENANT, &account("globex")).is_none());
    log.check_refold();
}

#[test]
fn a_refusal_for_state_is_repeated_too_but_not_a_version_mismatch() {
    let mut log = Log::new();
    let missing = || Command::DeleteAlert { id: AlertId(9) };
    let first = log.apply(repeatable("r", "f", missing()));
    assert!(matches!(first.outcome, Outcome::Refused(Refused::NotFound { .. })));
    assert_eq!(log.apply(repeatable("r", "f", missing())).replayed_from.as_deref(), Some("req_1"));
    log.done(create_account("acme"));
    let update = || Command::UpdateAccount { account: account("acme"), patch: Default::default() };
    let stale = Entry { if_match: Some(7), ..repeatable("v", "f", update()) };
    let mismatch = log.apply(stale).outcome;
    assert_eq!(mismatch, Outcome::Refused(Refused::VersionMismatch { expected: 7, current: 1 }));
    let fresh = Entry { if_match: Some(1), ..repeatable("v", "f", update()) };
    assert!(matches!(log.apply(fresh).outcome, Outcome::Done(_)), "read again and repeat with the right version");
    log.check_refold();
}

#[test]
fn a_record_stands_for_its_horizon_on_the_logs_clock() {
    let mut log = Log::new();
    log.apply(repeatable("r", "f", create_account("acme")));
    log.now = log.now.plus(IDEMPOTENCY_HORIZON).minus(Millis(1));
    assert!(log.apply(repeatable("r", "f", create_account("acme"))).replayed_from.is_some());
    log.now = log.now.plus(Millis(1));
    let later = log.apply(repeatable("r", "f", create_account("acme")));
    assert!(matches!(later.outcome, Outcome::Refused(Refused::Conflict { .. })), "asked anew: {later:?}");
    log.check_refold();
}

#[test]
fn versions_count_changes_and_hold_callers_to_them() {
    let mut log = Log::new();
    log.done(create_channel(1, ChannelKind::Webhook, false));
    log.done(create_alert(1, 1));
    let version = |log: &Log| log.control.alert(TENANT, AlertId(1)).unwrap().life.version;
    assert_eq!(version(&log), 1);
    log.done(Command::PauseAlert { id: AlertId(1), until: None });
    log.done(Command::PauseAlert { id: AlertId(1), until: None });
    assert_eq!(version(&log), 2, "a pause of what is paused changes nothing");
    let stale = Entry { if_match: Some(1), ..entry(Command::ResumeAlert { id: AlertId(1) }) };
    let refused = Outcome::Refused(Refused::VersionMismatch { expected: 1, current: 2 });
    assert_eq!(log.apply(stale).outcome, refused);
    log.check_refold();
}
