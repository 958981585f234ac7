//! What a served node does: HTTP ingest with durable answers, and the time from an accepted event to its webhook.
//!
//! `cargo bench --bench serve`; client, server and receiver share this machine's cores.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench says what it found, or that it cannot run")]

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use highwater::api::{Front, Listeners, Rates, Running};
use highwater::credential;
use highwater::domain::control::command::Command;
use highwater::domain::control::resource::{ApiKey, Role};
use highwater::domain::id::{KeyId, Mode, Tenant, WorkspaceId};
use highwater::notifier::Guard;
use highwater::runtime::clock::{self, Stopwatch};
use highwater::runtime::control::Asking;
use highwater::runtime::data::{Data, Places};
use highwater::runtime::node::{Duty, Node};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

const BATCHES: u64 = 6_000;
const BATCH_EVENTS: u64 = 100;
const CONNECTIONS: u64 = 16;
const NOTIFICATIONS: usize = 1_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let bench = Bench::start().await;
        bench.latency("event accepted → webhook received, idle").await;
        bench.ingest().await;
        bench.loaded_latency().await;
        bench.running.stop().await;
    });
}

struct Bench {
    _folder: tempfile::TempDir,
    running: Running,
    http: reqwest::Client,
    base: String,
    key: String,
    arrivals: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<(String, i64)>>>,
}

impl Bench {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = Data::open(&Places::in_folder(&folder.path().join("data"))).await.expect("data");
        let key = owner_key(&data).await;
        let guard = Guard { allow_cidrs: vec!["127.0.0.0/8".parse().expect("a network")], ..Guard::default() };
        let node = Node::start(data, guard, "http://127.0.0.1", Duty::Serve).await.expect("a node");
        let any = "127.0.0.1:0".parse().expect("an address");
        let unlimited = Front { rates: Rates::unlimited(), ..Front::default() };
        let running = Listeners::open(any, any).await.expect("listeners").with_front(unlimited).serve(node);
        let (hook, arrivals) = receiver().await;
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let base = format!("http://{}", running.address);
        let arrivals = Arc::new(tokio::sync::Mutex::new(arrivals));
        let bench = Self { _folder: folder, running, http, base, key, arrivals };
        let channel =
            bench.call("POST", "/v1/channels", json!({"type": "webhook", "name": "bench", "url": hook})).await;
        // The first event of a fresh account passes the threshold: one notification for each.
        bench.call("PUT", "/v1/accounts/*/quotas/watched", json!({"limit": 10, "period": "month"})).await;
        let alert =
            json!({"account_id": "*", "metric": "watched", "rule": "quota_percent > 85", "channel": channel["id"]});
        bench.call("POST", "/v1/alerts", alert).await;
        bench
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let request = self.http.request(method.parse().expect("a method"), format!("{}{path}", self.base));
        let request = request.bearer_auth(&self.key).header("content-type", "application/json").body(body.to_string());
        let answer = request.send().await.expect("an answer");
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// One event after another, each of a fresh account that passes its threshold with it.
    async fn latency(&self, what: &str) {
        let run = ulid::Ulid(clock::ulid());
        let mut taken = Vec::with_capacity(NOTIFICATIONS);
        let mut arrivals = self.arrivals.lock().await;
        for number in 0..NOTIFICATIONS {
            let account = format!("{run}-{number}");
            let event = json!({"account_id": account, "metric": "watched", "value": 9});
            let stopwatch = Stopwatch::start();
            self.call("POST", "/v1/events", event).await;
            let waited = tokio::time::timeout(Duration::from_secs(10), async {
                while arrivals.recv().await.is_some_and(|(seen, _)| seen != account) {}
            });
            waited.await.expect("a webhook for every event");
            taken.push(stopwatch.elapsed());
        }
        taken.sort();
        let at = |share: f64| taken[((taken.len() - 1) as f64 * share) as usize].as_secs_f64() * 1_000.0;
        println!(
            "{what}: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms of {NOTIFICATIONS} (from the request's start)",
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }

    async fn ingest(&self) {
        let stopwatch = Stopwatch::start();
        let sent = Arc::new(AtomicU64::new(0));
        let senders: Vec<_> = (0..CONNECTIONS).map(|_| tokio::spawn(self.sender(Arc::clone(&sent), BATCHES))).collect();
        for sender in senders {
            sender.await.expect("a sender");
        }
        let seconds = stopwatch.elapsed().as_secs_f64();
        println!(
            "HTTP ingest, durable, {BATCH_EVENTS} events a request, {CONNECTIONS} connections: {:.0} events/s",
            (BATCHES * BATCH_EVENTS) as f64 / seconds
        );
    }

    /// The same while other senders keep the server about half busy.
    async fn loaded_latency(&self) {
        let sent = Arc::new(AtomicU64::new(0));
        let going = Arc::new(AtomicBool::new(true));
        let load = {
            let (client, going, sent) = (self.poster(), Arc::clone(&going), Arc::clone(&sent));
            tokio::spawn(async move {
                let mut interval = tokio::time::interval(Duration::from_millis(1));
                while going.load(Ordering::Relaxed) {
                    interval.tick().await;
                    client(sent.fetch_add(1, Ordering::Relaxed) + BATCHES * 1_000).await;
                }
            })
        };
        let stopwatch = Stopwatch::start();
        self.latency("event accepted → webhook received, under load").await;
        let rate = (sent.load(Ordering::Relaxed) * BATCH_EVENTS) as f64 / stopwatch.elapsed().as_secs_f64();
        going.store(false, Ordering::Relaxed);
        load.await.expect("the load");
        println!("  that load: {rate:.0} events/s from one connection");
    }

    fn sender(&self, sent: Arc<AtomicU64>, batches: u64) -> impl Future<Output = ()> + use<> {
        let post = self.poster();
        async move {
            loop {
                let number = sent.fetch_add(1, Ordering::Relaxed);
                if number >= batches {
                    return;
                }
                post(number).await;
            }
        }
    }

    /// Posts the batch of a number; the bytes are made outside of what a server would do, but on the same cores.
    fn poster(&self) -> impl Fn(u64) -> futures::future::BoxFuture<'static, ()> + use<> {
        let (http, url, key) = (self.http.clone(), format!("{}/v1/events/batch", self.base), self.key.clone());
        move |number| {
            let body = batch(number);
            let request = http.post(&url).bearer_auth(&key).header("content-type", "application/json").body(body);
            Box::pin(async move {
                let answer = request.send().await.expect("an answer");
                assert_eq!(answer.status().as_u16(), 202);
            })
        }
    }
}

fn batch(number: u64) -> String {
    let mut text = String::from("{\"events\":[");
    for place in 0..BATCH_EVENTS {
        let account = (number * 7 + place * 13) % 1_000;
        let comma = if place == 0 { "" } else { "," };
        text.push_str(&format!(
            r#"{comma}{{"account_id":"acc_{account}","metric":"api.requests","value":3,"id":"b{number}-{place}","dimensions":{{"region":"eu-west-1"}}}}"#
        ));
    }
    text.push_str("]}");
    text
}

async fn receiver() -> (String, mpsc::UnboundedReceiver<(String, i64)>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    let (arrived, arrivals) = mpsc::unbounded_channel();
    let take = move |body: Bytes| {
        let arrived = arrived.clone();
        async move {
            let body: Value = serde_json::from_slice(&body).expect("a JSON body");
            let account = body["data"]["account_id"].as_str().expect("an account").to_owned();
            arrived.send((account, clock::now().0)).expect("the bench listens");
            StatusCode::NO_CONTENT
        }
    };
    let router = Router::new().route("/hook", axum::routing::post(take));
    tokio::spawn(async move { axum::serve(listener, router).await.expect("the receiver") });
    (url, arrivals)
}

async fn owner_key(data: &Data) -> String {
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
    let create = Command::CreateKey { key: record };
    data.control.submit(Asking::by_command_line(tenant), create).await.expect("a key");
    text
}
