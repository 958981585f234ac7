//! What the files of a data directory are worth: what a stop leaves in which of them, what is said of one that is damaged,
//! missing or old, and that one process at a time writes them.

use crate::faults::{check, data_with_events, run, send, serve, used};
use crate::process::{Server, highwater};
use std::path::{Path, PathBuf};
use std::process::Output;

pub(crate) const DAMAGED: i32 = 4;
const NOTHING_THERE: i32 = 10;
/// What `limit` is asked about, where the data is refused before it is looked for.
pub(crate) const NO_KEY: &str = "key_00000000000000000000000000";

fn says(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// How long a file's WAL is; a file that is not there is empty.
fn wal_bytes(data: &Path, name: &str) -> u64 {
    std::fs::metadata(data.join(format!("{name}-wal"))).map_or(0, |metadata| metadata.len())
}

/// Copies single files into a directory of their own.
fn copy(data: &Path, to: &str, names: &[&str]) -> PathBuf {
    let copy = data.with_file_name(to);
    std::fs::create_dir(&copy).unwrap();
    for name in names {
        std::fs::copy(data.join(name), copy.join(name)).unwrap();
    }
    copy
}

pub(crate) fn import(data: &Path, events: &str) -> Output {
    let file = data.with_file_name("events.ndjson");
    std::fs::write(&file, events).unwrap();
    highwater(&["import", "--data", data.to_str().unwrap(), file.to_str().unwrap()])
}

fn repair(data: &Path) -> Output {
    highwater(&["repair", "--data", data.to_str().unwrap(), "--clock-to", "now"])
}

pub(crate) fn event(id: &str) -> String {
    format!("{{\"account_id\": \"acme\", \"metric\": \"m\", \"value\": 1, \"id\": \"{id}\"}}\n")
}

#[tokio::test]
async fn a_stop_leaves_everything_in_the_files_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let (data, key) = data_with_events(folder.path()).await;
    let clean = |what: &str| {
        for name in ["journal.db", "store.db"] {
            assert_eq!(wal_bytes(&data, name), 0, "{what}: {name}");
        }
    };
    clean("serve");
    for round in 0..4 {
        check(&import(&data, &event(&format!("i{round}")).repeat(round + 1)), 0, &[]);
        clean("import");
        check(&highwater(&["bootstrap", "--another", "--data", data.to_str().unwrap()]), 0, &[]);
        clean("bootstrap");
    }
    check(&run("replay", &data), 0, &[]);
    clean("replay");
    // What a restore needs is what the README names.
    let restored = copy(&data, "restored", &["journal.db", "master.key"]);
    check(&run("replay", &restored), 0, &[]);
    check(&run("verify", &restored), 0, &[]);
    let server = Server::start(&restored);
    assert_eq!(used(&server, &key, "acme").await, 19.0);
    server.stop();
    clean("serve");
}

#[tokio::test]
async fn a_killed_server_leaves_its_wal_and_verify_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let (data, key) = data_with_events(folder.path()).await;
    let server = Server::start(&data);
    send(&server, &key, "acme", 7).await;
    server.kill();
    assert!(wal_bytes(&data, "journal.db") > 0, "nothing is proved without one");
    let before = std::fs::read(data.join("journal.db")).unwrap();
    let verified = run("verify", &data);
    check(&verified, 0, &[]);
    assert!(says(&verified).contains("no drift"), "{}", says(&verified));
    assert_eq!(std::fs::read(data.join("journal.db")).unwrap(), before, "who verifies writes nothing");
    let server = Server::start(&data);
    assert_eq!(used(&server, &key, "acme").await, 22.0);
    server.stop();
}

#[tokio::test]
async fn an_empty_journal_is_nothing_to_compare_with() {
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = data_with_events(folder.path()).await;
    // A copy that was taken without the WAL, of a journal that had everything in it.
    let copied = copy(&data, "copied", &["master.key"]);
    rusqlite::Connection::open(copied.join("journal.db"))
        .unwrap()
        .execute_batch("CREATE TABLE t (x); DROP TABLE t")
        .unwrap();
    for command in ["verify", "replay"] {
        check(&run(command, &copied), NOTHING_THERE, &["the journal is empty", "journal.db-wal"]);
    }
    std::fs::remove_file(copied.join("journal.db")).unwrap();
    for command in ["verify", "replay"] {
        check(&run(command, &copied), NOTHING_THERE, &["the journal is empty"]);
    }
    check(&repair(&copied), NOTHING_THERE, &["the journal is empty"]);
    let server = Server::start(&copied);
    assert!(server.opening.contains("the journal is empty, and a master key is there"), "{}", server.opening);
    server.stop();
    check(&run("verify", folder.path()), 2, &["there is no data in"]);
}

#[tokio::test]
async fn a_journal_that_is_older_than_a_copy_is_refused_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (data, key) = data_with_events(folder.path()).await;
    let old = std::fs::read(data.join("journal.db")).unwrap();
    let server = Server::start(&data);
    send(&server, &key, "acme", 7).await;
    server.stop();
    let store = std::fs::read(data.join("store.db")).unwrap();
    let refused = |what: &str, says: &[&str]| {
        let limit = highwater(&["limit", "--data", data.to_str().unwrap(), NO_KEY, "--default"]);
        // Without a journal there is nothing that it could change.
        assert!(matches!(limit.status.code(), Some(2 | DAMAGED)), "{what}: {}", String::from_utf8_lossy(&limit.stderr));
        for (name, output) in [
            ("verify", run("verify", &data)),
            ("replay", run("replay", &data)),
            ("serve", serve(&data, &[])),
            ("bootstrap", run("bootstrap", &data)),
            ("import", import(&data, &event("x"))),
            ("repair", repair(&data)),
        ] {
            println!("{what}: {name}");
            check(&output, DAMAGED, says);
        }
    };
    std::fs::write(data.join("journal.db"), &old).unwrap();
    refused("older than the store", &["ends at", "but the store holds", "older than its copies"]);
    assert_eq!(std::fs::read(data.join("store.db")).unwrap(), store, "the only copy is still there");
    std::fs::rename(data.join("store.db"), data.join("aside.db")).unwrap();
    refused("older than a snapshot", &["ends at", "but a snapshot holds"]);
    std::fs::rename(data.join("aside.db"), data.join("store.db")).unwrap();
    std::fs::remove_file(data.join("journal.db")).unwrap();
    refused("gone", &["ends at 0", "but the store holds"]);
    assert!(!data.join("journal.db").exists(), "none is made in its place");
    std::fs::write(data.join("journal.db"), "").unwrap();
    refused("empty", &["ends at 0", "but the store holds"]);
    assert_eq!(std::fs::metadata(data.join("journal.db")).unwrap().len(), 0, "nothing is written into it");
    // By will, and only then, it goes on with what is left.
    std::fs::write(data.join("journal.db"), &old).unwrap();
    std::fs::rename(data.join("store.db"), data.join("aside.db")).unwrap();
    std::fs::remove_dir_all(data.join("snapshots")).unwrap();
    check(&run("replay", &data), 0, &[]);
    let server = Server::start(&data);
    assert_eq!(used(&server, &key, "acme").await, 15.0);
    server.stop();
}

#[tokio::test]
async fn verify_says_what_it_did_not_compare() {
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = data_with_events(folder.path()).await;
    let newest = newest_snapshot(&data);
    std::fs::remove_file(data.join("store.db")).unwrap();
    check(&run("verify", &data), NOTHING_THERE, &["the store is missing", "no row was compared"]);
    std::fs::write(data.join("store.db"), "").unwrap();
    check(&run("verify", &data), NOTHING_THERE, &["the store is missing"]);
    check(&run("replay", &data), 0, &[]);
    std::fs::write(&newest, "not a snapshot").unwrap();
    check(&run("verify", &data), 5, &["snapshot p", "cannot be read"]);
    std::fs::remove_dir_all(data.join("snapshots")).unwrap();
    let verified = run("verify", &data);
    check(&verified, 0, &[]);
    assert!(says(&verified).contains("and 0 snapshots compared"), "{}", says(&verified));
    // What is behind the store's position is read all the same.
    let store = rusqlite::Connection::open(data.join("store.db")).unwrap();
    for table in ["positions", "usage_windows", "accounts"] {
        store.execute(&format!("DELETE FROM {table}"), []).unwrap();
    }
    drop(store);
    let verified = run("verify", &data);
    check(&verified, NOTHING_THERE, &["nothing was compared"]);
    assert!(says(&verified).contains("records behind what is stored"), "{}", says(&verified));
    let journal = rusqlite::Connection::open(data.join("journal.db")).unwrap();
    journal.execute("UPDATE records SET recorded_at = recorded_at - 1 WHERE log > 0 AND position = 1", []).unwrap();
    drop(journal);
    check(&run("verify", &data), DAMAGED, &["journal.db", "record 1 is damaged"]);
}

fn newest_snapshot(data: &Path) -> PathBuf {
    let entries = std::fs::read_dir(data.join("snapshots/p0")).unwrap();
    entries.map(|entry| entry.unwrap().path()).max().unwrap()
}

type Damage = fn(&mut Vec<u8>);

/// Ways in which disks and people spoil a file.
const DAMAGES: [(&str, Damage); 5] = [
    ("random bytes", |bytes| bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 131 % 251) as u8)),
    ("no database", |bytes| *bytes = b"not a database at all, but long enough to be looked at".to_vec()),
    ("a spoilt schema", |bytes| bytes[100..2_000].fill(0x5a)),
    ("cut in half", |bytes| bytes.truncate(bytes.len() / 2)),
    ("pages of zeros", |bytes| bytes[4_096..].fill(0)),
];

#[tokio::test]
async fn a_damaged_file_is_refused_with_its_name_by_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let (data, key) = data_with_events(folder.path()).await;
    let file = |name: &str| data.join(name);
    for name in ["journal.db", "store.db"] {
        let whole = std::fs::read(file(name)).unwrap();
        for (what, damage) in DAMAGES {
            let mut bytes = whole.clone();
            damage(&mut bytes);
            let commands: [(&str, &dyn Fn() -> Output); 6] = [
                ("serve", &|| serve(&data, &[])),
                ("verify", &|| run("verify", &data)),
                ("bootstrap", &|| run("bootstrap", &data)),
                ("import", &|| import(&data, &event("x"))),
                ("limit", &|| highwater(&["limit", "--data", data.to_str().unwrap(), NO_KEY, "--default"])),
                ("replay", &|| run("replay", &data)),
            ];
            for (command, output) in commands {
                println!("{name}: {what}: {command}");
                for ending in ["-wal", "-shm"] {
                    drop(std::fs::remove_file(file(&format!("{name}{ending}"))));
                }
                std::fs::write(file(name), &bytes).unwrap();
                let expected = if (command, name) == ("replay", "store.db") { 0 } else { DAMAGED };
                let says: &[&str] = if expected == 0 { &[] } else { &[name] };
                check(&output(), expected, says);
            }
            std::fs::write(file(name), &whole).unwrap();
        }
    }
    check(&run("verify", &data), 0, &[]);
    let server = Server::start(&data);
    assert_eq!(used(&server, &key, "acme").await, 15.0);
    server.stop();
}

/// One flipped byte anywhere is noticed or harmless: no command crashes, calls it another failure, or calls damage drift of
/// the journal.
#[tokio::test]
async fn a_flipped_byte_anywhere_is_noticed_or_harmless() {
    const FLIPS: usize = 40;
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = crate::load::Random(seed);
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = data_with_events(folder.path()).await;
    for (name, allowed) in [("journal.db", &[0, DAMAGED][..]), ("store.db", &[0, DAMAGED, 5])] {
        let whole = std::fs::read(data.join(name)).unwrap();
        let mut found = std::collections::BTreeMap::new();
        for _ in 0..FLIPS {
            let at = usize::try_from(random.below(whole.len() as u64)).unwrap();
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << random.below(8);
            for ending in ["-wal", "-shm"] {
                drop(std::fs::remove_file(data.join(format!("{name}{ending}"))));
            }
            std::fs::write(data.join(name), &bytes).unwrap();
            let output = run("verify", &data);
            let code = output.status.code().unwrap();
            let said = says(&output);
            let is_later_release = said.contains("this release reads up to");
            assert!(allowed.contains(&code) || is_later_release, "{name}, byte {at}: code {code}\n{said}");
            assert!(code != DAMAGED || said.contains(name) || said.contains("older than its copies"), "{said}");
            *found.entry(code).or_insert(0) += 1;
        }
        println!("{name}: {found:?}");
        std::fs::write(data.join(name), &whole).unwrap();
    }
}

#[tokio::test]
async fn a_store_that_breaks_under_a_server_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let (data, key) = data_with_events(folder.path()).await;
    let server = Server::start(&data);
    // The pages of the table that every batch writes to, below the server.
    let store = std::fs::OpenOptions::new().write(true).open(data.join("store.db")).unwrap();
    let length = store.metadata().unwrap().len();
    std::os::unix::fs::FileExt::write_all_at(&store, &vec![0xa5; usize::try_from(length).unwrap() - 4_096], 4_096)
        .unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/v1/events", server.base);
    for number in 0..200 {
        let event = serde_json::json!({"account_id": format!("a{number}"), "metric": "m"});
        if crate::process::call(&http, ("POST", &url, &key), Some(&event)).await.is_err() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(server.end(), Some(DAMAGED));
    check(&run("replay", &data), 0, &[]);
    check(&run("verify", &data), 0, &[]);
}

#[tokio::test]
async fn one_process_writes_a_file_however_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (data, key) = data_with_events(folder.path()).await;
    let server = Server::start(&data);
    let url = |name: &str| format!("sqlite:{}", data.join(name).display());
    let other = folder.path().join("other");
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(data.join("journal.db"), &link).unwrap();
    let linked = format!("sqlite:{}", link.display());
    let refused = |data: &Path, more: &[&str]| {
        let (code, said) = crate::process::refused_to_serve(data, more);
        assert!(code == Some(3) && said.contains("is in use by"), "{more:?}: {code:?}\n{said}");
    };
    refused(&other, &["--journal", &url("journal.db")]);
    refused(&other, &["--journal", &linked]);
    refused(&other, &["--store", &url("store.db")]);
    std::fs::remove_file(data.join("lock")).unwrap();
    refused(&data, &[]);
    check(&run("replay", &data), 3, &["is in use by"]);
    check(&import(&data, &event("x")), 3, &["is in use by"]);
    send(&server, &key, "acme", 4).await;
    server.stop();
    check(&run("verify", &data), 0, &[]);
    let server = Server::start(&data);
    assert_eq!(used(&server, &key, "acme").await, 19.0);
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_compares_beside_a_server_that_writes() {
    let folder = tempfile::tempdir().unwrap();
    let (data, key) = data_with_events(folder.path()).await;
    let server = Server::start(&data);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let (url, stop) =
        (format!("{}/v1/events", server.base), std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let sending = tokio::spawn({
        let (stop, key) = (std::sync::Arc::clone(&stop), key.clone());
        async move {
            let mut sent = 0_u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let event = serde_json::json!({"account_id": format!("a{}", sent % 50), "metric": "m", "value": 1});
                let answer = crate::process::call(&http, ("POST", &url, &key), Some(&event)).await.unwrap();
                assert_eq!(answer.0, 202);
                sent += 1;
            }
            sent
        }
    });
    for _ in 0..5 {
        let data = data.clone();
        let verified = tokio::task::spawn_blocking(move || run("verify", &data)).await.unwrap();
        check(&verified, 0, &[]);
        assert!(says(&verified).contains("no drift"), "{}", says(&verified));
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(sending.await.unwrap() > 0);
    server.stop();
    assert_eq!(wal_bytes(&data, "journal.db"), 0);
    assert!(!data.join("verify.db").exists());
    check(&run("verify", &data), 0, &[]);
}
