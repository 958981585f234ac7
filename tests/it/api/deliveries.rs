//! What became of events, and sending them again.

use super::endpoints::{endpoint, told};
use crate::receiver::{Receiver, Reply};
use crate::server::{Server, eventually};
use serde_json::{Value, json};

async fn accounts(server: &Server, names: &[&str]) {
    for name in names {
        server.post("/v1/accounts", json!({"id": name})).await.ok(201);
    }
}

/// Waits until so many deliveries have a status.
async fn having(server: &Server, webhook: &str, status: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} that are {status}"), async || {
        let page =
            server.get(&format!("/v1/webhooks/{webhook}/deliveries?status={status}&page_size=100")).await.ok(200);
        let items = page["items"].as_array().unwrap().clone();
        (items.len() == count).then_some(items)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_shows_its_attempts_and_is_made_again_under_its_id() {
    let server = Server::start().await;
    let mut receiver = Receiver::start().await;
    let (webhook, secret) = endpoint(&server, &receiver.url(), json!(["account.*"])).await;
    receiver.script([Reply::status(500).saying("on fire").with("retry-after", "1")]);
    accounts(&server, &["acme"]).await;
    let (first, _) = told(&mut receiver, &secret, "account.created").await;
    let tried = eventually("an attempt", async || {
        let pending = having(&server, &webhook, "pending", 1).await.remove(0);
        (pending["attempt_count"] == 1 && pending["outcome"].is_string()).then_some(pending)
    });
    let pending = tried.await;
    assert_eq!(pending["event_type"], "account.created");
    // What a receiver in an allow-listed network answers is not handed on.
    assert!(pending["next_attempt_at"].is_string() && pending["outcome"] == "status 500", "{pending}");
    let (second, body) = told(&mut receiver, &secret, "account.created").await;
    assert_eq!((first.header("webhook-id"), &first.bytes), (second.header("webhook-id"), &second.bytes));
    let done = having(&server, &webhook, "succeeded", 1).await.remove(0);
    let path = format!("/v1/deliveries/{}", done["id"].as_str().unwrap());
    let shown = server.get(&path).await.ok(200);
    let attempts = shown["attempts"].as_array().unwrap();
    let statuses: Vec<&Value> = attempts.iter().map(|attempt| &attempt["response_status"]).collect();
    assert_eq!((statuses, &shown["payload"]), (vec![&json!(500), &json!(204)], &body));
    assert!(attempts[0]["next_attempt_at"].is_string() && attempts[1]["next_attempt_at"].is_null());
    // Again: under the same id, and counted on.
    let asked = server.post(&format!("{path}/redeliver"), json!({})).await.ok(202);
    assert_eq!(asked["delivery_id"], done["id"]);
    let (third, _) = told(&mut receiver, &secret, "account.created").await;
    assert_eq!((third.header("webhook-id"), &third.bytes), (first.header("webhook-id"), &first.bytes));
    let counted = eventually("the third attempt", async || {
        let shown = server.get(&path).await.ok(200);
        (shown["attempt_count"] == 3 && shown["status"] == "succeeded").then_some(shown)
    });
    assert_eq!(counted.await["created_at"], done["created_at"]);
    server.get("/v1/deliveries/dlv_1").await.problem(404, "resource_not_found");
    server.post(&format!("/v1/webhooks/{webhook}/deliveries"), json!({})).await.problem(405, "method_not_allowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_during_a_pause_is_replayed() {
    let server = Server::start().await;
    let mut receiver = Receiver::start().await;
    let (webhook, secret) = endpoint(&server, &receiver.url(), json!(["account.*", "alert.*"])).await;
    accounts(&server, &["a"]).await;
    told(&mut receiver, &secret, "account.created").await;
    having(&server, &webhook, "succeeded", 1).await;
    let path = format!("/v1/webhooks/{webhook}");
    let since = server.get(&path).await.ok(200)["created_at"].clone();
    server.post(&format!("{path}/pause"), json!({})).await.ok(200);
    accounts(&server, &["b", "c", "d"]).await;
    let alert = super::endpoints::alert(&server, "sum > 10").await;
    server.count("b", "m", 11).await;
    having(&server, &webhook, "dropped", 5).await;
    assert!(receiver.rest().is_empty());
    server.post(&format!("{path}/replay"), json!({"since": since})).await.problem(409, "invalid_state");
    server.post(&format!("{path}/resume"), json!({})).await.ok(200);
    let replay =
        async |body: Value| server.post(&format!("{path}/replay"), body).await.ok(202)["queued"].as_u64().unwrap();
    assert_eq!(replay(json!({"since": since, "event_types": ["api_key.*"]})).await, 0);
    assert_eq!(replay(json!({"since": "2100-01-01T00:00:00Z"})).await, 0);
    // One of a partition's log, the rest of the control log.
    assert_eq!(replay(json!({"since": since, "event_types": ["alert.firing"]})).await, 1);
    let (_, firing) = told(&mut receiver, &secret, "alert.firing").await;
    assert_eq!(firing["data"]["alert_id"], alert);
    having(&server, &webhook, "dropped", 4).await;
    assert_eq!(replay(json!({"since": since})).await, 4);
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let body = receiver.next().await.signed_by(&secret);
        names.insert(body["data"]["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(names.into_iter().collect::<Vec<_>>(), [alert.as_str(), "b", "c", "d"]);
    having(&server, &webhook, "succeeded", 6).await;
    assert_eq!(replay(json!({"since": since, "only_failed": false})).await, 6);
    for bad in [json!({}), json!({"since": "yesterday"}), json!({"since": since, "until": since})] {
        assert_eq!(server.post(&format!("{path}/replay"), bad).await.status, 422);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_are_listed_by_type_time_and_page() {
    let server = Server::start().await;
    let receiver = Receiver::start().await;
    let (webhook, _) = endpoint(&server, &receiver.url(), json!(["*"])).await;
    accounts(&server, &["a", "b", "c", "d", "e", "f", "g"]).await;
    server.delete("/v1/accounts/a").await.ok(204);
    // The deletion is told; that the account was made is gone with it.
    having(&server, &webhook, "succeeded", 7).await;
    let list = format!("/v1/webhooks/{webhook}/deliveries");
    let ids = |page: &Value| page["items"].as_array().unwrap().iter().map(|i| i["id"].to_string()).collect::<Vec<_>>();
    let all = ids(&server.get(&list).await.ok(200));
    let mut walked = Vec::new();
    let mut next = Some(format!("{list}?page_size=3"));
    while let Some(path) = next {
        let page = server.get(&path).await.ok(200);
        walked.extend(ids(&page));
        next = page["next_cursor"].as_str().map(|cursor| format!("{list}?cursor={cursor}"));
    }
    assert_eq!((walked.len(), &walked), (7, &all));
    let gone = server.get(&format!("{list}?event_type=account.deleted")).await.ok(200);
    assert_eq!((ids(&gone).len(), ids(&gone)[0] == all[0]), (1, true), "newest first");
    let at = gone["items"][0]["created_at"].as_str().unwrap();
    assert!(ids(&server.get(&format!("{list}?to={at}")).await.ok(200)).len() <= 6);
    assert!(ids(&server.get(&format!("{list}?from={at}")).await.ok(200)).contains(&all[0]));
    for bad in ["status=lost", "event_type=alert.fired", "from=now", "x=1"] {
        assert_eq!(server.get(&format!("{list}?{bad}")).await.status, 400, "{bad}");
    }
    // Nothing of it is another workspace's.
    let other = server.owner_of(server.new_workspace().await, highwater::domain::id::Mode::Live).await;
    let delivery = format!("/v1/deliveries/{}", all[0].trim_matches('"'));
    for path in [list.as_str(), delivery.as_str()] {
        let answer = server.ask(reqwest::Method::GET, path).key(&other).send().await;
        answer.problem(404, "resource_not_found");
    }
    let again = server.ask(reqwest::Method::POST, &format!("{delivery}/redeliver")).key(&other).send().await;
    again.problem(404, "resource_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_debt_to_an_endpoint_outlives_a_restart_in_order() {
    let mut server = Server::start().await;
    let mut receiver = Receiver::answering(Reply::status(500)).await;
    let (webhook, secret) = endpoint(&server, &receiver.url(), json!(["account.*", "alert.firing"])).await;
    super::endpoints::alert(&server, "sum > 10").await;
    server.count("acme", "m", 11).await;
    accounts(&server, &["b"]).await;
    let (one, two) = (receiver.next().await, receiver.next().await);
    having(&server, &webhook, "pending", 2).await;
    server.restart().await;
    receiver.script([Reply::status(204), Reply::status(204)]);
    let mut ids = [one, two].map(|received| received.header("webhook-id").to_owned());
    let mut again = Vec::new();
    while again.len() < 2 {
        let received = receiver.next().await;
        received.signed_by(&secret);
        again.push(received.header("webhook-id").to_owned());
    }
    ids.sort();
    again.sort();
    assert_eq!(again, ids);
    having(&server, &webhook, "succeeded", 2).await;
}
