//! Packed bodies over real connections: every member counts however it arrives, and what is no whole body is refused.

use crate::server::{Server, read_to_end};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use reqwest::Method;
use serde_json::json;
use std::io::Write;
use tokio::io::AsyncWriteExt;

const LINES: &str = "application/x-ndjson";

pub(super) fn gzip(text: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_ref()).unwrap();
    encoder.finish().unwrap()
}

fn deflate(text: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_ref()).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn event(number: usize) -> String {
    json!({"account_id": "packed", "metric": "m", "id": format!("e{number}")}).to_string() + "\n"
}

async fn count(server: &Server) -> u64 {
    server.settle().await;
    let usage = server.get("/v1/accounts/packed/usage?window=1h&metric=m").await.ok(200);
    usage["items"].as_array().unwrap().iter().map(|item| item["count"].as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_counts_in_whatever_pieces_it_arrives() {
    let server = Server::start().await;
    // A log shipper's body: a member for each line, one of them empty, one line over two members.
    let (head, tail) = (event(3)[..10].to_owned(), event(3)[10..].to_owned());
    let members = [gzip(event(0)), gzip(event(1)), gzip(""), gzip(event(2)), gzip(head), gzip(tail)];
    let whole = members.concat();
    let by_member = members.to_vec();
    let by_bytes: Vec<Vec<u8>> = whole.chunks(1).map(<[u8]>::to_vec).collect();
    let off_members: Vec<Vec<u8>> = whole.chunks(members[0].len() + 1).map(<[u8]>::to_vec).collect();
    let garbage = [whole.clone(), b"x".to_vec()];
    let torn = whole[..whole.len() - 1].to_vec();
    for (pieces, is_whole) in [
        (vec![whole.clone()], true),
        (by_member, true),
        (off_members, true),
        (by_bytes, true),
        (garbage.to_vec(), false),
        (vec![garbage.concat()], false),
        (vec![torn], false),
    ] {
        let mut stream = server.connect().await;
        stream.set_nodelay(true).unwrap();
        let head = format!(
            "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: {LINES}\r\n\
             content-encoding: gzip\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n",
            server.key
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        for piece in &pieces {
            let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
            stream.write_all(&chunk).await.unwrap();
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        let answer = read_to_end(&mut stream).await;
        if is_whole {
            assert!(answer.starts_with("HTTP/1.1 202") && answer.contains("\"accepted\":4"), "{answer}");
        } else {
            assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("malformed_encoding"), "{answer}");
        }
    }
    assert_eq!(count(&server).await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codings_are_named_as_the_standard_has_them_on_every_route() {
    let server = Server::start().await;
    let send = |encoding: &str, body: Vec<u8>| {
        server.ask(Method::POST, "/v1/events").kind(LINES).header("content-encoding", encoding).body(body).send()
    };
    let text = event(0);
    for (encoding, body) in [
        ("GZIP", gzip(&text)),
        ("x-gzip", gzip(&text)),
        ("deflate", deflate(&text)),
        ("zstd", zstd::encode_all(text.as_bytes(), 3).unwrap()),
        ("gzip, gzip", gzip(gzip(&text))),
        ("identity", text.clone().into_bytes()),
        ("", text.clone().into_bytes()),
    ] {
        assert_eq!(send(encoding, body).await.ok(202)["accepted"], 1, "{encoding}");
    }
    assert_eq!(count(&server).await, 1, "it is one event");
    for encoding in ["br", "gzip, br", "gzip;q=1"] {
        let refused = send(encoding, text.clone().into_bytes()).await;
        let problem = refused.problem(415, "unsupported_encoding");
        assert!(problem["detail"].as_str().unwrap().contains("gzip, deflate, zstd"), "{problem}");
        assert_eq!(refused.header("accept-encoding"), "gzip, deflate, zstd");
    }
    let problem = send("deflate", gzip(&text)).await.problem(400, "malformed_encoding");
    assert!(problem["detail"].as_str().unwrap().contains("not valid deflate"), "{problem}");
    // Settings are packed like events.
    let account = json!({"id": "acme"}).to_string();
    let ask = || server.ask(Method::POST, "/v1/accounts").kind("application/json").header("content-encoding", "gzip");
    ask().body(gzip(&account[..4]).into_iter().chain(gzip(&account[4..])).collect::<Vec<u8>>()).send().await.ok(201);
    ask().body([gzip(&account), b"{}".to_vec()].concat()).send().await.problem(400, "malformed_encoding");
    let long = gzip(format!("{{\"name\":\"{}\"}}", "x".repeat(1 << 20)));
    assert_eq!(ask().body(long).send().await.problem(413, "payload_too_large")["limit"], 1 << 20);
    // Nobody without a key makes the server unpack anything.
    ask().anonymous().body("no gzip").send().await.problem(401, "authentication_required");
}
