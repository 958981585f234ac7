//! Test messages: they go the whole way, say that they are tests, and are bounded.

use crate::receiver::{Receiver, Reply};
use crate::server::Server;
use reqwest::Method;
use serde_json::{Value, json};

async fn channel(server: &Server, url: &str) -> (String, String) {
    let made = server.post("/v1/channels", json!({"type": "webhook", "name": "hook", "url": url})).await.ok(201);
    (made["id"].as_str().unwrap().to_owned(), made["secret"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_message_goes_the_whole_way() {
    let server = Server::start().await;
    let mut receiver = Receiver::start().await;
    let (first, secret) = channel(&server, &receiver.url()).await;
    let (second, _) = channel(&server, &receiver.url()).await;
    let alert = json!({"account_id": "acme", "rule": "sum > 10", "channel": [first, second], "name": "busy",
                       "labels": {"team": "core"}, "severity": "critical"});
    let alert = server.post("/v1/alerts", alert).await.ok(201)["id"].as_str().unwrap().to_owned();
    server.post(&format!("/v1/alerts/{alert}/pause"), json!({})).await.ok(200);
    let ask = server.ask(Method::POST, &format!("/v1/alerts/{alert}/test")).header("idempotency-key", "t-1");
    let answer = ask.clone().send().await.ok(202);
    assert_eq!(answer["channels"], json!([first, second]));
    let again = ask.send().await;
    assert_eq!((again.ok(202), again.header("idempotent-replayed")), (answer.clone(), "true"));
    for _ in 0..2 {
        let received = receiver.next().await;
        assert_eq!(received.header("webhook-id"), answer["delivery_id"]);
        let body = received.json();
        assert_eq!((&body["type"], &body["data"]["test"]), (&json!("alert.test"), &json!(true)));
        assert_eq!((&body["data"]["alert_id"], &body["data"]["severity"]), (&json!(alert), &json!("critical")));
        assert_eq!((&body["data"]["account_id"], &body["data"]["labels"]["team"]), (&json!("acme"), &json!("core")));
    }
    // A channel by itself; a failure is tried again, under the same id.
    receiver.script([Reply::status(500)]);
    let answer = server.post(&format!("/v1/channels/{first}/test"), json!({})).await.ok(202);
    let tried = receiver.next().await;
    let body = tried.signed_by(&secret);
    assert_eq!((&body["id"], &body["type"]), (&answer["delivery_id"], &json!("alert.test")));
    assert_eq!((&body["data"]["alert_id"], &body["data"]["test"]), (&Value::Null, &json!(true)));
    assert_eq!(receiver.next().await.signed_by(&secret), body);
    // It says nothing of the alert.
    server.settle().await;
    assert_eq!(server.get(&format!("/v1/alerts/{alert}/history")).await.ok(200)["items"], json!([]));
    assert_eq!(server.get("/v1/incidents").await.ok(200)["items"], json!([]));
    let other = server.owner_of(server.new_workspace().await, highwater::domain::id::Mode::Live).await;
    for path in [format!("/v1/alerts/{alert}/test"), format!("/v1/channels/{first}/test")] {
        server.ask(Method::POST, &path).key(&other).send().await.problem(404, "resource_not_found");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tests_send_no_thousand_messages() {
    let server = Server::start().await;
    let receiver = Receiver::start().await;
    let mut channels = Vec::new();
    for _ in 0..10 {
        channels.push(channel(&server, &receiver.url()).await.0);
    }
    let alert = json!({"account_id": "*", "rule": "sum > 10", "channel": channels});
    let alert = server.post("/v1/alerts", alert).await.ok(201)["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/alerts/{alert}/test");
    let mut sent = 0;
    for _ in 0..100 {
        let answer = server.post(&path, json!({})).await;
        if answer.status == 202 {
            sent += 10;
            continue;
        }
        let problem = answer.problem(429, "rate_limited");
        let wait: u32 = answer.header("retry-after").parse().unwrap();
        assert!((3_500..=3_601).contains(&wait), "{wait}");
        assert_eq!((&problem["retry_after"], &problem["violated-policies"]), (&json!(wait), &json!(["tests"])));
    }
    assert_eq!(sent, 100);
    server.post(&format!("/v1/channels/{}/test", channels[0]), json!({})).await.problem(429, "rate_limited");
    // Another workspace has a budget of its own.
    let other = server.owner_of(server.new_workspace().await, highwater::domain::id::Mode::Live).await;
    let body = json!({"type": "webhook", "name": "hook", "url": receiver.url()});
    let theirs = server.ask(Method::POST, "/v1/channels").key(&other).json(&body).send().await.ok(201);
    let path = format!("/v1/channels/{}/test", theirs["id"].as_str().unwrap());
    server.ask(Method::POST, &path).key(&other).send().await.ok(202);
}
