//! Clocks that were wrong: what a repair makes of the folds, and of a journal on disk.

use crate::kafka::brokers;
use crate::nodes::{Cluster, total, verify, wait_for};
use crate::process::{Server, bootstrap, bootstrap_with, call, highwater};
use crate::script::check;
use bytes::Bytes;
use highwater::domain::id::{Log, PartitionId};
use highwater::domain::partition::fact::{ENGINE_VERSION, Note};
use highwater::domain::time::{Millis, Timestamp};
use highwater::journal::{Journal, SqliteJournal};
use highwater::runtime::clock;
use serde_json::{Value, json};
use std::path::Path;

#[test]
fn windows_behind_the_new_time_are_evaluated_again() {
    // Three hours ahead: the windows of these hours are closed, and rules on them are deaf.
    check(
        "engine 3
         delivers
         alert spike  sum > 100
         at 00:10     usage acme calls 1
         at 03:00:10  tick
         at 03:00:11  usage acme calls 140 at 06:00  -> uncorrected",
    );
    check(
        "engine 3
         delivers
         alert spike  sum > 100
         at 00:10     usage acme calls 1
         at 03:00:10  tick
         at 06:00     clock
         at 06:10     usage acme calls 140  -> firing spike acme, notify 1 firing
         at 15:30     tick                  -> ok spike acme, notify 2 resolved after 1",
    );
}

#[test]
fn what_a_quota_had_used_is_known_again() {
    // The month of the wrong time is another one: what was used in the right one is gone from memory.
    check(
        "engine 3
         quota acme calls 100 month
         alert near   quota_percent > 85
         at 00:10     usage acme calls 60
         at 400d00:10 tick
         at 400d00:11 usage acme calls 5 at 02:00  -> quarantined timestamp_too_old
         at 05:00     clock
         at 05:10     usage acme calls 20
         at 05:20     usage acme calls 6    -> firing near acme, notify 1 firing",
    );
    // An account that was deleted in between begins with nothing.
    check(
        "engine 3
         quota acme calls 100 month
         at 00:10     usage acme calls 60
         at 400d00:10 tick
         at 400d00:11 forget acme
         at 05:00     clock
         at 05:01     quota acme calls 100 month
         at 05:02     alert near   quota_percent > 85
         at 05:10     usage acme calls 80 epoch 2
         at 05:20     usage acme calls 6 epoch 2  -> firing near acme, notify 1 firing",
    );
}

#[test]
fn what_the_wrong_clock_had_passed_leaves_memory_with_it() {
    // Groups and windows that were held, whether or not they had left a fold's memory, are the same behind a restart.
    check(
        "engine 3
         metric calls region
         at 00:10     usage acme calls 1 region=eu + acme calls 1 region=us
         at 06:00     usage acme calls 1 region=eu
         at 03:00:10  usage acme calls 1 region=ap at 06:00
         at 07:00     clock
         at 07:10     usage acme calls 1 region=eu + acme calls 1 region=sa
         at 20:00     usage acme calls 1 region=eu at 06:10
         at 02:30:00  usage acme calls 1 region=us",
    );
}

#[test]
fn nobody_is_paged_for_a_time_that_never_was() {
    // The hour ended, so the firing did; by the right time it lasts, and that is told once.
    let before = "engine 3
         delivers
         quota acme calls 100 hour
         alert near  quota_percent > 85
         at 01:00    usage acme calls 90  -> firing near acme, notify 1 firing
         at 1d10:00  tick                 -> ok near acme period_ended @01:00:30
           , ok near acme caught_up @1d00:00:30, notify 2 resolved after 1";
    let present = "at 05:00    clock                -> firing near acme, notify 3 firing
         at 05:10    usage acme calls 1
         at 05:20    usage acme calls -50 -> ok near acme, notify 4 resolved after 3";
    check(&format!("{before}\n{present}"));
    // Where the right time is long past when it is set, it is told once everything has caught up.
    let past = "at 05:00    clock set 40:00      -> firing near acme
         at 40:20    usage acme calls 1   -> firing near acme caught_up, notify 3 firing meanwhile 1
         at 40:30    usage acme calls -50 -> ok near acme, notify 4 resolved after 3";
    check(&format!("{before}\n{past}"));
}

#[test]
fn silences_and_pauses_that_ended_in_a_time_that_never_was_go_on() {
    check(
        "engine 3
         alert spike  sum > 100
         at 00:05     silence 1 account_id=acme until 30:00
         at 00:10     usage acme calls 1
         at 03:00:10  tick
         at 06:00     clock
         at 06:10     usage acme calls 140  -> firing spike acme
         at 10:40     usage acme calls 200",
    );
    check(
        "engine 3
         alert spike  sum > 100
         at 00:05     pause spike until 30:00
         at 00:10     usage acme calls 1
         at 03:00:10  tick
         at 06:00     clock
         at 06:10     usage acme calls 140",
    );
}

#[test]
fn ids_that_were_forgotten_stay_forgotten() {
    check(
        "engine 3
         at 00:10      usage acme calls 1 id a
         at 00:20      usage acme calls 1 id a  -> duplicate
         at 400d00:10  usage acme calls 1 id b
         at 06:00      clock
         at 06:10      usage acme calls 1 id a
         at 06:20      usage acme calls 1 id a  -> duplicate",
    );
}

/// Records that time passed in every partition, by a clock that is 400 days ahead.
async fn record_wrong_time(data: &Path) {
    fn wrong_clock() -> Timestamp {
        clock::now().plus(Millis::days(400))
    }
    let journal = Journal::Sqlite(SqliteJournal::open(&data.join("journal.db"), 4, wrong_clock).unwrap());
    let tick = Bytes::from(Note::Ticked { intake_through: None }.encode());
    let facts = (0..4).map(|partition| (Log::Partition(PartitionId(partition)), tick.clone())).collect();
    journal.append(facts).await.unwrap();
}

/// Waits until every log is folded as this release does: the clock of an older one cannot be set.
async fn wait_until_raised(server: &Server, key: &str) {
    let all = |ready: &Value| {
        let folds = ready["checks"]["folds"].as_object().unwrap();
        folds.len() == 4 && folds.values().all(|fold| fold["engine_version"] == ENGINE_VERSION)
    };
    wait_for(server, key, "/readyz", all).await;
}

async fn send(server: &Server, key: &str, id: &str) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let event = json!({"account_id": "acme", "metric": "m", "id": id});
    let (status, answer) =
        call(&http, ("POST", &format!("{}/v1/events", server.base), key), Some(&event)).await.unwrap();
    assert_eq!(status, 202, "{answer}");
}

async fn get(server: &Server, key: &str, path: &str) -> Value {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    call(&http, ("GET", &format!("{}{path}", server.base), key), None).await.unwrap().1
}

fn repair(data: &Path, more: &[&str]) -> (Option<i32>, String) {
    let output = highwater(&[&["repair", "--data", data.to_str().unwrap(), "--clock-to"], more].concat());
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_of_a_wrong_time_is_told_and_can_be_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let key = bootstrap(&data);
    let server = Server::start(&data);
    send(&server, &key, "before").await;
    let ready = get(&server, &key, "/readyz").await;
    assert_eq!(ready["checks"]["clock"]["status"], "ok", "{ready}");
    wait_until_raised(&server, &key).await;
    server.stop();
    record_wrong_time(&data).await;
    // Every event is taken, and set aside as too old: that is said.
    let server = Server::start(&data);
    assert!(server.opening.contains("ahead of the clock"), "{}", server.opening);
    send(&server, &key, "meanwhile").await;
    crate::server::eventually("the event is set aside", async || {
        let quarantine = get(&server, &key, "/v1/quarantine").await;
        (quarantine["items"].as_array()?.len() == 1).then_some(())
    })
    .await;
    let ready = get(&server, &key, "/readyz").await;
    assert_eq!(ready["checks"]["clock"]["status"], "fold_ahead", "{ready}");
    let ahead = server.metrics().await["highwater_fold_clock_ahead_seconds{partition=\"0\"}"];
    assert!(ahead > 399.0 * 86_400.0, "{ahead}");
    let (code, said) = repair(&data, &["now"]);
    assert_eq!(code, Some(3), "a server has the data: {said}");
    server.stop();
    for (to, wrong) in [("yesterday", "is not an instant"), ("2099-01-01T00:00:00Z", "is ahead of the present")] {
        let (code, said) = repair(&data, &[to]);
        assert_eq!((code, said.contains(wrong)), (Some(2), true), "{said}");
    }
    let (code, said) = repair(&data, &["now", "--dry-run"]);
    assert_eq!((code, said.contains("nothing was appended")), (Some(0), true), "{said}");
    let (code, said) = repair(&data, &["now"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("stay forgotten") && said.contains("1 events were set aside as too old"), "{said}");
    let (code, said) = repair(&data, &["now"]);
    assert_eq!((code, said.contains("nothing to set")), (Some(0), true), "{said}");
    let server = Server::start(&data);
    send(&server, &key, "after").await;
    let quarantine = get(&server, &key, "/v1/quarantine").await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/v1/quarantine/{}/replay", server.base, quarantine["items"][0]["id"].as_str().unwrap());
    let (status, replayed) = call(&http, ("POST", &url, &key), Some(&json!({}))).await.unwrap();
    assert_eq!(status / 100, 2, "{replayed}");
    crate::server::eventually("all three count", async || {
        let usage = get(&server, &key, "/v1/accounts/acme/usage?agg=count").await;
        let counts = usage["items"].as_array()?.iter().filter_map(|item| item["count"].as_u64());
        (counts.sum::<u64>() == 3).then_some(())
    })
    .await;
    let ready = get(&server, &key, "/readyz").await;
    assert_eq!(ready["checks"]["clock"]["status"], "ok", "{ready}");
    server.stop();
    for command in ["verify", "replay", "verify"] {
        let output = highwater(&[command, "--data", data.to_str().unwrap()]);
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Brokers stamp by their own clock, so a step is nothing that the journal prevents; setting the clock back is the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_of_a_cluster_can_be_set_back() {
    let Some(brokers) = brokers() else { return };
    let cluster = Cluster::new(&brokers);
    let key = bootstrap_with(&cluster.data(), &cluster.arguments());
    let usage = "/v1/accounts/acme/usage?agg=count";
    let server = cluster.start();
    send(&server, &key, "before").await;
    wait_for(&server, &key, usage, |answer| total(answer, "count") == 1.0).await;
    wait_until_raised(&server, &key).await;
    server.stop();
    let to = clock::now().minus(Millis::hours(1)).to_string();
    let (code, said) = repair(&cluster.data(), &[&[to.as_str()], &cluster.arguments()[..]].concat());
    assert_eq!((code, said.contains("from here on")), (Some(0), true), "{said}");
    let server = cluster.start();
    send(&server, &key, "after").await;
    wait_for(&server, &key, usage, |answer| total(answer, "count") == 2.0).await;
    server.stop();
    verify(&cluster, &cluster.data());
}
