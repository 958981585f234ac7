//! HTTP/2: one connection that asks many things at once, and the orderly end of it.

use super::encodings::{event as packed_event, gzip};
use super::tls::{certificate, client, issue, secured, shake_hands};
use crate::server::{PATIENCE, Server, eventually, unhurried};
use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{PingPong, RecvStream, SendStream};
use highwater::api::{Front, ListenerLimits, Rates, Tls};
use hyper::header::HeaderMap;
use hyper::{Request, Response};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::task::{JoinHandle, JoinSet};

const BOTH: [&str; 2] = ["h2", "http/1.1"];

/// A server with a certificate of its own.
pub(super) struct Secured {
    pub(super) server: Server,
    pub(super) trusted: CertificateDer<'static>,
    _folder: tempfile::TempDir,
}

impl Secured {
    pub(super) async fn start(limits: ListenerLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = issue(folder.path());
        let trusted = certificate(&files);
        Self { server: secured(&Tls::load(files).unwrap(), limits).await, trusted, _folder: folder }
    }

    pub(super) async fn dial(&self) -> Client {
        self.dial_with(&Builder::new()).await
    }

    pub(super) async fn dial_with(&self, builder: &Builder) -> Client {
        self.try_dial(builder).await.unwrap()
    }

    pub(super) async fn try_dial(&self, builder: &Builder) -> std::io::Result<Client> {
        let (stream, agreed) = shake_hands(self.server.address(), client(&self.trusted, &BOTH)).await?;
        assert_eq!(agreed, Some(b"h2".to_vec()));
        let (requests, mut connection) = builder.handshake(stream).await.map_err(std::io::Error::other)?;
        let pings = connection.ping_pong().unwrap();
        Ok(Client { requests, pings, connection: tokio::spawn(connection), key: self.server.key.clone() })
    }

    /// Asks for something on a connection of its own.
    pub(super) async fn goes_on(&self) {
        assert_eq!(self.dial().await.get("/healthz").await.status, 200);
    }

    /// A client as callers have one.
    fn http(&self, protocols: &[&str]) -> reqwest::Client {
        let config = client(&self.trusted, protocols);
        let builder = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(config);
        builder.resolve("localhost", self.server.address()).build().unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.server.address().port())
    }
}

/// A connection, and the key that it asks with.
pub(super) struct Client {
    requests: SendRequest<Bytes>,
    pub(super) pings: PingPong,
    pub(super) connection: JoinHandle<Result<(), h2::Error>>,
    pub(super) key: String,
}

/// An answer that is complete.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Client {
    fn head(&self, method: &str, path: &str) -> hyper::http::request::Builder {
        let head = Request::builder().method(method).uri(format!("https://localhost{path}"));
        head.header("authorization", format!("Bearer {}", self.key))
    }

    /// Asks without a body, and waits for nothing.
    pub(super) fn ask(&mut self, path: &str) -> ResponseFuture {
        self.send(self.head("GET", path).body(()).unwrap())
    }

    /// Asks for anything.
    pub(super) fn send(&mut self, head: Request<()>) -> ResponseFuture {
        self.requests.send_request(head, true).unwrap().0
    }

    /// Begins to send events, whose body is still to come.
    pub(super) fn begin(&mut self, path: &str) -> (ResponseFuture, SendStream<Bytes>) {
        let head = self.head("POST", path).header("content-type", "application/json");
        self.requests.send_request(head.body(()).unwrap(), false).unwrap()
    }

    pub(super) async fn get(&mut self, path: &str) -> Answer {
        self.ready().await;
        read(self.ask(path)).await.unwrap()
    }

    /// Waits until one more request may be under way.
    pub(super) async fn ready(&mut self) {
        self.requests = self.requests.clone().ready().await.unwrap();
    }

    /// Waits until the other side has ended the connection.
    pub(super) async fn ended(self) {
        tokio::time::timeout(PATIENCE, self.connection).await.expect("the connection stays open").unwrap().ok();
    }
}

/// Reads an answer to its end.
pub(super) async fn read(asked: ResponseFuture) -> Result<Answer, h2::Error> {
    tokio::time::timeout(PATIENCE, async { rest(asked.await?).await }).await.expect("no answer came")
}

async fn rest(response: Response<RecvStream>) -> Result<Answer, h2::Error> {
    let (parts, mut body) = response.into_parts();
    let mut all = Vec::new();
    while let Some(some) = body.data().await.transpose()? {
        body.flow_control().release_capacity(some.len())?;
        all.extend_from_slice(&some);
    }
    let text = String::from_utf8(all).unwrap();
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, text })
}

pub(super) fn event(account: &str) -> Bytes {
    json!({"account_id": account, "metric": "m"}).to_string().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_at_once_get_their_own_answers_and_share_one_budget() {
    let folder = tempfile::tempdir().unwrap();
    let files = issue(folder.path());
    let trusted = certificate(&files);
    let front = Front { rates: Rates { live: 150, ..unhurried() }, ..Front::default() };
    let options = crate::server::Options { tls: Some(Tls::load(files).unwrap()), front, ..Default::default() };
    let secured = Secured { server: Server::start_with(options).await, trusted, _folder: folder };
    let http = secured.http(&BOTH);
    // The first one makes the connection that all others share.
    let first = http.get(secured.url("/healthz")).send().await.unwrap();
    assert_eq!(first.version(), reqwest::Version::HTTP_2);
    let mut asked = JoinSet::new();
    for number in 0..100 {
        let ask = http.get(secured.url(&format!("/v1/accounts/a{number}"))).bearer_auth(&secured.server.key);
        asked.spawn(
            async move { (number, ask.header("x-request-id", format!("request-{number}")).send().await.unwrap()) },
        );
    }
    let mut left = BTreeSet::new();
    while let Some(asked) = asked.join_next().await {
        let (number, answer) = asked.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (404, reqwest::Version::HTTP_2));
        assert_eq!(answer.headers()["x-request-id"], format!("request-{number}"));
        assert_eq!(answer.headers()["x-ratelimit-limit"], "150");
        left.insert(answer.headers()["x-ratelimit-remaining"].to_str().unwrap().parse::<u32>().unwrap());
        let problem: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        assert_eq!(problem["instance"], format!("/v1/accounts/a{number}"));
    }
    assert_eq!(left, (50..150).collect(), "each one drew once on the one budget");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_packed_body_come_in_frames_of_their_own() {
    let secured = Secured::start(ListenerLimits::default()).await;
    let mut client = secured.dial().await;
    let members = [gzip(packed_event(0)), gzip(""), gzip(packed_event(1)), gzip(packed_event(2))];
    for (more, status) in [(vec![], 202), (vec![b"x".to_vec()], 400)] {
        client.ready().await;
        let head = client.head("POST", "/v1/events").header("content-type", "application/x-ndjson");
        let head = head.header("content-encoding", "gzip").body(()).unwrap();
        let (answer, mut body) = client.requests.send_request(head, false).unwrap();
        for member in members.iter().chain(&more) {
            body.send_data(member.clone().into(), false).unwrap();
        }
        body.send_data(Bytes::new(), true).unwrap();
        let answer = read(answer).await.unwrap();
        let said = if status == 202 { "\"accepted\":3" } else { "malformed_encoding" };
        assert!(answer.status == status && answer.text.contains(said), "{} {}", answer.status, answer.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_say_the_same() {
    let secured = Secured::start(ListenerLimits::default()).await;
    let both = [secured.http(&BOTH), secured.http(&["http/1.1"])];
    let mut versions = BTreeSet::new();
    for (method, path) in [
        ("GET", "/v1/openapi.json"),
        ("HEAD", "/v1/openapi.json"),
        ("GET", "/v1/nothing"),
        ("DELETE", "/v1/usage/query"),
        ("GET", "/.well-known/oauth-authorization-server"),
        ("GET", "/v1/alerts?limit=1"),
        ("OPTIONS", "/v1/alerts"),
        ("BREW", "/healthz"),
    ] {
        let mut said = Vec::new();
        for http in &both {
            let ask = http.request(method.parse().unwrap(), secured.url(path)).bearer_auth(&secured.server.key);
            let answer = ask.header("x-request-id", "the-same-one").send().await.unwrap();
            let mut headers = answer.headers().clone();
            for name in ["date", "ratelimit", "x-ratelimit-remaining", "x-ratelimit-reset"] {
                headers.remove(name);
            }
            versions.insert(format!("{:?}", answer.version()));
            said.push((answer.status(), headers, answer.text().await.unwrap()));
        }
        assert_eq!(said[0], said[1], "{method} {path}");
    }
    assert_eq!(versions, BTreeSet::from(["HTTP/1.1".to_owned(), "HTTP/2.0".to_owned()]));
    // A repetition is one, over whichever version it comes.
    let mut repeated = Vec::new();
    for http in &both {
        let ask = http.post(secured.url("/v1/channels")).bearer_auth(&secured.server.key);
        let channel = json!({"name": "c", "type": "webhook", "url": "https://127.0.0.1/"});
        let ask = ask.header("idempotency-key", "once").header("content-type", "application/json");
        let answer = ask.body(channel.to_string()).send().await.unwrap();
        repeated.push((answer.headers().contains_key("idempotent-replayed"), answer.status().as_u16()));
    }
    assert_eq!(repeated, [(false, 201), (true, 201)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_bodies_pass_in_both_directions() {
    let secured = Secured::start(ListenerLimits::default()).await;
    let http = secured.http(&BOTH);
    let line = |number: usize| json!({"account_id": format!("a{number:0>127}"), "metric": "m"}).to_string() + "\n";
    let lines: String = (0..9_900).map(line).collect();
    assert!(lines.len() > 1_500_000, "more than fits any window");
    let ask = http.post(secured.url("/v1/events")).bearer_auth(&secured.server.key);
    let answer = ask.header("content-type", "application/x-ndjson").body(lines).send().await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(answer["accepted"], 9_900);
    // What is too large is told, though its sender is still at it.
    let ask = http.post(secured.url("/v1/events")).bearer_auth(&secured.server.key);
    let ask = ask.header("content-type", "application/x-ndjson").body("x".repeat(12 * 1024 * 1024));
    let answer = ask.send().await.unwrap();
    assert_eq!(answer.status(), 413);
    // A client that grants a byte at a time still gets it all.
    let mut client = secured.dial_with(Builder::new().initial_window_size(1)).await;
    let answer = client.get("/healthz").await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "{\"status\":\"ok\"}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_events_keeps_its_connection_however_long_nothing_comes() {
    let limits =
        ListenerLimits { head: Duration::from_millis(300), request: Duration::from_millis(300), ..Default::default() };
    let secured = Secured::start(limits).await;
    let mut client = secured.dial().await;
    let mut body = client.ask("/v1/stream").await.unwrap().into_body();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (answer, mut sending) = client.begin("/v1/events");
    sending.send_data(event("acme"), true).unwrap();
    assert_eq!(read(answer).await.unwrap().status, 202);
    let mut all = String::new();
    let told = async {
        while !all.contains("event: usage.window\n") {
            let some = body.data().await.unwrap().unwrap();
            body.flow_control().release_capacity(some.len()).unwrap();
            all.push_str(std::str::from_utf8(&some).unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("nothing came");
    drop(body);
    client.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_ends_while_the_node_drains() {
    let mut secured = Secured::start(ListenerLimits::default()).await;
    let (mut busy, idle) = (secured.dial().await, secured.dial().await);
    let (first, mut first_body) = busy.begin("/v1/events");
    let (second, mut second_body) = busy.begin("/v1/events");
    assert_eq!(busy.get("/healthz").await.status, 200);
    let address = secured.server.address();
    let stopping = tokio::spawn(secured.server.take().stop());
    idle.ended().await;
    eventually("the refusal of new connections", async || tokio::net::TcpStream::connect(address).await.err()).await;
    // The client was told to begin nothing any more, and nothing was taken from it.
    let told = async || busy.requests.clone().ready().await.err();
    let told = eventually("the notice", told).await;
    assert!(told.is_go_away() && told.reason() == Some(h2::Reason::NO_ERROR), "{told}");
    for (answer, body) in [(first, &mut first_body), (second, &mut second_body)] {
        body.send_data(event("late"), true).unwrap();
        let answer = read(answer).await.unwrap();
        assert_eq!(answer.status, 202, "{}", answer.text);
    }
    busy.ended().await;
    tokio::time::timeout(PATIENCE, stopping).await.expect("the node stops").unwrap();
    secured.server.begin().await;
    secured.goes_on().await;
}
