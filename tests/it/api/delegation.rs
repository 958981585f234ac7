//! What a credential hands on, changes and ends: nothing beyond its own scopes, projects and addresses.

use super::oauth::{access, basic, form};
use crate::server::{Answer, Ask, Options, Server, unhurried};
use highwater::api::Front;
use reqwest::Method;
use serde_json::{Value, json};

/// Where a bound key works from, and where it does not.
const INSIDE: &str = "10.1.2.3";
const OUTSIDE: &str = "203.0.113.7";

/// A server whose clients say where they are.
async fn server() -> Server {
    let proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let front = Front { rates: unhurried(), trusted_proxies: proxies, ..Front::default() };
    Server::start_with(Options { front, ..Options::default() }).await
}

fn from(ask: Ask, address: &str) -> Ask {
    ask.header("x-forwarded-for", address)
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("{name} of {value}")).to_owned()
}

async fn key(server: &Server, body: Value) -> Value {
    server.post("/v1/api-keys", body).await.ok(201)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_key_mints_nothing_unbound_and_lifts_no_bound() {
    let server = server().await;
    let bound =
        key(&server, json!({"name": "b", "role": "owner", "allowed_ips": ["10.0.0.0/9", "10.128.0.0/9"]})).await;
    let (id, bound) = (text(&bound, "id"), text(&bound, "key"));
    let ask = |method: Method, path: &str, body: Value| {
        let ask = from(server.ask(method, path).key(&bound), INSIDE).json(&body);
        async move { ask.send().await }
    };
    for path in ["/v1/api-keys", "/v1/oauth/clients"] {
        let make = |body: Value| ask(Method::POST, path, body);
        for beyond in
            [json!([]), json!(["0.0.0.0/0"]), json!(["10.0.0.0/7"]), json!(["10.1.0.0/16", "::/0"]), json!([OUTSIDE])]
        {
            let body = json!({"name": "x", "scope": "read:usage", "allowed_ips": beyond});
            let problem = make(body).await.problem(403, "scope_escalation");
            assert!(problem["allowed_ips"].is_array(), "{problem}");
        }
        let own = make(json!({"name": "x", "scope": "read:usage"})).await.ok(201);
        assert_eq!(
            own["allowed_ips"],
            json!(["10.0.0.0/9", "10.128.0.0/9"]),
            "what it does not name is as it is bound"
        );
        let narrower = json!({"name": "x", "scope": "write:keys", "allowed_ips": ["10.0.0.0/8"]});
        let narrower = make(narrower).await.ok(201);
        // What it made can be narrowed, and not be lifted.
        let made = format!("{path}/{}", text(&narrower, "id"));
        ask(Method::PATCH, &made, json!({"allowed_ips": ["10.1.0.0/16"]})).await.ok(200);
        for lifted in [json!(null), json!([]), json!([OUTSIDE])] {
            ask(Method::PATCH, &made, json!({"allowed_ips": lifted})).await.problem(403, "scope_escalation");
        }
    }
    let own = format!("/v1/api-keys/{id}");
    for lifted in [json!(null), json!([]), json!(["0.0.0.0/0", "::/0"])] {
        ask(Method::PATCH, &own, json!({"allowed_ips": lifted})).await.problem(403, "scope_escalation");
    }
    ask(Method::PATCH, &own, json!({"allowed_ips": ["10.1.0.0/16"]})).await.ok(200);
    // Its successor is bound as it is.
    let next = ask(Method::POST, &format!("{own}/rotate"), json!({})).await.ok(201);
    assert_eq!(next["allowed_ips"], json!(["10.1.0.0/16"]));
    let outside = from(server.ask(Method::GET, "/v1/whoami").key(&text(&next, "key")), OUTSIDE).send().await;
    outside.problem(403, "ip_not_allowed");
}

/// What may be done to a key or a client, by its path.
fn deeds(kind: &str, id: &str) -> Vec<(Method, String, Value)> {
    let path = format!("/v1/{kind}/{id}");
    let change = |body: Value| (Method::PATCH, path.clone(), body);
    let mut deeds = vec![change(json!({"name": "taken"})), change(json!({"allowed_ips": ["10.9.9.9"]}))];
    if kind == "api-keys" {
        deeds.push((Method::POST, format!("{path}/rotate"), json!({"grace_seconds": 0})));
        deeds.push((Method::POST, format!("{path}/revoke"), json!({})));
    } else {
        deeds.push((Method::POST, format!("{path}/rotate-secret"), json!({"grace_seconds": 0})));
        deeds.push((Method::DELETE, path, json!({})));
    }
    deeds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_touches_what_has_more_rights() {
    let server = server().await;
    let one = text(&server.post("/v1/projects", json!({"name": "one", "env": "dev"})).await.ok(201), "id");
    let two = text(&server.post("/v1/projects", json!({"name": "two", "env": "dev"})).await.ok(201), "id");
    let by =
        json!({"name": "by", "scope": "write:keys read:usage", "project_ids": [one], "allowed_ips": ["10.0.0.0/8"]});
    let by = key(&server, by).await;
    let (own, by) = (text(&by, "id"), text(&by, "key"));
    let send = async |(method, path, body): (Method, String, Value)| -> Answer {
        let ask = from(server.ask(method.clone(), &path).key(&by), INSIDE);
        if method == Method::DELETE { ask.send().await } else { ask.json(&body).send().await }
    };
    let within = json!({"name": "v", "scope": "read:usage", "project_ids": [one], "allowed_ips": ["10.1.0.0/16"]});
    let with = |name: &str, value: Value| {
        let mut body = within.clone();
        body[name] = value;
        body
    };
    // Others' projects are not seen at all.
    let stronger = [
        (with("scope", json!("read:usage write:alerts")), 403, "scope_escalation"),
        (with("allowed_ips", json!([])), 403, "scope_escalation"),
        (with("allowed_ips", json!(["10.1.0.0/16", OUTSIDE])), 403, "scope_escalation"),
        (with("project_ids", json!([one, two])), 404, "resource_not_found"),
        (json!({"name": "owner", "role": "owner"}), 404, "resource_not_found"),
    ];
    for kind in ["api-keys", "oauth/clients"] {
        for (body, status, code) in &stronger {
            let made = server.post(&format!("/v1/{kind}"), body.clone()).await.ok(201);
            for deed in deeds(kind, &text(&made, "id")) {
                send(deed).await.problem(*status, code);
            }
            let after = server.get(&format!("/v1/{kind}/{}", text(&made, "id"))).await.ok(200);
            assert_eq!(
                (&after["version"], &after["status"]),
                (&json!(1), &json!("active")),
                "nothing came of it: {after}"
            );
        }
        let made = server.post(&format!("/v1/{kind}"), within.clone()).await.ok(201);
        for deed in deeds(kind, &text(&made, "id")) {
            // A replaced key is revoked all the same.
            let answer = send(deed).await;
            assert!((200..300).contains(&answer.status), "{}", answer.text());
        }
    }
    // A key with `write:keys` alone does nothing to an owner's, and any key ends itself.
    let plain = text(&key(&server, json!({"name": "p", "scope": "write:keys"})).await, "key");
    let owner = text(&key(&server, json!({"name": "o", "role": "owner"})).await, "id");
    for (method, path, body) in deeds("api-keys", &owner) {
        server.ask(method, &path).key(&plain).json(&body).send().await.problem(403, "scope_escalation");
    }
    send((Method::POST, format!("/v1/api-keys/{own}/revoke"), json!({}))).await.ok(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_works_from_its_networks_alone() {
    let server = server().await;
    let made =
        server.post("/v1/oauth/clients", json!({"name": "c", "role": "viewer", "allowed_ips": ["10.1.2.3/8"]})).await;
    let made = made.ok(201);
    assert_eq!(made["allowed_ips"], json!(["10.0.0.0/8"]));
    let (id, secret) = (text(&made, "id"), text(&made, "client_secret"));
    let path = format!("/v1/oauth/clients/{id}");
    let token = async |secret: &str, address: &str| {
        let ask = form(server.ask(Method::POST, "/v1/oauth/token"), &[("grant_type", "client_credentials")]);
        from(basic(ask, (&id, secret)), address).send().await
    };
    let outside = token(&secret, OUTSIDE).await;
    assert_eq!((outside.status, &outside.json()["error"]), (401, &json!("invalid_client")));
    assert!(outside.text().contains("may not be used from this address"), "{}", outside.text());
    let guessed = token("cs_live_wrong", OUTSIDE).await;
    assert!(!guessed.text().contains("address"), "who does not hold the secret learns nothing: {}", guessed.text());
    let token = text(&token(&secret, INSIDE).await.ok(200), "access_token");
    let whoami = async |address: &str| from(server.ask(Method::GET, "/v1/whoami").key(&token), address).send().await;
    whoami(INSIDE).await.ok(200);
    whoami(OUTSIDE).await.problem(403, "ip_not_allowed");
    // A change holds for tokens that were issued before it.
    let changed = server.patch(&path, json!({"allowed_ips": [OUTSIDE], "name": "n", "metadata": {"a": "b"}})).await;
    let changed = changed.ok(200);
    assert_eq!(
        (&changed["name"], &changed["metadata"], &changed["version"]),
        (&json!("n"), &json!({"a": "b"}), &json!(2))
    );
    whoami(INSIDE).await.problem(403, "ip_not_allowed");
    whoami(OUTSIDE).await.ok(200);
    server.patch(&path, json!({"allowed_ips": null})).await.ok(200);
    whoami("198.51.100.9").await.ok(200);
    server
        .ask(Method::PATCH, &path)
        .header("if-match", "\"1\"")
        .json(&json!({"name": "x"}))
        .send()
        .await
        .problem(412, "version_mismatch");
    let first = server.get("/v1/audit-log?action=oauth_client.update").await.ok(200)["items"][0].clone();
    assert_eq!(
        (&first["target"], &first["outcome"], &first["code"]),
        (&json!(id), &json!("refused"), &json!("version_mismatch"))
    );
    access(&server, (&id, &secret), "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_headers_of_an_endpoint_go_to_no_other_host() {
    let server = server().await;
    let headers = json!({"authorization": "Bearer of the receiver"});
    let made = server.post("/v1/webhooks", json!({"url": "https://one.example/a", "headers": headers})).await.ok(201);
    let path = format!("/v1/webhooks/{}", text(&made, "id"));
    let plain = text(&key(&server, json!({"name": "p", "scope": "write:webhooks"})).await, "key");
    let patch = async |body: Value| server.ask(Method::PATCH, &path).key(&plain).json(&body).send().await;
    for url in [
        "https://two.example/a",
        "https://one.example:8443/a",
        "https://one.example.two.example/a",
        "https://127.0.0.1/a",
    ] {
        let refused = patch(json!({"url": url})).await;
        refused.problem(403, "insufficient_scope");
        assert!(refused.header("www-authenticate").contains("manage:webhook-secrets"));
        // Other fields of the same change do not stand either.
        patch(json!({"url": url, "description": "moved"})).await.problem(403, "insufficient_scope");
    }
    let shown = server.get(&path).await.ok(200);
    assert_eq!((&shown["url"], &shown["version"]), (&json!("https://one.example/a"), &json!(1)));
    patch(json!({"url": "https://ONE.example/b"})).await.ok(200);
    server
        .ask(Method::PATCH, &path)
        .key(&plain)
        .header("if-match", "\"1\"")
        .json(&json!({"url": "https://one.example/c"}))
        .send()
        .await
        .problem(412, "version_mismatch");
    // With headers of its own in the same request, none of the old ones go along.
    let moved = patch(json!({"url": "https://two.example/", "headers": {"x-own": "1"}})).await;
    assert_eq!(moved.ok(200)["header_names"], json!(["x-own"]));
    assert_eq!(
        patch(json!({"url": "https://three.example/", "headers": null})).await.ok(200)["header_names"],
        json!([])
    );
    // Where there are none there is nothing to take along.
    patch(json!({"url": "https://four.example/"})).await.ok(200);
    // Who may read secrets may move them.
    server.patch(&path, json!({"headers": headers})).await.ok(200);
    patch(json!({"url": "https://five.example/"})).await.problem(403, "insufficient_scope");
    server.patch(&path, json!({"url": "https://five.example/"})).await.ok(200);
}
