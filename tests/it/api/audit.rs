//! The audit log: who did what, from where, and what came of it.

use super::sandbox::Sandbox;
use crate::server::Server;
use highwater::domain::control::resource::Scope;
use highwater::domain::id::{Mode, Tenant};
use reqwest::Method;
use serde_json::{Value, json};

async fn entries(server: &Server, query: &str) -> Vec<Value> {
    let page = server.get(&format!("/v1/audit-log?page_size=100{query}")).await.ok(200);
    page["items"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_did_what_is_told_newest_first() {
    let server = Server::start().await;
    let tenant = Tenant { workspace: server.workspace, mode: Mode::Live };
    let (key, id) = server.new_key(tenant, [Scope::WriteAccounts].into()).await;
    let ask = |method: Method, path: &str| server.ask(method, path).key(&key);
    let body = json!({"id": "acme"});
    let request = ask(Method::POST, "/v1/accounts").header("x-request-id", "my-request-1");
    request.json(&body).send().await.ok(201);
    ask(Method::POST, "/v1/accounts").json(&body).send().await.problem(409, "resource_conflict");
    ask(Method::POST, "/v1/accounts").json(&json!({"id": ""})).send().await.problem(422, "validation_failed");
    ask(Method::GET, "/v1/accounts").key("pk_live_wrong").send().await.problem(401, "invalid_api_key");
    let stale = ask(Method::PATCH, "/v1/accounts/acme").header("if-match", "\"9\"");
    stale.json(&json!({"name": "A"})).send().await.problem(412, "version_mismatch");
    ask(Method::PATCH, "/v1/accounts/acme").json(&json!({"name": "A"})).send().await.ok(200);
    let all = entries(&server, &format!("&actor={id}")).await;
    let told: Vec<(&str, &str, &Value)> = all
        .iter()
        .map(|entry| (entry["action"].as_str().unwrap(), entry["outcome"].as_str().unwrap(), &entry["code"]))
        .collect();
    let expected = [
        ("account.update", "accepted", &Value::Null),
        ("account.update", "refused", &json!("version_mismatch")),
        ("account.create", "refused", &json!("resource_conflict")),
        ("account.create", "accepted", &Value::Null),
    ];
    assert_eq!(told, expected, "shape and failed credentials are no entries");
    let made = &all[3];
    assert_eq!((&made["target_type"], &made["target"]), (&json!("account"), &json!("acme")));
    assert_eq!(
        (&made["request_id"], &made["ip"], &made["mode"]),
        (&json!("my-request-1"), &json!("127.0.0.1"), &json!("live"))
    );
    assert!(made["before"].is_null() && made["after"].as_str().unwrap().len() == 64, "{made}");
    assert_eq!((&all[0]["before"], &all[1]["after"]), (&made["after"], &made["after"]));
    assert_ne!(all[0]["after"], made["after"]);
    // The keys of the tests were made without one.
    let own = entries(&server, "&actor=command_line&action=api_key.create").await;
    assert_eq!(own.len(), 2, "{own:?}");
    assert!(own[0]["ip"].is_null());
    assert_eq!(entries(&server, "&action=account.update&action=account.create&target=acme").await.len(), 4);
    let at = made["at"].as_str().unwrap();
    assert!(entries(&server, &format!("&from={at}")).await.len() >= 4);
    assert!(entries(&server, &format!("&to={at}&target=acme")).await.is_empty());
    server.get("/v1/audit-log?who=me").await.problem(400, "unknown_parameter");
    server.get("/v1/audit-log?from=yesterday").await.problem(400, "invalid_parameter");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_walked_in_pages_while_more_is_done() {
    let server = Server::start().await;
    for n in 0..10 {
        server.post("/v1/accounts", json!({"id": format!("acc_{n}")})).await.ok(201);
    }
    let before: Vec<Value> = entries(&server, "").await;
    let mut path = "/v1/audit-log?page_size=4".to_owned();
    let mut walked: Vec<Value> = Vec::new();
    loop {
        let page = server.get(&path).await.ok(200);
        walked.extend(page["items"].as_array().unwrap().clone());
        server.delete(&format!("/v1/accounts/acc_{}", walked.len() / 4)).await;
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/audit-log?cursor={cursor}");
    }
    assert_eq!(walked, before);
    let second = server.get("/v1/audit-log?page_size=4&page=2").await.ok(200);
    assert_eq!(second["items"].as_array().unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mode_and_workspace_has_its_own_and_none_has_a_secret() {
    let mut sandbox = Sandbox::start().await;
    let hook = json!({"type": "webhook", "name": "c", "url": "https://hooks.example/a-secret-path"});
    let secret = sandbox.server.post("/v1/channels", hook.clone()).await.ok(201)["secret"].as_str().unwrap().to_owned();
    let slack = json!({"type": "slack", "name": "s", "url": "https://hooks.slack.com/services/T0/B0/hidden"});
    sandbox.server.post("/v1/channels", slack).await.ok(201);
    let bot = json!({"type": "slack", "name": "b", "bot_token": "xoxb-hidden", "slack_channel": "#ops"});
    sandbox.server.post("/v1/channels", bot).await.ok(201);
    // A key that got into a header that is shown is not taken over.
    let mistaken = sandbox.server.ask(Method::POST, "/v1/accounts").header("x-request-id", &sandbox.server.key);
    let answer = mistaken.json(&json!({"id": "acme"})).send().await;
    assert!(answer.header("x-request-id").starts_with("req_"));
    sandbox.post("/v1/accounts", json!({"id": "theirs"})).await.ok(201);
    sandbox.advance("1h").await;
    sandbox.reset().await;
    let theirs = sandbox.get("/v1/audit-log").await;
    let listed = theirs.ok(200);
    let actions: Vec<&str> =
        listed["items"].as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(
        actions,
        ["sandbox.reset", "sandbox.advance_clock", "account.create", "api_key.create"],
        "a reset keeps it"
    );
    let live = sandbox.server.get("/v1/audit-log").await;
    assert!(!live.text().contains("sandbox.reset") && !live.text().contains("theirs"));
    for text in [live.text(), theirs.text()] {
        for hidden in [&secret[6..], "whsec_", "a-secret-path", "hidden", "pk_live_", "pk_test_"] {
            assert!(!text.contains(hidden), "{hidden} in {text}");
        }
    }
    let other = sandbox.server.owner_of(sandbox.server.new_workspace().await, Mode::Live).await;
    let others = sandbox.server.ask(Method::GET, "/v1/audit-log").key(&other).send().await;
    assert!(!others.text().contains("channel.create"));
    // The same log gives the same entries.
    let before = entries(&sandbox.server, "").await;
    sandbox.server.restart().await;
    assert_eq!(entries(&sandbox.server, "").await, before);
}
