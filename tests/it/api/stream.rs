//! The stream: what the folds derive, as it comes, and from where a client left.

use super::oauth;
use crate::server::{Options, PATIENCE, Server};
use highwater::api::ListenerLimits;
use highwater::domain::control::resource::Scope;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A client that reads events.
struct Client {
    stream: TcpStream,
    text: String,
    last_id: String,
}

impl Client {
    async fn follow(server: &Server, key: &str, path: &str, last_id: &str) -> Self {
        let mut stream = server.connect().await;
        let resumes = if last_id.is_empty() { String::new() } else { format!("last-event-id: {last_id}\r\n") };
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n{resumes}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut client = Self { stream, text: String::new(), last_id: last_id.to_owned() };
        let status = client.until("\r\n\r\n").await;
        assert!(status.starts_with("HTTP/1.1 200") && status.contains("text/event-stream"), "{status}");
        client
    }

    /// Reads to the end of a block.
    async fn until(&mut self, end: &str) -> String {
        let read = async {
            let mut some = [0; 4_096];
            loop {
                if let Some(at) = self.text.find(end) {
                    let rest = self.text.split_off(at + end.len());
                    return std::mem::replace(&mut self.text, rest);
                }
                let n = self.stream.read(&mut some).await.unwrap();
                assert!(n > 0, "the stream ended: {}", self.text);
                self.text.push_str(&String::from_utf8_lossy(&some[..n]));
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect("nothing came")
    }

    /// Reads to the end of the stream, which comes within a second.
    async fn ends(&mut self) {
        let read = tokio::time::timeout(Duration::from_secs(1), self.until("\r\n0\r\n\r\n")).await;
        read.expect("the stream goes on");
    }

    /// The next event with data, of a type.
    async fn next(&mut self, kind: &str) -> Value {
        loop {
            let block = self.until("\n\n").await;
            for line in block.lines() {
                if let Some(id) = line.strip_prefix("id: ") {
                    self.last_id = id.to_owned();
                }
            }
            if block.contains(&format!("event: {kind}\n")) {
                let data = block.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
                return serde_json::from_str(data).unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_and_states_are_told_and_a_client_goes_on_where_it_left() {
    // The answer's body outlives the limit of its head.
    let limits = ListenerLimits { request: Duration::from_millis(500), ..ListenerLimits::default() };
    let server = Server::start_with(Options { limits, ..Options::default() }).await;
    let alert = super::endpoints::alert(&server, "sum > 10").await;
    let mut client = Client::follow(&server, &server.key, "/v1/stream", "").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.count("acme", "m", 5).await;
    let window = client.next("usage.window").await;
    assert_eq!((&window["account_id"], &window["metric"], &window["sum"]), (&json!("acme"), &json!("m"), &json!(5)));
    server.count("acme", "m", 6).await;
    let state = client.next("alert.state").await;
    assert_eq!((&state["alert_id"], &state["from"], &state["to"]), (&json!(alert), &json!("ok"), &json!("firing")));
    let left = client.last_id.clone();
    drop(client);
    for n in 0..30 {
        server.count(&format!("a{n}"), "m", 11).await;
    }
    server.count("acme", "m", 1).await;
    let mut client = Client::follow(&server, &server.key, "/v1/stream", &left).await;
    let mut fired = std::collections::BTreeSet::new();
    while fired.len() < 30 {
        let state = client.next("alert.state").await;
        assert_eq!(state["to"], "firing");
        fired.insert(state["account_id"].as_str().unwrap().to_owned());
    }
    drop(client);
    // From the same place once more, and then on with what comes.
    let mut client = Client::follow(&server, &server.key, "/v1/stream?account_id=acme", &left).await;
    loop {
        let window = client.next("usage.window").await;
        assert_eq!(window["account_id"], "acme");
        if window["sum"] == 12 {
            break;
        }
    }
    server.count("acme", "m", 8).await;
    assert_eq!(client.next("usage.window").await["sum"], 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_goes_on_behind_a_restart() {
    let mut server = Server::start().await;
    let mut client = Client::follow(&server, &server.key, "/v1/stream", "").await;
    server.count("acme", "m", 5).await;
    client.next("usage.window").await;
    let left = client.last_id.clone();
    server.count("acme", "m", 6).await;
    server.restart().await;
    let mut client = Client::follow(&server, &server.key, "/v1/stream", &left).await;
    assert_eq!(client.next("usage.window").await["sum"], 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scopes_choose_and_streams_are_counted() {
    let server = Server::start().await;
    super::endpoints::alert(&server, "sum > 10").await;
    let none = server.key_with(&[Scope::ReadAccounts]).await;
    let ask = |key: &str| server.ask(Method::GET, "/v1/stream").key(key);
    ask(&none).send().await.problem(403, "insufficient_scope");
    ask("x").anonymous().send().await.problem(401, "authentication_required");
    ask(&server.key).header("last-event-id", "7").send().await.problem(400, "invalid_header");
    let alerts = server.key_with(&[Scope::ReadAlerts]).await;
    let mut client = Client::follow(&server, &alerts, "/v1/stream", "").await;
    server.count("acme", "m", 11).await;
    // What comes first is no window, though one changed before.
    let block = loop {
        let block = client.until("\n\n").await;
        if block.contains("data: ") {
            break block;
        }
    };
    assert!(block.contains("event: alert.state"), "{block}");
    let usage = server.key_with(&[Scope::ReadUsage]).await;
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(Client::follow(&server, &usage, "/v1/stream", "").await);
    }
    let refused = ask(&usage).send().await;
    assert_eq!(refused.header("retry-after"), "1");
    let problem = refused.problem(429, "rate_limited");
    assert_eq!((&problem["retry_after"], &problem["violated-policies"]), (&json!(1), &json!(["streams"])));
    drop(all);
    crate::server::eventually("a free place", async || {
        let mut stream = server.connect().await;
        let head = format!("GET /v1/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {usage}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut some = [0; 12];
        stream.read_exact(&mut some).await.unwrap();
        (&some == b"HTTP/1.1 200").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_is_cut_off() {
    let server = Server::start().await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(server.address()).await.unwrap();
    let head = format!("GET /v1/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", server.key);
    stream.write_all(head.as_bytes()).await.unwrap();
    let body: Vec<Value> = (0..1_000).map(|n| json!({"account_id": format!("{n:0>100}"), "metric": "m"})).collect();
    let body = json!({"events": body});
    let cut = async {
        loop {
            server.post("/v1/events/batch", body.clone()).await.ok(202);
            tokio::time::sleep(Duration::from_millis(100)).await;
            // What cannot be written any more is told by an error of the connection.
            if stream.write_all(b"x").await.is_err() {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(90), cut).await.expect("the connection stays open");
}

/// Row 6 of the security checklist, as far as what is open already goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_the_credential_that_opened_it() {
    let server = Server::start().await;
    let (id, secret) = oauth::client(&server, json!({"name": "c", "role": "viewer"})).await;
    let own = (id.as_str(), secret.as_str());
    let (token, other) = (oauth::access(&server, own, "").await, oauth::access(&server, own, "").await);
    let key = server.post("/v1/api-keys", json!({"name": "k", "role": "viewer"})).await.ok(201);
    let key_path = format!("/v1/api-keys/{}", key["key_id"].as_str().unwrap());
    let key = key["key"].as_str().unwrap();
    let mut by_key = Client::follow(&server, key, "/v1/stream", "").await;
    let mut by_token = Client::follow(&server, &token, "/v1/stream", "").await;
    let mut by_other = Client::follow(&server, &other, "/v1/stream", "").await;
    let asked = server.ask(Method::POST, "/v1/oauth/revoke");
    oauth::basic(oauth::form(asked, &[("token", &token)]), own).send().await.ok(200);
    by_token.ends().await;
    // Others go on, until it is their turn.
    server.count("acme", "m", 11).await;
    by_other.next("usage.window").await;
    by_key.next("usage.window").await;
    server.ask(Method::DELETE, &format!("/v1/oauth/clients/{id}")).send().await.ok(204);
    by_other.ends().await;
    server.count("acme", "m", 12).await;
    by_key.next("usage.window").await;
    server.post(&format!("{key_path}/revoke"), json!({})).await.ok(200);
    by_key.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_where_its_credential_is_narrowed_to_elsewhere() {
    let server = Server::start().await;
    let (id, secret) = oauth::client(&server, json!({"name": "c", "role": "viewer"})).await;
    let token = oauth::access(&server, (&id, &secret), "").await;
    let key = server.post("/v1/api-keys", json!({"name": "k", "role": "viewer"})).await.ok(201);
    let credentials = [
        (key["key"].as_str().unwrap(), format!("/v1/api-keys/{}", key["id"].as_str().unwrap())),
        (&token, format!("/v1/oauth/clients/{id}")),
    ];
    for (credential, path) in credentials {
        let mut client = Client::follow(&server, credential, "/v1/stream", "").await;
        // Narrowed to where it is, and renamed, it goes on.
        server.patch(&path, json!({"allowed_ips": ["127.0.0.0/8"], "name": "n"})).await.ok(200);
        server.count("acme", "m", 1).await;
        client.next("usage.window").await;
        server.patch(&path, json!({"allowed_ips": ["192.0.2.0/24"]})).await.ok(200);
        client.ends().await;
        server.ask(Method::GET, "/v1/stream").key(credential).send().await.problem(403, "ip_not_allowed");
    }
    let expires = server.post("/v1/api-keys", json!({"name": "k", "role": "viewer", "expires_in": "2s"})).await.ok(201);
    let mut client = Client::follow(&server, expires["key"].as_str().unwrap(), "/v1/stream", "").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    client.ends().await;
}
