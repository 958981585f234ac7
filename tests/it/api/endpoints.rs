//! Endpoints that are told of state changes: made, told, signed for, paused, tried out.

use crate::receiver::{Received, Receiver, Reply};
use crate::server::Server;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_is_made_changed_and_deleted() {
    let server = Server::start().await;
    let body = json!({"url": "https://example.com/hook?x=1", "event_types": ["alert.*", "account.created"], "description": "ops",
        "headers": {"X-Team": "a b", "Authorization": "Bearer sesame"}, "rate_limit": 5, "metadata": {"k": "v"}});
    let create = || server.ask(Method::POST, "/v1/webhooks").json(&body).header("idempotency-key", "one").send();
    let first = create().await;
    let made = first.ok(201);
    assert_eq!((first.header("etag"), first.header("cache-control")), ("\"1\"", "no-store"));
    assert_eq!((&made["status"], &made["header_names"]), (&json!("enabled"), &json!(["authorization", "x-team"])));
    let secret = made["secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_") && secret.len() == 50, "{secret}");
    let again = create().await;
    assert_eq!((again.header("idempotent-replayed"), &again.ok(201)), ("true", &made), "the true secret, once more");
    let path = format!("/v1/webhooks/{}", made["id"].as_str().unwrap());
    for shown in
        [server.get(&path).await, server.get("/v1/webhooks").await, server.get(&format!("{path}/deliveries")).await]
    {
        let text = shown.text();
        assert!(shown.status == 200 && !text.contains("whsec_") && !text.contains("sesame"), "{text}");
    }
    let key = server.get(&format!("{path}/secret")).await.ok(200);
    assert_eq!((&key["secret"], &key["previous_until"]), (&json!(secret), &Value::Null));
    let patch = json!({"event_types": null, "headers": null, "rate_limit": null, "metadata": {"k": null}});
    let changed = server.patch(&path, patch).await.ok(200);
    assert_eq!((&changed["event_types"], &changed["header_names"]), (&json!(["*"]), &json!([])));
    assert_eq!((&changed["version"], &changed["metadata"]), (&json!(2), &json!({})));
    let stale =
        server.ask(Method::PATCH, &path).json(&json!({"rate_limit": 1})).header("if-match", "\"1\"").send().await;
    stale.problem(412, "version_mismatch");
    server.delete(&path).await.ok(204);
    server.get(&path).await.problem(404, "resource_not_found");
    server.post(&format!("{path}/test"), json!({})).await.problem(404, "resource_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_endpoint_cannot_be_made_of_is_refused() {
    let server = Server::start().await;
    let refused = async |extra: Value, pointer: &str| {
        let mut body = json!({"url": "https://example.com/"});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let problem = server.post("/v1/webhooks", body.clone()).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
        problem["detail"].as_str().unwrap().to_owned()
    };
    let hint = refused(json!({"event_types": ["alert.fired"]}), "/event_types/0").await;
    assert!(hint.contains("alert.firing"), "{hint}");
    for bad in ["", "al*", "alert", ".*", "nothing.*", "ALERT.*"] {
        refused(json!({"event_types": [bad]}), "/event_types/0").await;
    }
    refused(json!({"event_types": []}), "/event_types").await;
    refused(json!({"rate_limit": 0}), "/rate_limit").await;
    refused(json!({"description": "x".repeat(501)}), "/description").await;
    let many: serde_json::Map<String, Value> = (0..11).map(|n| (format!("x-{n}"), json!("v"))).collect();
    refused(json!({"headers": many}), "/headers").await;
    // Headers that could change what is said, or to whom.
    for name in
        ["Host", "content-type", "Content-Length", "transfer-encoding", "webhook-id", "Webhook-Signature", "connection"]
    {
        refused(json!({"headers": {name: "v"}}), &format!("/headers/{name}")).await;
    }
    for (name, value) in
        [("x-a", "a\r\nx-b: c"), ("x-a", "a\nb"), ("x-a", ""), ("x-a", "ä"), ("x-a", "\u{0}"), ("x-a", " v")]
    {
        refused(json!({"headers": {name: value}}), "/headers/x-a").await;
    }
    refused(json!({"headers": {"x a": "v"}}), "/headers/x a").await;
    refused(json!({"headers": {"x\r\ny": "v"}}), "/headers/x\r\ny").await;
    for own in ["id", "secret", "status", "workspace_id", "mode", "version", "disabled_reason"] {
        let body = json!({"url": "https://example.com/", own: "x"});
        server.post("/v1/webhooks", body).await.problem(422, "unknown_field");
    }
    for _ in 0..50 {
        endpoint(&server, "https://example.com/", json!(["alert.*"])).await;
    }
    server.post("/v1/webhooks", json!({"url": "https://example.com/"})).await.problem(409, "limit_reached");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_secrets_sign_while_the_grace_lasts() {
    let server = Server::start().await;
    let mut receiver = Receiver::start().await;
    let (id, old) = endpoint(&server, &receiver.url(), json!(["account.*"])).await;
    let (rotation, trial) = (format!("/v1/webhooks/{id}/rotate-secret"), format!("/v1/webhooks/{id}/test"));
    let rotate = |body: Value| server.post(&rotation, body);
    let test = || server.post(&trial, json!({}));
    let rotated = rotate(json!({"grace_seconds": 3600})).await.ok(201);
    let new = rotated["secret"].as_str().unwrap().to_owned();
    assert!(new != old && rotated["previous_until"].is_string(), "{rotated}");
    test().await.ok(202);
    let received = receiver.next().await;
    assert_eq!(received.header("webhook-signature").split(' ').count(), 2);
    assert_eq!(received.signed_by(&old), received.signed_by(&new));
    // Without grace the ones before end at once.
    let newest = rotate(json!({"grace_seconds": 0})).await.ok(201)["secret"].as_str().unwrap().to_owned();
    test().await.ok(202);
    let received = receiver.next().await;
    assert_eq!(received.header("webhook-signature").split(' ').count(), 1);
    received.signed_by(&newest);
    rotate(json!({"grace_seconds": 604_801})).await.problem(422, "validation_failed");
    let ask = || server.ask(Method::POST, &rotation).header("idempotency-key", "k");
    let (first, again) = (ask().send().await, ask().send().await);
    assert_eq!((first.ok(201), again.header("idempotent-replayed")), (again.ok(201), "true"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoints_own_headers_and_pace_are_kept() {
    let server = Server::start().await;
    let mut receiver = Receiver::start().await;
    let body =
        json!({"url": receiver.url(), "event_types": ["account.*"], "headers": {"X-Team": "a"}, "rate_limit": 2});
    server.post("/v1/webhooks", body).await.ok(201);
    let started = highwater::runtime::clock::Stopwatch::start();
    for name in ["a", "b", "c", "d"] {
        server.post("/v1/accounts", json!({"id": name})).await.ok(201);
    }
    for _ in 0..4 {
        let received = receiver.next().await;
        assert_eq!(received.header("x-team"), "a");
        assert_eq!(received.json()["type"], "account.created");
    }
    assert!(started.elapsed().as_millis() >= 1_400, "two a second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_endpoint_starves_nobody_and_one_that_is_gone_is_disabled() {
    let server = Server::start().await;
    let mut live = Receiver::start().await;
    let mut slow = Receiver::answering(Reply::status(204).after(std::time::Duration::from_secs(10))).await;
    let mut gone = Receiver::answering(Reply::status(410)).await;
    let (_, secret) = endpoint(&server, &live.url(), json!(["account.*", "webhook.*"])).await;
    endpoint(&server, &slow.url(), json!(["account.*"])).await;
    endpoint(&server, "http://127.0.0.1:9/hook", json!(["account.*"])).await;
    let (lost, _) = endpoint(&server, &gone.url(), json!(["account.*"])).await;
    for n in 0..20 {
        server.post("/v1/accounts", json!({"id": format!("a{n}")})).await.ok(201);
    }
    let mut told_of = std::collections::BTreeSet::new();
    let mut disabled = None;
    while told_of.len() < 20 || disabled.is_none() {
        let body = live.next().await.signed_by(&secret);
        match body["type"].as_str().unwrap() {
            "account.created" => drop(told_of.insert(body["data"]["id"].to_string())),
            "webhook.disabled" => disabled = Some(body["data"].clone()),
            other => panic!("{other}"),
        }
    }
    let disabled = disabled.unwrap();
    assert_eq!((&disabled["id"], &disabled["disabled_reason"]), (&json!(lost), &json!("gone")));
    assert!(slow.rest().len() <= 4, "four at once and no more");
    assert!(!gone.rest().is_empty());
    let path = format!("/v1/webhooks/{lost}");
    assert_eq!(server.get(&path).await.ok(200)["status"], "disabled");
    server.post(&format!("{path}/test"), json!({})).await.problem(409, "invalid_state");
    server.post(&format!("{path}/pause"), json!({})).await.problem(409, "invalid_state");
    let resumed = server.post(&format!("{path}/resume"), json!({})).await.ok(200);
    assert_eq!((&resumed["status"], &resumed["disabled_reason"]), (&json!("enabled"), &Value::Null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_in_the_control_plane_is_told() {
    let server = Server::start().await;
    let mut receiver = Receiver::start().await;
    let (_, secret) = endpoint(&server, &receiver.url(), json!(["*"])).await;
    let alert = alert(&server, "sum > 10").await;
    let path = format!("/v1/alerts/{alert}");
    server.patch(&path, json!({"name": "x"})).await.ok(200);
    for _ in 0..2 {
        // The second one changes nothing, and tells nothing.
        server.post(&format!("{path}/pause"), json!({})).await.ok(200);
    }
    server.post(&format!("{path}/resume"), json!({})).await.ok(200);
    server.put("/v1/accounts/acme/quotas/m", json!({"limit": 5, "period": "day"})).await.ok(201);
    server.delete("/v1/accounts/acme").await.ok(204);
    server.delete(&path).await.ok(204);
    server.key_with(&[]).await;
    let wanted = [
        "alert.created",
        "alert.updated",
        "alert.paused",
        "alert.resumed",
        "account.created",
        "account.deleted",
        "alert.deleted",
        "api_key.created",
    ];
    let mut bodies = Vec::new();
    while bodies.len() < wanted.len() {
        bodies.push(receiver.next().await.signed_by(&secret));
    }
    bodies.sort_by_key(|body| body["sequence"].as_u64());
    let kinds: Vec<&str> = bodies.iter().map(|body| body["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, wanted);
    as_the_catalogue_says(&server, &bodies).await;
    assert!(receiver.rest().is_empty());
}

/// Each is what the catalogue says of it.
async fn as_the_catalogue_says(server: &Server, bodies: &[Value]) {
    let catalogue = server.get("/v1/webhooks/event-types?page_size=100").await.ok(200);
    for body in bodies {
        let entry = catalogue["items"].as_array().unwrap().iter().find(|entry| entry["type"] == body["type"]).unwrap();
        let known = entry["schema"]["properties"]["data"]["properties"].as_object().unwrap();
        for name in body["data"].as_object().unwrap().keys() {
            assert!(known.contains_key(name), "{} has {name}", body["type"]);
        }
        assert!(!body.to_string().contains("hash"), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_use_of_quotas_is_told() {
    let server = Server::start().await;
    let mut receiver = Receiver::start().await;
    let (_, secret) = endpoint(&server, &receiver.url(), json!(["quota.*"])).await;
    server.put("/v1/accounts/*/quotas/m", json!({"limit": "100.5", "period": "month"})).await.ok(201);
    server.count("acme", "m", 80).await;
    server.count("acme", "m", 1).await;
    let (_, reached) = told(&mut receiver, &secret, "quota.threshold_reached").await;
    let data = &reached["data"];
    assert_eq!(
        (&data["account_id"], &data["metric"], &data["threshold_percent"]),
        (&json!("acme"), &json!("m"), &json!(80))
    );
    let quota = &data["quota"];
    assert_eq!((&quota["used"], &quota["limit"], &quota["remaining"]), (&json!(81), &json!(100.5), &json!(19.5)));
    assert_eq!((&quota["period"], &data["ended"]), (&json!("month"), &Value::Null));
    assert!(reached["log"].as_str().unwrap().starts_with('p'), "{reached}");
    server.count("acme", "m", 20).await;
    let (_, exceeded) = told(&mut receiver, &secret, "quota.exceeded").await;
    assert_eq!(exceeded["data"]["quota"]["remaining"], -0.5);
    // A smaller limit is another quota.
    server.put("/v1/accounts/acme/quotas/m", json!({"limit": 90, "period": "month"})).await.ok(201);
    let mut both = [receiver.next().await.signed_by(&secret), receiver.next().await.signed_by(&secret)];
    both.sort_by_key(|body| body["index"].as_u64());
    let [again, past] = both;
    assert_eq!((&again["type"], &past["type"]), (&json!("quota.threshold_reached"), &json!("quota.exceeded")));
    assert_eq!((&again["data"]["quota"]["limit"], &again["sequence"]), (&json!(90), &past["sequence"]));
    assert_eq!((&again["index"], &past["index"]), (&json!(0), &json!(1)));
    as_the_catalogue_says(&server, &[reached, exceeded, again, past]).await;
    assert!(receiver.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_are_listed_by_any_of_their_states() {
    let server = Server::start().await;
    let mut ids = Vec::new();
    for name in ["a", "b"] {
        let hook = json!({"url": format!("https://example.com/{name}"), "event_types": ["alert.*"]});
        ids.push(server.post("/v1/webhooks", hook).await.ok(201)["id"].as_str().unwrap().to_owned());
    }
    server.post(&format!("/v1/webhooks/{}/pause", ids[1]), json!({})).await.ok(200);
    for (query, count) in
        [("", 2), ("?status=enabled", 1), ("?status=enabled&status=paused", 2), ("?status=disabled", 0)]
    {
        let listed = server.get(&format!("/v1/webhooks{query}")).await.ok(200);
        assert_eq!(listed["items"].as_array().unwrap().len(), count, "{query}");
    }
    server.get("/v1/webhooks?status=enabled&status=gone").await.problem(400, "invalid_parameter");
}
