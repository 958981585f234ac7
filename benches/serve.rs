//! What a served node does: HTTP ingest with durable answers, and the time from an accepted event to its webhook.
//!
//! `cargo bench --bench serve`; client, server and receiver share this machine's cores.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench says what it found, or that it cannot run")]

#[path = "support/allocator.rs"]
mod allocator;
#[path = "support/batch.rs"]
mod batch;
#[path = "support/credential.rs"]
mod credential;
#[path = "support/figures.rs"]
mod figures;
#[path = "support/hook.rs"]
mod hook;

use batch::{BATCH_EVENTS, batch};
use credential::owner_key;
use figures::shares;
use highwater::api::{Front, Listeners, Rates, Running};
use highwater::notifier::Guard;
use highwater::runtime::clock::{self, Stopwatch};
use highwater::runtime::data::{Data, Places};
use highwater::runtime::node::{Duty, Node};
use hook::receiver;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

const BATCHES: u64 = 6_000;
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
    arrivals: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<String>>>,
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
                while arrivals.recv().await.is_some_and(|seen| seen != account) {}
            });
            waited.await.expect("a webhook for every event");
            taken.push(stopwatch.elapsed());
        }
        println!("{what}: {} (from the request's start)", shares(taken));
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
