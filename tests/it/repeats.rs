//! kill -9 in the middle of requests that are sent many times at once with one `Idempotency-Key`, then again: each is done
//! once, and every answer is the first one's.
//!
//! `HIGHWATER_TEST_REPEAT_ROUNDS` sets the number of rounds.

use crate::load::Random;
use crate::process::{Server, bootstrap, call};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

const ROUNDS_DEFAULT: u64 = 10;
const COPIES: usize = 50;

#[expect(clippy::disallowed_methods, reason = "how long a test runs is no configuration of the product")]
fn rounds() -> u64 {
    std::env::var("HIGHWATER_TEST_REPEAT_ROUNDS").map_or(ROUNDS_DEFAULT, |rounds| rounds.parse().unwrap())
}

struct Request {
    url: String,
    owner: String,
    idempotency_key: String,
    body: String,
}

impl Request {
    /// Sends it; nothing where the server went away meanwhile.
    async fn send(&self, http: &reqwest::Client) -> Option<(u16, String, bool)> {
        let request = http.post(&self.url).bearer_auth(&self.owner).header("idempotency-key", &self.idempotency_key);
        let answer = request.header("content-type", "application/json").body(self.body.clone()).send().await.ok()?;
        let (status, replayed) = (answer.status().as_u16(), answer.headers().contains_key("idempotent-replayed"));
        Some((status, answer.text().await.ok()?, replayed))
    }
}

/// The bodies of the answers that say it was made; the others say that it is under way.
async fn all_at_once(http: &reqwest::Client, request: &std::sync::Arc<Request>) -> Vec<(String, bool)> {
    let sending = (0..COPIES).map(|_| {
        let (http, request) = (http.clone(), std::sync::Arc::clone(request));
        tokio::spawn(async move { request.send(&http).await })
    });
    let mut made = Vec::new();
    for sent in sending.collect::<Vec<_>>() {
        match sent.await.unwrap() {
            Some((201, body, replayed)) => made.push((body, replayed)),
            Some((409, body, _)) => assert!(body.contains("idempotency_in_progress"), "{body}"),
            Some((status, body, _)) => panic!("{status} {body}"),
            None => {}
        }
    }
    made
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_many_times_is_done_once_behind_kill_9() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = Random(seed);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let owner = bootstrap(&data);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let (mut before, mut unanswered) = (0, 0);
    let mut server = Server::start(&data);
    for round in 0..rounds() {
        // Keys have a secret, which a repetition must show; projects have none.
        let (path, wanted) = if round % 2 == 0 {
            ("/v1/api-keys", json!({"name": format!("r{round}"), "scope": "read:usage"}))
        } else {
            ("/v1/projects", json!({"name": format!("r{round}")}))
        };
        let request = |base: &str| {
            let idempotency_key = format!("round-{round}");
            let (url, body) = (format!("{base}{path}"), wanted.to_string());
            std::sync::Arc::new(Request { url, owner: owner.clone(), idempotency_key, body })
        };
        let first = request(&server.base);
        let sending = tokio::spawn({
            let http = http.clone();
            async move { all_at_once(&http, &first).await }
        });
        tokio::time::sleep(Duration::from_micros(random.below(12_000))).await;
        server.kill();
        let mut made = sending.await.unwrap();
        before += usize::from(!made.is_empty());
        unanswered += usize::from(made.is_empty());
        server = Server::start(&data);
        // Behind the kill there is no third state: it was done, or it was not.
        let again = request(&server.base);
        while made.len() < 2 {
            made.extend(all_at_once(&http, &again).await);
        }
        let bodies: BTreeSet<&String> = made.iter().map(|(body, _)| body).collect();
        assert_eq!(bodies.len(), 1, "round {round}: every answer is the first one's");
        assert!(made.iter().filter(|(_, replayed)| !replayed).count() <= 1, "round {round}: it was done once");
        let listed = call(&http, ("GET", &format!("{}{path}?q=r{round}", server.base), &owner), None).await.unwrap().1;
        let named = |item: &&Value| item["name"] == wanted["name"];
        let items: Vec<&Value> = listed["items"].as_array().unwrap().iter().filter(named).collect();
        assert_eq!(items.len(), 1, "round {round}: {listed}");
        let answer: Value = serde_json::from_str(&made[0].0).unwrap();
        assert_eq!(items[0]["id"], answer["id"]);
        if let Some(key) = answer["key"].as_str() {
            let (status, who) = call(&http, ("GET", &format!("{}/v1/whoami", server.base), key), None).await.unwrap();
            assert_eq!((status, &who["key_id"]), (200, &answer["id"]), "round {round}: the key that is shown works");
            let revoke = format!("{}/v1/api-keys/{}/revoke", server.base, answer["id"].as_str().unwrap());
            assert_eq!(call(&http, ("POST", &revoke, &owner), None).await.unwrap().0, 200);
        }
    }
    server.stop();
    println!("{before} rounds were answered before the kill, {unanswered} were not; none was done twice");
}
