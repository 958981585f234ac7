//! The quarantine: what was set aside is listed, sent in again or given up.

use crate::server::Server;
use reqwest::Method;
use serde_json::{Value, json};

/// Makes conflicts: the first event of each id stands, the second is set aside.
async fn conflicts(server: &Server, ids: &[&str]) -> Vec<Value> {
    for id in ids {
        for value in [1, 5] {
            server
                .post("/v1/events", json!({"account_id": "acme", "metric": "m", "id": id, "value": value}))
                .await
                .ok(202);
        }
        server.settle().await;
    }
    server.get("/v1/quarantine?status=open").await.ok(200)["items"].as_array().unwrap().clone()
}

async fn used(server: &Server) -> i64 {
    let usage = server.get("/v1/accounts/acme/usage?window=1h&metric=m").await.ok(200);
    usage["items"].as_array().unwrap().iter().map(|item| item["value"].as_i64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_sent_in_again_as_it_should_have_been() {
    let server = Server::start().await;
    let items = conflicts(&server, &["a"]).await;
    let entry = &items[0];
    assert_eq!(
        (&entry["object"], &entry["code"], &entry["status"], &entry["account_id"]),
        (&json!("quarantined_event"), &json!("event_conflict"), &json!("open"), &json!("acme"))
    );
    assert!(entry["body"].as_str().unwrap().contains("\"value\":5"), "{entry}");
    let path = format!("/v1/quarantine/{}/replay", entry["id"].as_str().unwrap());
    let refused = server.post(&path, json!({"event": {"account_id": "acme", "metric": "m", "colour": 1}})).await;
    assert_eq!(refused.problem(422, "validation_failed")["errors"][0]["pointer"], "/event/colour");
    server.post(&path, json!({"late": true})).await.problem(422, "unknown_field");
    let event = json!({"account_id": "acme", "metric": "m", "id": "a2", "value": 5});
    let replayed = server.post(&path, json!({"event": event})).await.ok(200);
    assert_eq!(replayed["status"], "replayed");
    let receipt = replayed["receipt"].as_str().unwrap();
    server.get(&format!("/v1/accounts/acme/usage?after={receipt}")).await.ok(200);
    assert_eq!(used(&server).await, 6);
    server.post(&path, json!({"event": event})).await.problem(409, "invalid_state");
    assert_eq!(used(&server).await, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_given_up() {
    let server = Server::start().await;
    let items = conflicts(&server, &["a", "b"]).await;
    assert_eq!(items.len(), 2);
    let path = format!("/v1/quarantine/{}/discard", items[0]["id"].as_str().unwrap());
    let discard = || server.ask(Method::POST, &path).send();
    assert_eq!(discard().await.ok(200)["status"], "discarded");
    assert_eq!(discard().await.ok(200)["status"], "discarded", "it is so already");
    server.post(&path.replace("discard", "replay"), json!({})).await.problem(409, "invalid_state");
    let count = async |query: &str| {
        server.get(&format!("/v1/quarantine?{query}")).await.ok(200)["items"].as_array().unwrap().len()
    };
    assert_eq!((count("status=open").await, count("status=discarded").await, count("").await), (1, 1, 2));
    assert_eq!(
        (count("code=event_conflict").await, count("code=other").await, count("account_id=acme").await),
        (2, 0, 2)
    );
    let other = server.owner_of(server.new_workspace().await, highwater::domain::id::Mode::Live).await;
    server.ask(Method::POST, &path).key(&other).send().await.problem(404, "resource_not_found");
    server.post("/v1/quarantine/evt_nonsense/discard", json!({})).await.problem(404, "resource_not_found");
}
