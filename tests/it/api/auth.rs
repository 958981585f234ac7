//! Who is let in: every shape of a credential.

use super::operations::{self, Operation};
use crate::server::{Ask, Server};
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

fn call(server: &Server, operation: &Operation) -> Ask {
    let ask = server.ask(operation.method.clone(), &operation.call());
    match &operation.body {
        Some(body) => ask.json(body),
        None => ask,
    }
}
