//! Silences over the API: their life, their matchers, and what they hold.

use crate::receiver::{Receiver, Reply};
use crate::server::{Server, eventually};
use highwater::domain::time::{Millis, Timestamp};
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
    check(json!({"duration": "2h"}), "/duration").await;
    check(json!({"ends_at": null}), "/ends_at").await;
    check(json!({"ends_at": null, "duration": "0s"}), "/duration").await;
    check(json!({"ends_at": null, "duration": "2 hours"}), "/duration").await;
    check(json!({"ends_at": null, "starts_at": at(-7_210), "duration": "2h"}), "/ends_at").await;
    // What also matches the empty text holds every alert that has no such label.
    let matchers = |pairs: &[(&str, &str)]| {
        let one = |(op, value): &(&str, &str)| json!({"name": "team", "op": op, "value": value});
        json!({"matchers": pairs.iter().map(one).collect::<Vec<_>>()})
    };
    for all in [&[("=", "")][..], &[("!=", "core")], &[("=~", ".*")], &[("!~", "core")], &[("=~", "a|"), ("!=", "b")]] {
        check(matchers(all), "/matchers").await;
        let kept = server.post("/v1/silences", silence("name", "x", (-5, 600))).await.ok(201);
        let refused = server.patch(&path(&kept), matchers(all)).await.problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], "/matchers", "{refused}");
        let some = [all, &[("!=", "")]].concat();
        server.patch(&path(&kept), matchers(&some)).await.ok(200);
    }
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
async fn a_duration_stands_in_for_an_end() {
    let server = Server::start().await;
    let matchers = json!([{"name": "name", "value": "x"}]);
    let instant = |value: &Value| Timestamp::parse(value.as_str().unwrap()).unwrap();
    let before = clock::now();
    let ask = server.ask(Method::POST, "/v1/silences").header("idempotency-key", "s-2");
    let ask = ask.json(&json!({"matchers": matchers, "duration": "2h"}));
    let made = ask.clone().send().await.ok(201);
    let starts_at = instant(&made["starts_at"]);
    assert!(before <= starts_at && starts_at <= clock::now(), "{made}");
    assert_eq!((instant(&made["ends_at"]), &made["status"]), (starts_at.plus(Millis::hours(2)), &json!("active")));
    assert_eq!(ask.send().await.ok(201), made, "a repetition begins nothing anew");
    let later = json!({"matchers": matchers, "starts_at": at(600), "duration": "5m"});
    let later = server.post("/v1/silences", later).await.ok(201);
    assert_eq!(instant(&later["ends_at"]), instant(&later["starts_at"]).plus(Millis::minutes(5)));
    // Of a change it counts from where the silence begins.
    let longer = server.patch(&path(&made), json!({"duration": "3h"})).await.ok(200);
    assert_eq!(instant(&longer["ends_at"]), starts_at.plus(Millis::hours(3)));
    let moved = server.patch(&path(&later), json!({"starts_at": at(1_200), "duration": "1h"})).await.ok(200);
    assert_eq!(instant(&moved["ends_at"]), instant(&moved["starts_at"]).plus(Millis::hours(1)));
    let both = server.patch(&path(&made), json!({"duration": "3h", "ends_at": at(600)})).await;
    assert_eq!(both.problem(422, "validation_failed")["errors"][0]["pointer"], "/duration");
    server.patch(&path(&made), json!({"duration": null})).await.problem(422, "validation_failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_tells_what_a_silence_would_hold() {
    let server = Server::start().await;
    let mut receiver = Receiver::answering(Reply::status(503)).await;
    let channel = json!({"type": "webhook", "name": "hook", "url": receiver.url()});
    let channel = server.post("/v1/channels", channel).await.ok(201)["id"].clone();
    let alert = async |rule: &str, name: &str| {
        let body = json!({"account_id": "*", "rule": rule, "channel": "webhook", "name": name, "severity": "critical"});
        server.post("/v1/alerts", body).await.ok(201)["id"].as_str().unwrap().to_owned()
    };
    let paid = alert("sum(\"pay\") > 10", "paid").await;
    let busy = alert("sum(\"calls\") > 10", "busy").await;
    for (account, metric, value) in [("zen", "pay", 1), ("acme", "pay", 20), ("acme", "calls", 20)] {
        server.count(account, metric, value).await;
    }
    receiver.next().await;
    let ask = async |matchers: Value| server.post("/v1/silences/preview", json!({"matchers": matchers})).await.ok(200);
    let matcher = |name: &str, op: &str, value: &str| json!({"name": name, "op": op, "value": value});
    let seen = eventually("the pending message", async || {
        let seen = ask(json!([matcher("metric", "=", "pay")])).await;
        (seen["pending_messages"] == 1).then_some(seen)
    })
    .await;
    assert_eq!((&seen["object"], &seen["ends_at"]), (&json!("silence_preview"), &Value::Null));
    assert_eq!((&seen["alerts"], &seen["instances"], &seen["firing"]), (&json!(1), &json!(2), &json!(1)));
    assert_eq!((&seen["states"], &seen["has_more"]), (&json!({"firing": 1, "ok": 1}), &json!(false)));
    let first = &seen["items"][0];
    for (name, value) in [
        ("alert_id", json!(paid)),
        ("alert_name", json!("paid")),
        ("severity", json!("critical")),
        ("account_id", json!("acme")),
        ("metric", Value::Null),
        ("metrics", json!(["pay"])),
        ("state", json!("firing")),
        ("silenced", json!(false)),
    ] {
        assert_eq!(first[name], value, "{name}: {seen}");
    }
    assert_eq!(first["pending_messages"][0]["channel_id"], channel);
    assert_eq!((&seen["items"][1]["account_id"], &seen["items"][1]["pending_messages"]), (&json!("zen"), &json!([])));
    let count = async |matchers: Value| ask(matchers).await["instances"].clone();
    assert_eq!(count(json!([matcher("severity", "=", "critical")])).await, 4);
    assert_eq!(count(json!([matcher("alert_id", "=", &busy)])).await, 2);
    assert_eq!(count(json!([matcher("metric", "!=", "pay"), matcher("name", "=~", ".+")])).await, 2);
    assert_eq!(count(json!([matcher("account_id", "=", "acme")])).await, 2);
    assert_eq!(count(json!([matcher("account_id", "=", "nobody")])).await, 0);
    assert_eq!(count(json!([matcher("severity", "=", "info")])).await, 0);
    // What is created says the same of each instance.
    let body = json!({"matchers": [matcher("metric", "=", "pay")], "duration": "1h"});
    server.post("/v1/silences", body.clone()).await.ok(201);
    eventually("the silence on the instances", async || {
        let seen = server.post("/v1/silences/preview", body.clone()).await.ok(200);
        assert!(seen["ends_at"].is_string(), "{seen}");
        seen["items"].as_array().unwrap().iter().all(|item| item["silenced"] == true).then_some(())
    })
    .await;
    assert_eq!(server.get(&format!("/v1/alerts/{busy}")).await.ok(200)["silenced"], false);
    // Nothing is kept of a preview, and what creation refuses it refuses, too.
    assert_eq!(server.get("/v1/silences").await.ok(200)["items"].as_array().unwrap().len(), 1);
    let empty = json!({"matchers": [matcher("team", "=", "")]});
    server.post("/v1/silences/preview", empty).await.problem(422, "validation_failed");
    let other = server.owner_of(server.new_workspace().await, highwater::domain::id::Mode::Live).await;
    let theirs = server.ask(Method::POST, "/v1/silences/preview").key(&other).json(&body).send().await.ok(200);
    assert_eq!((&theirs["instances"], &theirs["items"]), (&json!(0), &json!([])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_that_matchers_would_not_reach_are_refused() {
    let server = Server::start().await;
    let channel = json!({"type": "webhook", "name": "hook", "url": "https://example.com/"});
    server.post("/v1/channels", channel).await.ok(201);
    let alert = |labels: Value| json!({"account_id": "a", "rule": "sum > 1", "channel": "webhook", "labels": labels});
    let made = server.post("/v1/alerts", alert(json!({"team": "core"}))).await.ok(201);
    let alert_path = format!("/v1/alerts/{}", made["id"].as_str().unwrap());
    for name in ["alert_id", "account_id", "metric", "severity", "name"] {
        let refused = server.post("/v1/alerts", alert(json!({"team": "x", name: "x"}))).await;
        let refused = refused.problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], format!("/labels/{name}"), "{refused}");
        let refused = server.patch(&alert_path, json!({"labels": {name: "x"}})).await;
        assert_eq!(refused.problem(422, "validation_failed")["errors"][0]["pointer"], format!("/labels/{name}"));
        // One that is stored may be removed.
        server.patch(&alert_path, json!({"labels": {name: null}})).await.ok(200);
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
