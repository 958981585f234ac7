//! Reading the body of a request: within the limit of its route, as its bytes arrive, from one budget for all.
//!
//! A body is read when its handler asks for it, which is after the key was checked; whoever is refused before that holds no
//! byte of it.

use super::app::App;
use super::body_memory::Reserved;
use super::content_coding::{ContentCoding, codings, decode};
use super::problem::{Advice, Problem};
use super::seen::Seen;
use super::{events, oauth};
use crate::domain::limits::{ANONYMOUS_BODY_TIMEOUT, FORM_BYTES_MAX, JSON_BODY_BYTES_MAX};
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::TryStreamExt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// More than what a body may become: one that is packed may have that much about it.
const WIRE_BYTES_SPARE: usize = 64 * 1024;

/// What a route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Expected {
    /// The bytes of a body, unpacked.
    limit: usize,
    /// What it is packed with.
    codings: Vec<ContentCoding>,
    /// What the caller says that is sent.
    announced: Option<usize>,
}

impl Expected {
    /// Reads what a request says of its body.
    ///
    /// # Errors
    /// 415 where it is packed with what is not read here.
    fn of(path: &str, headers: &HeaderMap) -> Result<Self, Problem> {
        let codings = codings(headers)?;
        let limit = match path {
            "/v1/events" => events::body_limit(headers),
            _ if oauth::has_form(path) => FORM_BYTES_MAX,
            _ => JSON_BODY_BYTES_MAX,
        };
        if oauth::has_form(path) && !codings.is_empty() {
            let detail = "a form is sent plain, without Content-Encoding";
            let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", detail);
            return Err(Problem { advice: Some(Advice::AcceptEncoding("identity")), ..problem });
        }
        let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        Ok(Self { limit, codings, announced })
    }

    /// How many bytes may be sent.
    fn wire_limit(&self) -> usize {
        if self.codings.is_empty() { self.limit } else { self.limit.saturating_add(WIRE_BYTES_SPARE) }
    }

    fn too_large(&self) -> Problem {
        let detail = format!("the body has more than {} bytes", self.limit);
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", detail).with("limit", self.limit)
    }
}

/// Lets the handler read the body, where it wants to. What it holds is given back once the request is answered.
pub(super) async fn bound(State(app): State<App>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let expected = match Expected::of(parts.uri.path(), &parts.headers) {
        Ok(expected) => expected,
        Err(problem) => return problem.into_response(),
    };
    parts.headers.remove(CONTENT_ENCODING);
    if !expected.codings.is_empty() {
        parts.headers.remove(CONTENT_LENGTH);
    }
    let seen = parts.extensions.get::<Seen>().cloned().unwrap_or_default();
    let held: Arc<Mutex<Option<Reserved>>> = Arc::default();
    // The handler sees an error of the body and no more, so what was wrong goes past it.
    let failure = Arc::new(OnceLock::new());
    let (holder, noted) = (Arc::clone(&held), Arc::clone(&failure));
    let lazily = async move {
        let workspace = seen.get().map(|(tenant, _)| tenant.workspace);
        let mut reserved = app.bodies.begin(workspace);
        let read = read(body, &expected, &mut reserved, workspace.is_none()).await;
        *holder.lock().unwrap_or_else(PoisonError::into_inner) = Some(reserved);
        read.map_err(|problem| noted.set(problem).map_or("the body failed before", |()| "the body is not read"))
    };
    let body = Body::from_stream(futures::stream::once(lazily));
    let response = next.run(Request::from_parts(parts, body)).await;
    drop(held);
    failure.get().map_or(response, |problem: &Problem| problem.clone().into_response())
}

async fn read(body: Body, expected: &Expected, reserved: &mut Reserved, is_anonymous: bool) -> Result<Bytes, Problem> {
    let collected = collect(body, expected, reserved);
    let sent = if is_anonymous {
        let patience = Duration::from_millis(u64::try_from(ANONYMOUS_BODY_TIMEOUT.0).unwrap_or(0));
        let collected = tokio::time::timeout(patience, collected).await;
        collected.unwrap_or_else(|_| Err(Problem::of_status(StatusCode::REQUEST_TIMEOUT)))?
    } else {
        collected.await?
    };
    decode(sent, &expected.codings, expected.limit, reserved).await
}

/// Collects what is sent.
async fn collect(body: Body, expected: &Expected, reserved: &mut Reserved) -> Result<Bytes, Problem> {
    let most = expected.wire_limit();
    if expected.announced.is_some_and(|announced| announced > most) {
        return Err(expected.too_large());
    }
    let mut pieces = body.into_data_stream();
    let mut whole = Vec::new();
    let unread = |_| Problem::of_status(StatusCode::BAD_REQUEST);
    while let Some(piece) = pieces.try_next().await.map_err(unread)? {
        if whole.len().saturating_add(piece.len()) > most {
            return Err(expected.too_large());
        }
        reserved.add(piece.len()).await?;
        whole.extend_from_slice(&piece);
    }
    Ok(Bytes::from(whole))
}

/// A body that is read at most once, and may be asked for twice.
#[derive(Clone, Default)]
pub(super) struct Twice {
    unread: Arc<Mutex<Option<Body>>>,
    read: Arc<OnceLock<Bytes>>,
}

impl Twice {
    pub(super) fn new(body: Body) -> Self {
        Self { unread: Arc::new(Mutex::new(Some(body))), read: Arc::default() }
    }

    /// The body, which is read once it is asked for.
    pub(super) fn body(&self) -> Body {
        if let Some(read) = self.read.get() {
            return Body::from(read.clone());
        }
        let own = self.clone();
        Body::from_stream(futures::stream::once(async move {
            let body = own.unread.lock().unwrap_or_else(PoisonError::into_inner).take();
            // The layer around this one bounds it.
            let bytes = axum::body::to_bytes(body.unwrap_or_default(), usize::MAX).await?;
            Ok::<_, axum::Error>(own.read.get_or_init(|| bytes).clone())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;
    use futures::executor::block_on;

    #[test]
    fn a_body_that_is_asked_for_twice_is_read_once_and_only_then() {
        let polled = Arc::new(OnceLock::new());
        let noted = Arc::clone(&polled);
        let sent = futures::stream::once(async move { noted.set(()).map_or(Err("read before"), |()| Ok("all of it")) });
        let twice = Twice::new(Body::from_stream(sent));
        drop(twice.body());
        assert!(polled.get().is_none(), "nobody asked for it");
        for _ in 0..3 {
            assert_eq!(&block_on(to_bytes(twice.body(), 100)).unwrap()[..], b"all of it");
        }
    }

    #[test]
    fn each_route_says_how_much_it_takes() {
        let limit = |path: &str, kind: &str| {
            let headers = HeaderMap::from_iter([(axum::http::header::CONTENT_TYPE, kind.parse().unwrap())]);
            Expected::of(path, &headers).unwrap().limit
        };
        assert_eq!(limit("/v1/events", "application/x-ndjson; charset=utf-8"), 10 << 20);
        assert_eq!(limit("/v1/events", "application/json"), 1 << 20);
        assert_eq!(limit("/v1/events/batch", "application/x-ndjson"), 1 << 20);
        assert_eq!(limit("/v1/alerts", "application/x-ndjson"), 1 << 20);
        assert_eq!(limit("/v1/oauth/token", "application/x-ndjson"), 16 << 10);
        assert_eq!(limit("/v1/oauth/revoke", "application/json"), 16 << 10);
        assert_eq!(limit("/v1/oauth/clients", "application/json"), 1 << 20);
    }
}
