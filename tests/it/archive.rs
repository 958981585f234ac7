//! What ClickHouse keeps and for how long, and what it makes of the raw events by itself.

use crate::kafka::brokers;
use crate::nodes::{Cluster, ask, clickhouse, total, wait_for};
use crate::process::{Server, bootstrap_with, highwater, refused_to_serve};
use serde_json::{Value, json};

const DAY_MS: i64 = 86_400_000;

struct Archive {
    cluster: Cluster,
    clickhouse: String,
    key: String,
}

impl Archive {
    fn new() -> Option<Self> {
        let (brokers, clickhouse) = (brokers()?, clickhouse()?);
        let cluster = Cluster::of_many(&brokers, &clickhouse);
        let key = bootstrap_with(&cluster.data(), &cluster.arguments());
        Some(Self { cluster, clickhouse, key })
    }

    fn start(&self, more: &[&str]) -> Server {
        Server::start_with(&self.cluster.data(), &[&self.cluster.arguments()[..], more].concat())
    }

    async fn sql(&self, sql: &str) -> String {
        let (store, _) = self.cluster.shared.as_ref().unwrap();
        let database = store.rsplit_once('/').unwrap().1;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let asked =
            http.post(format!("{}/?database={database}", self.clickhouse)).body(sql.to_owned()).send().await.unwrap();
        let (status, text) = (asked.status(), asked.text().await.unwrap());
        assert!(status.is_success(), "{sql}: {text}");
        text.trim().to_owned()
    }

    async fn send(&self, server: &Server, events: &[Value]) {
        let (status, answer) =
            ask(server, &self.key, "POST", "/v1/events/batch", Some(json!({"events": events}))).await;
        assert_eq!((status, &answer["rejected"]), (202, &json!(0)), "{answer}");
        let receipt = answer["receipt"].as_str().unwrap();
        let usage = format!("/v1/accounts/acc-0/usage?window=1h&after={receipt}");
        let (status, answer) = ask(server, &self.key, "GET", &usage, None).await;
        assert_eq!(status, 200, "{answer}");
    }

    fn verify(&self, more: &[&str]) -> (Option<i32>, String) {
        let data = self.cluster.data();
        let output =
            highwater(&[&["verify", "--data", data.to_str().unwrap()], &self.cluster.arguments()[..], more].concat());
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    }
}

fn at(ms: i64) -> String {
    highwater::domain::time::Timestamp(ms).to_string()
}

/// Events of some accounts, all of them older than the present window, so that all of their windows are closed.
fn events(from: i64, round: i64) -> Vec<Value> {
    let event = |n: i64| {
        let mut event = json!({
            "account_id": format!("acc-{}", n % 5),
            "metric": if n % 3 == 0 { "calls" } else { "bytes" },
            "value": format!("{}.{}", n % 11 - 3, n % 7).parse::<f64>().unwrap(),
            "id": format!("{round}-{n}"),
            "timestamp": at(from + n * 37_000),
            "dimensions": {"region": if n % 2 == 0 { "eu" } else { "us" }, "n": n % 4},
        });
        if n % 4 == 0 {
            event["source"] = json!("tests");
        }
        event
    };
    (0..100).map(event).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn clickhouse_makes_every_window_anew_from_the_events() {
    let Some(archive) = Archive::new() else { return };
    let now = highwater::runtime::clock::now().0;
    // What is counted before anybody archives is left alone by the comparison.
    let server = archive.start(&[]);
    let (status, _) =
        ask(&server, &archive.key, "PUT", "/v1/metrics/calls", Some(json!({"group_by": ["region"]}))).await;
    assert_eq!(status, 201);
    archive.send(&server, &events(now - 2 * DAY_MS / 2, 0)).await;
    server.stop();
    assert_eq!(archive.sql("SELECT count() FROM usage_events").await, "0");
    let (code, said) = archive.verify(&["--deep"]);
    assert!(code == Some(2) && said.contains("nothing is archived"), "{said}");
    let server = archive.start(&["--archive"]);
    let first = events(now - 3 * 3_600_000, 1);
    archive.send(&server, &first).await;
    // Copies are dropped, and more of the same windows comes later, also behind a restart.
    archive.send(&server, &first[10..60]).await;
    server.kill();
    let server = archive.start(&["--archive"]);
    archive.send(&server, &events(now - 3 * 3_600_000, 2)).await;
    archive.send(&server, &first[..20]).await;
    server.stop();
    assert_eq!(archive.sql("SELECT uniqExact(partition, position, number) FROM usage_events").await, "200");
    let (code, said) = archive.verify(&["--deep"]);
    assert_eq!(code, Some(0), "{said}");
    let windows: u64 = said.split("made ").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    let stored = archive
        .sql(&format!("SELECT uniqExact(account, metric, grp, start) FROM usage_windows WHERE start > fromUnixTimestamp64Milli(toInt64({}))", now - 4 * 3_600_000))
        .await;
    assert_eq!(windows.to_string(), stored, "{said}");
    assert!(windows > 50, "{said}");
    // The same rows in the table twice, as a write that was tried twice leaves them, change nothing.
    archive.sql("INSERT INTO usage_events SELECT * FROM usage_events").await;
    assert_eq!(archive.verify(&["--deep"]).0, Some(0));
    // One altered row is seen.
    let one = "metric = 'calls' AND grp = '' AND account = 'acc-0' AND start = (SELECT max(start) FROM usage_windows WHERE metric = 'calls' AND account = 'acc-0')";
    archive
        .sql(&format!("ALTER TABLE usage_windows UPDATE sum = sum + 1 WHERE {one} SETTINGS mutations_sync = 2"))
        .await;
    let (code, said) = archive.verify(&["--deep"]);
    assert!(
        code == Some(5) && said.contains("1 of them differ") && said.contains("the archived events give"),
        "{said}"
    );
    archive
        .sql(&format!("ALTER TABLE usage_windows UPDATE sum = sum - 1 WHERE {one} SETTINGS mutations_sync = 2"))
        .await;
    assert_eq!(archive.verify(&["--deep"]).0, Some(0));
    // And one event that is missing.
    archive.sql("ALTER TABLE usage_events DELETE WHERE id = '2-99' SETTINGS mutations_sync = 2").await;
    let (code, said) = archive.verify(&["--deep"]);
    assert!(code == Some(5) && said.contains("differ"), "{said}");
    // The log has it: into another database, with the events from the beginning.
    let mut archive = archive;
    archive.cluster.shared.as_mut().unwrap().0.push_str("_anew");
    let data = archive.cluster.data();
    let replay =
        [&["replay", "--archive", "--data", data.to_str().unwrap()], &archive.cluster.arguments()[..]].concat();
    let replayed = highwater(&replay);
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
    let (code, said) = archive.verify(&["--deep"]);
    assert_eq!(code, Some(0), "{said}");
    let all: u64 = said.split("made ").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert!(all > windows, "{said}");
    // A node that does not archive leaves a gap, and says so in the table.
    let server = archive.start(&[]);
    archive.send(&server, &events(now - 3 * 3_600_000, 3)).await;
    server.stop();
    let (_, said) = archive.verify(&["--deep"]);
    assert!(said.contains("nothing is archived") || said.contains("made "), "{said}");
    assert!(!said.contains("missing"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expired_is_not_missing_and_what_is_missing_did_not_expire() {
    let Some(archive) = Archive::new() else { return };
    let now = highwater::runtime::clock::now().0;
    let server = archive.start(&["--lateness-horizon", "30d", "--dedup-horizon", "31d"]);
    // Every partition must know the horizons before it meets such events.
    let knows = |ready: &Value| {
        let folds = ready["checks"]["folds"].as_object().unwrap();
        folds.len() == 4 && folds.values().all(|fold| fold["control"].as_u64() >= Some(1))
    };
    wait_for(&server, &archive.key, "/readyz", knows).await;
    archive.send(&server, &events(now - 10 * DAY_MS, 0)).await;
    archive.send(&server, &events(now - 3_600_000 * 3, 1)).await;
    server.stop();
    let (code, said) = archive.verify(&[]);
    assert!(code == Some(0) && !said.contains("expired"), "{said}");
    let shorter = ["--lateness-horizon", "48h", "--dedup-horizon", "49h"];
    let few = [&archive.cluster.arguments()[..], &shorter, &["--retention", "windows=2d"]].concat();
    let (code, said) = refused_to_serve(&archive.cluster.data(), &few);
    assert!(code == Some(2) && said.contains("late events would be lost"), "{said}");
    let server = archive.start(&[&shorter[..], &["--retention", "windows=4d"]].concat());
    wait_for(&server, &archive.key, "/v1/accounts/acc-0/usage?window=1h", |usage| total(usage, "count") > 0.0).await;
    server.stop();
    archive.sql("OPTIMIZE TABLE usage_windows FINAL").await;
    let old = format!(
        "SELECT count() FROM usage_windows WHERE start < fromUnixTimestamp64Milli(toInt64({}))",
        now - 4 * DAY_MS
    );
    for _ in 0..100 {
        if archive.sql(&old).await == "0" {
            break;
        }
        archive.sql("OPTIMIZE TABLE usage_windows FINAL").await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(archive.sql(&old).await, "0");
    let (code, said) = archive.verify(&[]);
    assert!(code == Some(0) && said.contains("rows expired"), "{said}");
    // A row that is young enough and missing is drift all the same.
    archive.sql("ALTER TABLE usage_windows DELETE WHERE account = 'acc-1' SETTINGS mutations_sync = 2").await;
    let (code, said) = archive.verify(&[]);
    assert!(code == Some(5) && said.contains("acc-1") && said.contains("missing"), "{said}");
}

#[test]
fn only_a_store_in_clickhouse_forgets_and_archives() {
    let folder = tempfile::tempdir().unwrap();
    for (more, says) in [
        (&["--archive"][..], "archive: needs a --store in ClickHouse"),
        (&["--retention", "windows=90d"], "retention: needs a --store in ClickHouse"),
        (&["--retention", "window=90d", "--store", "clickhouse+http://127.0.0.1:1/x"], "expected windows"),
    ] {
        let (code, said) = refused_to_serve(folder.path(), more);
        assert!(code == Some(2) && said.contains(says), "{said}");
    }
    bootstrap_with(folder.path(), &[]);
    let output = highwater(&["verify", "--deep", "--data", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}
