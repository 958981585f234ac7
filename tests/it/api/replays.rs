//! Repetitions and credentials: who may have an answer again, and what of it is kept (row 35 of the security checklist).

use crate::server::{Answer, Server};
use highwater::domain::control::resource::Scope;
use highwater::domain::id::{KeyId, Mode, Tenant};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;

async fn post(server: &Server, key: &str, path: &str, body: &Value) -> Answer {
    server.ask(Method::POST, path).key(key).header("idempotency-key", "same").json(body).send().await
}

fn text(body: &Value, name: &str) -> String {
    body[name].as_str().unwrap_or_else(|| panic!("{name} in {body}")).to_owned()
}

#[track_caller]
fn is_replay_of(again: &Answer, first: &Answer) {
    assert_eq!((again.status, again.text()), (first.status, first.text()));
    assert_eq!((first.header("idempotent-replayed"), again.header("idempotent-replayed")), ("", "true"));
    for name in ["location", "etag", "content-type", "cache-control"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_key_and_its_successor_share_their_repetitions() {
    let server = Server::start().await;
    let made = server.post("/v1/api-keys", json!({"name": "k", "role": "admin"})).await.ok(201);
    let (old, id) = (text(&made, "key"), text(&made, "id"));
    let body = json!({"id": "acme"});
    let first = post(&server, &old, "/v1/accounts", &body).await;
    first.ok(201);
    // It replaces itself; the repetition of that comes from its successor, too.
    let path = format!("/v1/api-keys/{id}/rotate");
    let rotated = post(&server, &old, &path, &json!({})).await;
    let new = text(&rotated.ok(201), "key");
    is_replay_of(&post(&server, &new, "/v1/accounts", &body).await, &first);
    is_replay_of(&post(&server, &old, "/v1/accounts", &body).await, &first);
    is_replay_of(&post(&server, &new, &path, &json!({})).await, &rotated);
    let other = server.owner_of(server.workspace, Mode::Live).await;
    post(&server, &other, "/v1/accounts", &body).await.problem(409, "resource_conflict");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_are_looked_at_before_an_answer_is_repeated() {
    let server = Server::start().await;
    let tenant = Tenant { workspace: server.workspace, mode: Mode::Live };
    let made = server.post("/v1/api-keys", json!({"name": "k", "scope": "write:keys"})).await.ok(201);
    let (key, id) = (text(&made, "key"), text(&made, "id"));
    let body = json!({"name": "x", "scope": "write:keys"});
    let first = post(&server, &key, "/v1/api-keys", &body).await;
    first.ok(201);
    is_replay_of(&post(&server, &key, "/v1/api-keys", &body).await, &first);
    // The same lineage with less: its repetition of the same request is refused, and shows nothing of the answer.
    let lineage: KeyId = id.parse().unwrap();
    let (less, _) = server.new_key_of(tenant, [Scope::ReadKeys].into(), Some(lineage)).await;
    let refused = post(&server, &less, "/v1/api-keys", &body).await;
    refused.problem(403, "insufficient_scope");
    assert!(!refused.text().contains("pk_live_"));
    server.post(&format!("/v1/api-keys/{id}/revoke"), json!({})).await.ok(200);
    post(&server, &key, "/v1/api-keys", &body).await.problem(401, "api_key_revoked");
    // Whoever narrows its networks keeps it from repetitions elsewhere.
    let made = server.post("/v1/api-keys", json!({"name": "k", "scope": "write:keys"})).await.ok(201);
    let (key, id) = (text(&made, "key"), text(&made, "id"));
    post(&server, &key, "/v1/api-keys", &body).await.ok(201);
    server.patch(&format!("/v1/api-keys/{id}"), json!({"allowed_ips": ["192.0.2.1"]})).await.ok(200);
    post(&server, &key, "/v1/api-keys", &body).await.problem(403, "ip_not_allowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_come_back_equal_and_are_nowhere_on_disk() {
    let mut server = Server::start().await;
    let owner = server.key.clone();
    let project = server.post("/v1/projects", json!({"name": "p", "env": "dev"})).await.ok(201);
    let body = json!({"name": "k", "role": "viewer", "project_ids": [text(&project, "id")]});
    let key = post(&server, &owner, "/v1/api-keys", &body).await;
    let key_id = text(&key.ok(201), "id");
    let rotate = format!("/v1/api-keys/{key_id}/rotate");
    let rotated = post(&server, &owner, &rotate, &json!({})).await;
    let client = post(&server, &owner, "/v1/oauth/clients", &body).await;
    let secret = format!("/v1/oauth/clients/{}/rotate-secret", text(&client.ok(201), "id"));
    let replaced = post(&server, &owner, &secret, &json!({})).await;
    let unrepeatable = server.post("/v1/api-keys", json!({"name": "u", "role": "viewer"})).await;
    // What is shown of the surroundings is what was shown: the project's environment, no later use, no later end.
    let path = format!("/v1/projects/{}", text(&project, "id"));
    server.patch(&path, json!({"env": "prod"})).await.ok(200);
    server.ask(Method::GET, "/v1/whoami").key(&text(&rotated.ok(201), "key")).send().await.ok(200);
    let revoke = format!("/v1/api-keys/{}/revoke", text(&rotated.ok(201), "id"));
    server.post(&revoke, json!({})).await.ok(200);
    server.settle().await;
    for round in 0..2 {
        is_replay_of(&post(&server, &owner, "/v1/api-keys", &body).await, &key);
        is_replay_of(&post(&server, &owner, &rotate, &json!({})).await, &rotated);
        is_replay_of(&post(&server, &owner, "/v1/oauth/clients", &body).await, &client);
        is_replay_of(&post(&server, &owner, &secret, &json!({})).await, &replaced);
        if round == 0 {
            server.restart().await;
        }
    }
    let other = post(&server, &owner, "/v1/api-keys", &json!({"name": "other", "role": "viewer"})).await;
    other.problem(422, "idempotency_key_reused");
    let mut secrets: Vec<String> = [&key, &rotated, &unrepeatable].map(|answer| text(&answer.ok(201), "key")).into();
    secrets.push(text(&client.ok(201), "client_secret"));
    secrets.push(text(&replaced.ok(200), "client_secret"));
    secrets.push(owner);
    // What is looked for is found where it is: ids are in the clear.
    assert!(is_on_disk(&server.data(), &key_id));
    for secret in &secrets {
        assert!(!is_on_disk(&server.data(), &secret[22..]), "a secret is on disk");
    }
}

/// Looks for a text in every file.
fn is_on_disk(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return is_on_disk(&path, text);
        }
        let bytes = std::fs::read(&path).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}
