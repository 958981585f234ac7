//! A receiver of webhooks.

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use serde_json::Value;
use tokio::sync::mpsc;

/// Starts it; returns its URL and the accounts of what arrives.
pub(crate) async fn receiver() -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    let (arrived, arrivals) = mpsc::unbounded_channel();
    let take = move |body: Bytes| {
        let arrived = arrived.clone();
        async move {
            let body: Value = serde_json::from_slice(&body).expect("a JSON body");
            let account = body["data"]["account_id"].as_str().expect("an account").to_owned();
            arrived.send(account).expect("the bench listens");
            StatusCode::NO_CONTENT
        }
    };
    let router = Router::new().route("/hook", axum::routing::post(take));
    tokio::spawn(async move { axum::serve(listener, router).await.expect("the receiver") });
    (url, arrivals)
}
