//! HTTPS: what is offered, certificates that are exchanged under way, and connections that go wrong before they are one.

use crate::process;
use crate::server::{Options, PATIENCE, Server, unhurried};
use highwater::api::{Front, ListenerLimits, Tls, TlsError, TlsFiles};
use highwater::domain::time::Millis;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(super) type Stream = TlsStream<TcpStream>;

/// A certificate for localhost in a folder, which nobody but its bearer trusts.
pub(super) fn issue(folder: &Path) -> TlsFiles {
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = TlsFiles { certificate: folder.join("cert.pem"), key: folder.join("key.pem") };
    std::fs::write(&files.certificate, issued.cert.pem()).unwrap();
    std::fs::write(&files.key, issued.signing_key.serialize_pem()).unwrap();
    files
}

pub(super) fn certificate(files: &TlsFiles) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(&files.certificate).unwrap()
}

/// What a client trusts and offers.
pub(super) fn client(trusted: &CertificateDer<'static>, protocols: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// Shakes hands with who shows a certificate, and says what was agreed on.
pub(super) async fn shake_hands(
    address: SocketAddr,
    config: ClientConfig,
) -> std::io::Result<(Stream, Option<Vec<u8>>)> {
    let stream = TcpStream::connect(address).await?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream);
    let stream = connecting.await?;
    let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    Ok((stream, agreed))
}

/// A connection for HTTP/1.1.
async fn connect(address: SocketAddr, trusted: &CertificateDer<'static>) -> std::io::Result<Stream> {
    Ok(shake_hands(address, client(trusted, &["http/1.1"])).await?.0)
}

/// Reads until the other side closes, in whichever way.
pub(super) async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut all = Vec::new();
    let reading = async {
        let mut some = [0; 4_096];
        while let Ok(n @ 1..) = stream.read(&mut some).await {
            all.extend_from_slice(&some[..n]);
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the connection stays open");
    String::from_utf8_lossy(&all).into_owned()
}

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
const LAST: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

async fn goes_on(server: &Server, trusted: &CertificateDer<'static>) {
    let mut stream = connect(server.address(), trusted).await.unwrap();
    stream.write_all(LAST).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

pub(super) async fn secured(tls: &Tls, limits: ListenerLimits) -> Server {
    let front = Front { rates: unhurried(), hsts: Some(Millis::hours(24)), ..Front::default() };
    Server::start_with(Options { tls: Some(tls.clone()), limits, front, ..Options::default() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_are_offered_and_only_encrypted() {
    let folder = tempfile::tempdir().unwrap();
    let files = issue(folder.path());
    let server = secured(&Tls::load(files.clone()).unwrap(), ListenerLimits::default()).await;
    let agree = async |protocols: &[&str]| {
        shake_hands(server.address(), client(&certificate(&files), protocols)).await.map(|(_, agreed)| agreed)
    };
    assert_eq!(agree(&["http/1.1", "h2"]).await.unwrap(), Some(b"h2".to_vec()));
    assert_eq!(agree(&["http/1.1"]).await.unwrap(), Some(b"http/1.1".to_vec()));
    assert_eq!(agree(&[]).await.unwrap(), None);
    assert!(agree(&["http/3"]).await.is_err());
    let (mut stream, _) = shake_hands(server.address(), client(&certificate(&files), &[])).await.unwrap();
    let ask = format!(
        "GET /v1/metrics HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
        server.key
    );
    stream.write_all(ask.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"items\":[]"), "{answer}");
    assert!(answer.contains("strict-transport-security: max-age=86400\r\n"), "{answer}");
    let plain = server.raw(LAST).await;
    assert!(!plain.contains("HTTP/1.1 200"), "{plain}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_exchanged_and_a_broken_one_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let files = issue(folder.path());
    let tls = Tls::load(files.clone()).unwrap();
    let server = secured(&tls, ListenerLimits::default()).await;
    let first = certificate(&files);
    let mut open = connect(server.address(), &first).await.unwrap();
    issue(folder.path());
    goes_on(&server, &first).await;
    tls.reload().unwrap();
    let second = certificate(&files);
    goes_on(&server, &second).await;
    assert!(connect(server.address(), &first).await.is_err(), "the first is gone for new connections");
    open.write_all(LAST).await.unwrap();
    assert!(rest(&mut open).await.starts_with("HTTP/1.1 200"), "who is connected goes on");
    let (certificate, key) = (std::fs::read(&files.certificate).unwrap(), std::fs::read(&files.key).unwrap());
    let elsewhere = tempfile::tempdir().unwrap();
    let other = std::fs::read(issue(elsewhere.path()).key).unwrap();
    let cases: [(&str, &[u8], &[u8]); 5] = [
        ("the key of another", &certificate, &other),
        ("no certificate", b"", &key),
        ("no key", &certificate, b""),
        ("a torn certificate", &certificate[..certificate.len() / 2], &key),
        ("no PEM", b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n", &key),
    ];
    for (what, certificate, key) in cases {
        std::fs::write(&files.certificate, certificate).unwrap();
        std::fs::write(&files.key, key).unwrap();
        let error = tls.reload().expect_err(what).to_string();
        assert!(error.contains(files.certificate.parent().unwrap().to_str().unwrap()), "{error}");
        assert!(!error.contains("PRIVATE") && Tls::load(files.clone()).is_err(), "{what}: {error}");
        goes_on(&server, &second).await;
    }
    std::fs::remove_file(&files.key).unwrap();
    std::fs::write(&files.certificate, &certificate).unwrap();
    assert!(matches!(tls.reload(), Err(TlsError::Unreadable { .. })));
    goes_on(&server, &second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hang_up_exchanges_the_certificate_of_a_process() {
    let folder = tempfile::tempdir().unwrap();
    let files = issue(folder.path());
    let data = folder.path().join("data");
    let paths = [files.certificate.to_str().unwrap(), files.key.to_str().unwrap()];
    let server = process::Server::start_with(&data, &["--tls-cert", paths[0], "--tls-key", paths[1]]);
    let address: SocketAddr = server.base.strip_prefix("https://").unwrap().parse().unwrap();
    let first = certificate(&files);
    drop(connect(address, &first).await.unwrap());
    std::fs::write(&files.key, "broken").unwrap();
    server.hang_up();
    // Whether it has read the broken key by now or not: what it had goes on. Once the next one is there, it may read that.
    drop(connect(address, &first).await.unwrap());
    issue(folder.path());
    let second = certificate(&files);
    server.hang_up();
    crate::server::eventually("the second certificate", async || connect(address, &second).await.ok()).await;
    server.stop();
    let half = process::highwater(&["serve", "--data", data.to_str().unwrap(), "--tls-cert", paths[0]]);
    let said = String::from_utf8(half.stderr).unwrap();
    assert!(half.status.code() == Some(2) && said.contains("tls_key"), "{said}");
}

fn hasty() -> ListenerLimits {
    ListenerLimits {
        head: Duration::from_millis(400),
        request: Duration::from_millis(800),
        per_address: 20,
        ..ListenerLimits::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_slow_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let files = issue(folder.path());
    let trusted = certificate(&files);
    let server = secured(&Tls::load(files).unwrap(), hasty()).await;
    // No handshake, half of one, one of something else.
    for hello in [&b""[..], b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PRI * HT"] {
        let mut stream = server.connect().await;
        stream.write_all(hello).await.unwrap();
        rest(&mut stream).await;
    }
    // A handshake, then nothing, a torn head, or a torn body.
    let body = "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n";
    let body = format!("{body}authorization: Bearer {}\r\n\r\n{{", server.key);
    for part in ["", "P", "GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &body] {
        let mut stream = connect(server.address(), &trusted).await.unwrap();
        stream.write_all(part.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(!answer.contains("HTTP/1.1 200"), "{part:?}: {answer}");
        assert_eq!(answer.contains("\"code\":\"request_timeout\""), part.starts_with("POST"), "{part:?}: {answer}");
    }
    // An idle connection that was used.
    let mut stream = connect(server.address(), &trusted).await.unwrap();
    stream.write_all(HEALTH).await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200"));
    // A handshake byte by byte, and one request likewise.
    let mut stream = server.connect().await;
    let trickle = async {
        while stream.write_all(b"\x16").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    tokio::time::timeout(PATIENCE, trickle).await.expect("a trickled handshake is cut off");
    let stream = connect(server.address(), &trusted).await.unwrap();
    let (mut reading, mut writing) = tokio::io::split(stream);
    let trickle = async {
        for byte in b"GET /healthz HTTP/1.1\r\nx: ".iter().chain(std::iter::repeat(&b'y')) {
            if writing.write_all(&[*byte]).await.is_err() || writing.flush().await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (answer, ()) = tokio::join!(rest(&mut reading), async {
        tokio::time::timeout(PATIENCE, trickle).await.expect("a trickled head is cut off");
    });
    assert!(!answer.contains("HTTP/1.1 200"), "{answer}");
    goes_on(&server, &trusted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_cannot_take_the_connections_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let files = issue(folder.path());
    let trusted = certificate(&files);
    let limits = ListenerLimits { per_address: 20, ..ListenerLimits::default() };
    let server = secured(&Tls::load(files).unwrap(), limits).await;
    let connect_from_elsewhere = || {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        socket.connect(server.address())
    };
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(connect_from_elsewhere().await.unwrap());
    }
    // They are taken in turn: as many as one address may hold stay open, the newest, for which the others gave way.
    for stream in &mut held[..180] {
        assert_eq!(rest(stream).await, "");
    }
    for stream in &held[180..] {
        assert!(matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock));
    }
    goes_on(&server, &trusted).await;
    drop(held);
    let again = async || {
        let mut stream = connect_from_elsewhere().await.unwrap();
        let read = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut [0])).await;
        // Nothing comes, so it is open.
        read.is_err().then_some(())
    };
    crate::server::eventually("a connection of the same address", again).await;
}
