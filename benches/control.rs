//! How long a node takes to know its control plane: from the whole log, and from a snapshot of it.
//!
//! `cargo bench --bench control`

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench says what it found, or that it cannot run")]

#[path = "support/allocator.rs"]
mod allocator;

use bytes::Bytes;
use highwater::domain::control::command::{Command, Entry, Idempotency, Settings};
use highwater::domain::definition::{Fold as Aggregate, Quota};
use highwater::domain::id::{AccountId, AccountScope, Log, MetricName, Mode, Tenant, WorkspaceId};
use highwater::domain::quantity::Quantity;
use highwater::domain::time::Period;
use highwater::journal::{Journal, SqliteJournal};
use highwater::runtime::clock::{self, Stopwatch};
use highwater::runtime::control::ControlPlane;
use highwater::snapshot::Snapshots;

const ROUNDS: usize = 3;
const COMMANDS: u64 = 200_000;
const ACCOUNTS: u64 = 20_000;
const TENANT: Tenant = Tenant { workspace: WorkspaceId(1), mode: Mode::Live };

fn entry(number: u64) -> Entry {
    let command = match number {
        0 => Command::Initialise {
            fingerprint_key: [7; 16],
            partitions: 4,
            settings: Settings::default(),
            master_key_check: "v1.x".to_owned(),
        },
        1 => Command::CreateWorkspace { id: WorkspaceId(1), name: "bench".to_owned() },
        _ => Command::PutQuota {
            account: AccountScope::One(AccountId::new(&format!("acc_{:06}", number % ACCOUNTS)).expect("an account")),
            metric: MetricName::new("api.requests").expect("a metric"),
            quota: Quota { limit: Quantity::whole(number as i64), period: Period::Month, aggregate: Aggregate::Sum },
        },
    };
    let idempotency = number.is_multiple_of(4).then(|| Idempotency {
        record: format!("key_{number:026}"),
        fingerprint: format!("{number:064}"),
        beside: None,
    });
    Entry {
        tenant: TENANT,
        actor: None,
        request_id: format!("req_{number:026}"),
        if_match: None,
        idempotency,
        ip: None,
        command,
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run());
}

async fn run() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = SqliteJournal::open(&folder.path().join("journal"), 4, clock::now).expect("a journal");
    let journal = Journal::Sqlite(journal);
    let all: Vec<u64> = (0..COMMANDS).collect();
    for some in all.chunks(1_000) {
        let facts = some.iter().map(|number| (Log::Control, Bytes::from(entry(*number).encode()))).collect();
        journal.append(facts).await.expect("appended");
    }
    let snapshots = Snapshots::local(&folder.path().join("snapshots")).expect("snapshots");
    let whole = ControlPlane::open_from(snapshots.clone(), journal.clone()).await.expect("folded");
    // As where every partition has been told.
    whole.forget_changes(whole.position());
    let stopwatch = Stopwatch::start();
    whole.base().publish(&snapshots).await.expect("published");
    println!("a snapshot taken and published in {:.2} s", stopwatch.elapsed().as_secs_f64());
    for _ in 0..ROUNDS {
        let stopwatch = Stopwatch::start();
        let plane = ControlPlane::open(journal.clone()).expect("folded");
        let elapsed = stopwatch.elapsed().as_secs_f64();
        println!("{} commands folded in {elapsed:.2} s", plane.position().0);
        let stopwatch = Stopwatch::start();
        let based = ControlPlane::open_from(snapshots.clone(), journal.clone()).await.expect("restored");
        println!("taken up from a snapshot in {:.2} s", stopwatch.elapsed().as_secs_f64());
        assert!(*based.state() == *plane.state(), "what came back is what was there");
    }
}
