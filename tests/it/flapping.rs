//! Instances that flap while their receiver fails and the server is killed: what a channel took last is how things stand.

use crate::load::{Random, client};
use crate::process::{Server, bootstrap, call};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const ACCOUNTS: u64 = 60;
const ROUNDS: u64 = 6;

/// What came, in its order, with the answer to each; the first attempt of some fails.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<(Value, StatusCode)>>>);

async fn hear(State(heard): State<Heard>, body: Bytes) -> StatusCode {
    let message: Value = serde_json::from_slice(&body).unwrap();
    let id = message["id"].as_str().unwrap();
    // So many are under way at once that some wait, and kills meet some.
    tokio::time::sleep(Duration::from_millis(15)).await;
    let mut heard = heard.0.lock().unwrap();
    let is_first = !heard.iter().any(|(known, _)| known["id"] == id);
    let fails = is_first && id.bytes().map(u64::from).sum::<u64>() % 3 != 0;
    let status = if fails { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NO_CONTENT };
    heard.push((message, status));
    status
}

async fn listen() -> (String, Heard) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let heard = Heard::default();
    let router = Router::new().route("/hook", axum::routing::post(hear)).with_state(heard.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, heard)
}

struct Stage {
    data: std::path::PathBuf,
    key: String,
    /// Which accounts are over their limit.
    over: BTreeMap<String, bool>,
    events: u64,
}

impl Stage {
    async fn ask(&self, server: &Server, method: &str, path: &str, body: Value) -> Value {
        let body = (method != "GET").then_some(body);
        let asked = (method, &*format!("{}{path}", server.base), &*self.key);
        let (status, answer) = call(&client(), asked, body.as_ref()).await.unwrap();
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    async fn set_up(data: &Path, url: &str) -> Self {
        let key = bootstrap(data);
        let over = (0..ACCOUNTS).map(|n| (format!("acc_{n}"), false)).collect();
        let stage = Self { data: data.to_owned(), key, over, events: 0 };
        let server = Server::start(data);
        stage.ask(&server, "PUT", "/v1/accounts/*/quotas/calls", json!({"limit": 100, "period": "month"})).await;
        let channel = json!({"type": "webhook", "name": "ops", "url": url});
        stage.ask(&server, "POST", "/v1/channels", channel).await;
        let alert = json!({"account_id": "*", "rule": "quota_percent > 85", "channel": "webhook"});
        stage.ask(&server, "POST", "/v1/alerts", alert).await;
        server.stop();
        stage
    }

    /// Puts some accounts over their limit and takes others back.
    async fn flap(&mut self, server: &Server, random: &mut Random) {
        for _ in 0..2 {
            let mut events = Vec::new();
            for (account, over) in &mut self.over {
                if random.below(3) == 0 {
                    continue;
                }
                *over = !*over;
                let value = if *over { 90 } else { -90 };
                events.push(json!({"id": format!("e{}", self.events), "account_id": account, "metric": "calls", "value": value}));
                self.events += 1;
            }
            self.ask(server, "POST", "/v1/events/batch", json!({"events": events})).await;
            tokio::time::sleep(Duration::from_millis(random.below(120))).await;
        }
    }
}

/// Checks one account's messages, those that were taken in their order.
fn check(account: &str, taken: &[&Value], fires: bool) {
    let mut open: BTreeSet<&str> = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for message in taken {
        let id = message["id"].as_str().unwrap();
        if !seen.insert(id) {
            continue;
        }
        match message["type"].as_str().unwrap() {
            "alert.firing" => {
                open.insert(id);
            }
            "alert.resolved" => {
                let closes: BTreeSet<&str> =
                    message["data"]["closes"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
                assert!(open.is_subset(&closes), "{account}: {closes:?} leaves one of {open:?} open");
                open.clear();
            }
            other => panic!("{account}: {other}"),
        }
    }
    assert_eq!(!open.is_empty(), fires, "{account}: the last word is wrong: {taken:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_channel_took_last_is_how_things_stand() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = Random(seed);
    let folder = tempfile::tempdir().unwrap();
    let (url, heard) = listen().await;
    let mut stage = Stage::set_up(&folder.path().join("data"), &url).await;
    for _ in 0..ROUNDS {
        let server = Server::start(&stage.data);
        stage.flap(&server, &mut random).await;
        server.kill();
    }
    let server = Server::start(&stage.data);
    let pending = "highwater_notification_oldest_pending_seconds";
    let mut quiet = 0;
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        quiet = if server.metrics().await[pending] > 0.0 { 0 } else { quiet + 1 };
        if quiet > 20 {
            break;
        }
    }
    assert!(quiet > 20, "something stays pending");
    let deliveries = stage.ask(&server, "GET", "/v1/channels?page_size=1", Value::Null).await;
    let channel = deliveries["items"][0]["id"].as_str().unwrap();
    let path = format!("/v1/channels/{channel}/deliveries?status=superseded&page_size=10");
    let superseded = stage.ask(&server, "GET", &path, Value::Null).await;
    assert!(!superseded["items"].as_array().unwrap().is_empty(), "nothing was superseded: {superseded}");
    server.stop();
    let heard = heard.0.lock().unwrap().clone();
    let failed = heard.iter().filter(|(_, status)| !status.is_success()).count();
    for (account, fires) in &stage.over {
        let taken: Vec<&Value> = heard
            .iter()
            .filter(|(message, status)| status.is_success() && message["data"]["account_id"] == **account)
            .map(|(message, _)| message)
            .collect();
        check(account, &taken, *fires);
    }
    println!("{} events, {} attempts, of which {failed} failed", stage.events, heard.len());
}
