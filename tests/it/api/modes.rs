//! Nothing of one mode is found with a key of the other: every operation on a thing, from both sides.

use super::sandbox::Sandbox;
use super::things::{call, make, makes, on_things, told};
use reqwest::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_on_a_thing_finds_it_in_its_mode_alone() {
    let sandbox = Sandbox::start().await;
    let server = &sandbox.server;
    let live = make(server, &server.key, "live").await;
    let test = make(server, &sandbox.key, "test").await;
    let mut cases = 0;
    for (method, described) in on_things() {
        if makes(&method) {
            continue;
        }
        let operation = (method.as_str(), described.as_str());
        for (made, key, says) in [(&live, &sandbox.key, "in live"), (&test, &server.key, "in the sandbox")] {
            let path = made.path(&described).unwrap_or_else(|| panic!("{operation:?} has no case here"));
            let mut found = told(&call(server, operation, &path, key).await);
            let hint = found.as_object_mut().unwrap().remove("hint");
            // What people set up is known to the fold of the control log, and is hinted at.
            let is_found = ["/v1/quarantine", "/v1/deliveries", "/v1/incidents"];
            let is_set_up = !is_found.iter().any(|noun| described.starts_with(noun));
            assert_eq!(hint.is_some_and(|hint| hint.as_str().unwrap().contains(says)), is_set_up, "{operation:?}");
            let nothing = told(&call(server, operation, &made.made_up(&path), key).await);
            assert_eq!(made.made_up(&found.to_string()), nothing.to_string(), "{operation:?}");
            cases += 1;
        }
    }
    println!("mode matrix: {cases} cases");
    assert!(cases >= 100, "{cases}");
    // All of it is still where it was.
    for (made, key) in [(&live, &server.key), (&test, &sandbox.key)] {
        made.is_there(server, key).await;
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
