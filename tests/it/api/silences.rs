//! Silences over the API: their life, their matchers, and what they hold.

use crate::receiver::Receiver;
use crate::server::{Server, eventually};
use highwater::domain::time::Millis;
use highwater::runtime::clock;
use reqwest::Method;
use serde_json::{Value, json};

fn at(from_now: i64) -> String {
    clock::now().plus(Millis::seconds(from_now)).to_string()
}

fn silence(name: &str, value: &str, (from, to): (i64, i64)) -> Value {
    json!({"matchers": [{"name": name, "value": value}], "starts_at": at(from), "ends_at": at(to), "comment": "work"})
}

fn path(silence: &Value) -> String {
    format!("/v1/silences/{}", silence["id"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silences_life() {
    let server = Server::start().await;
    let ask = server.ask(Method::POST, "/v1/silences").json(&silence("severity", "info", (-5, 600)));
    let ask = ask.header("idempotency-key", "s-1");
    let answer = ask.clone().send().await;
    let made = answer.ok(201);
    assert_eq!((made["object"].as_str(), made["status"].as_str()), (Some("silence"), Some("active")));
    assert_eq!(made["matchers"], json!([{"name": "severity", "value": "info", "op": "="}]));
    assert_eq!((answer.header("location"), answer.header("etag")), (path(&made).as_str(), "\"1\""));
    assert!(made["id"].as_str().unwrap().starts_with("sil_") && made["created_by"].as_str().is_some());
    let again = ask.send().await;
    assert_eq!((again.ok(201), again.header("idempotent-replayed")), (made.clone(), "true"));
    let changed = server.patch(&path(&made), json!({"comment": null, "starts_at": at(300)})).await.ok(200);
    assert_eq!(
        (&changed["status"], &changed["comment"], &changed["version"]),
        (&json!("pending"), &Value::Null, &json!(2))
    );
    let stale = server.ask(Method::PATCH, &path(&made)).header("if-match", "\"1\"").json(&json!({"comment": "x"}));
    stale.send().await.problem(412, "version_mismatch");
    let shown = server.get(&path(&made)).await;
    assert_eq!(shown.ok(200), changed);
    let unchanged = server.ask(Method::GET, &path(&made)).header("if-none-match", shown.header("etag")).send().await;
    assert_eq!(unchanged.status, 304);
    let expire = format!("{}/expire", path(&made));
    let expired = server.post(&expire, json!({})).await.ok(200);
    assert_eq!((&expired["status"], &expired["version"]), (&json!("expired"), &json!(3)));
    assert_eq!(server.post(&expire, json!({})).await.ok(200), expired, "there already: nothing changes");
    server.patch(&path(&made), json!({"comment": "late"})).await.problem(409, "invalid_state");
    // By its status, and by its age.
    let active = server.post("/v1/silences", silence("name", "x", (-5, 600))).await.ok(201)["id"].clone();
    let pending = server.post("/v1/silences", silence("name", "y", (300, 600))).await.ok(201)["id"].clone();
    let ids = async |query: &str| -> Vec<Value> {
        let list = server.get(&format!("/v1/silences?{query}")).await.ok(200);
        list["items"].as_array().unwrap().iter().map(|item| item["id"].clone()).collect()
    };
    assert_eq!(ids("").await, [pending.clone(), active.clone(), made["id"].clone()]);
    assert_eq!(ids("sort=created_at&status=active&status=expired").await, [made["id"].clone(), active]);
    assert_eq!(ids("status=pending").await, [pending]);
    assert_eq!(ids(&format!("created_before={}", at(-3_600))).await, [] as [Value; 0]);
    server.get("/v1/silences?status=gone").await.problem(400, "invalid_parameter");
    let other = server.owner_of(server.new_workspace().await, highwater::domain::id::Mode::Live).await;
    server.ask(Method::GET, &path(&made)).key(&other).send().await.problem(404, "resource_not_found");
    server.ask(Method::POST, &expire).key(&other).send().await.problem(404, "resource_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_silence_is_named() {
    let server = Server::start().await;
    let check = async |change: Value, pointer: &str| {
        let mut body = silence("name", "x", (-5, 600));
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let problem = server.post("/v1/silences", body).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    };
    let matcher = |value: &str, op: &str| json!({"matchers": [{"name": "metric", "value": value, "op": op}]});
    check(json!({"matchers": []}), "/matchers").await;
    check(json!({"matchers": vec![json!({"name": "a", "value": "b"}); 21]}), "/matchers").await;
    check(json!({"matchers": [{"name": "", "value": "b"}]}), "/matchers/0/name").await;
    check(matcher("x", "=="), "/matchers/0/op").await;
    check(json!({"matchers": [["metric", "x"]]}), "/matchers/0").await;
    check(matcher(&"x".repeat(257), "="), "/matchers/0/value").await;
    check(matcher("(?:a{1000}){1000}", "=~"), "/matchers/0/value").await;
    check(matcher("a)|(b", "!~"), "/matchers/0/value").await;
    check(json!({"ends_at": at(-10)}), "/ends_at").await;
    check(json!({"starts_at": at(-100), "ends_at": at(-10)}), "/ends_at").await;
    check(json!({"starts_at": "tomorrow"}), "/starts_at").await;
    check(json!({"comment": ""}), "/comment").await;
    // Not an expression at all where none is meant, and one that is slow elsewhere.
    for (value, op) in [("a)|(b", "="), ("(a+)+", "=~")] {
        let mut body = silence("name", "x", (-5, 600));
        body.as_object_mut().unwrap().extend(matcher(value, op).as_object().unwrap().clone());
        server.post("/v1/silences", body).await.ok(201);
    }
    for name in ["id", "status", "created_by", "mode", "version"] {
        let mut body = silence("name", "x", (-5, 600));
        body[name] = json!("x");
        server.post("/v1/silences", body).await.problem(422, "unknown_field");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_silenced_is_told_once_when_that_ends() {
    let mut server = Server::start().await;
    let mut receiver = Receiver::start().await;
    let channel = json!({"type": "webhook", "name": "hook", "url": receiver.url()});
    server.post("/v1/channels", channel).await.ok(201);
    let alert = json!({"account_id": "*", "rule": "sum > 10", "channel": "webhook", "labels": {"team": "core"}});
    let alert = server.post("/v1/alerts", alert).await.ok(201)["id"].as_str().unwrap().to_owned();
    let mut body = silence("team", "co.e", (-5, 3_600));
    body["matchers"][0]["op"] = json!("=~");
    let silence = server.post("/v1/silences", body).await.ok(201);
    server.count("acme", "calls", 11).await;
    let shown = server.get(&format!("/v1/alerts/{alert}")).await.ok(200);
    assert_eq!((&shown["state"], &shown["silenced"]), (&json!("firing"), &json!(true)));
    // It outlives the process.
    server.restart().await;
    server.count("acme", "calls", 1).await;
    server.post(&format!("{}/expire", path(&silence)), json!({})).await.ok(200);
    let told = receiver.next().await.json();
    assert_eq!((&told["type"], &told["data"]["reason"]), (&json!("alert.firing"), &json!("silence_ended")));
    eventually("the end of the silence on the alert", async || {
        (server.get(&format!("/v1/alerts/{alert}")).await.ok(200)["silenced"] == false).then_some(())
    })
    .await;
    assert_eq!(receiver.rest().len(), 0, "told once");
}
