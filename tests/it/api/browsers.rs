//! What browsers are told: which pages may call the API, and what an attacker's page cannot.

use crate::server::{Options, Server, unhurried};
use highwater::api::{Front, Rates};
use reqwest::Method;
use std::collections::BTreeSet;

const OWN: &str = "https://console.example.com";
const EVIL: &str = "https://evil.example";

async fn open_to(origins: &[&str], rates: Rates) -> Server {
    let cors_origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
    let front = Front { cors_origins, rates, ..Front::default() };
    Server::start_with(Options { front, ..Options::default() }).await
}

fn cors(answer: &crate::server::Answer) -> Vec<&str> {
    let names = answer.headers.keys().map(reqwest::header::HeaderName::as_str);
    names.filter(|name| name.starts_with("access-control-")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_page_may_call_by_default() {
    let server = Server::start().await;
    for origin in [EVIL, OWN, "null"] {
        let preflight = server.ask(Method::OPTIONS, "/v1/alerts").anonymous().header("origin", origin);
        let preflight = preflight.header("access-control-request-method", "POST").send().await;
        assert!(cors(&preflight).is_empty() && preflight.status != 200, "{preflight:?}");
        let read = server.ask(Method::GET, "/v1/alerts").header("origin", origin).send().await;
        assert!(cors(&read).is_empty(), "{read:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_listed_pages_may_call_and_they_see_the_headers() {
    let server = open_to(&[OWN], Rates { live: 2, ..unhurried() }).await;
    let preflight = |origin: &str| {
        let ask = server.ask(Method::OPTIONS, "/v1/alerts").anonymous().header("origin", origin);
        let ask = ask.header("access-control-request-method", "PATCH");
        ask.header("access-control-request-headers", "authorization,idempotency-key").send()
    };
    let allowed = preflight(OWN).await;
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (200, OWN));
    assert!(allowed.header("access-control-allow-methods").contains("PATCH"), "{allowed:?}");
    assert!(allowed.header("access-control-allow-headers").contains("idempotency-key"), "{allowed:?}");
    assert_eq!(allowed.header("access-control-allow-credentials"), "", "keys are no cookies");
    let near =
        ["https://console.example.com.evil.example", "http://console.example.com", "https://evil.example", "null"];
    for origin in near {
        assert_eq!(preflight(origin).await.header("access-control-allow-origin"), "", "{origin}");
        let read = server.ask(Method::GET, "/healthz").header("origin", origin).send().await;
        assert_eq!(read.header("access-control-allow-origin"), "", "{origin}");
    }
    // Also of errors, or a page could not tell why it failed: 401, 404, 429.
    let ask = |path| server.ask(Method::GET, path).header("origin", OWN);
    let answers = [
        (ask("/v1/alerts").anonymous().send().await, 401),
        (ask("/v1/nothing").send().await, 404),
        (ask("/v1/alerts").send().await, 200),
        (ask("/v1/alerts").send().await, 429),
    ];
    for (answer, status) in answers {
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (status, OWN));
        let exposed: BTreeSet<&str> =
            answer.header("access-control-expose-headers").split(',').map(str::trim).collect();
        let wanted = "x-request-id ratelimit-policy ratelimit x-ratelimit-limit x-ratelimit-remaining x-ratelimit-reset \
                      retry-after idempotent-replayed location etag link deprecation sunset www-authenticate x-mode";
        assert!(wanted.split_whitespace().all(|name| exposed.contains(name)), "{exposed:?}");
        assert!(answer.header("vary").contains("origin"), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trace_echoes_nothing() {
    let server = open_to(&[OWN], unhurried()).await;
    for (path, statuses) in [("/v1/alerts", [401, 405]), ("/docs/", [405, 405]), ("/healthz", [405, 405])] {
        for (key, status) in [(None, statuses[0]), (Some(server.key.clone()), statuses[1])] {
            let ask = server.ask(Method::TRACE, path).anonymous().header("x-secret", "in-the-head");
            let ask = if let Some(key) = &key { ask.key(key) } else { ask };
            let answer = ask.send().await;
            assert_eq!(answer.status, status, "{path}");
            assert!(!answer.text().contains("in-the-head") && !answer.text().contains(&server.key), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transport_security_is_told_only_where_it_is_wanted() {
    let server = Server::start().await;
    assert_eq!(server.get("/v1/alerts").await.header("strict-transport-security"), "");
    let docs = server.ask(Method::GET, "/docs/").anonymous().send().await;
    let policy = docs.header("content-security-policy");
    for part in ["default-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
}
