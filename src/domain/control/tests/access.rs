//! Projects, keys, OAuth clients and the workspace itself.

use super::super::access::{
    KeyChange, KeyRotation, ProjectChange, ProjectDraft, SecretRotation, TokenRevocation, WorkspaceChange,
};
use super::super::resource::{ClientSecret, Environment, KeyStatus, OAuthClient};
use super::*;
use crate::domain::control::last_uses::LastUse;
use crate::domain::id::{ClientId, ProjectId};
use crate::domain::limits::{ENDED_KEYS_KEPT, LIVE_PREDECESSORS_MAX, OAUTH_CLIENTS_MAX, REVOKED_TOKENS_MAX};

fn rotate(from: u128, id: u128, grace: Millis) -> Command {
    let rotation = KeyRotation {
        from: KeyId(from),
        id: KeyId(id),
        lookup: format!("{id:012}"),
        hash: "1".repeat(64),
        hint: "pk_live_…".to_owned(),
        grace,
        expires_at: None,
    };
    Command::RotateKey(Box::new(rotation))
}

fn status(log: &Log, id: u128) -> Option<KeyStatus> {
    log.control.key(KeyId(id)).map(|record| record.status(log.now))
}

fn create_client(id: u128) -> Command {
    let secret = ClientSecret { generation: 1, hash: "0".repeat(64), hint: String::new(), until: None };
    let client = OAuthClient {
        id: ClientId(id),
        tenant: TENANT,
        name: "c".to_owned(),
        scopes: Role::Viewer.scopes(),
        role: Some(Role::Viewer),
        projects: Vec::new(),
        expires_at: None,
        allowed_ips: Vec::new(),
        metadata: BTreeMap::new(),
        secrets: vec![secret],
    };
    Command::CreateClient(Box::new(client))
}

fn create_project(id: u128) -> Command {
    let draft =
        ProjectDraft { id: ProjectId(id), name: "p".to_owned(), env: Environment::Dev, metadata: BTreeMap::new() };
    Command::CreateProject(draft)
}

#[test]
fn a_replaced_key_works_until_its_grace_or_its_own_end() {
    let mut log = Log::new();
    let end = log.now.plus(Millis::hours(1));
    log.done(create_key(1, None));
    log.done(create_key(2, Some(end)));
    log.done(rotate(1, 11, Millis::hours(2)));
    log.done(rotate(2, 12, Millis::hours(2)));
    assert_eq!((status(&log, 1), status(&log, 11)), (Some(KeyStatus::Rotating), Some(KeyStatus::Active)));
    let new = &log.control.key(KeyId(12)).unwrap().key;
    assert_eq!((new.lineage, new.expires_at, &new.scopes), (KeyId(2), Some(end), &Role::Viewer.scopes()));
    assert!(matches!(log.refused(rotate(1, 13, Millis::ZERO)), Refused::KeyNotActive { .. }), "it has a successor");
    log.now = end;
    assert_eq!((status(&log, 1), status(&log, 2)), (Some(KeyStatus::Rotating), Some(KeyStatus::Expired)));
    log.now = end.plus(Millis::hours(1));
    assert_eq!(status(&log, 1), Some(KeyStatus::Expired));
    for ended in [1, 12] {
        assert!(matches!(log.refused(rotate(ended, 14, Millis::ZERO)), Refused::KeyNotActive { .. }), "{ended}");
    }
    log.done(Command::RevokeKey { id: KeyId(11) });
    assert!(matches!(log.refused(rotate(11, 15, Millis::ZERO)), Refused::KeyNotActive { .. }));
    assert!(matches!(log.refused(rotate(99, 15, Millis::ZERO)), Refused::NotFound { .. }));
    let theirs = Entry { tenant: OTHER, ..entry(rotate(11, 15, Millis::ZERO)) };
    assert!(matches!(log.apply(theirs).outcome, Outcome::Refused(Refused::NotFound { .. })));
    log.check_refold();
}

#[test]
fn a_lineage_has_few_that_still_work() {
    let mut log = Log::new();
    log.done(create_key(1, None));
    for n in 1..=LIVE_PREDECESSORS_MAX as u128 {
        log.done(rotate(n, n + 1, Millis::days(1)));
    }
    let newest = LIVE_PREDECESSORS_MAX as u128 + 1;
    assert!(matches!(log.refused(rotate(newest, 90, Millis::days(1))), Refused::LimitReached { .. }));
    log.done(rotate(newest, 91, Millis::ZERO));
    assert_eq!(status(&log, newest), Some(KeyStatus::Expired));
    log.now = log.now.plus(Millis::days(1));
    log.done(rotate(91, 92, Millis::days(1)));
    log.check_refold();
}

#[test]
fn what_a_key_may_do_survives_changes_of_the_rest() {
    let mut log = Log::new();
    log.done(create_key(1, None));
    let before = log.control.key(KeyId(1)).unwrap().key.clone();
    let notes =
        |name: &str, value: Option<&str>| Some(Some(BTreeMap::from([(name.to_owned(), value.map(str::to_owned))])));
    let allowed_ips = Some(vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
    let change = KeyChange { id: KeyId(1), name: Some("n".to_owned()), allowed_ips, metadata: notes("a", Some("1")) };
    log.done(Command::UpdateKey(change));
    let cleared = KeyChange { id: KeyId(1), name: None, allowed_ips: None, metadata: Some(None) };
    log.done(Command::UpdateKey(cleared));
    let record = log.control.key(KeyId(1)).unwrap();
    assert_eq!((record.life.version, record.key.allowed_ips.len(), record.key.metadata.len()), (3, 2, 0));
    assert_eq!((&record.key.scopes, &record.key.hash, record.key.name.as_str()), (&before.scopes, &before.hash, "n"));
    log.check_refold();
}

#[test]
fn a_limit_is_that_of_all_keys_of_a_lineage() {
    let mut log = Log::new();
    log.done(create_key(1, None));
    log.done(create_key(9, None));
    log.done(rotate(1, 2, Millis::hours(1)));
    let limit = |log: &Log, id: u128| log.control.key(KeyId(id)).unwrap().key.rate_limit;
    let version = |log: &Log, id: u128| log.control.key(KeyId(id)).unwrap().life.version;
    log.done(Command::LimitKey { id: KeyId(2), rate_limit: Some(600) });
    assert_eq!((limit(&log, 1), limit(&log, 2), limit(&log, 9)), (Some(600), Some(600), None));
    let before = version(&log, 2);
    log.done(Command::LimitKey { id: KeyId(2), rate_limit: Some(600) });
    assert_eq!(version(&log, 2), before, "nothing changes twice");
    log.done(Command::LimitKey { id: KeyId(1), rate_limit: None });
    assert_eq!((limit(&log, 1), limit(&log, 2)), (None, None));
    assert!(matches!(log.refused(Command::LimitKey { id: KeyId(7), rate_limit: None }), Refused::NotFound { .. }));
    log.check_refold();
}

#[test]
fn keys_that_ended_are_forgotten_oldest_first() {
    let mut log = Log::new();
    for id in 1..=ENDED_KEYS_KEPT as u128 + 2 {
        log.done(create_key(id, None));
        log.done(Command::RevokeKey { id: KeyId(id) });
    }
    log.done(create_key(5_000, None));
    assert_eq!((status(&log, 1), status(&log, 2)), (None, None));
    assert_eq!((status(&log, 3), status(&log, 5_000)), (Some(KeyStatus::Revoked), Some(KeyStatus::Active)));
    assert!(log.control.key_by_lookup(&format!("{:012}", 1)).is_none());
    log.check_refold();
}

#[test]
fn the_tokens_of_a_client_end_one_by_one_or_all_at_once() {
    let mut log = Log::new();
    log.done(create_client(1));
    let revoke = |token: usize, expires_at| {
        Command::RevokeToken(TokenRevocation { client: ClientId(1), token: format!("{token:032x}"), expires_at })
    };
    let (now, end) = (log.now, log.now.plus(Millis::hours(1)));
    let is_revoked =
        |log: &Log, token: usize| log.control.client(ClientId(1)).unwrap().has_revoked(&format!("{token:032x}"), now);
    log.done(revoke(0, end));
    assert!(is_revoked(&log, 0) && !is_revoked(&log, 1));
    let theirs = Entry { tenant: OTHER, ..entry(revoke(1, end)) };
    assert!(matches!(log.apply(theirs).outcome, Outcome::Refused(Refused::NotFound { .. })));
    // What ended by itself is forgotten.
    log.now = end;
    log.done(revoke(1, end.plus(Millis::hours(1))));
    assert_eq!(log.control.client(ClientId(1)).unwrap().revoked_tokens.len(), 1);
    for token in 2..=REVOKED_TOKENS_MAX {
        log.done(revoke(token, end.plus(Millis::hours(1))));
    }
    assert!(!is_revoked(&log, REVOKED_TOKENS_MAX + 1));
    log.done(revoke(REVOKED_TOKENS_MAX + 1, end.plus(Millis::hours(1))));
    let record = log.control.client(ClientId(1)).unwrap();
    assert!(record.revoked_tokens.is_empty() && is_revoked(&log, 77_777), "too many to know one by one");
    assert!(!record.has_revoked("0", log.now.plus(Millis(1))), "what is issued from here on works");
    log.check_refold();
}

#[test]
fn secrets_of_clients_are_replaced_and_clients_are_bounded() {
    let mut log = Log::new();
    log.done(create_client(1));
    let rotate = |grace| {
        let (hash, hint) = ("1".repeat(64), String::new());
        Command::RotateClientSecret(SecretRotation { client: ClientId(1), hash, hint, grace })
    };
    let generations = |log: &Log| {
        let record = log.control.client(ClientId(1)).unwrap();
        record.secrets(log.now).map(|secret| secret.generation).collect::<Vec<_>>()
    };
    for _ in 0..LIVE_PREDECESSORS_MAX {
        log.done(rotate(Millis::hours(1)));
    }
    assert_eq!(generations(&log), [4, 3, 2, 1]);
    assert!(matches!(log.refused(rotate(Millis::hours(1))), Refused::LimitReached { .. }));
    log.done(rotate(Millis::ZERO));
    assert_eq!(generations(&log), [5]);
    log.done(rotate(Millis::hours(1)));
    log.now = log.now.plus(Millis::hours(1));
    assert_eq!(generations(&log), [6]);
    for id in 2..=OAUTH_CLIENTS_MAX as u128 {
        log.done(create_client(id));
    }
    assert!(matches!(log.refused(create_client(999)), Refused::LimitReached { .. }));
    log.done(Command::DeleteClient { id: ClientId(1) });
    log.done(create_client(999));
    log.check_refold();
}

#[test]
fn a_project_goes_when_nothing_that_works_names_it() {
    let mut log = Log::new();
    log.done(create_project(1));
    let change = ProjectChange { id: ProjectId(1), name: None, env: Some(Environment::Prod), metadata: None };
    log.done(Command::UpdateProject(change));
    assert_eq!(log.control.project(TENANT, ProjectId(1)).unwrap().env, Environment::Prod);
    assert!(log.control.project(OTHER, ProjectId(1)).is_none());
    let expiry = log.now.plus(Millis::hours(1));
    let Command::CreateKey { mut key } = create_key(1, Some(expiry)) else { unreachable!() };
    key.projects = vec![ProjectId(1)];
    log.done(Command::CreateKey { key });
    let delete = || Command::DeleteProject { id: ProjectId(1) };
    assert!(log.refused(delete()).to_string().contains(&KeyId(1).to_string()));
    log.now = expiry;
    log.done(delete());
    assert!(matches!(log.refused(delete()), Refused::NotFound { .. }));
    log.check_refold();
}

#[test]
fn a_workspace_says_how_long_answers_are_kept() {
    let mut log = Log::new();
    log.apply(repeatable("before", "f", create_account("a")));
    let horizon = Millis::hours(1);
    let change = WorkspaceChange { idempotency_horizon: Some(horizon), ..WorkspaceChange::default() };
    log.done(Command::UpdateWorkspace(change));
    log.apply(repeatable("after", "f", create_account("b")));
    log.now = log.now.plus(horizon);
    assert!(log.apply(repeatable("before", "f", create_account("a"))).replayed_from.is_some(), "kept as it was made");
    assert!(log.apply(repeatable("after", "f", create_account("b"))).replayed_from.is_none());
    log.check_refold();
}

#[test]
fn the_last_use_of_a_key_is_the_latest_that_any_node_noted() {
    let mut log = Log::new();
    log.done(create_key(1, None));
    let (seen, from) = (log.now, |last: u8| core::net::IpAddr::from([192, 0, 2, last]));
    let used = |minutes: i64, last: u8| LastUse { at: seen.plus(Millis::minutes(minutes)), address: from(last) };
    let mut note = |uses: &[(u128, LastUse)]| {
        let uses = uses.iter().map(|(key, last)| (KeyId(*key), *last)).collect();
        let applied = log.submit(Command::NoteKeyUses { uses });
        assert!(applied.changes.is_empty() && applied.rows.is_empty());
        (log.control.last_use(KeyId(1)), log.control.last_use(KeyId(2)))
    };
    assert_eq!(note(&[(1, used(5, 1)), (2, used(5, 1))]), (Some(used(5, 1)), None), "there is no second key");
    assert_eq!(note(&[(1, used(4, 2))]).0, Some(used(5, 1)));
    assert_eq!(note(&[(1, used(6, 2))]).0, Some(used(6, 2)));
    assert_eq!(log.control.key(KeyId(1)).unwrap().life.version, 1, "a use is no change");
    log.check_refold();
}
