//! Endpoints and the process: what was owed when it was killed is sent by the next one, under the same id.

use crate::process::{Server, bootstrap, call, highwater};
use crate::receiver::{Receiver, Reply};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_under_way_at_a_kill_is_sent_again_under_its_id() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let key = bootstrap(&data);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    // It takes everything, and so late that the process is dead before it hears of it.
    let mut receiver = Receiver::answering(Reply::status(204).after(Duration::from_secs(20))).await;
    let server = Server::start(&data);
    let post = async |server: &Server, path: &str, body: Value| {
        let url = format!("{}{path}", server.base);
        let (status, answer) = call(&http, ("POST", &url, &key), Some(&body)).await.unwrap();
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    };
    let made = post(
        &server,
        "/v1/webhooks",
        json!({"url": receiver.url(), "event_types": ["account.created", "alert.firing"]}),
    )
    .await;
    let secret = made["secret"].as_str().unwrap().to_owned();
    let channel =
        post(&server, "/v1/channels", json!({"type": "webhook", "name": "c", "url": "https://example.com/"})).await;
    post(&server, "/v1/alerts", json!({"account_id": "*", "rule": "sum > 10", "channel": channel["id"]})).await;
    post(&server, "/v1/accounts", json!({"id": "acme"})).await;
    post(&server, "/v1/events", json!({"account_id": "acme", "metric": "m", "value": 11})).await;
    let mut before = BTreeMap::new();
    for _ in 0..2 {
        let body = receiver.next().await.signed_by(&secret);
        before.insert(body["id"].to_string(), body);
    }
    server.kill();
    receiver.script([Reply::status(204), Reply::status(204)]);
    let server = Server::start(&data);
    let mut after = BTreeMap::new();
    for _ in 0..2 {
        let body = receiver.next().await.signed_by(&secret);
        after.insert(body["id"].to_string(), body);
    }
    assert_eq!(before, after, "the same ids and the same bodies, of a partition's log and of the control log");
    let kinds: std::collections::BTreeSet<String> = after.values().map(|body| body["type"].to_string()).collect();
    assert_eq!(kinds.len(), 2);
    let path = format!("{}/v1/webhooks/{}/deliveries?status=succeeded", server.base, made["id"].as_str().unwrap());
    crate::server::eventually("both outcomes", async || {
        let (_, page) = call(&http, ("GET", &path, &key), None).await.unwrap();
        (page["items"].as_array().is_some_and(|items| items.len() == 2)).then_some(())
    })
    .await;
    server.stop();
    assert!(receiver.rest().is_empty(), "nothing is sent a third time");
    // Every row follows from the logs, and can be made anew from them.
    let data = data.to_str().unwrap();
    for command in ["verify", "replay", "verify"] {
        let output = highwater(&[command, "--data", data]);
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_the_journal_did_not_take_are_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let key = bootstrap(&data);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut receiver = Receiver::start().await;
    let server = Server::start(&data);
    let url = |path: &str| format!("{}{path}", server.base);
    let body = json!({"url": receiver.url(), "event_types": ["ingest.*"]});
    let (status, made) = call(&http, ("POST", &url("/v1/webhooks"), &key), Some(&body)).await.unwrap();
    assert_eq!(status, 201, "{made}");
    // Somebody else holds the file for longer than its writer waits.
    let lock = rusqlite::Connection::open(data.join("journal.db")).unwrap();
    lock.busy_timeout(Duration::from_secs(5)).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let event = json!({"account_id": "acme", "metric": "m", "id": "1"});
    let (status, refused) = call(&http, ("POST", &url("/v1/events"), &key), Some(&event)).await.unwrap();
    assert_eq!((status, &refused["code"]), (503, &json!("overloaded")), "{refused}");
    lock.execute_batch("ROLLBACK").unwrap();
    drop(lock);
    let told = receiver.next().await.signed_by(made["secret"].as_str().unwrap());
    assert_eq!((&told["type"], &told["data"]["refused_requests"]), (&json!("ingest.backpressure"), &json!(1)));
    assert_eq!((&told["data"]["code"], &told["log"]), (&json!("overloaded"), &json!("control")));
    // What was refused can be sent again, and counts once.
    for _ in 0..2 {
        let (status, taken) = call(&http, ("POST", &url("/v1/events"), &key), Some(&event)).await.unwrap();
        assert_eq!(status, 202, "{taken}");
    }
    let usage = url("/v1/accounts/acme/usage?agg=count");
    crate::server::eventually("the event is counted", async || {
        let (_, answer) = call(&http, ("GET", &usage, &key), None).await.unwrap();
        let items = answer["items"].as_array()?;
        (items.iter().filter_map(|item| item["count"].as_u64()).sum::<u64>() == 1).then_some(())
    })
    .await;
    server.stop();
}
