//! A thing of every kind, for the tests of who may find it, and the operations of the description on them.

use super::operations;
use crate::server::{Answer, Ask, Server, eventually};
use reqwest::Method;
use serde_json::{Value, json};

/// What is made in one workspace and mode.
pub(crate) struct Made {
    pub(crate) account: String,
    pub(crate) metric: String,
    pub(crate) alert: String,
    pub(crate) channel: String,
    pub(crate) quarantined: String,
    pub(crate) project: String,
    pub(crate) api_key: String,
    pub(crate) client: String,
    pub(crate) webhook: String,
    pub(crate) delivery: String,
    pub(crate) silence: String,
    pub(crate) incident: String,
    /// The message that told of the incident.
    pub(crate) message: String,
}

/// Makes one thing of every kind with a key; everything that can have a name has this one in it.
pub(crate) async fn make(server: &Server, key: &str, name: &str) -> Made {
    let ask = |method: Method, path: &str| server.ask(method, path).key(key);
    let id = async |ask: Ask, body: Value| ask.json(&body).send().await.ok(201)["id"].as_str().unwrap().to_owned();
    let account = format!("only.{name}");
    let metric = format!("count.{name}");
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
    let (incident, message) = eventually("an incident", || async {
        let page = ask(Method::GET, &format!("/v1/incidents?account_id={account}")).send().await.ok(200);
        let named = |name: &str| page["items"][0][name].as_str().map(str::to_owned);
        Some((named("id")?, named("notification_id")?))
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
        message,
    }
}

impl Made {
    /// The path with the names of these things; `None` where there is none of the kind.
    pub(crate) fn path(&self, described: &str) -> Option<String> {
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
        let path = path.replace("{delivery_id}", &self.message);
        // What is explained is an alert of an account.
        let of = if path.ends_with("/explain") { format!("?account_id={}", self.account) } else { String::new() };
        Some(path.replace("{id}", id) + &of)
    }
    /// The path with names that nothing has instead of these.
    pub(crate) fn made_up(&self, path: &str) -> String {
        let nobody = |id: &str| match id.split_once('_') {
            Some((kind, digits)) => format!("{kind}_{}", "01J9Z0000000000000000000AA".repeat(digits.len() / 26)),
            None => format!("{id}.not"),
        };
        self.names().iter().fold(path.to_owned(), |path, name| path.replace(*name, &nobody(name)))
    }

    /// Checks that all of it is still there.
    pub(crate) async fn is_there(&self, server: &Server, key: &str) {
        for (method, described) in on_things() {
            if method == "get" {
                let path = self.path(&described).unwrap();
                call(server, (&method, &described), &path, key).await.ok(200);
            }
        }
        let discard = self.path("/v1/quarantine/{id}/discard").unwrap();
        server.ask(Method::POST, &discard).key(key).send().await.ok(200);
    }

    /// All the names, none of which may be read by others.
    pub(crate) fn names(&self) -> [&str; 13] {
        [
            &self.account,
            &self.metric,
            &self.alert,
            &self.channel,
            &self.quarantined,
            &self.project,
            &self.api_key,
            &self.client,
            &self.webhook,
            &self.delivery,
            &self.silence,
            &self.incident,
            &self.message,
        ]
    }
}

/// Calls an operation of a path with a key; the body is one that the operation takes.
pub(crate) async fn call(server: &Server, (method, described): (&str, &str), path: &str, key: &str) -> Answer {
    let operations = operations::all();
    let known =
        operations.iter().find(|known| known.path == described && known.method.as_str().eq_ignore_ascii_case(method));
    let ask = server.ask(method.to_uppercase().parse().unwrap(), path).key(key);
    match known.and_then(|known| known.body.as_ref()) {
        Some(body) => ask.json(body).send().await,
        None => ask.send().await,
    }
}

/// A problem without what names the request.
pub(crate) fn told(answer: &Answer) -> Value {
    let mut body = answer.problem(404, "resource_not_found");
    for name in ["instance", "request_id"] {
        body.as_object_mut().unwrap().remove(name);
    }
    body
}

/// The operations of the description whose path names a thing: method and path.
pub(crate) fn on_things() -> Vec<(String, String)> {
    let all = described();
    all.into_iter().filter(|(_, path)| path.contains('{') && !NAMES_NOTHING.contains(&path.as_str())).collect()
}

/// All the operations of the description below `/v1`: method and path.
pub(crate) fn described() -> Vec<(String, String)> {
    let document = highwater::api::openapi();
    let paths = document["paths"].as_object().unwrap().iter().filter(|(path, _)| path.starts_with("/v1/"));
    paths
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())))
        .collect()
}

/// A receipt names places in logs, and nothing of any workspace.
const NAMES_NOTHING: [&str; 1] = ["/v1/receipts/{receipt}"];

/// Whether an operation makes what its path names: the name is the caller's own, so it finds nothing of others, and yet succeeds.
pub(crate) fn makes(method: &str) -> bool {
    method == "put"
}
