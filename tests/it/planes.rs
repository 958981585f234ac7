//! A node that goes on from a snapshot of the control plane knows what one knows that folded the whole log.

use crate::kafka::brokers;
use crate::nodes::{Cluster, ask, clickhouse};
use crate::process::{Server, bootstrap_with, call, highwater};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// More than make a snapshot worth its while.
const COMMANDS: usize = 1_200;

struct Plane {
    data: PathBuf,
    snapshots: PathBuf,
    arguments: Vec<String>,
    key: String,
}

impl Plane {
    fn start(&self) -> Server {
        Server::start_with(&self.data, &self.arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn saved(&self) -> Vec<PathBuf> {
        let folder = self.snapshots.join(format!("p{}", u32::MAX));
        let mut all: Vec<PathBuf> = match std::fs::read_dir(folder) {
            Ok(found) => found.map(|entry| entry.unwrap().path()).collect(),
            Err(_) => Vec::new(),
        };
        all.sort();
        all
    }

    /// Changes as many things as `count` says, many at once.
    async fn change(&self, server: &Server, count: usize, round: usize) {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        for some in (0..count).collect::<Vec<_>>().chunks(50) {
            let asking = some.iter().map(|n| {
                let path = match n % 3 {
                    0 => format!("/v1/metrics/metric_{}", n % 200),
                    1 => format!("/v1/accounts/*/quotas/metric_{}", n % 200),
                    _ => format!("/v1/accounts/account-{n}/quotas/metric_{}", n % 200),
                };
                let body = match n % 3 {
                    0 => json!({"unit": format!("unit-{round}")}),
                    _ => json!({"limit": n + round, "period": "day"}),
                };
                let (http, url, key) = (http.clone(), format!("{}{path}", server.base), self.key.clone());
                tokio::spawn(async move { call(&http, ("PUT", &url, &key), Some(&body)).await.unwrap() })
            });
            for asked in asking.collect::<Vec<_>>() {
                let (status, answer) = asked.await.unwrap();
                assert!(status == 200 || status == 201, "{status} {answer}");
            }
        }
    }

    /// Everything that the lists tell.
    async fn lists(&self, server: &Server) -> Vec<Value> {
        let mut all = Vec::new();
        for noun in [
            "metrics",
            "accounts/*/quotas",
            "accounts",
            "alerts",
            "channels",
            "webhooks",
            "api-keys",
            "projects",
            "audit-log",
        ] {
            let mut path = format!("/v1/{noun}?page_size=100");
            loop {
                let (status, answer) = ask(server, &self.key, "GET", &path, None).await;
                assert_eq!(status, 200, "{path}: {answer}");
                for mut item in answer["items"].as_array().unwrap().clone() {
                    // Which node saw a key last is no part of the plane.
                    item.as_object_mut().unwrap().retain(|name, _| !name.starts_with("last_used"));
                    // A repetition that shows a secret again is noted, whenever it comes.
                    if item["action"] != "secret.read" {
                        all.push(item);
                    }
                }
                let Some(next) = answer["next_cursor"].as_str() else { break };
                path = format!("/v1/{noun}?page_size=100&cursor={next}");
            }
        }
        all
    }
}

fn goes_on_from(server: &Server) -> Option<u64> {
    let line = server.opening.lines().find(|line| line.contains("folded on from a snapshot"))?;
    let line: Value = serde_json::from_str(line).unwrap();
    line["position"].as_u64().or_else(|| line["fields"]["position"].as_u64())
}

async fn post(server: &Server, key: &str, (path, repeat): (&str, &str), body: &Value) -> (u16, bool, Value) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = http.post(format!("{}{path}", server.base)).bearer_auth(key).header("idempotency-key", repeat);
    let answer = request.header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
    let (status, again) = (answer.status().as_u16(), answer.headers().contains_key("idempotent-replayed"));
    (status, again, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
}

async fn a_start_goes_on_from_a_snapshot(plane: &Plane, verified: &[&str]) {
    let server = plane.start();
    assert_eq!(goes_on_from(&server), None);
    let hook = json!({"url": "https://127.0.0.1:9/hook", "event_types": ["silence.*"]});
    let (status, _, endpoint) = post(&server, &plane.key, ("/v1/webhooks", "endpoint"), &hook).await;
    assert_eq!(status, 201, "{endpoint}");
    let silence = json!({"matchers": [{"name": "severity", "value": "info"}], "starts_at": "2099-01-01T00:00:00Z", "ends_at": "2099-01-02T00:00:00Z"});
    let (status, answer) = ask(&server, &plane.key, "POST", "/v1/silences", Some(silence)).await;
    assert_eq!(status, 201, "{answer}");
    plane.change(&server, COMMANDS, 1).await;
    server.stop();
    let saved = plane.saved();
    assert_eq!(saved.len(), 1, "{saved:?}");

    // What comes behind the snapshot is folded on, also when the node ends without a word.
    let server = plane.start();
    let position = goes_on_from(&server).unwrap();
    assert!(position > COMMANDS as u64 / 2, "{position}");
    plane.change(&server, 30, 2).await;
    let known = plane.lists(&server).await;
    assert!(known.len() > COMMANDS / 2, "{}", known.len());
    server.kill();
    let server = plane.start();
    assert_eq!(goes_on_from(&server), Some(position));
    let again = plane.lists(&server).await;
    assert_eq!(again, known);
    let (status, replayed, answer) = post(&server, &plane.key, ("/v1/webhooks", "endpoint"), &hook).await;
    assert_eq!((status, replayed, &answer["id"]), (201, true, &endpoint["id"]), "{answer}");
    server.stop();
    verified_is(plane, verified, Some(0));

    // Without it the whole log is folded, to the same.
    let aside = plane.snapshots.join("aside");
    std::fs::rename(&saved[0], &aside).unwrap();
    let server = plane.start();
    assert_eq!(goes_on_from(&server), None);
    assert_eq!(plane.lists(&server).await, known);
    server.kill();

    // One that was changed on its way is passed over, too. (The node that found none has made another.)
    plane.saved().iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let mut bytes = std::fs::read(&aside).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&saved[0], bytes).unwrap();
    let server = plane.start();
    assert_eq!(goes_on_from(&server), None);
    assert!(server.opening.contains("cannot be read"), "{}", server.opening);
    assert_eq!(plane.lists(&server).await, known);
    server.kill();
}

fn verified_is(plane: &Plane, arguments: &[&str], code: Option<i32>) {
    let verified = highwater(&[&["verify", "--data", plane.data.to_str().unwrap()], arguments].concat());
    let said = String::from_utf8([verified.stdout, verified.stderr].concat()).unwrap();
    assert_eq!(verified.status.code(), code, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_node_goes_on_from_a_snapshot_of_the_control_plane() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_owned();
    let key = bootstrap_with(&data, &[]);
    let plane = Plane { snapshots: data.join("snapshots"), data, arguments: Vec::new(), key };
    a_start_goes_on_from_a_snapshot(&plane, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_a_cluster_go_on_from_each_others_snapshots_of_the_control_plane() {
    let (Some(brokers), Some(clickhouse)) = (brokers(), clickhouse()) else { return };
    let cluster = Cluster::of_many(&brokers, &clickhouse);
    let arguments = cluster.arguments();
    let key = bootstrap_with(&cluster.data(), &arguments);
    let snapshots = Path::new(arguments.last().unwrap()).to_owned();
    let owned = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let plane = Plane { data: cluster.data(), snapshots, arguments: owned, key };
    a_start_goes_on_from_a_snapshot(&plane, &arguments).await;
    // Another log's snapshot is none of this one, whoever put it there.
    let other = Cluster::of_many(&brokers, &clickhouse);
    let key = bootstrap_with(&other.data(), &other.arguments());
    let arguments = other.arguments().iter().map(|&argument| argument.to_owned()).collect();
    let folder = Path::new(other.arguments().last().unwrap()).to_owned();
    let other = Plane { data: other.folder_of("another"), snapshots: folder, arguments, key };
    let server = other.start();
    other.change(&server, COMMANDS + 50, 1).await;
    server.kill();
    let folder = other.snapshots.join(format!("p{}", u32::MAX));
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(&folder).unwrap();
    let foreign = plane.snapshots.join("aside");
    std::fs::copy(&foreign, folder.join(plane.saved()[0].file_name().unwrap())).unwrap();
    let server = other.start();
    assert_eq!(goes_on_from(&server), None);
    assert!(server.opening.contains("another record"), "{}", server.opening);
    server.kill();
}
