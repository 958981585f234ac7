//! HTTP/2, where one connection holds many requests: each beyond the first takes a place of its own, as a connection would.
//!
//! Time limits are kept from outside of the protocol, so that they hold whatever a client sends or leaves out: a connection
//! with nothing under way ends, and so does a request whose answer is not taken.

use super::address::Peer;
use super::crowd::{Connection, NoPlace, Seat};
use super::sending::{Outgoing, Sending};
use super::server::{Listening, duration, stopped};
use super::stream::Hangup;
use crate::domain::limits::{
    ANSWER_WAITING_BYTES_MAX, CONNECTION_WINDOW_BYTES, HEAD_BYTES_MAX, PARTING_TIMEOUT, STREAM_WINDOW_BYTES,
    STREAMS_BROKEN_MAX, STREAMS_PER_CONNECTION_MAX, STREAMS_TAKEN_BACK_MAX,
};
use axum::Router;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::Service;

tokio::task_local! {
    static STREAM: Stream;
}

/// What a request knows of its own way. One that knows nothing has no place.
#[derive(Clone, Default)]
struct Stream {
    hangup: Hangup,
    outgoing: Arc<Outgoing>,
    has_place: bool,
}

/// Answers the requests of one connection.
pub(super) async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    (stream, peer): (S, SocketAddr),
    connection: &Connection,
    listening: Listening,
) {
    let (alive, gone) = watch::channel(());
    let Listening { router, limits, mut stop } = listening;
    let under_way = watch::Sender::new(0);
    let mut requests = under_way.subscribe();
    let own = Arc::new(Semaphore::new(1));
    let streams = Streams { connection: connection.clone(), own, under_way, gone, patience: limits.request };
    let asking = connection.clone();
    let service = service_fn(move |request| answer(router.clone(), (peer, asking.clone()), request));
    let serving = builder(streams, limits.head).serve_connection(TokioIo::new(stream), service);
    {
        let mut serving = pin!(serving);
        let ended = tokio::select! {
            ended = serving.as_mut() => Some(ended),
            () = idle(&mut requests, limits.head) => None,
            () = stopped(&mut stop) => None,
        };
        let ended = if let Some(ended) = ended {
            ended
        } else {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                ended = serving.as_mut() => ended,
                // Who does not part, or never spoke HTTP/2 at all, is left.
                () = idle(&mut requests, duration(PARTING_TIMEOUT)) => Ok(()),
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = %error, "a connection ended early");
        }
    }
    // As with HTTP/1.1, what is still worked on ends with its connection.
    drop(alive);
    drop(requests.wait_for(|requests| *requests == 0).await);
}

fn builder(streams: Streams, head: Duration) -> Builder<Streams> {
    let mut builder = Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        // A client that is gone without a word is found out though nothing is written to it.
        .keep_alive_interval(head)
        .keep_alive_timeout(head)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_pending_accept_reset_streams(STREAMS_TAKEN_BACK_MAX)
        .max_local_error_reset_streams(STREAMS_BROKEN_MAX)
        // What is longer than a head may be is refused with a reason, up to here; beyond, the protocol refuses it with none.
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX * 2).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(ANSWER_WAITING_BYTES_MAX);
    builder
}

/// Returns once nothing has been under way for this long.
async fn idle(requests: &mut watch::Receiver<usize>, span: Duration) {
    loop {
        if requests.wait_for(|requests| *requests == 0).await.is_err() {
            return;
        }
        // What begins and ends meanwhile is a change, too.
        if tokio::time::timeout(span, requests.changed()).await.is_err() {
            return;
        }
    }
}

async fn answer(
    mut router: Router,
    (peer, connection): (SocketAddr, Connection),
    mut request: Request<Incoming>,
) -> Result<Response<Sending>, Infallible> {
    let Stream { hangup, outgoing, has_place } = STREAM.try_with(Clone::clone).unwrap_or_default();
    Peer::mark(peer, &mut request);
    request.extensions_mut().insert(hangup);
    request.extensions_mut().insert(connection);
    if !has_place {
        request.extensions_mut().insert(NoPlace);
    }
    let response = router.call(request).await?;
    Ok(response.map(|body| Sending::new(body, outgoing)))
}

/// Runs the requests of a connection, each as a task of its own.
#[derive(Clone)]
struct Streams {
    connection: Connection,
    /// The place that the connection has as such.
    own: Arc<Semaphore>,
    /// How many requests there are.
    under_way: watch::Sender<usize>,
    /// Closed when the connection is gone.
    gone: watch::Receiver<()>,
    /// How long a piece of an answer may wait for the client.
    patience: Duration,
}

/// Where a request has its place; only held.
#[expect(dead_code, reason = "what is held is given back when it is dropped")]
enum Held {
    /// The connection's own.
    Own(OwnedSemaphorePermit),
    /// One more.
    Further(Seat),
}

impl Streams {
    /// A place for a request; `None` where all are taken, or as many as one address may have.
    fn place(&self) -> Option<Held> {
        if let Ok(own) = Arc::clone(&self.own).try_acquire_owned() {
            return Some(Held::Own(own));
        }
        self.connection.seat().map(Held::Further)
    }
}

impl<R: Future<Output = ()> + Send + 'static> Executor<R> for Streams {
    fn execute(&self, request: R) {
        let place = self.place();
        let counted = (Counted::begin(&self.under_way), self.connection.under_way().begin());
        let stream = Stream { has_place: place.is_some(), ..Stream::default() };
        let (mut gone, patience) = (self.gone.clone(), self.patience);
        tokio::spawn(async move {
            let Stream { hangup, outgoing, .. } = stream.clone();
            // A request that is dropped before its end is reset, and the others of its connection go on: a browser has
            // one for all its pages.
            tokio::select! {
                () = STREAM.scope(stream, request) => {}
                () = hangup.0.notified() => {}
                () = outgoing.stalled(patience) => {}
                _ = gone.changed() => {}
            }
            drop((place, counted));
        });
    }
}

/// A request that is counted as under way.
struct Counted(watch::Sender<usize>);

impl Counted {
    fn begin(under_way: &watch::Sender<usize>) -> Self {
        under_way.send_modify(|requests| *requests += 1);
        Self(under_way.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|requests| *requests -= 1);
    }
}
