//! One history in every pairing of journal and store: the same records give the same rows, whoever keeps them.
//!
//! `HIGHWATER_TEST_HISTORY_EVENTS` and `HIGHWATER_TEST_HISTORY_SEED` make it longer, or another one.

mod plan;

use crate::kafka::{brokers, fresh_name};
use crate::nodes::clickhouse;
use highwater::domain::control::command::{Command, Settings};
use highwater::domain::control::outcome::Outcome;
use highwater::domain::event::{Refusal, parse_line};
use highwater::domain::id::{Log, Mode, PartitionId, Position, QuarantineId, Tenant, WorkspaceId};
use highwater::domain::partition::effect::{QuarantineRow, QuarantineStatus};
use highwater::domain::partition::fact::Note;
use highwater::domain::time::Timestamp;
use highwater::journal::{Journal, KafkaJournal, KafkaSettings, MemoryJournal, Record, SqliteJournal, Timestamps};
use highwater::runtime::control::{Asking, ControlPlane};
use highwater::runtime::drops::Drops;
use highwater::runtime::hub::Hub;
use highwater::runtime::ingest::{IdSource, Ingest, Sender};
use highwater::runtime::partitions::{Means, Partitions};
use highwater::snapshot::Snapshots;
use highwater::store::{ClickHouseSettings, ClickHouseStore, ScannedRow, SqliteStore, Store};
use plan::{Plan, Step};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::runtime::Runtime;

const PARTITIONS: u32 = 3;
const KEY: [u8; 16] = *b"a key for shapes";
const TENANT: Tenant = Tenant { workspace: WorkspaceId(7), mode: Mode::Live };
const EVENTS_DEFAULT: usize = 8_000;

/// The time of every log: the plan's. This test alone uses it.
static NOW: AtomicI64 = AtomicI64::new(0);

fn now() -> Timestamp {
    Timestamp(NOW.load(Ordering::SeqCst))
}

#[expect(clippy::disallowed_methods, reason = "how long a test runs is no configuration of the product")]
fn given(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

fn logs() -> impl Iterator<Item = Log> {
    std::iter::once(Log::Control).chain((0..PARTITIONS).map(|n| Log::Partition(PartitionId(n))))
}

/// Writes a plan into a journal, through the same doors as requests and messages.
struct Scribe<'a> {
    runtime: &'a Runtime,
    journal: Journal,
    control: ControlPlane,
    ingest: Ingest,
    /// Up to where the control plane was copied to the partitions.
    copied: Position,
    refused: u128,
}

impl<'a> Scribe<'a> {
    fn begin(runtime: &'a Runtime, journal: Journal, at: Timestamp) -> Self {
        let control = ControlPlane::open(journal.clone()).unwrap();
        let ingest = Ingest::new(journal.clone(), control.clone());
        let mut scribe = Self { runtime, journal, control, ingest, copied: Position::START, refused: 0 };
        scribe.sets(at);
        scribe.asks(Command::Initialise {
            fingerprint_key: KEY,
            partitions: PARTITIONS,
            settings: Settings::default(),
            master_key_check: "none".to_owned(),
        });
        scribe.asks(Command::CreateWorkspace { id: TENANT.workspace, name: "shapes".to_owned() });
        scribe
    }

    fn sets(&self, time: Timestamp) {
        NOW.store(time.0, Ordering::SeqCst);
        if let Journal::Memory(memory) = &self.journal {
            memory.set_time(time);
        }
    }

    fn asks(&mut self, command: Command) {
        let asking = Asking {
            tenant: TENANT,
            actor: None,
            request_id: "req".to_owned(),
            if_match: None,
            idempotency: None,
            ip: None,
        };
        let (_, applied) = self.runtime.block_on(self.control.submit(asking, command.clone())).unwrap();
        assert!(!matches!(applied.outcome, Outcome::Refused(_)), "{command:?}: {:?}", applied.outcome);
        let (through, changes) = self.runtime.block_on(self.control.changes_after(self.copied)).unwrap();
        let note = Note::ControlCopied { after: self.copied, through, changes };
        self.copied = through;
        self.notes(&note);
    }

    fn notes(&self, note: &Note) {
        let facts = logs().skip(1).map(|log| (log, note.encode().into())).collect();
        self.journal.append_blocking(facts).unwrap();
    }

    fn writes(&mut self, step: &Step) {
        match step {
            Step::Time(at) => self.sets(*at),
            Step::Tick => self.notes(&Note::Ticked { intake_through: None }),
            Step::Ask(command) => self.asks(command.as_ref().clone()),
            Step::Events(lines) => {
                let sender = Sender { tenant: TENANT, ids: IdSource::Fresh, backfill: false };
                let mut batch = self.ingest.batch(&sender);
                let mut refused = Vec::new();
                for line in lines {
                    let parsed = parse_line(line.as_bytes());
                    let taken = parsed.and_then(|event| {
                        let id = event.id.clone().unwrap_or_default();
                        batch.push_as(&event, &id, now())
                    });
                    if let Err(refusal) = taken {
                        self.refused += 1;
                        refused.push(set_aside(self.refused, line, refusal));
                    }
                }
                let prepared = batch.finish();
                self.journal.append_blocking(prepared.into_facts(refused)).unwrap();
            }
        }
    }
}

fn set_aside(number: u128, line: &str, refusal: Refusal) -> (Log, bytes::Bytes) {
    let row = QuarantineRow {
        tenant: TENANT,
        id: QuarantineId(number),
        code: refusal.code.text().to_owned(),
        detail: refusal.detail,
        account: None,
        body: line.to_owned(),
        at: now(),
        status: QuarantineStatus::Open,
        revision: Position::START,
        epoch: None,
        repeats: None,
    };
    let partition = u32::try_from(number % u128::from(PARTITIONS)).unwrap();
    (Log::Partition(PartitionId(partition)), Note::EventRefused { row }.encode().into())
}

/// Everything that a journal holds.
fn records(journal: &Journal, log: Log) -> Vec<Record> {
    let end = journal.end_now(log).unwrap();
    let mut all: Vec<Record> = Vec::new();
    while let after = all.last().map_or(Position::START, |record| record.position)
        && after < end
    {
        all.extend(journal.read_known(log, after, 1_000, 16 << 20).unwrap());
    }
    journal.unfollow(log);
    all
}

/// Folds a journal into a store as a node does, and returns every row.
fn rows(runtime: &Runtime, journal: &Journal, store: &Store, folder: &Path) -> Vec<ScannedRow> {
    let means = Means {
        journal: journal.clone(),
        store: store.clone(),
        snapshots: Snapshots::local(folder).unwrap(),
        fingerprint_key: KEY,
        dispatch: None,
        posts: None,
        drops: Drops::default(),
        hub: Hub::default(),
        control: ControlPlane::open(journal.clone()).unwrap(),
    };
    let partitions = Partitions::new(means);
    runtime.block_on(async {
        for partition in (0..PARTITIONS).map(PartitionId) {
            partitions.take(partition).await.unwrap();
        }
        for partition in (0..PARTITIONS).map(PartitionId) {
            store.wait_for(partition, journal.end(Log::Partition(partition))).await;
        }
        assert!(!partitions.has_failed());
        partitions.end_all().await;
    });
    logs().for_each(|log| journal.unfollow(log));
    let mut rows = Vec::new();
    let scanned = store.scan(&mut |row| {
        rows.push(row);
        ControlFlow::Continue(())
    });
    scanned.unwrap();
    rows.sort();
    rows
}

fn journals(runtime: &Runtime, folder: &Path) -> Vec<(&'static str, Journal)> {
    let sqlite = SqliteJournal::open(&folder.join("journal.db"), PARTITIONS, now).unwrap();
    let mut journals =
        vec![("memory", Journal::Memory(MemoryJournal::new(PARTITIONS))), ("sqlite", Journal::Sqlite(sqlite))];
    if let Some(brokers) = brokers() {
        let url = format!("kafka://{brokers}?partitions={PARTITIONS}&prefix={}", fresh_name("shapes"));
        let settings = KafkaSettings { timestamps: Timestamps::Appender(now), ..KafkaSettings::parse(&url).unwrap() };
        let kafka = runtime.block_on(KafkaJournal::open(settings)).unwrap();
        journals.push(("kafka", Journal::Kafka(kafka)));
    }
    journals
}

fn stores(folder: &Path) -> Vec<(&'static str, Store)> {
    let mut stores = vec![
        ("memory", Store::Sqlite(SqliteStore::in_memory().unwrap())),
        ("sqlite", Store::Sqlite(SqliteStore::open(&folder.join("store.db")).unwrap())),
    ];
    if let Some(clickhouse) = clickhouse() {
        let address = format!("clickhouse+{clickhouse}/{}", fresh_name("shapes").replace('-', "_"));
        let store = ClickHouseStore::open(&address, ClickHouseSettings::default()).unwrap();
        stores.push(("clickhouse", Store::ClickHouse(store)));
    }
    stores
}

#[test]
fn every_pairing_of_journal_and_store_gives_the_same_rows() {
    let count = given("HIGHWATER_TEST_HISTORY_EVENTS").map_or(EVENTS_DEFAULT, |count| usize::try_from(count).unwrap());
    let seed = given("HIGHWATER_TEST_HISTORY_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("seed {seed}, {count} events");
    let plan = Plan::from_seed(seed, count);
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut first: Option<(Vec<Vec<Record>>, Vec<ScannedRow>)> = None;
    for (journal_name, journal) in journals(&runtime, folder.path()) {
        let mut scribe = Scribe::begin(&runtime, journal.clone(), plan.begins);
        plan.steps.iter().for_each(|step| scribe.writes(step));
        assert!(scribe.refused > 0);
        drop(scribe);
        let written: Vec<Vec<Record>> = logs().map(|log| records(&journal, log)).collect();
        for log in &written {
            // A position is an ordinal in each of them: rows that name positions can be compared as they are.
            assert!((1..).zip(log).all(|(ordinal, record)| record.position == Position(ordinal)), "{journal_name}");
        }
        if let Some((known, _)) = &first {
            assert!(*known == written, "{journal_name}: other records, times or bytes");
        }
        for (store_name, store) in stores(tempfile::tempdir_in(folder.path()).unwrap().keep().as_path()) {
            let snapshots = tempfile::tempdir_in(folder.path()).unwrap();
            let rows = rows(&runtime, &journal, &store, snapshots.path());
            println!("{journal_name} and {store_name}: {} rows", rows.len());
            match &first {
                Some((_, known)) => compare(known, &rows, &format!("{journal_name} and {store_name}")),
                None => {
                    check_variety(&rows);
                    first = Some((written.clone(), rows));
                }
            }
        }
    }
}

fn compare(known: &[ScannedRow], rows: &[ScannedRow], pairing: &str) {
    for (one, other) in known.iter().zip(rows) {
        assert_eq!(one, other, "{pairing}");
    }
    assert_eq!(known.len(), rows.len(), "{pairing}");
}

/// A history in which nothing happens would prove nothing.
fn check_variety(rows: &[ScannedRow]) {
    for table in ["usage_windows", "accounts", "alert_states", "alert_transitions", "notifications", "quarantine"] {
        let count = rows.iter().filter(|row| row.table == table).count();
        println!("{table}: {count}");
        assert!(count > 10, "{table}: {count} rows");
    }
}
