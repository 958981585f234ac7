//! A webhook receiver as a user would write one: it verifies the signature over the exact bytes.

use crate::notifier::verify;
use crate::runtime::clock;
use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a message may take; a node that was killed is missed after 10 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// A message that arrived, its signature verified.
pub(super) struct Received {
    pub(super) id: String,
    pub(super) body: Value,
    /// From the acceptance of the deciding event to here.
    pub(super) latency_ms: Option<i64>,
}

pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    secret: Arc<OnceLock<String>>,
    inbox: mpsc::UnboundedReceiver<Received>,
}

#[derive(Clone)]
struct Hook {
    secret: Arc<OnceLock<String>>,
    outbox: mpsc::UnboundedSender<Received>,
}

impl Receiver {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let secret = Arc::new(OnceLock::new());
        let (outbox, inbox) = mpsc::unbounded_channel();
        let hook = Hook { secret: Arc::clone(&secret), outbox };
        let router = Router::new().route("/hook", axum::routing::post(receive)).with_state(hook);
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(error = %error, "the demo's receiver stopped");
            }
        });
        Ok(Self { address, secret, inbox })
    }

    /// Tells the receiver what verifies its messages.
    pub(super) fn trust(&self, secret: &str) {
        self.secret.get_or_init(|| secret.to_owned());
    }

    /// Waits for the next message.
    pub(super) async fn next(&mut self) -> anyhow::Result<Received> {
        let waited = tokio::time::timeout(PATIENCE, self.inbox.recv()).await;
        waited.with_context(|| format!("no webhook arrived within {PATIENCE:?}"))?.context("the receiver stopped")
    }

    /// Listens for a while; returns how many messages came.
    pub(super) async fn count(&mut self, listening: Duration) -> usize {
        tokio::time::sleep(listening).await;
        std::iter::from_fn(|| self.inbox.try_recv().ok()).count()
    }
}

async fn receive(State(hook): State<Hook>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (id, signature) = (header("webhook-id"), header("webhook-signature"));
    let timestamp = header("webhook-timestamp").parse().unwrap_or(0);
    let genuine = hook.secret.get().is_some_and(|secret| verify(secret, signature, id, timestamp, &body));
    if !genuine {
        return StatusCode::UNAUTHORIZED;
    }
    let Ok(json) = serde_json::from_slice::<Value>(&body) else { return StatusCode::BAD_REQUEST };
    let accepted = json["data"]["latency"]["accepted_at"].as_str().and_then(crate::domain::time::Timestamp::parse);
    let latency_ms = accepted.map(|at| clock::now().since(at).0);
    let received = Received { id: id.to_owned(), body: json, latency_ms };
    if hook.outbox.send(received).is_err() {
        return StatusCode::GONE;
    }
    StatusCode::NO_CONTENT
}
