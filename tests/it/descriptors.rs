//! A process that may have few files open: connections never take those that it needs for anything else, nor all places.

use crate::nodes::ask;
use crate::process::{Server, bootstrap, refused_to_serve};
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// A connection from one of the machine's own addresses.
async fn connect(from: [u8; 4], to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(IpAddr::from(from), 0))?;
    socket.connect(to).await
}

/// Asks on a connection of its own; `None` where it is closed without an answer, or nothing comes in time.
async fn status(from: [u8; 4], to: SocketAddr, request: &str) -> Option<String> {
    let asked = async {
        let mut stream = connect(from, to).await.ok()?;
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.ok()?;
        String::from_utf8(all).ok()?.lines().next().map(str::to_owned)
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), asked).await.ok()?
}

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

fn socket(base: &str) -> SocketAddr {
    base.strip_prefix("http://").unwrap().parse().unwrap()
}

/// Holds as many connections as it can get: silent ones, ones that asked once, and ones that never end what they ask.
async fn occupy(addresses: std::ops::RangeInclusive<u8>, each: usize, to: SocketAddr) -> Vec<TcpStream> {
    let said = [
        "",
        "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /healthz HT",
        "POST /v1/oauth/token HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         content-length: 9\r\n\r\n",
    ];
    let mut held = Vec::new();
    for round in 0..each {
        for address in addresses.clone() {
            let connected = tokio::time::timeout(std::time::Duration::from_secs(5), connect([127, 0, 1, address], to));
            if let Ok(Ok(mut stream)) = connected.await {
                stream.write_all(said[round % said.len()].as_bytes()).await.ok();
                held.push(stream);
            }
        }
    }
    held
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_take_neither_the_places_nor_the_files_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let key = bootstrap(&data);
    let server = Server::start_under("-n 256", &data, &[]);
    let (api, admin) = (socket(&server.base), socket(&server.admin));
    // One address, then a few, with more connections than there are descriptors.
    for addresses in [1..=1, 1..=4] {
        let held = occupy(addresses.clone(), 300, api).await;
        let crowded = occupy(addresses, 100, admin).await;
        for last in [7, 8, 9] {
            let answer = status([127, 0, 2, last], api, HEALTH).await;
            assert_eq!(answer.as_deref(), Some("HTTP/1.1 200 OK"), "another address is answered");
            let answer = status([127, 0, 2, last], admin, HEALTH).await;
            assert_eq!(answer.as_deref(), Some("HTTP/1.1 200 OK"), "and so is the admin port");
        }
        let event = json!({"account_id": "acme", "metric": "m"});
        let (status, answer) = ask(&server, &key, "POST", "/v1/events", Some(event)).await;
        assert_eq!(status, 202, "{answer}");
        drop((held, crowded));
    }
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_shown_a_credential_stays() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let key = bootstrap(&data);
    let server = Server::start_under("-n 256", &data, &[]);
    let api = socket(&server.base);
    let mut known = connect([127, 0, 3, 1], api).await.unwrap();
    let request = format!("GET /v1/whoami HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n");
    let mut answered = async || {
        known.write_all(request.as_bytes()).await.unwrap();
        let mut some = vec![0; 4_096];
        let read = known.read(&mut some).await.unwrap();
        String::from_utf8_lossy(&some[..read]).starts_with("HTTP/1.1 200")
    };
    assert!(answered().await);
    let held = occupy(1..=6, 100, api).await;
    assert!(answered().await, "strangers gave way, and not who is known");
    drop(held);
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_soft_limit_is_raised_and_what_is_asked_for_is_held_to_the_hard_one() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    bootstrap(&data);
    let server = Server::start_under("-Sn 64", &data, &["--connections", "300", "--connections-per-address", "200"]);
    let mut held = Vec::new();
    for _ in 0..150 {
        let mut stream = TcpStream::connect(socket(&server.base)).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut some = [0; 12];
        stream.read_exact(&mut some).await.unwrap();
        assert_eq!(&some, b"HTTP/1.1 200", "{}", held.len());
        held.push(stream);
    }
    server.stop();
    let (code, said) = refused_to_serve(&data, &["--connections", "1000000000"]);
    assert!(code == Some(2) && said.contains("raise the limit"), "{code:?} {said}");
}
