//! Alerts that reach a webhook: signed, retried under the same id, and none waits for another's receiver.

use crate::receiver::{Receiver, Reply};
use crate::server::{Server, eventually};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Makes a channel to a receiver; returns its id and its secret.
async fn channel(server: &Server, url: &str) -> (Value, String) {
    let body = json!({"type": "webhook", "name": "hook", "url": url});
    let made = server.post("/v1/channels", body).await.ok(201);
    (made["id"].clone(), made["secret"].as_str().unwrap().to_owned())
}

async fn alert(server: &Server, rule: &str, channel: &Value) -> String {
    let body =
        json!({"account_id": "*", "rule": rule, "channel": channel, "name": "Near the limit", "labels": {"team": "a"}});
    server.post("/v1/alerts", body).await.ok(201)["id"].as_str().unwrap().to_owned()
}

async fn quota(server: &Server, account: &str, limit: i64) {
    let path = format!("/v1/accounts/{account}/quotas/calls");
    let answer = server.put(&path, json!({"limit": limit, "period": "month"})).await;
    assert!(matches!(answer.status, 200 | 201));
}

/// Waits until nothing is owed to anybody.
async fn nothing_owed(server: &Server) {
    eventually("the settling of all debts", async || {
        let held = server.node().partitions.held();
        (held.iter().map(|held| held.processor.gauges.owed.load(Ordering::Relaxed)).sum::<u64>() == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_fires_and_resolves() {
    let server = Server::start().await;
    let mut receiver = Receiver::start().await;
    let (channel, secret) = channel(&server, &receiver.url()).await;
    quota(&server, "acme", 100).await;
    let alert = alert(&server, "quota_percent > 85", &channel).await;
    server.count("acme", "calls", 85).await;
    server.count("acme", "calls", 1).await;
    let firing = receiver.next().await;
    assert_eq!(
        (firing.method.as_str(), firing.path.as_str(), firing.header("content-type")),
        ("POST", "/hook", "application/json")
    );
    assert!(firing.header("user-agent").starts_with("highwater/"));
    let body = firing.signed_by(&secret);
    assert_eq!(
        (&body["type"], &body["mode"], &body["api_version"]),
        (&json!("alert.firing"), &json!("live"), &json!("v1"))
    );
    assert_eq!(body["workspace_id"], server.workspace.to_string());
    let data = &body["data"];
    assert_eq!(
        (&data["alert_id"], &data["account_id"], &data["metric"]),
        (&json!(alert), &json!("acme"), &json!("calls"))
    );
    assert_eq!(
        (&data["value"], &data["quota"]["used"], &data["quota"]["limit"], &data["labels"]),
        (&json!(86), &json!(86), &json!(100), &json!({"team": "a"}))
    );
    let firing_id = body["id"].as_str().unwrap().to_owned();
    assert!(firing_id.starts_with("msg_") && firing_id.len() == 30);
    // A raised limit resolves it, and the resolve names what it ends.
    quota(&server, "acme", 1_000).await;
    let resolved = receiver.next().await.signed_by(&secret);
    assert_eq!((&resolved["type"], &resolved["data"]["follows"]), (&json!("alert.resolved"), &json!(firing_id)));
    assert!(resolved["sequence"].as_u64() > body["sequence"].as_u64() && resolved["log"] == body["log"]);
    assert_eq!(server.get(&format!("/v1/alerts/{alert}")).await.ok(200)["state"], "ok");
    nothing_owed(&server).await;
    assert!(receiver.rest().is_empty(), "each came once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_delivery_is_retried_under_its_id() {
    let server = Server::start().await;
    let mut receiver = Receiver::start().await;
    let mut elsewhere = Receiver::start().await;
    let (channel, secret) = channel(&server, &receiver.url()).await;
    alert(&server, "sum > 10", &channel).await;
    let lured = Reply::status(307).with("location", &elsewhere.url());
    receiver.script([Reply::status(500).saying("on fire")]);
    server.count("acme", "m", 11).await;
    let first = receiver.next().await;
    receiver.script([Reply::status(204)]);
    let second = receiver.next().await;
    assert_eq!(first.signed_by(&secret), second.signed_by(&secret), "the same bytes");
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    let at = |received: &crate::receiver::Received| received.header("webhook-timestamp").parse::<i64>().unwrap();
    assert!(at(&second) > at(&first), "signed anew");
    nothing_owed(&server).await;
    // A redirect is a failure like any other, and leads nowhere.
    receiver.script([lured]);
    server.count("globex", "m", 11).await;
    let third = receiver.next().await;
    let fourth = receiver.next().await;
    assert_eq!(third.header("webhook-id"), fourth.header("webhook-id"));
    nothing_owed(&server).await;
    assert!(elsewhere.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_gone_for_good_is_not_asked_again() {
    let server = Server::start().await;
    let mut receiver = Receiver::answering(Reply::status(410)).await;
    let (channel, _) = channel(&server, &receiver.url()).await;
    alert(&server, "sum > 10", &channel).await;
    server.count("acme", "m", 11).await;
    receiver.next().await;
    nothing_owed(&server).await;
    assert!(receiver.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_receiver_delays_another() {
    let server = Server::start().await;
    let mut slow = Receiver::answering(Reply::status(204).after(Duration::from_secs(10))).await;
    let mut quick = Receiver::start().await;
    let dead = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/hook", listener.local_addr().unwrap())
    };
    let (to_slow, _) = channel(&server, &slow.url()).await;
    let (to_dead, _) = channel(&server, &dead).await;
    let (to_quick, secret) = channel(&server, &quick.url()).await;
    alert(&server, "sum > 10", &json!([to_dead, to_slow, to_quick])).await;
    let events: Vec<Value> =
        (0..20).map(|n| json!({"account_id": format!("a{n}"), "metric": "m", "value": 11})).collect();
    server.post("/v1/events/batch", json!(events)).await.ok(202);
    let mut accounts = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for _ in 0..20 {
        let body = quick.next().await.signed_by(&secret);
        accounts.insert(body["data"]["account_id"].as_str().unwrap().to_owned());
        ids.insert(body["id"].as_str().unwrap().to_owned());
    }
    assert_eq!((accounts.len(), ids.len()), (20, 20), "webhooks are one per instance");
    // The slow one is asked by four at once and no more.
    assert!(slow.rest().len() <= 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_debt_outlives_a_restart() {
    let mut server = Server::start().await;
    let mut receiver = Receiver::answering(Reply::status(500)).await;
    let (channel, secret) = channel(&server, &receiver.url()).await;
    alert(&server, "sum > 10", &channel).await;
    server.count("acme", "m", 11).await;
    let first = receiver.next().await.signed_by(&secret);
    server.restart().await;
    receiver.script([Reply::status(204)]);
    let again = receiver.next().await.signed_by(&secret);
    assert_eq!(first, again);
    nothing_owed(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pausing_and_deleting_resolve_what_fires() {
    let server = Server::start().await;
    let mut receiver = Receiver::start().await;
    let (channel, secret) = channel(&server, &receiver.url()).await;
    for end in ["paused", "deleted"] {
        let alert = alert(&server, "sum > 10", &channel).await;
        server.count(end, "m", 11).await;
        let firing = loop {
            let body = receiver.next().await.signed_by(&secret);
            if body["data"]["account_id"] == end && body["data"]["alert_id"] == alert.as_str() {
                break body;
            }
        };
        match end {
            "paused" => server.post(&format!("/v1/alerts/{alert}/pause"), json!({})).await.ok(200),
            _ => server.delete(&format!("/v1/alerts/{alert}")).await.ok(204),
        };
        let resolved = loop {
            let body = receiver.next().await.signed_by(&secret);
            if body["data"]["follows"] == firing["id"] {
                break body;
            }
        };
        assert_eq!((&resolved["type"], &resolved["data"]["reason"]), (&json!("alert.resolved"), &json!(end)));
    }
}
