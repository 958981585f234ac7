//! What the demo shows, step by step.

use super::client::Client;
use super::receiver::{Received, Receiver};
use crate::cli::terminal::say;
use anyhow::{Context, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

const METRIC: &str = "api.requests";
const LIMIT: i64 = 5_000;
const RAISED: i64 = 20_000;
const ACCOUNTS: [(&str, i64); 3] = [("acme", 9), ("globex", 3), ("initech", 1)];
/// How much acme uses in a batch.
const STEP: i64 = ACCOUNTS[0].1 * 25;
pub(super) const BATCH_EVENTS: u64 = 100;
/// Above how many percent the alert fires.
pub(super) const THRESHOLD: i64 = 85;
/// How often the history is asked for, until it has the firing and the resolve.
const HISTORY_TRIES: usize = 100;
const PACE: Duration = Duration::from_millis(60);

pub(super) struct Story<'a> {
    pub(super) client: &'a Client,
    pub(super) receiver: Receiver,
}

impl Story<'_> {
    pub(super) async fn tell(mut self) -> anyhow::Result<()> {
        let alert = self.set_up().await?;
        let climbed = climb(&[self.client], 0, THRESHOLD).await?;
        let fired = self.fires().await?;
        self.resolves(&fired).await?;
        self.windows(&climbed.receipt).await?;
        self.history(&alert).await.map(drop)
    }

    /// Waits for the firing, and shows it.
    pub(super) async fn fires(&mut self) -> anyhow::Result<Received> {
        let fired = self.receiver.next().await?;
        ensure!(fired.body["type"] == "alert.firing", "expected a firing, got {}", fired.body["type"]);
        show(&fired);
        Ok(fired)
    }

    /// Raises the quota, and shows the resolve.
    pub(super) async fn resolves(&mut self, fired: &Received) -> anyhow::Result<()> {
        say(&format!("\nacme is in time: its quota is raised to {RAISED}. The alert is judged again at once:"));
        self.quota("acme", RAISED).await?;
        let resolved = self.receiver.next().await?;
        ensure!(resolved.body["type"] == "alert.resolved", "expected a resolve, got {}", resolved.body["type"]);
        ensure!(resolved.body["data"]["follows"] == fired.id.as_str(), "the resolve names another firing");
        show(&resolved);
        Ok(())
    }

    pub(super) async fn set_up(&self) -> anyhow::Result<String> {
        say(&format!("\nThree accounts get a quota of {LIMIT} {METRIC} a month, and one alert watches all of them:"));
        for (account, _) in ACCOUNTS {
            self.quota(account, LIMIT).await?;
        }
        let url = format!("http://{}/hook", self.receiver.address);
        let channel = json!({"type": "webhook", "name": "demo receiver", "url": url});
        let channel = self.client.call(Method::POST, "/v1/channels", Some(channel)).await?;
        self.receiver.trust(channel["secret"].as_str().context("the channel has no secret")?);
        let rule = "quota_percent > 85";
        let alert = json!({"account_id": "*", "rule": rule, "channel": channel["id"], "name": "Near the limit"});
        let alert = self.client.call(Method::POST, "/v1/alerts", Some(alert)).await?;
        let id = alert["id"].as_str().context("the alert has no id")?.to_owned();
        say(&format!("  {rule}  →  {url}   ({id})\n\nEvents arrive over HTTP, 100 a request:"));
        Ok(id)
    }

    async fn quota(&self, account: &str, limit: i64) -> anyhow::Result<()> {
        let path = format!("/v1/accounts/{account}/quotas/{METRIC}");
        let body = json!({"limit": limit, "period": "month"});
        self.client.call(Method::PUT, &path, Some(body)).await.map(drop)
    }

    pub(super) async fn windows(&self, receipt: &str) -> anyhow::Result<()> {
        let path = format!("/v1/accounts/acme/usage?window=5m&after={receipt}");
        let usage = self.client.call(Method::GET, &path, None).await?;
        say("\nThe events are windows by now, and the answer says how final they are:");
        let items = usage["items"].as_array().cloned().unwrap_or_default();
        let told = |name: &str| usage[name].to_string();
        for item in items.iter().filter(|item| item["count"] != 0) {
            say(&format!(
                "  acme {:<16}  {} … {}  sum {}  count {}  complete {}",
                text(&item["metric"]),
                text(&item["start"]),
                text(&item["end"]),
                item["value"],
                item["count"],
                item["complete"]
            ));
        }
        say(&format!("  as of {}, complete {}", told("as_of").trim_matches('"'), told("complete")));
        Ok(())
    }

    /// Shows what happened; returns it.
    pub(super) async fn history(&self, alert: &str) -> anyhow::Result<Vec<Value>> {
        let mut items = Vec::new();
        // The messages may be faster than the store.
        for _ in 0..HISTORY_TRIES {
            let history = self.client.call(Method::GET, &format!("/v1/alerts/{alert}/history"), None).await?;
            items = history["items"].as_array().cloned().unwrap_or_default();
            if items.len() >= 2 {
                break;
            }
            tokio::time::sleep(PACE).await;
        }
        say("\nWhat happened, and what decided it (newest first):");
        for item in &items {
            say(&format!(
                "  {}  {:<7}  {} → {}  ({})  {} = {}",
                text(&item["at"]),
                text(&item["account_id"]),
                text(&item["from"]),
                text(&item["to"]),
                text(&item["reason"]),
                text(&item["value_name"]),
                item["value"]
            ));
        }
        Ok(items)
    }
}

/// How far acme has come.
pub(super) struct Climbed {
    /// What it has used.
    pub(super) used: i64,
    /// How many batches that took.
    pub(super) batches: u64,
    /// The last one's.
    pub(super) receipt: String,
}

/// Sends events, through one client after the other, until acme has used more than so many percent.
pub(super) async fn climb(clients: &[&Client], mut used: i64, percent_beyond: i64) -> anyhow::Result<Climbed> {
    for (batches, client) in (1..).zip(clients.iter().cycle()) {
        let receipt = send(client).await?;
        used += STEP;
        let percent = used * 100 / LIMIT;
        let filled = usize::try_from(percent * 30 / 100).unwrap_or(0).min(30);
        say(&format!("  acme  [{}{}] {percent:>3} %", "█".repeat(filled), "·".repeat(30 - filled)));
        if percent > percent_beyond {
            return Ok(Climbed { used, batches, receipt });
        }
        tokio::time::sleep(PACE).await;
    }
    bail!("there is nobody to send to")
}

/// How many events of all accounts and metrics a node has counted.
pub(super) async fn counted(client: &Client) -> anyhow::Result<u64> {
    let mut counted = 0;
    for (account, _) in ACCOUNTS {
        let usage = client.call(Method::GET, &format!("/v1/accounts/{account}/usage?window=1h"), None).await?;
        let items = usage["items"].as_array().cloned().unwrap_or_default();
        counted += items.iter().filter_map(|item| item["count"].as_u64()).sum::<u64>();
    }
    Ok(counted)
}

fn show(received: &Received) {
    let data = &received.body["data"];
    let latency = received.latency_ms.map(|ms| format!(", {ms} ms after the event was accepted")).unwrap_or_default();
    say(&format!(
        "\n  webhook {}  {}  {} of {}: {} = {} ({} of {})\n          signature verified{latency}",
        received.id,
        text(&received.body["type"]),
        text(&data["account_id"]),
        text(&data["metric"]),
        text(&data["value_name"]),
        data["value"],
        data["quota"]["used"],
        data["quota"]["limit"],
    ));
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

/// Sends one batch: 25 events of each account, and 25 of another metric.
async fn send(client: &Client) -> anyhow::Result<String> {
    let mut events = Vec::new();
    for (account, value) in ACCOUNTS {
        events.extend((0..25).map(|_| json!({"account_id": account, "metric": METRIC, "value": value})));
    }
    events.extend((0..25).map(|_| json!({"account_id": "acme", "metric": "storage.gb_hours", "value": "0.25"})));
    let answer = client.call(Method::POST, "/v1/events/batch", Some(json!({"events": events}))).await?;
    Ok(answer["receipt"].as_str().context("the answer has no receipt")?.to_owned())
}

/// Sends one batch a second, until Ctrl-C.
pub(super) async fn emit(client: &Client) -> anyhow::Result<()> {
    let emitting = async {
        loop {
            send(client).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        emitted = emitting => emitted,
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}

/// Prints what to try by hand.
pub(super) fn by_hand(client: &Client, more: &str) {
    let base = &client.base;
    say(&format!(
        "\nIt goes on until Ctrl-C, with one batch a second. Try it by hand:\n\n\
         export CLOUD_API_KEY={key}\n\
         curl -s {base}/v1/events -H \"Authorization: Bearer $CLOUD_API_KEY\" -H 'Content-Type: application/json' \\\n  \
         -d '{{\"account_id\":\"acme\",\"metric\":\"{METRIC}\",\"value\":1200}}'\n\
         curl -s \"{base}/v1/accounts/acme/usage?window=5m\" -H \"Authorization: Bearer $CLOUD_API_KEY\"\n\
         curl -s {base}/v1/alerts -H \"Authorization: Bearer $CLOUD_API_KEY\"\n\n\
         Docs: {base}/docs · readiness: {base}/readyz · {more}",
        key = client.key,
    ));
}
