//! Tests of the whole fold: a log of commands in, outcomes and state out.

mod access;
mod audit;
mod channels;
mod hooks;
mod nouns;
mod repeats;
mod sandbox;

use super::command::{AlertDraft, ChannelChoice, ChannelDraft, Command, Entry, Idempotency, Settings};

use super::fold::Control;
use super::outcome::{Applied, Outcome, Refused, Resource};
use super::resource::{ApiKey, ChannelKind, Role};
use super::snapshot::CONTROL_FORMAT;
use crate::domain::definition::{InconclusivePolicy, NoDataPolicy, Severity};
use crate::domain::id::{
    AccountId, AccountScope, AlertId, ChannelId, KeyId, Mode, Position, Stamp, Tenant, WorkspaceId,
};
use crate::domain::time::{Millis, Timestamp};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

const TENANT: Tenant = Tenant { workspace: WorkspaceId(1), mode: Mode::Live };
const OTHER: Tenant = Tenant { workspace: WorkspaceId(2), mode: Mode::Live };

/// A control log that is folded as it is written.
struct Log {
    control: Control,
    position: u64,
    now: Timestamp,
    entries: Vec<(Stamp, Entry)>,
}

impl Log {
    fn new() -> Self {
        let now = Timestamp(1_795_000_000_000);
        let mut log = Self { control: Control::default(), position: 0, now, entries: Vec::new() };
        log.done(Command::Initialise {
            fingerprint_key: [7; 16],
            partitions: 4,
            settings: Settings::default(),
            master_key_check: "v1.x".to_owned(),
        });
        for id in [1, 2] {
            log.done(Command::CreateWorkspace { id: WorkspaceId(id), name: "w".to_owned() });
        }
        log
    }

    fn apply(&mut self, entry: Entry) -> Applied {
        self.position += 1;
        let stamp = Stamp { position: Position(self.position), recorded_at: self.now };
        // What is folded is what a reader of the log would decode.
        let decoded = Entry::decode(&entry.encode()).unwrap();
        assert_eq!(decoded, entry, "an entry survives being written");
        let before = self.control.registry_bytes();
        let applied = self.control.apply(stamp, &decoded);
        if matches!(applied.outcome, Outcome::Refused(_)) {
            assert!(applied.changes.is_empty());
            assert!(before == self.control.registry_bytes(), "a refused command changes nothing");
        }
        self.entries.push((stamp, entry));
        applied
    }

    fn submit(&mut self, command: Command) -> Applied {
        self.apply(entry(command))
    }

    /// Submits a command that must be accepted, and returns the resource.
    fn done(&mut self, command: Command) -> Resource {
        match self.submit(command).outcome {
            Outcome::Created(resource) | Outcome::Done(resource) => resource,
            Outcome::Deleted => Resource::None,
            Outcome::Refused(why) => panic!("refused: {why}"),
        }
    }

    fn refused(&mut self, command: Command) -> Refused {
        match self.submit(command).outcome {
            Outcome::Refused(why) => why,
            other @ (Outcome::Created(_) | Outcome::Done(_) | Outcome::Deleted) => panic!("accepted: {other:?}"),
        }
    }

    /// Folds the same entries again, and through a snapshot in the middle.
    fn check_refold(&self) {
        let middle = self.entries.len() / 2;
        let mut again = Control::default();
        for (at, (stamp, entry)) in self.entries.iter().enumerate() {
            if at == middle {
                let snapshot = again.to_bytes().unwrap();
                again = Control::from_bytes(&snapshot).unwrap();
            }
            again.apply(*stamp, entry);
        }
        assert_eq!(again, self.control, "the same log gives the same state");
    }
}

fn entry(command: Command) -> Entry {
    Entry {
        tenant: TENANT,
        actor: None,
        request_id: "req_1".to_owned(),
        if_match: None,
        idempotency: None,
        ip: None,
        command,
    }
}

fn repeatable(record: &str, fingerprint: &str, command: Command) -> Entry {
    let idempotency = Idempotency { record: record.to_owned(), fingerprint: fingerprint.to_owned(), beside: None };
    Entry { idempotency: Some(idempotency), ..entry(command) }
}

fn account(name: &str) -> AccountId {
    AccountId::new(name).unwrap()
}

fn create_account(name: &str) -> Command {
    Command::CreateAccount { account: account(name), name: None, metadata: BTreeMap::new() }
}

fn create_channel(id: u128, kind: ChannelKind, default: bool) -> Command {
    let (sealed, hint) = ("v1.sealed".to_owned(), "https://x/…".to_owned());
    let draft = ChannelDraft { kind, name: format!("channel {id}"), default, sealed, hint, project: None };
    Command::CreateChannel { id: ChannelId(id), draft }
}

fn create_alert(id: u128, channel: u128) -> Command {
    let draft = AlertDraft {
        account: AccountScope::One(account("acme")),
        metric: None,
        rule: "quota_percent > 85".to_owned(),
        normalized: "quota_percent > 85".to_owned(),
        warnings: Vec::new(),
        recover: None,
        grammar: 1,
        hold: Millis(0),
        keep_firing_for: Millis(0),
        repeat_interval: Millis::hours(4),
        severity: Severity::Warning,
        no_data: NoDataPolicy::Ok,
        inconclusive: InconclusivePolicy::Keep,
        name: None,
        message: None,
        labels: BTreeMap::new(),
        metadata: BTreeMap::new(),
        project: None,
        channel: ChannelChoice::One("webhook".to_owned()),
        channels: vec![ChannelId(channel)],
    };
    Command::CreateAlert { id: AlertId(id), draft: Box::new(draft) }
}

fn create_key(id: u128, expires_at: Option<Timestamp>) -> Command {
    let key = ApiKey {
        id: KeyId(id),
        lookup: format!("{id:012}"),
        hash: "0".repeat(64),
        workspace: TENANT.workspace,
        mode: Mode::Live,
        lineage: KeyId(id),
        name: "k".to_owned(),
        scopes: Role::Viewer.scopes(),
        projects: Vec::new(),
        hint: "pk_live_…".to_owned(),
        expires_at,
        rate_limit: None,
        role: None,
        allowed_ips: Vec::new(),
        metadata: BTreeMap::new(),
    };
    Command::CreateKey { key }
}

/// Holds the state's form to [`CONTROL_FORMAT`]. Where this fails, raise that and take over what is printed.
#[test]
fn the_form_of_the_state_is_that_of_its_format() {
    let mut log = Log::new();
    log.done(create_account("acme"));
    log.done(create_channel(1, ChannelKind::Webhook, true));
    log.done(create_alert(1, 1));
    log.done(create_key(1, None));
    log.apply(repeatable("record", "fingerprint", create_account("other")));
    let bytes = log.control.to_bytes().unwrap();
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        (CONTROL_FORMAT, digest.as_str()),
        (3, "580a936c766ad0c56641c8b13837e4217fdc3e3927322a5a321e8e956bb0b75a"),
        "{}",
        String::from_utf8_lossy(&bytes)
    );
}

#[test]
fn the_log_keeps_the_highest_engine_version_that_it_asked_for() {
    let mut log = Log::new();
    assert_eq!(log.control.engine_version(), 1);
    let audited = log.control.audit(TENANT).count();
    for (asked, stands) in [(1, 1), (2, 2), (1, 2), (3, 3), (3, 3), (2, 3)] {
        let applied = log.submit(Command::EngineVersion { version: asked });
        assert_eq!((applied.outcome, applied.changes.len()), (Outcome::Done(Resource::None), 0), "asked for {asked}");
        assert_eq!(log.control.engine_version(), stands, "asked for {asked}");
    }
    log.check_refold();
    // No person did it.
    assert_eq!(log.control.audit(TENANT).count(), audited);
}
