//! `import` as a user runs it: packed files, refused lines, the same file twice, old events.

use crate::process::{Server, bootstrap, call, highwater};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

struct Place {
    _folder: tempfile::TempDir,
    data: PathBuf,
    file: PathBuf,
    key: String,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (data, file) = (folder.path().join("data"), folder.path().join("events.ndjson"));
        let key = bootstrap(&data);
        Self { _folder: folder, data, file, key }
    }

    fn import(&self, file: &Path, more: &[&str]) -> Output {
        let own = ["import", "--data", self.data.to_str().unwrap(), file.to_str().unwrap()];
        highwater(&[&own, more].concat())
    }

    /// The (count, sum) of an account's last day.
    async fn counted(&self, account: &str) -> (i64, i64) {
        drop(rustls::crypto::ring::default_provider().install_default());
        let server = Server::start(&self.data);
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("{}/v1/accounts/{account}/usage?window=1d", server.base);
        let (status, usage) = call(&http, ("GET", &url, &self.key), None).await.unwrap();
        server.stop();
        if status == 404 {
            return (0, 0);
        }
        let total =
            |name: &str| usage["items"].as_array().unwrap().iter().map(|item| item[name].as_i64().unwrap()).sum();
        (total("count"), total("value"))
    }
}

fn now(ago_s: i64) -> String {
    let at = jiff::Timestamp::now().as_millisecond() - ago_s * 1_000;
    format!("{:.3}", jiff::Timestamp::from_millisecond(at).unwrap())
}

fn line(number: usize) -> String {
    json!({"account_id": "acme", "metric": "m", "value": 2, "id": format!("e{number}"), "timestamp": now(60)})
        .to_string()
}

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn a_file_counts_once_however_it_is_packed() {
    let place = Place::new();
    let text: String = (0..500).map(|number| line(number) + "\n").collect();
    std::fs::write(&place.file, &text).unwrap();
    let (code, out) = said(&place.import(&place.file, &[]));
    assert_eq!(code, Some(0), "{out}");
    assert!(out.starts_with("500 events accepted and counted, 0 lines refused"), "{out}");
    let (code, out) = said(&place.import(&place.file, &[]));
    assert!(code == Some(0) && out.contains("was imported at") && out.contains("nothing to do"), "{out}");
    let gz = place.file.with_extension("gz");
    let mut packed = flate2::write::GzEncoder::new(File::create(&gz).unwrap(), flate2::Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    packed.finish().unwrap();
    let zst = place.file.with_extension("zst");
    std::fs::write(&zst, zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
    for file in [gz, zst] {
        let (code, out) = said(&place.import(&file, &[]));
        assert!(code == Some(0) && out.starts_with("500 events"), "{out}");
    }
    assert_eq!(place.counted("acme").await, (500, 1_000), "four imports of the same events");
}

#[tokio::test]
async fn every_member_of_a_packed_file_counts_and_what_follows_the_last_does_not_pass() {
    let place = Place::new();
    let pack = |text: &str| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text.as_bytes()).unwrap();
        packed.finish().unwrap()
    };
    let members: Vec<u8> =
        (0..5).map(|number| line(number) + "\n").chain([String::new()]).flat_map(|l| pack(&l)).collect();
    std::fs::write(&place.file, &members).unwrap();
    let (code, out) = said(&place.import(&place.file, &[]));
    assert!(code == Some(0) && out.starts_with("5 events"), "{out}");
    std::fs::write(&place.file, [members.as_slice(), b"x"].concat()).unwrap();
    let damaged = place.import(&place.file, &[]);
    let said = String::from_utf8_lossy(&damaged.stderr);
    assert!(damaged.status.code() == Some(1) && said.contains("read the lines behind line"), "{said}");
    assert_eq!(place.counted("acme").await, (5, 10));
}

#[tokio::test]
async fn dimensions_that_cannot_be_kept_are_said_and_cost_no_event() {
    let place = Place::new();
    let event = json!({"account_id": "acme", "metric": "m", "id": "1", "value": 2, "timestamp": now(60), "dimensions": {"cost": 1e-12}});
    std::fs::write(&place.file, event.to_string()).unwrap();
    let output = place.import(&place.file, &[]);
    let (code, out) = said(&output);
    assert!(code == Some(0) && out.starts_with("1 events"), "{out}");
    let notes = String::from_utf8_lossy(&output.stderr);
    assert!(notes.contains("dimensions of 1 events could not all be kept"), "{notes}");
    assert_eq!(place.counted("acme").await, (1, 2));
}

#[tokio::test]
async fn lines_without_an_id_count_once_too() {
    let place = Place::new();
    let text = format!("{}\n", json!({"account_id": "acme", "metric": "m", "timestamp": now(60)})).repeat(10);
    std::fs::write(&place.file, text).unwrap();
    assert_eq!(said(&place.import(&place.file, &[])).0, Some(0));
    // As if it had been cut off before the file was noted: the events are told apart by file and line.
    let journal = rusqlite::Connection::open(place.data.join("journal.db")).unwrap();
    let noted = "DELETE FROM records WHERE log = 0 AND position = (SELECT max(position) FROM records WHERE log = 0)";
    assert_eq!(journal.execute(noted, []).unwrap(), 1);
    drop(journal);
    let (code, out) = said(&place.import(&place.file, &[]));
    assert!(code == Some(0) && out.starts_with("10 events"), "{out}");
    assert_eq!(place.counted("acme").await, (10, 10));
}

#[tokio::test]
async fn refused_lines_are_written_down_and_lose_nothing_else() {
    let place = Place::new();
    let long = "x".repeat(10 << 20);
    let cloud = json!({"specversion": "1.0", "id": "c1", "source": "s", "type": "m", "subject": "acme", "time": now(60),
        "data": {"value": 2}});
    let lines = [
        line(1),
        "{not json".to_owned(),
        String::new(),
        json!({"account_id": "acme", "metric": "m", "value": 1, "extra": 1}).to_string(),
        long,
        json!({"account_id": "acme", "metric": "m", "timestamp": "2001-01-01T00:00:00Z"}).to_string(),
        cloud.to_string(),
        line(2),
    ];
    std::fs::write(&place.file, lines.join("\n")).unwrap();
    let (code, out) = said(&place.import(&place.file, &[]));
    assert_eq!(code, Some(6), "{out}");
    assert!(out.starts_with("3 events accepted and counted, 4 lines refused"), "{out}");
    let rejects = std::fs::read_to_string(format!("{}.rejected.ndjson", place.file.display())).unwrap();
    let rejects: Vec<Value> = rejects.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found: Vec<(i64, &str)> =
        rejects.iter().map(|r| (r["line"].as_i64().unwrap(), r["code"].as_str().unwrap())).collect();
    let wanted = [(2, "malformed_json"), (4, "unknown_field"), (5, "line_too_large"), (6, "timestamp_too_old")];
    assert_eq!(found, wanted);
    assert!(rejects[2]["detail"].as_str().unwrap().contains("10485760 bytes"), "{}", rejects[2]["detail"]);
    assert_eq!(place.counted("acme").await, (3, 6));
}

#[tokio::test]
async fn backfill_takes_any_age() {
    let place = Place::new();
    let old =
        json!({"account_id": "acme", "metric": "m", "value": 5, "id": "old", "timestamp": "2001-01-01T00:00:00Z"});
    std::fs::write(&place.file, old.to_string()).unwrap();
    assert_eq!(said(&place.import(&place.file, &[])).0, Some(6));
    // The same bytes under another name of the file are still the same file, but it was noted with nothing accepted.
    std::fs::write(&place.file, format!("{old}\n")).unwrap();
    let (code, out) = said(&place.import(&place.file, &["--backfill"]));
    assert!(code == Some(0) && out.starts_with("1 events"), "{out}");
    let server = Server::start(&place.data);
    drop(rustls::crypto::ring::default_provider().install_default());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let range = "window=1d&from=2001-01-01T00:00:00Z&to=2001-01-02T00:00:00Z";
    let url = format!("{}/v1/accounts/acme/usage?{range}", server.base);
    let (_, usage) = call(&http, ("GET", &url, &place.key), None).await.unwrap();
    assert_eq!(usage["items"][0]["value"], 5, "{usage}");
    server.stop();
}

#[tokio::test]
async fn standard_input_is_read_and_a_damaged_archive_is_named() {
    let place = Place::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_highwater"))
        .args(["import", "--data", place.data.to_str().unwrap(), "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all((line(1) + "\n" + &line(2)).as_bytes()).unwrap();
    let (code, out) = said(&child.wait_with_output().unwrap());
    assert!(code == Some(0) && out.starts_with("2 events"), "{out}");
    let text: String = (0..5_000).map(|number| line(number) + "\n").collect();
    let packed = zstd::encode_all(text.as_bytes(), 1).unwrap();
    std::fs::write(&place.file, &packed[..packed.len() / 2]).unwrap();
    let cut = place.import(&place.file, &[]);
    let said = String::from_utf8_lossy(&cut.stderr);
    assert!(cut.status.code() == Some(1) && said.contains("read the lines behind line"), "{said}");
    assert!(!place.import(Path::new("/nowhere"), &[]).status.success());
}
