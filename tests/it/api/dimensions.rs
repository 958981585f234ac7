//! Dimensions that cannot be kept as they were sent: the usage counts, the answer says what was changed, and neither a
//! retry nor an edited metric makes a conflict.

use crate::server::{Answer, Server};
use reqwest::Method;
use serde_json::{Map, Value, json};

async fn send(server: &Server, kind: &str, body: Value) -> Answer {
    server.ask(Method::POST, "/v1/events").kind(kind).body(body.to_string()).send().await
}

/// Twenty dimensions that fit, and one by another name.
fn many(name: &str, value: &str) -> Map<String, Value> {
    let mut all: Map<String, Value> = (0..20).map(|number| (format!("d{number:02}"), json!(number))).collect();
    all.insert(name.to_owned(), json!(value));
    all
}

/// How many events of an account count.
async fn count(server: &Server, account: &str) -> u64 {
    server.settle().await;
    let usage = server.get(&format!("/v1/accounts/{account}/usage?window=1d&metric=tokens")).await.ok(200);
    usage["items"].as_array().unwrap().iter().map(|item| item["count"].as_u64().unwrap()).sum()
}

/// The count of each group of an account.
async fn groups(server: &Server, account: &str, by: &str) -> Vec<(String, u64)> {
    server.settle().await;
    let path = format!("/v1/accounts/{account}/usage?window=1d&metric=tokens&group_by={by}");
    let usage = server.get(&path).await.ok(200);
    let mut found: Vec<(String, u64)> = usage["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| item["count"] != 0)
        .map(|item| (item["group"][by].as_str().unwrap_or("").to_owned(), item["count"].as_u64().unwrap()))
        .collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attribute_that_nobody_asked_for_costs_no_usage() {
    let server = Server::start().await;
    let data = json!({"value": 12, "cost": 0.000_000_123_456_7, "size": 1e18, "prompt": "x".repeat(300)});
    let cloud =
        json!({"specversion": "1.0", "id": "1", "source": "/llm", "type": "tokens", "subject": "acme", "data": data});
    let native = json!({"account_id": "acme", "metric": "tokens", "id": "1", "source": "/llm", "value": 12, "dimensions":
        {"cost": 0.000_000_123_456_7, "size": 1e18, "prompt": "x".repeat(300)}});
    let answers = [
        send(&server, "application/cloudevents+json", cloud.clone()).await,
        send(&server, "application/cloudevents-batch+json", json!([cloud])).await,
        send(&server, "application/x-ndjson", cloud.clone()).await,
        send(&server, "application/json", native.clone()).await,
        server.post("/v1/events/batch", json!([native])).await,
    ];
    for (answer, parent) in answers.iter().zip(["/data", "/data", "/data", "/dimensions", "/dimensions"]) {
        let body = answer.ok(202);
        assert_eq!((&body["accepted"], &body["rejected"]), (&json!(1), &json!(0)));
        let result = &body["results"][0];
        assert_eq!((&result["status"], &result["id"], &result["index"]), (&json!("accepted"), &json!("1"), &json!(0)));
        let warnings = result["warnings"].as_array().unwrap();
        let found: Vec<(&str, String)> =
            warnings.iter().map(|w| (w["code"].as_str().unwrap(), w["pointer"].as_str().unwrap().to_owned())).collect();
        assert_eq!(
            found,
            [
                ("dimension_number_as_text", format!("{parent}/cost")),
                ("dimension_text_cut", format!("{parent}/prompt"))
            ]
        );
        assert!(warnings[0]["detail"].as_str().unwrap().ends_with(r#": "cost", "size""#), "{warnings:?}");
    }
    // It is the same event each time, whoever sends it in whatever form.
    assert_eq!(count(&server, "acme").await, 1);
    assert_eq!(server.get("/v1/quarantine").await.ok(200)["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_metric_groups_by_is_kept_first_and_an_edited_metric_makes_no_conflict() {
    let server = Server::start().await;
    server.put("/v1/metrics/tokens", json!({"group_by": ["zone"]})).await.ok(201);
    let event = |id: &str, name: &str, value: &str| json!({"account_id": "acme", "metric": "tokens", "id": id, "dimensions": many(name, value)});
    let answer = server.post("/v1/events", event("1", "zone", "eu")).await.ok(202);
    let warning = &answer["results"][0]["warnings"][0];
    assert_eq!((&warning["code"], &warning["pointer"]), (&json!("dimensions_left_out"), &json!("/dimensions/d19")));
    server.post("/v1/events", event("2", "zone", "us")).await.ok(202);
    server.post("/v1/events", event("2", "zone", "us")).await.ok(202);
    assert_eq!(groups(&server, "acme", "zone").await, [("eu".to_owned(), 1), ("us".to_owned(), 1)]);
    // Other dimensions are kept of the retries, and they are retries all the same.
    server.patch("/v1/metrics/tokens", json!({"group_by": ["d19"]})).await.ok(200);
    for id in ["1", "2"] {
        let value = if id == "1" { "eu" } else { "us" };
        let answer = server.post("/v1/events", event(id, "zone", value)).await.ok(202);
        assert_eq!(answer["results"][0]["warnings"][0]["pointer"], "/dimensions/zone");
    }
    assert_eq!(server.get("/v1/quarantine").await.ok(200)["items"], json!([]));
    // Another event under the same id is a conflict, though the same would be kept of both.
    server.post("/v1/events", event("1", "zone", "mars")).await.ok(202);
    server.settle().await;
    let quarantine = server.get("/v1/quarantine?code=event_conflict").await.ok(200);
    assert_eq!(quarantine["items"].as_array().unwrap().len(), 1, "{quarantine}");
    assert_eq!(count(&server, "acme").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_in_base64_are_what_they_encode() {
    let server = Server::start().await;
    let event = |id: &str, more: Value| {
        let mut event = json!({"specversion": "1.0", "id": id, "source": "/s", "type": "tokens", "subject": "acme",
            "datacontenttype": "application/json"});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    };
    server.put("/v1/metrics/tokens", json!({"group_by": ["model"]})).await.ok(201);
    // {"value":7,"model":"~?>"} has a sign that the URL's alphabet has not.
    let packed = "eyJ2YWx1ZSI6NywibW9kZWwiOiJ+Pz4ifQ==";
    for (kind, body) in [
        ("application/cloudevents+json", event("1", json!({"data_base64": packed}))),
        ("application/cloudevents+json", event("1", json!({"data_base64": packed, "data": null}))),
        (
            "application/cloudevents-batch+json",
            json!([event("1", json!({"data_base64": packed.trim_end_matches('=')}))]),
        ),
        ("application/x-ndjson", event("1", json!({"data": {"value": 7, "model": "~?>"}}))),
        ("application/cloudevents+json", event("2", json!({"data_base64": ""}))),
        ("application/cloudevents+json", event("2", json!({"data_base64": null}))),
    ] {
        assert_eq!(send(&server, kind, body.clone()).await.ok(202)["accepted"], 1, "{body}");
    }
    assert_eq!(groups(&server, "acme", "model").await, [(String::new(), 1), ("~?>".to_owned(), 1)]);
    for (more, pointer, detail) in [
        (json!({"data_base64": packed, "data": {}}), "/data_base64", "both"),
        (json!({"data_base64": "e30="}), "", ""),
        (json!({"data_base64": 7}), "/data_base64", "a string"),
        (json!({"data_base64": "{}"}), "/data_base64", "not valid base64"),
        (json!({"data_base64": "eyJ2YWx1ZSI6NywibW9kZWwiOiJ-Pz4ifQ=="}), "/data_base64", "not valid base64"),
        (json!({"data_base64": "aGVsbG8="}), "/data_base64", "data: "),
        (json!({"data_base64": "WzFd"}), "/data_base64", "a JSON object"),
    ] {
        let answer = send(&server, "application/cloudevents+json", event("3", more.clone())).await;
        if pointer.is_empty() {
            answer.ok(202);
            continue;
        }
        let problem = answer.problem(400, "invalid_cloudevent");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{more}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{more}: {problem}");
    }
    let batch = json!([event("4", json!({"data_base64": "!"})), event("5", json!({"data_base64": packed}))]);
    let answer = send(&server, "application/cloudevents-batch+json", batch).await.ok(202);
    assert_eq!((&answer["accepted"], &answer["results"][0]["code"]), (&json!(1), &json!("invalid_cloudevent")));
}
