//! Channels: made, shown without what is secret, changed, used and deleted.

use crate::server::Server;
use serde_json::{Value, json};

const SLACK: &str = "https://hooks.slack.com/services/T000/B000/s3cr3t";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channels_life() {
    let server = Server::start().await;
    let made = server
        .post("/v1/channels", json!({"type": "webhook", "name": "hook", "url": "https://example.com/s3cr3t?t=1"}))
        .await;
    let body = made.ok(201);
    let path = format!("/v1/channels/{}", body["id"].as_str().unwrap());
    assert_eq!((made.header("location"), made.header("etag")), (path.as_str(), "\"1\""));
    assert!(body["secret"].as_str().unwrap().starts_with("whsec_"));
    assert_eq!(
        (&body["type"], &body["hint"], &body["default"]),
        (&json!("webhook"), &json!("https://example.com/…"), &json!(false))
    );
    let shown = server.get(&path).await;
    assert!(!shown.text().contains("s3cr3t") && shown.ok(200)["secret"].is_null());
    let patched = server.patch(&path, json!({"name": "other", "url": "https://example.org/"})).await.ok(200);
    assert_eq!(
        (&patched["name"], &patched["hint"], &patched["version"]),
        (&json!("other"), &json!("https://example.org/…"), &json!(2))
    );
    assert!(patched["secret"].is_null());
    // What a channel cannot be without cannot be cleared.
    for field in ["name", "url", "bot_token", "slack_channel"] {
        let problem = server.patch(&path, json!({field: null})).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], format!("/{field}"), "{problem}");
    }
    assert_eq!(server.patch(&path, json!({"default": true})).await.ok(200)["default"], true);
    assert_eq!(server.patch(&path, json!({"default": null})).await.ok(200)["default"], false);
    server.patch(&path, json!({"bot_token": "xoxb-1"})).await.problem(422, "validation_failed");
    server.patch(&path, json!({"type": "slack"})).await.problem(422, "unknown_field");
    let alert = json!({"account_id": "a", "rule": "used > 1", "channel": body["id"]});
    let alert = server.post("/v1/alerts", alert).await.ok(201)["id"].as_str().unwrap().to_owned();
    let used = server.delete(&path).await.problem(409, "resource_conflict");
    assert!(used["detail"].as_str().unwrap().contains(&alert), "{used}");
    server.delete(&format!("/v1/alerts/{alert}")).await.ok(204);
    server.delete(&path).await.ok(204);
    server.get(&path).await.problem(404, "resource_not_found");
    server.get("/v1/channels/chn_nonsense").await.problem(404, "resource_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_channel_must_say() {
    let server = Server::start().await;
    let check = async |body: Value, pointer: &str| {
        let problem = server.post("/v1/channels", body.clone()).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    };
    check(json!({"type": "webhook", "name": "x"}), "/url").await;
    check(json!({"type": "slack", "name": "x"}), "/url").await;
    check(json!({"type": "pager", "name": "x"}), "/type").await;
    check(json!({"type": "webhook", "name": "", "url": "https://example.com/"}), "/name").await;
    check(json!({"type": "webhook", "name": "x", "url": "https://example.com/", "bot_token": "t"}), "/bot_token").await;
    check(json!({"type": "slack", "name": "x", "url": SLACK, "bot_token": "t"}), "/bot_token").await;
    check(json!({"type": "slack", "name": "x", "bot_token": "t"}), "/slack_channel").await;
    check(json!({"type": "slack", "name": "x", "bot_token": "t\r\nx: y", "slack_channel": "#a"}), "/bot_token").await;
    check(json!({"type": "slack", "name": "x", "bot_token": "t", "slack_channel": "#a\u{7}"}), "/slack_channel").await;
    // What a target has no use for is refused, not passed over.
    let hook = "https://example.com/";
    check(json!({"type": "webhook", "name": "x", "url": hook, "slack_channel": "#a"}), "/slack_channel").await;
    check(json!({"type": "slack", "name": "x", "url": SLACK, "slack_channel": ""}), "/slack_channel").await;
    check(json!({"type": "slack", "name": "x", "url": SLACK, "slack_api_url": hook}), "/slack_api_url").await;
    let slack = server.post("/v1/channels", json!({"type": "slack", "name": "x", "url": SLACK})).await;
    assert!(!slack.text().contains("s3cr3t") && slack.ok(201)["secret"].is_null());
    let bot = server
        .post(
            "/v1/channels",
            json!({"type": "slack", "name": "x", "bot_token": "xoxb-s3cr3t", "slack_channel": "#ops"}),
        )
        .await;
    assert!(!bot.text().contains("s3cr3t"));
    assert_eq!(bot.ok(201)["hint"], "bot in #ops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_stands_for_its_default() {
    let server = Server::start().await;
    let channel = async |name: &str, default: bool| {
        let body = json!({"type": "slack", "name": name, "url": SLACK, "default": default});
        server.post("/v1/channels", body).await.ok(201)["id"].clone()
    };
    let alert = async |channel: Value| {
        server.post("/v1/alerts", json!({"account_id": "a", "rule": "used > 1", "channel": channel})).await
    };
    let missing = alert(json!("slack")).await.problem(422, "channel_not_configured");
    assert!(missing["detail"].as_str().unwrap().contains("POST /v1/channels"), "{missing}");
    let first = channel("first", false).await;
    let second = channel("second", false).await;
    assert_eq!(alert(json!("slack")).await.ok(201)["channels"], json!([first]));
    let third = channel("third", true).await;
    let made = alert(json!("slack")).await.ok(201);
    assert_eq!((&made["channels"], &made["channel"]), (&json!([third]), &json!("slack")));
    let fourth = channel("fourth", true).await;
    let former = server.get(&format!("/v1/channels/{}", third.as_str().unwrap())).await.ok(200);
    assert_eq!(former["default"], false, "there is one default");
    assert_eq!(alert(json!([second, "slack", fourth])).await.ok(201)["channels"], json!([second, fourth]));
    for bad in [json!([]), json!("pager"), json!("chn_01J9Z0000000000000000000AA"), json!(vec!["slack"; 11])] {
        let answer = alert(bad.clone()).await;
        assert_eq!(answer.status, 422, "{bad}: {}", answer.text());
    }
    alert(json!(7)).await.problem(422, "validation_failed");
    let filtered = server.get("/v1/channels?type=webhook").await.ok(200);
    assert_eq!(filtered["items"], json!([]));
}
