//! More events for an endpoint than may wait for it: what is dropped is told, and a replay sends all of it.

use super::endpoints::{endpoint, told};
use crate::receiver::{Receiver, Reply};
use crate::server::{Server, eventually};
use highwater::domain::id::{AccountId, PartitionId};
use highwater::domain::limits::OWED_PER_WEBHOOK_MAX;
use highwater::domain::routing::partition_of;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// How many more there are than may wait, of which a few come behind all others.
const DROPPED: usize = 2_000;
const LATE: usize = 100;

/// Accounts of one partition.
fn accounts(server: &Server) -> Vec<String> {
    let partitions = server.node().data.journal.partitions();
    let is_first =
        |name: &String| partition_of(server.workspace, &AccountId::new(name).unwrap(), partitions) == PartitionId(0);
    (0..).map(|n| format!("a{n}")).filter(is_first).take(OWED_PER_WEBHOOK_MAX + DROPPED).collect()
}

/// Uses up the quotas of accounts, in one record of the log as far as that goes.
async fn use_up(server: &Server, accounts: &[String]) {
    for some in accounts.chunks(5_000) {
        let line = |account: &String| json!({"account_id": account, "metric": "m", "value": 5}).to_string();
        let body = some.iter().map(line).collect::<Vec<_>>().join("\n");
        let asked = server.ask(Method::POST, "/v1/events").kind("application/x-ndjson").body(body);
        asked.send().await.ok(202);
    }
    server.settle().await;
}

async fn overflow(server: &Server, path: &str) -> Value {
    server.get(path).await.ok(200)["overflow"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_dropped_of_an_overflow_is_told_and_replayed_whole() {
    let mut server = Server::start().await;
    // It takes nothing, and so nothing of what waits makes room.
    let closed = Receiver::answering(Reply::status(503).with("retry-after", "2")).await;
    let mut open = Receiver::start().await;
    let mut watcher = Receiver::start().await;
    let (webhook, _) = endpoint(&server, &closed.url(), json!(["quota.exceeded"])).await;
    let (_, secret) = endpoint(&server, &watcher.url(), json!(["webhook.overflowing"])).await;
    let path = format!("/v1/webhooks/{webhook}");
    server.put("/v1/accounts/*/quotas/m", json!({"limit": 1, "period": "day"})).await.ok(201);
    let accounts = accounts(&server);
    let (first, late) = accounts.split_at(accounts.len() - LATE);
    use_up(&server, first).await;
    let (_, event) = told(&mut watcher, &secret, "webhook.overflowing").await;
    let since = event["data"]["dropped_since"].clone();
    let shown = overflow(&server, &path).await;
    assert_eq!((&shown["since"], &shown["dropped"]), (&since, &json!(DROPPED - LATE)));
    assert_eq!(event["data"]["dropped"], json!(DROPPED - LATE), "a burst is one report");
    // What is not told yet when the node stops is told by then.
    use_up(&server, late).await;
    server.restart().await;
    let shown = overflow(&server, &path).await;
    assert_eq!((&shown["since"], &shown["dropped"]), (&since, &json!(DROPPED)));
    // While there is no room nothing is made again, and nothing is dropped again.
    let replay = async |body: &Value| server.post(&format!("{path}/replay"), body.clone()).await.ok(202);
    let mut asked = json!({"since": since});
    let none = replay(&asked).await;
    assert_eq!((&none["queued"], &none["has_more"]), (&json!(0), &json!(true)));
    let dropped = server.get(&format!("{path}/deliveries?status=dropped&page_size=1")).await.ok(200);
    let one = dropped["items"][0]["id"].as_str().unwrap();
    let refused = server.post(&format!("/v1/deliveries/{one}/redeliver"), json!({})).await;
    assert_eq!(refused.problem(409, "limit_reached")["limit"], OWED_PER_WEBHOOK_MAX);
    let other = json!({"since": since, "only_failed": false, "cursor": none["next_cursor"]});
    server.post(&format!("{path}/replay"), other).await.problem(422, "validation_failed");
    assert_eq!(overflow(&server, &path).await["dropped"], json!(DROPPED));
    server.patch(&path, json!({"url": open.url()})).await.ok(200);
    let (mut queued, mut rounds) = (0, 0);
    loop {
        let answer = replay(&asked).await;
        let count = answer["queued"].as_u64().unwrap();
        (queued, rounds) = (queued + count, rounds + usize::from(count > 0));
        if answer["has_more"] == false {
            assert_eq!(answer["next_cursor"], Value::Null);
            break;
        }
        assert_ne!(overflow(&server, &path).await, Value::Null, "some are left");
        asked["cursor"] = answer["next_cursor"].clone();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(queued, DROPPED as u64);
    assert!(rounds > 1, "there was room for all at once");
    let mut ids = BTreeSet::new();
    while ids.len() < accounts.len() {
        let received = open.next().await;
        assert!(ids.insert(received.header("webhook-id").to_owned()), "it was sent before");
    }
    assert_eq!(overflow(&server, &path).await, Value::Null);
    for status in ["dropped", "pending", "failed"] {
        eventually(&format!("none that are {status}"), async || {
            let page = server.get(&format!("{path}/deliveries?status={status}")).await.ok(200);
            page["items"].as_array().unwrap().is_empty().then_some(())
        })
        .await;
    }
    assert!(open.rest().is_empty());
}
