//! Nothing of one mode is found with a key of the other: every operation on a thing, from both sides.

use super::sandbox::Sandbox;
use crate::server::{Ask, Server, eventually};
use highwater::domain::id::Mode;
use reqwest::Method;
use serde_json::{Value, json};

/// What is made in one mode, by the place of its name in a path.
struct Made {
    account: String,
    metric: String,
    alert: String,
    channel: String,
    quarantined: String,
    project: String,
    api_key: String,
    client: String,
    webhook: String,
    delivery: String,
    silence: String,
    incident: String,
}

async fn make(server: &Server, key: &str, name: &str) -> Made {
    let ask = |method: Method, path: &str| server.ask(method, path).key(key);
    let id = async |ask: Ask, body: Value| ask.json(&body).send().await.ok(201)["id"].as_str().unwrap().to_owned();
    let account = format!("only.{name}");
    let metric = format!("only.{name}");
    ask(Method::PUT, &format!("/v1/metrics/{metric}")).json(&json!({"unit": "u"})).send().await.ok(201);
    let quota = format!("/v1/accounts/{account}/quotas/{metric}");
    ask(Method::PUT, &quota).json(&json!({"limit": 10, "period": "day"})).send().await.ok(201);
    let channel = json!({"type": "webhook", "name": name, "url": "https://hooks.example/x"});
    let channel = id(ask(Method::POST, "/v1/channels"), channel).await;
    let alert = json!({"account_id": account, "rule": "used > 5", "channel": channel, "metric": metric});
    let alert = id(ask(Method::POST, "/v1/alerts"), alert).await;
    let project = id(ask(Method::POST, "/v1/projects"), json!({"name": name})).await;
    let role = json!({"name": name, "role": "viewer"});
    let api_key = ask(Method::POST, "/v1/api-keys").json(&role).send().await.ok(201);
    let api_key = api_key["key_id"].as_str().unwrap().to_owned();
    let client = ask(Method::POST, "/v1/oauth/clients").json(&role).send().await.ok(201);
    let client = client["client_id"].as_str().unwrap().to_owned();
    let webhook = json!({"url": "https://hooks.example/x", "event_types": ["webhook.test"]});
    let webhook = id(ask(Method::POST, "/v1/webhooks"), webhook).await;
    let tried = ask(Method::POST, &format!("/v1/webhooks/{webhook}/test")).send().await.ok(202);
    let delivery = tried["delivery_id"].as_str().unwrap().to_owned();
    eventually("the delivery", || async {
        let answer = ask(Method::GET, &format!("/v1/deliveries/{delivery}")).send().await;
        (answer.status == 200).then_some(())
    })
    .await;
    let silence = json!({"matchers": [{"name": "name", "value": name}], "starts_at": "2026-01-01T00:00:00Z",
                         "ends_at": "2126-01-01T00:00:00Z"});
    let silence = id(ask(Method::POST, "/v1/silences"), silence).await;
    for value in [10, 2] {
        let event = json!({"account_id": account, "metric": metric, "value": value, "id": "same"});
        ask(Method::POST, "/v1/events").json(&event).send().await.ok(202);
    }
    let quarantined = eventually("a conflict", || async {
        let page = ask(Method::GET, "/v1/quarantine").send().await.ok(200);
        page["items"][0]["id"].as_str().map(str::to_owned)
    })
    .await;
    let incident = eventually("an incident", || async {
        let page = ask(Method::GET, &format!("/v1/incidents?account_id={account}")).send().await.ok(200);
        page["items"][0]["id"].as_str().map(str::to_owned)
    })
    .await;
    Made {
        account,
        metric,
        alert,
        channel,
        quarantined,
        project,
        api_key,
        client,
        webhook,
        delivery,
        silence,
        incident,
    }
}

impl Made {
    /// The path with the names of these things; `None` where there is none of the kind.
    fn path(&self, described: &str) -> Option<String> {
        let id = match described.split('/').nth(2)? {
            "alerts" => &self.alert,
            "channels" => &self.channel,
            "quarantine" => &self.quarantined,
            "projects" => &self.project,
            "api-keys" => &self.api_key,
            "oauth" => &self.client,
            "webhooks" => &self.webhook,
            "deliveries" => &self.delivery,
            "silences" => &self.silence,
            "incidents" => &self.incident,
            "accounts" | "metrics" => "",
            _ => return None,
        };
        let path = described.replace("{account_id}", &self.account).replace("{metric}", &self.metric);
        Some(path.replace("{id}", id))
    }
}

/// Operations that find nothing of the other mode, and yet succeed: the name is the caller's own, so the thing is made.
const MAKES: [(&str, &str); 2] =
    [("put", "/v1/accounts/{account_id}/quotas/{metric}"), ("put", "/v1/metrics/{metric}")];
/// A receipt names places in logs, and nothing of any workspace.
const NAMES_NOTHING: [&str; 1] = ["/v1/receipts/{receipt}"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_on_a_thing_finds_it_in_its_mode_alone() {
    let sandbox = Sandbox::start().await;
    let server = &sandbox.server;
    let live = make(server, &server.key, "live").await;
    let test = make(server, &sandbox.key, "test").await;
    let elsewhere = server.new_workspace().await;
    let strangers = [server.owner_of(elsewhere, Mode::Live).await, server.owner_of(elsewhere, Mode::Sandbox).await];
    let document = serde_json::to_value(highwater::api::openapi()).unwrap();
    let mut covered = 0;
    for (described, item) in document["paths"].as_object().unwrap() {
        if !described.contains('{') || NAMES_NOTHING.contains(&described.as_str()) {
            continue;
        }
        for method in item.as_object().unwrap().keys() {
            if MAKES.contains(&(method, described)) {
                continue;
            }
            let body = match method.as_str() {
                "patch" => Some(json!({})),
                "post" if described == "/v1/webhooks/{id}/replay" => Some(json!({"since": "2026-11-24T08:00:00Z"})),
                _ => None,
            };
            let call = async |made: &Made, key: &str| {
                let path = made.path(described).unwrap_or_else(|| panic!("{method} {described} has no case here"));
                let method: Method = method.to_uppercase().parse().unwrap();
                let ask = server.ask(method, &path).key(key);
                let answer = match &body {
                    Some(body) => ask.json(body).send().await,
                    None => ask.send().await,
                };
                answer.problem(404, "resource_not_found")
            };
            for (made, key, says) in [(&live, &sandbox.key, "in live"), (&test, &server.key, "in the sandbox")] {
                let problem = call(made, key).await;
                // What people set up is known to the fold of the control log, and is hinted at.
                let is_found = ["/v1/quarantine", "/v1/deliveries", "/v1/incidents"];
                let is_set_up = !is_found.iter().any(|noun| described.starts_with(noun));
                let hint = problem["hint"].as_str().unwrap_or_default();
                assert_eq!(hint.contains(says), is_set_up, "{method} {described}: {problem}");
                for stranger in &strangers {
                    let problem = call(made, stranger).await;
                    assert!(problem.get("hint").is_none(), "{method} {described}: {problem}");
                }
            }
            covered += 1;
        }
    }
    assert!(covered >= 18, "{covered}");
    // All of it is still where it was.
    for (made, key) in [(&live, &server.key), (&test, &sandbox.key)] {
        for described in ["/v1/alerts/{id}", "/v1/channels/{id}", "/v1/accounts/{account_id}"] {
            server.ask(Method::GET, &made.path(described).unwrap()).key(key).send().await.ok(200);
        }
        let discard = made.path("/v1/quarantine/{id}/discard").unwrap();
        server.ask(Method::POST, &discard).key(key).send().await.ok(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_body_or_a_cursor_names_does_not_cross_either() {
    let sandbox = Sandbox::start().await;
    let server = &sandbox.server;
    let live = make(server, &server.key, "live").await;
    let alert = json!({"account_id": "acme", "rule": "used > 5", "channel": live.channel});
    sandbox.post("/v1/alerts", alert).await.problem(422, "channel_not_configured");
    for n in 0..3 {
        server.post("/v1/accounts", json!({"id": format!("acc_{n}")})).await.ok(201);
    }
    let cursor = server.get("/v1/accounts?page_size=1").await.ok(200)["next_cursor"].as_str().unwrap().to_owned();
    server.get(&format!("/v1/accounts?cursor={cursor}")).await.ok(200);
    sandbox.get(&format!("/v1/accounts?cursor={cursor}")).await.problem(400, "invalid_cursor");
    // One key in both modes is two keys.
    let create = |key: &str, id: &str| {
        let ask = server.ask(Method::POST, "/v1/accounts").key(key).header("idempotency-key", "same");
        ask.json(&json!({"id": id})).send()
    };
    create(&server.key, "twice").await.ok(201);
    create(&sandbox.key, "other").await.ok(201);
}
