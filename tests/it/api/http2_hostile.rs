//! HTTP/2 from clients that hold what they can: connections, requests, answers that they never read.

use super::http2::{Client, Secured, event, read};
use super::tls::{Stream, client, rest, shake_hands};
use crate::server::PATIENCE;
use h2::client::Builder;
use h2::{Ping, Reason};
use highwater::api::ListenerLimits;
use hyper::Request;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `GET https://x/healthz`, compressed.
const HEALTH: &[u8] = b"\x82\x87\x04\x08/healthz\x41\x01x";
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// How a connection begins.
fn opening() -> Vec<u8> {
    [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
}

impl Secured {
    /// A connection of HTTP/2 on which nothing was said yet.
    async fn silent(&self) -> Stream {
        shake_hands(self.server.address(), client(&self.trusted, &["h2"])).await.unwrap().0
    }
}

fn hasty() -> ListenerLimits {
    ListenerLimits {
        head: Duration::from_millis(400),
        request: Duration::from_millis(800),
        per_address: 5,
        ..ListenerLimits::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_nothing_is_closed() {
    let secured = Secured::start(hasty()).await;
    let half = [opening(), frame(HEADERS, END_STREAM, 1, HEALTH)].concat();
    let once = [opening(), frame(HEADERS, END_STREAM | END_HEADERS, 1, HEALTH)].concat();
    let http1 = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".to_vec();
    for said in [Vec::new(), PREFACE[..8].to_vec(), PREFACE.to_vec(), opening(), half, once, http1] {
        let mut stream = secured.silent().await;
        stream.write_all(&said).await.unwrap();
        rest(&mut stream).await;
    }
    // Nor does it help to answer whether one is still there.
    secured.dial().await.ended().await;
    secured.goes_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_much_and_asks_for_nothing_is_closed() {
    let secured = Secured::start(hasty()).await;
    let half = [opening(), frame(HEADERS, END_STREAM, 1, HEALTH)].concat();
    let cases = [
        (opening(), frame(PING, 0, 0, &[7; 8])),
        (opening(), frame(SETTINGS, 0, 0, &[])),
        (opening(), frame(PRIORITY, 0, 1, &[0; 5])),
        (half, frame(CONTINUATION, 0, 1, b"")),
    ];
    for (opening, said) in cases {
        let (mut reading, mut writing) = tokio::io::split(secured.silent().await);
        writing.write_all(&opening).await.unwrap();
        let talk = async {
            while writing.write_all(&said).await.is_ok() && writing.flush().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        };
        let (_, talked) = tokio::join!(rest(&mut reading), tokio::time::timeout(PATIENCE, talk));
        talked.expect("the connection stays open");
    }
    let mut client = secured.dial().await;
    let ping = async {
        while client.pings.ping(Ping::opaque()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ping).await.expect("the connection stays open");
    secured.goes_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_stalls_or_trickles_is_answered_in_time() {
    let secured = Secured::start(hasty()).await;
    let mut client = secured.dial().await;
    let (stalled, _silent) = client.begin("/v1/events");
    let (trickled, mut body) = client.begin("/v1/events");
    let trickle = async {
        while body.send_data("{".into(), false).is_ok() {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    let (stalled, trickled, ()) = tokio::join!(read(stalled), read(trickled), trickle);
    for answer in [stalled.unwrap(), trickled.unwrap()] {
        assert_eq!(answer.status, 408);
        assert!(answer.text.contains("\"code\":\"request_timeout\""), "{}", answer.text);
    }
    assert_eq!(client.get("/healthz").await.status, 200, "the connection goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_under_way_takes_a_place_of_its_address() {
    let secured = Secured::start(ListenerLimits { per_address: 5, ..ListenerLimits::default() }).await;
    let mut client = secured.dial().await;
    let mut held: Vec<_> = (0..5).map(|_| client.begin("/v1/events")).collect();
    let refused = client.get("/v1/metrics").await;
    assert_eq!((refused.status, &refused.headers["retry-after"]), (503, &"1".parse().unwrap()));
    assert_eq!(refused.headers["content-type"], "application/problem+json");
    let problem: Value = serde_json::from_str(&refused.text).unwrap();
    assert_eq!((&problem["code"], &problem["retryable"]), (&json!("overloaded"), &json!(true)));
    assert_eq!(problem["request_id"], refused.headers["x-request-id"].to_str().unwrap());
    let mut another = secured.server.connect().await;
    assert_eq!(another.read(&mut [0]).await.unwrap_or(0), 0, "nor is there a place for a connection");
    // What ends gives its place back, what is reset too, and the others go on.
    held.pop().unwrap().1.send_reset(Reason::CANCEL);
    let (answer, mut body) = held.pop().unwrap();
    body.send_data(event("a"), true).unwrap();
    assert_eq!(read(answer).await.unwrap().status, 202);
    let again = async {
        while client.get("/v1/metrics").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("no place was given back");
    for (answer, mut body) in held {
        body.send_data(event("b"), true).unwrap();
        assert_eq!(read(answer).await.unwrap().status, 202);
    }
    // So does what a client leaves behind.
    let left: Vec<_> = (0..5).map(|_| client.begin("/v1/events")).collect();
    client.get("/healthz").await;
    client.connection.abort();
    drop((left, client));
    until_all_are_free(&secured).await;
}

/// Waits until an address has all five places, of a connection that is its only one.
async fn until_all_are_free(secured: &Secured) {
    let again = async {
        loop {
            if let Ok(mut client) = secured.try_dial(&Builder::new()).await
                && fill(&mut client).await == 5
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("places are missing");
}

/// Has five requests under way at once, and says how many were worked on.
async fn fill(client: &mut Client) -> usize {
    let held: Vec<_> = (0..5).map(|_| client.begin("/v1/events")).collect();
    let mut accepted = 0;
    for (answer, mut body) in held {
        body.send_data(event("a"), true).ok();
        accepted += usize::from(read(answer).await.is_ok_and(|answer| answer.status == 202));
    }
    accepted
}

/// Asks for an answer that is long, and reads nothing of it.
async fn ignored(client: &mut Client, path: &str) -> hyper::Response<h2::RecvStream> {
    client.ready().await;
    tokio::time::timeout(PATIENCE, client.ask(path)).await.unwrap().unwrap()
}

/// Waits for a reset, and gives nothing back of what comes before.
async fn until_reset(answer: hyper::Response<h2::RecvStream>) -> Reason {
    let mut body = answer.into_body();
    let reset = async {
        loop {
            match body.data().await.expect("the answer is complete") {
                Ok(_) => {}
                Err(error) => return error.reason().expect("a reset"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, reset).await.expect("nothing is reset")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_reads_is_reset_and_the_others_go_on() {
    let secured = Secured::start(hasty()).await;
    for window in [0, 1, 5_000] {
        // The stalled answers never take the window of the connection.
        let mut builder = Builder::new();
        let mut client = secured.dial_with(builder.initial_window_size(window)).await;
        let mut ignored_answers = Vec::new();
        for path in ["/v1/openapi.json", "/docs/guide", "/v1/openapi.json", "/docs/errors"] {
            ignored_answers.push(ignored(&mut client, path).await);
        }
        if window > 0 {
            assert_eq!(client.get("/healthz").await.status, 200);
        }
        for answer in ignored_answers {
            assert_eq!(until_reset(answer).await, Reason::CANCEL);
        }
        if window > 0 {
            assert_eq!(client.get("/healthz").await.status, 200, "the connection goes on");
        }
    }
    until_all_are_free(&secured).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_takes_nothing_at_all_is_closed() {
    let secured = Secured::start(hasty()).await;
    let (_reading, mut writing) = tokio::io::split(secured.silent().await);
    // The windows are as wide as can be, and nothing is read of the socket.
    let wide = frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    writing.write_all(&[PREFACE.to_vec(), wide, frame(8, 0, 0, &[0x7f, 0, 0, 0])].concat()).await.unwrap();
    let openapi = b"\x82\x87\x04\x10/v1/openapi.json\x41\x01x";
    let fill = async {
        for stream in (1..).step_by(2) {
            let asked = frame(HEADERS, END_STREAM | END_HEADERS, stream, openapi);
            if writing.write_all(&asked).await.is_err() || writing.flush().await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, fill).await.expect("the connection stays open");
    secured.goes_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_events_that_nobody_reads_is_cut_off_alone() {
    // An answer may wait for long, so what cuts it off is the stream's own patience.
    let limits = ListenerLimits { request: Duration::from_secs(600), ..ListenerLimits::default() };
    let secured = Secured::start(limits).await;
    let mut client = secured.dial_with(Builder::new().initial_window_size(20_000)).await;
    let mut answer = tokio::spawn(until_reset(ignored(&mut client, "/v1/stream").await));
    let body: Vec<Value> = (0..1_000).map(|n| json!({"account_id": format!("{n:0>100}"), "metric": "m"})).collect();
    let body = json!({"events": body}).to_string();
    let reason = loop {
        client.ready().await;
        let (batch, mut sending) = client.begin("/v1/events/batch");
        sending.send_data(body.clone().into(), true).unwrap();
        assert_eq!(read(batch).await.unwrap().status, 202);
        if let Ok(reason) = tokio::time::timeout(Duration::from_millis(100), &mut answer).await {
            break reason.unwrap();
        }
    };
    assert_eq!(reason, Reason::CANCEL);
    assert_eq!(client.get("/healthz").await.status, 200, "the connection goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_taken_back_take_nothing_down() {
    let secured = Secured::start(ListenerLimits { per_address: 5, ..ListenerLimits::default() }).await;
    // In one go, as fast as it gets.
    let mut stream = secured.silent().await;
    let mut said = opening();
    for number in (1..20_000).step_by(2) {
        said.extend(frame(HEADERS, END_STREAM | END_HEADERS, number, HEALTH));
        said.extend(frame(RESET, 0, number, &8_u32.to_be_bytes()));
    }
    let (mut reading, mut writing) = tokio::io::split(&mut stream);
    let (_, answered) = tokio::join!(writing.write_all(&said), rest(&mut reading));
    assert!(answered.contains("too_many_resets"), "{answered:?}");
    // One after the other, each while it is worked on.
    let mut client = secured.dial().await;
    for _ in 0..200 {
        let (answer, mut body) = client.begin("/v1/events");
        // What comes behind it is answered, so it was looked at.
        assert!([200, 503].contains(&client.get("/healthz").await.status));
        body.send_reset(Reason::CANCEL);
        drop(answer);
    }
    drop(client);
    until_all_are_free(&secured).await;
    secured.goes_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_are_bounded_and_no_tunnel_is_dug() {
    let secured = Secured::start(ListenerLimits::default()).await;
    let mut client = secured.dial().await;
    let long = |bytes| Request::get("https://localhost/healthz").header("x-long", "x".repeat(bytes)).body(()).unwrap();
    assert_eq!(read(client.send(long(50_000))).await.unwrap().status, 200);
    assert_eq!(read(client.send(long(70_000))).await.unwrap().status, 431);
    let tunnel = Request::connect("localhost:443").body(()).unwrap();
    assert!(read(client.send(tunnel)).await.is_ok_and(|answer| answer.status >= 400));
    assert_eq!(client.get("/healthz").await.status, 200, "the connection goes on");
}
