//! A request that changes something, as its handler gets it: in one piece, read before anything is decided.

use super::app::App;
use super::change::Sent;
use super::input;
use super::problem::Problem;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, Method, Uri};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

/// A request with its body.
#[derive(Debug)]
pub(super) struct Incoming {
    method: Method,
    uri: Uri,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; none is read of a `DELETE`.
    pub body: Bytes,
}

impl Incoming {
    /// The request as far as repeating it goes.
    pub(super) fn sent(&self) -> Sent<'_> {
        Sent::new(&self.method, &self.uri, &self.headers, &self.body)
    }

    /// The query string.
    pub(super) fn query(&self) -> Option<&str> {
        self.uri.query()
    }

    /// Reads the body as JSON.
    ///
    /// # Errors
    /// As [`input::json`].
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        input::json(&self.headers, &self.body)
    }
}

impl FromRequest<App> for Incoming {
    type Rejection = Response;

    async fn from_request(request: Request, app: &App) -> Result<Self, Response> {
        let (method, uri, headers) = (request.method().clone(), request.uri().clone(), request.headers().clone());
        let body = if method == Method::DELETE {
            Bytes::new()
        } else {
            Bytes::from_request(request, app).await.map_err(IntoResponse::into_response)?
        };
        Ok(Self { method, uri, headers, body })
    }
}
