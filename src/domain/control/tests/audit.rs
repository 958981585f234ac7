//! Who did what: accepted and refused commands, with what they changed.

use super::*;
use crate::domain::control::access_note::{AccessKind, AccessNote};
use crate::domain::control::audit::{AuditRecord, Target};
use crate::domain::control::audit_line::hex;
use crate::domain::id::Mode;
use crate::domain::limits::AUDIT_ENTRIES_MAX;
use sha2::{Digest as _, Sha256};

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

#[test]
fn each_entry_has_the_hash_of_the_one_before_it_from_engine_version_3_on() {
    let mut log = Log::new();
    log.done(create_account("before"));
    let (before, line) = (last(&log), last(&log).line(Mode::Live));
    assert_eq!(before.link, None);
    assert!(line.contains("\"previous_hash\":null}"), "{line}");
    log.submit(Command::EngineVersion { version: 3 });
    let kinds = [
        (AccessKind::SecretRead, "secret.read", None),
        (AccessKind::EscalationRefused, "credential.escalate", Some("scope_escalation")),
        (AccessKind::TokenIssued, "oauth_token.issue", None),
        (AccessKind::CredentialRefused, "credential.present", Some("invalid_api_key")),
    ];
    for (kind, action, refused) in kinds {
        let note = AccessNote { kind, target: Target::ApiKey(KeyId(7)), refused: refused.map(str::to_owned) };
        let ip = Some("192.0.2.7".parse().unwrap());
        log.apply(Entry { ip, actor: None, ..entry(Command::NoteAccess(note)) });
        let noted = last(&log);
        assert_eq!((noted.action.as_ref(), noted.refused.as_deref(), noted.ip), (action, refused, ip));
        assert_eq!(noted.actor_text(), "unknown");
        log.submit(create_account("acme"));
    }
    // Whoever has the lines checks them with nothing but SHA-256.
    let mut previous = "0".repeat(64);
    let records: Vec<AuditRecord> = log.control.audit(TENANT).filter(|record| record.link.is_some()).cloned().collect();
    assert_eq!(records.len(), 8);
    for record in &records {
        let line = record.line(Mode::Live);
        let (body, _) = line.rsplit_once(",\"hash\":").unwrap();
        let hash = hex(&Sha256::digest(format!("{body}}}").as_bytes()).into());
        assert!(line.ends_with(&format!("\"previous_hash\":\"{previous}\",\"hash\":\"{hash}\"}}")), "{line}");
        previous = hash;
    }
    log.check_refold();
}
