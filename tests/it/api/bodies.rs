//! What request bodies may hold: by route, by what they become, by who sends them, and all together.

use super::oauth::form;
use crate::server::{Options, Server, eventually, read_to_end, unhurried};
use highwater::api::Front;
use highwater::domain::id::Mode;
use highwater::runtime::clock::Stopwatch;
use reqwest::Method;
use serde_json::json;
use std::io::Write;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const LINES: &str = "application/x-ndjson";
const MIB: usize = 1 << 20;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

async fn held(server: &Server) -> usize {
    let url = format!("http://{}/metrics", server.admin());
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    let line = text.lines().find(|line| line.starts_with("highwater_body_memory_bytes ")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() as usize
}

/// A request whose body of `announced` bytes is sent up to `sent`.
async fn half_sent(server: &Server, head: &str, (sent, announced): (usize, usize)) -> TcpStream {
    let mut stream = server.connect().await;
    let head = format!("{head}host: x\r\nconnection: close\r\ncontent-length: {announced}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b' '; sent]).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_is_small_and_plain() {
    let server = Server::start().await;
    for path in ["/v1/oauth/token", "/v1/oauth/revoke"] {
        let ask = || form(server.ask(Method::POST, path), &[("grant_type", "client_credentials")]);
        let packed = ask().header("content-encoding", "gzip").body(gzip(&vec![b'a'; 10 * MIB])).send().await;
        assert_eq!((packed.status, packed.json()["error"].as_str()), (415, Some("invalid_request")), "{path}");
        let long = ask().body(vec![b'a'; 16 * 1024 + 1]).send().await;
        assert_eq!((long.status, long.json()["error"].as_str()), (413, Some("invalid_request")), "{path}");
        let most = ask().body(vec![b'a'; 16 * 1024]).send().await;
        assert_eq!(most.status, 401, "{path}");
    }
    assert_eq!(held(&server).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_hold_a_megabyte_and_no_more() {
    let server = Server::start().await;
    let head = "POST /v1/oauth/token HTTP/1.1\r\ncontent-type: application/x-www-form-urlencoded\r\n";
    let mut slow = Vec::new();
    for _ in 0..64 {
        slow.push(half_sent(&server, head, (16 * 1024 - 1, 16 * 1024)).await);
    }
    eventually("the forms", || async { (held(&server).await > MIB - 64 * 1024).then_some(()) }).await;
    let another = form(server.ask(Method::POST, "/v1/oauth/token"), &[("scope", &"x".repeat(8_000))]);
    let started = Stopwatch::start();
    let refused = another.clone().send().await;
    assert_eq!((refused.status, refused.json()["error"].as_str()), (503, Some("temporarily_unavailable")));
    assert_eq!(refused.header("retry-after"), "1");
    assert!(started.elapsed() >= Duration::from_secs(1), "it waits a moment for room");
    // Who has a credential notices nothing.
    let event = json!({"account_id": "acme", "metric": "calls", "value": 1, "dimensions": {"x": "y".repeat(30_000)}});
    server.post("/v1/events", event).await.ok(202);
    assert!(held(&server).await <= MIB);
    // What does not come in time makes room again.
    for stream in &mut slow {
        let answer = read_to_end(stream).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    assert_eq!(held(&server).await, 0);
    assert_eq!(another.send().await.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_without_a_key_makes_the_server_hold_a_byte() {
    let server = Server::start().await;
    let mut waiting = Vec::new();
    for path in ["/v1/events", "/v1/alerts", "/v1/no/such/path"] {
        let head = format!("POST {path} HTTP/1.1\r\ncontent-type: {LINES}\r\n");
        waiting.push(half_sent(&server, &head, (512 * 1024, MIB)).await);
    }
    assert_eq!(held(&server).await, 0);
    let big = server.ask(Method::POST, "/v1/events").kind(LINES).anonymous().body(vec![b'a'; 2 * MIB]);
    big.send().await.problem(401, "authentication_required");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workspace_holds_its_share_and_others_notice_nothing() {
    let front = Front { rates: unhurried(), body_memory: 32 * MIB, ..Front::default() };
    let server = Server::start_with(Options { front, ..Options::default() }).await;
    let other = server.owner_of(server.new_workspace().await, Mode::Live).await;
    let lines = |key: &str| {
        let event = json!({"account_id": "acme", "metric": "calls", "value": 1}).to_string() + "\n";
        server.ask(Method::POST, "/v1/events").kind(LINES).key(key).body(event)
    };
    let head = format!("POST /v1/events HTTP/1.1\r\nauthorization: Bearer {}\r\ncontent-type: {LINES}\r\n", server.key);
    let mut slow = Vec::new();
    for _ in 0..4 {
        slow.push(half_sent(&server, &head, (4 * MIB - 64 * 1024, 9 * MIB)).await);
    }
    eventually("the bodies", || async { (held(&server).await > 15 * MIB).then_some(()) }).await;
    // The bodies of the first workspace are at its share; another of it waits in vain, and one of the others does not.
    let more = lines(&server.key).body(vec![b' '; MIB]);
    more.send().await.problem(503, "overloaded");
    lines(&other).send().await.ok(202);
    let bytes = held(&server).await;
    assert!(bytes <= 16 * MIB, "{bytes}");
    drop(slow);
    eventually("the room", || async { (held(&server).await == 0).then_some(()) }).await;
    lines(&server.key).send().await.ok(202);
    let url = format!("http://{}/metrics", server.admin());
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    let refused = text.lines().find(|line| line.starts_with("highwater_bodies_refused_total{credential=\"present\"}"));
    assert!(refused.is_some_and(|line| !line.ends_with(" 0")), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_packed_counts_as_what_it_becomes() {
    let front = Front { rates: unhurried(), body_memory: 32 * MIB, ..Front::default() };
    let server = Server::start_with(Options { front, ..Options::default() }).await;
    let send = |body: Vec<u8>| {
        server.ask(Method::POST, "/v1/events").kind(LINES).header("content-encoding", "gzip").body(body).send()
    };
    // As dense as it likes up to a megabyte, and a hundred times what was sent past it.
    send(gzip(&vec![b'\n'; MIB])).await.ok(202);
    let problem = send(gzip(&vec![b'\n'; 8 * MIB])).await.problem(413, "payload_too_large");
    assert!(problem["detail"].as_str().unwrap().contains("100 times"), "{problem}");
    // Each of these becomes 1 MiB of 10 kB, 60 of them together more than there is: some wait, and none fails for good.
    let body = gzip(&vec![b'\n'; MIB]);
    let answers = futures::future::join_all((0..60).map(|_| send(body.clone()))).await;
    assert!(answers.iter().all(|answer| matches!(answer.status, 202 | 503)));
    assert!(answers.iter().any(|answer| answer.status == 202));
    assert_eq!(held(&server).await, 0);
}
