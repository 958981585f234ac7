//! What a request costs beside its work: small authenticated requests on keep-alive connections, and what the limiter and
//! the check of a key add to them.
//!
//! `cargo bench --bench requests`; client and server share this machine's cores.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench says what it found, or that it cannot run")]

use highwater::api::{Front, Listeners, Rates, Running};
use highwater::credential;
use highwater::domain::control::command::Command;
use highwater::domain::control::resource::{ApiKey, Role};
use highwater::domain::id::{KeyId, Mode, Tenant, WorkspaceId};
use highwater::limiter::Rings;
use highwater::notifier::Guard;
use highwater::runtime::clock::{self, Stopwatch};
use highwater::runtime::control::Asking;
use highwater::runtime::data::{Data, Places};
use highwater::runtime::node::{Duty, Node};
use secrecy::ExposeSecret;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CONNECTIONS: usize = 16;
const SECONDS: u64 = 5;
const SAMPLES: usize = 5_000;
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

    fn batch(&self) -> Vec<u8> {
        let event = r#"{"account_id":"acme","metric":"api.requests","value":3,"dimensions":{"region":"eu-west-1"}}"#;
        let body = format!("{{\"events\":[{}]}}", [event; 100].join(","));
        let (key, length) = (&self.key, body.len());
        format!(
            "POST /v1/events/batch HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    /// One after another on one connection.
    async fn latency(&self, what: &str) {
        let mut connection = Connection::open(self.running.address).await;
        connection.ask(&self.batch(), 202).await;
        assert!(self.running.node().settle(Duration::from_secs(10)).await, "the events are counted");
        let asked = [
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
            taken.sort();
            let at = |share: f64| taken[((taken.len() - 1) as f64 * share) as usize].as_secs_f64() * 1_000.0;
            println!("{name}, {what}: p50 {:.3} ms, p99 {:.3} ms of {SAMPLES}", at(0.5), at(0.99));
        }
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
    for _ in 0..TIMES {
        black_box(credential::authenticate(&state, black_box(&key), from, now).expect("a key"));
    }
    println!("check of a key: {:.0} ns", stopwatch.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES));
    let rings = Rings::new(Duration::from_secs(60), Duration::from_secs(120), 100_000);
    let stopwatch = Stopwatch::start();
    for _ in 0..TIMES {
        black_box(rings.take(black_box(1_u128), RAISED, stopwatch.elapsed()).expect("room"));
    }
    println!("draw on a limit: {:.0} ns", stopwatch.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES));
}

/// A connection that asks, and reads no more of an answer than its status and its end.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("an option");
        Self { stream, buffer: vec![0; 256 * 1_024] }
    }

    async fn ask(&mut self, request: &[u8], status: u16) {
        self.stream.write_all(request).await.expect("a request");
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await.expect("an answer");
            assert!(read > 0, "the connection was closed");
            filled += read;
            let answer = &self.buffer[..filled];
            let Some(head) = memchr::memmem::find(answer, b"\r\n\r\n") else { continue };
            let text = std::str::from_utf8(&answer[..head]).expect("a head");
            assert_eq!(&text[9..12], status.to_string(), "{text}");
            let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            let length: usize = length.expect("a length").parse().expect("a number");
            if filled >= head + 4 + length {
                return;
            }
        }
    }
}

async fn opened() -> (tempfile::TempDir, Data, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let data = Data::open(&Places::in_folder(&folder.path().join("data"))).await.expect("data");
    let tenant = Tenant { workspace: WorkspaceId(clock::ulid()), mode: Mode::Live };
    let create = Command::CreateWorkspace { id: tenant.workspace, name: "bench".to_owned() };
    data.control.submit(Asking::by_command_line(tenant), create).await.expect("a workspace");
    let key = credential::generate(Mode::Live, clock::random());
    let text = key.expose_secret().to_owned();
    let id = KeyId(clock::ulid());
    let record = ApiKey {
        id,
        lookup: credential::parse(&text).expect("a key").lookup,
        hash: credential::hash(&text),
        workspace: tenant.workspace,
        mode: tenant.mode,
        lineage: id,
        name: "bench".to_owned(),
        scopes: Role::Owner.scopes(),
        projects: Vec::new(),
        hint: credential::hint(&text),
        expires_at: None,
        rate_limit: None,
        role: Some(Role::Owner),
        allowed_ips: Vec::new(),
        metadata: std::collections::BTreeMap::new(),
    };
    data.control.submit(Asking::by_command_line(tenant), Command::CreateKey { key: record }).await.expect("a key");
    (folder, data, text)
}
