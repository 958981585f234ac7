//! The engine version that the logs ask for: raised only to what every node folds, held back by an operator, and met by a
//! release that folds less with an error.

use crate::kafka::{Producer, brokers};
use crate::nodes::{Cluster, ask, clickhouse, wait_for, wait_until_held};
use crate::process::{Server, bootstrap, bootstrap_with, highwater, refused_to_serve};
use highwater::domain::control::command::{Command, Entry};
use highwater::domain::id::{Mode, Tenant, WorkspaceId};
use highwater::domain::partition::fact::ENGINE_VERSION;
use serde_json::{Value, json};
use std::time::Duration;

const BEFORE: u32 = ENGINE_VERSION - 1;

fn asks_for(version: u32) -> Vec<u8> {
    let entry = Entry {
        tenant: Tenant { workspace: WorkspaceId(0), mode: Mode::Live },
        actor: None,
        request_id: "req_later".to_owned(),
        if_match: None,
        idempotency: None,
        ip: None,
        command: Command::EngineVersion { version },
    };
    entry.encode()
}

/// Tells whether every log that a node folds asks for a version.
fn all_at(version: u32, ready: &Value) -> bool {
    let checks = &ready["checks"];
    let folds = checks["folds"].as_object().unwrap();
    checks["engine"]["control_version"] == version && folds.values().all(|fold| fold["engine_version"] == version)
}

async fn engine_of(server: &Server, key: &str) -> Value {
    ask(server, key, "GET", "/readyz", None).await.1["checks"]["engine"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_asked_for_once_every_node_folds_it() {
    let (Some(brokers), Some(clickhouse)) = (brokers(), clickhouse()) else { return };
    let cluster = Cluster::of_many(&brokers, &clickhouse);
    let key = bootstrap_with(&cluster.data(), &cluster.arguments());
    let before = BEFORE.to_string();
    let held_back = [&cluster.arguments()[..], &["--engine-version", &before]].concat();
    let second = Server::start_with(&cluster.folder_of("second"), &held_back);
    wait_until_held(&[&second], &key, |counts| counts == [4]).await;
    wait_for(&second, &key, "/readyz", |ready| all_at(BEFORE, ready)).await;
    // A node that would ask for more meets one that does not fold it.
    let first = cluster.start_node("first");
    wait_until_held(&[&first, &second], &key, |counts| counts == [2, 2]).await;
    let members = json!({BEFORE.to_string(): 1, ENGINE_VERSION.to_string(): 1});
    let wanted = json!({"control_version": BEFORE, "release_version": ENGINE_VERSION, "asked_version": ENGINE_VERSION,
        "members": members});
    wait_for(&first, &key, "/readyz", |ready| ready["checks"]["engine"] == wanted).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    for node in [&first, &second] {
        let (_, ready) = ask(node, &key, "GET", "/readyz", None).await;
        assert!(all_at(BEFORE, &ready), "{ready:#}");
    }
    assert_eq!(engine_of(&second, &key).await["asked_version"], BEFORE);
    // The last one is upgraded: from here on all is asked for.
    second.stop();
    let second = cluster.start_node("second");
    wait_until_held(&[&first, &second], &key, |counts| counts == [2, 2]).await;
    for node in [&first, &second] {
        wait_for(node, &key, "/readyz", |ready| all_at(ENGINE_VERSION, ready)).await;
    }
    let metrics = first.metrics().await;
    assert_eq!(metrics["highwater_control_engine_version"], f64::from(ENGINE_VERSION));
    assert_eq!(metrics["highwater_engine_version_asked"], f64::from(ENGINE_VERSION));
    // It is too late to hold it back, and no harm to try.
    second.stop();
    let second = Server::start_with(&cluster.folder_of("second"), &held_back);
    wait_until_held(&[&first, &second], &key, |counts| counts == [2, 2]).await;
    wait_for(&second, &key, "/readyz", |ready| all_at(ENGINE_VERSION, ready)).await;
    // A later release has folded on: these nodes end, each says why, and neither starts again.
    let control = Producer::new(&brokers, &format!("{}.control", cluster.prefix));
    control.send(None, &[], Some(&asks_for(ENGINE_VERSION + 1))).await;
    for node in [first, second] {
        let code = tokio::task::spawn_blocking(move || node.end()).await.unwrap();
        assert_eq!(code, Some(4));
    }
    let (code, said) = refused_to_serve(&cluster.folder_of("first"), &cluster.arguments());
    assert_eq!(code, Some(4), "{said}");
    let wanted = format!("asks for engine version {}, this release folds up to {ENGINE_VERSION}", ENGINE_VERSION + 1);
    assert!(said.contains(&wanted), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_asks_for_what_its_operator_allows() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let key = bootstrap(&data);
    for (allowed, stands) in [(Some(1), 1), (None, ENGINE_VERSION), (Some(1), ENGINE_VERSION)] {
        let allowed = allowed.map(|version: u32| version.to_string());
        let arguments = allowed.iter().flat_map(|version| ["--engine-version", version]).collect::<Vec<_>>();
        let server = Server::start_with(&data, &arguments);
        wait_for(&server, &key, "/readyz", |ready| all_at(stands, ready)).await;
        server.stop();
    }
    let too_high = (ENGINE_VERSION + 1).to_string();
    for (version, command) in [("0", "serve"), (&too_high, "serve"), (&too_high, "import")] {
        let mut arguments = vec![command, "--data", data.to_str().unwrap(), "--engine-version", version];
        arguments.extend((command == "import").then_some("-"));
        let output = highwater(&arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{command} {version}: {said}");
        let wanted =
            format!("engine_version: {version} is no engine version of this release; expected 1 to {ENGINE_VERSION}");
        assert!(said.contains(&wanted), "{said}");
    }
}
