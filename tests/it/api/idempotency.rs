//! Requests that are sent again: answered as the first time, or refused, and never done twice.

use crate::server::{Answer, Ask, Server, eventually};
use highwater::domain::id::Mode;
use highwater::domain::time::Millis;
use highwater::runtime::clock;
use reqwest::Method;
use serde_json::{Value, json};

fn with(ask: Ask, key: &str, body: &Value) -> Ask {
    ask.header("idempotency-key", key).json(body)
}

fn account(server: &Server, key: &str, body: &Value) -> Ask {
    with(server.ask(Method::POST, "/v1/accounts"), key, body)
}

#[track_caller]
fn is_replay_of(again: &Answer, first: &Answer) {
    assert_eq!((again.status, again.text()), (first.status, first.text()));
    assert_eq!((first.header("idempotent-replayed"), again.header("idempotent-replayed")), ("", "true"));
    for name in ["location", "etag", "content-type"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    assert_ne!(again.header("x-request-id"), first.header("x-request-id"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repetition_has_the_same_bytes() {
    let mut server = Server::start().await;
    let body = json!({"id": "acme", "name": "Acme", "metadata": {"a": "1", "b": "2"}});
    let first = account(&server, "k1", &body).send().await;
    first.ok(201);
    is_replay_of(&account(&server, "\"k1\"", &body).send().await, &first);
    // Spaces and the order of members are no part of what was asked.
    let spaced = r#"{ "metadata": {"b":"2", "a":"1"}, "name":"Acme","id":"acme"}"#;
    let again =
        server.ask(Method::POST, "/v1/accounts").header("idempotency-key", "k1").kind("application/json").body(spaced);
    is_replay_of(&again.send().await, &first);
    let other = account(&server, "k1", &json!({"id": "other"})).send().await.problem(422, "idempotency_key_reused");
    assert_eq!(other["original_request_id"], first.header("x-request-id"));
    // It is the first answer, also where the resource has another name by then, or is gone, or the server was away.
    server.patch("/v1/accounts/acme", json!({"name": "New"})).await.ok(200);
    is_replay_of(&account(&server, "k1", &body).send().await, &first);
    server.delete("/v1/accounts/acme").await.ok(204);
    server.restart().await;
    is_replay_of(&account(&server, "k1", &body).send().await, &first);
    server.get("/v1/accounts/acme").await.problem(404, "resource_not_found");
    // Numbers are told apart to the last digit.
    let quota = |limit: &str| {
        let body = format!(r#"{{"limit":{limit},"period":"day"}}"#);
        let ask = server.ask(Method::PUT, "/v1/accounts/*/quotas/m").header("idempotency-key", "q");
        ask.kind("application/json").body(body).send()
    };
    quota("900000000000000.000000001").await.ok(201);
    assert_eq!(quota("900000000000000.000000001").await.header("idempotent-replayed"), "true");
    quota("900000000000000.000000002").await.problem(422, "idempotency_key_reused");
    // Another path or method with the key is another request.
    with(server.ask(Method::PUT, "/v1/metrics/m"), "k1", &json!({})).send().await.ok(201);
    with(server.ask(Method::PATCH, "/v1/metrics/m"), "k1", &json!({"unit": "x"})).send().await.ok(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_can_be_repeated() {
    let server = Server::start().await;
    let channel = json!({"type": "webhook", "name": "c", "url": "https://example.com/"});
    let id = server.post("/v1/channels", channel.clone()).await.ok(201)["id"].as_str().unwrap().to_owned();
    let alert = json!({"account_id": "a", "rule": "sum(\"m\") > 5", "channel": id});
    let alert_id = server.post("/v1/alerts", alert.clone()).await.ok(201)["id"].as_str().unwrap().to_owned();
    server.put("/v1/metrics/m", json!({})).await.ok(201);
    server.post("/v1/accounts", json!({"id": "a"})).await.ok(201);
    let path = format!("/v1/alerts/{alert_id}");
    let calls = [
        (Method::PATCH, "/v1/accounts/a".to_owned(), json!({"name": "A"})),
        (Method::PUT, "/v1/accounts/a/quotas/m".to_owned(), json!({"limit": "1.50", "period": "day"})),
        (Method::PUT, "/v1/metrics/m".to_owned(), json!({"unit": "x"})),
        (Method::PATCH, "/v1/metrics/m".to_owned(), json!({"unit": null})),
        (Method::POST, "/v1/channels".to_owned(), channel),
        (Method::PATCH, format!("/v1/channels/{id}"), json!({"name": "d"})),
        (Method::POST, "/v1/alerts".to_owned(), alert),
        (Method::PATCH, path.clone(), json!({"name": "n"})),
        (Method::POST, format!("{path}/pause"), json!({"until": "2999-01-01T00:00:00Z"})),
        (Method::POST, format!("{path}/resume"), json!({})),
    ];
    let ask =
        |(method, path, body): &(Method, String, Value)| with(server.ask(method.clone(), path), "same", body).send();
    let mut firsts = Vec::new();
    for call in &calls {
        firsts.push(ask(call).await);
    }
    // The alert fires meanwhile: what was shown of its state is shown again.
    server.count("a", "m", 6).await;
    assert_eq!(server.get(&path).await.ok(200)["state"], "firing");
    for (call, first) in calls.iter().zip(&firsts) {
        is_replay_of(&ask(call).await, first);
    }
    assert!(firsts[4].ok(201)["secret"].as_str().unwrap().starts_with("whsec_"), "a repetition has the secret");
    // Also where all of it is gone.
    let made = firsts[6].ok(201)["id"].as_str().unwrap().to_owned();
    for gone in [
        path,
        format!("/v1/alerts/{made}"),
        format!("/v1/channels/{id}"),
        "/v1/metrics/m".to_owned(),
        "/v1/accounts/a".to_owned(),
    ] {
        server.delete(&gone).await.ok(204);
    }
    for (call, first) in calls.iter().zip(&firsts) {
        is_replay_of(&ask(call).await, first);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_refused_for_the_state_is_refused_again() {
    let server = Server::start().await;
    let body = json!({"id": "acme"});
    server.post("/v1/accounts", body.clone()).await.ok(201);
    account(&server, "k", &body).send().await.problem(409, "resource_conflict");
    server.delete("/v1/accounts/acme").await.ok(204);
    let again = account(&server, "k", &body).send().await;
    again.problem(409, "resource_conflict");
    assert_eq!(again.header("idempotent-replayed"), "true");
    // What was refused for its shape, its rights or its version did not use the key up.
    account(&server, "shape", &json!({"id": "a b"})).send().await.problem(422, "validation_failed");
    account(&server, "shape", &json!({"id": "ab"})).send().await.ok(201);
    let patch = |etag: &str| {
        with(server.ask(Method::PATCH, "/v1/accounts/ab"), "v", &json!({"name": "x"})).header("if-match", etag)
    };
    patch("\"9\"").send().await.problem(412, "version_mismatch");
    patch("\"1\"").send().await.ok(200);
    // The rights are looked at again.
    let reader = server.key_with(&[highwater::domain::control::resource::Scope::ReadAccounts]).await;
    account(&server, "shape", &json!({"id": "ab"})).key(&reader).send().await.problem(403, "insufficient_scope");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_at_once_make_one() {
    let server = Server::start().await;
    let body = json!({"type": "webhook", "name": "c", "url": "https://example.com/"});
    let asks = (0..50).map(|_| with(server.ask(Method::POST, "/v1/channels"), "same", &body).send());
    let tasks: Vec<_> = asks.map(tokio::spawn).collect();
    let mut made = Vec::new();
    for task in tasks {
        let answer = task.await.unwrap();
        if answer.status == 201 {
            made.push(answer);
        } else {
            answer.problem(409, "idempotency_in_progress");
            assert_eq!(answer.header("retry-after"), "1");
        }
    }
    assert!(!made.is_empty() && made.iter().all(|answer| answer.text() == made[0].text()));
    assert_eq!(made.iter().filter(|answer| answer.header("idempotent-replayed").is_empty()).count(), 1);
    assert_eq!(server.get("/v1/channels").await.ok(200)["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_the_callers_own() {
    let server = Server::start().await;
    let body = json!({"id": "acme"});
    let mine = account(&server, "k", &body).send().await;
    mine.ok(201);
    let other = server.owner_of(server.new_workspace().await, Mode::Live).await;
    let sandbox = server.owner_of(server.workspace, Mode::Sandbox).await;
    for key in [&other, &sandbox] {
        let theirs = account(&server, "k", &body).key(key).send().await;
        assert_eq!((theirs.status, theirs.header("idempotent-replayed")), (201, ""));
    }
    // Another credential of the workspace has keys of its own.
    let second = server.owner_of(server.workspace, Mode::Live).await;
    account(&server, "k", &body).key(&second).send().await.problem(409, "resource_conflict");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_key_looks_like() {
    let server = Server::start().await;
    let body = json!({"id": "acme"});
    for bad in ["", "\"\"", "\"torn", "with space", "ünï", &"k".repeat(256), "tab\tkey"] {
        account(&server, bad, &body).send().await.problem(400, "idempotency_key_invalid");
    }
    account(&server, "one", &body)
        .header("idempotency-key", "two")
        .send()
        .await
        .problem(400, "idempotency_key_invalid");
    account(&server, &"k".repeat(255), &body).send().await.ok(201);
    // Deleting needs none, and reading has no use for one.
    let get = server.ask(Method::GET, "/v1/accounts/acme").header("idempotency-key", "");
    get.send().await.ok(200);
    let delete = server.ask(Method::DELETE, "/v1/accounts/acme").header("idempotency-key", "k");
    delete.send().await.ok(204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_under_way_names_the_request_that_it_is_of() {
    let server = Server::start().await;
    let asks = (0..30).map(|n| account(&server, "same", &json!({"id": format!("a{n}")})).send());
    let tasks: Vec<_> = asks.map(tokio::spawn).collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 201);
    assert_eq!((made.len(), refused.len()), (1, 29));
    for answer in refused {
        let problem = answer.problem(422, "idempotency_key_reused");
        assert_eq!(problem["original_request_id"], made[0].header("x-request-id"), "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_shown_of_the_time_is_shown_again() {
    let server = Server::start().await;
    let soon = clock::now().plus(Millis::seconds(1));
    let silence = json!({"matchers": [{"name": "account_id", "value": "acme"}],
        "starts_at": soon.to_string(), "ends_at": soon.plus(Millis::hours(1)).to_string()});
    let create = || with(server.ask(Method::POST, "/v1/silences"), "silence", &silence).send();
    let made = create().await;
    let silence = made.ok(201);
    assert_eq!(silence["status"], "pending");
    let hook = json!({"url": "https://example.com/hook", "event_types": ["alert.*"]});
    let id = server.post("/v1/webhooks", hook).await.ok(201)["id"].as_str().unwrap().to_owned();
    let rotate = || {
        let ask = server.ask(Method::POST, &format!("/v1/webhooks/{id}/rotate-secret"));
        with(ask, "secret", &json!({"grace_seconds": 1})).send()
    };
    let rotated = rotate().await;
    assert!(rotated.ok(201)["previous_until"].is_string());
    let path = format!("/v1/silences/{}", silence["id"].as_str().unwrap());
    eventually("the silence and the end of the grace", async || {
        let secret = server.get(&format!("/v1/webhooks/{id}/secret")).await.ok(200);
        let is_active = server.get(&path).await.ok(200)["status"] == "active";
        (is_active && secret["previous_until"].is_null()).then_some(())
    })
    .await;
    is_replay_of(&create().await, &made);
    is_replay_of(&rotate().await, &rotated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_of_a_key_is_counted() {
    let server = Server::start().await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let count = async |outcome: &str| {
        let metrics =
            http.get(format!("http://{}/metrics", server.admin())).send().await.unwrap().text().await.unwrap();
        let name = format!("highwater_idempotency_total{{outcome=\"{outcome}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap_or(0)
    };
    // Other tests count, too: it is at least so many more.
    let before = (count("new").await, count("replayed").await, count("reused").await);
    account(&server, "k", &json!({"id": "acme"})).send().await.ok(201);
    account(&server, "k", &json!({"id": "acme"})).send().await.ok(201);
    for id in ["b", "c"] {
        account(&server, "k", &json!({"id": id})).send().await.problem(422, "idempotency_key_reused");
    }
    assert!(count("new").await > before.0);
    assert!(count("replayed").await > before.1);
    assert!(count("reused").await > before.2 + 1);
}
