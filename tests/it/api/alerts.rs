//! Alerts: definitions, pauses, filters, and what is told of their state.

use crate::server::{Server, eventually};
use reqwest::Method;
use serde_json::{Value, json};

async fn channel(server: &Server) -> Value {
    let body = json!({"type": "webhook", "name": "hook", "url": "https://example.com/"});
    server.post("/v1/channels", body).await.ok(201)["id"].clone()
}

fn path(alert: &Value) -> String {
    format!("/v1/alerts/{}", alert["id"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alerts_life() {
    let server = Server::start().await;
    let slack = json!({"type": "slack", "name": "s", "url": "https://hooks.slack.com/services/T/B/x"});
    server.post("/v1/channels", slack).await.ok(201);
    // The call that the product's page shows.
    let made = server
        .post("/v1/alerts", json!({"account_id": "acc_123", "rule": "quota_percent > 85", "channel": "slack"}))
        .await;
    let body = made.ok(201);
    let path = path(&body);
    assert_eq!((made.header("location"), made.header("etag")), (path.as_str(), "\"1\""));
    for (name, value) in [
        ("object", json!("alert")),
        ("mode", json!("live")),
        ("version", json!(1)),
        ("rule", json!("quota_percent > 85")),
        ("channel", json!("slack")),
        ("status", json!("active")),
        ("state", json!("ok")),
        ("silenced", json!(false)),
        ("for", json!("0s")),
        ("severity", json!("warning")),
        ("no_data", json!("ok")),
        ("inconclusive", json!("keep")),
    ] {
        assert_eq!(body[name], value, "{name}");
    }
    assert_eq!(body["warnings"][0]["code"], "no_quota");
    let patch = json!({"for": "5m", "name": "n", "severity": "critical", "labels": {"team": "a", "b": "c"}, "repeat_interval": "1h", "keep_firing_for": "30s", "no_data": "alert", "inconclusive": "ok", "recover": "quota_percent < 80", "message": "m"});
    let patched = server.patch(&path, patch.clone()).await.ok(200);
    for (name, value) in patch.as_object().unwrap() {
        assert_eq!(&patched[name], value, "{name}");
    }
    let nulls: serde_json::Map<_, _> =
        patch.as_object().unwrap().keys().map(|name| (name.clone(), Value::Null)).collect();
    let cleared = server.patch(&path, Value::Object(nulls)).await.ok(200);
    for (name, value) in [
        ("for", json!("0s")),
        ("name", Value::Null),
        ("severity", json!("warning")),
        ("labels", json!({})),
        ("repeat_interval", json!("4h")),
        ("keep_firing_for", json!("0s")),
        ("no_data", json!("ok")),
        ("inconclusive", json!("keep")),
        ("recover", Value::Null),
        ("message", Value::Null),
    ] {
        assert_eq!(cleared[name], value, "{name}");
    }
    for name in ["rule", "account_id", "channel"] {
        let problem = server.patch(&path, json!({name: null})).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], format!("/{name}"), "{problem}");
    }
    for (name, value) in [
        ("for", json!("5 minutes")),
        ("for", json!("05m")),
        ("repeat_interval", json!("30s")),
        ("severity", json!("bad")),
        ("account_id", json!("a b")),
        ("metric", json!("Upper")),
        ("project_id", json!("x")),
        ("message", json!("x".repeat(2_001))),
    ] {
        let problem = server.patch(&path, json!({name: value})).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], format!("/{name}"), "{problem}");
    }
    server.delete(&path).await.ok(204);
    server.get(&path).await.problem(404, "resource_not_found");
    server.get(&format!("{path}/history")).await.problem(404, "resource_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_span_that_is_no_whole_number_of_windows_is_remarked() {
    let server = Server::start().await;
    let channel = channel(&server).await;
    let details = |body: &Value| -> Vec<String> {
        let warnings = body["warnings"].as_array().unwrap().iter().filter(|warning| warning["code"] == "span_rounded");
        warnings.map(|warning| warning["detail"].as_str().unwrap().to_owned()).collect()
    };
    let mut wanted = json!({"account_id": "acme", "rule": "sum(\"calls\") > 10", "channel": channel, "for": "7m", "keep_firing_for": "1s"});
    let made = server.post("/v1/alerts", wanted.clone()).await.ok(201);
    let expected = [
        "for of 7m is counted as 2 closed windows in a row (10m): the rule reads the 5m window",
        "keep_firing_for of 1s is counted as 1 closed window (5m): the rule reads the 5m window",
    ];
    assert_eq!(details(&made), expected);
    // It goes with the span, and comes with it.
    let even = server.patch(&path(&made), json!({"for": "10m", "keep_firing_for": "1h"})).await.ok(200);
    assert!(details(&even).is_empty(), "{even}");
    let odd = server.patch(&path(&made), json!({"for": "6m"})).await.ok(200);
    assert_eq!(details(&odd).len(), 1, "{odd}");
    assert_eq!(details(&server.get(&path(&made)).await.ok(200)), details(&odd));
    // A level is no window: its spans are time.
    wanted["rule"] = json!("used(\"calls\") > 10");
    let level = server.post("/v1/alerts", wanted).await.ok(201);
    assert!(details(&level).is_empty(), "{level}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pauses_begin_and_end() {
    let server = Server::start().await;
    let channel = channel(&server).await;
    let alert =
        server.post("/v1/alerts", json!({"account_id": "a", "rule": "used > 1", "channel": channel})).await.ok(201);
    let path = path(&alert);
    let pause = || server.ask(Method::POST, &format!("{path}/pause"));
    let paused = pause().send().await.ok(200);
    assert_eq!(
        (&paused["status"], &paused["version"], &paused["paused_until"]),
        (&json!("paused"), &json!(2), &Value::Null)
    );
    assert_eq!(pause().json(&json!({})).send().await.ok(200)["version"], 2, "it is so already");
    let until = pause().json(&json!({"until": "2999-01-01T00:00:00Z"})).send().await.ok(200);
    assert_eq!((&until["version"], &until["paused_until"]), (&json!(3), &json!("2999-01-01T00:00:00.000Z")));
    for body in [json!({"until": "2001-01-01T00:00:00Z"}), json!({"until": "soon"})] {
        pause().json(&body).send().await.problem(422, "validation_failed");
    }
    pause().json(&json!({"for": "1h"})).send().await.problem(422, "unknown_field");
    let resume = || server.ask(Method::POST, &format!("{path}/resume"));
    resume().json(&json!({"until": "x"})).send().await.problem(422, "unknown_field");
    assert_eq!(resume().send().await.ok(200)["status"], "active");
    assert_eq!(resume().json(&json!({})).send().await.ok(200)["version"], 4, "it is so already");
    server.post("/v1/alerts/alr_01J9Z0000000000000000000AA/pause", json!({})).await.problem(404, "resource_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_of_one_name_add_and_of_several_narrow() {
    let server = Server::start().await;
    let channel = channel(&server).await;
    for (account, severity) in [("a", "info"), ("b", "critical"), ("*", "info"), ("a", "critical")] {
        let body = json!({"account_id": account, "rule": "sum(\"m\") > 5", "channel": channel, "severity": severity});
        server.post("/v1/alerts", body).await.ok(201);
    }
    let count =
        async |query: &str| server.get(&format!("/v1/alerts?{query}")).await.ok(200)["items"].as_array().unwrap().len();
    assert_eq!(count("").await, 4);
    assert_eq!(count("account_id=a").await, 2);
    assert_eq!(count("account_id=a&account_id=b").await, 3);
    assert_eq!(count("account_id=a&severity=critical").await, 1);
    assert_eq!(count("severity=info&severity=critical").await, 4);
    assert_eq!(count("status=paused").await, 0);
    assert_eq!(count("status=active&status=paused").await, 4);
    assert_eq!(count("project_id=prj_01J9Z0000000000000000000AA").await, 0);
    server.count("a", "m", 6).await;
    assert_eq!(count("state=firing").await, 3, "two on the account, one on all");
    assert_eq!(count("state=firing&state=no_data").await + count("state=ok").await, 4);
    assert_eq!(count("state=firing&account_id=*").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_instances_and_history_are_told() {
    let server = Server::start().await;
    let channel = channel(&server).await;
    let alert =
        server.post("/v1/alerts", json!({"account_id": "*", "rule": "sum > 10", "channel": channel})).await.ok(201);
    let path = path(&alert);
    let before = server.get(&path).await;
    assert_eq!(before.ok(200)["states"], json!({}));
    for (account, value) in [("low", 1), ("high", 11), ("higher", 12)] {
        server.count(account, "m", value).await;
    }
    let after = server.get(&path).await;
    let body = after.ok(200);
    assert_eq!((&body["state"], &body["states"]), (&json!("firing"), &json!({"firing": 2, "ok": 1})));
    assert!(body["last_value"].as_f64().is_some_and(|value| value > 10.0) && body["last_evaluated_at"].is_string());
    // The ETag tells that the state is another one, and still names the version.
    assert_ne!(after.header("etag"), before.header("etag"));
    let again = |etag: &str| server.ask(Method::GET, &path).header("if-none-match", etag).send();
    assert_eq!(again(before.header("etag")).await.status, 200);
    assert_eq!(again(after.header("etag")).await.status, 304);
    let patch = server.ask(Method::PATCH, &path).header("if-match", after.header("etag")).json(&json!({"name": "x"}));
    assert_eq!(patch.send().await.ok(200)["version"], 2);

    let instances = server.get(&format!("{path}/instances")).await.ok(200);
    let told: Vec<(&str, &str)> = instances["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (item["account_id"].as_str().unwrap(), item["state"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [("high", "firing"), ("higher", "firing"), ("low", "ok")]);
    assert_eq!(instances["items"][1]["value"], 12);
    let some = server.get(&format!("{path}/instances?state=ok&state=pending")).await.ok(200);
    assert_eq!(some["items"][0]["account_id"], "low");
    assert_eq!(
        server.get(&format!("{path}/instances?account_id=high")).await.ok(200)["items"].as_array().unwrap().len(),
        1
    );

    let history = server.get(&format!("{path}/history?account_id=high")).await.ok(200);
    let first = &history["items"][0];
    assert_eq!((&first["from"], &first["to"], &first["reason"]), (&json!("ok"), &json!("firing"), &json!("condition")));
    assert_eq!((&first["value"], &first["rule"], &first["alert_version"]), (&json!(11), &json!("sum > 10"), &json!(1)));
    assert!(first["notification_id"].as_str().unwrap().starts_with("msg_") && first["position"].as_u64() > Some(0));
    assert!(first["inputs"].as_array().unwrap().iter().any(|input| input["value"] == "11"), "{first}");
    let none = server.get(&format!("{path}/history?to=2020-01-01T00:00:00Z")).await.ok(200);
    assert_eq!(none["items"], json!([]));
    // A pause resolves what fires.
    server.post(&format!("{path}/pause"), json!({})).await.ok(200);
    let resolved = eventually("the resolve", async || {
        let history = server.get(&format!("{path}/history?account_id=high")).await.ok(200);
        (history["items"].as_array().unwrap().len() == 2).then(|| history["items"][0].clone())
    })
    .await;
    assert_eq!((&resolved["to"], &resolved["reason"]), (&json!("ok"), &json!("paused")));
}
