//! That the data is for one user: who may read its files, what links lead to, and the key that seals what is in them.

use crate::faults::{check, data_with_events, run, send, serve};
use crate::files::{DAMAGED, NO_KEY, event, import};
use crate::process::{Server, bootstrap, highwater};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Output;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o7777
}

fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut all = vec![folder.to_owned()];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(all_files(&path)) } else { all.push(path) }
    }
    all
}

#[tokio::test]
async fn nobody_else_may_read_the_data() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // A directory that was there before, as an installer leaves it.
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    let key = bootstrap(&data);
    let server = Server::start(&data);
    send(&server, &key, "acme", 1).await;
    let closed = |when: &str| {
        for path in all_files(&data) {
            assert_eq!(mode(&path) & 0o077, 0, "{when}: {}", path.display());
        }
        assert_eq!(mode(&data), 0o700);
        assert_eq!(mode(&data.join("journal.db")), 0o600);
    };
    closed("while it serves");
    server.stop();
    closed("behind a stop");
    // What an earlier release left behind is repaired, and said.
    for path in all_files(&data) {
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let server = Server::start(&data);
    assert!(server.opening.contains("other users could read the data"), "{}", server.opening);
    server.stop();
    closed("behind a repair");
    let rejects = import(&data, "no event\n");
    assert_eq!(rejects.status.code(), Some(6));
    assert_eq!(mode(&folder.path().join("events.ndjson.rejected.ndjson")), 0o600);
}

#[tokio::test]
async fn a_master_key_is_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = data_with_events(folder.path()).await;
    let elsewhere = folder.path().join("key");
    std::fs::rename(data.join("master.key"), &elsewhere).unwrap();
    for (name, output) in by_every_command(&data, &[]) {
        println!("{name}");
        check(&output, 1, &["master.key is missing", "put it back", "--master-key-file"]);
    }
    assert!(!data.join("master.key").exists(), "no other key is made");
    check(
        &highwater(&["verify", "--data", data.to_str().unwrap(), "--master-key-file", elsewhere.to_str().unwrap()]),
        0,
        &[],
    );
    // A mounted secret may be readable; that is said, and nothing of it is changed.
    std::fs::set_permissions(&elsewhere, std::fs::Permissions::from_mode(0o444)).unwrap();
    let server = Server::start_with(&data, &["--master-key-file", elsewhere.to_str().unwrap()]);
    assert!(server.opening.contains("may be read by other users"), "{}", server.opening);
    server.stop();
    assert_eq!(mode(&elsewhere), 0o444);
    assert!(!data.join("master.key").exists());
}

/// What every command that opens data says of it.
fn by_every_command(data: &Path, more: &[&str]) -> Vec<(&'static str, Output)> {
    let file = data.with_file_name("x.ndjson");
    std::fs::write(&file, event("x")).unwrap();
    let on = |command: &[&str]| highwater(&[command, &["--data", data.to_str().unwrap()], more].concat());
    vec![
        ("serve", serve(data, more)),
        ("verify", on(&["verify"])),
        ("replay", on(&["replay"])),
        ("bootstrap", on(&["bootstrap"])),
        ("import", on(&["import", file.to_str().unwrap()])),
        ("limit", on(&["limit", NO_KEY, "--default"])),
        ("repair", on(&["repair", "--clock-to", "now"])),
    ]
}

#[tokio::test]
async fn a_damaged_master_key_is_refused_with_its_name_by_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let (data, _) = data_with_events(folder.path()).await;
    let file = data.join("master.key");
    let whole = std::fs::read(&file).unwrap();
    let half = &whole[..whole.len() / 2];
    for damaged in [b"garbage\n", &b""[..], &[0; 32], &[0xff; 64], half, "+a".repeat(32).as_bytes()] {
        std::fs::write(&file, damaged).unwrap();
        for (name, output) in by_every_command(&data, &[]) {
            println!("{damaged:?}: {name}");
            check(&output, DAMAGED, &["master.key is damaged", "expected 64 hexadecimal digits"]);
        }
        assert_eq!(std::fs::read(&file).unwrap(), damaged, "it is not replaced");
    }
    // One that was named is an argument.
    let refused = serve(&data, &["--master-key-file", file.to_str().unwrap()]);
    check(&refused, 2, &["master_key_file", "64 hexadecimal digits"]);
    std::fs::write(&file, &whole).unwrap();
    check(&run("verify", &data), 0, &[]);
}

#[tokio::test]
async fn what_links_lead_to_is_closed_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let (data, key) = data_with_events(folder.path()).await;
    let (link, disk, secret) =
        (folder.path().join("link"), folder.path().join("disk.db"), folder.path().join("secret"));
    for (name, to) in [("journal.db", &disk), ("master.key", &secret)] {
        std::fs::rename(data.join(name), to).unwrap();
        std::os::unix::fs::symlink(to, data.join(name)).unwrap();
        std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    std::os::unix::fs::symlink(&data, &link).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    let server = Server::start(&link);
    for says in
        ["other users could read the data", "\"repaired\":2", "the master key's file may be read by other users"]
    {
        assert!(server.opening.contains(says), "{says}: {}", server.opening);
    }
    send(&server, &key, "acme", 1).await;
    let wal = folder.path().join("disk.db-wal");
    assert_eq!((mode(&data), mode(&disk), mode(&wal), mode(&secret)), (0o700, 0o600, 0o600, 0o644));
    server.kill();
    // What was killed left its WAL beside the file that the link leads to.
    std::fs::set_permissions(&wal, std::fs::Permissions::from_mode(0o644)).unwrap();
    let server = Server::start(&link);
    assert!(server.opening.contains("other users could read it"), "{}", server.opening);
    assert_eq!(mode(&wal), 0o600);
    server.stop();
}
