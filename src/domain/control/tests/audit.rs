//! Who did what: accepted and refused commands, with what they changed.

use super::*;
use crate::domain::control::audit::{AuditRecord, Target};
use crate::domain::limits::AUDIT_ENTRIES_MAX;

fn last(log: &Log) -> AuditRecord {
    log.control.audit(TENANT).next_back().unwrap().clone()
}

#[test]
fn what_people_do_is_noted_with_what_it_changed() {
    let mut log = Log::new();
    let ip = Some("192.0.2.7".parse().unwrap());
    log.apply(Entry { ip, actor: Some(KeyId(5)), ..entry(create_account("acme")) });
    let made = last(&log);
    assert_eq!((made.action.as_ref(), &made.target), ("account.create", &Target::Account(account("acme"))));
    assert_eq!((made.actor, made.ip, made.refused.clone()), (Some(KeyId(5)), ip, None));
    assert!(made.before.is_none() && made.after.is_some());
    log.submit(Command::DeleteAccount { account: account("acme") });
    let deleted = last(&log);
    assert_eq!((deleted.action.as_ref(), deleted.before, deleted.after), ("account.delete", made.after, None));
    assert!(deleted.id > made.id, "ids rise");
    log.check_refold();
}

#[test]
fn a_refusal_for_state_is_noted_and_a_replay_is_not() {
    let mut log = Log::new();
    let count = |log: &Log| log.control.audit(TENANT).count();
    log.apply(repeatable("r", "f", create_account("acme")));
    let before = count(&log);
    log.apply(repeatable("r", "f", create_account("acme")));
    assert_eq!(count(&log), before, "nothing was done twice");
    log.apply(repeatable("r", "other", create_account("acme")));
    assert_eq!(last(&log).refused.as_deref(), Some("idempotency_key_reused"));
    log.submit(create_account("acme"));
    let refused = last(&log);
    assert_eq!((refused.refused.as_deref(), refused.before), (Some("resource_conflict"), refused.after));
    assert_eq!(count(&log), before + 2);
    assert_eq!(log.control.audit(OTHER).count(), 0, "another workspace sees nothing of it");
    log.check_refold();
}

#[test]
fn the_newest_are_kept() {
    let mut log = Log::new();
    for _ in 0..AUDIT_ENTRIES_MAX + 3 {
        let entry = entry(Command::DeleteAlert { id: AlertId(9) });
        log.position += 1;
        log.control.apply(Stamp { position: Position(log.position), recorded_at: log.now }, &entry);
    }
    assert_eq!(log.control.audit(TENANT).count(), AUDIT_ENTRIES_MAX);
    assert!(log.control.audit(TENANT).is_sorted_by_key(|record| record.id));
}
