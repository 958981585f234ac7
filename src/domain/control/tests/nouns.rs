//! What each noun may and may not do.

use super::super::outcome::Change;
use super::*;
use crate::domain::definition::{Fold, Quota};
use crate::domain::id::{Epoch, MetricName};
use crate::domain::limits::ACTIVE_KEYS_MAX;
use crate::domain::quantity::Quantity;
use crate::domain::time::Period;

fn metric(name: &str) -> MetricName {
    MetricName::new(name).unwrap()
}

fn put_quota(scope: AccountScope, name: &str, limit: i64) -> Command {
    let quota = Quota { limit: Quantity::whole(limit), period: Period::Day, aggregate: Fold::Sum };
    Command::PutQuota { account: scope, metric: metric(name), quota }
}

#[test]
fn the_log_is_set_up_once() {
    let mut log = Log::new();
    let again = Command::Initialise {
        fingerprint_key: [8; 16],
        partitions: 8,
        settings: Settings::default(),
        master_key_check: String::new(),
    };
    assert_eq!(log.refused(again), Refused::AlreadyInitialised);
    assert_eq!((log.control.partitions(), log.control.fingerprint_key()), (Some(4), Some([7; 16])));
}

#[test]
fn tenants_see_nothing_of_each_other() {
    let mut log = Log::new();
    log.done(create_channel(1, ChannelKind::Webhook, false));
    log.done(create_alert(1, 1));
    let theirs = Entry { tenant: OTHER, ..entry(Command::DeleteAlert { id: AlertId(1) }) };
    assert!(matches!(log.apply(theirs).outcome, Outcome::Refused(Refused::NotFound { .. })));
    let theirs = Entry { tenant: OTHER, ..entry(create_alert(2, 1)) };
    assert!(matches!(log.apply(theirs).outcome, Outcome::Refused(Refused::ChannelNotConfigured { .. })));
    assert!(log.control.alert(OTHER, AlertId(1)).is_none() && log.control.channel(OTHER, ChannelId(1)).is_none());
    let same_name = Entry { tenant: OTHER, ..entry(create_account("acme")) };
    assert!(matches!(log.apply(same_name).outcome, Outcome::Created(_)));
    assert!(log.control.account(TENANT, &account("acme")).is_none());
    log.check_refold();
}

#[test]
fn a_deleted_account_takes_its_quotas_along_and_begins_an_epoch() {
    let mut log = Log::new();
    log.done(put_quota(AccountScope::One(account("acme")), "m", 10));
    log.done(put_quota(AccountScope::All, "m", 5));
    log.done(create_channel(1, ChannelKind::Webhook, false));
    log.done(create_alert(1, 1));
    assert_eq!(
        log.control.effective_quota(TENANT, &account("acme"), &metric("m")).unwrap().0.limit,
        Quantity::whole(10)
    );
    let applied = log.submit(Command::DeleteAccount { account: account("acme") });
    assert_eq!(applied.outcome, Outcome::Deleted);
    let told: Vec<bool> = applied.changes.iter().map(|c| matches!(c, Change::AccountDeleted { .. })).collect();
    assert_eq!(told, [true, false], "the deletion, then its quota: {:?}", applied.changes);
    assert_eq!(log.control.epoch_of(TENANT, &account("acme")), Epoch(log.position));
    assert_eq!(
        log.control.effective_quota(TENANT, &account("acme"), &metric("m")).unwrap().0.limit,
        Quantity::whole(5)
    );
    assert!(log.control.alert(TENANT, AlertId(1)).is_some(), "alerts on it stay");
    log.check_refold();
}

#[test]
fn one_channel_of_a_kind_is_the_default_and_a_used_one_stays() {
    let mut log = Log::new();
    log.done(create_channel(1, ChannelKind::Slack, false));
    log.done(create_channel(2, ChannelKind::Slack, false));
    let default = |log: &Log| log.control.default_channel(TENANT, ChannelKind::Slack, None).map(|channel| channel.id.0);
    assert_eq!(default(&log), Some(1), "the first created");
    log.done(create_channel(3, ChannelKind::Slack, true));
    log.done(create_channel(4, ChannelKind::Slack, true));
    assert_eq!(default(&log), Some(4), "the last that was made the default");
    assert!(!log.control.channel(TENANT, ChannelId(3)).unwrap().default);
    log.done(create_alert(1, 4));
    let refused = log.refused(Command::DeleteChannel { id: ChannelId(4) });
    assert!(refused.to_string().contains(&AlertId(1).to_string()), "{refused}");
    log.done(Command::DeleteAlert { id: AlertId(1) });
    log.done(Command::DeleteChannel { id: ChannelId(4) });
    assert_eq!(default(&log), Some(1));
    log.check_refold();
}

#[test]
fn keys_are_bounded_by_those_that_work() {
    let mut log = Log::new();
    let expiry = log.now.plus(Millis::hours(1));
    for id in 1..=ACTIVE_KEYS_MAX as u128 {
        log.done(create_key(id, (id == 1).then_some(expiry)));
    }
    assert!(matches!(log.refused(create_key(999, None)), Refused::LimitReached { .. }));
    log.done(Command::RevokeKey { id: KeyId(2) });
    log.done(create_key(1_000, None));
    assert!(matches!(log.refused(create_key(1_001, None)), Refused::LimitReached { .. }));
    log.now = expiry;
    log.done(create_key(1_002, None));
    assert!(log.control.key_record_by_lookup(&format!("{:012}", 2)).unwrap().revoked_at.is_some());
    log.check_refold();
}

#[test]
fn an_imported_file_is_known_again() {
    let mut log = Log::new();
    log.done(Command::RecordImport { digest: "d".to_owned(), accepted: 10, refused: 1 });
    assert_eq!(log.control.import(TENANT, "d").unwrap().accepted, 10);
    assert!(log.control.import(OTHER, "d").is_none() && log.control.import(TENANT, "e").is_none());
    log.check_refold();
}

#[test]
fn a_gap_of_the_intake_is_noted_once_and_told_to_every_workspace() {
    use crate::domain::control::intake::{GapCause, IntakeGap};
    let mut log = Log::new();
    let (topic, now) = ("hw.usage".to_owned(), log.now);
    assert_eq!(log.control.intake().begun(&topic, 1), None);
    for later in [0, 5_000] {
        log.now = now.plus(crate::domain::time::Millis(later));
        log.done(Command::BeginIntake { topic: topic.clone(), partition: 1 });
        assert_eq!(log.control.intake().begun(&topic, 1), Some(now), "since the first time");
    }
    let gap = |to, read_until: Option<i64>| IntakeGap {
        topic: topic.clone(),
        partition: 1,
        cause: GapCause::Removed,
        from: Some(10),
        to,
        read_until: read_until.map(Timestamp),
        left_from: Timestamp(900),
    };
    let first = log.submit(Command::RecordIntakeGap(gap(20, Some(500))));
    assert_eq!(first.outcome, Outcome::Created(Resource::None));
    let again = log.submit(Command::RecordIntakeGap(gap(20, Some(500))));
    assert_eq!((again.outcome, again.rows.is_empty()), (Outcome::Done(Resource::None), true), "two nodes found it");
    // More was removed before reading went on: the same gap, wider.
    log.done(Command::RecordIntakeGap(gap(30, Some(500))));
    log.done(Command::RecordIntakeGap(gap(30, Some(600))));
    let known: Vec<i64> = log.control.intake().gaps().iter().map(|noted| noted.gap.to).collect();
    assert_eq!(known, [30, 30]);
    assert_eq!(gap(30, None).messages(), Some(20));
    let overlaps = |from, to| gap(30, Some(500)).overlaps(Timestamp(from), Timestamp(to));
    assert_eq!(
        [overlaps(0, 500), overlaps(0, 501), overlaps(900, 901), overlaps(901, 999)],
        [false, true, true, false]
    );
    assert!(gap(30, None).overlaps(Timestamp(0), Timestamp(1)), "nobody knows since when");
    let ids: std::collections::BTreeSet<String> =
        [gap(20, Some(500)), gap(30, Some(500)), gap(30, Some(501)), gap(30, None)].iter().map(IntakeGap::id).collect();
    assert_eq!(ids.len(), 4);
    log.check_refold();
}
