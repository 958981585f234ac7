//! Connections that go wrong, and the orderly end of those that do not.

use crate::server::{Options, Server, eventually, read_to_end};
use highwater::api::ListenerLimits;
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn hasty() -> Options {
    let limits = ListenerLimits {
        head: Duration::from_millis(400),
        request: Duration::from_millis(800),
        drain: Duration::from_secs(20),
        ..ListenerLimits::default()
    };
    Options { limits, ..Options::default() }
}

async fn goes_on(server: &Server) {
    let answer = server.raw(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_does_not_end_is_cut_off() {
    let server = Server::start_with(hasty()).await;
    for head in [
        "",
        "P",
        "PRI * HT",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HT",
        "GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ",
        "\r\n\r\n",
        "\x16\x03\x01",
    ] {
        let answer = server.raw(head.as_bytes()).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{head:?}: {answer}");
    }
    goes_on(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_comes_byte_by_byte_is_cut_off() {
    let server = Server::start_with(hasty()).await;
    let mut stream = server.connect().await;
    let (mut reading, mut writing) = stream.split();
    let trickle = async {
        for byte in b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ".iter().chain(std::iter::repeat(&b'x')) {
            if writing.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ended = async {
        let mut all = Vec::new();
        reading.read_to_end(&mut all).await.ok();
        all
    };
    let all = tokio::time::timeout(crate::server::PATIENCE, async {
        tokio::select! { () = trickle => Vec::new(), all = ended => all }
    });
    assert!(!all.await.unwrap().starts_with(b"HTTP/1.1 200"));
    goes_on(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_closed() {
    let server = Server::start_with(hasty()).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let all = read_to_end(&mut stream).await;
    assert!(all.starts_with("HTTP/1.1 200") && all.ends_with("{\"status\":\"ok\"}"), "{all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_stalls_is_answered_and_closed() {
    let server = Server::start_with(hasty()).await;
    for (framing, part) in [("content-length: 100", "{"), ("transfer-encoding: chunked", "5\r\n{")] {
        let head = format!(
            "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n{framing}\r\n\r\n{part}",
            server.key
        );
        let answer = server.raw(head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("\"code\":\"request_timeout\""), "{answer}");
        assert!(answer.contains("content-type: application/problem+json"), "{answer}");
    }
    goes_on(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_no_answer_gives_the_place_back() {
    let mut options = hasty();
    options.limits.per_address = 1;
    let server = Server::start_with(options).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut greedy = socket.connect(server.address()).await.unwrap();
    let requests = "GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
    greedy.write_all(requests.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    // The only place is taken, for as long as an answer may wait.
    let mut other = server.connect().await;
    other.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.ok();
    assert_eq!(read_to_end(&mut other).await, "");
    eventually("the place", async || {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.ok()?;
        read_to_end(&mut stream).await.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    drop(greedy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversized_head_is_refused() {
    let server = Server::start_with(hasty()).await;
    let fits =
        format!("GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-long: {}\r\n\r\n", "x".repeat(50_000));
    assert!(server.raw(fits.as_bytes()).await.starts_with("HTTP/1.1 200"));
    let long = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "x".repeat(300_000));
    let answer = server.raw(long.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let answer = server.raw(format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{many}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    for bad in [
        "GET /healthz HTTP/1.1\r\nbad header: x\r\n\r\n",
        "GET  /healthz HTTP/1.1\r\n\r\n",
        "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n",
        "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    ] {
        let answer = server.raw(bad.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{bad:?}: {answer}");
    }
    goes_on(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_ends_while_the_node_drains() {
    let mut server = Server::start().await;
    let (address, admin, key) = (server.address(), server.admin(), server.key.clone());
    let body = json!({"account_id": "late", "metric": "m"}).to_string();
    let mut stream = server.connect().await;
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).await.unwrap();
    assert!(asked.starts_with(b"HTTP/1.1 100 Continue"), "the handler waits for the body");
    let mut idle = server.connect().await;
    let stopping = tokio::spawn(server.take().stop());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let told = eventually("draining", async || {
        let answer = http.get(format!("http://{admin}/readyz")).send().await.unwrap();
        let status = answer.status().as_u16();
        (status == 503).then_some(answer.text().await.unwrap())
    });
    assert!(told.await.contains("\"status\":\"draining\""));
    eventually("the refusal of new connections", async || TcpStream::connect(address).await.err()).await;
    assert_eq!(read_to_end(&mut idle).await, "", "an idle connection is closed");
    stream.write_all(body.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.contains("HTTP/1.1 202") && answer.contains("\"accepted\":1"), "{answer}");
    stopping.await.unwrap();
    assert!(TcpStream::connect(admin).await.is_err());
    // It is durable: the next start counts it.
    server.begin().await;
    server.settle().await;
    server.get("/v1/accounts/late/usage").await.ok(200);
}
