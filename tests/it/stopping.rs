//! How a server ends: within the time that Docker gives it, whatever hangs, and for no other signal than the ones that say so.

use crate::process::{Server, bootstrap, call};
use crate::receiver::{Receiver, Reply};
use serde_json::{Value, json};
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

/// What a stop may take in all. Docker kills after ten seconds.
const STOP_MOST: Duration = Duration::from_secs(8);

/// What hangs while the server stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hangs {
    Nothing,
    Receivers,
    Clients,
    Store,
    All,
}

impl Hangs {
    fn has(self, one: Self) -> bool {
        self == one || self == Self::All
    }
}

async fn post(http: &reqwest::Client, (server, key): (&Server, &str), path: &str, body: Value) -> Value {
    let url = format!("{}{path}", server.base);
    let (status, answer) = call(http, ("POST", &url, key), Some(&body)).await.unwrap();
    assert!((200..300).contains(&status), "{path}: {status} {answer}");
    answer
}

/// Lets a channel's and an endpoint's receiver take requests that they never answer.
async fn hang_receivers(http: &reqwest::Client, server: (&Server, &str)) -> Receiver {
    let mut receiver = Receiver::answering(Reply::status(204).after(Duration::from_secs(600))).await;
    let channel = json!({"type": "webhook", "name": "c", "url": receiver.url()});
    let channel = post(http, server, "/v1/channels", channel).await;
    let endpoint = json!({"url": receiver.url(), "event_types": ["account.created"]});
    post(http, server, "/v1/webhooks", endpoint).await;
    post(http, server, "/v1/accounts", json!({"id": "acme"})).await;
    post(http, server, &format!("/v1/channels/{}/test", channel["id"].as_str().unwrap()), json!({})).await;
    for _ in 0..2 {
        receiver.next().await;
    }
    receiver
}

/// Sends half of a request on each of a few connections.
fn hang_clients(server: &Server, key: &str) -> Vec<TcpStream> {
    let address = server.base.strip_prefix("http://").unwrap();
    let connect = |_| {
        let mut client = TcpStream::connect(address).unwrap();
        let head = format!("POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n");
        write!(client, "{head}content-type: application/json\r\ncontent-length: 1000\r\n\r\n{{\"acc").unwrap();
        client
    };
    (0..3).map(connect).collect()
}

/// Holds the store for itself, as a disk that hangs would.
fn hang_store(data: &Path) -> rusqlite::Connection {
    let lock = rusqlite::Connection::open(data.join("store.db")).unwrap();
    lock.busy_timeout(Duration::from_secs(5)).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    lock
}

async fn stops_in_time(hangs: Hangs) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let key = bootstrap(&data);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let server = Server::start(&data);
    let receiver = match hangs.has(Hangs::Receivers) {
        true => Some(hang_receivers(&http, (&server, &key)).await),
        false => None,
    };
    let store = hangs.has(Hangs::Store).then(|| hang_store(&data));
    post(&http, (&server, &key), "/v1/events", json!({"account_id": "acme", "metric": "m", "id": "1"})).await;
    let clients = if hangs.has(Hangs::Clients) { hang_clients(&server, &key) } else { Vec::new() };
    // What was sent is under way, and what was counted waits for the store.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let asked = highwater::runtime::clock::Stopwatch::start();
    tokio::task::spawn_blocking(move || server.stop()).await.map_err(|error| format!("{hangs:?}: {error}"))?;
    let took = asked.elapsed();
    drop((receiver, store, clients));
    if took > STOP_MOST { Err(format!("{hangs:?}: the stop took {took:.1?}")) } else { Ok(()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_takes_at_most_eight_seconds_whatever_hangs() {
    let all = [Hangs::Nothing, Hangs::Receivers, Hangs::Clients, Hangs::Store, Hangs::All];
    let ended = futures::future::join_all(all.map(stops_in_time)).await;
    let late: Vec<String> = ended.into_iter().filter_map(Result::err).collect();
    assert!(late.is_empty(), "{late:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hangup_ends_no_server() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let key = bootstrap(&data);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let server = Server::start(&data);
    for id in ["1", "2"] {
        server.hang_up();
        tokio::time::sleep(Duration::from_millis(200)).await;
        post(&http, (&server, &key), "/v1/events", json!({"account_id": "acme", "metric": "m", "id": id})).await;
    }
    // It ends in order when it is told to.
    server.stop();
}
