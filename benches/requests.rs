//! What a request costs beside its work: small authenticated requests on keep-alive connections, and what the limiter,
//! the check of a key and an idempotency key add to them.
//!
//! `cargo bench --bench requests`; client and server share this machine's cores. No endpoint of the API works without a
//! credential, so its check is measured by itself, and `/healthz` beside it, which needs none.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench says what it found, or that it cannot run")]

#[path = "support/allocator.rs"]
mod allocator;
#[path = "support/connection.rs"]
mod connection;
#[path = "support/credential.rs"]
mod credential;
#[path = "support/figures.rs"]
mod figures;

use connection::{Connection, post_batch};
use credential::owner_key;
use figures::shares;
use highwater::api::{Front, Listeners, Rates, Running};
use highwater::credential::authenticate;
use highwater::domain::control::access::ProjectDraft;
use highwater::domain::control::command::Command;
use highwater::domain::control::resource::Environment;
use highwater::domain::id::{Mode, ProjectId, Tenant};
use highwater::limiter::Rings;
use highwater::notifier::Guard;
use highwater::runtime::clock::{self, Stopwatch};
use highwater::runtime::control::Asking;
use highwater::runtime::data::{Data, Places};
use highwater::runtime::node::{Duty, Node};
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Duration;

const CONNECTIONS: usize = 16;
const SECONDS: u64 = 5;
const SAMPLES: usize = 5_000;
const CHANGES: usize = 2_000;
/// More than is asked in a minute of the bench.
const RAISED: u32 = 1_000_000;

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let raised = Rates { live: RAISED, ingest: RAISED, ..Rates::default() };
        for (what, rates) in [("limiter", raised), ("no limiter", Rates::unlimited())] {
            let bench = Bench::start(rates).await;
            bench.latency(what).await;
            bench.repetitions(what).await;
            bench.throughput(what).await;
            bench.running.stop().await;
        }
        pieces().await;
    });
}

struct Bench {
    _folder: tempfile::TempDir,
    running: Running,
    key: String,
}

impl Bench {
    async fn start(rates: Rates) -> Self {
        let (folder, data, key) = opened().await;
        let node = Node::start(data, Guard::default(), "http://127.0.0.1", Duty::Serve).await.expect("a node");
        let any = "127.0.0.1:0".parse().expect("an address");
        let front = Front { rates, ..Front::default() };
        let running = Listeners::open(any, any).await.expect("listeners").with_front(front).serve(node);
        Self { _folder: folder, running, key }
    }

    fn get(&self, path: &str) -> Vec<u8> {
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", self.key).into_bytes()
    }

    /// A change; repeated under the same key, it is made once.
    fn change(&self, project: &str, number: usize, idempotency_key: Option<&str>) -> Vec<u8> {
        let body = format!("{{\"name\":\"Project {number}\"}}");
        let idempotency = idempotency_key.map_or_else(String::new, |key| format!("idempotency-key: {key}\r\n"));
        format!(
            "PATCH /v1/projects/{project} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{idempotency}\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.key,
            body.len()
        )
        .into_bytes()
    }

    fn batch(&self) -> Vec<u8> {
        let event = r#"{"account_id":"acme","metric":"api.requests","value":3,"dimensions":{"region":"eu-west-1"}}"#;
        let body = format!("{{\"events\":[{}]}}", [event; 100].join(","));
        post_batch(&self.key, &body)
    }

    /// One after another on one connection.
    async fn latency(&self, what: &str) {
        let mut connection = Connection::open(self.running.address).await;
        connection.ask(&self.batch(), 202).await;
        assert!(self.running.node().settle(Duration::from_secs(10)).await, "the events are counted");
        let asked = [
            ("GET /healthz, no credential", b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), 200),
            ("GET /v1/metrics", self.get("/v1/metrics"), 200),
            ("GET /v1/accounts/{id}/usage", self.get("/v1/accounts/acme/usage"), 200),
            ("100-event batch, durable", self.batch(), 202),
        ];
        for (name, request, status) in asked {
            let mut taken = Vec::with_capacity(SAMPLES);
            for _ in 0..SAMPLES {
                let stopwatch = Stopwatch::start();
                connection.ask(&request, status).await;
                taken.push(stopwatch.elapsed());
            }
            println!("{name}, {what}: {}", shares(taken));
        }
    }

    /// Changes with and without an idempotency key, in turns.
    async fn repetitions(&self, what: &str) {
        let mut connection = Connection::open(self.running.address).await;
        let project = self.project().await;
        let (mut bare, mut safe) = (Vec::with_capacity(CHANGES), Vec::with_capacity(CHANGES));
        for number in 0..CHANGES {
            let key = format!("change-{number}");
            for (key, taken) in [(None, &mut bare), (Some(key.as_str()), &mut safe)] {
                let request = self.change(&project, number, key);
                let stopwatch = Stopwatch::start();
                connection.ask(&request, 200).await;
                taken.push(stopwatch.elapsed());
            }
        }
        println!("PATCH /v1/projects/{{id}}, durable, {what}: {}", shares(bare));
        println!("PATCH /v1/projects/{{id}} with Idempotency-Key, durable, {what}: {}", shares(safe));
    }

    /// Makes a project; returns its id.
    async fn project(&self) -> String {
        let tenant = self.running.node().data.control.state().workspaces().next().map(|workspace| workspace.id);
        let tenant = Tenant { workspace: tenant.expect("a workspace"), mode: Mode::Live };
        let id = ProjectId(clock::ulid());
        let metadata = std::collections::BTreeMap::new();
        let draft = ProjectDraft { id, name: "bench".to_owned(), env: Environment::Prod, metadata };
        let asking = Asking::by_command_line(tenant);
        let control = &self.running.node().data.control;
        control.submit(asking, Command::CreateProject(draft)).await.expect("a project");
        id.to_string()
    }

    async fn throughput(&self, what: &str) {
        let (address, request) = (self.running.address, self.get("/v1/metrics"));
        let stopwatch = Stopwatch::start();
        let callers: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let request = request.clone();
                tokio::spawn(async move {
                    let mut connection = Connection::open(address).await;
                    let mut asked = 0_u64;
                    while stopwatch.elapsed().as_secs() < SECONDS {
                        connection.ask(&request, 200).await;
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        let mut asked = 0;
        for caller in callers {
            asked += caller.await.expect("a caller");
        }
        let rate = asked as f64 / stopwatch.elapsed().as_secs_f64();
        println!("GET /v1/metrics, {what}, {CONNECTIONS} keep-alive connections: {rate:.0} requests/s");
    }
}

/// What the check of a key and the limiter cost by themselves.
async fn pieces() {
    const TIMES: u32 = 1_000_000;
    let (_folder, data, key) = opened().await;
    let (state, now, from) = (data.control.state(), clock::now(), Ipv4Addr::LOCALHOST.into());
    let stopwatch = Stopwatch::start();
    let mut taken = Vec::with_capacity(TIMES as usize);
    for _ in 0..TIMES {
        let stopwatch = Stopwatch::start();
        black_box(authenticate(&state, black_box(&key), from, now).expect("a key"));
        taken.push(stopwatch.elapsed());
    }
    let mean = stopwatch.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES);
    taken.sort();
    let at = |share: usize| taken[taken.len() * share / 100].as_nanos();
    println!("check of a key: {mean:.0} ns on average, p50 {} ns, p99 {} ns", at(50), at(99));
    let rings = Rings::new(Duration::from_secs(60), Duration::from_secs(120), 100_000);
    let stopwatch = Stopwatch::start();
    for _ in 0..TIMES {
        black_box(rings.take(black_box(1_u128), RAISED, stopwatch.elapsed()).expect("room"));
    }
    println!("draw on a limit: {:.0} ns", stopwatch.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES));
}

async fn opened() -> (tempfile::TempDir, Data, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let data = Data::open(&Places::in_folder(&folder.path().join("data"))).await.expect("data");
    let key = owner_key(&data).await;
    (folder, data, key)
}
