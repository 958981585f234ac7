//! The sandbox: what it begins with, its outbox, its resets and its clock.

use crate::receiver::Receiver;
use crate::server::{Answer, Ask, Server, eventually};
use highwater::domain::id::Mode;
use highwater::runtime::clock::Stopwatch;
use reqwest::Method;
use serde_json::{Value, json};

/// A sandbox with its owner's key.
pub(crate) struct Sandbox {
    pub(crate) server: Server,
    pub(crate) key: String,
}

impl Sandbox {
    pub(crate) async fn start() -> Self {
        let server = Server::start().await;
        let key = server.owner_of(server.workspace, Mode::Sandbox).await;
        Self { server, key }
    }

    pub(crate) fn ask(&self, method: Method, path: &str) -> Ask {
        self.server.ask(method, path).key(&self.key)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path).send().await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path).json(&body).send().await
    }

    pub(crate) async fn reset(&self) -> Value {
        self.ask(Method::POST, "/v1/sandbox/reset").send().await.ok(202)
    }

    pub(crate) async fn advance(&self, by: &str) -> Value {
        self.post("/v1/sandbox/clock/advance", json!({"by": by})).await.ok(202)
    }

    /// Sends one event and waits until it is counted.
    pub(crate) async fn count(&self, account: &str, metric: &str, value: i64) {
        let event = json!({"account_id": account, "metric": metric, "value": value});
        let receipt = self.post("/v1/events", event).await.ok(202)["receipt"].as_str().unwrap().to_owned();
        self.get(&format!("/v1/accounts/{account}/usage?after={receipt}")).await.ok(200);
    }

    /// Waits until the outbox, as it is filtered, holds so many messages.
    pub(crate) async fn outbox(&self, filter: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{count} messages in the outbox"), || async {
            let page = self.get(&format!("/v1/sandbox/outbox?page_size=100{filter}")).await.ok(200);
            let items = page["items"].as_array().unwrap().clone();
            (items.len() == count).then_some(items)
        })
        .await
    }

    async fn names(&self, path: &str, member: &str) -> Vec<String> {
        let page = self.get(path).await.ok(200);
        page["items"].as_array().unwrap().iter().map(|item| item[member].as_str().unwrap().to_owned()).collect()
    }
}

pub(crate) const DEMO: [&str; 3] = ["acc_demo_burst", "acc_demo_growing", "acc_demo_steady"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_begins_with_what_is_always_the_same() {
    let sandbox = Sandbox::start().await;
    assert_eq!(sandbox.names("/v1/accounts", "id").await, DEMO);
    let seen = sandbox.get("/v1/sandbox").await.ok(200);
    assert_eq!(
        (&seen["object"], &seen["mode"], &seen["last_reset_at"]),
        (&json!("sandbox"), &json!("sandbox"), &Value::Null)
    );
    assert!(seen["next_reset_at"].as_str().unwrap().ends_with("T00:00:00.000Z"), "{seen}");
    assert_eq!((&seen["clock"]["advanced_by"], &seen["limits"]["delivery_attempts_max"]), (&json!("0s"), &json!(3)));
    let message = sandbox.outbox("", 1).await.remove(0);
    assert_eq!((&message["event_type"], &message["channel_type"]), (&json!("alert.firing"), &json!("slack")));
    assert_eq!((&message["account_id"], &message["object"]), (&json!("acc_demo_burst"), &json!("outbox_message")));
    assert!(message["body"]["blocks"].is_array(), "{message}");
    let alert = sandbox.get(&format!("/v1/alerts/{}", message["alert_id"].as_str().unwrap())).await.ok(200);
    assert_eq!((&alert["state"], &alert["channel"]), (&json!("firing"), &json!("slack")));
    let channel = format!("/v1/channels/{}", message["channel_id"].as_str().unwrap());
    assert_eq!(sandbox.get(&channel).await.ok(200)["type"], "slack");
    sandbox.server.settle().await;
    let total = async |sandbox: &Sandbox, account: &str| {
        let usage = sandbox.get(&format!("/v1/accounts/{account}/usage?window=1d")).await.ok(200);
        usage["items"].as_array().unwrap().iter().map(|item| item["value"].as_i64().unwrap()).sum::<i64>()
    };
    let sums = [total(&sandbox, DEMO[0]).await, total(&sandbox, DEMO[1]).await, total(&sandbox, DEMO[2]).await];
    assert_eq!(sums[0], 9_000);
    sandbox.reset().await;
    sandbox.server.settle().await;
    let again = [total(&sandbox, DEMO[0]).await, total(&sandbox, DEMO[1]).await, total(&sandbox, DEMO[2]).await];
    assert_eq!(again, sums, "the same seed each time");
    assert!(sums[1] > 1_000 && sums[2] > sums[1], "{sums:?}");
    // Nothing of it is in live data.
    assert_eq!(sandbox.server.get("/v1/accounts").await.ok(200)["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_key_finds_no_sandbox() {
    let sandbox = Sandbox::start().await;
    let server = &sandbox.server;
    for path in ["/v1/sandbox", "/v1/sandbox/outbox"] {
        server.get(path).await.problem(404, "resource_not_found");
    }
    server.ask(Method::POST, "/v1/sandbox/reset").send().await.problem(404, "resource_not_found");
    server.post("/v1/sandbox/clock/advance", json!({"by": "1h"})).await.problem(404, "resource_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_keeps_keys_and_channels_and_nothing_else() {
    let sandbox = Sandbox::start().await;
    let channel = json!({"type": "webhook", "name": "mine", "url": "https://hooks.example/x"});
    let channel = sandbox.post("/v1/channels", channel).await.ok(201)["id"].as_str().unwrap().to_owned();
    let alert = json!({"account_id": "acme", "rule": "used(\"calls\") > 1", "channel": [channel, "slack"]});
    let alert = sandbox.post("/v1/alerts", alert).await.ok(201)["id"].as_str().unwrap().to_owned();
    sandbox
        .ask(Method::PUT, "/v1/accounts/acme/quotas/calls")
        .json(&json!({"limit": 10, "period": "day"}))
        .send()
        .await
        .ok(201);
    sandbox.ask(Method::PUT, "/v1/metrics/calls").json(&json!({"unit": "calls"})).send().await.ok(201);
    sandbox.count("acme", "calls", 5).await;
    // The same id with another value is set aside.
    for value in [1, 2] {
        let event = json!({"account_id": "acme", "metric": "jobs", "value": value, "id": "one"});
        sandbox.post("/v1/events", event).await.ok(202);
    }
    let named = |id: &str| format!("&alert_id={id}");
    let falling = sandbox.outbox(&named(&alert), 2).await;
    let mut rising = sandbox.outbox(&format!("{}&sort=created_at", named(&alert)), 2).await;
    rising.reverse();
    assert_eq!(falling, rising);
    eventually("the quarantine", || async { (!sandbox.names("/v1/quarantine", "id").await.is_empty()).then_some(()) })
        .await;
    let create = || {
        let ask = sandbox.ask(Method::POST, "/v1/accounts").header("idempotency-key", "k");
        ask.json(&json!({"id": "once"})).send()
    };
    create().await.ok(201);
    sandbox.advance("1d").await;
    let reset = sandbox.reset().await;
    assert!(reset["last_reset_at"].is_string() && reset["clock"]["advanced_by"] == "0s", "{reset}");
    sandbox.server.settle().await;
    assert_eq!(sandbox.names("/v1/accounts", "id").await, DEMO);
    for path in
        ["/v1/accounts/acme", "/v1/accounts/acme/usage", &format!("/v1/alerts/{alert}"), "/v1/accounts/acme/quotas"]
    {
        sandbox.get(path).await.problem(404, "resource_not_found");
    }
    assert_eq!(sandbox.names("/v1/metrics", "metric").await, [""; 0]);
    assert_eq!(sandbox.names("/v1/quarantine", "id").await, [""; 0]);
    assert!(!sandbox.names("/v1/incidents", "account_id").await.contains(&"acme".to_owned()));
    assert!(sandbox.names("/v1/channels", "id").await.contains(&channel));
    sandbox.outbox("", 1).await;
    sandbox.outbox(&named(&alert), 0).await;
    let again = create().await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (201, ""), "the record went with the rest");
    // What comes behind it is counted from nothing, also under ids that were used before.
    let event = json!({"account_id": "acme", "metric": "jobs", "value": 7, "id": "one"});
    let receipt = sandbox.post("/v1/events", event).await.ok(202)["receipt"].as_str().unwrap().to_owned();
    let usage = sandbox.get(&format!("/v1/accounts/acme/usage?window=1h&after={receipt}")).await.ok(200);
    let counted: Vec<&Value> = usage["items"].as_array().unwrap().iter().filter(|item| item["count"] != 0).collect();
    assert_eq!((counted.len(), &counted[0]["metric"], &counted[0]["value"]), (1, &json!("jobs"), &json!(7)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_that_holds_for_an_hour_fires_when_the_clock_is_put_forward() {
    let sandbox = Sandbox::start().await;
    sandbox
        .ask(Method::PUT, "/v1/accounts/acme/quotas/calls")
        .json(&json!({"limit": 10, "period": "month"}))
        .send()
        .await
        .ok(201);
    let alert = json!({"account_id": "acme", "rule": "quota_percent > 85", "for": "1h", "channel": "webhook"});
    let alert = sandbox.post("/v1/alerts", alert).await.ok(201);
    let id = alert["id"].as_str().unwrap().to_owned();
    sandbox.count("acme", "calls", 9).await;
    let state = async |wanted: &str| {
        eventually(wanted, || async {
            (sandbox.get(&format!("/v1/alerts/{id}")).await.ok(200)["state"] == wanted).then_some(())
        })
        .await;
    };
    state("pending").await;
    sandbox.advance("59m").await;
    state("pending").await;
    assert_eq!(sandbox.advance("1m").await["clock"]["advanced_by"], "1h");
    state("firing").await;
    let message = sandbox.outbox(&format!("&alert_id={id}"), 1).await.remove(0);
    assert_eq!((&message["channel_type"], &message["body"]["type"]), (&json!("webhook"), &json!("alert.firing")));
    assert_eq!(message["body"]["mode"], "sandbox");
    // Default times and answers go by the sandbox's clock, and so does what is too old.
    sandbox.count("acme", "calls", 1).await;
    let usage = sandbox.get("/v1/accounts/acme/usage?metric=calls").await.ok(200);
    let last = usage["items"].as_array().unwrap().iter().rfind(|item| item["count"] != 0).unwrap().clone();
    let now = sandbox.get("/v1/sandbox").await.ok(200)["clock"]["now"].as_str().unwrap().to_owned();
    assert!(last["start"].as_str().unwrap() <= now.as_str() && last["value"] == 1, "{last} at {now}");
    assert!(usage["as_of"].as_str().unwrap() > last["start"].as_str().unwrap(), "{usage}");
    let repeatable = || {
        let ask = sandbox.ask(Method::POST, "/v1/sandbox/clock/advance").header("idempotency-key", "once");
        ask.json(&json!({"by": "3d"})).send()
    };
    let first = repeatable().await;
    assert_eq!(first.ok(202)["clock"]["advanced_by"], "73h");
    let second = repeatable().await;
    assert_eq!((second.header("idempotent-replayed"), &second.bytes), ("true", &first.bytes), "it is put forward once");
    let old = json!({"account_id": "acme", "metric": "calls", "timestamp": now});
    sandbox.post("/v1/events", old).await.problem(422, "batch_rejected");
    for by in ["0s", "-1h", "32d", "soon"] {
        sandbox.post("/v1/sandbox/clock/advance", json!({"by": by})).await.problem(422, "validation_failed");
    }
    sandbox.post("/v1/sandbox/clock/advance", json!({"by": "31d"})).await.problem(409, "limit_reached");
    // Live data keeps its own time.
    sandbox.server.count("acme", "calls", 1).await;
}

/// What is asked of the sandbox's time is answered by its own clock, wherever it is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_and_silences_go_by_the_sandboxes_clock() {
    let sandbox = Sandbox::start().await;
    let now = highwater::runtime::clock::now();
    let at = |minutes: i64| now.plus(highwater::domain::time::Millis::minutes(minutes)).to_string();
    let matchers = json!([{"name": "severity", "value": "info"}]);
    let silence = json!({"matchers": matchers, "starts_at": at(0), "ends_at": at(60)});
    let silence = sandbox.post("/v1/silences", silence).await.ok(201);
    let later =
        sandbox.post("/v1/silences", json!({"matchers": matchers, "starts_at": at(90), "ends_at": at(600)})).await;
    let later = format!("/v1/silences/{}", later.ok(201)["id"].as_str().unwrap());
    let silence = format!("/v1/silences/{}", silence["id"].as_str().unwrap());
    let status = async |path: &str| sandbox.get(path).await.ok(200)["status"].as_str().unwrap().to_owned();
    assert_eq!((status(&silence).await, status(&later).await), ("active".to_owned(), "pending".to_owned()));
    sandbox.advance("2h").await;
    assert_eq!((status(&silence).await, status(&later).await), ("expired".to_owned(), "active".to_owned()));
    sandbox
        .post("/v1/silences", json!({"matchers": matchers, "starts_at": at(0), "ends_at": at(90)}))
        .await
        .problem(422, "validation_failed");
    sandbox.count("acme", "calls", 7).await;
    let asked = json!({"metrics": ["calls"], "account_ids": ["acme"], "window": "1h"});
    let told = sandbox.post("/v1/usage/query", asked).await.ok(200);
    let total: i64 = told["items"].as_array().unwrap().iter().map(|item| item["value"].as_i64().unwrap()).sum();
    assert_eq!(total, 7, "{told}");
    assert!(told["as_of"].as_str() > Some(at(100).as_str()), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_operators_own_receivers_are_sent_to() {
    let sandbox = Sandbox::start().await;
    let mut receiver = Receiver::start().await;
    let own = json!({"type": "webhook", "name": "own", "url": format!("http://{}/own", receiver.address)});
    let own = sandbox.post("/v1/channels", own).await.ok(201)["id"].as_str().unwrap().to_owned();
    let public = json!({"type": "webhook", "name": "public", "url": "https://hooks.example/x"});
    let public = sandbox.post("/v1/channels", public).await.ok(201)["id"].as_str().unwrap().to_owned();
    let slack = json!({"type": "slack", "name": "slack", "url": format!("http://{}/services/T0/B0/x", receiver.address), "default": true});
    let slack = sandbox.post("/v1/channels", slack).await.ok(201)["id"].as_str().unwrap().to_owned();
    let alert = json!({"account_id": "acme", "rule": "sum(\"calls\") > 1", "channel": [own, public, "slack"]});
    let id = sandbox.post("/v1/alerts", alert).await.ok(201)["id"].as_str().unwrap().to_owned();
    sandbox.count("acme", "calls", 5).await;
    let came = receiver.next().await;
    assert_eq!((came.path.as_str(), &came.json()["mode"]), ("/own", &json!("sandbox")));
    let kept = sandbox.outbox(&format!("&alert_id={id}"), 2).await;
    let mut kept: Vec<&str> = kept.iter().map(|message| message["channel_id"].as_str().unwrap()).collect();
    kept.sort_unstable();
    let mut expected = [public.as_str(), &slack];
    expected.sort_unstable();
    assert_eq!(kept, expected);
    sandbox.outbox(&format!("&alert_id={id}&channel_type=slack"), 1).await;
    sandbox.outbox(&format!("&channel_id={public}"), 1).await;
    // A repetition means any of them.
    sandbox.outbox(&format!("&alert_id={id}&channel_type=slack&channel_type=webhook"), 2).await;
    sandbox.outbox(&format!("&alert_id={id}&channel_type=slack&channel_type=slack"), 1).await;
    let other = "chn_01J9Z0000000000000000000AA";
    sandbox.outbox(&format!("&channel_id={other}"), 0).await;
    sandbox.outbox(&format!("&channel_id={other}&channel_id={public}"), 1).await;
    sandbox.outbox(&format!("&alert_id=alr_01J9Z0000000000000000000AA&alert_id={id}"), 2).await;
    sandbox.outbox("&to=2020-01-01T00:00:00Z", 0).await;
    sandbox.get("/v1/sandbox/outbox?channel_type=fax").await.problem(400, "invalid_parameter");
    // In pages, by number and by cursor.
    let all = sandbox.outbox("", 3).await;
    let mut path = "/v1/sandbox/outbox?page_size=1".to_owned();
    let mut walked = Vec::new();
    loop {
        let page = sandbox.get(&path).await.ok(200);
        walked.extend(page["items"].as_array().unwrap().clone());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/sandbox/outbox?cursor={cursor}");
    }
    assert_eq!(walked, all);
    assert_eq!(sandbox.get("/v1/sandbox/outbox?page_size=1&page=2").await.ok(200)["items"], json!([all[1]]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_names_in_both_modes_never_mix() {
    let sandbox = Sandbox::start().await;
    let server = &sandbox.server;
    let send = async |key: &str, value: i64| {
        for round in 0..40 {
            let events: Vec<Value> = (0..25)
                .map(|n| json!({"account_id": format!("acc_{}", n % 5), "metric": "m", "value": value, "id": format!("{round}-{n}")}))
                .collect();
            let ask = server.ask(Method::POST, "/v1/events/batch").key(key);
            assert_eq!(ask.json(&json!({"events": events})).send().await.ok(202)["accepted"], 25);
        }
    };
    tokio::join!(send(&server.key, 1), send(&sandbox.key, 1_000), send(&server.key, 1), send(&sandbox.key, 1_000));
    server.settle().await;
    for n in 0..5 {
        let path = format!("/v1/accounts/acc_{n}/usage?window=1h&metric=m");
        let sum = |page: Value| {
            page["items"].as_array().unwrap().iter().map(|item| item["value"].as_i64().unwrap()).sum::<i64>()
        };
        assert_eq!(sum(server.get(&path).await.ok(200)), 200, "live {n}");
        assert_eq!(sum(sandbox.get(&path).await.ok(200)), 200_000, "sandbox {n}");
    }
    assert_eq!(server.get("/v1/quarantine").await.ok(200)["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_while_events_flow_loses_none_behind_it() {
    let sandbox = Sandbox::start().await;
    sandbox.advance("10d").await;
    let sent = std::sync::Mutex::new(Vec::new());
    let stop = std::sync::atomic::AtomicBool::new(false);
    let clock = Stopwatch::start();
    let flow = async |sender: usize| {
        let mut n = 0;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            let event = json!({"account_id": "acme", "metric": "m", "id": format!("{sender}-{n}")});
            let begun = clock.elapsed();
            sandbox.post("/v1/events", event).await.ok(202);
            sent.lock().unwrap().push((begun, clock.elapsed()));
            n += 1;
        }
    };
    let reset = async {
        eventually("a flow", || async { (sent.lock().unwrap().len() > 20).then_some(()) }).await;
        let begun = clock.elapsed();
        sandbox.reset().await;
        let done = clock.elapsed();
        let before = sent.lock().unwrap().len();
        eventually("a flow", || async { (sent.lock().unwrap().len() > before + 20).then_some(()) }).await;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        (begun, done)
    };
    let ((begun, done), (), ()) = tokio::join!(reset, flow(0), flow(1));
    sandbox.server.settle().await;
    let sent = sent.into_inner().unwrap();
    let behind = sent.iter().filter(|(first, _)| *first >= done).count();
    let possible = sent.iter().filter(|(_, last)| *last >= begun).count();
    let usage = sandbox.get("/v1/accounts/acme/usage?window=1h&metric=m").await.ok(200);
    let counted: u64 = usage["items"].as_array().unwrap().iter().map(|item| item["count"].as_u64().unwrap()).sum();
    assert!((behind as u64..=possible as u64).contains(&counted), "{behind} <= {counted} <= {possible}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_narrowed_key_sees_what_its_projects_would_have_sent_alone() {
    let sandbox = Sandbox::start().await;
    let made = async |path: &str, body: Value| {
        let made = sandbox.post(path, body).await.ok(201);
        made["id"].as_str().unwrap().to_owned()
    };
    let (mine, other) =
        (made("/v1/projects", json!({"name": "a"})).await, made("/v1/projects", json!({"name": "b"})).await);
    let hook =
        |label: &str| json!({"type": "webhook", "name": "c", "url": "https://hooks.example/x", "project_id": label});
    let channel = made("/v1/channels", hook(&mine)).await;
    made("/v1/channels", hook(&other)).await;
    let mut alerts = Vec::new();
    for label in [&mine, &other] {
        let alert =
            json!({"account_id": "acme", "rule": "sum(\"calls\") > 1", "channel": "webhook", "project_id": label});
        alerts.push(made("/v1/alerts", alert).await);
    }
    sandbox.count("acme", "calls", 5).await;
    sandbox.post(&format!("/v1/channels/{channel}/test"), json!({})).await.ok(202);
    for (alert, count) in alerts.iter().zip([1, 1]) {
        sandbox.outbox(&format!("&alert_id={alert}"), count).await;
    }
    sandbox.outbox(&format!("&channel_id={channel}"), 2).await;
    let narrow = json!({"name": "n", "scope": ["write:sandbox"], "project_ids": [mine]});
    let narrow = sandbox.post("/v1/api-keys", narrow).await.ok(201)["key"].as_str().unwrap().to_owned();
    let seen = async |filter: &str| {
        let path = format!("/v1/sandbox/outbox?page_size=100{filter}");
        let page = sandbox.server.ask(Method::GET, &path).key(&narrow).send().await.ok(200);
        page["items"].as_array().unwrap().iter().map(|item| item["channel_id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(seen("").await, [json!(channel), json!(channel)], "its alert's, and the test of its channel");
    assert_eq!(seen(&format!("&alert_id={}", alerts[1])).await, [json!(null); 0]);
}
