//! Every answer without success is a problem, and every answer has the headers that are promised.

use crate::server::{Ask, Server};
use highwater::domain::control::resource::Scope;
use reqwest::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_lead_nowhere() {
    let server = Server::start().await;
    server.get("/v1/nonsense").await.problem(404, "route_not_found");
    server.get("/nonsense").await.problem(404, "route_not_found");
    server.ask(Method::GET, "/v1/projects").anonymous().send().await.problem(401, "authentication_required");
    server.ask(Method::PUT, "/v1/alerts").anonymous().send().await.problem(401, "authentication_required");
    let answer = server.ask(Method::PUT, "/v1/alerts").send().await;
    answer.problem(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), "GET,HEAD,POST");
    assert_eq!(answer.header("x-mode"), "live");
    for method in [Method::TRACE, Method::OPTIONS, Method::from_bytes(b"BREW").unwrap()] {
        let answer = server.ask(method, "/v1/accounts/acme").send().await;
        answer.problem(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), "GET,HEAD,PATCH,DELETE");
    }
    server.get("/v1/accounts/%FF").await.problem(400, "invalid_parameter");
    server.get("/v1/accounts/%zz").await.problem(404, "resource_not_found");
    server.post("/v1/openapi.json", json!({})).await.problem(405, "method_not_allowed");
    server.get("/docs/nonsense").await.problem(404, "route_not_found");
    let head = server.ask(Method::HEAD, "/v1/accounts/nobody").send().await;
    assert_eq!((head.status, head.bytes.len()), (404, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_none() {
    let server = Server::start().await;
    let alert = |body: &str| server.ask(Method::POST, "/v1/alerts").kind("application/json").body(body);
    for body in ["{", "", "{\"rule\":", "{\"rule\": 1e999}", "{\"rule\": NaN}", "{\"rule\": \"\\ud800\"}", "\u{1}"] {
        alert(body).send().await.problem(400, "malformed_json");
    }
    alert(r#"{"account_id":"a","rule":"used > 1","channel":"slack"} {}"#).send().await.problem(400, "malformed_json");
    let check = async |body: &str, code: &str, pointer: &str| {
        let problem = alert(body).send().await.problem(422, code);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
        assert_eq!(problem["errors"][0]["code"], code, "{body}");
    };
    check(r#"{"account_id":"a","rule":"used > 1","channel":"slack","colour":1}"#, "unknown_field", "/colour").await;
    check(r#"{"account_id":"a","channel":"slack"}"#, "validation_failed", "/rule").await;
    check(r#"{"account_id":7,"rule":"used > 1","channel":"slack"}"#, "validation_failed", "/account_id").await;
    check(r#"{"account_id":"a","rule":"used > 1","rule":"used > 2","channel":"slack"}"#, "validation_failed", "/rule")
        .await;
    check(
        r#"{"account_id":"a","rule":"used > 1","channel":"slack","labels":{"a/b":1}}"#,
        "validation_failed",
        "/labels/a~1b",
    )
    .await;
    check("[]", "validation_failed", "").await;
    // An array is no object, though its items would do for the fields.
    check(r#"["a","used > 1","slack"]"#, "validation_failed", "").await;
    let nulls = server.ask(Method::PATCH, "/v1/metrics/calls").kind("application/json").body("[null,null]");
    nulls.send().await.problem(422, "validation_failed");
    check("null", "validation_failed", "").await;
    // What a caller cannot set is no field.
    for name in ["id", "workspace_id", "mode", "state", "version", "created_by", "scopes", "role"] {
        let body = json!({"account_id": "a", "rule": "used > 1", "channel": "slack", name: "x"});
        server.post("/v1/alerts", body).await.problem(422, "unknown_field");
    }
    let answer = server.ask(Method::POST, "/v1/alerts").kind("text/plain").body("{}").send().await;
    answer.problem(415, "unsupported_media_type");
    assert_eq!(answer.header("accept-post"), "application/json, application/merge-patch+json");
    let answer = server.ask(Method::POST, "/v1/events").kind("text/csv").body("a,b").send().await;
    answer.problem(415, "unsupported_media_type");
    assert!(answer.header("accept-post").contains("application/x-ndjson"));
    alert("{}").header("content-encoding", "br").send().await.problem(415, "unsupported_encoding");
    let long = format!("{{\"rule\":\"{}\"}}", "x".repeat(1_100_000));
    assert_eq!(alert(&long).send().await.problem(413, "payload_too_large")["limit"], 1 << 20);
    // Also where it is so large that nobody looks at it.
    let longer = "x".repeat(11 << 20);
    assert_eq!(alert(&longer).send().await.problem(413, "payload_too_large")["limit"], 1 << 20);
    let lines = server.ask(Method::POST, "/v1/events").kind("application/x-ndjson").body(longer);
    assert_eq!(lines.send().await.problem(413, "payload_too_large")["limit"], 10 << 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_nothing_that_is_answered_is_told_so() {
    let server = Server::start().await;
    server.post("/v1/accounts", json!({"id": "acme"})).await.ok(201);
    let get = |path: &str, accept: &str| server.ask(Method::GET, path).header("accept", accept);
    let usage = "/v1/accounts/acme/usage";
    for (path, accept) in [
        ("/v1/alerts", "text/html"),
        ("/v1/alerts", "text/csv"),
        ("/v1/alerts", "text/*, application/xml;q=0.9"),
        ("/v1/alerts", "application/json;q=0"),
        (usage, "text/event-stream"),
    ] {
        let problem = get(path, accept).send().await.problem(406, "not_acceptable");
        assert_eq!(problem["retryable"], false, "{accept}");
    }
    for (path, accept) in [
        ("/v1/alerts", "*/*"),
        ("/v1/alerts", "application/*"),
        ("/v1/alerts", "Application/JSON; charset=utf-8"),
        ("/v1/alerts", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("/v1/alerts", "text/html, application/problem+json"),
        ("/v1/alerts", ""),
        (usage, "text/csv"),
        (usage, "text/*"),
    ] {
        get(path, accept).send().await.ok(200);
    }
    // Who is nobody learns nothing of it, and pages are for browsers.
    get("/v1/alerts", "text/html").anonymous().send().await.problem(401, "authentication_required");
    assert_eq!(get("/docs/guide", "text/html").anonymous().send().await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_that_are_not_known() {
    let server = Server::start().await;
    let alert = "/v1/alerts/alr_01J9Z0000000000000000000AA";
    for (method, path) in [
        (Method::GET, "/v1/alerts".to_owned()),
        (Method::POST, "/v1/alerts".to_owned()),
        (Method::GET, alert.to_owned()),
        (Method::PATCH, alert.to_owned()),
        (Method::DELETE, "/v1/metrics/api.calls".to_owned()),
        (Method::POST, format!("{alert}/pause")),
        (Method::PUT, "/v1/accounts/acme/quotas/api.calls".to_owned()),
        (Method::POST, "/v1/accounts".to_owned()),
        (Method::GET, "/v1/accounts/acme/usage".to_owned()),
        (Method::POST, "/v1/events".to_owned()),
        (Method::GET, "/v1/quarantine".to_owned()),
        (Method::POST, "/v1/quarantine/evt_01J9Z0000000000000000000AA/discard".to_owned()),
        (Method::GET, "/v1/receipts/rcp_MC4x".to_owned()),
    ] {
        let body = match path.as_str() {
            "/v1/alerts" => json!({"account_id": "a", "rule": "used > 1", "channel": "slack"}),
            "/v1/events" => json!({"account_id": "a", "metric": "m"}),
            "/v1/accounts" => json!({"id": "a"}),
            path if path.contains("/quotas/") => json!({"limit": 1, "period": "day"}),
            _ => json!({}),
        };
        let ask = server.ask(method.clone(), &format!("{path}?colour=red")).json(&body);
        let problem = ask.send().await.problem(400, "unknown_parameter");
        assert_eq!(problem["param"], "colour", "{method} {path}");
    }
    for query in ["page=0", "page=x", "page_size=101", "page_size=0", "status=gone", "severity=bad", "state=odd"] {
        let problem = server.get(&format!("/v1/alerts?{query}")).await.problem(400, "invalid_parameter");
        assert_eq!(problem["param"], query.split('=').next().unwrap());
    }
    server.get("/v1/alerts?page=1&page=2").await.problem(400, "invalid_parameter");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_has_its_headers() {
    let server = Server::start().await;
    let check = async |ask: Ask, mode: &str| {
        let answer = ask.send().await;
        let name = answer.text();
        assert_eq!(answer.header("cache-control"), "no-store", "{name}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{name}");
        assert_eq!(answer.header("x-mode"), mode, "{name}");
        answer.header("x-request-id").to_owned()
    };
    let get = |path: &str| server.ask(Method::GET, path);
    assert_eq!(check(get("/v1/alerts").header("x-request-id", "client-0.9_z"), "live").await, "client-0.9_z");
    for given in ["short", "has space in it", "ünïcödé-id", &"x".repeat(129)] {
        let id = check(get("/v1/alerts").header("x-request-id", given), "live").await;
        assert!(id.starts_with("req_") && id.len() == 30, "{id}");
    }
    check(get("/v1/alerts?colour=red"), "live").await;
    check(get("/v1/nonsense"), "live").await;
    check(get("/v1/alerts").header("if-match", "\"1\"").header("if-match", "\"2\""), "live").await;
    check(server.ask(Method::PUT, "/v1/alerts"), "live").await;
    check(server.ask(Method::POST, "/v1/events").json(&json!({"account_id": "a", "metric": "m"})), "live").await;
    check(get("/v1/alerts").anonymous(), "").await;
    let sandbox = server.owner_of(server.workspace, highwater::domain::id::Mode::Sandbox).await;
    check(get("/v1/alerts").key(&sandbox), "sandbox").await;
    check(get("/v1/accounts/nobody").key(&sandbox), "sandbox").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_may_read_the_metrics_need_no_admin_listener() {
    let server = Server::start().await;
    server.count("acme", "calls", 1).await;
    let with = async |scope: Scope| {
        let key = server.key_with(&[scope]).await;
        server.ask(Method::GET, "/metrics").key(&key).send().await
    };
    with(Scope::ReadAlerts).await.problem(403, "insufficient_scope");
    let told = with(Scope::ReadMetrics).await;
    let text = told.text();
    assert_eq!((told.status, told.header("content-type")), (200, "text/plain; version=0.0.4"), "{text}");
    assert!(text.contains("highwater_log_append_duration_seconds_count"), "{text}");
    assert!(text.contains("highwater_log_writable 1") && text.contains("highwater_disk_free_bytes"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_takes_nothing_is_told_until_it_takes_something_again() {
    let server = Server::start().await;
    server.count("acme", "calls", 1).await;
    let other = rusqlite::Connection::open(server.data().join("journal.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let event = json!({"account_id": "acme", "metric": "calls"});
    server.post("/v1/events", event.clone()).await.problem(503, "overloaded");
    let ready = server.ask(Method::GET, "/readyz").anonymous().send().await;
    assert_eq!((ready.status, &ready.json()["status"]), (503, &json!("not_writable")));
    // Who reads is answered all the same.
    server.get("/v1/accounts/acme/usage").await.ok(200);
    other.execute_batch("ROLLBACK").unwrap();
    server.post("/v1/events", event).await.ok(202);
    server.ask(Method::GET, "/readyz").anonymous().send().await.ok(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operations_surface_needs_no_key() {
    let server = Server::start().await;
    assert_eq!(server.ask(Method::GET, "/healthz").anonymous().send().await.ok(200), json!({"status": "ok"}));
    let ready = server.ask(Method::GET, "/readyz").anonymous().send().await.ok(200);
    assert_eq!(
        (&ready["status"], &ready["checks"]["log"], &ready["checks"]["store"]),
        (&json!("ok"), &json!("ok"), &json!("ok"))
    );
    assert!(ready["checks"]["disk_free_bytes"].as_u64() > Some(0), "{ready}");
    server.ask(Method::GET, "/metrics").anonymous().send().await.problem(401, "authentication_required");
    for fold in ready["checks"]["folds"].as_object().unwrap().values() {
        assert!(fold["head"].as_u64() >= fold["position"].as_u64() && fold["clock"].is_string(), "{fold}");
    }
    server.get("/v1/alerts").await.ok(200);
    server.ask("BREW".parse().unwrap(), "/v1/alerts").send().await.problem(405, "method_not_allowed");
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let admin = |path: &str| http.get(format!("http://{}{path}", server.admin())).send();
    let metrics = admin("/metrics").await.unwrap().text().await.unwrap();
    assert!(metrics.contains("http_server_request_duration_seconds"), "{metrics}");
    assert!(metrics.contains(r#"http_route="/v1/alerts""#) && !metrics.contains("acme"), "{metrics}");
    // Any word is a method; it is no label.
    assert!(metrics.contains(r#"http_request_method="_OTHER""#) && !metrics.contains("BREW"), "{metrics}");
    let folded: Vec<&str> = metrics.lines().filter(|line| line.starts_with("highwater_fold_lag_records{")).collect();
    assert_eq!(folded.len(), 4, "{metrics}");
    assert!(admin("/readyz").await.unwrap().status().is_success());
    let nowhere = admin("/nonsense").await.unwrap();
    assert_eq!(
        (nowhere.status().as_u16(), nowhere.headers()["content-type"].as_bytes()),
        (404, &b"application/problem+json"[..])
    );
}
