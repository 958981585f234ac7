//! Who is let in: every shape of a credential, and every operation against every scope.

use super::operations::{self, Operation};
use crate::server::{Answer, Ask, Server};
use highwater::domain::control::command::Command;
use highwater::domain::control::resource::Scope;
use highwater::domain::id::{Mode, Tenant};
use reqwest::Method;
use std::collections::BTreeSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_whole_key_in_the_header_is_a_credential() {
    let server = Server::start().await;
    let key = server.key.clone();
    let ask = || server.ask(Method::GET, "/v1/metrics").anonymous();
    let check = async |what: &str, ask: Ask, code: &str| {
        let answer = ask.send().await;
        let body = answer.problem(401, code);
        let challenge = answer.header("www-authenticate");
        let expected = match code {
            "authentication_required" => "Bearer realm=\"highwater\"",
            _ => "Bearer realm=\"highwater\", error=\"invalid_token\"",
        };
        assert_eq!(challenge, expected, "{what}");
        assert!(answer.header("x-mode").is_empty(), "{what}");
        assert!(!body.to_string().contains(key.get(9..).unwrap()), "{what} echoes the key");
    };
    check("nothing", ask(), "authentication_required").await;
    check(
        "query",
        server.ask(Method::GET, &format!("/v1/metrics?api_key={key}")).anonymous(),
        "authentication_required",
    )
    .await;
    let mut wrong = key.clone();
    let last = if wrong.ends_with('0') { "1" } else { "0" };
    wrong.replace_range(wrong.len() - 1.., last);
    let bearer = |token: &str| ask().header("authorization", &format!("Bearer {token}"));
    check("bad checksum", bearer(&wrong), "invalid_api_key").await;
    check("truncated", bearer(&key[..40]), "invalid_api_key").await;
    check("10 kB", bearer(&"k".repeat(10_000)), "invalid_api_key").await;
    check(
        "golden key that nobody has",
        bearer("pk_live_7Hq2mZxR4tKc_0123456789abcdefghijABCDEFGHIJ013P8xiM"),
        "invalid_api_key",
    )
    .await;
    check("two", bearer(&key).header("authorization", &format!("Bearer {key}")), "invalid_api_key").await;
    check("no token", ask().header("authorization", "Bearer"), "invalid_api_key").await;
    check("empty token", ask().header("authorization", "Bearer  "), "invalid_api_key").await;
    check("empty", ask().header("authorization", ""), "invalid_api_key").await;
    check("basic", ask().header("authorization", &format!("Basic {key}")), "invalid_api_key").await;
    check("not ASCII", ask().header("authorization", "Bearer schlüssel"), "invalid_api_key").await;
    check("key with a tail", bearer(&format!("{key} more")), "invalid_api_key").await;
    ask().header("authorization", &format!("bearer {key}")).send().await.ok(200);
    ask().header("authorization", &format!("BEARER {key}")).send().await.ok(200);
    // A NUL is no part of a header at all.
    let nul =
        format!("GET /v1/metrics HTTP/1.1\r\nhost: x\r\nauthorization: Bearer \0{key}\r\nconnection: close\r\n\r\n");
    assert!(server.raw(nul.as_bytes()).await.starts_with("HTTP/1.1 400"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_is_refused_at_once() {
    let server = Server::start().await;
    let tenant = Tenant { workspace: server.workspace, mode: Mode::Live };
    let (key, id) = server.new_key(tenant, [Scope::ReadAccounts].into()).await;
    let ask = || server.ask(Method::GET, "/v1/metrics").key(&key);
    assert_eq!(ask().send().await.ok(200)["items"], serde_json::json!([]));
    server.submit(tenant, Command::RevokeKey { id }).await;
    ask().send().await.problem(401, "api_key_revoked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_operation_takes_its_scope_and_no_other() {
    let server = Server::start().await;
    let tenant = Tenant { workspace: server.workspace, mode: Mode::Live };
    for operation in operations::that_end() {
        let scope = operation.scope;
        let name = format!("{} {} with {}", operation.method, operation.path, scope.text());
        let (key, id) = server.new_key(tenant, [scope].into()).await;
        let with = call(&server, &operation).key(&key).send().await;
        // There is room for so many active keys only.
        server.submit(tenant, Command::RevokeKey { id }).await;
        assert!(!matches!(with.status, 401 | 403 | 405), "{name}: {} {}", with.status, with.text());
        assert_eq!(with.header("x-mode"), "live", "{name}");
        let others: Vec<Scope> =
            Scope::ALL.iter().copied().filter(|other| *other != scope && other.implied() != Some(scope)).collect();
        let (key, id) = server.new_key(tenant, others.into_iter().collect()).await;
        let without = call(&server, &operation).key(&key).send().await;
        server.submit(tenant, Command::RevokeKey { id }).await;
        without.problem(403, "insufficient_scope");
        let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{}\"", scope.text());
        assert_eq!(without.header("www-authenticate"), challenge, "{name}");
        assert_eq!(without.header("x-mode"), "live", "{name}");
        call(&server, &operation).anonymous().send().await.problem(401, "authentication_required");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ingest_key_cannot_read_back() {
    let server = Server::start().await;
    let key = server.key_with(&[Scope::WriteEvents]).await;
    let mut allowed = BTreeSet::new();
    for operation in operations::that_end() {
        if call(&server, &operation).key(&key).send().await.status != 403 {
            allowed.insert(operation.path);
        }
    }
    let expected = [
        "/v1/events",
        "/v1/events/batch",
        "/v1/quarantine/{id}/discard",
        "/v1/quarantine/{id}/replay",
        "/v1/receipts/{receipt}",
    ];
    assert_eq!(allowed.into_iter().collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_of_another_workspace_or_mode_is_as_if_it_were_not() {
    let server = Server::start().await;
    let channel = server
        .post("/v1/channels", serde_json::json!({"type": "webhook", "name": "c", "url": "https://example.com/"}))
        .await;
    let channel = channel.ok(201)["id"].as_str().unwrap().to_owned();
    let alert = serde_json::json!({"account_id": "acme", "rule": "used > 1", "channel": channel});
    let alert = server.post("/v1/alerts", alert).await.ok(201)["id"].as_str().unwrap().to_owned();
    let webhook = server.post("/v1/webhooks", serde_json::json!({"url": "https://example.com/"})).await;
    let webhook = webhook.ok(201)["id"].as_str().unwrap().to_owned();
    server.count("acme", "api.calls", 1).await;
    let other = server.owner_of(server.new_workspace().await, Mode::Live).await;
    let sandbox = server.owner_of(server.workspace, Mode::Sandbox).await;
    let make = async |path: &str, body: serde_json::Value| {
        server.post(path, body).await.ok(201)["id"].as_str().unwrap().to_owned()
    };
    let project = make("/v1/projects", serde_json::json!({"name": "p"})).await;
    let key = make("/v1/api-keys", serde_json::json!({"name": "k", "role": "viewer"})).await;
    let client = make("/v1/oauth/clients", serde_json::json!({"name": "c", "role": "viewer"})).await;
    let made_up = |path: &str| {
        path.replace(&channel, "chn_01J9Z0000000000000000000AA")
            .replace(&alert, "alr_01J9Z0000000000000000000AA")
            .replace(&webhook, "whk_01J9Z0000000000000000000AA")
            .replace(&project, "prj_01J9Z0000000000000000000AA")
            .replace(&key, "key_01J9Z0000000000000000000AA")
            .replace(&client, "cli_01J9Z0000000000000000000AA")
            .replace("acme", "nobody")
    };
    for path in [
        format!("/v1/channels/{channel}"),
        format!("/v1/alerts/{alert}"),
        format!("/v1/alerts/{alert}/history"),
        format!("/v1/alerts/{alert}/instances"),
        format!("/v1/webhooks/{webhook}"),
        format!("/v1/webhooks/{webhook}/secret"),
        format!("/v1/webhooks/{webhook}/deliveries"),
        format!("/v1/projects/{project}"),
        format!("/v1/api-keys/{key}"),
        format!("/v1/oauth/clients/{client}"),
        "/v1/accounts/acme".to_owned(),
        "/v1/accounts/acme/usage".to_owned(),
        "/v1/accounts/acme/quotas".to_owned(),
    ] {
        let theirs = server.ask(Method::GET, &path).key(&other).send().await;
        let nothing = server.ask(Method::GET, &made_up(&path)).key(&other).send().await;
        assert_eq!(told(&theirs), told(&nothing), "{path}");
        // Within the workspace, the other mode says where it is, if people set it up.
        let mut theirs = told(&server.ask(Method::GET, &path).key(&sandbox).send().await);
        let nothing = told(&server.ask(Method::GET, &made_up(&path)).key(&sandbox).send().await);
        let hint = theirs.as_object_mut().unwrap().remove("hint");
        assert_eq!(hint.is_some(), !path.contains("acme"), "{path}");
        assert_eq!(theirs, nothing, "{path}");
        assert_eq!(server.get(&path).await.status, 200, "{path}");
    }
    let borrowed = serde_json::json!({"account_id": "acme", "rule": "used > 1", "channel": channel});
    server
        .ask(Method::POST, "/v1/alerts")
        .key(&other)
        .json(&borrowed)
        .send()
        .await
        .problem(422, "channel_not_configured");
    for path in [format!("/v1/api-keys/{key}/revoke"), format!("/v1/api-keys/{key}/rotate")] {
        server.ask(Method::POST, &path).key(&other).send().await.problem(404, "resource_not_found");
        server.ask(Method::POST, &path).key(&sandbox).send().await.problem(404, "resource_not_found");
    }
    for path in [
        format!("/v1/channels/{channel}"),
        format!("/v1/alerts/{alert}"),
        format!("/v1/webhooks/{webhook}"),
        format!("/v1/projects/{project}"),
        format!("/v1/oauth/clients/{client}"),
    ] {
        server.ask(Method::DELETE, &path).key(&other).send().await.problem(404, "resource_not_found");
    }
}

/// A problem without what names the request.
fn told(answer: &Answer) -> serde_json::Value {
    let mut body = answer.problem(404, "resource_not_found");
    for name in ["instance", "request_id"] {
        body.as_object_mut().unwrap().remove(name);
    }
    body
}

fn call(server: &Server, operation: &Operation) -> Ask {
    let ask = server.ask(operation.method.clone(), &operation.call());
    match &operation.body {
        Some(body) => ask.json(body),
        None => ask,
    }
}
