//! What usage answers leave out is said beside them, and groups add up to the total.

use super::sandbox::Sandbox;
use super::usage::{send, values, yesterday};
use crate::server::Server;
use highwater::domain::time::{Millis, Timestamp, WINDOW};
use highwater::runtime::clock;
use reqwest::Method;
use serde_json::{Value, json};

fn warned(usage: &Value) -> Vec<(&str, &Value)> {
    let warnings = usage["warnings"].as_array().unwrap();
    warnings.iter().map(|warning| (warning["code"].as_str().unwrap(), &warning["metric"])).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_nothing_is_known_of_are_warned_of() {
    let server = Server::start().await;
    server.put("/v1/metrics/defined", json!({})).await.ok(201);
    server.put("/v1/accounts/acme/quotas/own", json!({"limit": 1, "period": "day"})).await.ok(201);
    server.put("/v1/accounts/*/quotas/limited", json!({"limit": 1, "period": "day"})).await.ok(201);
    send(&server, &[("used", "1", clock::now())]).await;
    server.count("other", "theirs", 1).await;
    let ask = async |query: &str| server.get(&format!("/v1/accounts/acme/usage?{query}")).await.ok(200);
    for metric in ["defined", "own", "limited", "used", "theirs"] {
        assert_eq!(ask(&format!("metric={metric}")).await["warnings"], json!([]), "{metric}");
    }
    assert_eq!(ask("window=5m").await["warnings"], json!([]));
    let typo = ask("metric=usde").await;
    assert_eq!((values(&typo), warned(&typo)), (vec!["0".to_owned(); 12], vec![("metric_unknown", &json!("usde"))]));
    assert_eq!(typo["warnings"][0]["since"], Value::Null);
    let text = server.get("/v1/accounts/acme/usage?metric=usde&format=csv").await;
    assert_eq!((text.status, text.header("usage-warnings")), (200, "metric_unknown"));
    let asked =
        json!({"metrics": ["used", "usde", "theirs", "defined", "limited", "own", "thiers"], "account_ids": ["acme"]});
    let asked = server.post("/v1/usage/query", asked).await.ok(200);
    assert_eq!(warned(&asked), [("metric_unknown", &json!("usde")), ("metric_unknown", &json!("thiers"))]);
    assert_eq!(server.post("/v1/usage/query", json!({})).await.ok(200)["warnings"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_that_never_were_and_groups_that_came_later_are_warned_of() {
    let server = Server::start().await;
    let noon = yesterday().plus(Millis::hours(12));
    let event = |at: Timestamp, dimensions: Value| json!({"account_id": "acme", "metric": "m", "timestamp": at.to_string(), "dimensions": dimensions});
    let send = async |events: Vec<Value>| {
        let sent = server.post("/v1/events/batch", json!({"events": events})).await.ok(202);
        sent["receipt"].as_str().unwrap().to_owned()
    };
    let both = json!({"region": "eu", "tier": "free"});
    send(vec![event(noon, both.clone()), event(noon.plus(WINDOW), both.clone())]).await;
    let first = server.put("/v1/metrics/m", json!({"group_by": ["region"]})).await.ok(201);
    let later = noon.plus(Millis::hours(1));
    send(vec![event(later, both.clone()), event(later, json!({"region": "us"}))]).await;
    let second = server.patch("/v1/metrics/m", json!({"group_by": ["region", "tier"]})).await.ok(200);
    let latest = noon.plus(Millis::hours(2));
    let receipt = send(vec![event(latest, both.clone()), event(latest, json!({"region": "ap", "tier": "paid"}))]).await;
    let ask = async |from: Timestamp, query: &str| {
        let path = format!("/v1/accounts/acme/usage?metric=m&window=1h&from={from}&after={receipt}&{query}");
        server.get(&path).await.ok(200)
    };
    // Two events are in no group, and two groups were kept without a tier.
    for (from, query, expected) in [
        (noon, "group_by=region", vec![&first]),
        (noon, "dim[region]=eu", vec![&first]),
        (noon, "group_by=region,tier", vec![&second]),
        (noon, "dim[region]=eu&group_by=tier", vec![&second]),
        (later, "group_by=region", vec![]),
        (later, "group_by=tier", vec![&second]),
        (latest, "group_by=region,tier", vec![]),
        (noon, "agg=count", vec![]),
    ] {
        let usage = ask(from, query).await;
        let since: Vec<&Value> =
            usage["warnings"].as_array().unwrap().iter().map(|warning| &warning["since"]).collect();
        let expected: Vec<&Value> = expected.into_iter().map(|metric| &metric["updated_at"]).collect();
        assert_eq!(since, expected, "{query} {usage}");
        assert!(warned(&usage).iter().all(|(code, metric)| (*code, *metric) == ("groups_since", &json!("m"))));
    }
    let question = |from: Timestamp| json!({"metrics": ["m"], "group_by": ["region"], "from": from.to_string()});
    let asked = server.post("/v1/usage/query", question(noon)).await.ok(200);
    assert_eq!(warned(&asked), [("groups_since", &json!("m"))]);
    assert_eq!(server.post("/v1/usage/query", question(later)).await.ok(200)["warnings"], json!([]));
    // A group that has nothing in the time that is asked for is known all the same.
    for (query, expected) in [
        ("dim[region]=us", vec![]),
        ("dim[region]=mars", vec!["no group of m ever had region=mars"]),
        ("dim[region]=eu&dim[region]=mars&dim[region]=pluto", vec!["no group of m ever had region=mars or pluto"]),
        ("dim[region]=ap&dim[tier]=paid", vec![]),
        (
            "dim[region]=eu&dim[tier]=paid",
            vec![
                "no group of m ever had region=eu together with the other dimensions",
                "no group of m ever had tier=paid together with the other dimensions",
            ],
        ),
    ] {
        let usage = ask(latest, query).await;
        let told: Vec<&str> =
            usage["warnings"].as_array().unwrap().iter().map(|warning| warning["detail"].as_str().unwrap()).collect();
        assert_eq!(told, expected, "{query}");
        assert!(warned(&usage).iter().all(|(code, _)| *code == "group_unknown"));
    }
    // A dimension that is taken up again is kept since then.
    server.put("/v1/metrics/m", json!({})).await.ok(200);
    let again = server.put("/v1/metrics/m", json!({"group_by": ["region"]})).await.ok(200);
    let usage = ask(noon, "group_by=region").await;
    assert_eq!(usage["warnings"][0]["since"], again["updated_at"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_add_up_to_the_total_however_many_there_are() {
    let server = Server::start().await;
    server.put("/v1/metrics/m", json!({"group_by": ["n", "kind"]})).await.ok(201);
    let noon = yesterday().plus(Millis::hours(12));
    let event = |n: i64| json!({"account_id": "acme", "metric": "m", "value": 2, "timestamp": noon.to_string(), "dimensions": {"n": n, "kind": "k"}});
    for part in [0..600, 600..1_003] {
        let events: Vec<Value> = part.map(event).collect();
        server.post("/v1/events/batch", json!({"events": events})).await.ok(202);
    }
    server.settle().await;
    let span = format!("metric=m&from={noon}&to={}", noon.plus(Millis::minutes(5)));
    let ask = async |query: &str| server.get(&format!("/v1/accounts/acme/usage?{span}&{query}")).await.ok(200);
    let usage = ask("group_by=n").await;
    let items = usage["items"].as_array().unwrap();
    assert_eq!(items.len(), 1_001, "what had no room is not counted among the groups");
    let total: i64 = items.iter().map(|item| item["value"].as_i64().unwrap()).sum();
    assert_eq!(total, 2_006);
    let rest: Vec<&Value> = items.iter().filter(|item| item["overflow"] == true).collect();
    assert_eq!((rest.len(), &rest[0]["value"], &rest[0]["group"]), (1, &json!(6), &json!({"n": null})));
    assert!(items.iter().all(|item| item["overflow"] == true || item["group"]["n"].is_i64()));
    assert_eq!(warned(&usage), [("group_overflow", &json!("m"))]);
    // The total is whole, and a choice may miss what is in no group of its own.
    let whole = ask("agg=sum").await;
    assert_eq!(
        (values(&whole), &whole["warnings"], &whole["items"][0]["overflow"]),
        (vec!["2006".to_owned()], &json!([]), &json!(false))
    );
    assert_eq!(warned(&ask("dim[n]=5").await), [("group_overflow", &json!("m"))]);
    assert_eq!(ask("group_by=n,kind").await["items"].as_array().unwrap().len(), 1_001);
    let text = server.get(&format!("/v1/accounts/acme/usage?{span}&group_by=kind&format=csv")).await;
    assert_eq!(text.header("usage-warnings"), "group_overflow");
    let text = text.text();
    let cells: Vec<&str> = text.lines().skip(1).map(|line| line.rsplit(',').next().unwrap()).collect();
    assert_eq!(cells, ["false", "true"], "{text}");
    let question = json!({"metrics": ["m"], "group_by": ["n"], "from": noon.to_string(), "to": noon.plus(Millis::minutes(5)).to_string()});
    let asked = server.post("/v1/usage/query", question).await.ok(200);
    assert_eq!(
        (asked["items"].as_array().unwrap().len(), warned(&asked)),
        (1_001, vec![("group_overflow", &json!("m"))])
    );
}

/// An hour that left memory and came again has more groups in the store than are told apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_that_left_memory_is_answered_with_its_first_groups() {
    let server = Server::start().await;
    server.put("/v1/metrics/m", json!({"group_by": ["n", "kind"]})).await.ok(201);
    let first = yesterday().plus(Millis::hours(8));
    let send = async |hour: i64, minute: i64, numbers: std::ops::Range<i64>| {
        let at = first.plus(Millis::hours(hour)).plus(Millis::minutes(minute));
        let event = |n: i64| json!({"account_id": "acme", "metric": "m", "timestamp": at.to_string(), "dimensions": {"n": n, "kind": "k"}});
        let events: Vec<Value> = numbers.map(event).collect();
        server.post("/v1/events/batch", json!({"events": events})).await.ok(202);
    };
    // What comes first has the greater texts. The hours behind it make it leave.
    send(0, 0, 5_000..5_600).await;
    for hour in 1..12 {
        send(hour, 0, 0..1_000).await;
    }
    send(0, 30, 1_000..1_700).await;
    send(0, 31, 5_590..5_600).await;
    server.settle().await;
    let ask = async |minutes: (i64, i64), query: &str| {
        let (from, to) = (first.plus(Millis::minutes(minutes.0)), first.plus(Millis::minutes(minutes.1)));
        server.get(&format!("/v1/accounts/acme/usage?metric=m&from={from}&to={to}&{query}")).await
    };
    let told = |usage: &Value| -> (usize, i64, i64) {
        let items = usage["items"].as_array().unwrap();
        let count = |overflow: bool| {
            items.iter().filter(|i| i["overflow"] == overflow).map(|i| i["count"].as_i64().unwrap()).sum::<i64>()
        };
        (items.iter().filter(|item| item["overflow"] == false).count(), count(false), count(true))
    };
    let overflows = [("group_overflow", &json!("m"))];
    let hour = ask((0, 60), "window=1h&group_by=n").await.ok(200);
    assert_eq!((told(&hour), warned(&hour)), ((1_000, 1_010, 300), overflows.to_vec()));
    // Each window of the hour tells the same ones, in whatever width it is asked for.
    for (span, width, expected) in [
        ((0, 5), "5m", (600, 600, 0)),
        ((30, 35), "5m", (410, 410, 300)),
        ((30, 60), "30m", (410, 410, 300)),
        ((0, 60), "30m", (1_010, 1_010, 300)),
    ] {
        let usage = ask(span, &format!("window={width}&group_by=n,kind")).await.ok(200);
        assert_eq!(told(&usage), expected, "{span:?} {width}");
        let own = |item: &&Value| item["overflow"] == false;
        let numbers = |usage: &Value| -> std::collections::BTreeSet<i64> {
            usage["items"].as_array().unwrap().iter().filter(own).map(|i| i["group"]["n"].as_i64().unwrap()).collect()
        };
        assert!(numbers(&usage).is_subset(&numbers(&hour)));
    }
    let kinds = ask((0, 60), "window=1h&group_by=kind").await.ok(200);
    assert_eq!(told(&kinds), (1, 1_010, 300));
    for (chosen, count) in [("5599", 2), ("1399", 1), ("1400", 0)] {
        let usage = ask((0, 60), &format!("window=1h&dim[n]={chosen}")).await.ok(200);
        assert_eq!((&usage["items"][0]["count"], warned(&usage)), (&json!(count), overflows.to_vec()), "{chosen}");
    }
    let whole = ask((0, 60), "window=1h").await.ok(200);
    assert_eq!((&whole["items"][0]["count"], &whole["warnings"]), (&json!(1_310), &json!([])));
    let text = ask((0, 60), "window=1h&group_by=n&format=csv").await;
    assert_eq!((text.text().lines().count(), text.header("usage-warnings")), (1 + 1_001, "group_overflow"));
    let question = |hours: i64| {
        let to = first.plus(Millis::hours(hours));
        json!({"metrics": ["m"], "group_by": ["n"], "window": "1h", "from": first.to_string(), "to": to.to_string()})
    };
    let asked = server.post("/v1/usage/query", question(1)).await.ok(200);
    assert_eq!((told(&asked), warned(&asked)), ((1_000, 1_010, 300), overflows.to_vec()));
    let numbers = |usage: &Value| -> Vec<String> {
        usage["items"].as_array().unwrap().iter().map(|item| format!("{} {}", item["group"], item["count"])).collect()
    };
    assert_eq!(numbers(&asked), numbers(&hour));
    // Two hours have more than may be told apart.
    server.post("/v1/usage/query", question(2)).await.problem(422, "query_too_large");
    ask((0, 120), "window=1d&group_by=n").await.problem(422, "query_too_large");
}

/// Since when groups are whole is a moment of the sandbox's time, and stays that one when its clock is put forward.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandboxs_clock_moves_nothing_that_was_recorded() {
    let sandbox = Sandbox::start().await;
    let clock = async || {
        let now = sandbox.get("/v1/sandbox").await.ok(200)["clock"]["now"].clone();
        Timestamp::parse(now.as_str().unwrap()).unwrap()
    };
    let ask = async |from: Timestamp| {
        let path = format!("/v1/accounts/acme/usage?metric=m&window=1d&group_by=region&from={from}");
        sandbox.get(&path).await.ok(200)["warnings"].clone()
    };
    sandbox.advance("1d").await;
    sandbox.count("acme", "m", 1).await;
    let before = clock().await;
    let defined = sandbox.ask(Method::PUT, "/v1/metrics/m").json(&json!({"group_by": ["region"]}));
    defined.send().await.ok(201);
    let after = clock().await;
    sandbox.count("acme", "m", 1).await;
    let warned = ask(before).await;
    let since = Timestamp::parse(warned[0]["since"].as_str().unwrap()).unwrap();
    assert!((before..=after).contains(&since), "{before} {since} {after}");
    let silence = || {
        let matcher = json!({"name": "severity", "value": "info"});
        let ask = sandbox.ask(Method::POST, "/v1/silences").header("idempotency-key", "once");
        ask.json(&json!({"matchers": [matcher], "duration": "1h"})).send()
    };
    let first = silence().await;
    assert_eq!(first.ok(201)["status"], "active");
    sandbox.advance("2d").await;
    assert_eq!(ask(before).await, warned);
    sandbox.count("acme", "m", 1).await;
    assert_eq!(ask(clock().await).await, json!([]), "what came since is whole");
    let again = silence().await;
    assert_eq!((again.header("idempotent-replayed"), &again.bytes), ("true", &first.bytes));
}
