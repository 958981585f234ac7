//! A whole run at the loudest level: nothing that is secret is in what the process says, shows or leaves behind.

use crate::process::{bootstrap, bootstrap_with, highwater};
use reqwest::Method;
use serde_json::{Value, json};
use std::fs::File;
use std::process::{Child, Command};
use std::time::Duration;

/// Ends a process when the test does.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_any_log_at_any_level() {
    // Whichever test comes first.
    drop(rustls::crypto::ring::default_provider().install_default());
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let live = bootstrap(&data);
    let test = bootstrap_with(&data, &["--sandbox"]);
    let log = folder.path().join("log");
    let receiver = crate::receiver::Receiver::answering(crate::receiver::Reply::status(500)).await;
    let child = Command::new(env!("CARGO_BIN_EXE_highwater"))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--allow-target", "127.0.0.0/8"])
        .args(["--log", "trace", "--data", data.to_str().unwrap()])
        .args(["--rate-limit", "100000", "--sandbox-rate-limit", "100000"])
        .env("RUST_LOG", "trace")
        .env("RUST_BACKTRACE", "1")
        .stdout(File::create(folder.path().join("out")).unwrap())
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let running = Running(child);
    let said = || std::fs::read_to_string(&log).unwrap();
    let place = |word: &str| {
        said().split_once(word).map(|(_, rest)| format!("http://{}", rest.split(['/', ' ', '\n']).next().unwrap()))
    };
    let (base, admin) = crate::server::eventually("the server", || async {
        Some((place("serving http://")?, place("metrics http://")?))
    })
    .await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut shown = String::new();
    let secrets = run(&http, &base, (&live, &test), &receiver, &mut shown).await;
    // By mistake: in a path, in a query, in the id of a request, plain, wrapped and percent-encoded.
    for misplaced in [live.clone(), live.replace('_', "%5F")] {
        for path in
            [format!("/v1/api-keys/{misplaced}"), format!("/{misplaced}/v1"), format!("/v1/alerts?q={misplaced}")]
        {
            let asked = http.get(format!("{base}{path}")).header("x-request-id", format!("req-{live}.1"));
            let answer = asked.bearer_auth(&live).send().await.unwrap();
            assert!(answer.headers()["x-request-id"].to_str().unwrap().starts_with("req_"));
        }
    }
    for path in ["/metrics", "/readyz"] {
        shown += &http.get(format!("{admin}{path}")).send().await.unwrap().text().await.unwrap();
    }
    let pid = running.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    crate::server::eventually("the end", || async { said().contains("stopping").then_some(()) }).await;
    drop(running);
    let log = said();
    assert!(log.contains("TRACE") && log.contains("DEBUG"), "the loudest level was not on:\n{log}");
    let answered =
        log.lines().filter(|line| line.contains("answered") && line.contains("/v1/alerts")).collect::<Vec<_>>();
    assert!(
        answered.iter().any(|line| ["workspace_id=ws_", "key_id=key_", TRACE].iter().all(|part| line.contains(part))),
        "{answered:?}"
    );
    let texts = [
        ("the log", log),
        ("an answer", shown),
        ("the output", std::fs::read_to_string(folder.path().join("out")).unwrap()),
    ];
    for (what, text) in &texts {
        for hidden in &secrets {
            let found = text.lines().find(|line| line.contains(hidden.as_str()));
            assert_eq!(found, None, "{hidden} is in {what}");
        }
        for pattern in [
            r"(?i)pk(_|%5f)(live|test)(_|%5f)[0-9A-Za-z]{12}(_|%5f)",
            "whsec_[A-Za-z0-9+/]",
            "(?i)bearer +[0-9A-Za-z]{4}",
            "/services/T0",
        ] {
            let pattern = regex::Regex::new(pattern).unwrap();
            assert_eq!(text.lines().find(|line| pattern.is_match(line)), None, "{pattern} is in {what}");
        }
    }
    // What it left behind follows from the log, the sandbox too.
    let verified = highwater(&["verify", "--data", data.to_str().unwrap()]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    let said = String::from_utf8_lossy(&verified.stdout).into_owned() + &String::from_utf8_lossy(&verified.stderr);
    assert!(secrets.iter().all(|hidden| !said.contains(hidden.as_str())));
}

/// Does everything that touches a secret, in both modes; returns the secrets, and gathers answers that may show none.
async fn run(
    http: &reqwest::Client,
    base: &str,
    (live, test): (&str, &str),
    receiver: &crate::receiver::Receiver,
    shown: &mut String,
) -> Vec<String> {
    let mut secrets = vec![live.to_owned(), test.to_owned(), "xoxb-1-hidden".to_owned(), "hidden-path".to_owned()];
    let ask = async |method: Method, path: &str, key: &str, body: Option<Value>| {
        let mut request = http.request(method, format!("{base}{path}")).bearer_auth(key);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        request = request.header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"));
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let address = receiver.address;
    for key in [live, test] {
        let channels = [
            json!({"type": "webhook", "name": "w", "url": format!("http://{address}/hidden-path")}),
            json!({"type": "slack", "name": "s", "url": format!("http://{address}/services/T0/B0/hidden-path")}),
            json!({"type": "slack", "name": "b", "bot_token": "xoxb-1-hidden", "slack_channel": "#ops",
                   "slack_api_url": format!("http://{address}/hidden-path/")}),
        ];
        let mut ids = Vec::new();
        for channel in channels {
            let (status, text) = ask(Method::POST, "/v1/channels", key, Some(channel)).await;
            assert_eq!(status, 201, "{text}");
            let made: Value = serde_json::from_str(&text).unwrap();
            secrets.extend(made["secret"].as_str().map(str::to_owned));
            ids.push(made["id"].clone());
        }
        let alert = json!({"account_id": "acme", "rule": "sum(\"calls\") > 1", "channel": ids});
        assert_eq!(ask(Method::POST, "/v1/alerts", key, Some(alert)).await.0, 201);
        let event = json!({"account_id": "acme", "metric": "calls", "value": 5});
        assert_eq!(ask(Method::POST, "/v1/events", key, Some(event)).await.0, 202);
        ask(Method::POST, "/v1/alerts", key, Some(json!({"channel": live}))).await;
        ask(Method::GET, &format!("/v1/accounts?api_key={test}"), key, None).await;
    }
    for wrong in ["", "pk_live_7Hq2mZxR4tKc_0123456789abcdefghijABCDEFGHIJ013P8xiM", &live[..40], &format!("{test}x")] {
        let (status, text) = ask(Method::GET, "/v1/accounts", wrong, None).await;
        assert_eq!(status, 401);
        *shown += &text;
    }
    let seen = async || receiver_saw(http, base, test).await;
    crate::server::eventually("the outbox", || async { (seen().await >= 3).then_some(()) }).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let reads =
        ["channels", "alerts", "audit-log", "accounts", "sandbox", "sandbox/outbox", "quarantine", "no-such-path"];
    for key in [live, test] {
        for path in reads {
            *shown += &ask(Method::GET, &format!("/v1/{path}"), key, None).await.1;
        }
    }
    assert_eq!(ask(Method::POST, "/v1/sandbox/clock/advance", test, Some(json!({"by": "2h"}))).await.0, 202);
    assert_eq!(ask(Method::POST, "/v1/sandbox/reset", test, None).await.0, 202);
    secrets
}

/// How many messages the sandbox kept.
async fn receiver_saw(http: &reqwest::Client, base: &str, key: &str) -> usize {
    let answer = http.get(format!("{base}/v1/sandbox/outbox")).bearer_auth(key).send().await.unwrap();
    let page: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    page["items"].as_array().map_or(0, Vec::len)
}
