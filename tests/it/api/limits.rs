//! How often one may ask: the budgets of keys, the throttle of addresses that guess, and the count of what was asked.

use crate::server::{Answer, Options, Server, eventually, unhurried};
use highwater::api::{Front, Rates};
use highwater::domain::control::command::Command;
use highwater::domain::control::resource::{ApiKey, Role, Scope};
use highwater::domain::id::{KeyId, Mode, ProjectId, Tenant};
use highwater::domain::quantity::Quantity;
use highwater::domain::time::Millis;
use highwater::runtime::{clock, requests};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A key that nobody has.
const GOLDEN: &str = "pk_live_7Hq2mZxR4tKc_0123456789abcdefghijABCDEFGHIJ013P8xiM";

async fn limited(rates: Rates) -> Server {
    Server::start_with(Options { front: Front { rates, ..Front::default() }, ..Options::default() }).await
}

/// A key with parts of its own.
async fn key(server: &Server, change: impl FnOnce(&mut ApiKey)) -> String {
    let secret = highwater::credential::generate(Mode::Live, clock::random());
    let text = secret.expose_secret().to_owned();
    let id = KeyId(clock::ulid());
    let mut key = ApiKey {
        id,
        lookup: highwater::credential::parse(&text).unwrap().lookup,
        hash: highwater::credential::hash(&text),
        workspace: server.workspace,
        mode: Mode::Live,
        lineage: id,
        name: "test".to_owned(),
        scopes: Role::Owner.scopes(),
        projects: Vec::new(),
        hint: highwater::credential::hint(&text),
        expires_at: None,
        rate_limit: None,
        role: Some(Role::Owner),
        allowed_ips: Vec::new(),
        metadata: std::collections::BTreeMap::new(),
    };
    change(&mut key);
    server.submit(Tenant { workspace: server.workspace, mode: Mode::Live }, Command::CreateKey { key }).await;
    text
}

/// Checks the headers of an answer, and returns what remains.
#[track_caller]
fn remaining(answer: &Answer, name: &str, limit: u32) -> u32 {
    assert_eq!(answer.header("ratelimit-policy"), format!("\"{name}\";q={limit};w=60"), "{answer:?}");
    let left: u32 = answer.header("x-ratelimit-remaining").parse().unwrap();
    let rest = answer.header("ratelimit").strip_prefix(&format!("\"{name}\";r={left};t=")).unwrap().to_owned();
    let seconds: u32 = rest.parse().unwrap();
    assert!((1..=60).contains(&seconds), "{rest}");
    assert_eq!(answer.header("x-ratelimit-limit"), limit.to_string());
    let resets: i64 = answer.header("x-ratelimit-reset").parse().unwrap();
    let from_now = resets - clock::now().0 / 1_000;
    assert!((0..=61).contains(&from_now) && (from_now - i64::from(seconds)).abs() <= 2, "{from_now} {seconds}");
    left
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_authenticated_request_draws_and_what_is_refused_does_not() {
    let server = limited(Rates::default()).await;
    let create = || server.ask(Method::POST, "/v1/accounts").header("idempotency-key", "k").json(&json!({"id": "a"}));
    assert_eq!(remaining(&create().send().await, "default", 120), 119);
    let replayed = create().send().await;
    assert_eq!((replayed.header("idempotent-replayed"), remaining(&replayed, "default", 120)), ("true", 118));
    let failures = [
        ("/v1/nothing", 404, "route_not_found", 117),
        ("/v1/alerts/alr_01J9Z0000000000000000000AA", 404, "resource_not_found", 116),
        ("/v1/accounts?page=0", 400, "invalid_parameter", 115),
        ("/v1/events", 405, "method_not_allowed", 5_999),
    ];
    for (path, status, code, left) in failures {
        let answer = server.get(path).await;
        answer.problem(status, code);
        let (name, limit) = if left > 120 { ("ingest", 6_000) } else { ("default", 120) };
        assert_eq!(remaining(&answer, name, limit), left, "{path}");
    }
    let lacking = server.key_with(&[Scope::ReadUsage]).await;
    let answer = server.ask(Method::GET, "/v1/alerts").key(&lacking).send().await;
    answer.problem(403, "insufficient_scope");
    assert_eq!(remaining(&answer, "default", 120), 119, "each key for itself, and before the scope is looked at");
    for left in (0..115).rev() {
        assert_eq!(remaining(&server.get("/v1/metrics").await, "default", 120), left);
    }
    for _ in 0..5 {
        let refused = server.get("/v1/metrics").await;
        let body = refused.problem(429, "rate_limited");
        assert_eq!(remaining(&refused, "default", 120), 0);
        let seconds: u64 = refused.header("retry-after").parse().unwrap();
        assert_eq!((&body["retry_after"], &body["violated-policies"]), (&json!(seconds), &json!(["default"])));
        assert!(refused.header("ratelimit").ends_with(&format!(";t={seconds}")) && (1..=60).contains(&seconds));
        assert_eq!(refused.header("x-mode"), "live");
    }
    // The limit stands before the body is looked at, and before the record of the first answer.
    create().send().await.problem(429, "rate_limited");
    server.ask(Method::POST, "/v1/accounts").json(&json!({"no": 1})).send().await.problem(429, "rate_limited");
    // Events have a budget of their own, and what needs no key needs none.
    let sent = server.post("/v1/events", json!({"account_id": "a", "metric": "m"})).await;
    sent.ok(202);
    assert_eq!(remaining(&sent, "ingest", 6_000), 5_998);
    for path in ["/healthz", "/readyz", "/docs/", "/v1/openapi.json"] {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.header("ratelimit-policy")), (200, ""), "{path}");
    }
    server.get("/v1/metrics").await.problem(429, "rate_limited");
    server.ask(Method::GET, "/v1/metrics").key(&lacking).send().await.problem(403, "insufficient_scope");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn budgets_are_by_lineage_and_mode_and_operators_change_them() {
    let server = limited(Rates { ingest: 3, sandbox_ingest: 0, ..Rates::default() }).await;
    let first = KeyId(clock::ulid());
    let old = key(&server, |key| key.lineage = first).await;
    let rotated = key(&server, |key| key.lineage = first).await;
    let get = |key: &str| server.ask(Method::GET, "/v1/metrics").key(key).send();
    assert_eq!(remaining(&get(&old).await, "default", 120), 119);
    assert_eq!(remaining(&get(&rotated).await, "default", 120), 118, "a rotated key has no second budget");
    let sandbox = server.owner_of(server.workspace, Mode::Sandbox).await;
    for left in (0..30).rev() {
        assert_eq!(remaining(&get(&sandbox).await, "sandbox", 30), left);
    }
    get(&sandbox).await.problem(429, "rate_limited");
    let event = json!({"account_id": "a", "metric": "m"});
    let send = |key: &str| server.ask(Method::POST, "/v1/events").key(key).json(&event).send();
    let answer = send(&sandbox).await;
    assert_eq!((answer.status, answer.header("ratelimit-policy")), (202, ""), "no limit, nothing to say of it");
    for _ in 0..3 {
        send(&old).await.ok(202);
    }
    let refused =
        server.ask(Method::POST, "/v1/events/batch").key(&rotated).json(&json!({"events": [event]})).send().await;
    assert_eq!(refused.problem(429, "rate_limited")["violated-policies"], json!(["ingest"]));
    let wide = key(&server, |key| key.rate_limit = Some(500)).await;
    assert_eq!(remaining(&get(&wide).await, "default", 500), 499);
    let free = key(&server, |key| key.rate_limit = Some(0)).await;
    for _ in 0..150 {
        get(&free).await.ok(200);
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a test takes is no configuration")]
fn window_seconds() -> u64 {
    std::env::var("HIGHWATER_TEST_LIMIT_WINDOW").map_or(10, |seconds| seconds.parse().unwrap())
}

/// Many callers on many connections: no window of the whole run holds more than the limit, and nobody is refused who
/// was within it. The limit is the usual 120 a minute, in a window of 10 s, or of as many seconds as
/// `HIGHWATER_TEST_LIMIT_WINDOW` says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_window_holds_exactly_the_limit() {
    let seconds = window_seconds();
    let window = Duration::from_secs(seconds);
    let limit = usize::try_from(seconds).unwrap() * 2;
    let server = Arc::new(
        limited(Rates { window: Millis::seconds(seconds as i64), live: limit as u32, ..Rates::default() }).await,
    );
    let started = clock::Stopwatch::start();
    let answers = Arc::new(Mutex::new(Vec::new()));
    let callers: Vec<_> = (0..6_u64)
        .map(|caller| {
            let (server, answers) = (Arc::clone(&server), Arc::clone(&answers));
            tokio::spawn(async move {
                let mut pause = caller + 1;
                while started.elapsed() < window * 3 {
                    let sent = started.elapsed();
                    let answer = server.get("/v1/metrics").await;
                    answers.lock().unwrap().push((sent, started.elapsed(), answer.status));
                    pause = pause.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    // Bursts and lulls: well beyond what is allowed, also on a slow machine.
                    tokio::time::sleep(window.mul_f64((pause >> 40) as f64 / f64::from(1 << 24) / 25.0)).await;
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let mut answers = answers.lock().unwrap().clone();
    answers.sort();
    let taken: Vec<_> = answers.iter().filter(|(_, _, status)| *status == 200).collect();
    let refused: Vec<_> = answers.iter().filter(|(_, _, status)| *status == 429).collect();
    assert_eq!(taken.len() + refused.len(), answers.len());
    assert!(refused.len() > limit && taken.len() > 2 * limit, "{} taken, {} refused", taken.len(), refused.len());
    // The server decided between what was sent and what came back, so this is the least it can be wrong by.
    for run in taken.windows(limit + 1) {
        let (first, last) = (run[0], run.iter().map(|(_, received, _)| *received).max().unwrap());
        assert!(last - first.0 >= window, "{} within {:?}", limit + 1, last - first.0);
    }
    for (sent, received, _) in refused {
        let may_count = |(s, r, _): &&&(Duration, Duration, u16)| *s <= *received && *r + window > *sent;
        let inside = taken.iter().filter(may_count).count();
        assert!(inside >= limit, "refused at {sent:?} with {inside} in the window");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_guesses_is_throttled_and_nobody_else() {
    let server = limited(Rates::default()).await;
    let guess = || server.ask(Method::GET, "/v1/metrics").key(GOLDEN);
    for spoofed in 0..60 {
        guess().header("x-forwarded-for", &format!("203.0.113.{spoofed}")).send().await.problem(401, "invalid_api_key");
    }
    for _ in 0..3 {
        let refused = guess().header("x-forwarded-for", "198.51.100.1").send().await;
        let body = refused.problem(429, "too_many_auth_failures");
        let seconds: u64 = refused.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&seconds));
        assert_eq!((&body["retry_after"], &body["violated-policies"]), (&json!(seconds), &json!(["auth-failures"])));
        assert_eq!(refused.header("ratelimit-policy"), "");
    }
    let malformed =
        server.ask(Method::GET, "/v1/metrics").anonymous().header("authorization", "Basic eDp5").send().await;
    malformed.problem(429, "too_many_auth_failures");
    // Who presents nothing guesses nothing; who has a key is not held up by neighbours who have none.
    server.ask(Method::GET, "/v1/metrics").anonymous().send().await.problem(401, "authentication_required");
    server.get("/v1/metrics").await.ok(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_trusted_proxy_each_client_is_throttled_for_itself() {
    let front = Front {
        rates: Rates { auth_failures: 3, ..unhurried() },
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        ..Front::default()
    };
    let server = Server::start_with(Options { front, ..Options::default() }).await;
    let guess = async |from: &str| {
        server.ask(Method::GET, "/v1/metrics").key(GOLDEN).header("x-forwarded-for", from).send().await.status
    };
    for client in ["198.51.100.1", "198.51.100.2", "2001:db8:0:1::1"] {
        // What the client itself wrote stands further left, and is not believed.
        let lines = [client.to_owned(), format!("192.0.2.9, {client}"), format!("192.0.2.8,{client}, 127.0.0.1")];
        for line in &lines {
            assert_eq!(guess(line).await, 401, "{line}");
        }
        for line in &lines {
            assert_eq!(guess(line).await, 429, "{line}");
        }
    }
    assert_eq!(guess("2001:db8:0:1:ffff::2").await, 429, "the same /64");
    assert_eq!(guess("2001:db8:0:2::1").await, 401, "another /64");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_counted_for_their_project_and_survive_a_restart() {
    let mut server = limited(Rates { live: 25, ..unhurried() }).await;
    let project = ProjectId(clock::ulid());
    let bound = key(&server, |key| key.projects = vec![project, ProjectId(1)]).await;
    let ask = |path| server.ask(Method::GET, path).key(&bound).send();
    for _ in 0..10 {
        ask("/v1/metrics").await.ok(200);
        ask("/v1/nothing").await.problem(404, "route_not_found");
    }
    // A key without a project counts for none, and naming one that is not there makes none.
    let made_up = ProjectId(clock::ulid());
    server.get(&format!("/v1/projects/{made_up}")).await.problem(404, "resource_not_found");
    let counted = async |server: &Server, project| {
        let store = &server.node().data.store;
        requests::requests_24h(store, Mode::Live, project, clock::now()).await.unwrap()
    };
    eventually("the count", async || (counted(&server, project).await == Quantity::whole(20)).then_some(())).await;
    for expected in [200, 200, 200, 200, 200, 429, 429] {
        let answer = server.ask(Method::GET, "/v1/metrics").key(&bound).send().await;
        assert_eq!(answer.status, expected);
    }
    server.restart().await;
    eventually("the rest", async || (counted(&server, project).await == Quantity::whole(25)).then_some(())).await;
    for other in [ProjectId(1), made_up] {
        assert_eq!(counted(&server, other).await, Quantity::ZERO);
    }
    let listed = server.get("/v1/accounts").await.ok(200);
    assert_eq!(listed["items"], json!([]), "the system's own accounts are nobody's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_system_s_own_metrics_are_nobody_else_s() {
    let server = Server::start().await;
    let body = json!({"account_id": "prj_01J9Z0000000000000000000AA", "metric": "highwater.api_requests", "value": 9});
    let refused = server.post("/v1/events", body.clone()).await.ok(422);
    assert_eq!((&refused["code"], &refused["results"][0]["code"]), (&json!("batch_rejected"), &json!("invalid_event")));
    let lines = format!("{body}\n{}\n", json!({"account_id": "a", "metric": "highwaters"}));
    let sent = server.ask(Method::POST, "/v1/events").kind("application/x-ndjson").body(lines).send().await.ok(202);
    assert_eq!((&sent["accepted"], &sent["results"][0]["pointer"]), (&json!(1), &json!("/metric")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_callers_make_up_names_no_metric() {
    let server = Server::start().await;
    for number in 0..20 {
        let head = format!("BREW{number} /v1/made-up/{number} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = server.raw(head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let metrics = http.get(format!("http://{}/metrics", server.admin())).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("http_request_method=\"_OTHER\""), "{metrics}");
    assert!(!metrics.contains("BREW") && !metrics.contains("made-up"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_guesses_secrets_of_clients_is_throttled_as_with_keys() {
    let server = limited(Rates { auth_failures: 3, ..unhurried() }).await;
    let guess = || {
        let ask = server.ask(Method::POST, "/v1/oauth/token").anonymous();
        let form = "grant_type=client_credentials&client_id=cli_01J9Z0000000000000000000AA&client_secret=wrong";
        ask.kind("application/x-www-form-urlencoded").body(form).send()
    };
    for _ in 0..3 {
        let refused = guess().await;
        assert_eq!((refused.status, &refused.json()["error"]), (401, &json!("invalid_client")));
    }
    let refused = guess().await;
    assert_eq!((refused.status, &refused.json()["error"]), (429, &json!("temporarily_unavailable")));
    assert!((1..=60).contains(&refused.header("retry-after").parse::<u32>().unwrap()));
    let wrong = server.ask(Method::GET, "/v1/metrics").key(GOLDEN).send().await;
    wrong.problem(429, "too_many_auth_failures");
    let who = server.get("/v1/whoami").await.ok(200);
    assert_eq!(who["rate_limits"][0], json!({"policy": "default", "limit": 1_000_000, "window": "1m"}));
    assert_eq!(who["rate_limits"][1]["policy"], "ingest");
}
