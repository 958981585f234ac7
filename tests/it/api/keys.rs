//! API keys over the API: what is made of what is asked, who may hand on what, how a key ends.

use crate::server::{Answer, Ask, Server, eventually};
use highwater::domain::control::resource::{Role, Scope};
use highwater::domain::id::Mode;
use highwater::domain::limits::ACTIVE_KEYS_MAX;
use highwater::domain::time::Millis;
use highwater::runtime::clock;
use reqwest::Method;
use serde_json::{Value, json};

async fn create(server: &Server, body: Value) -> Answer {
    server.post("/v1/api-keys", body).await
}

fn text(body: &Value, name: &str) -> String {
    body[name].as_str().unwrap_or_else(|| panic!("{name} in {body}")).to_owned()
}

async fn works(server: &Server, key: &str) -> Answer {
    server.ask(Method::GET, "/v1/whoami").key(key).send().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_shown_once() {
    let mut server = Server::start().await;
    let made =
        create(&server, json!({"name": "ci", "scope": ["read:usage", "read:alerts"], "expires_in": "90d"})).await;
    let body = made.ok(201);
    let (id, key) = (text(&body, "key_id"), text(&body, "key"));
    assert_eq!(body["scope"], json!(["read:alerts", "read:usage"]));
    assert_eq!((&body["prefix"], &body["id"]), (&json!("pk_live_"), &json!(id)));
    assert_eq!((&body["status"], &body["mode"], &body["role"]), (&json!("active"), &json!("live"), &json!(null)));
    assert_eq!(text(&body, "hint"), format!("{}…{}", &key[..12], &key[56..]));
    assert!(body["expires_at"].as_str().unwrap() > body["created_at"].as_str().unwrap());
    assert_eq!((made.header("cache-control"), made.header("etag")), ("no-store", "\"1\""));
    assert_eq!(made.header("location"), format!("/v1/api-keys/{id}"));
    let me = works(&server, &server.key).await.ok(200);
    assert_eq!(body["created_by"], me["key_id"]);
    let path = format!("/v1/api-keys/{id}");
    let unused = server.get(&path).await.ok(200);
    assert_eq!((&unused["last_used_at"], &unused["last_used_ip"]), (&json!(null), &json!(null)));
    assert!(unused.get("key").is_none() && server.get("/v1/api-keys").await.text().contains(&id));
    for shown in [server.get(&path).await.text(), server.get("/v1/api-keys").await.text()] {
        assert!(!shown.contains(&key[22..]) && !shown.contains("hash"), "{shown}");
    }
    let who = works(&server, &key).await.ok(200);
    assert_eq!((&who["key_id"], &who["name"], &who["mode"]), (&json!(id), &json!("ci"), &json!("live")));
    assert_eq!(who["scopes"], json!(["read:alerts", "read:usage"]));
    assert_eq!(who["expires_at"], body["expires_at"]);
    assert_eq!(who["horizons"]["dedup_horizon"], "49h");
    let used = server.get(&path).await.ok(200);
    assert!(used["last_used_at"].is_string() && used["last_used_ip"] == "127.0.0.1", "{used}");
    // A node that has never seen the key knows it from the log.
    server.restart().await;
    let later = server.get(&path).await.ok(200);
    assert_eq!(
        (&later["last_used_at"], &later["last_used_ip"], &later["version"]),
        (&used["last_used_at"], &used["last_used_ip"], &used["version"])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_key_may_do_is_said_in_three_ways() {
    let server = Server::start().await;
    let made = create(&server, json!({"name": "a", "scope": "read:usage  read:alerts"})).await.ok(201);
    assert_eq!(made["scope"], json!(["read:alerts", "read:usage"]));
    for role in Role::ALL {
        let made = create(&server, json!({"name": "r", "role": role.text()})).await.ok(201);
        let scopes: Vec<&str> = role.scopes().iter().map(|scope| scope.text()).collect();
        assert_eq!((&made["role"], &made["scope"]), (&json!(role.text()), &json!(scopes)));
    }
    let check = async |body: Value, code: &str, pointer: &str| {
        let problem = create(&server, body.clone()).await.problem(422, code);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    };
    let invalid = "validation_failed";
    check(json!({"scope": "read:usage"}), invalid, "/name").await;
    check(json!({"name": "x"}), invalid, "/scope").await;
    check(json!({"name": "x", "scope": []}), invalid, "/scope").await;
    check(json!({"name": "x", "scope": " "}), invalid, "/scope").await;
    check(json!({"name": "x", "scope": 7}), invalid, "/scope").await;
    check(json!({"name": "x", "scope": ["read:usage", "read:all"]}), invalid, "/scope/1").await;
    check(json!({"name": "x", "scope": "read:all"}), invalid, "/scope").await;
    check(json!({"name": "x", "role": "root"}), invalid, "/role").await;
    check(json!({"name": "x", "role": "viewer", "scope": "read:usage"}), invalid, "/role").await;
    let viewer = |more: Value| {
        let mut body = json!({"name": "x", "role": "viewer"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    check(viewer(json!({"mode": "test"})), invalid, "/mode").await;
    check(viewer(json!({"expires_in": "soon"})), invalid, "/expires_in").await;
    check(viewer(json!({"expires_in": "0s"})), invalid, "/expires_in").await;
    check(viewer(json!({"expires_in": "1d", "expires_at": "2999-01-01T00:00:00Z"})), invalid, "/expires_in").await;
    check(viewer(json!({"expires_at": "2001-01-01T00:00:00Z"})), invalid, "/expires_at").await;
    check(viewer(json!({"expires_at": "tomorrow"})), invalid, "/expires_at").await;
    check(viewer(json!({"allowed_ips": ["10.0.0.0/8", "ten"]})), invalid, "/allowed_ips/1").await;
    check(viewer(json!({"project_ids": ["prj_01J9Z0000000000000000000AA"]})), invalid, "/project_ids/0").await;
    for name in ["id", "key", "workspace_id", "state", "version", "created_by", "scopes", "lineage"] {
        check(viewer(json!({name: "x"})), "unknown_field", &format!("/{name}")).await;
        let id = text(&create(&server, viewer(json!({}))).await.ok(201), "id");
        let patch = server.patch(&format!("/v1/api-keys/{id}"), json!({name: "x"})).await;
        patch.problem(422, "unknown_field");
        server.post(&format!("/v1/api-keys/{id}/revoke"), json!({})).await.ok(200);
    }
}

/// Row 18 of the security checklist.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_hands_on_more_than_they_have() {
    let server = Server::start().await;
    let mut scopes = Role::Viewer.scopes();
    scopes.insert(Scope::WriteKeys);
    let names: Vec<&str> = scopes.iter().map(|scope| scope.text()).collect();
    let minter = create(&server, json!({"name": "m", "scope": names, "expires_in": "1d"})).await.ok(201);
    let (minter, ends) = (text(&minter, "key"), text(&minter, "expires_at"));
    let ask = |method: Method, path: &str| server.ask(method, path).key(&minter);
    for path in ["/v1/api-keys", "/v1/oauth/clients"] {
        let make = |body: Value| ask(Method::POST, path).json(&body).send();
        let owner = make(json!({"name": "x", "role": "owner"})).await.problem(403, "scope_escalation");
        let offending: Vec<&str> = owner["scopes"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect();
        assert!(offending.contains(&"admin:workspace") && !offending.contains(&"read:usage"), "{offending:?}");
        let one = make(json!({"name": "x", "scope": "read:usage write:alerts"})).await.problem(403, "scope_escalation");
        assert_eq!(one["scopes"], json!(["write:alerts"]));
        for beyond in
            [json!({"expires_in": "2d"}), json!({"expires_at": "2999-01-01T00:00:00Z"}), json!({"mode": "sandbox"})]
        {
            let mut body = json!({"name": "x", "scope": "read:usage"});
            body.as_object_mut().unwrap().extend(beyond.as_object().unwrap().clone());
            make(body).await.problem(403, "scope_escalation");
        }
        let made = make(json!({"name": "x", "scope": "read:usage"})).await.ok(201);
        assert_eq!(made["expires_at"], ends.as_str(), "what a credential that ends hands on ends with it");
    }
    // Replacing a stronger key would hand out its rights; so would the secret of a stronger client.
    let owner = text(&create(&server, json!({"name": "o", "role": "owner"})).await.ok(201), "id");
    let rotate = ask(Method::POST, &format!("/v1/api-keys/{owner}/rotate")).send().await;
    assert!(rotate.problem(403, "scope_escalation")["scopes"].as_array().unwrap().len() > 5);
    let client = server.post("/v1/oauth/clients", json!({"name": "o", "role": "owner"})).await.ok(201);
    let path = format!("/v1/oauth/clients/{}/rotate-secret", text(&client, "id"));
    ask(Method::POST, &path).send().await.problem(403, "scope_escalation");
    // A key that does not end, replaced by one who does, ends with them.
    let plain = text(&create(&server, json!({"name": "p", "scope": "read:usage"})).await.ok(201), "id");
    let rotate = |id: &str, body: Value| ask(Method::POST, &format!("/v1/api-keys/{id}/rotate")).json(&body).send();
    rotate(&plain, json!({"expires_in": "2d"})).await.problem(403, "scope_escalation");
    assert_eq!(rotate(&plain, json!({})).await.ok(201)["expires_at"], ends.as_str());
    // The scopes of a key are no fields of a change.
    let path = format!("/v1/api-keys/{owner}");
    for field in ["scope", "scopes", "role", "project_ids", "expires_at", "mode"] {
        server.patch(&path, json!({field: "owner"})).await.problem(422, "unknown_field");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_owner_makes_sandbox_keys_and_never_the_reverse() {
    let server = Server::start().await;
    let made = create(&server, json!({"name": "t", "role": "owner", "mode": "sandbox"})).await.ok(201);
    assert_eq!((&made["prefix"], &made["mode"]), (&json!("pk_test_"), &json!("sandbox")));
    let sandbox = text(&made, "key");
    assert_eq!(works(&server, &sandbox).await.ok(200)["mode"], "sandbox");
    let path = format!("/v1/api-keys/{}", text(&made, "id"));
    let hint = server.get(&path).await.problem(404, "resource_not_found")["hint"].clone();
    assert!(hint.is_string(), "it is of the sandbox");
    let ask = |method, path: &str| server.ask(method, path).key(&sandbox);
    assert_eq!(ask(Method::GET, &path).send().await.ok(200)["mode"], "sandbox");
    let live = json!({"name": "l", "scope": "read:usage", "mode": "live"});
    ask(Method::POST, "/v1/api-keys").json(&live).send().await.problem(403, "scope_escalation");
    let own = json!({"name": "l", "scope": "read:usage"});
    assert_eq!(ask(Method::POST, "/v1/api-keys").json(&own).send().await.ok(201)["prefix"], "pk_test_");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_key_goes_on_for_its_grace() {
    let server = Server::start().await;
    let body = json!({"name": "k", "role": "viewer", "allowed_ips": ["127.0.0.0/8"], "metadata": {"a": "1"}});
    let first = create(&server, body).await.ok(201);
    let rotate = async |id: &str, body: Value| server.post(&format!("/v1/api-keys/{id}/rotate"), body).await;
    let made = rotate(&text(&first, "id"), json!({"grace_seconds": 3_600})).await;
    let second = made.ok(201);
    assert_eq!(made.header("location"), format!("/v1/api-keys/{}", text(&second, "id")));
    for name in ["name", "scope", "role", "allowed_ips", "metadata", "project_ids", "expires_at", "mode", "env"] {
        assert_eq!(second[name], first[name], "{name}");
    }
    assert_ne!((&second["key"], &second["id"]), (&first["key"], &first["id"]));
    let old = server.get(&format!("/v1/api-keys/{}", text(&first, "id"))).await.ok(200);
    assert_eq!((&old["status"], &old["replaced_by"]), (&json!("rotating"), &second["id"]));
    assert!(old["expires_at"].is_string());
    works(&server, &text(&first, "key")).await.ok(200);
    works(&server, &text(&second, "key")).await.ok(200);
    // It has its successor already, and a grace of nothing ends it at once.
    rotate(&text(&first, "id"), json!({})).await.problem(409, "key_not_active");
    for wrong in [-1, 604_801] {
        rotate(&text(&second, "id"), json!({"grace_seconds": wrong})).await.problem(422, "validation_failed");
    }
    let third = rotate(&text(&second, "id"), json!({"grace_seconds": 0})).await.ok(201);
    works(&server, &text(&second, "key")).await.problem(401, "api_key_expired");
    works(&server, &text(&third, "key")).await.ok(200);
    // Grace never goes past the key's own end, and what ended has no successor.
    let ends = json!({"name": "e", "role": "viewer", "expires_in": "1h"});
    let ends = create(&server, ends).await.ok(201);
    rotate(&text(&ends, "id"), json!({})).await.ok(201);
    let kept = server.get(&format!("/v1/api-keys/{}", text(&ends, "id"))).await.ok(200);
    assert_eq!(kept["expires_at"], ends["expires_at"]);
    server.post(&format!("/v1/api-keys/{}/revoke", text(&third, "id")), json!({})).await.ok(200);
    rotate(&text(&third, "id"), json!({})).await.problem(409, "key_not_active");
    // At most three that were replaced go on to work.
    let mut newest = text(&create(&server, json!({"name": "c", "role": "viewer"})).await.ok(201), "id");
    for _ in 0..3 {
        newest = text(&rotate(&newest, json!({})).await.ok(201), "id");
    }
    rotate(&newest, json!({})).await.problem(409, "limit_reached");
    rotate(&newest, json!({"grace_seconds": 0})).await.ok(201);
}

/// Row 6 of the security checklist, as far as keys go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_ended_is_refused_on_its_next_request() {
    let server = Server::start().await;
    let made = create(&server, json!({"name": "k", "scope": "write:events"})).await.ok(201);
    let (id, key) = (text(&made, "id"), text(&made, "key"));
    // It has no scope for keys, and may end itself; but no other key.
    let owner = text(&works(&server, &server.key).await.ok(200), "key_id");
    let revoke = |id: &str, key: &str| server.ask(Method::POST, &format!("/v1/api-keys/{id}/revoke")).key(key).send();
    revoke(&owner, &key).await.problem(403, "insufficient_scope");
    server
        .ask(Method::POST, &format!("/v1/api-keys/{id}/rotate"))
        .key(&key)
        .send()
        .await
        .problem(403, "insufficient_scope");
    let revoked = revoke(&id, &key).await.ok(200);
    assert_eq!((&revoked["status"], &revoked["version"]), (&json!("revoked"), &json!(2)));
    works(&server, &key).await.problem(401, "api_key_revoked");
    let again = revoke(&id, &server.key).await.ok(200);
    assert_eq!((&again["version"], &again["revoked_at"]), (&json!(2), &revoked["revoked_at"]), "it is so already");
    // One that ends by itself.
    let soon = clock::now().plus(Millis::milliseconds(1_500)).to_string();
    let made = create(&server, json!({"name": "k", "scope": "read:usage", "expires_at": soon})).await.ok(201);
    let key = text(&made, "key");
    let ended = eventually("the end of the key", || async {
        let answer = works(&server, &key).await;
        (answer.status == 401).then_some(answer)
    });
    ended.await.problem(401, "api_key_expired");
    assert!(clock::now().to_string() >= soon);
    let listed = |status: &str| server.ask(Method::GET, &format!("/v1/api-keys?status={status}")).send();
    assert_eq!(listed("expired").await.ok(200)["items"][0]["id"], made["id"]);
    assert_eq!(listed("revoked").await.ok(200)["items"][0]["id"], json!(id));
    server.get("/v1/api-keys?status=gone").await.problem(400, "invalid_parameter");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_works_from_its_networks_alone() {
    let server = Server::start().await;
    let body = json!({"name": "k", "scope": ["read:usage"], "allowed_ips": ["10.1.2.3/8", "::ffff:192.0.2.1", "2001:db8::/32"]});
    let made = create(&server, body).await.ok(201);
    assert_eq!(made["allowed_ips"], json!(["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]));
    let (path, key) = (format!("/v1/api-keys/{}", text(&made, "id")), text(&made, "key"));
    let away = works(&server, &key).await;
    away.problem(403, "ip_not_allowed");
    assert_eq!(away.header("x-mode"), "");
    let forged = server.ask(Method::GET, "/v1/whoami").key(&key).header("x-forwarded-for", "10.1.1.1").send().await;
    forged.problem(403, "ip_not_allowed");
    // Who does not hold the secret learns nothing of it.
    let mut wrong = key.clone();
    wrong.replace_range(23..24, if &key[23..24] == "A" { "B" } else { "A" });
    works(&server, &wrong).await.problem(401, "invalid_api_key");
    let patched = server.patch(&path, json!({"allowed_ips": ["127.0.0.1"], "name": "n", "metadata": {"a": "b"}})).await;
    let patched = patched.ok(200);
    assert_eq!((&patched["name"], &patched["metadata"]), (&json!("n"), &json!({"a": "b"})));
    works(&server, &key).await.ok(200);
    server.patch(&path, json!({"allowed_ips": ["192.0.2.0/24"]})).await.ok(200);
    works(&server, &key).await.problem(403, "ip_not_allowed");
    server.patch(&path, json!({"allowed_ips": null})).await.ok(200);
    works(&server, &key).await.ok(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workspace_has_so_many_keys() {
    let server = Server::start().await;
    let make = |ask: Ask| ask.json(&json!({"name": "k", "scope": "read:usage"})).send();
    let mut last = String::new();
    for _ in 1..ACTIVE_KEYS_MAX {
        last = text(&make(server.ask(Method::POST, "/v1/api-keys")).await.ok(201), "id");
    }
    make(server.ask(Method::POST, "/v1/api-keys")).await.problem(409, "limit_reached");
    // Replacing one makes no more of them; ending one makes room.
    let next = server.post(&format!("/v1/api-keys/{last}/rotate"), json!({})).await.ok(201);
    server.post(&format!("/v1/api-keys/{}/revoke", text(&next, "id")), json!({})).await.ok(200);
    make(server.ask(Method::POST, "/v1/api-keys")).await.ok(201);
    make(server.ask(Method::POST, "/v1/api-keys")).await.problem(409, "limit_reached");
    let other = server.owner_of(server.new_workspace().await, Mode::Live).await;
    make(server.ask(Method::POST, "/v1/api-keys").key(&other)).await.ok(201);
}
