//! Reads what is left of a body that its handler did not want, so that who sends it gets the answer and no reset.
//!
//! A connection that is closed while bytes of the caller wait unread is reset by the operating system, and the caller
//! loses the answer that says why: a body that is too large would look like a network fault.

use super::problem::Problem;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header::EXPECT;
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// How much is read past what the handler took, and for how long.
const BYTES_MAX: usize = 16 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);

/// A body that two may read: the handler, then this module.
#[derive(Clone)]
struct Shared(Arc<Mutex<Body>>);

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}

/// Runs the request, then reads the rest of its body where it failed.
pub(super) async fn read_rest(request: Request, next: Next) -> Response {
    // Who waits to be asked for the body sends none before.
    if request.headers().contains_key(EXPECT) || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let shared = Shared(Arc::new(Mutex::new(body)));
    let response = next.run(Request::from_parts(parts, Body::new(shared.clone()))).await;
    if response.extensions().get::<Problem>().is_some() || response.status().is_client_error() {
        let drained = tokio::time::timeout(PATIENCE, drain(shared)).await;
        if drained.is_err() {
            tracing::debug!("the rest of a refused body did not come in time");
        }
    }
    response
}

/// Reads the body of a request that nobody looks at.
pub(super) async fn discard(request: Request) {
    if !request.headers().contains_key(EXPECT) {
        let body = Shared(Arc::new(Mutex::new(request.into_body())));
        drop(tokio::time::timeout(PATIENCE, drain(body)).await);
    }
}

async fn drain(mut body: Shared) {
    let mut bytes = 0;
    while bytes < BYTES_MAX
        && !body.is_end_stream()
        && let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
}
