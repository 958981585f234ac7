//! The one renderer of errors: RFC 9457 problem details with a frozen `code`.

use super::docs::DOCS_ERRORS;
use crate::domain::limits::{PROBLEM_ERRORS_MAX, STORAGE_RETRY_SECONDS};
use axum::http::header::{ACCEPT_ENCODING, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// The type of problem details.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// An error as callers see it. It never holds a secret or another tenant's data.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// What it is, for programs.
    pub code: &'static str,
    /// What it is, for people.
    pub detail: String,
    /// The single faults.
    pub errors: Vec<Fault>,
    /// Members of their own.
    pub members: Map<String, Value>,
    /// Seconds to wait before another try.
    pub retry_after: Option<u32>,
    /// A header that says what would be taken.
    pub advice: Option<Advice>,
    /// Whether an earlier request's outcome is repeated.
    pub is_replayed: bool,
}

/// A header that says what would be taken.
#[derive(Clone, Debug)]
pub(super) enum Advice {
    /// `WWW-Authenticate`.
    Challenge(String),
    /// `Accept-Post`: content types.
    AcceptPost(&'static str),
    /// `Accept-Encoding`: content codings.
    AcceptEncoding(&'static str),
}

/// One fault of a request.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(super) struct Fault {
    /// Where in the body, as a JSON pointer.
    pub pointer: String,
    /// What it is, for programs.
    pub code: String,
    /// What it is, for people.
    pub detail: String,
    /// Where in the value it begins, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<usize>,
    /// How many bytes it covers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<usize>,
    /// What would be right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Problem details (RFC 9457), as every answer but 2xx carries them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProblemBody {
    /// The documentation of the code.
    pub r#type: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened.
    pub detail: String,
    /// The path of the request.
    pub instance: String,
    /// What it is, for programs; part of the API.
    pub code: String,
    /// The request, for the logs.
    pub request_id: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// The single faults, at most 20.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
}

impl Problem {
    /// Makes a problem.
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
            members: Map::new(),
            retry_after: None,
            advice: None,
            is_replayed: false,
        }
    }

    /// 400 with a code of its own.
    pub(super) fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 422 with a code of its own.
    pub(super) fn unprocessable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    /// 422 for one field.
    pub(super) fn invalid(pointer: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let fault = Fault {
            pointer: pointer.to_owned(),
            code: "validation_failed".to_owned(),
            detail: detail.clone(),
            ..Fault::default()
        };
        Self { errors: vec![fault], ..Self::unprocessable("validation_failed", format!("{pointer}: {detail}")) }
    }

    /// 404 for a resource.
    pub(super) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "resource_not_found", format!("there is no such {what}"))
    }

    /// 503 that is worth another try.
    pub(super) fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        Self { retry_after: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail) }
    }

    /// 503: the journal's disk is full or may not be written.
    pub(super) fn read_only() -> Self {
        let detail = "the journal cannot be written, its disk is full or read-only: nothing was taken, reads go on";
        Self { retry_after: Some(STORAGE_RETRY_SECONDS), ..Self::unavailable("storage_read_only", detail) }
    }

    /// 429: asked more often than a policy allows.
    pub(super) fn too_often(code: &'static str, policy: &'static str, detail: String, seconds: u32) -> Self {
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail);
        Self { retry_after: Some(seconds), ..problem }
            .with("retry_after", seconds)
            .with("violated-policies", vec![policy])
    }

    /// 500; the cause goes to the log, not to the caller.
    pub(super) fn internal(error: &dyn std::error::Error) -> Self {
        Self::failed(error, "something failed on our side; nothing was changed")
    }

    /// 500 behind an append: the change may be made, and whoever asks again under its key learns what came of it.
    pub(super) fn undecided(error: &dyn std::error::Error) -> Self {
        let detail = "something failed on our side, and the change may have been made; \
                      ask again with the same Idempotency-Key, or look before you ask without one";
        Self::failed(error, detail)
    }

    fn failed(error: &dyn std::error::Error, detail: &str) -> Self {
        tracing::error!(error = %crate::telemetry::chain(error), "a request failed on our side");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", detail)
    }

    /// Adds a member.
    #[must_use]
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// Marks the problem as the repetition of an earlier answer.
    #[must_use]
    pub(super) fn replayed(self) -> Self {
        Self { is_replayed: true, ..self }
    }

    /// Makes the problem that a bare status stands for.
    pub(super) fn of_status(status: StatusCode) -> Self {
        let (code, detail) = match status {
            StatusCode::BAD_REQUEST => ("invalid_parameter", "the request cannot be read"),
            StatusCode::NOT_FOUND => ("route_not_found", "there is no such path; see /docs"),
            StatusCode::METHOD_NOT_ALLOWED => {
                ("method_not_allowed", "the path exists, but not with this method; see Allow")
            }
            StatusCode::REQUEST_TIMEOUT => ("request_timeout", "the request did not arrive in time"),
            StatusCode::PAYLOAD_TOO_LARGE => ("payload_too_large", "the body is too large"),
            StatusCode::URI_TOO_LONG => ("uri_too_long", "the request's target is longer than a head may be (64 KiB)"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                ("unsupported_media_type", "the body is of no type that is read here")
            }
            StatusCode::UNPROCESSABLE_ENTITY => ("validation_failed", "the request is not valid"),
            StatusCode::TOO_MANY_REQUESTS => ("rate_limited", "too many, too soon; see Retry-After"),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                ("head_too_large", "the request's head has more than 64 KiB, or more than 100 header fields")
            }
            StatusCode::NOT_IMPLEMENTED => {
                ("unsupported_transfer_coding", "no transfer coding but chunked is taken; see Content-Encoding")
            }
            StatusCode::SERVICE_UNAVAILABLE => ("overloaded", "try again soon"),
            _ => ("internal_error", "something failed on our side"),
        };
        Self::new(status, code, detail)
    }

    fn retryable(&self) -> bool {
        (self.status.is_server_error()
            && ![StatusCode::GATEWAY_TIMEOUT, StatusCode::NOT_IMPLEMENTED].contains(&self.status))
            || self.status == StatusCode::TOO_MANY_REQUESTS
            || matches!(self.code, "idempotency_in_progress" | "request_timeout")
    }

    /// Writes the problem for a request.
    pub(super) fn json(self, request_id: &str, path: &str) -> Value {
        let retryable = self.retryable();
        let body = ProblemBody {
            r#type: format!("{DOCS_ERRORS}#{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            instance: path.to_owned(),
            code: self.code.to_owned(),
            request_id: request_id.to_owned(),
            retryable,
            errors: self.errors.into_iter().take(PROBLEM_ERRORS_MAX).collect(),
        };
        let mut json = serde_json::to_value(&body).unwrap_or_default();
        if let Some(object) = json.as_object_mut() {
            object.extend(self.members);
        }
        json
    }

    /// Renders the problem for a request.
    pub(super) fn render(mut self, request_id: &str, path: &str) -> Response {
        let (status, retry_after, is_replayed) = (self.status, self.retry_after, self.is_replayed);
        let advice = self.advice.take();
        let mut response = (status, self.json(request_id, path).to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if is_replayed {
            headers.insert("idempotent-replayed", HeaderValue::from_static("true"));
        }
        match advice {
            Some(Advice::Challenge(challenge)) => {
                if let Ok(challenge) = HeaderValue::from_str(&challenge) {
                    headers.insert(WWW_AUTHENTICATE, challenge);
                }
            }
            Some(Advice::AcceptPost(types)) => {
                headers.insert("accept-post", HeaderValue::from_static(types));
            }
            Some(Advice::AcceptEncoding(codings)) => {
                headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(codings));
            }
            None => {}
        }
        response
    }
}

/// The problem travels in the extensions; the outermost layer renders it with the request's id.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
