//! What the binary says and does when its surroundings are broken: taken folders and ports, damaged files, wrong
//! configuration. Every refusal names what and where, and ends in its own exit code.

use crate::process::{Server, bootstrap, call, highwater};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};

fn client() -> reqwest::Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Checks how a command ended, and what it said on standard error.
pub(crate) fn check(output: &Output, code: i32, says: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for part in says {
        assert!(said.contains(part), "{part:?} is missing in:\n{said}");
    }
}

pub(crate) fn run(command: &str, data: &Path) -> Output {
    highwater(&[command, "--data", data.to_str().unwrap()])
}

pub(crate) fn serve(data: &Path, more: &[&str]) -> Output {
    let listen = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", data.to_str().unwrap()];
    highwater(&[&listen, more].concat())
}

pub(crate) async fn send(server: &Server, key: &str, account: &str, value: i64) {
    let event = json!({"account_id": account, "metric": "m", "value": value});
    let url = format!("{}/v1/events", server.base);
    let (status, answer) = call(&client(), ("POST", &url, key), Some(&event)).await.unwrap();
    assert_eq!(status, 202, "{answer}");
    let receipt = answer["receipt"].as_str().unwrap();
    let url = format!("{}/v1/accounts/{account}/usage?after={receipt}", server.base);
    assert_eq!(call(&client(), ("GET", &url, key), None).await.unwrap().0, 200);
}

pub(crate) async fn used(server: &Server, key: &str, account: &str) -> f64 {
    let url = format!("{}/v1/accounts/{account}/usage?window=1h", server.base);
    let (status, usage) = call(&client(), ("GET", &url, key), None).await.unwrap();
    assert_eq!(status, 200, "{usage}");
    usage["items"].as_array().unwrap().iter().map(|item: &Value| item["value"].as_f64().unwrap()).sum()
}

/// Data with a few events, its server stopped in order.
pub(crate) async fn data_with_events(folder: &Path) -> (std::path::PathBuf, String) {
    let data = folder.join("data");
    let key = bootstrap(&data);
    let server = Server::start(&data);
    for value in 1..=5 {
        send(&server, &key, "acme", value).await;
    }
    server.stop();
    (data, key)
}

#[tokio::test]
async fn one_folder_serves_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = data_with_events(folder.path()).await;
    let server = Server::start(&data);
    check(&serve(&data, &[]), 3, &["is in use by process", "name another place"]);
    check(&run("replay", &data), 3, &["is in use by process"]);
    check(&run("bootstrap", &data), 3, &["is in use by process"]);
    check(&run("verify", &data), 0, &[]);
    server.stop();
    check(&run("verify", &data), 0, &[]);
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = folder.path().join("data");
    let output =
        highwater(&["serve", "--listen", &address, "--admin", "127.0.0.1:0", "--data", data.to_str().unwrap()]);
    check(&output, 7, &[&address, "another process"]);
}

#[test]
fn the_first_key_is_printed_alone_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let first = run("bootstrap", &data);
    check(&first, 0, &[]);
    let key = String::from_utf8(first.stdout).unwrap();
    assert!(key.starts_with("pk_live_") && key.len() == 60 && key.ends_with('\n'), "{key:?}");
    check(&run("bootstrap", &data), 8, &["has a key already", "--another"]);
    let another = highwater(&["bootstrap", "--another", "--data", data.to_str().unwrap()]);
    check(&another, 0, &[]);
    assert_ne!(another.stdout, key.as_bytes());
    assert!(!folder_holds(&data, key.trim()), "the key is stored nowhere");
}

fn folder_holds(folder: &Path, secret: &str) -> bool {
    let secret = secret.as_bytes();
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let holds = |path: std::path::PathBuf| std::fs::read(path).unwrap().windows(secret.len()).any(|at| at == secret);
    files.into_iter().any(holds)
}

#[test]
fn configuration_mistakes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let file = folder.path().join("highwater.toml");
    let with_file = |text: &str| {
        std::fs::write(&file, text).unwrap();
        serve(&data, &["--config", file.to_str().unwrap()])
    };
    check(&with_file("lisen = \"127.0.0.1:1\"\n"), 2, &["highwater.toml", "line 1", "lisen", "listen"]);
    check(&with_file("grace = \"30 sec\"\n"), 2, &["highwater.toml", "30 sec", "30s"]);
    check(&with_file("dedup_horizon = \"10h\"\n"), 2, &["dedup_horizon", "lateness_horizon", "count twice"]);
    check(&serve(&data, &["--config", "/nowhere.toml"]), 2, &["/nowhere.toml"]);
    check(&serve(&data, &["--allow-target", "10.0.0.0/40"]), 2, &["allow_target", "10.0.0.0/40"]);
    check(&serve(&data, &["--lisen", "x"]), 2, &["--lisen", "--listen"]);
    check(&highwater(&["verify", "--data", "/nowhere"]), 2, &["there is no data in /nowhere"]);
    let typo = Command::new(env!("CARGO_BIN_EXE_highwater")).arg("verify").env("HIGHWATER_DTA", "x").output().unwrap();
    check(&typo, 2, &["HIGHWATER_DTA", "did you mean HIGHWATER_DATA"]);
}

#[tokio::test]
async fn a_corrupt_snapshot_is_passed_over_and_the_log_is_folded() {
    let folder = tempfile::tempdir().unwrap();
    let (data, key) = data_with_events(folder.path()).await;
    let mut damaged = 0;
    let mut folders = vec![data.join("snapshots")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let mut bytes = std::fs::read(&path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0xff;
                std::fs::write(&path, bytes).unwrap();
                damaged += 1;
            }
        }
    }
    assert!(damaged > 0, "a stop in order leaves snapshots");
    let server = Server::start(&data);
    send(&server, &key, "acme", 100).await;
    assert_eq!(used(&server, &key, "acme").await, 115.0);
    server.stop();
    check(&run("verify", &data), 0, &[]);
}

#[tokio::test]
async fn a_damaged_journal_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = data_with_events(folder.path()).await;
    let journal = data.join("journal.db");
    let damage = |statement: &str| rusqlite::Connection::open(&journal).unwrap().execute(statement, []).unwrap();
    let newest = "(SELECT max(rowid) FROM records WHERE log > 0)";
    let changed =
        damage(&format!("UPDATE records SET payload = CAST(payload || x'00' AS BLOB) WHERE rowid = {newest}"));
    assert_eq!(changed, 1);
    check(&serve(&data, &[]), 4, &["log p", "record", "is damaged", "checksum"]);
    check(&run("verify", &data), 4, &["is damaged"]);
    check(&run("replay", &data), 4, &["is damaged"]);
}

#[tokio::test]
async fn a_missing_record_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = data_with_events(folder.path()).await;
    let journal = rusqlite::Connection::open(data.join("journal.db")).unwrap();
    let middle = "DELETE FROM records WHERE log = 0 AND position = 2";
    assert_eq!(journal.execute(middle, []).unwrap(), 1);
    drop(journal);
    check(&serve(&data, &[]), 4, &["control", "records are missing"]);
}

#[tokio::test]
async fn a_journal_older_than_its_store_is_refused_with_both_positions() {
    let folder = tempfile::tempdir().unwrap();
    let (data, key) = data_with_events(folder.path()).await;
    let old = std::fs::read(data.join("journal.db")).unwrap();
    let server = Server::start(&data);
    send(&server, &key, "acme", 7).await;
    server.stop();
    for name in ["journal.db-wal", "journal.db-shm"] {
        drop(std::fs::remove_file(data.join(name)));
    }
    std::fs::write(data.join("journal.db"), old).unwrap();
    check(&serve(&data, &[]), 4, &["ends at", "but the store holds", "older than its copies"]);
}

#[tokio::test]
async fn verify_finds_a_changed_row_and_replay_mends_it() {
    let folder = tempfile::tempdir().unwrap();
    let (data, key) = data_with_events(folder.path()).await;
    let store = rusqlite::Connection::open(data.join("store.db")).unwrap();
    assert!(store.execute("UPDATE usage_windows SET sum = sum + 1", []).unwrap() > 0);
    drop(store);
    let drifted = run("verify", &data);
    check(&drifted, 5, &["the journal gives", "highwater replay"]);
    assert!(String::from_utf8_lossy(&drifted.stdout).contains("drift: 1 difference"));
    check(&run("replay", &data), 0, &[]);
    check(&run("verify", &data), 0, &[]);
    std::fs::write(data.join("store.db"), b"not a database at all, but long enough to be looked at").unwrap();
    check(&run("replay", &data), 0, &[]);
    let server = Server::start(&data);
    assert_eq!(used(&server, &key, "acme").await, 15.0);
    server.stop();
}

#[tokio::test]
async fn another_master_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = data_with_events(folder.path()).await;
    std::fs::write(data.join("master.key"), "ab".repeat(32)).unwrap();
    for output in [serve(&data, &[]), run("verify", &data), run("replay", &data)] {
        check(&output, 1, &["the master key is not the one"]);
    }
    std::fs::write(data.join("master.key"), "short").unwrap();
    check(&serve(&data, &[]), 4, &["64 hexadecimal digits"]);
}
