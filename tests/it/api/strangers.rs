//! Nothing of one workspace is found, changed or told with a key of another (BOLA): every operation of the description.

use super::things::{Made, call, described, make, makes, on_things, told};
use crate::server::Server;
use highwater::domain::id::Mode;
use reqwest::Method;
use serde_json::{Value, json};

struct Worlds {
    server: Server,
    /// What the owner has, and what the stranger has, each in its workspace.
    owned: Made,
    strange: Made,
    /// The stranger's keys of both modes.
    live: String,
    sandbox: String,
}

async fn worlds() -> Worlds {
    let server = Server::start().await;
    let elsewhere = server.new_workspace().await;
    let live = server.owner_of(elsewhere, Mode::Live).await;
    let sandbox = server.owner_of(elsewhere, Mode::Sandbox).await;
    let owned = make(&server, &server.key, "owned").await;
    let strange = make(&server, &live, "strange").await;
    Worlds { server, owned, strange, live, sandbox }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_on_a_thing_of_another_workspace_finds_nothing() {
    let Worlds { server, owned, live, sandbox, .. } = worlds().await;
    let mut cases = 0;
    // What makes things comes last: the stranger finds its own from then on.
    let mut operations = on_things();
    operations.sort_by_key(|(method, _)| makes(method));
    for (method, described) in operations {
        let operation = (method.as_str(), described.as_str());
        let path = owned.path(&described).unwrap_or_else(|| panic!("{operation:?} has no case here"));
        for key in [&live, &sandbox] {
            cases += 1;
            if makes(&method) {
                assert!(matches!(call(&server, operation, &path, key).await.status, 200 | 201), "{operation:?}");
                continue;
            }
            // What is another's and what is nobody's are told in the same words.
            let found = told(&call(&server, operation, &path, key).await);
            let nothing = told(&call(&server, operation, &owned.made_up(&path), key).await);
            assert_eq!(owned.made_up(&found.to_string()), nothing.to_string(), "{operation:?}");
            assert!(found.get("hint").is_none(), "{operation:?}: {found}");
        }
    }
    println!("BOLA matrix: {cases} cases");
    assert!(cases >= 100, "{cases}");
    owned.is_there(&server, &server.key).await;
    let quota = format!("/v1/accounts/{}/quotas", owned.account);
    assert_eq!(server.get(&quota).await.ok(200)["items"].as_array().unwrap().len(), 1, "the stranger's is not here");
    assert_eq!(server.get(&quota).await.ok(200)["items"][0]["limit"], 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_list_and_no_answer_tells_of_another_workspace() {
    let Worlds { server, owned, strange, live, .. } = worlds().await;
    let told_of = |text: &str, made: &Made| made.names().iter().any(|name| text.contains(name));
    let (mut cases, mut telling) = (0, 0);
    for (method, described) in described() {
        let is_apart =
            described == "/v1/stream" || described.contains("{receipt}") || described.starts_with("/v1/sandbox");
        if method != "get" || is_apart {
            continue;
        }
        let path = strange.path(&described).unwrap_or_else(|| described.clone());
        let answer = call(&server, (&method, &described), &path, &live).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert!(!told_of(&answer.text(), &owned), "{path}: {}", answer.text());
        cases += 1;
        telling += usize::from(told_of(&answer.text(), &strange));
    }
    let query = server.ask(Method::POST, "/v1/usage/query").key(&live).json(&json!({"group_by": ["account_id"]}));
    let text = query.send().await.ok(200).to_string();
    assert!(!told_of(&text, &owned) && told_of(&text, &strange), "{text}");
    println!("reads of a stranger: {cases} cases, {telling} of which tell of their own");
    assert!(telling >= 25, "{telling} of {cases}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_body_a_cursor_or_a_key_names_does_not_cross() {
    let Worlds { server, owned, live, .. } = worlds().await;
    let ask = |method: Method, path: &str, body: Value| server.ask(method, path).key(&live).json(&body).send();
    let alert = json!({"account_id": "acme", "rule": "used > 5", "channel": owned.channel});
    ask(Method::POST, "/v1/alerts", alert).await.problem(422, "channel_not_configured");
    // A project of another is refused in the words for one that nobody has.
    let key = |project: &str| json!({"name": "k", "role": "viewer", "project_ids": [project]});
    let alert =
        |project: &str| json!({"account_id": "acme", "rule": "used > 5", "channel": "slack", "project_id": project});
    for project in [&owned.project, &owned.made_up(&owned.project)] {
        for (path, pointer, body) in [
            ("/v1/api-keys", "/project_ids/0", key(project)),
            ("/v1/oauth/clients", "/project_ids/0", key(project)),
            ("/v1/alerts", "/project_id", alert(project)),
        ] {
            let refused = ask(Method::POST, path, body).await.problem(422, "validation_failed");
            let error = &refused["errors"][0];
            assert_eq!((&error["pointer"], &error["detail"]), (&json!(pointer), &json!("there is no such project")));
        }
    }
    // A silence may name any text, and holds in its own workspace alone.
    let silence = json!({"matchers": [{"name": "alert_id", "value": owned.alert}], "starts_at": "2026-01-01T00:00:00Z",
                         "ends_at": "2126-01-01T00:00:00Z"});
    let made = ask(Method::POST, "/v1/silences", silence.clone()).await.ok(201);
    assert_eq!(made["status"], "active");
    let alert = format!("/v1/alerts/{}", owned.alert);
    assert_eq!(server.get(&alert).await.ok(200)["silenced"], false);
    server.post("/v1/silences", silence).await.ok(201);
    assert_eq!(server.get(&alert).await.ok(200)["silenced"], true, "its owner's holds");
    let usage = ask(Method::POST, "/v1/usage/query", json!({"account_ids": [owned.account]})).await;
    assert!(usage.status != 200 || usage.json()["items"] == json!([]), "{}", usage.text());
    for n in 0..3 {
        server.post("/v1/accounts", json!({"id": format!("acc_{n}")})).await.ok(201);
    }
    let cursor = server.get("/v1/accounts?page_size=1").await.ok(200)["next_cursor"].as_str().unwrap().to_owned();
    let path = format!("/v1/accounts?cursor={cursor}");
    server.get(&path).await.ok(200);
    server.ask(Method::GET, &path).key(&live).send().await.problem(400, "invalid_cursor");
    // One idempotency key in two workspaces is two keys.
    for (key, id) in [(&server.key, "twice"), (&live, "other")] {
        let ask = server.ask(Method::POST, "/v1/accounts").key(key).header("idempotency-key", "same");
        assert_eq!(ask.json(&json!({"id": id})).send().await.ok(201)["id"], id);
    }
}
