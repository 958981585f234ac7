//! Endpoints that are told of state changes: made, told, signed for, paused, tried out.

use crate::receiver::{Received, Receiver, Reply};
use crate::server::{Server, eventually};
use reqwest::Method;
use serde_json::{Value, json};

/// An endpoint's id and secret.
pub(crate) async fn endpoint(server: &Server, url: &str, event_types: Value) -> (String, String) {
    let made = server.post("/v1/webhooks", json!({"url": url, "event_types": event_types})).await.ok(201);
    (made["id"].as_str().unwrap().to_owned(), made["secret"].as_str().unwrap().to_owned())
}

pub(crate) async fn alert(server: &Server, rule: &str) -> String {
    let channel = json!({"type": "webhook", "name": "c", "url": "https://example.com/"});
    let channel = server.post("/v1/channels", channel).await.ok(201)["id"].clone();
    let body = json!({"account_id": "*", "rule": rule, "channel": channel, "labels": {"team": "a"}});
    server.post("/v1/alerts", body).await.ok(201)["id"].as_str().unwrap().to_owned()
}

/// Waits for the next event of a type.
pub(crate) async fn told(receiver: &mut Receiver, secret: &str, kind: &str) -> (Received, Value) {
    loop {
        let received = receiver.next().await;
        let body = received.signed_by(secret);
        if body["type"] == kind {
            return (received, body);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_changes_of_an_alert_reach_an_endpoint() {
    let server = Server::start().await;
    let mut receiver = Receiver::start().await;
    let (_, secret) = endpoint(&server, &receiver.url(), json!(["alert.*"])).await;
    let alert = alert(&server, "sum > 10").await;
    let (received, created) = told(&mut receiver, &secret, "alert.created").await;
    assert_eq!((&created["data"]["id"], &created["log"]), (&json!(alert), &json!("control")));
    assert_eq!((received.method.as_str(), received.header("content-type")), ("POST", "application/json"));
    assert_eq!(created["workspace_id"], server.workspace.to_string());
    server.count("acme", "m", 11).await;
    let (_, firing) = told(&mut receiver, &secret, "alert.firing").await;
    let data = &firing["data"];
    assert_eq!((&data["alert_id"], &data["account_id"]), (&json!(alert), &json!("acme")));
    assert_eq!((&data["silenced"], &data["state"]), (&json!(false), &json!("firing")));
    assert!(firing["log"].as_str().unwrap().starts_with('p') && firing["sequence"].as_u64() > Some(0), "{firing}");
    // The same id as the notification that a channel gets.
    let history = server.get(&format!("/v1/alerts/{alert}/history")).await.ok(200);
    assert_eq!(history["items"][0]["notification_id"], firing["id"]);
}
