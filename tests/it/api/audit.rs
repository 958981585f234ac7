//! The audit log: who did what, from where, and what came of it.

use super::oauth::{basic, form};
use super::sandbox::Sandbox;
use crate::server::{Server, eventually};
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

/// Waits until an action is noted; returns the newest of it.
async fn noted(server: &Server, action: &str) -> Value {
    let path = format!("/v1/audit-log?action={action}");
    eventually(action, async || server.get(&path).await.ok(200)["items"].as_array().unwrap().first().cloned()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_nothing_is_noted_once_for_each_address_and_reason() {
    let server = Server::start().await;
    let webhook = server.post("/v1/webhooks", json!({"url": "https://example.com/"})).await.ok(201);
    let webhook = webhook["id"].as_str().unwrap();
    let weak = server.post("/v1/api-keys", json!({"name": "w", "scope": "write:keys"})).await.ok(201);
    let client = server.post("/v1/oauth/clients", json!({"name": "c", "role": "viewer"})).await.ok(201);
    let (client, secret) = (client["id"].as_str().unwrap(), client["client_secret"].as_str().unwrap());
    let weak_key = weak["key"].as_str().unwrap();
    let mut wrong = weak_key.to_owned();
    wrong.truncate(wrong.len() - 6);
    for _ in 0..5 {
        server.get(&format!("/v1/webhooks/{webhook}/secret")).await.ok(200);
        let owner = json!({"name": "o", "role": "owner"});
        let refused = server.ask(Method::POST, "/v1/api-keys").key(weak_key).json(&owner).send().await;
        refused.problem(403, "scope_escalation");
        for secret in [secret, "wrong"] {
            let fields = [("grant_type", "client_credentials")];
            let ask = form(server.ask(Method::POST, "/v1/oauth/token"), &fields);
            basic(ask, (client, secret)).send().await;
        }
        server.ask(Method::GET, "/v1/whoami").key(&wrong).send().await.problem(401, "invalid_api_key");
    }
    let read = noted(&server, "secret.read").await;
    assert_eq!(
        (&read["target"], &read["outcome"], &read["ip"]),
        (&json!(webhook), &json!("accepted"), &json!("127.0.0.1"))
    );
    let escalation = noted(&server, "credential.escalate").await;
    assert_eq!((&escalation["actor"], &escalation["code"]), (&weak["id"], &json!("scope_escalation")));
    let issued = noted(&server, "oauth_token.issue").await;
    assert_eq!((&issued["target"], &issued["outcome"]), (&json!(client), &json!("accepted")));
    let presented = noted(&server, "credential.present").await;
    assert_eq!((&presented["target"], &presented["code"]), (&json!(client), &json!("invalid_client")));
    assert_eq!((&presented["actor"], &presented["ip"]), (&json!("unknown"), &json!("127.0.0.1")));
    for action in ["secret.read", "credential.escalate", "oauth_token.issue", "credential.present"] {
        let all = server.get(&format!("/v1/audit-log?action={action}")).await.ok(200);
        assert_eq!(all["items"].as_array().unwrap().len(), 1, "{action} is noted once in an hour");
    }
    // A key that is known and does not work is noted with its owner; one that nobody knows is the operator's to read.
    server.post(&format!("/v1/api-keys/{}/revoke", weak["id"].as_str().unwrap()), json!({})).await.ok(200);
    server.ask(Method::GET, "/v1/whoami").key(weak_key).send().await.problem(401, "api_key_revoked");
    let path = format!("/v1/audit-log?action=credential.present&target={}", weak["id"].as_str().unwrap());
    let revoked = eventually("the revoked key", async || {
        server.get(&path).await.ok(200)["items"].as_array().unwrap().first().cloned()
    })
    .await;
    assert_eq!(revoked["code"], "api_key_revoked");
    let nobodys: Vec<_> = {
        let control = server.node().data.control.state();
        control.audit(highwater::runtime::access_notes::NO_TENANT).map(|record| record.line(Mode::Live)).collect()
    };
    assert!(
        nobodys.len() == 1 && nobodys[0].contains("invalid_api_key") && nobodys[0].contains("127.0.0.1"),
        "{nobodys:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_exported_as_lines_that_are_chained() {
    let server = Server::start().await;
    for n in 0..5 {
        server.post("/v1/projects", json!({"name": format!("p{n}"), "env": "dev"})).await.ok(201);
    }
    let answer =
        server.ask(Method::GET, "/v1/audit-log?format=ndjson").header("accept", "application/x-ndjson").send().await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-ndjson"));
    let text = answer.text();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shown = server.get("/v1/audit-log?page_size=100").await.ok(200)["items"].as_array().unwrap().clone();
    assert_eq!(lines.len(), shown.len());
    for (line, shown) in lines.iter().rev().zip(&shown) {
        for (name, value) in line.as_object().unwrap() {
            assert_eq!(&shown[name], value, "{name}");
        }
    }
    let made: Vec<&Value> = lines.iter().filter(|line| line["action"] == "project.create").collect();
    assert_eq!(made.len(), 5);
    assert!(made.windows(2).all(|pair| pair[1]["previous_hash"] == pair[0]["hash"] && pair[0]["hash"].is_string()));
    let one = server.get(&format!("/v1/audit-log?format=ndjson&target={}", made[2]["target"].as_str().unwrap())).await;
    assert_eq!(one.text().lines().count(), 1);
    server.get("/v1/audit-log?format=csv").await.problem(400, "invalid_parameter");
}
