//! Incidents across alerts: when they began and ended, who takes care, and that their ids stay.

use crate::server::Server;
use reqwest::Method;
use serde_json::{Value, json};

async fn alert(server: &Server, name: &str, rule: &str) -> String {
    let body = json!({"account_id": "*", "rule": rule, "channel": "webhook", "name": name});
    server.post("/v1/alerts", body).await.ok(201)["id"].as_str().unwrap().to_owned()
}

async fn start() -> Server {
    let server = Server::start().await;
    let channel = json!({"type": "webhook", "name": "hook", "url": "https://example.com/"});
    server.post("/v1/channels", channel).await.ok(201);
    server.put("/v1/accounts/*/quotas/calls", json!({"limit": 100, "period": "month"})).await.ok(201);
    server
}

async fn list(server: &Server, query: &str) -> Vec<Value> {
    let page = server.get(&format!("/v1/incidents?{query}")).await.ok(200);
    page["items"].as_array().unwrap().iter().cloned().map(lasting).collect()
}

/// An incident without what becomes of its message meanwhile.
fn lasting(mut incident: Value) -> Value {
    incident.as_object_mut().unwrap().remove("deliveries");
    incident
}

fn field(items: &[Value], name: &str) -> Vec<String> {
    items.iter().map(|item| item[name].as_str().unwrap_or("-").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incident_lasts_from_firing_to_resolved() {
    let mut server = start().await;
    let (near, over) = (alert(&server, "near", "used > 50").await, alert(&server, "over", "quota_percent > 90").await);
    server.count("acme", "calls", 60).await;
    server.count("zen", "calls", 95).await;
    server.count("acme", "calls", -20).await;
    server.count("acme", "calls", 30).await;
    let all = list(&server, "sort=created_at").await;
    assert_eq!(field(&all, "account_id"), ["acme", "zen", "zen", "acme"]);
    assert_eq!(field(&all, "status"), ["resolved", "open", "open", "open"]);
    let first = &all[0];
    assert_eq!(
        (&first["alert_id"], &first["alert_name"], &first["severity"]),
        (&json!(near), &json!("near"), &json!("warning"))
    );
    assert_eq!((&first["value"], &first["end_value"], &first["metric"]), (&json!(60), &json!(40), &json!("calls")));
    assert_eq!(
        (&first["reason"], &first["end_reason"], &first["rule"]),
        (&json!("condition"), &json!("condition"), &json!("used > 50"))
    );
    assert!(first["started_at"].as_str() <= first["ended_at"].as_str() && first["ended_at"].is_string());
    assert_eq!((&first["sequence"], &first["end_sequence"]), (&json!(1), &json!(2)));
    assert_eq!(lasting(server.get(&format!("/v1/incidents/{}", first["id"].as_str().unwrap())).await.ok(200)), *first);
    // Filters: several values of one are or, several filters are and.
    assert_eq!(
        field(&list(&server, "").await, "account_id"),
        ["acme", "zen", "zen", "acme"].into_iter().rev().collect::<Vec<_>>()
    );
    assert_eq!(list(&server, &format!("alert_id={over}")).await.len(), 1);
    assert_eq!(list(&server, &format!("alert_id={over}&alert_id={near}&account_id=zen")).await.len(), 2);
    let resolved = list(&server, "account_id=acme&status=resolved").await;
    assert_eq!(resolved.iter().collect::<Vec<_>>(), [first]);
    assert_eq!(list(&server, "account_id=acme&account_id=nobody&status=open&status=acknowledged").await.len(), 1);
    let started = first["started_at"].as_str().unwrap();
    assert_eq!(list(&server, &format!("created_before={started}")).await.len(), 0);
    assert_eq!(list(&server, &format!("created_after={started}")).await.len(), 4);
    server.get("/v1/incidents?alert_id=x").await.problem(400, "invalid_parameter");
    // The history says which transition began which.
    let history = server.get(&format!("/v1/alerts/{near}/history?account_id=acme&sort=created_at")).await.ok(200);
    assert_eq!(history["items"][0]["incident_id"], first["id"]);
    assert_eq!(history["items"][1]["incident_id"], Value::Null);
    // They are derived: the same again behind a restart, and behind the alert's end.
    server.restart().await;
    server.settle().await;
    assert_eq!(list(&server, "sort=created_at").await, all);
    server.delete(&format!("/v1/alerts/{near}")).await.ok(204);
    server.settle().await;
    let gone = server.get(&format!("/v1/incidents/{}", all[3]["id"].as_str().unwrap())).await.ok(200);
    assert_eq!(
        (&gone["status"], &gone["end_reason"], &gone["severity"]),
        (&json!("resolved"), &json!("deleted"), &Value::Null)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_became_of_a_deleted_account_is_gone_with_it() {
    let server = start().await;
    let near = alert(&server, "near", "used > 50").await;
    let accounts = ["acme", "mine", "zen"];
    for account in accounts {
        server.count(account, "calls", 60).await;
    }
    let history = format!("/v1/alerts/{near}/history");
    let shown = async |path: String| field(server.get(&path).await.ok(200)["items"].as_array().unwrap(), "account_id");
    assert_eq!(shown(history.clone()).await.len(), 3);
    let gone = list(&server, "account_id=mine").await[0]["id"].as_str().unwrap().to_owned();
    server.post("/v1/accounts", json!({"id": "mine"})).await.ok(201);
    server.delete("/v1/accounts/mine").await.ok(204);
    server.settle().await;
    assert_eq!(field(&list(&server, "sort=created_at").await, "account_id"), ["acme", "zen"]);
    assert_eq!(shown(history.clone()).await, ["zen", "acme"]);
    server.get(&format!("/v1/incidents/{gone}")).await.problem(404, "resource_not_found");
    server.post(&format!("/v1/incidents/{gone}/ack"), json!({})).await.problem(404, "resource_not_found");
    // In pages, by number and by cursor, as if the other had never been.
    for path in ["/v1/incidents".to_owned(), history] {
        let first = server.get(&format!("{path}?page_size=1")).await.ok(200);
        let cursor = first["next_cursor"].as_str().unwrap();
        let second = server.get(&format!("{path}?cursor={cursor}")).await.ok(200);
        let by_number = server.get(&format!("{path}?page_size=1&page=2")).await.ok(200);
        assert_eq!((&second["items"], &second["has_more"]), (&by_number["items"], &json!(false)), "{path}");
        assert_eq!(
            (&first["items"][0]["account_id"], &second["items"][0]["account_id"]),
            (&json!("zen"), &json!("acme"))
        );
    }
    // The account may begin anew.
    server.count("mine", "calls", 70).await;
    assert_eq!(list(&server, "account_id=mine").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_care_is_noted_once() {
    let mut server = start().await;
    alert(&server, "near", "used > 50").await;
    for account in ["a", "b", "c"] {
        server.count(account, "calls", 60).await;
    }
    let all = list(&server, "sort=created_at").await;
    let path = |at: usize| format!("/v1/incidents/{}", all[at]["id"].as_str().unwrap());
    let ack = server.ask(Method::POST, &format!("{}/ack", path(0))).header("idempotency-key", "ack-1");
    let noted = lasting(ack.clone().send().await.ok(200));
    assert_eq!(noted["status"], "acknowledged");
    assert!(noted["acknowledged_by"].as_str().unwrap().starts_with("key_"));
    assert_eq!(lasting(server.get(&path(0)).await.ok(200)), noted);
    // By somebody else: who was first stays.
    let other = server.owner_of(server.workspace, highwater::domain::id::Mode::Live).await;
    let second = server.ask(Method::POST, &format!("{}/ack", path(0))).key(&other).send().await;
    assert_eq!(lasting(second.ok(200)), noted);
    assert_eq!(field(&list(&server, "status=acknowledged").await, "id"), [noted["id"].as_str().unwrap()]);
    assert_eq!(list(&server, "status=open&sort=created_at").await, all[1..]);
    assert_eq!(list(&server, "status=open&page=2&page_size=1").await, [all[1].clone()]);
    assert_eq!(list(&server, "status=open&status=resolved&sort=created_at").await, all[1..]);
    server.restart().await;
    assert_eq!(lasting(server.get(&path(0)).await.ok(200)), noted);
    // It ended: a repetition is answered as the first time, a first acknowledgement comes too late.
    server.count("a", "calls", -60).await;
    server.count("b", "calls", -60).await;
    let again = server.ask(Method::POST, &format!("{}/ack", path(0))).header("idempotency-key", "ack-1").send().await;
    assert_eq!((lasting(again.ok(200)), again.header("idempotent-replayed")), (noted.clone(), "true"));
    let ended = server.get(&path(0)).await.ok(200);
    assert_eq!((&ended["status"], &ended["acknowledged_at"]), (&json!("resolved"), &noted["acknowledged_at"]));
    server.post(&format!("{}/ack", path(1)), json!({})).await.problem(409, "invalid_state");
    server.post(&format!("{}/ack", path(0)), json!({})).await.ok(200);
    // Of another workspace it is as if it were not.
    let theirs = server.owner_of(server.new_workspace().await, highwater::domain::id::Mode::Live).await;
    for (method, path) in [(Method::GET, path(2)), (Method::POST, format!("{}/ack", path(2)))] {
        server.ask(method, &path).key(&theirs).send().await.problem(404, "resource_not_found");
    }
    assert_eq!(server.ask(Method::GET, "/v1/incidents").key(&theirs).send().await.ok(200)["items"], json!([]));
}
