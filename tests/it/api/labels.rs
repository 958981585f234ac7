//! Channels and endpoints that are labelled with projects: who reaches them, and what labelled endpoints are told.

use super::projects::{key, project};
use crate::receiver::Receiver;
use crate::server::Server;
use reqwest::Method;
use serde_json::{Value, json};

fn id(body: &Value) -> String {
    body["id"].as_str().unwrap().to_owned()
}

fn listed(body: &Value) -> Vec<String> {
    body["items"].as_array().unwrap().iter().map(id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_narrowed_key_reaches_the_channels_and_endpoints_of_its_projects_alone() {
    let server = Server::start().await;
    let (mine, other) = (project(&server, "mine", "prod").await, project(&server, "other", "dev").await);
    let channel = |label: Option<&str>| json!({"type": "webhook", "name": "c", "url": "https://example.com/", "project_id": label});
    let endpoint = |label: Option<&str>| json!({"url": "https://example.com/", "project_id": label});
    let scope = json!(["write:alerts", "write:channels", "write:webhooks", "manage:webhook-secrets"]);
    let narrow = key(&server, json!({"name": "n", "scope": scope, "project_ids": [mine]})).await;
    let ask = |method: Method, path: &str| server.ask(method, path).key(&narrow);
    for (path, body) in [("/v1/channels", &channel as &dyn Fn(Option<&str>) -> Value), ("/v1/webhooks", &endpoint)] {
        let foreign = id(&server.post(path, body(Some(&other))).await.ok(201));
        let nobodys = id(&server.post(path, body(None)).await.ok(201));
        assert_eq!(listed(&ask(Method::GET, path).send().await.ok(200)), [""; 0]);
        let beyond = ask(Method::POST, path).json(&body(Some(&other))).send().await;
        beyond.problem(422, "validation_failed");
        let made = ask(Method::POST, path).json(&body(None)).send().await.ok(201);
        assert_eq!(made["project_id"], mine.as_str());
        assert_eq!(listed(&ask(Method::GET, path).send().await.ok(200)), [id(&made)]);
        assert_eq!(
            listed(&server.get(&format!("{path}?project_id={other}")).await.ok(200)),
            std::slice::from_ref(&foreign)
        );
        assert_eq!(listed(&server.get(path).await.ok(200)).len(), 3);
        let own = format!("{path}/{}", id(&made));
        // A label stays: what an endpoint was sent, and where a channel leads, is for those who reach it.
        for label in [json!(null), json!(other)] {
            let relabel = ask(Method::PATCH, &own).json(&json!({"project_id": label})).send().await;
            relabel.problem(422, "unknown_field");
        }
        for beyond in [&foreign, &nobodys].map(|id| format!("{path}/{id}")) {
            ask(Method::GET, &beyond).send().await.problem(404, "resource_not_found");
            ask(Method::PATCH, &beyond).json(&json!({})).send().await.problem(404, "resource_not_found");
            ask(Method::POST, &format!("{beyond}/test")).send().await.problem(404, "resource_not_found");
            ask(Method::DELETE, &beyond).send().await.problem(404, "resource_not_found");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_an_endpoint_beyond_its_projects_is_shown_to_a_narrowed_key() {
    let server = Server::start().await;
    let (mine, other) = (project(&server, "mine", "prod").await, project(&server, "other", "dev").await);
    let mut receiver = Receiver::start().await;
    let body = json!({"url": receiver.url(), "project_id": other});
    let foreign = id(&server.post("/v1/webhooks", body).await.ok(201));
    let test = server.post(&format!("/v1/webhooks/{foreign}/test"), json!({})).await.ok(202);
    receiver.next().await;
    let delivery = test["delivery_id"].as_str().unwrap();
    let scope = json!(["write:webhooks", "manage:webhook-secrets"]);
    let narrow = key(&server, json!({"name": "n", "scope": scope, "project_ids": [mine]})).await;
    let wide = key(&server, json!({"name": "w", "scope": scope, "project_ids": [mine, other]})).await;
    let since = json!({"since": "2026-01-01T00:00:00Z"});
    for (method, path, body) in [
        (Method::GET, format!("/v1/webhooks/{foreign}/secret"), None),
        (Method::GET, format!("/v1/webhooks/{foreign}/deliveries"), None),
        (Method::GET, format!("/v1/deliveries/{delivery}"), None),
        (Method::POST, format!("/v1/deliveries/{delivery}/redeliver"), Some(json!({}))),
        (Method::POST, format!("/v1/webhooks/{foreign}/replay"), Some(since)),
        (Method::POST, format!("/v1/webhooks/{foreign}/rotate-secret"), Some(json!({}))),
        (Method::POST, format!("/v1/webhooks/{foreign}/pause"), Some(json!({}))),
        (Method::POST, format!("/v1/webhooks/{foreign}/resume"), Some(json!({}))),
    ] {
        let send = |key: &str| {
            let ask = server.ask(method.clone(), &path).key(key);
            if let Some(body) = &body { ask.json(body).send() } else { ask.send() }
        };
        send(&narrow).await.problem(404, "resource_not_found");
        let reached = send(&wide).await;
        assert!((200..300).contains(&reached.status), "{path}: {}", reached.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_goes_to_channels_that_its_maker_reaches() {
    let server = Server::start().await;
    let (mine, other) = (project(&server, "mine", "prod").await, project(&server, "other", "dev").await);
    let channel = async |label: Option<&str>, default: bool| {
        let body = json!({"type": "webhook", "name": "c", "url": "https://example.com/", "project_id": label, "default": default});
        id(&server.post("/v1/channels", body).await.ok(201))
    };
    let foreign = channel(Some(&other), true).await;
    let scope = json!(["write:alerts"]);
    let narrow = key(&server, json!({"name": "n", "scope": scope, "project_ids": [mine]})).await;
    let alert = |named: &str, label: Option<&str>| json!({"account_id": "a", "rule": "sum > 1", "channel": named, "project_id": label});
    // Who names no project means none of theirs.
    server.post("/v1/alerts", alert("webhook", None)).await.problem(422, "channel_not_configured");
    let nobodys = channel(None, false).await;
    let made = server.post("/v1/alerts", alert("webhook", None)).await.ok(201);
    assert_eq!(made["channels"], json!([nobodys]));
    let by_narrow = |named: &str| {
        let ask = server.ask(Method::POST, "/v1/alerts").key(&narrow);
        ask.json(&alert(named, None)).send()
    };
    for named in ["webhook", &foreign, &nobodys, "chn_01J9Z0000000000000000000AA"] {
        by_narrow(named).await.problem(422, "channel_not_configured");
    }
    // Those of a project come before those of nobody, and the default of one label takes nothing from another.
    let first = channel(Some(&mine), false).await;
    let own = channel(Some(&mine), true).await;
    assert_eq!(by_narrow("webhook").await.ok(201)["channels"], json!([own]));
    assert_eq!(by_narrow(&first).await.ok(201)["channels"], json!([first]));
    let labelled = server.post("/v1/alerts", alert("webhook", Some(&other))).await.ok(201);
    assert_eq!(labelled["channels"], json!([foreign]));
    assert_eq!(server.get(&format!("/v1/channels/{foreign}")).await.ok(200)["default"], true);
    // A channel of one project takes no alerts of another: who reaches it decides where it leads.
    for (named, label) in [(&own, Some(other.as_str())), (&foreign, Some(mine.as_str())), (&own, None)] {
        server.post("/v1/alerts", alert(named, label)).await.problem(422, "channel_not_configured");
    }
    let path = format!("/v1/alerts/{}", id(&labelled));
    let moved = server.patch(&path, json!({"project_id": mine})).await.ok(200);
    assert_eq!((&moved["channels"], &moved["channel"]), (&json!([own]), &json!("webhook")));
    let by_id = server.post("/v1/alerts", alert(&foreign, Some(&other))).await.ok(201);
    let path = format!("/v1/alerts/{}", id(&by_id));
    server.patch(&path, json!({"project_id": mine})).await.problem(422, "channel_not_configured");
    // One that is labelled with none takes all of them, and stays where an alert has it already.
    let path = format!("/v1/alerts/{}", id(&made));
    server.patch(&path, json!({"project_id": mine})).await.ok(200);
    let renamed = server.ask(Method::PATCH, &path).key(&narrow).json(&json!({"name": "x"})).send().await.ok(200);
    assert_eq!(renamed["channels"], json!([nobodys]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_labelled_endpoint_is_told_of_its_project_and_of_what_is_everybodys() {
    let server = Server::start().await;
    let (mine, other) = (project(&server, "mine", "prod").await, project(&server, "other", "dev").await);
    let mut receiver = Receiver::start().await;
    let made = server.post("/v1/webhooks", json!({"url": receiver.url(), "project_id": mine})).await.ok(201);
    let secret = made["secret"].as_str().unwrap();
    let channel = json!({"type": "webhook", "name": "c", "url": "https://example.com/"});
    let channel = id(&server.post("/v1/channels", channel).await.ok(201));
    for label in [Some(&other), None, Some(&mine)] {
        let body = json!({"account_id": "*", "rule": "sum > 10", "channel": channel, "project_id": label});
        let alert = id(&server.post("/v1/alerts", body).await.ok(201));
        server.patch(&format!("/v1/alerts/{alert}"), json!({"name": label})).await.ok(200);
    }
    for ids in [json!([other]), json!([mine, other]), Value::Null, json!([mine])] {
        let mut body = json!({"name": "k", "scope": "read:usage"});
        if !ids.is_null() {
            body["project_ids"] = ids;
        }
        server.post("/v1/api-keys", body).await.ok(201);
    }
    let gone = json!({"url": "https://example.com/", "project_id": other, "event_types": ["quota.reset"]});
    server.post("/v1/webhooks", gone).await.ok(201);
    server.put("/v1/accounts/acme/quotas/m", json!({"limit": 1, "period": "day"})).await.ok(201);
    server.count("acme", "m", 11).await;
    let awaited =
        ["alert.created", "alert.updated", "api_key.created", "account.created", "quota.exceeded", "alert.firing"];
    let mut bodies: Vec<Value> = Vec::new();
    while !awaited.iter().all(|kind| bodies.iter().any(|body| body["type"] == *kind)) {
        bodies.push(receiver.next().await.signed_by(secret));
    }
    bodies.extend(receiver.rest().iter().map(|received| received.signed_by(secret)));
    let of = |kind: &str| bodies.iter().filter(|body| body["type"] == kind).collect::<Vec<_>>();
    for kind in ["alert.created", "alert.updated", "alert.firing", "api_key.created"] {
        assert_eq!(of(kind).len(), 1, "{kind}: {:?}", of(kind));
    }
    assert_eq!(of("alert.updated")[0]["data"]["project_id"], mine.as_str());
    assert_eq!(of("api_key.created")[0]["data"]["project_ids"], json!([mine]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_of_the_whole_workspace_is_not_for_narrowed_keys() {
    let server = Server::start().await;
    let mine = project(&server, "mine", "prod").await;
    let narrow = key(&server, json!({"name": "n", "role": "owner", "project_ids": [mine]})).await;
    server.ask(Method::GET, "/v1/audit-log").key(&narrow).send().await.problem(403, "scope_escalation");
}
