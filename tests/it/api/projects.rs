//! Projects, and credentials that are narrowed to them.

use crate::server::{Ask, Server, eventually};
use reqwest::Method;
use serde_json::{Value, json};

pub(crate) async fn project(server: &Server, name: &str, env: &str) -> String {
    let made = server.post("/v1/projects", json!({"name": name, "env": env})).await.ok(201);
    made["id"].as_str().unwrap().to_owned()
}

pub(crate) async fn key(server: &Server, body: Value) -> String {
    server.post("/v1/api-keys", body).await.ok(201)["key"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_is_made_shown_changed_and_deleted() {
    let server = Server::start().await;
    let made = server.post("/v1/projects", json!({"name": "Payments", "metadata": {"team": "a"}})).await;
    let body = made.ok(201);
    let id = body["id"].as_str().unwrap();
    assert_eq!((&body["name"], &body["env"], &body["mode"]), (&json!("Payments"), &json!("prod"), &json!("live")));
    assert_eq!((made.header("etag"), made.header("location")), ("\"1\"", format!("/v1/projects/{id}").as_str()));
    let path = format!("/v1/projects/{id}");
    let shown = server.get(&path).await.ok(200);
    assert_eq!((&shown["requests_24h"], &shown["metadata"]), (&json!(0), &json!({"team": "a"})));
    let listed = server.get("/v1/projects").await.ok(200);
    assert_eq!(
        (&listed["items"][0]["id"], &listed["items"][0]["name"], &listed["page"], &listed["has_more"]),
        (&json!(id), &json!("Payments"), &json!(1), &json!(false))
    );
    let changed = server.patch(&path, json!({"env": "staging", "metadata": null})).await.ok(200);
    assert_eq!(
        (&changed["env"], &changed["metadata"], &changed["version"]),
        (&json!("staging"), &json!({}), &json!(2))
    );
    let stale = server.ask(Method::PATCH, &path).header("if-match", "\"1\"").json(&json!({"name": "x"})).send().await;
    stale.problem(412, "version_mismatch");
    for wrong in [json!({"name": ""}), json!({"env": "test"}), json!({"name": null})] {
        server.patch(&path, wrong).await.problem(422, "validation_failed");
    }
    for name in ["id", "workspace_id", "mode", "state", "version", "created_by", "requests_24h"] {
        server.post("/v1/projects", json!({"name": "n", name: "x"})).await.problem(422, "unknown_field");
        server.patch(&path, json!({name: "x"})).await.problem(422, "unknown_field");
    }
    server.delete(&path).await.ok(204);
    server.get(&path).await.problem(404, "resource_not_found");
    server.delete(&path).await.problem(404, "resource_not_found");
}

/// Requests are counted as events of a metric of the system, for an account that is named as the project.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_a_day_are_shown() {
    let server = Server::start().await;
    let id = project(&server, "Payments", "prod").await;
    let path = format!("/v1/projects/{id}");
    let before = server.get(&path).await;
    assert_eq!(before.ok(200)["requests_24h"], 0);
    let scope = json!(["read:projects"]);
    let narrow = key(&server, json!({"name": "n", "scope": scope, "project_ids": [id]})).await;
    for _ in 0..3 {
        server.ask(Method::GET, "/v1/projects").key(&narrow).send().await.ok(200);
    }
    let counted = async || {
        let shown = server.get(&path).await;
        (shown.ok(200)["requests_24h"].as_u64() >= Some(3)).then_some(shown)
    };
    let after = eventually("the requests are shown", counted).await;
    assert_ne!(before.header("etag"), after.header("etag"));
    let again = server.ask(Method::GET, &path).header("if-none-match", after.header("etag")).send().await;
    assert_eq!(again.status, 304);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_narrowed_key_sees_its_projects_and_their_alerts_alone() {
    let server = Server::start().await;
    let (mine, other) = (project(&server, "mine", "prod").await, project(&server, "other", "dev").await);
    for label in [None, Some(&mine)] {
        let channel = json!({"type": "webhook", "name": "c", "url": "https://example.com/", "project_id": label});
        server.post("/v1/channels", channel).await.ok(201);
    }
    let alert = |project: Option<&str>| json!({"account_id": "a", "rule": "used > 1", "channel": "webhook", "project_id": project});
    let id = |body: Value| body["id"].as_str().unwrap().to_owned();
    let theirs = id(server.post("/v1/alerts", alert(Some(&other))).await.ok(201));
    let nobodys = id(server.post("/v1/alerts", alert(None)).await.ok(201));
    let scope = json!(["write:projects", "write:alerts", "read:channels", "write:keys"]);
    let narrow = key(&server, json!({"name": "n", "scope": scope, "project_ids": [mine]})).await;
    let ask = |method: Method, path: &str| server.ask(method, path).key(&narrow);
    let listed =
        |body: Value| body["items"].as_array().unwrap().iter().map(|item| item["id"].clone()).collect::<Vec<_>>();
    assert_eq!(listed(ask(Method::GET, "/v1/projects").send().await.ok(200)), [json!(mine)]);
    ask(Method::GET, &format!("/v1/projects/{mine}")).send().await.ok(200);
    ask(Method::GET, &format!("/v1/projects/{other}")).send().await.problem(404, "resource_not_found");
    ask(Method::POST, "/v1/projects").json(&json!({"name": "x"})).send().await.problem(403, "scope_escalation");
    // An alert that it makes is labelled with its project, and with no other.
    let made = ask(Method::POST, "/v1/alerts").json(&alert(None)).send().await.ok(201);
    assert_eq!(made["project_id"], mine.as_str());
    let own = id(made);
    let foreign = ask(Method::POST, "/v1/alerts").json(&alert(Some(&other))).send().await;
    let made_up = ask(Method::POST, "/v1/alerts").json(&alert(Some("prj_01J9Z0000000000000000000AA"))).send().await;
    assert_eq!(
        foreign.problem(422, "validation_failed")["errors"],
        made_up.problem(422, "validation_failed")["errors"],
        "nothing tells a project that exists"
    );
    assert_eq!(listed(ask(Method::GET, "/v1/alerts").send().await.ok(200)), [json!(own)]);
    for path in [&theirs, &nobodys].map(|alert| format!("/v1/alerts/{alert}")) {
        for method in [Method::GET, Method::DELETE] {
            ask(method, &path).send().await.problem(404, "resource_not_found");
        }
        ask(Method::PATCH, &path).json(&json!({"name": "x"})).send().await.problem(404, "resource_not_found");
        for verb in ["history", "instances"] {
            ask(Method::GET, &format!("{path}/{verb}")).send().await.problem(404, "resource_not_found");
        }
        ask(Method::POST, &format!("{path}/pause")).send().await.problem(404, "resource_not_found");
    }
    let path = format!("/v1/alerts/{own}");
    ask(Method::PATCH, &path).json(&json!({"project_id": other})).send().await.problem(422, "validation_failed");
    let kept = ask(Method::PATCH, &path).json(&json!({"project_id": null, "name": "x"})).send().await.ok(200);
    assert_eq!(kept["project_id"], mine.as_str(), "it cannot take the label off");
    // The owner sees all of it.
    assert_eq!(listed(server.get("/v1/alerts").await.ok(200)).len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_narrowed_key_hands_on_its_projects_alone() {
    let server = Server::start().await;
    let (mine, other) = (project(&server, "mine", "prod").await, project(&server, "other", "dev").await);
    let both = json!([mine, other]);
    let scope = json!(["write:keys", "read:usage"]);
    let wide = key(&server, json!({"name": "w", "scope": scope, "project_ids": both})).await;
    let narrow = server.ask(Method::POST, "/v1/api-keys").key(&wide);
    let narrow = narrow.json(&json!({"name": "n", "scope": scope, "project_ids": [mine]})).send().await.ok(201);
    let narrow = narrow["key"].as_str().unwrap().to_owned();
    let make = |project_ids: Option<Value>| {
        let mut body = json!({"name": "x", "scope": ["read:usage"]});
        project_ids.map(|ids| body.as_object_mut().unwrap().insert("project_ids".to_owned(), ids));
        server.ask(Method::POST, "/v1/api-keys").key(&narrow).json(&body).send()
    };
    let made = make(None).await.ok(201);
    assert_eq!((&made["project_ids"], &made["env"]), (&json!([mine]), &json!("prod")));
    for beyond in [json!([other]), json!([mine, other]), json!(["prj_01J9Z0000000000000000000AA"])] {
        let problem = make(Some(beyond)).await.problem(403, "scope_escalation");
        assert_eq!(problem["project_ids"].as_array().unwrap().len(), 1, "{problem}");
    }
    make(Some(json!([]))).await.problem(422, "validation_failed");
    // It sees, changes and replaces keys of its projects alone.
    let listed = server.ask(Method::GET, "/v1/api-keys").key(&narrow).send().await.ok(200);
    assert_eq!(listed["items"].as_array().unwrap().len(), 2, "itself and what it made: {listed}");
    let wide_id = server.ask(Method::GET, "/v1/whoami").key(&wide).send().await.ok(200)["key_id"].clone();
    let wide_id = wide_id.as_str().unwrap();
    for (method, path) in [
        (Method::GET, format!("/v1/api-keys/{wide_id}")),
        (Method::POST, format!("/v1/api-keys/{wide_id}/rotate")),
        (Method::POST, format!("/v1/api-keys/{wide_id}/revoke")),
    ] {
        server.ask(method, &path).key(&narrow).send().await.problem(404, "resource_not_found");
    }
    assert_eq!(server.ask(Method::GET, "/v1/whoami").key(&wide).send().await.ok(200)["project_ids"], both);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_that_is_used_stays() {
    let server = Server::start().await;
    let id = project(&server, "used", "prod").await;
    let path = format!("/v1/projects/{id}");
    let in_use = async |by: &str| {
        let detail = server.delete(&path).await.problem(409, "resource_conflict")["detail"].clone();
        assert!(detail.as_str().unwrap().contains(by), "{detail} {by}");
    };
    server.post("/v1/channels", json!({"type": "webhook", "name": "c", "url": "https://example.com/"})).await.ok(201);
    let alert = json!({"account_id": "a", "rule": "used > 1", "channel": "webhook", "project_id": id});
    let alert = server.post("/v1/alerts", alert).await.ok(201)["id"].as_str().unwrap().to_owned();
    in_use(&alert).await;
    server.delete(&format!("/v1/alerts/{alert}")).await.ok(204);
    let narrow = json!({"name": "k", "scope": "read:usage", "project_ids": [id]});
    let made = server.post("/v1/api-keys", narrow.clone()).await.ok(201)["id"].as_str().unwrap().to_owned();
    in_use(&made).await;
    server.post(&format!("/v1/api-keys/{made}/revoke"), json!({})).await.ok(200);
    let made = server.post("/v1/oauth/clients", narrow).await.ok(201)["id"].as_str().unwrap().to_owned();
    in_use(&made).await;
    server.delete(&format!("/v1/oauth/clients/{made}")).await.ok(204);
    let target = json!({"url": "https://example.com/", "project_id": id});
    let mut channel = target.clone();
    channel.as_object_mut().unwrap().extend([("type".to_owned(), json!("webhook")), ("name".to_owned(), json!("c"))]);
    for (list, body) in [("/v1/channels", channel), ("/v1/webhooks", target)] {
        let made = server.post(list, body).await.ok(201)["id"].as_str().unwrap().to_owned();
        in_use(&made).await;
        server.delete(&format!("{list}/{made}")).await.ok(204);
    }
    server.delete(&path).await.ok(204);
    let gone = json!({"account_id": "a", "rule": "used > 1", "channel": "webhook", "project_id": id});
    server.post("/v1/alerts", gone).await.problem(422, "validation_failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_workspace_may_ask_for_idempotency_keys() {
    let server = Server::start().await;
    let shown = server.get("/v1/workspace").await.ok(200);
    assert_eq!(
        (&shown["require_idempotency_key"], &shown["idempotency_horizon"]),
        (&json!(false), &json!("1d")),
        "{shown}"
    );
    let asks = |body: Value| server.patch("/v1/workspace", body);
    for wrong in ["59m", "31d", "soon"] {
        asks(json!({"idempotency_horizon": wrong})).await.problem(422, "validation_failed");
    }
    let changed =
        asks(json!({"require_idempotency_key": true, "idempotency_horizon": "1h", "name": "w"})).await.ok(200);
    assert_eq!((&changed["name"], &changed["idempotency_horizon"]), (&json!("w"), &json!("1h")));
    let create = |ask: Ask| ask.json(&json!({"name": "p"})).send();
    let post = || server.ask(Method::POST, "/v1/projects");
    create(post()).await.problem(400, "idempotency_key_required");
    let made = create(post().header("idempotency-key", "k")).await;
    made.ok(201);
    assert_eq!(create(post().header("idempotency-key", "k")).await.text(), made.text());
    // Shape, rights and credentials come first; reading, deleting and events need none.
    server.post("/v1/projects", json!({})).await.problem(422, "validation_failed");
    let path = format!("/v1/projects/{}", made.json()["id"].as_str().unwrap());
    server.patch(&path, json!({"name": "q"})).await.problem(400, "idempotency_key_required");
    server.put("/v1/metrics/m", json!({})).await.problem(400, "idempotency_key_required");
    server.get(&path).await.ok(200);
    server.delete(&path).await.ok(204);
    server.count("a", "m", 1).await;
    let sandbox = server.owner_of(server.workspace, highwater::domain::id::Mode::Sandbox).await;
    let theirs = server.ask(Method::PATCH, "/v1/workspace").key(&sandbox).json(&json!({"name": "x"})).send().await;
    theirs.problem(403, "scope_escalation");
}
