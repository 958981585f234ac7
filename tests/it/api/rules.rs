//! Rules over the API: what is wrong with one is told with its place and what would be right.

use crate::server::Server;
use serde_json::{Value, json};

async fn start() -> Server {
    let server = Server::start().await;
    let channel = json!({"type": "webhook", "name": "hook", "url": "https://example.com/"});
    server.post("/v1/channels", channel).await.ok(201);
    server
}

fn alert(rule: &str) -> Value {
    json!({"account_id": "a", "rule": rule, "channel": "webhook"})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_zero_allows_nothing() {
    let server = Server::start().await;
    let hook = json!({"type": "webhook", "name": "hook", "url": "https://example.com/"});
    server.post("/v1/channels", hook).await.ok(201);
    let quota = "/v1/accounts/acme/quotas/calls";
    let made = server.put(quota, json!({"limit": 0, "period": "month"})).await.ok(201);
    assert_eq!(made["warnings"][0]["code"], "limit_zero", "{made}");
    assert_eq!(server.get("/v1/accounts/acme/quotas").await.ok(200)["items"][0]["warnings"], made["warnings"]);
    let create = async |account: &str, rule: &str| {
        let body = json!({"account_id": account, "rule": rule, "channel": "webhook"});
        server.post("/v1/alerts", body).await.ok(201)
    };
    let warned = |alert: &Value| {
        let codes = alert["warnings"].as_array().unwrap().iter().map(|warning| warning["code"].clone());
        codes.filter(|code| *code == "limit_zero").count()
    };
    let high = create("acme", "quota_percent > 85").await;
    assert_eq!((warned(&high), warned(&create("acme", "used > 5").await)), (1, 0));
    assert_eq!(warned(&create("acme", "quota_percent(\"other\") > 5").await), 0);
    assert_eq!(warned(&create("*", "quota_percent(\"calls\") > 5").await), 0, "of some other account it may be more");
    let level = async || server.get("/v1/accounts/acme/usage?metric=calls").await.ok(200)["quotas"][0].clone();
    let explain = format!("/v1/alerts/{}/explain?account_id=acme", high["id"].as_str().unwrap());
    server.count("acme", "calls", 0).await;
    let nothing = level().await;
    assert_eq!((&nothing["percent"], &nothing["over"]), (&json!(0), &json!(false)), "{nothing}");
    let evaluation = server.get(&explain).await.ok(200)["evaluation"].clone();
    assert_eq!((&evaluation["verdict"], &evaluation["value"]), (&json!("false"), &json!(0)), "{evaluation}");
    server.count("acme", "calls", 1).await;
    let something = level().await;
    assert_eq!((&something["percent"], &something["over"]), (&Value::Null, &json!(true)), "{something}");
    let explained = server.get(&explain).await.ok(200);
    assert_eq!((&explained["state"], &explained["evaluation"]["verdict"]), (&json!("firing"), &json!("true")));
    for shown in [&explained["transition"], &explained["evaluation"]] {
        assert_eq!((&shown["value"], &shown["over"], &shown["used"]), (&Value::Null, &json!(true), &json!(1)));
        let inputs = shown["inputs"].as_array().unwrap();
        assert!(inputs.contains(&json!({"expression": "quota_percent", "value": "over"})), "{shown}");
    }
    let path = format!("/v1/alerts/{}/instances", high["id"].as_str().unwrap());
    let instance = server.get(&path).await.ok(200)["items"][0].clone();
    assert_eq!((&instance["value"], &instance["over"]), (&Value::Null, &json!(true)), "{instance}");
    let incident = server.get("/v1/incidents").await.ok(200)["items"][0].clone();
    assert_eq!((&incident["value"], &incident["over"]), (&Value::Null, &json!(true)), "{incident}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slips_are_told_in_their_own_words() {
    let server = start().await;
    let existing = server.post("/v1/alerts", alert("used > 1")).await.ok(201);
    let path = format!("/v1/alerts/{}", existing["id"].as_str().unwrap());
    let check = async |rule: &str, code: &str, (offset, length): (usize, usize), says: &str| {
        let problem = server.post("/v1/alerts", alert(rule)).await.problem(422, code);
        let fault = &problem["errors"][0];
        assert_eq!(
            (&problem["param"], &fault["pointer"], &fault["code"]),
            (&json!("rule"), &json!("/rule"), &json!(code)),
            "{rule}"
        );
        assert_eq!((&fault["offset"], &fault["length"]), (&json!(offset), &json!(length)), "{rule}: {fault}");
        let told = format!("{} {}", fault["detail"].as_str().unwrap(), fault["hint"].as_str().unwrap_or(""));
        assert!(told.contains(says), "{rule}: {told}");
        // The same in a change of a rule, and in what ends a firing.
        server.patch(&path, json!({"rule": rule})).await.problem(422, code);
        let recover = server.patch(&path, json!({"recover": rule})).await.problem(422, code);
        assert_eq!(recover["errors"][0]["pointer"], "/recover");
    };
    check("quota_percent => 85", "rule_syntax", (14, 2), "write >=").await;
    check("quota_percent = 85", "rule_syntax", (14, 1), "write ==").await;
    check("quota_percent > 85%", "rule_syntax", (18, 1), "in percent already").await;
    check("sum > 1 and count > 2", "rule_syntax", (8, 3), "write &&").await;
    check("sum > 1 or count > 2", "rule_syntax", (8, 2), "write ||").await;
    check("85 < quota_percent < 95", "rule_syntax", (19, 1), "do not chain").await;
    check("quota_percent > \"85\"", "rule_type", (16, 4), "leave the quotes out").await;
    check("quota_percnt > 85", "rule_syntax", (0, 12), "did you mean quota_percent?").await;
    check("1 / nonsense > 85", "rule_syntax", (4, 8), "").await;
    check("sum", "rule_type", (0, 3), "compare it").await;
    check(&format!("{}sum{} > 1", "(".repeat(100), ")".repeat(100)), "rule_too_complex", (33, 1), "32 levels").await;
    let deep = format!("{}1", "(".repeat(10_000));
    let problem = server.post("/v1/alerts", alert(&deep)).await.problem(422, "rule_too_complex");
    assert!(problem["detail"].as_str().unwrap().contains("512"), "{problem}");
    let long = format!("sum > 1{}", " ".repeat(510));
    server.post("/v1/alerts", alert(&long)).await.problem(422, "rule_too_complex");
    let wide = (0..70).map(|_| "sum>1").collect::<Vec<_>>().join("||");
    server.post("/v1/alerts", alert(&wide)).await.problem(422, "rule_too_complex");
    server.post("/v1/alerts", alert("")).await.problem(422, "rule_syntax");
    server
        .post("/v1/alerts", json!({"account_id": "a", "rule": 85, "channel": "webhook"}))
        .await
        .problem(422, "validation_failed");
    assert_eq!(server.get(&path).await.ok(200)["rule"], "used > 1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_rules_are_taken_with_a_warning() {
    let server = start().await;
    let codes = async |body: Value| {
        let made = server.post("/v1/alerts", body).await.ok(201);
        let codes =
            made["warnings"].as_array().unwrap().iter().map(|warning| warning["code"].as_str().unwrap().to_owned());
        codes.collect::<Vec<_>>()
    };
    let on = |account: &str, rule: &str| json!({"account_id": account, "rule": rule, "channel": "webhook"});
    assert_eq!(codes(on("a", "quota_percent > 8500")).await, ["unit", "no_quota"]);
    assert_eq!(codes(on("a", "quota_percent > 0.85")).await, ["unit", "no_quota"]);
    assert_eq!(codes(on("a", "count < 0")).await, ["always_false"]);
    assert_eq!(codes(on("a", "sum(\"nobody.knows\") > 1")).await, ["unknown_metric"]);
    assert_eq!(codes(on("*", "sum(\"nobody.knows\") > 1")).await, ["unknown_metric"]);
    assert_eq!(codes(on("a", "quota_percent(\"calls\") > 85")).await, ["unknown_metric", "no_quota"]);
    let mut metric = on("a", "sum > 1");
    metric["metric"] = json!("nobody.knows");
    assert_eq!(codes(metric).await, ["unknown_metric"]);
    server.put("/v1/accounts/a/quotas/calls", json!({"limit": 1, "period": "day"})).await.ok(201);
    server.put("/v1/metrics/defined", json!({})).await.ok(201);
    server.count("other", "sent", 1).await;
    let none: [&str; 0] = [];
    assert_eq!(codes(on("a", "quota_percent(\"calls\") > 85 && quota_percent > 50")).await, none);
    assert_eq!(codes(on("a", "sum(\"defined\") > 85")).await, none);
    assert_eq!(codes(on("*", "sum(\"sent\") > 85")).await, none);
    assert_eq!(codes(on("a", "sum(\"sent\") > 85")).await, ["unknown_metric"], "this account never sent any");
    let made = server.post("/v1/alerts", on("a", "  ((quota_percent)>85)")).await.ok(201);
    assert_eq!(
        (&made["rule"], &made["rule_normalized"]),
        (&json!("  ((quota_percent)>85)"), &json!("quota_percent > 85"))
    );
}
