//! OAuth 2.0 for machines: client credentials, revocation, metadata, and how tokens end.

use crate::server::{Answer, Ask, Options, Server, unhurried};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use highwater::api::{Front, Rates};
use reqwest::Method;
use serde_json::{Value, json};

pub(super) async fn client(server: &Server, body: Value) -> (String, String) {
    let made = server.post("/v1/oauth/clients", body).await.ok(201);
    (made["client_id"].as_str().unwrap().to_owned(), made["client_secret"].as_str().unwrap().to_owned())
}

pub(super) fn form(ask: Ask, fields: &[(&str, &str)]) -> Ask {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    ask.anonymous().kind("application/x-www-form-urlencoded").body(body)
}

pub(super) fn basic(ask: Ask, (id, secret): (&str, &str)) -> Ask {
    ask.header("authorization", &format!("Basic {}", STANDARD.encode(format!("{id}:{secret}"))))
}

async fn token(server: &Server, (id, secret): (&str, &str), scope: &str) -> Answer {
    let fields = [("grant_type", "client_credentials"), ("scope", scope)];
    basic(form(server.ask(Method::POST, "/v1/oauth/token"), &fields), (id, secret)).send().await
}

pub(super) async fn access(server: &Server, client: (&str, &str), scope: &str) -> String {
    token(server, client, scope).await.ok(200)["access_token"].as_str().unwrap().to_owned()
}

async fn whoami(server: &Server, token: &str) -> Answer {
    server.ask(Method::GET, "/v1/whoami").key(token).send().await
}

#[track_caller]
fn refused(answer: &Answer, status: u16, error: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["error"], error, "{body}");
    assert!(body["error_description"].as_str().is_some_and(|text| !text.is_empty()) && body.get("code").is_none());
    assert_eq!((answer.header("content-type"), answer.header("cache-control")), ("application/json", "no-store"));
    let challenge = if status == 401 { "Basic realm=\"highwater\"" } else { "" };
    assert_eq!(answer.header("www-authenticate"), challenge);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_fetches_tokens_in_both_ways() {
    let server = Server::start().await;
    let made = server.post("/v1/oauth/clients", json!({"name": "c", "scope": "write:alerts read:usage"})).await;
    let body = made.ok(201);
    let (id, secret) = (body["client_id"].as_str().unwrap(), body["client_secret"].as_str().unwrap());
    assert!(id.starts_with("cli_") && secret.starts_with("cs_live_"), "{body}");
    assert_eq!(body["scope"], json!(["read:alerts", "read:usage", "write:alerts"]));
    assert_eq!(made.header("cache-control"), "no-store");
    let answer = token(&server, (id, secret), "read:usage").await;
    let body = answer.ok(200);
    assert_eq!(
        (&body["token_type"], &body["expires_in"], &body["scope"]),
        (&json!("Bearer"), &json!(3600), &json!("read:usage"))
    );
    assert_eq!((answer.header("cache-control"), answer.header("pragma")), ("no-store", "no-cache"));
    let token = body["access_token"].as_str().unwrap();
    assert!(token.starts_with("pat_live_"));
    let who = whoami(&server, token).await.ok(200);
    assert_eq!((&who["client_id"], &who["key_id"], &who["name"]), (&json!(id), &json!(null), &json!("c")));
    assert_eq!(who["scopes"], json!(["read:usage"]));
    assert!(who["expires_at"].is_string());
    server.ask(Method::GET, "/v1/alerts").key(token).send().await.problem(403, "insufficient_scope");
    // In the form, and with all that the client has.
    let fields =
        [("grant_type", "client_credentials"), ("client_id", id), ("client_secret", secret), ("resource", "x")];
    let posted = form(server.ask(Method::POST, "/v1/oauth/token"), &fields).send().await.ok(200);
    assert_eq!(posted["scope"], "read:alerts read:usage write:alerts");
    let token = posted["access_token"].as_str().unwrap();
    server.ask(Method::GET, "/v1/alerts").key(token).send().await.ok(200);
    // What it does is done under its name.
    let listed = server.get("/v1/oauth/clients").await;
    let item = &listed.ok(200)["items"][0];
    assert!(item["last_used_at"].is_string() && item.get("client_secret").is_none(), "{item}");
    assert!(!listed.text().contains(&secret[22..]) && !listed.text().contains("hash"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_have_the_form_of_oauth() {
    let server = Server::start().await;
    let (id, secret) = client(&server, json!({"name": "c", "role": "viewer"})).await;
    let own = (id.as_str(), secret.as_str());
    let ask = || server.ask(Method::POST, "/v1/oauth/token");
    let grant = ("grant_type", "client_credentials");
    refused(&basic(form(ask(), &[("grant_type", "password")]), own).send().await, 400, "unsupported_grant_type");
    refused(&basic(form(ask(), &[]), own).send().await, 400, "invalid_request");
    refused(&basic(form(ask(), &[grant, grant]), own).send().await, 400, "invalid_request");
    refused(&token(&server, own, "read:usage write:keys").await, 400, "invalid_scope");
    refused(&token(&server, own, "read:everything").await, 400, "invalid_scope");
    let both = form(ask(), &[grant, ("client_id", own.0), ("client_secret", own.1)]);
    refused(&basic(both, own).send().await, 400, "invalid_request");
    let json = ask().anonymous().json(&json!({"grant_type": "client_credentials"}));
    refused(&basic(json, own).send().await, 400, "invalid_request");
    refused(&basic(form(ask(), &[grant, ("pad", &"x".repeat(20_000))]), own).send().await, 413, "invalid_request");
    refused(&form(ask(), &[grant]).send().await, 401, "invalid_client");
    refused(&form(ask(), &[grant, ("client_id", own.0)]).send().await, 401, "invalid_client");
    for (id, secret) in [
        (own.0, "wrong"),
        (own.0, ""),
        ("cli_01J9Z0000000000000000000AA", own.1),
        ("nobody", own.1),
        ("", ""),
        (own.0, &own.1[..40]),
    ] {
        refused(&token(&server, (id, secret), "").await, 401, "invalid_client");
    }
    for header in ["Basic", "Basic !!!", "Basic eA==", "Bearer x", "Digest x"] {
        refused(&form(ask(), &[grant]).header("authorization", header).send().await, 401, "invalid_client");
    }
    // An API key is no client, and Basic lets nobody in elsewhere.
    refused(
        &form(ask(), &[grant]).header("authorization", &format!("Bearer {}", server.key)).send().await,
        401,
        "invalid_client",
    );
    let elsewhere = basic(server.ask(Method::GET, "/v1/whoami").anonymous(), own).send().await;
    elsewhere.problem(401, "invalid_api_key");
    refused(&server.get("/v1/oauth/token").await, 405, "invalid_request");
}

/// Row 6 of the security checklist, as far as tokens go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_ended_is_refused_on_its_next_request() {
    let mut server = Server::start().await;
    let (id, secret) = client(&server, json!({"name": "c", "role": "viewer"})).await;
    let own = (id.as_str(), secret.as_str());
    let (first, second) = (access(&server, own, "").await, access(&server, own, "").await);
    let revoke = |server: &Server, token: &str, client: (&str, &str)| {
        basic(form(server.ask(Method::POST, "/v1/oauth/revoke"), &[("token", token)]), client).send()
    };
    // Neither an unknown token, nor one of another client, nor a key of the workspace ends anything.
    let (other, other_secret) = client(&server, json!({"name": "d", "role": "viewer"})).await;
    assert_eq!(revoke(&server, "pat_live_nonsense", own).await.status, 200);
    assert_eq!(revoke(&server, &server.key, own).await.status, 200);
    assert_eq!(revoke(&server, &first, (&other, &other_secret)).await.status, 200);
    refused(&revoke(&server, &first, (&id, "wrong")).await, 401, "invalid_client");
    refused(&basic(form(server.ask(Method::POST, "/v1/oauth/revoke"), &[]), own).send().await, 400, "invalid_request");
    for token in [&first, &second] {
        whoami(&server, token).await.ok(200);
    }
    let ended = revoke(&server, &first, own).await;
    assert_eq!((ended.status, ended.header("cache-control")), (200, "no-store"));
    whoami(&server, &first).await.problem(401, "api_key_revoked");
    assert_eq!(revoke(&server, &first, own).await.status, 200, "it is so already");
    whoami(&server, &second).await.ok(200);
    // Both hold behind a restart.
    server.restart().await;
    whoami(&server, &first).await.problem(401, "api_key_revoked");
    whoami(&server, &second).await.ok(200);
    server.delete(&format!("/v1/oauth/clients/{id}")).await.ok(204);
    let gone = whoami(&server, &second).await;
    gone.problem(401, "api_key_revoked");
    assert_eq!(gone.header("www-authenticate"), "Bearer realm=\"highwater\", error=\"invalid_token\"");
    refused(&token(&server, own, "").await, 401, "invalid_client");
    let mut forged = second.clone();
    let at = forged.len() - 30;
    forged.replace_range(at..=at, if &second[at..=at] == "A" { "B" } else { "A" });
    whoami(&server, &forged).await.problem(401, "invalid_api_key");
    whoami(&server, &format!("pat_live_{}", "A".repeat(10_000))).await.problem(401, "invalid_api_key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_lives_no_longer_than_the_secret_it_was_issued_for() {
    let server = Server::start().await;
    let (id, first) = client(&server, json!({"name": "c", "role": "viewer", "expires_in": "30m"})).await;
    let answer = token(&server, (&id, &first), "").await.ok(200);
    let seconds = answer["expires_in"].as_i64().unwrap();
    assert!((1..=1_800).contains(&seconds), "it ends with its client: {seconds}");
    let old = answer["access_token"].as_str().unwrap().to_owned();
    let path = format!("/v1/oauth/clients/{id}/rotate-secret");
    let rotated = server.post(&path, json!({"grace_seconds": 3_600})).await.ok(200);
    let second = rotated["client_secret"].as_str().unwrap().to_owned();
    assert_eq!((&rotated["client_id"], &rotated["version"]), (&json!(id), &json!(2)));
    whoami(&server, &old).await.ok(200);
    access(&server, (&id, &first), "").await;
    let new = access(&server, (&id, &second), "").await;
    // A leak is answered with a grace of nothing: the secrets before and all that was issued for them end at once.
    let third = server.post(&path, json!({"grace_seconds": 0})).await.ok(200);
    for secret in [&first, &second] {
        refused(&token(&server, (&id, secret), "").await, 401, "invalid_client");
    }
    for token in [&old, &new] {
        whoami(&server, token).await.problem(401, "api_key_revoked");
    }
    access(&server, (&id, third["client_secret"].as_str().unwrap()), "").await;
    for _ in 0..3 {
        server.post(&path, json!({})).await.ok(200);
    }
    server.post(&path, json!({})).await.problem(409, "limit_reached");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_hands_on_no_more_than_it_has() {
    let server = Server::start().await;
    let (id, secret) = client(&server, json!({"name": "c", "scope": "write:keys read:usage"})).await;
    let token = access(&server, (&id, &secret), "").await;
    let make = |body: Value| server.ask(Method::POST, "/v1/api-keys").key(&token).json(&body).send();
    make(json!({"name": "x", "role": "viewer"})).await.problem(403, "scope_escalation");
    make(json!({"name": "x", "scope": "read:usage", "expires_in": "2h"})).await.problem(403, "scope_escalation");
    let made = make(json!({"name": "x", "scope": "read:usage"})).await.ok(201);
    assert!(made["expires_at"].is_string(), "it ends with the token: {made}");
    // Of fewer scopes, fewer still.
    let narrow = access(&server, (&id, &secret), "read:usage").await;
    server.ask(Method::GET, "/v1/api-keys").key(&narrow).send().await.problem(403, "insufficient_scope");
    // Sandbox clients have sandbox tokens.
    let body = json!({"name": "s", "role": "viewer", "mode": "sandbox"});
    let (id, secret) = client(&server, body).await;
    assert!(secret.starts_with("cs_test_"));
    let token = access(&server, (&id, &secret), "").await;
    assert!(token.starts_with("pat_test_"));
    assert_eq!(whoami(&server, &token).await.ok(200)["mode"], "sandbox");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_describes_itself() {
    let server = Server::start().await;
    let found = server.ask(Method::GET, "/.well-known/oauth-authorization-server").anonymous().send().await.ok(200);
    assert_eq!(found["issuer"], "http://highwater.test");
    assert_eq!(found["token_endpoint"], "http://highwater.test/v1/oauth/token");
    assert_eq!(found["revocation_endpoint"], "http://highwater.test/v1/oauth/revoke");
    assert_eq!(found["grant_types_supported"], json!(["client_credentials"]));
    assert_eq!(found["token_endpoint_auth_methods_supported"], json!(["client_secret_basic", "client_secret_post"]));
    assert!(found["scopes_supported"].as_array().unwrap().contains(&json!("read:usage")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_and_requests_for_tokens_are_limited() {
    let rates = Rates { auth_failures: 3, live: 4, ..unhurried() };
    let front = Front { rates, ..Front::default() };
    let server = Server::start_with(Options { front, ..Options::default() }).await;
    let (id, secret) = client(&server, json!({"name": "c", "role": "viewer"})).await;
    for _ in 0..3 {
        refused(&token(&server, (&id, "wrong"), "").await, 401, "invalid_client");
    }
    let often = token(&server, (&id, "wrong"), "").await;
    assert_eq!((often.status, often.header("content-type")), (429, "application/json"), "{}", often.text());
    assert!(often.header("retry-after").parse::<u32>().unwrap() >= 1);
    // Who has the secret is not held up by who has not, and asks as often as its limit allows: tokens share it.
    let first = token(&server, (&id, &secret), "").await;
    assert_eq!((first.status, first.header("x-ratelimit-remaining")), (200, "3"));
    let access = first.json()["access_token"].as_str().unwrap().to_owned();
    let who = whoami(&server, &access).await;
    assert_eq!(who.ok(200)["rate_limits"][0], json!({"policy": "default", "limit": 4, "window": "1m"}));
    assert_eq!(who.header("x-ratelimit-remaining"), "2");
    token(&server, (&id, &secret), "").await.ok(200);
    token(&server, (&id, &secret), "").await.ok(200);
    let spent = token(&server, (&id, &secret), "").await;
    assert_eq!((spent.status, spent.json()["error"].as_str()), (429, Some("temporarily_unavailable")));
    whoami(&server, &access).await.problem(429, "rate_limited");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_before_a_form_is_read_is_told_in_its_form_too() {
    let server = Server::start().await;
    for path in ["/v1/oauth/token", "/v1/oauth/revoke"] {
        let wrong = server.ask(Method::GET, path).anonymous().send().await;
        refused(&wrong, 405, "invalid_request");
        assert_eq!(wrong.header("allow"), "POST");
        refused(&server.ask(Method::DELETE, path).send().await, 405, "invalid_request");
        let post = |encoding: &str, body: &str| {
            let ask = form(server.ask(Method::POST, path), &[]).header("content-encoding", encoding);
            ask.body(body.to_owned()).send()
        };
        refused(&post("br", "x").await, 415, "invalid_request");
        refused(&post("gzip", "x").await, 415, "invalid_request");
        refused(&post("identity", &"x".repeat(11 << 20)).await, 413, "invalid_request");
    }
    // Other paths of OAuth are the API's own.
    server.ask(Method::PUT, "/v1/oauth/clients").send().await.problem(405, "method_not_allowed");
}
