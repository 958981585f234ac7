//! Who may be a node beside whom: a store of its own makes a node the only one of its journal.

use crate::kafka::brokers;
use crate::nodes::{Cluster, ask, clickhouse, total, verify, wait_for};
use crate::process::{Server, bootstrap_with, highwater, refused_to_serve};
use serde_json::json;

const IN_USE: Option<i32> = Some(3);
const OTHER_KEEPER: Option<i32> = Some(9);

async fn send(server: &Server, key: &str, value: u64) {
    let event = json!({"account_id": "acme", "metric": "m", "value": value});
    let (status, answer) = ask(server, key, "POST", "/v1/events", Some(event)).await;
    assert_eq!(status, 202, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_store_of_its_own_is_the_only_one() {
    let Some(brokers) = brokers() else { return };
    let cluster = Cluster::new(&brokers);
    let key = bootstrap_with(&cluster.folder_of("first"), &cluster.arguments());
    let first = cluster.start_node("first");
    send(&first, &key, 5).await;
    // What `first` shares with nobody is not its snapshots alone.
    let snapshots = cluster.folder_of("first").join("snapshots");
    let beside = [&cluster.arguments()[..], &["--snapshots", snapshots.to_str().unwrap()]].concat();
    let (code, said) = refused_to_serve(&cluster.folder_of("second"), &beside);
    assert!(said.contains("the single node node_") && said.contains("highwater replay"), "{said}");
    assert_eq!(code, OTHER_KEEPER, "{said}");
    // The first was not disturbed, and stays the one when it starts again.
    send(&first, &key, 6).await;
    first.stop();
    let first = cluster.start_node("first");
    let usage = "/v1/accounts/acme/usage?window=1h&metric=m";
    wait_for(&first, &key, usage, |usage| total(usage, "value") == 11.0).await;
    // Another one can take its place, by will: the store is made anew there, and the first ends.
    let second = cluster.folder_of("second");
    let replayed = highwater(&[&["replay", "--data", second.to_str().unwrap()], &cluster.arguments()[..]].concat());
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
    assert_eq!(first.end(), OTHER_KEEPER);
    let anew = cluster.folder_of("second").join("snapshots");
    let beside = [&cluster.arguments()[..], &["--snapshots", anew.to_str().unwrap()]].concat();
    let (code, said) = refused_to_serve(&cluster.folder_of("first"), &beside);
    assert_eq!(code, OTHER_KEEPER, "{said}");
    let second = cluster.start_node("second");
    send(&second, &key, 7).await;
    wait_for(&second, &key, usage, |usage| total(usage, "value") == 18.0).await;
    second.stop();
    verify(&cluster, &cluster.folder_of("second"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_one_journal_share_one_store_or_none() {
    let (Some(brokers), Some(clickhouse)) = (brokers(), clickhouse()) else { return };
    let mut cluster = Cluster::of_many(&brokers, &clickhouse);
    let key = bootstrap_with(&cluster.folder_of("anywhere"), &cluster.arguments());
    let first = cluster.start_node("first");
    send(&first, &key, 5).await;
    let shared = cluster.shared.take();
    let snapshots = shared.as_ref().unwrap().1.clone();
    let apart = [&cluster.arguments()[..], &["--snapshots", &snapshots]].concat();
    let (code, said) = refused_to_serve(&cluster.folder_of("second"), &apart);
    assert!(said.contains("a store that nodes share"), "{said}");
    assert_eq!(code, OTHER_KEEPER, "{said}");
    // A store that is not empty is not filled again.
    cluster.shared = shared;
    let data = cluster.folder_of("second");
    let replay = |arguments: &[&str]| {
        let output = highwater(&[&["replay", "--data", data.to_str().unwrap()], arguments].concat());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    wait_for(&first, &key, "/v1/accounts/acme/usage?window=1h", |usage| total(usage, "value") == 5.0).await;
    let (code, said) = replay(&cluster.arguments());
    assert!(code == Some(2) && said.contains("holds rows already"), "{said}");
    first.stop();
    // From ClickHouse into another database: the log has everything.
    cluster.shared.as_mut().unwrap().0.push_str("_anew");
    let (code, said) = replay(&cluster.arguments());
    assert_eq!(code, Some(0), "{said}");
    verify(&cluster, &cluster.folder_of("second"));
    let second = cluster.start_node("second");
    wait_for(&second, &key, "/v1/accounts/acme/usage?window=1h", |usage| total(usage, "value") == 5.0).await;
    second.stop();
}

#[test]
fn a_file_is_used_by_one_process_whatever_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (journal, store) = (format!("sqlite:{}", path("j.db")), format!("sqlite:{}", path("s.db")));
    let places = ["--journal", &journal, "--store", &store];
    bootstrap_with(&folder.path().join("a"), &places);
    let first = Server::start_with(&folder.path().join("a"), &places);
    for shared in [&places[..2], &places[2..]] {
        let (code, said) = refused_to_serve(&folder.path().join("b"), shared);
        assert!(said.contains("is in use by"), "{said}");
        assert_eq!(code, IN_USE, "{said}");
    }
    let (journal_b, store_b) = (format!("sqlite:{}", path("j2.db")), format!("sqlite:{}", path("s2.db")));
    Server::start_with(&folder.path().join("b"), &["--journal", &journal_b, "--store", &store_b]).stop();
    first.stop();
    // `replay` makes the file anew that the node uses.
    let before = std::fs::metadata(path("s.db")).unwrap().modified().unwrap();
    let data = path("a");
    let replayed = highwater(&[&["replay", "--data", &data][..], &places].concat());
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
    assert!(std::fs::metadata(path("s.db")).unwrap().modified().unwrap() > before);
    assert!(!folder.path().join("a/store.db").exists());
}
