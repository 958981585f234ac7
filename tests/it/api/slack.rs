//! Alerts that reach Slack: by an incoming webhook, by a bot in threads, slowed down, and many in one.

use crate::receiver::{Receiver, Reply};
use crate::server::{Server, eventually};
use highwater::runtime::clock;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::time::Duration;

async fn alert(server: &Server, channel: &Value) {
    let body = json!({"account_id": "*", "rule": "quota_percent(\"calls\") > 85", "channel": channel["id"], "name": "Near <!channel> & co"});
    server.post("/v1/alerts", body).await.ok(201);
}

async fn quota(server: &Server, limit: i64) {
    let answer = server.put("/v1/accounts/*/quotas/calls", json!({"limit": limit, "period": "month"})).await;
    assert!(matches!(answer.status, 200 | 201));
}

async fn bot(server: &Server, receiver: &Receiver) -> Value {
    let body = json!({"type": "slack", "name": "bot", "bot_token": "xoxb-test", "slack_channel": "#ops", "slack_api_url": format!("http://{}/api/", receiver.address)});
    server.post("/v1/channels", body).await.ok(201)
}

fn taken(ts: &str) -> Reply {
    Reply::status(200).saying(&json!({"ok": true, "ts": ts}).to_string())
}

/// How many notifications a message stands for.
fn size(message: &Value) -> usize {
    let text = message["text"].as_str().unwrap();
    text.split_once(" alert messages in one").map_or(1, |(count, _)| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incoming_webhook_takes_messages() {
    let server = Server::start().await;
    let mut receiver = Receiver::answering(Reply::status(200).saying("ok")).await;
    let url = format!("http://{}/services/T/B/x", receiver.address);
    let channel = server.post("/v1/channels", json!({"type": "slack", "name": "s", "url": url})).await.ok(201);
    quota(&server, 100).await;
    alert(&server, &channel).await;
    server.count("acme", "calls", 90).await;
    let message = receiver.next().await;
    assert_eq!((message.path.as_str(), message.header("authorization")), ("/services/T/B/x", ""));
    let body = message.json();
    let text = body["text"].as_str().unwrap();
    assert!(text.contains("Firing") && text.contains("acme") && text.contains("&lt;!channel&gt; &amp; co"), "{text}");
    assert_eq!((&body["unfurl_links"], &body["blocks"][0]["text"]["type"]), (&json!(false), &json!("plain_text")));
    quota(&server, 1_000).await;
    assert!(receiver.next().await.json()["text"].as_str().unwrap().contains("Resolved"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bot_resolves_in_the_thread_that_it_opened() {
    let server = Server::start().await;
    let mut receiver = Receiver::answering(taken("1700000000.000100")).await;
    let channel = bot(&server, &receiver).await;
    quota(&server, 100).await;
    alert(&server, &channel).await;
    server.count("acme", "calls", 90).await;
    let firing = receiver.next().await;
    assert_eq!((firing.path.as_str(), firing.header("authorization")), ("/api/chat.postMessage", "Bearer xoxb-test"));
    assert_eq!((&firing.json()["channel"], &firing.json()["thread_ts"]), (&json!("#ops"), &Value::Null));
    quota(&server, 1_000).await;
    let resolved = receiver.next().await.json();
    assert_eq!(resolved["thread_ts"], "1700000000.000100", "{resolved}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slowed_down_bot_waits_and_sends_again() {
    let server = Server::start().await;
    let mut receiver = Receiver::answering(taken("1.2")).await;
    let channel = bot(&server, &receiver).await;
    quota(&server, 100).await;
    alert(&server, &channel).await;
    let slow = Reply::status(429).with("retry-after", "2");
    let soft = Reply::status(200).saying(r#"{"ok":false,"error":"ratelimited"}"#).with("retry-after", "1");
    receiver.script([slow, soft]);
    server.count("acme", "calls", 90).await;
    let first = receiver.next().await;
    let begun = clock::now();
    let second = receiver.next().await;
    // Slack's limit is a promise: no message comes sooner.
    assert!(clock::now().since(begun).0 >= 1_900);
    let third = receiver.next().await;
    assert!(first.bytes == second.bytes && second.bytes == third.bytes);
    settled(&server).await;
    assert!(receiver.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_overflows_comes_in_one_message() {
    let server = Server::start().await;
    // The first answer takes its time, so that the others wait together.
    let mut receiver = Receiver::answering(taken("1.2")).await;
    receiver.script([taken("1.1").after(Duration::from_millis(500))]);
    let channel = bot(&server, &receiver).await;
    quota(&server, 100).await;
    alert(&server, &channel).await;
    let events: Vec<Value> =
        (0..40).map(|n| json!({"account_id": format!("a{n}"), "metric": "calls", "value": 90})).collect();
    server.post("/v1/events/batch", json!(events)).await.ok(202);
    let mut messages = Vec::new();
    while messages.iter().map(size).sum::<usize>() < 40 {
        messages.push(receiver.next().await.json());
    }
    assert!(messages.len() <= 6, "{} messages", messages.len());
    let digest = messages.iter().find(|message| size(message) > 20).expect("a digest");
    let told = digest.to_string();
    assert!(told.contains("(warning): ") && told.contains(" accounts: `a"), "it groups by alert: {told}");
    settled(&server).await;
    assert!(receiver.rest().is_empty(), "each came once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_of_a_storm_is_named_and_the_first_ten_have_a_message_of_their_own() {
    let server = Server::start().await;
    let mut receiver = Receiver::answering(taken("1.2")).await;
    receiver.script([taken("1.1").after(Duration::from_millis(500))]);
    let channel = bot(&server, &receiver).await;
    quota(&server, 100).await;
    for (name, rule, severity) in
        [("quota-high", "quota_percent(\"calls\") > 85", "warning"), ("quota-out", "used(\"calls\") > 200", "critical")]
    {
        let body =
            json!({"account_id": "*", "rule": rule, "severity": severity, "channel": channel["id"], "name": name});
        server.post("/v1/alerts", body).await.ok(201);
    }
    // The pages are the last of 72 accounts that pass their quota.
    let used = |n: u32| if n < 60 { 90 } else { 300 };
    let events: Vec<Value> =
        (0..72).map(|n| json!({"account_id": format!("a{n}"), "metric": "calls", "value": used(n)})).collect();
    server.post("/v1/events/batch", json!(events)).await.ok(202);
    let mut messages = Vec::new();
    while messages.iter().map(size).sum::<usize>() < 84 {
        messages.push(receiver.next().await.json());
    }
    let text = |message: &Value| message["text"].as_str().unwrap().to_owned();
    let singly = messages.iter().filter(|message| text(message).contains("Firing: `quota-out`")).count();
    assert_eq!(singly, 10);
    let digest = messages.iter().map(Value::to_string).find(|told| told.contains("`quota-out` (critical)")).unwrap();
    assert!(digest.find("`quota-out`") < digest.find("`quota-high`"), "{digest}");
    let all: String = messages.iter().map(Value::to_string).collect();
    for n in 60..72 {
        assert!(
            all.contains(&format!("`quota-out` · `a{n}`\"")) || digest.contains(&format!("`a{n}`")),
            "a{n} is not named"
        );
    }
    settled(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_whose_blocks_are_refused_comes_without_them() {
    let server = Server::start().await;
    let mut receiver = Receiver::answering(Reply::status(200).saying(r#"{"ok":true,"ts":"1.2"}"#)).await;
    quota(&server, 100).await;
    let url = format!("http://{}/services/T/B/x", receiver.address);
    let hook = server.post("/v1/channels", json!({"type": "slack", "name": "s", "url": url})).await.ok(201);
    for (channel, refusal) in [
        (hook, Reply::status(400).saying("invalid_blocks")),
        (bot(&server, &receiver).await, Reply::status(200).saying(r#"{"ok":false,"error":"invalid_blocks"}"#)),
    ] {
        receiver.script([refusal]);
        server.post(&format!("/v1/channels/{}/test", channel["id"].as_str().unwrap()), json!({})).await.ok(202);
        let refused = receiver.next().await.json();
        let plain = receiver.next().await.json();
        assert!(refused["blocks"].is_array() && plain["blocks"].is_null(), "{plain}");
        assert!(plain["text"].as_str().unwrap().contains("this is a test"), "{plain}");
        settled(&server).await;
    }
    assert!(receiver.rest().is_empty());
}

/// Waits until nothing is owed to anybody.
async fn settled(server: &Server) {
    eventually("the settling of all debts", async || {
        let held = server.node().partitions.held();
        (held.iter().map(|held| held.processor.gauges.owed.load(Ordering::Relaxed)).sum::<u64>() == 0).then_some(())
    })
    .await;
}
