//! Every list is walked in pages, by number and by cursor, also while items come and go.

use crate::server::Server;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn names(page: &Value, key: &str) -> Vec<String> {
    page["items"].as_array().unwrap().iter().map(|item| item[key].to_string().trim_matches('"').to_owned()).collect()
}

/// Walks a list by cursor, three items a page; `between` runs behind the first page.
async fn walk(server: &Server, path: &str, key: &str, between: impl AsyncFnOnce()) -> Vec<String> {
    let join = if path.contains('?') { '&' } else { '?' };
    let first = server.get(&format!("{path}{join}page_size=3")).await;
    let mut page = first.ok(200);
    assert_eq!((&page["page"], &page["page_size"], &page["has_more"]), (&json!(1), &json!(3), &json!(true)), "{path}");
    let mut all = names(&page, key);
    between().await;
    while let Some(cursor) = page["next_cursor"].as_str() {
        let number = page["page"].as_u64().unwrap();
        let answer = server.get(&format!("{path}{join}cursor={cursor}")).await;
        page = answer.ok(200);
        assert_eq!((&page["page"], &page["page_size"]), (&json!(number + 1), &json!(3)), "{path}");
        let links = answer.header("link");
        assert_eq!(links.contains("rel=\"next\""), page["has_more"].as_bool().unwrap(), "{links}");
        all.extend(names(&page, key));
    }
    assert_eq!(page["has_more"], false);
    all
}

async fn by_page(server: &Server, path: &str, key: &str) -> Vec<String> {
    let join = if path.contains('?') { '&' } else { '?' };
    let mut next = Some(format!("{path}{join}page_size=3"));
    let mut all = Vec::new();
    while let Some(path) = next {
        let answer = server.get(&path).await;
        all.extend(names(&answer.ok(200), key));
        let links = answer.header("link").to_owned();
        assert!(links.contains("rel=\"first\""), "{links}");
        next = links.split(", ").find_map(|link| link.strip_suffix(">; rel=\"next\"").map(|link| link[1..].to_owned()));
    }
    all
}

async fn make(server: &Server, names: &[&str]) {
    for name in names {
        server.post("/v1/accounts", json!({"id": name, "metadata": {}})).await.ok(201);
        server.put(&format!("/v1/metrics/{name}"), json!({})).await.ok(201);
        server.put(&format!("/v1/accounts/*/quotas/{name}"), json!({"limit": 1, "period": "day"})).await.ok(201);
        server
            .post("/v1/webhooks", json!({"url": "https://example.com/", "event_types": ["webhook.test"]}))
            .await
            .ok(201);
        let channel = json!({"type": "webhook", "name": name, "url": "https://example.com/"});
        let channel = server.post("/v1/channels", channel).await.ok(201)["id"].clone();
        let alert =
            json!({"account_id": "a", "rule": "used > 1", "channel": channel, "name": name, "severity": "info"});
        server.post("/v1/alerts", alert).await.ok(201);
        server.post("/v1/projects", json!({"name": name, "env": "dev"})).await.ok(201);
        let credential = json!({"name": name, "scope": ["read:usage"]});
        server.post("/v1/api-keys", credential.clone()).await.ok(201);
        server.post("/v1/oauth/clients", credential).await.ok(201);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_by_name_are_walked_while_items_are_added() {
    let server = Server::start().await;
    let all = ["b", "d", "f", "h", "j", "l", "n", "p"];
    make(&server, &all).await;
    for (path, key) in [("/v1/accounts", "id"), ("/v1/metrics", "metric"), ("/v1/accounts/*/quotas", "metric")] {
        assert_eq!(by_page(&server, path, key).await, all, "{path}");
        let walked = walk(&server, path, key, async || {}).await;
        assert_eq!(walked, all, "{path}");
    }
    // Before the place of the cursor and behind it: the former is passed over, the latter is met.
    let walked = walk(&server, "/v1/metrics", "metric", async || {
        server.put("/v1/metrics/a", json!({})).await.ok(201);
        server.put("/v1/metrics/m", json!({})).await.ok(201);
    });
    assert_eq!(walked.await, ["b", "d", "f", "h", "j", "l", "m", "n", "p"]);
    let walked = walk(&server, "/v1/accounts", "id", async || {
        server.count("c", "m", 1).await;
        server.count("k", "m", 1).await;
    });
    assert_eq!(walked.await, ["b", "d", "f", "h", "j", "k", "l", "n", "p"]);
    assert_eq!(by_page(&server, "/v1/accounts?q=k", "id").await, ["k"]);
    // All that was shown is gone: what is behind is met all the same.
    let walked = walk(&server, "/v1/metrics", "metric", async || {
        for gone in ["a", "b", "d", "f", "h"] {
            server.delete(&format!("/v1/metrics/{gone}")).await.ok(204);
        }
    });
    assert_eq!(walked.await, ["a", "b", "d", "j", "l", "m", "n", "p"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_by_age_are_walked_while_items_come_and_go() {
    let server = Server::start().await;
    make(&server, &["a1", "a2", "a3", "a4", "a5", "a6", "a7"]).await;
    let paths = [
        "/v1/channels",
        "/v1/alerts",
        "/v1/alerts?severity=info",
        "/v1/projects",
        "/v1/projects?env=dev&q=a",
        "/v1/api-keys",
        "/v1/api-keys?status=active",
        "/v1/oauth/clients",
    ];
    for path in paths {
        let before = by_page(&server, path, "id").await;
        assert!(before.len() >= 7 && before.is_sorted_by(|a, b| a[..14] >= b[..14]), "{path}: {before:?}");
        let walked = walk(&server, path, "id", async || make(&server, &[later(path)]).await);
        assert_eq!(walked.await, before, "{path}: what is newer than the walk is no part of it");
    }
    let alerts = by_page(&server, "/v1/alerts", "id").await;
    let walked = walk(&server, "/v1/alerts", "id", async || {
        for gone in &alerts[..4] {
            server.delete(&format!("/v1/alerts/{gone}")).await.ok(204);
        }
    });
    let expected: Vec<String> = alerts[..3].iter().chain(&alerts[4..]).cloned().collect();
    assert_eq!(walked.await, expected);
}

/// A name of its own for each list.
fn later(path: &'static str) -> &'static str {
    match path {
        "/v1/channels" => "a8",
        "/v1/alerts" => "a9",
        "/v1/alerts?severity=info" => "b1",
        "/v1/projects" => "b2",
        "/v1/projects?env=dev&q=a" => "b3",
        "/v1/api-keys" => "b4",
        "/v1/api-keys?status=active" => "b5",
        _ => "b6",
    }
}

async fn make_channel(server: &Server, name: &str) {
    let channel = json!({"type": "webhook", "name": name, "url": "https://example.com/"});
    let channel = server.post("/v1/channels", channel).await.ok(201)["id"].clone();
    let alert = json!({"account_id": "a", "rule": "used > 1", "channel": channel, "name": name, "severity": "info"});
    server.post("/v1/alerts", alert).await.ok(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_store_lists_is_walked_while_more_of_it_comes() {
    let server = Server::start().await;
    make_channel(&server, "c").await;
    let alert = json!({"account_id": "*", "rule": "sum > 10", "channel": "webhook"});
    let alert = server.post("/v1/alerts", alert).await.ok(201)["id"].as_str().unwrap().to_owned();
    let accounts = ["b1", "b2", "b3", "b4", "b5", "b6", "b7"];
    for account in accounts {
        server.count(account, "m", 11).await;
    }
    let path = format!("/v1/alerts/{alert}/instances");
    assert_eq!(by_page(&server, &path, "account_id").await, accounts);
    let walked = walk(&server, &path, "account_id", async || {
        server.count("a1", "m", 11).await;
        server.count("b51", "m", 11).await;
    });
    assert_eq!(walked.await, ["b1", "b2", "b3", "b4", "b5", "b51", "b6", "b7"]);
    let path = format!("/v1/alerts/{alert}/history");
    let before = by_page(&server, &path, "account_id").await;
    assert_eq!(before.len(), 9);
    let walked = walk(&server, &path, "account_id", async || server.count("c1", "m", 11).await);
    assert_eq!(walked.await, before, "what is newer than the walk is no part of it");
    // The quarantine: the first of each pair stands, the second is set aside.
    let conflict = async |n: i64| {
        for value in [1, 2] {
            server
                .post("/v1/events", json!({"account_id": "q", "metric": "m", "id": n.to_string(), "value": value}))
                .await
                .ok(202);
        }
        server.settle().await;
    };
    for n in 0..7 {
        conflict(n).await;
    }
    let before = by_page(&server, "/v1/quarantine", "id").await;
    assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), 7);
    let walked = walk(&server, "/v1/quarantine", "id", async || conflict(7).await);
    assert_eq!(walked.await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_belongs_to_its_list() {
    let server = Server::start().await;
    make(&server, &["a", "b", "c"]).await;
    let cursor = async |path: &str| server.get(path).await.ok(200)["next_cursor"].as_str().unwrap().to_owned();
    let of_alerts = cursor("/v1/alerts?page_size=1&severity=info").await;
    server.get(&format!("/v1/alerts?severity=info&cursor={of_alerts}")).await.ok(200);
    let mut tampered = of_alerts.clone();
    let middle = tampered.len() / 2;
    tampered.replace_range(middle..=middle, if tampered.as_bytes()[middle] == b'A' { "B" } else { "A" });
    for query in [
        format!("/v1/alerts?cursor={of_alerts}"),
        format!("/v1/alerts?severity=warning&cursor={of_alerts}"),
        format!("/v1/alerts?severity=info&severity=warning&cursor={of_alerts}"),
        format!("/v1/channels?cursor={of_alerts}"),
        format!("/v1/alerts?severity=info&cursor={tampered}"),
        "/v1/alerts?cursor=".to_owned(),
        "/v1/alerts?cursor=nonsense".to_owned(),
    ] {
        server.get(&query).await.problem(400, "invalid_cursor");
    }
    let other = server.owner_of(server.new_workspace().await, highwater::domain::id::Mode::Live).await;
    let theirs = server.ask(reqwest::Method::GET, &format!("/v1/alerts?severity=info&cursor={of_alerts}")).key(&other);
    theirs.send().await.problem(400, "invalid_cursor");
    server.get(&format!("/v1/alerts?severity=info&page=2&cursor={of_alerts}")).await.problem(400, "invalid_parameter");
    // A filter that can fit nothing is a mistake.
    for filter in ["alerts?account_id=a%20b", "alerts?project_id=prj_1", "api-keys?project_id=Payments"] {
        server.get(&format!("/v1/{filter}")).await.problem(400, "invalid_parameter");
    }
    server.get("/v1/alerts?account_id=*").await.ok(200);
    let far = server.get("/v1/accounts?page=101&page_size=100").await.problem(400, "page_out_of_range");
    assert_eq!(far["param"], "cursor");
    server.get("/v1/accounts?page=18446744073709551615").await.problem(400, "page_out_of_range");
    assert_eq!(server.get("/v1/accounts?page=100&page_size=100").await.ok(200)["items"], json!([]));
    // Links repeat the filters as they can be followed.
    let links = server.get("/v1/alerts?q=a%26b%20c&page_size=1").await.header("link").to_owned();
    assert_eq!(links, "</v1/alerts?q=a%26b+c&page=1&page_size=1>; rel=\"first\"");
    let second = server.get("/v1/alerts?page=2&page_size=1").await.header("link").to_owned();
    assert!(
        second.contains("</v1/alerts?page=1&page_size=1>; rel=\"prev\"")
            && second.contains("page=3&page_size=1>; rel=\"next\""),
        "{second}"
    );
}

/// The lists of the description, each with what must be walked of it and the key of its items.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_list_is_sorted_narrowed_and_walked_by_age() {
    let server = Server::start().await;
    make(&server, &["a", "b", "c", "d"]).await;
    let alert = json!({"account_id": "*", "rule": "sum > 10", "channel": "webhook"});
    let alert = server.post("/v1/alerts", alert).await.ok(201);
    let channel = alert["channels"][0].as_str().unwrap().to_owned();
    let alert = alert["id"].as_str().unwrap().to_owned();
    let webhook = server.post("/v1/webhooks", json!({"url": "https://a.example/h"})).await.ok(201);
    let webhook = webhook["id"].as_str().unwrap().to_owned();
    server.post(&format!("/v1/webhooks/{webhook}/pause"), json!({})).await.ok(200);
    for account in ["s1", "s2", "s3", "s4"] {
        server.count(account, "m", 11).await;
        for value in [1, 2] {
            let event = json!({"account_id": account, "metric": "m", "id": "twice", "value": value});
            server.post("/v1/events", event).await.ok(202);
        }
        let body = json!({"matchers": [{"name": "name", "value": account}], "starts_at": "2026-01-01T00:00:00Z",
                          "ends_at": "2126-01-01T00:00:00Z"});
        server.post("/v1/silences", body).await.ok(201);
        server.post("/v1/projects", json!({"name": account})).await.ok(201);
        server.post("/v1/api-keys", json!({"name": account, "role": "viewer"})).await.ok(201);
        server.post("/v1/oauth/clients", json!({"name": account, "role": "viewer"})).await.ok(201);
        server.post("/v1/webhooks", json!({"url": "https://a.example/h", "event_types": ["alert.*"]})).await.ok(201);
    }
    server.settle().await;
    let document = highwater::api::openapi();
    let mut walked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let names: BTreeSet<&str> = item["get"]["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        // Those of other nouns have tests of their own; instances are no events in time.
        if !names.contains("sort") {
            continue;
        }
        assert!(names.contains("created_after") && names.contains("created_before"), "{path}");
        // Live keys have no outbox.
        if path == "/v1/sandbox/outbox" {
            continue;
        }
        let id = match path.split('/').nth(2) {
            Some("webhooks") => &webhook,
            Some("channels") => &channel,
            _ => &alert,
        };
        let path = path.replace("{id}", id).replace("{account_id}", "*");
        let key = match path.as_str() {
            "/v1/metrics" | "/v1/accounts/*/quotas" => "metric",
            path if path.ends_with("/history") => "account_id",
            _ => "id",
        };
        let rising = by_page(&server, &format!("{path}?sort=created_at"), key).await;
        assert!(
            rising.len() >= 4 && rising.iter().collect::<BTreeSet<_>>().len() == rising.len(),
            "{path}: {rising:?}"
        );
        let mut falling = by_page(&server, &format!("{path}?sort=-created_at"), key).await;
        falling.reverse();
        assert_eq!(rising, falling, "{path}");
        let oldest_first = format!("{path}?sort=created_at");
        let seen = walk(&server, &oldest_first, key, async || {
            server.count("s0", "m", 11).await;
            make_channel(&server, "later").await;
        });
        let seen = seen.await;
        assert_eq!(seen[..rising.len()], rising, "{path}");
        let none = server.get(&format!("{path}?created_after=2100-01-01T00:00:00Z")).await.ok(200);
        assert_eq!(none["items"], json!([]), "{path}");
        let all = server.get(&format!("{path}?created_before=2100-01-01T00:00:00Z&page_size=100")).await.ok(200);
        assert!(all["items"].as_array().unwrap().len() >= rising.len(), "{path}");
        server.get(&format!("{path}?sort=name")).await.problem(400, "invalid_parameter");
        walked += 1;
    }
    assert!(walked >= 15, "{walked}");
    // By the beginning of the name, and any of several values.
    assert_eq!(by_page(&server, "/v1/metrics?q=b", "metric").await, ["b"]);
    assert_eq!(by_page(&server, "/v1/channels?q=B&type=webhook&type=slack", "name").await, ["b"]);
    for path in ["projects", "api-keys", "oauth/clients"] {
        assert_eq!(by_page(&server, &format!("/v1/{path}?q=S2"), "name").await, ["s2"], "{path}");
    }
    assert_eq!(by_page(&server, "/v1/alerts?q=c&severity=info&severity=critical", "name").await, ["c"]);
    assert_eq!(
        by_page(&server, "/v1/quarantine?account_id=s1&account_id=s2&status=open&status=replayed", "account_id")
            .await
            .len(),
        2
    );
    assert_eq!(by_page(&server, "/v1/accounts?q=s&sort=created_at", "id").await[..4], ["s1", "s2", "s3", "s4"]);
}
