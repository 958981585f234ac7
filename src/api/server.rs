//! The accept loop: bounded connections, a time limit on request heads, an orderly end. HTTP/1.1 is spoken here, HTTP/2 in
//! `http2.rs`.

use super::address::Peer;
use super::crowd::{Connection, Crowd, Place, Places, Refusal};
use super::http2;
use super::refusals::Refusals;
use super::stream::Hangup;
use super::tls::{HTTP_2, Tls};
use crate::domain::limits::{
    CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX, CONNECTIONS_WAITING_MAX, DRAIN_TIMEOUT, HEAD_BYTES_MAX, HEAD_TIMEOUT,
    REQUEST_TIMEOUT,
};
use crate::domain::time::Millis;
use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_io_timeout::TimeoutStream;
use tower::Service;

/// How long connections that are cut off take to be gone.
const CUT_OFF_PATIENCE: Duration = Duration::from_millis(250);

/// How long is waited where a connection cannot be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why a listener cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}; is another process using the port?")]
pub struct ServeError {
    /// Where.
    pub address: SocketAddr,
    /// What the operating system said.
    pub source: std::io::Error,
}

/// An open listener.
#[derive(Debug)]
pub(super) struct Server {
    listener: TcpListener,
    /// What encrypts connections, where that is wanted.
    pub(super) tls: Option<Tls>,
    /// Proxies that may hold any number of connections.
    pub(super) trusted: Vec<IpNet>,
    /// Where it listens.
    pub(super) address: SocketAddr,
}

/// Opens a listener.
///
/// # Errors
/// Where the address cannot be listened on.
pub(super) fn bind(address: SocketAddr) -> Result<Server, ServeError> {
    let failed = |source| ServeError { address, source };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
    socket.set_reuseaddr(true).map_err(failed)?;
    socket.bind(address).map_err(failed)?;
    let listener = socket.listen(CONNECTIONS_WAITING_MAX).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Server { listener, tls: None, trusted: Vec::new(), address })
}

/// How long a listener waits for its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerLimits {
    /// For a request's head, and between two requests.
    pub head: Duration,
    /// From a request's head to its answer, and how long a piece of the answer may wait for its client.
    pub request: Duration,
    /// For a question across accounts, or about the past.
    pub query: Duration,
    /// For what is under way when it is told to stop.
    pub drain: Duration,
    /// Connections in all, and with them requests of HTTP/2 beyond the first that is under way on each.
    pub connections: usize,
    /// Connections of one address (IPv6: /64), proxies that are trusted apart. A request of HTTP/2 beyond the first that is
    /// under way on its connection counts as one.
    pub per_address: usize,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            head: duration(HEAD_TIMEOUT),
            request: duration(REQUEST_TIMEOUT),
            query: duration(crate::domain::limits::USAGE_QUERY_TIMEOUT),
            drain: duration(DRAIN_TIMEOUT),
            connections: CONNECTIONS_MAX,
            per_address: CONNECTIONS_PER_ADDRESS_MAX,
        }
    }
}

/// What the connections of a listener have in common.
#[derive(Clone)]
pub(super) struct Listening {
    /// What answers.
    pub(super) router: Router,
    /// How long who is waited for.
    pub(super) limits: ListenerLimits,
    /// Says when to stop.
    pub(super) stop: watch::Receiver<bool>,
}

impl Server {
    /// Serves until `stop` says so, then accepts nothing more and lets what is under way end.
    pub(super) async fn serve(self, router: Router, limits: ListenerLimits, mut stop: watch::Receiver<bool>) {
        let places = Places { all: limits.connections, per_address: limits.per_address };
        let crowd = Crowd::new(places, &self.trusted);
        let listening = Listening { router, limits, stop: stop.clone() };
        // Each connection holds one end, so that the other closes behind the last of them.
        let (open, mut all_closed) = mpsc::channel::<()>(1);
        let (cut_off, cut) = watch::channel(false);
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stopped(&mut stop) => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(error = %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Who holds too many already is closed at once.
            let Some(place) = place(&crowd, peer.ip(), &mut stop).await else { continue };
            let (listening, tls, open) = (listening.clone(), self.tls.clone(), open.clone());
            let mut cut = cut.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = connection((stream, peer), &place.0, tls, listening) => {}
                    () = place.0.told_to_leave() => {}
                    () = stopped(&mut cut) => {}
                }
                drop((place, open));
            });
        }
        // Who connects meanwhile is refused at once, and does not wait for an answer that never comes.
        drop((self.listener, open));
        // No permit is waited for: requests that were sent before their client knew still need some.
        if tokio::time::timeout(limits.drain, all_closed.recv()).await.is_err() {
            tracing::warn!("some requests did not end in time and are cut off");
            cut_off.send_replace(true);
            drop(tokio::time::timeout(CUT_OFF_PATIENCE, all_closed.recv()).await);
        }
    }
}

/// A place for a connection. Where all are taken by requests under way, it is waited for, and nobody else is let in meanwhile.
async fn place(crowd: &Crowd, address: IpAddr, stop: &mut watch::Receiver<bool>) -> Option<Place> {
    loop {
        match crowd.enter(address) {
            Ok(place) => return Some(place),
            Err(Refusal::Share) => return None,
            Err(Refusal::Full) => tokio::select! {
                () = crowd.freed() => {}
                // A request that ends makes its connection idle and frees nothing.
                () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                () = stopped(stop) => return None,
            },
        }
    }
}

async fn connection(
    (stream, peer): (TcpStream, SocketAddr),
    known_as: &Connection,
    tls: Option<Tls>,
    mut listening: Listening,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = %error, "TCP_NODELAY could not be set");
    }
    // Who takes nothing of an answer holds a place for nothing.
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(listening.limits.request));
    let stream = Box::pin(stream);
    let Some(tls) = tls else { return exchange((stream, peer), known_as, listening).await };
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(listening.limits.head, tls.acceptor().accept(stream)) => shaken,
        () = stopped(&mut listening.stop) => return,
    };
    match shaken {
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(HTTP_2) => {
            http2::exchange((stream, peer), known_as, listening).await;
        }
        Ok(Ok(stream)) => exchange((stream, peer), known_as, listening).await,
        Ok(Err(error)) => tracing::debug!(error = %error, "a handshake failed"),
        Err(_) => tracing::debug!("a handshake did not end in time"),
    }
}

/// Answers the requests of one connection.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    (stream, peer): (S, SocketAddr),
    connection: &Connection,
    listening: Listening,
) {
    let Listening { router, limits, mut stop, .. } = listening;
    let hangup = Hangup::default();
    let hung_up = hangup.clone();
    let stream = Refusals::new(stream, connection.under_way().clone());
    let connection = connection.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let counted = connection.under_way().begin();
        Peer::mark(peer, &mut request);
        request.extensions_mut().insert(connection.clone());
        request.extensions_mut().insert(hangup.clone());
        let answered = router.clone().call(request);
        async move { answered.await.map(|response| response.map(|body| counted.with(body))) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        // What is buffered may be more than one head.
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        // Its client takes nothing any more: what waits for it is dropped with the connection.
        () = hung_up.0.notified() => return,
        () = stopped(&mut stop) => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                ended = serving.as_mut() => ended,
                () = hung_up.0.notified() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %error, "a connection ended early");
    }
}

/// Returns once it is time to stop.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone says stop, too.
    drop(stop.wait_for(|stop| *stop).await);
}

/// A span for timers.
pub(super) fn duration(span: Millis) -> Duration {
    Duration::from_millis(u64::try_from(span.0).unwrap_or(0))
}
