//! Bodies that are made to hurt: too large, too deep, packed too well.

use crate::server::{Server, read_to_end};
use reqwest::Method;
use serde_json::json;
use std::io::Write;
use tokio::io::AsyncWriteExt;

const LINES: &str = "application/x-ndjson";
const EVENT: &str = r#"{"account_id":"a","metric":"m"}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_and_too_long() {
    let server = Server::start().await;
    let lines = |body: String| server.ask(Method::POST, "/v1/events").kind(LINES).body(body).send();
    let answer = lines(format!("{EVENT}\n").repeat(10_000)).await.ok(202);
    assert_eq!(answer["accepted"], 10_000);
    let problem = lines(format!("{EVENT}\n").repeat(10_001)).await.problem(413, "batch_too_large");
    assert_eq!(problem["limit"], 10_000);
    let batch = json!(vec![json!({"account_id": "a", "metric": "m"}); 1_001]);
    assert_eq!(server.post("/v1/events/batch", batch).await.problem(413, "batch_too_large")["limit"], 1_000);
    // A long line is refused alone; the others count.
    let long = format!(r#"{{"account_id":"a","metric":"m","source":"{}"}}"#, "x".repeat(70_000));
    let answer = lines(format!("{EVENT}\n{long}\n{EVENT}")).await.ok(202);
    assert_eq!(answer["accepted"], 2);
    assert_eq!((&answer["results"][0]["index"], &answer["results"][0]["code"]), (&json!(1), &json!("line_too_large")));
    let one = |body: String| server.ask(Method::POST, "/v1/events").kind("application/json").body(body).send();
    assert_eq!(one(long.clone()).await.problem(422, "batch_rejected")["results"][0]["code"], "event_too_large");
    assert_eq!(one(" ".repeat(1 << 20) + EVENT).await.problem(413, "payload_too_large")["limit"], 1 << 20);
    lines("x".repeat((10 << 20) + 1)).await.problem(413, "payload_too_large");
    let many: String = (0..100_000).map(|n| format!(r#""k{n}":1,"#)).collect();
    one(format!("{{{many}\"account_id\":\"a\"}}")).await.problem(413, "payload_too_large");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deep_and_odd_json() {
    let server = Server::start().await;
    let one = |body: String| server.ask(Method::POST, "/v1/events").kind("application/json").body(body).send();
    one("[".repeat(1_000_000)).await.problem(400, "malformed_json");
    one(format!("{}{}", "[".repeat(400_000), "]".repeat(400_000))).await.problem(422, "batch_rejected");
    let nested = |depth: usize| {
        format!(r#"{{"account_id":"a","metric":"m","dimensions":{{"d":{}{}}}}}"#, "[".repeat(depth), "]".repeat(depth))
    };
    assert_eq!(one(nested(30_000)).await.ok(202)["results"][0]["warnings"][0]["code"], "dimension_nested");
    let deep = format!(r#"{{"rule":{}{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
    let answer = server.ask(Method::POST, "/v1/alerts").kind("application/json").body(deep).send().await;
    assert!(matches!(answer.status, 400 | 422), "{}", answer.text());
    let replay = format!(r#"{{"event":{}{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
    let path = "/v1/quarantine/evt_01J9Z0000000000000000000AA/replay";
    let answer = server.ask(Method::POST, path).kind("application/json").body(replay).send().await;
    assert!(matches!(answer.status, 400 | 404 | 422), "{}", answer.text());
    for (value, code) in [("1e999", "invalid_event"), ("-1e-999", "invalid_event"), ("1e16", "invalid_event")] {
        let body = format!(r#"{{"account_id":"a","metric":"m","value":{value}}}"#);
        assert_eq!(one(body).await.problem(422, "batch_rejected")["results"][0]["code"], code, "{value}");
    }
    for body in [
        r#"{"account_id":"a","metric":"m","value":NaN}"#,
        r#"{"account_id":"a","metric":"m","value":Infinity}"#,
        r#"{"account_id":"a","metric":"m","value":01}"#,
        r#"{"account_id":"a","metric":"m",}"#,
        "'",
        "",
    ] {
        one(body.to_owned()).await.problem(400, "malformed_json");
    }
    one("\u{feff}{}".to_owned()).await.problem(400, "malformed_json");
    for (body, pointer) in [
        (r#"{"account_id":"a","metric":"m","value":1,"value":2}"#, "/value"),
        (r#"{"account_id":"a","metric":"m","id":"\ud800"}"#, "/id"),
        (r#"{"account_id":"a","metric":"m","dimensions":{},"dimensions":{}}"#, "/dimensions"),
    ] {
        let problem = one(body.to_owned()).await.problem(422, "batch_rejected");
        assert_eq!(problem["results"][0]["pointer"], pointer, "{body}: {problem}");
    }
    let torn: &[u8] = b"{\"account_id\":\"a\",\"metric\":\"m\",\"id\":\"\xff\"}";
    let answer = server.ask(Method::POST, "/v1/events").kind("application/json").body(torn).send().await;
    answer.problem(400, "malformed_json");
    one(r#"{"account_id":"a","metric":"m","value":-0}"#.to_owned()).await.ok(202);
    // What is no value refuses nothing: of a name that stands twice, the last one is kept.
    let twice = one(r#"{"account_id":"a","metric":"m","dimensions":{"k":1,"k":2}}"#.to_owned()).await.ok(202);
    assert_eq!(twice["results"][0]["warnings"][0]["code"], "dimension_repeated");
    // As many as fit into an event, and what is said of them stays small.
    let most: Vec<String> = (0..3_500).map(|n| format!("\"{n}\":{n}e20")).collect();
    let most = format!(r#"{{"account_id":"a","metric":"m","dimensions":{{{}}}}}"#, most.join(","));
    let answer = one(most).await;
    assert_eq!(answer.ok(202)["results"][0]["warnings"][0]["code"], "dimensions_left_out");
    assert!(answer.text().len() < 2_000, "{}", answer.text());
    // A line that is no JSON is refused alone.
    let lines =
        server.ask(Method::POST, "/v1/events").kind(LINES).body(format!("{EVENT}\n{{\n{EVENT}")).send().await.ok(202);
    assert_eq!((&lines["accepted"], &lines["results"][0]["code"]), (&json!(2), &json!("malformed_json")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_content_type_that_is_no_text() {
    let server = Server::start().await;
    let event = json!({"specversion": "1.0", "id": "1", "source": "s", "type": "calls", "subject": "acme",
        "datacontenttype": 7});
    let ask = server.ask(Method::POST, "/v1/events").kind("application/cloudevents+json").body(event.to_string());
    let problem = ask.send().await.problem(400, "invalid_cloudevent");
    assert_eq!(problem["errors"][0]["pointer"], "/datacontenttype");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bomb_is_refused_before_it_unfolds() {
    let server = Server::start().await;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..64 {
        encoder.write_all(&[b' '; 1 << 20]).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 100_000, "{}", bomb.len());
    let before = peak_kib();
    for kind in [LINES, "application/json"].into_iter().cycle().take(10) {
        let ask = server.ask(Method::POST, "/v1/events").kind(kind).header("content-encoding", "gzip");
        ask.body(bomb.clone()).send().await.problem(413, "payload_too_large");
    }
    // Far less than the 64 MiB that it would become, twice; other tests of this process share the figure.
    assert!(peak_kib().saturating_sub(before) < 256 * 1024, "{before} KiB before, {} KiB behind", peak_kib());
}

/// The most memory that this process ever held.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or("VmHWM: 0 kB");
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_the_limit_is_refused_by_its_length_and_by_its_chunks() {
    let server = Server::start().await;
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: {LINES}\r\n",
        server.key
    );
    // By its length, before a byte of it came.
    let declared = server.raw(format!("{head}connection: close\r\ncontent-length: 99999999\r\n\r\n").as_bytes()).await;
    assert!(declared.starts_with("HTTP/1.1 413") && declared.contains("payload_too_large"), "{declared}");
    // By its chunks, as soon as they are too many.
    let mut stream = server.connect().await;
    stream.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
    let chunk = [&b"100000\r\n"[..], &vec![b' '; 1 << 20], b"\r\n"].concat();
    let (mut reading, mut writing) = stream.into_split();
    let sender = tokio::spawn(async move {
        for _ in 0..64 {
            if writing.write_all(&chunk).await.is_err() {
                return;
            }
        }
    });
    let mut first = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut reading, &mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 413");
    sender.abort();
    let mut stream = server.connect().await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 200"));
}
