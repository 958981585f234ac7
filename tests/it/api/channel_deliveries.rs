//! What became of messages at a channel: a page that it loses is seen, and heard once the channel takes messages again.

use super::endpoints::{endpoint, told};
use crate::receiver::{Receiver, Reply};
use crate::server::{Server, eventually};
use reqwest::Method;
use serde_json::{Value, json};

async fn channel(server: &Server, url: &str) -> String {
    let body = json!({"type": "webhook", "name": "hook", "url": url});
    server.post("/v1/channels", body).await.ok(201)["id"].as_str().unwrap().to_owned()
}

async fn alert(server: &Server, channels: Value) -> String {
    let body =
        json!({"account_id": "acme", "rule": "sum(\"calls\") > 10", "channel": channels, "severity": "critical"});
    server.post("/v1/alerts", body).await.ok(201)["id"].as_str().unwrap().to_owned()
}

/// Waits until a channel's status is so.
async fn status(server: &Server, channel: &str, wanted: &str) -> Value {
    eventually(&format!("a channel that is {wanted}"), async || {
        let shown = server.get(&format!("/v1/channels/{channel}")).await.ok(200);
        (shown["status"] == wanted && !shown["last_delivery"].is_null()).then_some(shown)
    })
    .await
}

/// Waits until a delivery's status is so.
async fn delivery(server: &Server, path: &str, wanted: &str) -> Value {
    eventually(&format!("a delivery that is {wanted}"), async || {
        let shown = server.get(path).await.ok(200);
        (shown["status"] == wanted).then_some(shown)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_a_channel_loses_is_seen_and_heard_after_its_repair() {
    let server = Server::start().await;
    let mut receiver = Receiver::start().await;
    let mut watcher = Receiver::start().await;
    let (_, secret) = endpoint(&server, &watcher.url(), json!(["channel.*", "delivery.*"])).await;
    let channel = channel(&server, &receiver.url()).await;
    let shown = server.get(&format!("/v1/channels/{channel}")).await.ok(200);
    assert_eq!((&shown["status"], &shown["last_delivery"]), (&json!("ok"), &Value::Null));
    let alert = alert(&server, json!(channel)).await;
    receiver.script([Reply::status(410)]);
    server.count("acme", "calls", 20).await;
    let lost = receiver.next().await;
    let message = lost.header("webhook-id").to_owned();
    // The channel, its list, the incident, the history, an endpoint and the metrics: each says so.
    let shown = status(&server, &channel, "failing").await;
    assert!(shown["failing_since"].is_string(), "{shown}");
    let path = format!("/v1/channels/{channel}/deliveries/{message}");
    let detail = delivery(&server, &path, "failed").await;
    assert_eq!((&detail["event_type"], &detail["alert_id"]), (&json!("alert.firing"), &json!(alert)));
    assert_eq!((&detail["outcome"], &detail["payload"]["id"]), (&json!("status 410"), &json!(message)));
    let shown = server.get(&format!("/v1/channels/{channel}")).await.ok(200);
    assert_eq!(
        (&shown["last_delivery"]["delivery_id"], &shown["last_delivery"]["status"]),
        (&json!(message), &json!("failed"))
    );
    let listed = server.get("/v1/channels").await.ok(200);
    assert_eq!(
        (&listed["items"][0]["status"], &listed["items"][0]["last_delivery"]["status"]),
        (&json!("failing"), &json!("failed"))
    );
    let list = server.get(&format!("/v1/channels/{channel}/deliveries?status=failed")).await.ok(200);
    assert_eq!((list["items"].as_array().unwrap().len(), &list["items"][0]["id"]), (1, &json!(message)));
    for path in ["/v1/incidents".to_owned(), format!("/v1/alerts/{alert}/history")] {
        let told = server.get(&path).await.ok(200)["items"][0]["deliveries"].clone();
        assert_eq!(
            (&told[0]["channel_id"], &told[0]["status"], &told[0]["outcome"]),
            (&json!(channel), &json!("failed"), &json!("status 410"))
        );
    }
    // In no promised order.
    let mut came = [watcher.next().await.signed_by(&secret), watcher.next().await.signed_by(&secret)];
    came.sort_by_key(|event| event["type"].as_str().map(str::to_owned));
    let [failing, exhausted] = came;
    assert_eq!((&failing["type"], &exhausted["type"]), (&json!("channel.failing"), &json!("delivery.exhausted")));
    assert_eq!((&failing["data"]["id"], &failing["data"]["status"]), (&json!(channel), &json!("failing")));
    assert_eq!(
        (&exhausted["data"]["channel_id"], &exhausted["data"]["delivery_id"]),
        (&json!(channel), &json!(message))
    );
    let metrics = server.get("/metrics").await.text().to_owned();
    assert!(
        metrics.contains("highwater_channels_failing 1") && metrics.contains("highwater_notifications_lost_total 1")
    );
    // A test that arrives repairs the channel: the page comes, under its id, once.
    let tested = server.post(&format!("/v1/channels/{channel}/test?wait=10s"), json!({})).await.ok(202);
    assert_eq!(
        (&tested["deliveries"][0]["status"], &tested["deliveries"][0]["attempt_count"]),
        (&json!("succeeded"), &json!(1))
    );
    let test = tested["delivery_id"].as_str().unwrap();
    assert_eq!(receiver.next().await.header("webhook-id"), test);
    let found = server.get(&format!("/v1/channels/{channel}/deliveries/{test}")).await.ok(200);
    assert_eq!((&found["event_type"], &found["alert_id"]), (&json!("alert.test"), &Value::Null));
    let heard = receiver.next().await;
    assert_eq!((heard.header("webhook-id"), &heard.bytes), (message.as_str(), &lost.bytes));
    status(&server, &channel, "ok").await;
    let detail = delivery(&server, &path, "succeeded").await;
    assert_eq!(detail["attempt_count"], 2);
    let (_, recovered) = told(&mut watcher, &secret, "channel.recovered").await;
    assert_eq!((&recovered["data"]["id"], &recovered["data"]["failing_since"]), (&json!(channel), &Value::Null));
    server.post(&format!("/v1/channels/{channel}/test?wait=10s"), json!({})).await.ok(202);
    receiver.next().await;
    server.settle().await;
    assert!(receiver.rest().is_empty(), "it was heard once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_sent_again_at_once_under_its_id() {
    let server = Server::start().await;
    let mut receiver = Receiver::start().await;
    let channel = channel(&server, &receiver.url()).await;
    let alert = alert(&server, json!(channel)).await;
    server.count("acme", "calls", 20).await;
    let first = receiver.next().await;
    let path = format!("/v1/channels/{channel}/deliveries/{}", first.header("webhook-id"));
    delivery(&server, &path, "succeeded").await;
    let ask = server.ask(Method::POST, &format!("{path}/redeliver")).header("idempotency-key", "again");
    let answer = ask.clone().send().await;
    assert_eq!(
        (&answer.ok(202)["delivery_id"], answer.header("location")),
        (&json!(first.header("webhook-id")), path.as_str())
    );
    let second = receiver.next().await;
    assert_eq!((second.header("webhook-id"), &second.bytes), (first.header("webhook-id"), &first.bytes));
    let counted = eventually("the second attempt", async || {
        let shown = server.get(&path).await.ok(200);
        (shown["attempt_count"] == 2 && shown["status"] == "succeeded").then_some(())
    });
    counted.await;
    assert_eq!(ask.send().await.header("idempotent-replayed"), "true");
    assert!(receiver.rest().is_empty());
    // What the channel heard since then says otherwise.
    server.post(&format!("/v1/alerts/{alert}/pause"), json!({})).await.ok(200);
    let resolved = receiver.next().await;
    assert_eq!(resolved.json()["type"], "alert.resolved");
    server.settle().await;
    server.post(&format!("{path}/redeliver"), json!({})).await.problem(409, "invalid_state");
    let newest = format!("/v1/channels/{channel}/deliveries/{}", resolved.header("webhook-id"));
    server.post(&format!("{newest}/redeliver"), json!({})).await.ok(202);
    assert_eq!(receiver.next().await.header("webhook-id"), resolved.header("webhook-id"));
    for missing in ["msg_1", "msg_01J9Z000000000000000000000"] {
        let path = format!("/v1/channels/{channel}/deliveries/{missing}");
        server.get(&path).await.problem(404, "resource_not_found");
        server.post(&format!("{path}/redeliver"), json!({})).await.problem(404, "resource_not_found");
    }
    // Nothing of it is another workspace's.
    let other = server.owner_of(server.new_workspace().await, highwater::domain::id::Mode::Live).await;
    for path in [format!("/v1/channels/{channel}/deliveries"), path.clone()] {
        server.ask(Method::GET, &path).key(&other).send().await.problem(404, "resource_not_found");
    }
    server.ask(Method::POST, &format!("{path}/redeliver")).key(&other).send().await.problem(404, "resource_not_found");
    for bad in ["status=lost", "from=now", "x=1"] {
        assert_eq!(server.get(&format!("/v1/channels/{channel}/deliveries?{bad}")).await.status, 400, "{bad}");
    }
    for bad in ["wait=", "wait=0s", "wait=21s", "wait=soon", "x=1"] {
        assert_eq!(server.post(&format!("/v1/channels/{channel}/test?{bad}"), json!({})).await.status, 400, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_leads_elsewhere_or_joins_an_alert_hears_what_fires() {
    let server = Server::start().await;
    let (mut old, mut new) = (Receiver::answering(Reply::status(410)).await, Receiver::start().await);
    let first = channel(&server, &old.url()).await;
    let alert = alert(&server, json!(first)).await;
    server.count("acme", "calls", 20).await;
    let lost = old.next().await;
    status(&server, &first, "failing").await;
    let failing = server.post(&format!("/v1/channels/{first}/test?wait=10s"), json!({})).await.ok(202);
    assert_eq!(
        (&failing["deliveries"][0]["status"], &failing["deliveries"][0]["outcome"]),
        (&json!("failed"), &json!("status 410"))
    );
    server.patch(&format!("/v1/channels/{first}"), json!({"url": new.url()})).await.ok(200);
    assert_eq!(new.next().await.header("webhook-id"), lost.header("webhook-id"));
    status(&server, &first, "ok").await;
    // Another channel hears of the present firing, and of nothing else.
    let second = channel(&server, &new.url()).await;
    server.patch(&format!("/v1/alerts/{alert}"), json!({"channel": [first, second]})).await.ok(200);
    let added = new.next().await.json();
    assert_eq!((&added["type"], &added["data"]["reason"]), (&json!("alert.firing"), &json!("channel_added")));
    assert_eq!(added["data"]["follows"], Value::Null, "it has heard nothing that this could follow");
    server.settle().await;
    assert!(new.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_deliveries_neither_repeat_nor_leave_out() {
    let server = Server::start().await;
    let receiver = Receiver::start().await;
    let channel = channel(&server, &receiver.url()).await;
    for _ in 0..7 {
        server.post(&format!("/v1/channels/{channel}/test?wait=10s"), json!({})).await.ok(202);
    }
    let list = format!("/v1/channels/{channel}/deliveries");
    let ids = |page: &Value| page["items"].as_array().unwrap().iter().map(|i| i["id"].to_string()).collect::<Vec<_>>();
    let all = ids(&server.get(&list).await.ok(200));
    let mut walked = Vec::new();
    let mut next = Some(format!("{list}?page_size=3"));
    while let Some(path) = next {
        let page = server.get(&path).await.ok(200);
        walked.extend(ids(&page));
        next = page["next_cursor"].as_str().map(|cursor| format!("{list}?cursor={cursor}"));
    }
    assert_eq!((walked.len(), walked), (7, all));
}
