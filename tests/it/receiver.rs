//! A receiver of webhooks and Slack messages: it keeps what comes, and answers as it is told to.

use crate::server::PATIENCE;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, Uri};
use highwater::notifier::verify;
use serde_json::Value;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }

    /// The body, once its signature is verified as a receiver would.
    #[track_caller]
    pub(crate) fn signed_by(&self, secret: &str) -> Value {
        let timestamp = self.header("webhook-timestamp").parse().unwrap();
        let (id, signature) = (self.header("webhook-id"), self.header("webhook-signature"));
        assert!(verify(secret, signature, id, timestamp, &self.bytes), "the signature is wrong");
        let body = self.json();
        assert_eq!(body["id"], id);
        body
    }
}

/// How a request is answered.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
    pub(crate) after: Duration,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new(), after: Duration::ZERO }
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn saying(mut self, body: &str) -> Self {
        body.clone_into(&mut self.body);
        self
    }

    pub(crate) fn after(mut self, wait: Duration) -> Self {
        self.after = wait;
        self
    }
}

#[derive(Clone)]
struct Hook {
    script: Arc<Mutex<VecDeque<Reply>>>,
    otherwise: Reply,
    outbox: mpsc::UnboundedSender<Received>,
}

/// A receiver that listens.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    script: Arc<Mutex<VecDeque<Reply>>>,
    inbox: mpsc::UnboundedReceiver<Received>,
}

impl Receiver {
    /// A receiver that takes everything.
    pub(crate) async fn start() -> Self {
        Self::answering(Reply::status(204)).await
    }

    pub(crate) async fn answering(otherwise: Reply) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (outbox, inbox) = mpsc::unbounded_channel();
        let script = Arc::<Mutex<VecDeque<Reply>>>::default();
        let hook = Hook { script: Arc::clone(&script), otherwise, outbox };
        let router = axum::Router::new().fallback(receive).with_state(hook);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, script, inbox }
    }

    /// Answers the next requests so, one each.
    pub(crate) fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.script.lock().unwrap().extend(replies);
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Waits for the next request.
    pub(crate) async fn next(&mut self) -> Received {
        let waited = tokio::time::timeout(PATIENCE, self.inbox.recv()).await;
        waited.expect("nothing came").expect("the receiver stopped")
    }

    /// What came by now and was not looked at.
    pub(crate) fn rest(&mut self) -> Vec<Received> {
        std::iter::from_fn(|| self.inbox.try_recv().ok()).collect()
    }
}

async fn receive(
    State(hook): State<Hook>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response<Body> {
    let reply = hook.script.lock().unwrap().pop_front().unwrap_or(hook.otherwise);
    let received = Received { method, path: uri.path().to_owned(), headers, bytes };
    hook.outbox.send(received).ok();
    tokio::time::sleep(reply.after).await;
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(reply.body)).unwrap()
}
