//! Questions across accounts and about the past: usage queries, previews, explanations.

use crate::server::{Options, Server, eventually};
use highwater::api::ListenerLimits;
use highwater::domain::time::{Millis, WINDOW};
use highwater::runtime::clock;
use serde_json::{Value, json};
use std::time::Duration;

async fn send(server: &Server, events: Value) {
    server.post("/v1/events/batch", json!({"events": events})).await.ok(202);
    server.settle().await;
}

/// The start of the window that began `back` windows ago.
fn window(back: i64) -> String {
    clock::now().window_start(WINDOW).minus(Millis(back * WINDOW.0)).to_string()
}

fn values(answer: &Value, name: &str) -> Vec<Value> {
    answer["items"].as_array().unwrap().iter().map(|item| item[name].clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_is_added_up_across_accounts() {
    let server = Server::start().await;
    server.put("/v1/metrics/calls", json!({"unit": "calls", "group_by": ["region", "tier"]})).await.ok(201);
    let event = |account: &str, metric: &str, value: i64, back: i64, region: &str| {
        json!({"account_id": account, "metric": metric, "value": value, "timestamp": window(back),
               "dimensions": {"region": region, "tier": "free"}})
    };
    send(
        &server,
        json!([
            event("a", "calls", 1, 20, "eu"),
            event("a", "calls", 2, 20, "us"),
            event("b", "calls", 4, 20, "eu"),
            event("b", "jobs", 8, 20, "eu"),
            event("c", "calls", 16, 18, "eu")
        ]),
    )
    .await;
    let ask = async |mut more: Value| {
        more["from"] = json!(window(20));
        more["to"] = json!(window(17));
        server.post("/v1/usage/query", more).await
    };
    let all = ask(json!({})).await.ok(200);
    assert_eq!(values(&all, "account_id"), ["a", "b", "b", "c"]);
    assert_eq!(
        (values(&all, "value"), values(&all, "metric")),
        (
            vec![json!(3), json!(4), json!(8), json!(16)],
            vec![json!("calls"), json!("calls"), json!("jobs"), json!("calls")]
        )
    );
    assert_eq!((&all["complete"], &all["page"], &all["has_more"]), (&json!(true), &json!(1), &json!(false)));
    assert_eq!((&all["items"][0]["unit"], &all["items"][0]["start"]), (&json!("calls"), &json!(window(20))));
    let summed = ask(json!({"group_by": [], "metrics": ["calls"]})).await.ok(200);
    assert_eq!(values(&summed, "value"), [7, 16]);
    assert_eq!(values(&summed, "account_id"), [Value::Null, Value::Null]);
    let hour = ask(json!({"group_by": ["metric"], "window": "1d", "agg": "count", "account_ids": ["a", "b", "x"]}))
        .await
        .ok(200);
    assert_eq!(
        (values(&hour, "metric"), values(&hour, "value")),
        (vec![json!("calls"), json!("jobs")], vec![json!(3), json!(1)])
    );
    let by_region = ask(json!({"group_by": ["region"], "metrics": ["calls"], "agg": "max"})).await.ok(200);
    assert_eq!(
        values(&by_region, "group"),
        [json!({"region": "eu"}), json!({"region": "eu"}), json!({"region": "us"})]
    );
    assert_eq!(values(&by_region, "value"), [4, 16, 2]);
    // What was deleted is in no answer.
    server.delete("/v1/accounts/b").await.ok(204);
    assert_eq!(values(&ask(json!({})).await.ok(200), "account_id"), ["a", "c"]);
    let other = server.owner_of(server.new_workspace().await, highwater::domain::id::Mode::Live).await;
    let theirs = server.ask(reqwest::Method::POST, "/v1/usage/query").key(&other).json(&json!({"account_ids": ["a"]}));
    assert_eq!(theirs.send().await.ok(200)["items"], json!([]));
    for (wrong, pointer) in [
        (json!({"group_by": ["region"]}), "/group_by/0"),
        (json!({"group_by": ["region"], "metrics": ["calls", "jobs"]}), "/group_by/0"),
        (json!({"window": "7m"}), "/window"),
        (json!({"agg": "median"}), "/agg"),
        (json!({"account_ids": []}), "/account_ids"),
        (json!({"account_ids": ["a", "*"]}), "/account_ids/1"),
    ] {
        assert_eq!(ask(wrong).await.problem(422, "validation_failed")["errors"][0]["pointer"], pointer);
    }
    ask(json!({"account": "a"})).await.problem(422, "unknown_field");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_bounded() {
    let server = Server::start().await;
    let many: Vec<Value> = (0..1_000).map(|n| json!({"account_id": format!("a{n}"), "metric": "calls"})).collect();
    send(&server, json!(many)).await;
    let ten_windows = json!({"from": window(9), "to": window(-1)});
    assert_eq!(server.post("/v1/usage/query", ten_windows).await.ok(200)["items"].as_array().unwrap().len(), 1_000);
    server.post("/v1/usage/query", json!({"from": window(11), "to": window(-1)})).await.problem(422, "query_too_large");
    send(&server, json!([{"account_id": "more", "metric": "calls"}])).await;
    let one_window = json!({"from": window(0), "to": window(-1)});
    server.post("/v1/usage/query", one_window.clone()).await.problem(422, "query_too_large");
    server
        .post("/v1/usage/query", json!({"from": "2026-01-01T00:00:00Z", "to": "2026-11-01T00:00:00Z"}))
        .await
        .problem(422, "query_too_large");
    // Added up, it is one group.
    let summed = json!({"from": window(0), "to": window(-1), "group_by": []});
    assert_eq!(values(&server.post("/v1/usage/query", summed).await.ok(200), "count"), [1_001]);
    let limits = ListenerLimits { query: Duration::from_millis(1), ..ListenerLimits::default() };
    let hurried = Server::start_with(Options { limits, ..Options::default() }).await;
    let many: Vec<Value> = (0..1_000).map(|n| json!({"account_id": format!("a{n}"), "metric": "calls"})).collect();
    send(&hurried, json!(many)).await;
    let refused = eventually("a query that takes too long", async || {
        let answer = hurried.post("/v1/usage/query", json!({"from": window(9), "to": window(-1)})).await;
        (answer.status != 200).then_some(answer)
    });
    refused.await.problem(504, "query_timeout");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_tells_what_a_rule_would_have_done() {
    let server = Server::start().await;
    let event = |value: i64, back: i64| json!({"account_id": "acme", "metric": "calls", "value": value, "timestamp": window(back)});
    send(&server, json!([event(5, 30), event(60, 25), event(70, 24), event(5, 23), event(80, 20)])).await;
    let ask = async |mut more: Value| {
        for (name, value) in [("account_id", json!("acme")), ("from", json!(window(30))), ("to", json!(window(10)))] {
            if more.get(name).is_none() {
                more[name] = value;
            }
        }
        server.post("/v1/alerts/preview", more).await
    };
    let seen = ask(json!({"rule": "sum(\"calls\") > 50"})).await.ok(200);
    let fired = seen["would_fire"].as_array().unwrap();
    assert_eq!(fired.iter().map(|f| f["peak"].clone()).collect::<Vec<_>>(), [70, 80]);
    assert!(fired.iter().all(|f| f["from"].as_str() < f["to"].as_str()), "{seen}");
    assert_eq!(seen["first_match"], fired[0]["from"]);
    assert!(
        fired[0]["from"].as_str().unwrap() >= window(25).as_str()
            && fired[0]["from"].as_str().unwrap() < window(24).as_str()
    );
    assert!(seen["evaluations"].as_u64().unwrap() >= 20);
    assert_eq!(seen["rule_ast"]["operator"], ">");
    assert_eq!(seen["rule_ast"]["left"], json!({"type": "input", "name": "sum", "metric": "calls"}));
    // The newest closed window stands until the next one closes: the pair for 10 minutes and a half, the lone one for half of that.
    let held = ask(json!({"rule": "sum > 50", "for": "10m"})).await.ok(200);
    assert_eq!(held["would_fire"].as_array().unwrap().len(), 1);
    assert_eq!(held["would_fire"][0]["metric"], "calls");
    assert_eq!(ask(json!({"rule": "sum < 0"})).await.ok(200)["would_fire"], json!([]));
    // Levels count from the period's beginning; nothing is stored.
    server.put("/v1/accounts/acme/quotas/calls", json!({"limit": 200, "period": "month"})).await.ok(201);
    let level = ask(json!({"rule": "used > 130", "metric": "calls"})).await.ok(200);
    assert!(level["would_fire"].as_array().unwrap().len() <= 1, "{level}");
    assert_eq!(server.get("/v1/alerts").await.ok(200)["items"], json!([]));
    assert_eq!(server.get("/v1/incidents").await.ok(200)["items"], json!([]));
    ask(json!({"rule": "sum >"})).await.problem(422, "rule_syntax");
    ask(json!({"rule": "sum > 1", "from": "2026-01-01T00:00:00Z"})).await.problem(422, "query_too_large");
    ask(json!({"rule": "sum > 1", "from": window(5), "to": window(9)})).await.problem(422, "validation_failed");
    ask(json!({"rule": "sum > 1", "step": "7m"})).await.problem(422, "validation_failed");
    ask(json!({"rule": "sum > 1", "account_id": "nobody"})).await.problem(404, "resource_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_explanation_names_what_produced_the_state() {
    let server = Server::start().await;
    let channel = json!({"type": "webhook", "name": "hook", "url": "https://example.com/"});
    server.post("/v1/channels", channel).await.ok(201);
    server.put("/v1/accounts/*/quotas/calls", json!({"limit": 100, "period": "month"})).await.ok(201);
    let alert = json!({"account_id": "*", "rule": "quota_percent > 85 && used > 1", "channel": "webhook"});
    let alert = server.post("/v1/alerts", alert).await.ok(201)["id"].as_str().unwrap().to_owned();
    server.count("acme", "calls", 50).await;
    let path = format!("/v1/alerts/{alert}/explain?account_id=acme");
    let calm = server.get(&path).await.ok(200);
    assert_eq!((&calm["state"], &calm["evaluation"]["verdict"]), (&json!("ok"), &json!("false")));
    assert_eq!((&calm["evaluation"]["value"], &calm["evaluation"]["limit"]), (&json!(50), &json!(100)));
    let before = clock::now().to_string();
    tokio::time::sleep(Duration::from_millis(5)).await;
    server.count("acme", "calls", 40).await;
    let told = server.get(&path).await.ok(200);
    assert_eq!(
        (&told["state"], &told["metric"], &told["evaluation"]["verdict"]),
        (&json!("firing"), &json!("calls"), &json!("true"))
    );
    let history = server.get(&format!("/v1/alerts/{alert}/history")).await.ok(200);
    assert_eq!(told["transition"], history["items"][0]);
    assert!(told["log"].as_str().unwrap().starts_with('p') && told["transition"]["position"].as_u64() > Some(0));
    let inputs = told["evaluation"]["inputs"].as_array().unwrap();
    assert!(inputs.contains(&json!({"expression": "quota_percent > 85", "value": "true"})), "{told}");
    assert_eq!((&told["evaluation"]["over"], &told["evaluation"]["window_closed"]), (&json!(false), &Value::Null));
    let earlier = server.get(&format!("{path}&metric=calls&at={before}")).await.ok(200);
    assert_eq!(earlier["state"], "ok");
    server.get(&format!("/v1/alerts/{alert}/explain")).await.problem(400, "invalid_parameter");
    server.get(&format!("{path}&metric=jobs")).await.problem(404, "resource_not_found");
    server.get(&format!("/v1/alerts/{alert}/explain?account_id=nobody")).await.problem(404, "resource_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_firing_is_explained_by_its_open_window() {
    let server = Server::start().await;
    let channel = json!({"type": "webhook", "name": "hook", "url": "https://example.com/"});
    server.post("/v1/channels", channel).await.ok(201);
    let alert = json!({"account_id": "*", "rule": "sum > 100", "channel": "webhook", "labels": {"team": "a"}});
    let alert = server.post("/v1/alerts", alert).await.ok(201)["id"].as_str().unwrap().to_owned();
    // The state outlives the window in the worst case, too: it is evaluated again at its close alone.
    let silence = json!({"matchers": [{"name": "team", "value": "a"}], "duration": "1h"});
    let silence = server.post("/v1/silences", silence).await.ok(201)["id"].as_str().unwrap().to_owned();
    server.count("acme", "calls", 150).await;
    let path = format!("/v1/alerts/{alert}/explain?account_id=acme");
    let check = |told: &Value| {
        let (transition, evaluation) = (&told["transition"], &told["evaluation"]);
        assert_eq!((&told["state"], &evaluation["verdict"]), (&json!("firing"), &json!("true")), "{told}");
        assert_eq!((&transition["value"], &evaluation["value"]), (&json!(150), &json!(150)), "{told}");
        assert_eq!((&transition["from"], &transition["to"]), (&json!("ok"), &json!("firing")), "{told}");
    };
    check(&server.get(&path).await.ok(200));
    // What is told again changes no state, so it is not what decided.
    server.post(&format!("/v1/silences/{silence}/expire"), json!({})).await.ok(200);
    let history = eventually("the end of the silence", async || {
        let history = server.get(&format!("/v1/alerts/{alert}/history")).await.ok(200);
        (history["items"].as_array().unwrap().len() == 2).then_some(history)
    })
    .await;
    assert_eq!(history["items"][0]["reason"], "silence_ended");
    // The message rests on the open window, too.
    assert_eq!((&history["items"][0]["value"], &history["items"][1]["value"]), (&json!(150), &json!(150)), "{history}");
    let told = server.get(&path).await.ok(200);
    check(&told);
    assert_eq!(told["transition"], history["items"][1]);
}
