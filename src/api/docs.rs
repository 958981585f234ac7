//! Where the documentation of the API is, and the answers that every operation shares.

use super::problem::ProblemBody;
use utoipa::IntoResponses;

/// Where every error code has its paragraph.
pub(super) const DOCS_ERRORS: &str = "/docs/errors";

/// What any operation may answer when it does not succeed.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its derived description is used")]
pub(super) enum Problems {
    /// The request cannot be read: syntax, query, path, header.
    #[response(status = 400, content_type = "application/problem+json")]
    BadRequest(ProblemBody),
    /// There is no valid credential.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(ProblemBody),
    /// The credential lacks a scope.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(ProblemBody),
    /// There is no such resource.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(ProblemBody),
    /// The path does not have this method.
    #[response(status = 405, content_type = "application/problem+json")]
    MethodNotAllowed(ProblemBody),
    /// The client takes none of what is answered.
    #[response(status = 406, content_type = "application/problem+json")]
    NotAcceptable(ProblemBody),
    /// The request did not arrive in time.
    #[response(status = 408, content_type = "application/problem+json")]
    RequestTimeout(ProblemBody),
    /// The state does not allow it, or the same request is under way.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(ProblemBody),
    /// The resource has another version than `If-Match` says.
    #[response(status = 412, content_type = "application/problem+json")]
    PreconditionFailed(ProblemBody),
    /// The body is too large.
    #[response(status = 413, content_type = "application/problem+json")]
    PayloadTooLarge(ProblemBody),
    /// The request's target is longer than a head may be.
    #[response(status = 414, content_type = "application/problem+json")]
    UriTooLong(ProblemBody),
    /// The body's type or encoding is not read.
    #[response(status = 415, content_type = "application/problem+json")]
    UnsupportedMediaType(ProblemBody),
    /// A field is unknown or wrong.
    #[response(status = 422, content_type = "application/problem+json")]
    Unprocessable(ProblemBody),
    /// Too many requests; `Retry-After` says when to try again.
    #[response(status = 429, content_type = "application/problem+json")]
    TooManyRequests(ProblemBody),
    /// The request's head is too long, or has too many fields.
    #[response(status = 431, content_type = "application/problem+json")]
    HeadTooLarge(ProblemBody),
    /// Something failed on our side.
    #[response(status = 500, content_type = "application/problem+json")]
    Internal(ProblemBody),
    /// The body comes in a transfer coding that is not known.
    #[response(status = 501, content_type = "application/problem+json")]
    NotImplemented(ProblemBody),
    /// Try again soon.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(ProblemBody),
}
