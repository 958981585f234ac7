//! The node on Kafka: the journal in topics, and services that produce straight into the intake.

use crate::kafka::{Producer, brokers};
use crate::load::{Aim, Ledger, QUOTA, Random, check_alerts, check_usage, send, set_up, settle};
use crate::nodes::{Cluster, ask, clickhouse, total, verify, wait_for, wait_until_held};
use crate::process::{Receiver, Server, bootstrap_with, highwater};
use crate::server::eventually;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn what_services_produce_is_counted_or_set_aside() {
    let Some(brokers) = brokers() else { return };
    let cluster = Cluster::new(&brokers);
    let key = bootstrap_with(&cluster.data(), &cluster.arguments());
    let server = cluster.start();
    let intake = Producer::new(&brokers, &format!("{}.usage", cluster.prefix));
    let native = json!({"account_id": "acme", "metric": "m", "value": 1}).to_string();
    // No id: each message is an event of its own.
    intake.send(None, &[], Some(native.as_bytes())).await;
    intake.send(Some("any key"), &[("unknown", "header")], Some(native.as_bytes())).await;
    let with_id = json!({"account_id": "acme", "metric": "m", "value": 10, "id": "e1"}).to_string();
    for _ in 0..3 {
        intake.send(Some("acme"), &[], Some(with_id.as_bytes())).await;
    }
    let structured = json!({"specversion": "1.0", "id": "c1", "source": "s", "type": "m", "subject": "acme",
        "data": {"value": 100}});
    intake
        .send(None, &[("content-type", "application/cloudevents+json")], Some(structured.to_string().as_bytes()))
        .await;
    let binary =
        [("ce_specversion", "1.0"), ("ce_id", "100%"), ("ce_source", "s"), ("ce_type", "m"), ("ce_subject", "acme")];
    intake.send(None, &binary, Some(br#"{"value": 1000}"#)).await;
    // What cannot be counted.
    intake.send(Some("acme"), &[], None).await;
    intake.send(None, &[], Some(b"")).await;
    intake.send(None, &[], Some(b"\xff\xfe garbage")).await;
    intake.send(None, &[], Some(&vec![b'x'; 1_000_000])).await;
    intake.send(None, &[("hw-workspace", "ws_nobody")], Some(native.as_bytes())).await;
    intake.send(None, &[], Some(br#"{"account_id":"acme","metric":"m","timestamp":"2001-01-01T00:00:00Z"}"#)).await;
    intake.send(None, &[], Some(br#"{"account_id":"acme","metric":"m","extra":1}"#)).await;
    // And the partition goes on.
    intake.send(None, &[], Some(native.as_bytes())).await;
    let usage = "/v1/accounts/acme/usage?window=1h&metric=m";
    let counted = wait_for(&server, &key, usage, |usage| total(usage, "value") >= 1_113.0).await;
    assert_eq!((total(&counted, "count"), total(&counted, "value")), (6.0, 1_113.0), "{counted}");
    let aside =
        wait_for(&server, &key, "/v1/quarantine?page_size=100", |list| list["items"].as_array().unwrap().len() >= 7)
            .await;
    let mut codes: Vec<&str> = aside["items"].as_array().unwrap().iter().map(|e| e["code"].as_str().unwrap()).collect();
    codes.sort_unstable();
    let wanted = [
        "event_too_large",
        "invalid_event",
        "invalid_event",
        "invalid_event",
        "malformed_json",
        "timestamp_too_old",
        "unknown_field",
    ];
    assert_eq!(codes, wanted, "{aside:#}");
    let old = aside["items"].as_array().unwrap().iter().find(|entry| entry["code"] == "timestamp_too_old").unwrap();
    let path = format!("/v1/quarantine/{}/replay", old["id"].as_str().unwrap());
    let (status, replayed) = ask(&server, &key, "POST", &path, Some(json!({"accept_late": true}))).await;
    assert_eq!((status, &replayed["status"]), (200, &json!("replayed")), "{replayed}");
    check_lags(&server, &key, 15.0).await;
    server.stop();
    verify(&cluster, &cluster.data());
    // A restart reads nothing of the intake twice.
    let server = cluster.start();
    intake.send(None, &[], Some(native.as_bytes())).await;
    let counted = wait_for(&server, &key, usage, |usage| total(usage, "value") >= 1_114.0).await;
    assert_eq!(total(&counted, "count"), 7.0, "{counted}");
    server.stop();
}

/// The sum of a metric over its labels.
fn sum(metrics: &BTreeMap<String, f64>, name: &str) -> f64 {
    let own = |known: &&String| known.as_str() == name || known.starts_with(&format!("{name}{{"));
    metrics.iter().filter(|(known, _)| own(known)).map(|(_, value)| value).sum()
}

/// The partitions that a node tells of.
fn told(metrics: &BTreeMap<String, f64>) -> BTreeSet<String> {
    let of = |name: &String| {
        Some(name.strip_prefix("highwater_fold_position{partition=\"")?.trim_end_matches("\"}").to_owned())
    };
    metrics.keys().filter_map(of).collect()
}

/// Once everything was taken in, the brokers' offsets, the node's positions and the store's are one.
async fn check_lags(server: &Server, key: &str, produced: f64) {
    let caught_up = |ready: &Value| {
        let folds = ready["checks"]["folds"].as_object().unwrap();
        let intake = ready["checks"]["intake"].as_object().unwrap();
        folds.len() == 4
            && intake.len() == 4
            && folds.values().all(|fold| fold["lag_records"] == 0 && fold["stored"] == fold["head"])
            && intake.values().all(|partition| partition["lag_messages"] == 0)
            // The brokers are asked every few seconds: the answer may be one from before.
            && intake.values().map(|partition| partition["head"].as_f64().unwrap()).sum::<f64>() >= produced
    };
    let ready = wait_for(server, key, "/readyz", caught_up).await;
    let intake = ready["checks"]["intake"].as_object().unwrap();
    let heads: f64 = intake.values().map(|partition| partition["head"].as_f64().unwrap()).sum();
    assert_eq!(heads, produced, "{ready:#}");
    let metrics = server.metrics().await;
    for name in ["highwater_intake_head_offset", "highwater_intake_committed_offset"] {
        assert_eq!(sum(&metrics, name), produced, "{name} of {metrics:#?}");
    }
    assert_eq!((sum(&metrics, "highwater_intake_lag_messages"), sum(&metrics, "highwater_log_answers")), (0.0, 1.0));
    assert!(metrics["highwater_control_position"] >= 3.0, "{metrics:#?}");
    assert_eq!(metrics["highwater_control_position"], metrics["highwater_control_head_position"]);
    assert_eq!(told(&metrics).len(), 4, "{metrics:#?}");
    assert!(sum(&metrics, "highwater_log_head_position") >= produced / 4.0, "{metrics:#?}");
    let now = highwater::runtime::clock::now().0 as f64 / 1_000.0;
    for partition in 0..4 {
        let clock = metrics[&format!("highwater_fold_clock_seconds{{partition=\"{partition}\"}}")];
        assert!(now - clock < 60.0, "p{partition}: {clock} at {now}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_nodes_answer_as_one_and_survive_the_loss_of_each_other() {
    let (Some(brokers), Some(clickhouse)) = (brokers(), clickhouse()) else { return };
    let cluster = Cluster::of_many(&brokers, &clickhouse);
    let key = bootstrap_with(&cluster.data(), &cluster.arguments());
    let (first, second) = (cluster.start_node("first"), cluster.start_node("second"));
    wait_until_held(&[&first, &second], &key, |counts| counts == [2, 2]).await;
    let receiver = Receiver::start().await;
    // Made on one node, known to the other at the next request.
    let alerts = set_up(&first.base, &key, &receiver, QUOTA).await;
    for (_, alert) in &alerts.alerts {
        let (status, answer) = ask(&second, &key, "GET", &format!("/v1/alerts/{alert}"), None).await;
        assert_eq!(status, 200, "{answer}");
    }
    let ledger = Arc::new(Ledger::default());
    let stop = Arc::new(AtomicBool::new(false));
    let bases = vec![first.base.clone(), second.base.clone()];
    let senders: Vec<_> = (0..3)
        .map(|n| {
            let mut bases = bases.clone();
            bases.rotate_left(n % 2);
            let aim = Aim { bases, key: key.clone(), ends: false, pace: Duration::ZERO, stop: Arc::clone(&stop) };
            tokio::spawn(send(Arc::clone(&ledger), aim, Random(n as u64 + 7)))
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    // One is gone without a word: the other takes its partitions when its session has timed out.
    second.kill();
    wait_until_held(&[&first], &key, |counts| counts == [4]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Another comes, and one leaves in order.
    let third = cluster.start_node("third");
    wait_until_held(&[&first, &third], &key, |counts| counts == [2, 2]).await;
    // What was given back is told by its new owner alone.
    let (of_first, of_third) = (told(&first.metrics().await), told(&third.metrics().await));
    assert!(of_first.is_disjoint(&of_third) && of_first.union(&of_third).count() == 4, "{of_first:?} {of_third:?}");
    first.stop();
    wait_until_held(&[&third], &key, |counts| counts == [4]).await;
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.unwrap();
    }
    settle(&ledger, &third.base, &key).await;
    check_usage(&ledger, &third.base, &key).await;
    check_alerts(&ledger, (&third.base, &key), &alerts, &receiver).await;
    third.stop();
    verify(&cluster, &cluster.folder_of("third"));
    let acknowledged: u64 = ledger.counted.lock().unwrap().values().map(|(count, _)| count).sum();
    println!("{acknowledged} events over three nodes, none lost or doubled");
}

/// Sends a form to the token endpoint or to its neighbour.
async fn form(server: &Server, path: &str, client: (&str, &str), fields: &[(&str, &str)]) -> (u16, Value) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let request = http.post(format!("{}{path}", server.base)).basic_auth(client.0, Some(client.1));
    let answer = request.header("content-type", "application/x-www-form-urlencoded").body(body).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or(Value::Null))
}

/// How long it takes until a node refuses a credential that another one ended.
async fn until_refused(server: &Server, credential: &str) -> Duration {
    let stopwatch = highwater::runtime::clock::Stopwatch::start();
    while ask(server, credential, "GET", "/v1/whoami", None).await.0 != 401 {
        assert!(stopwatch.elapsed() < Duration::from_secs(10), "the credential still works");
    }
    stopwatch.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_hold_on_every_node_and_end_on_every_node() {
    let (Some(brokers), Some(clickhouse)) = (brokers(), clickhouse()) else { return };
    let cluster = Cluster::of_many(&brokers, &clickhouse);
    let key = bootstrap_with(&cluster.folder_of("first"), &cluster.arguments());
    let (first, second) = (cluster.start_node("first"), cluster.start_node("second"));
    // One idempotency key to both at once: one key is made, and both show it.
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for round in 0..10 {
        let create = |server: &Server| {
            let request = http.post(format!("{}/v1/api-keys", server.base)).bearer_auth(&key);
            let request = request.header("idempotency-key", format!("round-{round}"));
            let body = json!({"name": format!("r{round}"), "scope": "read:usage"}).to_string();
            request.header("content-type", "application/json").body(body).send()
        };
        let (one, other) = tokio::join!(create(&first), create(&second));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!((one.status().as_u16(), other.status().as_u16()), (201, 201));
        assert_eq!(one.text().await.unwrap(), other.text().await.unwrap(), "round {round}");
    }
    let listed = ask(&first, &key, "GET", "/v1/api-keys?page_size=100&q=r", None).await.1;
    assert_eq!(listed["items"].as_array().unwrap().len(), 10);
    // What one node made works on the other at once.
    let made = ask(&first, &key, "POST", "/v1/api-keys", Some(json!({"name": "k", "role": "viewer"}))).await.1;
    let made_key = made["key"].as_str().unwrap();
    assert_eq!(ask(&second, made_key, "GET", "/v1/whoami", None).await.0, 200);
    let client = ask(&first, &key, "POST", "/v1/oauth/clients", Some(json!({"name": "c", "role": "viewer"}))).await.1;
    let (id, secret) = (client["client_id"].as_str().unwrap(), client["client_secret"].as_str().unwrap());
    let grant = [("grant_type", "client_credentials")];
    let (status, token) = form(&second, "/v1/oauth/token", (id, secret), &grant).await;
    assert_eq!(status, 200, "{token}");
    let token = token["access_token"].as_str().unwrap();
    for server in [&first, &second] {
        assert_eq!(ask(server, token, "GET", "/v1/whoami", None).await.1["client_id"], id);
    }
    // What one node ended ends on the other.
    assert_eq!(form(&first, "/v1/oauth/revoke", (id, secret), &[("token", token)]).await.0, 200);
    let token_took = until_refused(&second, token).await;
    let path = format!("/v1/api-keys/{}/revoke", made["id"].as_str().unwrap());
    assert_eq!(ask(&first, &key, "POST", &path, None).await.0, 200);
    let key_took = until_refused(&second, made_key).await;
    println!("refused by the other node after {token_took:.0?} (token) and {key_took:.0?} (key)");
    first.stop();
    second.stop();
}

#[test]
fn what_nodes_must_share_is_checked() {
    let (Some(brokers), Some(clickhouse)) = (brokers(), clickhouse()) else { return };
    let cluster = Cluster::of_many(&brokers, &clickhouse);
    bootstrap_with(&cluster.data(), &cluster.arguments());
    let (store, snapshots) = cluster.shared.clone().unwrap();
    let run = |key: Option<&str>, snapshots: &str| {
        let data = cluster.folder_of("other");
        let mut arguments = vec!["bootstrap", "--data", data.to_str().unwrap(), "--journal", &cluster.journal];
        arguments.extend(["--store", &store, "--snapshots", snapshots]);
        if let Some(key) = key {
            arguments.extend(["--master-key-file", key]);
        }
        let output = highwater(&arguments);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let said = run(None, &snapshots);
    assert!(said.contains("a cluster needs one master key"), "{said}");
    let other_key = cluster.folder_of("other.key");
    std::fs::write(&other_key, "cd".repeat(32)).unwrap();
    let said = run(other_key.to_str(), &snapshots);
    assert!(said.contains("the master key is not the one"), "{said}");
    let elsewhere = cluster.folder_of("elsewhere");
    let said = run(Some(&cluster.key_file), elsewhere.to_str().unwrap());
    assert!(said.contains("the same --snapshots"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_node_has_its_own_budget_of_a_key_and_says_so() {
    let (Some(brokers), Some(clickhouse)) = (brokers(), clickhouse()) else { return };
    let cluster = Cluster::of_many(&brokers, &clickhouse);
    let key = bootstrap_with(&cluster.folder_of("one"), &[&cluster.arguments()[..], &["--rate-limit", "5"]].concat());
    let nodes = [cluster.start_node("one"), cluster.start_node("two")];
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut id = String::new();
    for node in &nodes {
        let get = |path: &str| http.get(format!("{}{path}", node.base)).bearer_auth(&key).send();
        let who = get("/v1/whoami").await.unwrap();
        assert_eq!(who.headers()["x-ratelimit-remaining"], "4");
        let who: Value = serde_json::from_str(&who.text().await.unwrap()).unwrap();
        id = who["key_id"].as_str().unwrap().to_owned();
        // What is not there is looked for twice, and asked for once.
        let missing = get("/v1/alerts/alr_01J9Z0000000000000000000AA").await.unwrap();
        assert_eq!(missing.status().as_u16(), 404);
        assert_eq!(missing.headers()["x-ratelimit-remaining"], "3");
        assert_eq!(missing.headers()["ratelimit-policy"], "\"default\";q=5;w=60;hw-scope=\"node\"");
        for left in ["2", "1", "0"] {
            let answer = get("/v1/metrics").await.unwrap();
            assert_eq!(
                (answer.status().as_u16(), answer.headers()["x-ratelimit-remaining"].to_str().unwrap()),
                (200, left)
            );
        }
        assert_eq!(get("/v1/metrics").await.unwrap().status().as_u16(), 429);
    }
    // An operator changes it while they serve.
    let operator = cluster.folder_of("operator");
    let limit = ["limit", &id, "--requests", "9", "--data", operator.to_str().unwrap()];
    let output = highwater(&[&limit, &cluster.arguments()[..]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for node in &nodes {
        eventually("the other limit", || async {
            let answer = http.get(format!("{}/v1/metrics", node.base)).bearer_auth(&key).send().await.unwrap();
            let policy = answer.headers()["ratelimit-policy"].to_str().unwrap().to_owned();
            policy.starts_with("\"default\";q=9;").then_some(())
        })
        .await;
    }
    nodes.into_iter().for_each(Server::stop);
}
