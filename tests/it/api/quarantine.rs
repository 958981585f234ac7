//! The quarantine: what was set aside is listed, sent in again or given up.

use crate::server::{Server, eventually};
use reqwest::Method;
use serde_json::{Value, json};

/// Makes conflicts: the first event of each id stands, the second is set aside.
async fn conflicts(server: &Server, ids: &[&str]) -> Vec<Value> {
    for id in ids {
        for value in [1, 5] {
            server
                .post("/v1/events", json!({"account_id": "acme", "metric": "m", "id": id, "value": value}))
                .await
                .ok(202);
        }
        server.settle().await;
    }
    server.get("/v1/quarantine?status=open").await.ok(200)["items"].as_array().unwrap().clone()
}

async fn used(server: &Server) -> i64 {
    let usage = server.get("/v1/accounts/acme/usage?window=1h&metric=m").await.ok(200);
    usage["items"].as_array().unwrap().iter().map(|item| item["value"].as_i64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_sent_in_again_as_it_should_have_been() {
    let server = Server::start().await;
    let items = conflicts(&server, &["a"]).await;
    let entry = &items[0];
    assert_eq!(
        (&entry["object"], &entry["code"], &entry["status"], &entry["account_id"]),
        (&json!("quarantined_event"), &json!("event_conflict"), &json!("open"), &json!("acme"))
    );
    assert!(entry["body"].as_str().unwrap().contains("\"value\":5"), "{entry}");
    let path = format!("/v1/quarantine/{}/replay", entry["id"].as_str().unwrap());
    let refused = server.post(&path, json!({"event": {"account_id": "acme", "metric": "m", "colour": 1}})).await;
    assert_eq!(refused.problem(422, "validation_failed")["errors"][0]["pointer"], "/event/colour");
    server.post(&path, json!({"late": true})).await.problem(422, "unknown_field");
    // What it conflicts with stays counted, whatever else is corrected.
    for body in [
        json!({}),
        json!({"accept_late": true}),
        json!({"event": {"account_id": "acme", "metric": "m", "id": "a", "value": 6}}),
    ] {
        let detail = server.post(&path, body).await.problem(409, "invalid_state")["detail"].clone();
        assert!(detail.as_str().unwrap().contains("under another id"), "{detail}");
    }
    assert_eq!(server.get("/v1/quarantine?status=open").await.ok(200)["items"], json!(items));
    let event = json!({"account_id": "acme", "metric": "m", "id": "a2", "value": 5});
    let replayed = server.post(&path, json!({"event": event})).await.ok(200);
    assert_eq!(replayed["status"], "replayed");
    let receipt = replayed["receipt"].as_str().unwrap();
    server.get(&format!("/v1/accounts/acme/usage?after={receipt}")).await.ok(200);
    assert_eq!(used(&server).await, 6);
    server.post(&path, json!({"event": event})).await.problem(409, "invalid_state");
    assert_eq!(used(&server).await, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_given_up() {
    let server = Server::start().await;
    let items = conflicts(&server, &["a", "b"]).await;
    assert_eq!(items.len(), 2);
    let path = format!("/v1/quarantine/{}/discard", items[0]["id"].as_str().unwrap());
    let discard = || server.ask(Method::POST, &path).send();
    assert_eq!(discard().await.ok(200)["status"], "discarded");
    assert_eq!(discard().await.ok(200)["status"], "discarded", "it is so already");
    server.post(&path.replace("discard", "replay"), json!({})).await.problem(409, "invalid_state");
    let count = async |query: &str| {
        server.get(&format!("/v1/quarantine?{query}")).await.ok(200)["items"].as_array().unwrap().len()
    };
    assert_eq!((count("status=open").await, count("status=discarded").await, count("").await), (1, 1, 2));
    assert_eq!(
        (count("code=event_conflict").await, count("code=other").await, count("account_id=acme").await),
        (2, 0, 2)
    );
    let other = server.owner_of(server.new_workspace().await, highwater::domain::id::Mode::Live).await;
    server.ask(Method::POST, &path).key(&other).send().await.problem(404, "resource_not_found");
    server.post("/v1/quarantine/evt_nonsense/discard", json!({})).await.problem(404, "resource_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_an_event_are_one_entry_that_stays_settled() {
    let server = Server::start().await;
    let items = conflicts(&server, &["a"]).await;
    assert_eq!((&items[0]["count"], &items[0]["last_at"]), (&json!(1), &items[0]["at"]));
    let event = json!({"account_id": "acme", "metric": "m", "id": "a", "value": 5});
    let retry = async || {
        server.post("/v1/events/batch", json!({"events": vec![event.clone(); 500]})).await.ok(202);
        server.settle().await;
        server.get("/v1/quarantine").await.ok(200)["items"].as_array().unwrap().clone()
    };
    let again = retry().await;
    assert_eq!(again.len(), 1);
    assert_eq!((&again[0]["id"], &again[0]["count"], &again[0]["at"]), (&items[0]["id"], &json!(501), &items[0]["at"]));
    assert!(again[0]["last_at"].as_str() > again[0]["at"].as_str(), "{again:?}");
    let path = format!("/v1/quarantine/{}/discard", items[0]["id"].as_str().unwrap());
    let given_up = server.ask(Method::POST, &path).send().await.ok(200);
    assert_eq!((&given_up["status"], &given_up["count"]), (&json!("discarded"), &json!(501)));
    let settled = retry().await;
    assert_eq!(settled.len(), 1);
    assert_eq!((&settled[0]["status"], &settled[0]["count"]), (&json!("discarded"), &json!(1_001)));
    assert_eq!(server.get("/v1/quarantine?status=open").await.ok(200)["items"], json!([]));
}

/// What was an account's is nobody's once it is deleted: it is listed nowhere, brings nothing back, and leaves the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_deleted_account_had_is_gone() {
    let server = Server::start().await;
    let webhook = json!({"url": "https://a.example/h", "event_types": ["alert.firing", "alert.resolved", "account.*", "quota.*"]});
    let webhook = server.post("/v1/webhooks", webhook).await.ok(201)["id"].as_str().unwrap().to_owned();
    server.post(&format!("/v1/webhooks/{webhook}/pause"), json!({})).await.ok(200);
    let channel = json!({"type": "webhook", "name": "c", "url": "https://example.com/"});
    let channel = server.post("/v1/channels", channel).await.ok(201)["id"].clone();
    let alert = json!({"account_id": "*", "rule": "sum > 3", "channel": channel});
    let alert = server.post("/v1/alerts", alert).await.ok(201)["id"].as_str().unwrap().to_owned();
    server.put("/v1/accounts/*/quotas/m", json!({"limit": 5, "period": "day"})).await.ok(201);
    for account in ["gone", "kept"] {
        server.post("/v1/accounts", json!({"id": account})).await.ok(201);
        server.count(account, "m", 7).await;
        for value in [1, 2] {
            let event = json!({"account_id": account, "metric": "m", "id": "twice", "value": value});
            server.post("/v1/events", event).await.ok(202);
        }
    }
    server.settle().await;
    let listed = async |path: &str| server.get(path).await.ok(200)["items"].as_array().unwrap().clone();
    let deliveries = format!("/v1/webhooks/{webhook}/deliveries?page_size=100");
    let types = async || {
        let mut types: Vec<String> =
            listed(&deliveries).await.iter().map(|item| item["event_type"].as_str().unwrap().to_owned()).collect();
        types.sort_unstable();
        types
    };
    let each = ["account.created", "alert.firing", "quota.exceeded", "quota.threshold_reached"];
    let twice: Vec<&str> = each.iter().flat_map(|kind| [*kind; 2]).collect();
    let all = eventually("the events of both", async || Some(types().await).filter(|types| types.len() >= twice.len()));
    assert_eq!(all.await, twice);
    let mine = listed("/v1/quarantine?account_id=gone").await.remove(0);
    let delivery = async |account: &str| {
        for item in listed(&deliveries).await {
            let path = format!("/v1/deliveries/{}", item["id"].as_str().unwrap());
            if server.get(&path).await.ok(200)["payload"].to_string().contains(&format!("\"{account}\"")) {
                return path;
            }
        }
        unreachable!("no delivery of {account}")
    };
    let (gone, kept) = (delivery("gone").await, delivery("kept").await);
    assert_eq!(server.delete("/v1/accounts/gone").await.status, 204);
    server.settle().await;
    // Its deletion, and that its alert ended by it, are news of the account that is no more.
    let mut left: Vec<&str> = each.to_vec();
    left.push("account.deleted");
    left.sort_unstable();
    assert_eq!(types().await, left);
    server.get(&gone).await.problem(404, "resource_not_found");
    server.post(&format!("{gone}/redeliver"), json!({})).await.problem(404, "resource_not_found");
    server.get(&kept).await.ok(200);
    let quarantined = listed("/v1/quarantine").await;
    assert_eq!(quarantined.iter().map(|item| &item["account_id"]).collect::<Vec<_>>(), [&json!("kept")]);
    let path = format!("/v1/quarantine/{}", mine["id"].as_str().unwrap());
    for way in ["replay", "discard"] {
        server.post(&format!("{path}/{way}"), json!({})).await.problem(404, "resource_not_found");
    }
    server.settle().await;
    server.get("/v1/accounts/gone").await.problem(404, "resource_not_found");
    assert_eq!(listed(&format!("/v1/alerts/{alert}/history")).await.len(), 1);
    // Nothing but the deliveries is left in the store.
    let mut tables = std::collections::BTreeMap::new();
    let scanned = server.node().data.store.scan(&mut |row| {
        if format!("{} {}", row.key, row.row).contains("gone") {
            *tables.entry(row.table).or_insert(0) += 1;
        }
        std::ops::ControlFlow::Continue(())
    });
    scanned.unwrap();
    tables.remove("webhook_events");
    assert!(tables.is_empty(), "{tables:?}");
    // It comes back as somebody else.
    server.count("gone", "m", 1).await;
    assert_eq!(listed("/v1/quarantine").await.len(), 1);
    let usage = server.get("/v1/accounts/gone/usage?metric=m").await.ok(200);
    assert_eq!(usage["items"].as_array().unwrap().last().unwrap()["value"], 1);
}
