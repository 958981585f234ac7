//! A load that knows what must have been counted, and checks that it was: acknowledged events exactly once, every
//! transition once, every notification at least once under one id.

use crate::process::{Receiver, call};
use futures::future::join_all;
use highwater::domain::time::Timestamp;
use highwater::runtime::clock;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const ACCOUNTS: u64 = 12;
const THRESHOLDS: [u64; 5] = [2, 5, 10, 20, 35];
/// A quota that little traffic reaches the thresholds of.
pub(crate) const QUOTA: i64 = 3_000;
const BATCH: u64 = 40;

/// A small generator of random numbers (SplitMix64), so that a failing run can be repeated by its seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

#[derive(Default)]
pub(crate) struct Ledger {
    /// What must be counted, by account: events that were acknowledged.
    pub(crate) counted: Mutex<BTreeMap<String, (u64, i64)>>,
    /// Batches whose answer never came; they are sent again, with the same ids.
    unanswered: Mutex<Vec<Value>>,
    batches: AtomicU64,
    pub(crate) retries: AtomicU64,
}

impl Ledger {
    fn acknowledge(&self, batch: &Value) {
        let mut counted = self.counted.lock().unwrap();
        for event in batch["events"].as_array().unwrap() {
            let account = counted.entry(event["account_id"].as_str().unwrap().to_owned()).or_default();
            account.0 += 1;
            account.1 += event["value"].as_i64().unwrap();
        }
    }
}

fn batch(number: u64, random: &mut Random) -> Value {
    let events: Vec<Value> = (0..BATCH)
        .map(|place| {
            json!({
                "account_id": format!("acc_{}", random.below(ACCOUNTS)),
                "metric": "api.requests",
                "value": 1 + random.below(3),
                "id": format!("e{number}-{place}"),
            })
        })
        .collect();
    json!({ "events": events })
}

/// Where a sender sends to, one node after another, until it is told to stop or has nobody left.
pub(crate) struct Aim {
    pub(crate) bases: Vec<String>,
    pub(crate) key: String,
    /// How long a sender pauses between two batches.
    pub(crate) pace: Duration,
    /// Whether a node that is gone ends the sender; otherwise it tries the next one.
    pub(crate) ends: bool,
    pub(crate) stop: Arc<AtomicBool>,
}

/// Sends batches. What is not answered is sent again, by whoever comes next.
pub(crate) async fn send(ledger: Arc<Ledger>, aim: Aim, mut random: Random) {
    let http = client();
    let mut turn = 0;
    while !aim.stop.load(Ordering::Relaxed) {
        let again = ledger.unanswered.lock().unwrap().pop();
        if again.is_some() {
            ledger.retries.fetch_add(1, Ordering::Relaxed);
        }
        let batch = again.unwrap_or_else(|| batch(ledger.batches.fetch_add(1, Ordering::Relaxed), &mut random));
        let base = &aim.bases[turn % aim.bases.len()];
        match call(&http, ("POST", &format!("{base}/v1/events/batch"), &aim.key), Some(&batch)).await {
            Ok((202, answer)) => {
                assert_eq!(answer["rejected"], 0, "{answer}");
                ledger.acknowledge(&batch);
                tokio::time::sleep(aim.pace).await;
                continue;
            }
            Ok((503, answer)) => assert_eq!(answer["retryable"], true, "{answer}"),
            Ok((status, answer)) => panic!("a batch was answered {status}: {answer}"),
            Err(_) if aim.ends => {
                ledger.unanswered.lock().unwrap().push(batch);
                return;
            }
            Err(_) => {}
        }
        ledger.unanswered.lock().unwrap().push(batch);
        turn += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn client() -> reqwest::Client {
    // Another test may have set it up already.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap()
}

/// What was set up: a quota for everybody, and an alert for each of some shares of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched {
    quota: i64,
    /// Alerts with their thresholds in percent.
    pub(crate) alerts: Vec<(u64, String)>,
}

/// Makes quotas, a channel and an alert for each threshold.
pub(crate) async fn set_up(base: &str, key: &str, receiver: &Receiver, quota: i64) -> Watched {
    let http = client();
    let post = async |method: &str, path: &str, body: Value| {
        let answer = call(&http, (method, &format!("{base}{path}"), key), Some(&body)).await.unwrap();
        assert!((200..300).contains(&answer.0), "{path}: {answer:?}");
        answer.1
    };
    post("PUT", "/v1/accounts/*/quotas/api.requests", json!({"limit": quota, "period": "month"})).await;
    let channel = json!({"type": "webhook", "name": "receiver", "url": receiver.url});
    let channel = post("POST", "/v1/channels", channel).await;
    *receiver.secret.lock().unwrap() = channel["secret"].as_str().unwrap().to_owned();
    let mut alerts = Vec::new();
    for threshold in THRESHOLDS {
        let rule = format!("quota_percent >= {threshold}");
        let alert = json!({"account_id": "*", "rule": rule, "channel": channel["id"]});
        let alert = post("POST", "/v1/alerts", alert).await;
        alerts.push((threshold, alert["id"].as_str().unwrap().to_owned()));
    }
    Watched { quota, alerts }
}

/// Sends again what was never answered, until everything is acknowledged.
pub(crate) async fn settle(ledger: &Ledger, base: &str, key: &str) {
    let http = client();
    let left = std::mem::take(&mut *ledger.unanswered.lock().unwrap());
    for batch in left {
        let (status, answer) =
            call(&http, ("POST", &format!("{base}/v1/events/batch"), key), Some(&batch)).await.unwrap();
        assert_eq!(status, 202, "{answer}");
        ledger.acknowledge(&batch);
    }
}

pub(crate) async fn check_usage(ledger: &Ledger, base: &str, key: &str) {
    let tally = tally(ledger, base, key).await;
    assert_eq!(tally.wrong, Vec::<String>::new(), "events and sum of each account");
}

/// What was counted of what had to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) counted: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// Accounts whose events or sum are not what was acknowledged.
    wrong: Vec<String>,
}

pub(crate) async fn tally(ledger: &Ledger, base: &str, key: &str) -> Tally {
    let http = client();
    // A last event's receipt: when it is counted, so is everything before it in its partition. One for each account.
    let acknowledged = ledger.counted.lock().unwrap().clone();
    let mut tally = Tally::default();
    for (account, (count, sum)) in acknowledged {
        let usage = usage_behind_a_marker(&http, (base, key), &account).await;
        let total = |name: &str| -> i64 {
            usage["items"].as_array().unwrap().iter().map(|item| item[name].as_i64().unwrap()).sum()
        };
        let counted = total("count").cast_unsigned();
        tally.counted += counted;
        tally.lost += count.saturating_sub(counted);
        tally.doubled += counted.saturating_sub(count);
        if (counted, total("value")) != (count, sum) {
            tally
                .wrong
                .push(format!("{account}: {counted} events, sum {}; acknowledged {count}, {sum}", total("value")));
        }
    }
    tally
}

/// Sends an event of another metric, and asks for an account's usage once that event is counted.
async fn usage_behind_a_marker(http: &reqwest::Client, node: (&str, &str), account: &str) -> Value {
    let receipt = mark(http, node, account).await;
    usage_after(http, node, account, &receipt).await
}

/// Sends an event of another metric; returns its receipt.
async fn mark(http: &reqwest::Client, (base, key): (&str, &str), account: &str) -> String {
    let event = json!({"account_id": account, "metric": "marker"});
    let sent = retried(http, ("POST", &format!("{base}/v1/events"), key), Some(&event), 202).await;
    sent["receipt"].as_str().unwrap().to_owned()
}

async fn usage_after(http: &reqwest::Client, (base, key): (&str, &str), account: &str, receipt: &str) -> Value {
    let path = format!("{base}/v1/accounts/{account}/usage?window=1h&metric=api.requests&after={receipt}");
    retried(http, ("GET", &path, key), None, 200).await
}

/// Calls until the answer has this status, for a while.
async fn retried(http: &reqwest::Client, what: (&str, &str, &str), body: Option<&Value>, wanted: u16) -> Value {
    let mut last = String::new();
    for _ in 0..600 {
        match call(http, what, body).await {
            Ok((status, answer)) if status == wanted => return answer,
            Ok((status, answer)) => last = format!("{status}: {answer}"),
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what:?}: {last}");
}

/// When everything worked again: an event of each account accepted, and counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovered {
    pub(crate) accepting: Timestamp,
    pub(crate) counting: Timestamp,
}

/// Waits until an event of each account that is sent from here on is counted.
pub(crate) async fn recover(ledger: &Ledger, base: &str, key: &str) -> Recovered {
    let (http, node) = (client(), (base, key));
    let accounts: Vec<String> = ledger.counted.lock().unwrap().keys().cloned().collect();
    let receipts = join_all(accounts.iter().map(|account| mark(&http, node, account))).await;
    let accepting = clock::now();
    join_all(accounts.iter().zip(&receipts).map(|(account, receipt)| usage_after(&http, node, account, receipt))).await;
    Recovered { accepting, counting: clock::now() }
}

pub(crate) async fn check_alerts(ledger: &Ledger, (base, key): (&str, &str), watched: &Watched, receiver: &Receiver) {
    let http = client();
    let counted = ledger.counted.lock().unwrap().clone();
    let mut expected_ids = BTreeSet::new();
    for (threshold, alert) in &watched.alerts {
        let reached = |sum: i64| sum * 100 >= watched.quota * (*threshold as i64);
        let wanted: BTreeSet<String> =
            counted.iter().filter(|(_, (_, sum))| reached(*sum)).map(|(account, _)| account.clone()).collect();
        let path = format!("{base}/v1/alerts/{alert}/history?page_size=100");
        let (_, history) = call(&http, ("GET", &path, key), None).await.unwrap();
        let fired: Vec<&Value> = history["items"].as_array().unwrap().iter().filter(|t| t["to"] == "firing").collect();
        let accounts: Vec<String> = fired.iter().map(|t| t["account_id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(accounts.iter().cloned().collect::<BTreeSet<_>>(), wanted, "who passed {threshold} %");
        assert_eq!(accounts.len(), wanted.len(), "every transition once: {accounts:?}");
        expected_ids.extend(fired.iter().map(|t| t["notification_id"].as_str().unwrap().to_owned()));
    }
    let delivered = || receiver.deliveries.lock().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    for _ in 0..400 {
        if delivered().is_superset(&expected_ids) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(delivered(), expected_ids, "every notification at least once, under one id");
    for (id, bodies) in receiver.deliveries.lock().unwrap().iter() {
        assert!(bodies.iter().all(|body| *body == bodies[0]), "{id}: the same bytes on every delivery");
    }
}
