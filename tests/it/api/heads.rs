//! Heads of requests as RFC 9112 and RFC 9113 have them: what is in doubt is refused, with a reason.

use super::http2::{Secured, read};
use crate::server::{Options, Server, read_to_end};
use highwater::api::ListenerLimits;
use serde_json::Value;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// What was answered to bytes, and the problem in it.
struct Answered {
    head: String,
    problem: Value,
}

async fn answered(stream: &mut TcpStream, sent: &[u8]) -> Answered {
    stream.write_all(sent).await.ok();
    let all = read_to_end(stream).await;
    let (head, body) = all.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {all:?}"));
    let problem = serde_json::from_str(body).unwrap_or(Value::Null);
    Answered { head: head.to_owned(), problem }
}

/// A refusal is a problem, has what every answer has, and ends its connection.
async fn refused(server: &Server, sent: &str, status: u16, code: &str) {
    let shown = &sent[..sent.len().min(80)];
    let Answered { head, problem } = answered(&mut server.connect().await, sent.as_bytes()).await;
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?}: {head}");
    assert_eq!((&problem["code"], &problem["status"]), (&code.into(), &status.into()), "{shown:?}: {head}\n{problem}");
    assert_eq!(problem["type"], format!("/docs/errors#{code}"));
    for line in ["content-type: application/problem+json", "x-content-type-options: nosniff", "connection: close"] {
        assert!(head.contains(line), "{shown:?}: {head}");
    }
    assert!(head.contains(&format!("x-request-id: {}", problem["request_id"].as_str().unwrap())), "{head}");
}

async fn taken(server: &Server, sent: &str) {
    let Answered { head, .. } = answered(&mut server.connect().await, sent.as_bytes()).await;
    assert!(head.contains(" 200 OK"), "{sent:?}: {head}");
}

async fn server() -> Server {
    let limits = ListenerLimits { head: Duration::from_secs(2), ..ListenerLimits::default() };
    Server::start_with(Options { limits, ..Options::default() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_host_is_asked_for_and_it_must_be_one() {
    let server = server().await;
    let get = |rest: &str| format!("GET /healthz HTTP/1.1\r\n{rest}connection: close\r\n\r\n");
    for hosts in [
        "",
        "host:\r\n",
        "host: a\r\nhost: a\r\n",
        "host: a\r\nHost: b\r\n",
        "host: a b\r\n",
        "host: a/b\r\n",
        "host: user@a\r\n",
        "host: a:x\r\n",
        "host: a:80:80\r\n",
        "host: [::1\r\n",
        "host: a, b\\\r\n",
    ] {
        refused(&server, &get(hosts), 400, "invalid_header").await;
    }
    for host in ["a", "a.example:8080", "127.0.0.1", "[::1]:1", "A.", "%41"] {
        taken(&server, &get(&format!("host: {host}\r\n"))).await;
    }
    taken(&server, "GET /healthz HTTP/1.0\r\n\r\n").await;
    taken(&server, "GET http://a/healthz HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n").await;
    refused(&server, "GET http://a/healthz HTTP/1.1\r\n\r\n", 400, "invalid_header").await;
    // What a browser asks beforehand reaches no handler, and needs one too; as does what nobody may ask.
    refused(&server, "OPTIONS /v1/alerts HTTP/1.1\r\norigin: https://a\r\n\r\n", 400, "invalid_header").await;
    refused(&server, "GET /v1/alerts HTTP/1.1\r\n\r\n", 400, "invalid_header").await;
    // The listener for metrics asks for the same.
    let mut admin = TcpStream::connect(server.admin()).await.unwrap();
    let Answered { head, problem } = answered(&mut admin, b"GET /metrics HTTP/1.1\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 400") && problem["code"] == "invalid_header", "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_in_a_coding_that_is_not_known_is_refused() {
    let server = server().await;
    let body = r#"{"account_id":"a","metric":"m"}"#;
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let send = |coding: &str| {
        format!(
            "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             {coding}\r\n\r\n{chunks}",
            server.key
        )
    };
    for coding in ["gzip, chunked", "gzip\r\ntransfer-encoding: chunked", "identity, chunked", "deflate , Chunked"] {
        refused(&server, &send(&format!("transfer-encoding: {coding}")), 501, "unsupported_transfer_coding").await;
    }
    for coding in ["chunked, chunked", "chunked\r\ntransfer-encoding: chunked"] {
        refused(&server, &send(&format!("transfer-encoding: {coding}")), 400, "invalid_header").await;
    }
    for coding in ["gzip", "chunked, gzip", "chunked\r\ntransfer-encoding: identity"] {
        refused(&server, &send(&format!("transfer-encoding: {coding}")), 400, "malformed_request").await;
    }
    let Answered { head, .. } =
        answered(&mut server.connect().await, send("connection: close\r\ntransfer-encoding: chunked").as_bytes()).await;
    assert!(head.starts_with("HTTP/1.1 202"), "{head}");
    // Whoever says both how long the body is and that it comes in chunks may lead two parties to different ends.
    let both = send("content-length: 5\r\ntransfer-encoding: chunked");
    let Answered { head, .. } = answered(&mut server.connect().await, both.as_bytes()).await;
    assert!(head.contains("connection: close"), "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_is_told_so() {
    let server = server().await;
    for sent in [
        "GET /healthz HTTP/1.1\r\nbad header: x\r\n\r\n",
        "GET  /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /healthz HTTP/1.2\r\nhost: x\r\n\r\n",
        "G(T /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost: x\r\n folded: x\r\n\r\n",
        "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n",
        "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "POST /v1/events HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
        "\x16\x03\x01\x02",
    ] {
        refused(&server, sent, 400, "malformed_request").await;
    }
    // Behind an answer on the same connection, also where it is sent along.
    let good = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut stream = server.connect().await;
    stream.write_all(format!("{good}{good}nonsense\r\n\r\n").as_bytes()).await.unwrap();
    let all = read_to_end(&mut stream).await;
    assert_eq!(all.matches("HTTP/1.1 200").count(), 2, "{all}");
    let (_, last) = all.rsplit_once("\r\n\r\n").unwrap();
    assert_eq!(serde_json::from_str::<Value>(last).unwrap()["code"], "malformed_request", "{all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_is_as_long_as_is_said_and_no_longer() {
    let server = server().await;
    let padded = |bytes: usize, padding: &str| {
        let around = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-long:y\r\n\r\n".len();
        format!(
            "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-long:{}y\r\n\r\n",
            padding.repeat(bytes - around)
        )
    };
    // White space around a value is of the head, too.
    for padding in ["x", " "] {
        taken(&server, &padded(64 * 1024, padding)).await;
        for bytes in [64 * 1024 + 1, 70_000, 100_000, 120_000, 300_000, 1_000_000] {
            refused(&server, &padded(bytes, padding), 431, "head_too_large").await;
        }
    }
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    refused(&server, &format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{many}\r\n"), 431, "head_too_large").await;
    let target = |bytes: usize| format!("GET /healthz?{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(bytes));
    taken(&server, &target(60_000).replace("host: x", "host: x\r\nconnection: close")).await;
    for bytes in [70_000, 100_000, 300_000] {
        refused(&server, &target(bytes), 414, "uri_too_long").await;
    }
    // One that comes slowly is counted as what it is.
    let mut stream = server.connect().await;
    let long = padded(100_000, "x");
    for piece in long.as_bytes().chunks(10_000) {
        if stream.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let all = read_to_end(&mut stream).await;
    assert!(all.starts_with("HTTP/1.1 431") && all.ends_with('}'), "{all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_asks_for_the_same() {
    let secured = Secured::start(ListenerLimits::default()).await;
    let mut client = secured.dial().await;
    let long = "x".repeat(16_000);
    let longer = [("x-a", long.as_str()), ("x-b", &long), ("x-c", &long), ("x-d", &long), ("x-e", &long)];
    for (headers, status, code) in [
        (&[("host", "localhost")][..], 200, None),
        (&[("host", "elsewhere")], 400, Some("invalid_header")),
        (&[("host", "localhost"), ("host", "localhost")], 400, Some("invalid_header")),
        (&longer[..3], 200, None),
        (&longer, 431, Some("head_too_large")),
    ] {
        let mut request = hyper::Request::builder().uri("https://localhost/healthz");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        client.ready().await;
        let answer = read(client.send(request.body(()).unwrap())).await.unwrap();
        assert_eq!(answer.status, status, "{}", answer.text);
        let problem: Value = serde_json::from_str(&answer.text).unwrap();
        assert_eq!(problem["code"].as_str(), code, "{problem}");
    }
}
