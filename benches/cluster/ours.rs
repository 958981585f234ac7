//! A node of highwater: from the topic to the windows, back from an end, and over HTTP.

use super::batch::{BATCH_EVENTS, batch};
use super::connection::{Connection, post_batch};
use super::figures::shares;
use super::hook::receiver;
use super::node::{Cluster, Node};
use super::services::Services;
use super::topic::EVENTS;
use highwater::runtime::clock::{self, Stopwatch};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const PARTITIONS: usize = 4;
const BATCHES: u64 = 3_000;
const CONNECTIONS: usize = 16;
const NOTIFICATIONS: usize = 500;

pub(super) async fn show(services: &Services, prefix: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = cluster(services, folder.path(), prefix);
    let key = cluster.bootstrap();
    backlog(&cluster, services, &database(prefix)).await;
    back(&cluster).await;
    let (node, _) = cluster.serve();
    node.caught_up(PARTITIONS).await;
    ingest(&node, &key).await;
    node.caught_up(PARTITIONS).await;
    webhooks(&node, &key).await;
    node.end();
}

pub(super) async fn show_backlog(services: &Services, prefix: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = cluster(services, folder.path(), prefix);
    cluster.bootstrap();
    backlog(&cluster, services, &database(prefix)).await;
}

fn cluster(services: &Services, folder: &Path, prefix: &str) -> Cluster {
    let journal = format!("kafka://{}?partitions={PARTITIONS}&prefix={prefix}", services.brokers);
    let store = format!("clickhouse+{}/{}", services.clickhouse, database(prefix));
    Cluster::new(folder, journal, store)
}

fn database(prefix: &str) -> String {
    prefix.replace('-', "_")
}

/// What waits in the topic becomes windows in ClickHouse.
async fn backlog(cluster: &Cluster, services: &Services, database: &str) {
    let (node, stopwatch) = cluster.serve();
    let query = format!("SELECT sum(events) FROM {database}.usage_5m");
    // Asked often, so it must cost the engine little.
    let some = format!("SELECT count() FROM {database}.usage_windows");
    let begun = services.wait(&some, 1, &stopwatch).await;
    let had: u64 = services.ask(&query).await.expect("a sum").trim().parse().expect("a number");
    node.stored(EVENTS).await;
    let ended = stopwatch.elapsed().as_secs_f64();
    let found = services.ask(&query).await.expect("a sum");
    assert_eq!(found.trim(), EVENTS.to_string(), "all of them are in ClickHouse when the node says so");
    let (cpu, rss) = node.used();
    println!(
        "highwater, dedup included: all windows in ClickHouse {ended:.1} s behind the start of the process ({:.0} events/s), \
         {had} of them behind {begun:.1} s ({:.0} events/s from there); {cpu:.2} CPU-seconds, {rss} MiB at most",
        EVENTS as f64 / ended,
        (EVENTS - had) as f64 / (ended - begun).max(0.001)
    );
    node.end();
}

/// Starts again: from snapshots, and without any.
async fn back(cluster: &Cluster) {
    let (node, stopwatch) = cluster.serve();
    node.caught_up(PARTITIONS).await;
    println!(
        "back from snapshots and caught up: {:.2} s behind the start of the process",
        stopwatch.elapsed().as_secs_f64()
    );
    node.end();
    // The mark that tells whose snapshots they are stays.
    for partition in 0..PARTITIONS {
        let folder = cluster.folder.join(format!("snapshots/p{partition}"));
        std::fs::remove_dir_all(folder).expect("there were snapshots");
    }
    let (node, stopwatch) = cluster.serve();
    node.caught_up(PARTITIONS).await;
    let seconds = stopwatch.elapsed().as_secs_f64();
    let (cpu, _) = node.used();
    println!(
        "without a snapshot: {EVENTS} events folded again {seconds:.2} s behind the start of the process ({:.0} events/s; {cpu:.2} CPU-seconds)",
        EVENTS as f64 / seconds
    );
    node.end();
}

/// Batches over HTTP; each is answered when Kafka has it.
async fn ingest(node: &Node, key: &str) {
    let address = node.address().await;
    let sent = Arc::new(AtomicU64::new(0));
    let stopwatch = Stopwatch::start();
    let (before, _) = node.used();
    let senders: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (sent, key) = (Arc::clone(&sent), key.to_owned());
            tokio::spawn(async move {
                let mut connection = Connection::open(address).await;
                let mut taken = Vec::new();
                loop {
                    let number = sent.fetch_add(1, Ordering::Relaxed);
                    if number >= BATCHES {
                        return taken;
                    }
                    let request = post_batch(&key, &batch(number));
                    let stopwatch = Stopwatch::start();
                    connection.ask(&request, 202).await;
                    taken.push(stopwatch.elapsed());
                }
            })
        })
        .collect();
    let mut taken = Vec::new();
    for sender in senders {
        taken.extend(sender.await.expect("a sender"));
    }
    let (seconds, (after, _)) = (stopwatch.elapsed().as_secs_f64(), node.used());
    println!(
        "HTTP ingest through Kafka, {BATCH_EVENTS} events a request, {CONNECTIONS} connections: {:.0} events/s, {:.2} CPU-seconds of the node; a request {}",
        (BATCHES * BATCH_EVENTS) as f64 / seconds,
        after - before,
        shares(taken)
    );
}

/// One event after another, each of a fresh account that passes its threshold with it.
async fn webhooks(node: &Node, key: &str) {
    let base = format!("http://{}", node.address().await);
    let (hook, mut arrivals) = receiver().await;
    let channel = json!({"type": "webhook", "name": "bench", "url": hook});
    let channel = call(node, key, "POST", &format!("{base}/v1/channels"), channel).await;
    let quota = json!({"limit": 10, "period": "month"});
    call(node, key, "PUT", &format!("{base}/v1/accounts/*/quotas/watched"), quota).await;
    let alert = json!({"account_id": "*", "metric": "watched", "rule": "quota_percent > 85", "channel": channel["id"]});
    call(node, key, "POST", &format!("{base}/v1/alerts"), alert).await;
    let run = ulid::Ulid(clock::ulid());
    let mut taken = Vec::with_capacity(NOTIFICATIONS);
    for number in 0..NOTIFICATIONS {
        let account = format!("{run}-{number}");
        let event = json!({"account_id": account, "metric": "watched", "value": 9});
        let stopwatch = Stopwatch::start();
        call(node, key, "POST", &format!("{base}/v1/events"), event).await;
        let waited = tokio::time::timeout(Duration::from_secs(30), async {
            while arrivals.recv().await.is_some_and(|seen| seen != account) {}
        });
        waited.await.expect("a webhook for every event");
        taken.push(stopwatch.elapsed());
    }
    println!("event accepted → webhook received, through Kafka, idle: {} (from the request's start)", shares(taken));
}

async fn call(node: &Node, key: &str, method: &str, url: &str, body: Value) -> Value {
    let request = node.http.request(method.parse().expect("a method"), url).bearer_auth(key);
    let answer = request.header("content-type", "application/json").body(body.to_string()).send().await;
    let answer = answer.expect("an answer");
    let (status, text) = (answer.status(), answer.text().await.expect("a body"));
    assert!(status.is_success(), "{method} {url}: {status} {text}");
    serde_json::from_str(&text).unwrap_or(Value::Null)
}
