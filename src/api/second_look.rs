//! Where other nodes write too, "there is no such thing" is only said once this node has seen all that they had answered
//! before: the control plane is folded to its present end, and the request is looked at once more.

use super::app::App;
use super::body::Twice;
use super::problem::Problem;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Answers as the handler does, or once more as it does behind the present end of the control log.
pub(super) async fn second_look(State(app): State<App>, request: Request, next: Next) -> Response {
    // Events name nothing that could be missing.
    if !app.node.data.journal.is_shared() || request.uri().path().starts_with("/v1/events") {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let body = Twice::new(body);
    let first = next.clone().run(Request::from_parts(parts.clone(), body.body())).await;
    let missing = first.extensions().get::<Problem>().is_some_and(|problem| problem.code == "resource_not_found");
    if !missing {
        return first;
    }
    match app.node.data.control.confirm().await {
        Ok(true) => next.run(Request::from_parts(parts, body.body())).await,
        Ok(false) => first,
        Err(error) => unconfirmed(&error).into_response(),
    }
}

/// 503: what is not here may be on its way.
pub(super) fn unconfirmed(error: &dyn std::error::Error) -> Problem {
    tracing::warn!(error = %crate::telemetry::chain(error), "the end of the control log could not be confirmed");
    Problem::unavailable("not_ready", "this node cannot confirm that it knows everything; try again")
}
