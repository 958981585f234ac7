//! Sending events: every content type, what is told of each, and that one counts once.

use crate::server::{Answer, Server};
use highwater::domain::time::{Millis, Timestamp};
use highwater::runtime::clock;
use reqwest::Method;
use serde_json::{Value, json};

const LINES: &str = "application/x-ndjson";

async fn send(server: &Server, kind: &str, body: impl Into<Vec<u8>>) -> Answer {
    server.ask(Method::POST, "/v1/events").kind(kind).body(body).send().await
}

/// What an account used of `m` in all, once what was accepted is counted.
async fn used(server: &Server, account: &str) -> (String, u64) {
    server.settle().await;
    let usage = server.get(&format!("/v1/accounts/{account}/usage?window=1h&metric=m")).await.ok(200);
    let items = usage["items"].as_array().unwrap();
    let count = items.iter().map(|item| item["count"].as_u64().unwrap()).sum();
    let values: Vec<String> =
        items.iter().filter(|item| item["count"] != 0).map(|item| item["value"].to_string()).collect();
    (values.join("+"), count)
}

fn at(ago: Millis) -> String {
    clock::now().minus(ago).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_content_type_counts() {
    let server = Server::start().await;
    let native =
        json!({"account_id": "native", "metric": "m", "value": 2, "dimensions": {"region": "eu", "n": 1, "b": true}});
    let answer = server.post("/v1/events", native.clone()).await.ok(202);
    assert_eq!((&answer["accepted"], &answer["rejected"], &answer["results"]), (&json!(1), &json!(0), &json!([])));
    assert!(answer["receipt"].as_str().unwrap().starts_with("rcp_"));
    // Without a content type, it is JSON.
    server.ask(Method::POST, "/v1/events").body(native.to_string()).send().await.ok(202);
    assert_eq!(used(&server, "native").await, ("4".to_owned(), 2));

    let event = |account: &str, value: i64| json!({"account_id": account, "metric": "m", "value": value});
    let batch = json!({"events": [event("batch", 1), event("batch", 2)]});
    assert_eq!(server.post("/v1/events/batch", batch).await.ok(202)["accepted"], 2);
    assert_eq!(server.post("/v1/events/batch", json!([event("batch", 3)])).await.ok(202)["accepted"], 1);
    assert_eq!(used(&server, "batch").await, ("6".to_owned(), 3));

    let cloud = |account: &str, id: &str| {
        json!({"specversion": "1.0", "id": id, "source": "/s", "type": "m", "subject": account,
               "time": at(Millis::seconds(1)), "traceparent": "00-a-b-01", "data": {"value": 5, "region": "eu", "deep": {"x": 1}}})
    };
    send(&server, "application/cloudevents+json; charset=utf-8", cloud("cloud", "1").to_string()).await.ok(202);
    let pair = json!([cloud("cloud", "2"), cloud("cloud", "3")]).to_string();
    assert_eq!(send(&server, "application/cloudevents-batch+json", pair).await.ok(202)["accepted"], 2);

    let lines = format!("{}\n\n  {}\r\n{}", event("lines", 1), cloud("cloud", "4"), event("lines", 2));
    assert_eq!(send(&server, LINES, lines.clone()).await.ok(202)["accepted"], 3);
    assert_eq!(send(&server, "application/jsonl", lines).await.ok(202)["accepted"], 3);
    assert_eq!(used(&server, "lines").await, ("6".to_owned(), 4));
    assert_eq!(used(&server, "cloud").await, ("20".to_owned(), 4), "the fourth came twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn binary_cloudevents_are_percent_decoded_once() {
    let server = Server::start().await;
    let ask = |id: &str, subject: &str| {
        let ask = server.ask(Method::POST, "/v1/events?verbose=true").kind("application/json");
        let ask = ask.header("ce-specversion", "1.0").header("ce-type", "m").header("ce-source", "/s");
        ask.header("ce-id", id).header("ce-subject", subject).body(r#"{"value":3}"#)
    };
    let answer = ask("a%20b", "%62inary").send().await.ok(202);
    assert_eq!(answer["results"], json!([{"index": 0, "id": "a b", "status": "accepted"}]));
    assert_eq!(used(&server, "binary").await, ("3".to_owned(), 1));
    assert_eq!(ask("%2541", "binary").send().await.ok(202)["results"][0]["id"], "%41", "one round only");
    let bad = ask("%ff", "binary").send().await.problem(400, "invalid_cloudevent");
    assert_eq!((&bad["errors"][0]["pointer"], &bad["results"]), (&json!("/id"), &Value::Null));
    ask("x", "binary").header("ce-id", "y").send().await.problem(400, "invalid_cloudevent");
    ask("z", "binary").header("ce-specversion", "0.3").send().await.problem(400, "invalid_cloudevent");
    // What is a CloudEvent and no event of ours is refused as an event, by its id.
    let refused = ask("a%20c", "with%20space").send().await.problem(422, "batch_rejected");
    assert_eq!(
        (&refused["results"][0]["code"], &refused["results"][0]["id"]),
        (&json!("invalid_event"), &json!("a c"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_of_a_cloudevent_makes_a_request_a_binary_one() {
    let server = Server::start().await;
    let native = r#"{"account_id":"binary","metric":"m"}"#;
    for name in ["ce-id", "ce-type", "ce-source", "ce-anything"] {
        let ask = server.ask(Method::POST, "/v1/events").kind("application/json").header(name, "x").body(native);
        let problem = ask.send().await.problem(400, "invalid_cloudevent");
        assert!(problem["detail"].as_str().unwrap().contains("specversion is required"), "{name}: {problem}");
        assert_eq!(problem["errors"][0]["pointer"], "/specversion");
    }
    // A structured event says that it is one by its content type.
    let structured = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "m", "subject": "structured"});
    let ask = |body: &Value| {
        server.ask(Method::POST, "/v1/events").kind("application/cloudevents+json").body(body.to_string())
    };
    ask(&structured).header("ce-id", "x").send().await.ok(202);
    assert_eq!(used(&server, "structured").await, ("1".to_owned(), 1));
    // One that is broken alone is a broken request; among others it is a refused event.
    let broken = json!({"specversion": "1.0", "id": "2", "type": "m", "subject": "structured"});
    assert_eq!(ask(&broken).send().await.problem(400, "invalid_cloudevent")["errors"][0]["pointer"], "/source");
    let batch = json!([broken]).to_string();
    let ask = server.ask(Method::POST, "/v1/events").kind("application/cloudevents-batch+json").body(batch);
    let refused = ask.send().await.problem(422, "batch_rejected");
    assert_eq!(
        (&refused["results"][0]["code"], &refused["results"][0]["id"]),
        (&json!("invalid_cloudevent"), &json!("2"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_is_answered_for_itself() {
    let server = Server::start().await;
    let event = |extra: Value| {
        let mut event = json!({"account_id": "each", "metric": "m", "id": "ok"});
        event.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        event
    };
    let cases = [
        (json!({"value": "1e3"}), "", ""),
        (json!({"colour": 1}), "unknown_field", "/colour"),
        (json!({"value": "many"}), "invalid_event", "/value"),
        (json!({"value": "0.1234567891"}), "invalid_event", "/value"),
        (json!({"value": 1_000_000_000_000_001_i64}), "invalid_event", "/value"),
        (json!({"value": -1_000_000_000_000_001_i64}), "invalid_event", "/value"),
        (json!({"value": null}), "invalid_event", "/value"),
        (json!({"value": true}), "invalid_event", "/value"),
        (json!({"account_id": "with space"}), "invalid_event", "/account_id"),
        (json!({"account_id": 7}), "invalid_event", "/account_id"),
        (json!({"metric": "Upper"}), "invalid_event", "/metric"),
        (json!({"id": ""}), "invalid_event", "/id"),
        (json!({"id": "x".repeat(257)}), "invalid_event", "/id"),
        (json!({"timestamp": "yesterday"}), "invalid_event", "/timestamp"),
        (json!({"timestamp": at(Millis::hours(49))}), "timestamp_too_old", "/timestamp"),
        (json!({"timestamp": at(Millis::minutes(-6))}), "timestamp_in_future", "/timestamp"),
        (json!({"project_id": "payments"}), "invalid_event", "/project_id"),
        (json!({"dimensions": ["a"]}), "invalid_event", "/dimensions"),
        (json!({"dimensions": "a"}), "invalid_event", "/dimensions"),
        (json!({"dimensions": {"big": "x"}, "source": "x".repeat(70_000)}), "event_too_large", ""),
    ];
    let events: Vec<Value> = cases.iter().map(|(extra, _, _)| event(extra.clone())).collect();
    let answer = server.post("/v1/events/batch", json!({"events": events})).await.ok(202);
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(1), &json!(cases.len() - 1)));
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), cases.len() - 1, "the accepted one is not listed");
    for (result, (index, (extra, code, pointer))) in results.iter().zip(cases.iter().enumerate().skip(1)) {
        assert_eq!((&result["index"], &result["status"]), (&json!(index), &json!("rejected")), "{extra}");
        assert_eq!(result["code"], *code, "{extra}: {result}");
        assert_eq!(result["pointer"].as_str().unwrap_or(""), *pointer, "{extra}: {result}");
        let is_readable = *pointer != "/id" && *code != "event_too_large";
        assert_eq!(result["id"], if is_readable { json!("ok") } else { Value::Null }, "{extra}: {result}");
        assert!(result["detail"].as_str().is_some_and(|detail| detail.len() > 5), "{result}");
    }
    assert_eq!(used(&server, "each").await, ("1000".to_owned(), 1));
    let verbose =
        server.post("/v1/events/batch?verbose=true", json!([event(json!({})), {"metric": "m"}])).await.ok(202);
    assert_eq!(verbose["results"][0], json!({"index": 0, "id": "ok", "status": "accepted"}));
    assert_eq!(verbose["results"][1]["code"], "invalid_event");
    server.post("/v1/events?verbose=perhaps", event(json!({}))).await.problem(400, "invalid_parameter");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_accepted_is_a_problem_with_the_same_members() {
    let server = Server::start().await;
    let answer = server.post("/v1/events/batch", json!([{"metric": "m"}, 7])).await;
    let body = answer.problem(422, "batch_rejected");
    assert_eq!((&body["accepted"], &body["rejected"], &body["receipt"]), (&json!(0), &json!(2), &Value::Null));
    let codes: Vec<&Value> = body["results"].as_array().unwrap().iter().map(|result| &result["code"]).collect();
    assert_eq!(codes, ["invalid_event", "invalid_event"]);
    // Nothing was sent, so nothing was refused.
    assert_eq!(server.post("/v1/events/batch", json!({"events": []})).await.ok(202)["accepted"], 0);
    assert_eq!(send(&server, LINES, "\n\n").await.ok(202)["receipt"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_counts_once_and_a_conflict_is_set_aside() {
    let server = Server::start().await;
    let event = |account: &str, value: i64, source: &str| json!({"account_id": account, "metric": "m", "id": "1", "source": source, "value": value});
    for _ in 0..3 {
        server.post("/v1/events", event("once", 5, "a")).await.ok(202);
    }
    server.post("/v1/events", event("once", 6, "b")).await.ok(202);
    server.post("/v1/events", event("other", 7, "a")).await.ok(202);
    server.post("/v1/events", event("once", 9, "a")).await.ok(202);
    assert_eq!(used(&server, "once").await, ("11".to_owned(), 2));
    assert_eq!(used(&server, "other").await, ("7".to_owned(), 1));
    let quarantine = server.get("/v1/quarantine?code=event_conflict").await.ok(200);
    assert_eq!(quarantine["items"].as_array().unwrap().len(), 1, "{quarantine}");
    assert_eq!(quarantine["items"][0]["account_id"], "once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_under_a_key_counts_once() {
    let server = Server::start().await;
    let body =
        json!([{"account_id": "retry", "metric": "m", "value": 1}, {"account_id": "retry", "metric": "m", "value": 1}]);
    let ask = |key: &str| {
        server.ask(Method::POST, "/v1/events/batch?verbose=true").header("idempotency-key", key).json(&body)
    };
    let first = ask("k1").send().await.ok(202);
    assert_eq!(ask("\"k1\"").send().await.ok(202)["results"], first["results"], "the quoted form is the same key");
    assert_eq!(used(&server, "retry").await, ("2".to_owned(), 2), "equal events at two places are two");
    ask("k2").send().await.ok(202);
    assert_eq!(used(&server, "retry").await, ("4".to_owned(), 4));
    ask("").send().await.problem(400, "idempotency_key_invalid");
    ask(&"k".repeat(256)).send().await.problem(400, "idempotency_key_invalid");
    // Keys of another lineage are other keys.
    let other = server.key_with(&[highwater::domain::control::resource::Scope::WriteEvents]).await;
    ask("k1").key(&other).send().await.ok(202);
    assert_eq!(used(&server, "retry").await, ("6".to_owned(), 6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decimals_are_kept_exactly() {
    let server = Server::start().await;
    let noon = Timestamp(clock::now().0 / 86_400_000 * 86_400_000);
    for (account, values, sum) in [
        ("tenths", vec!["0.1", "0.2"], "0.3"),
        ("digits", vec!["0.123456789"], "0.123456789"),
        ("largest", vec!["1000000000000000", "0.000000001"], "1000000000000000.000000001"),
        ("refund", vec!["5", "-5.5"], "-0.5"),
        ("zero", vec!["-0"], "0"),
        ("exponent", vec!["1.5e3", "25E-1"], "1502.5"),
    ] {
        for value in values {
            // As a number and as a text, each read as it is written.
            let text = format!(r#"{{"account_id":"{account}","metric":"m","value":"{value}","timestamp":"{noon}"}}"#);
            let number = text.replace(&format!("\"{value}\""), value).replace(account, &format!("{account}.n"));
            for body in [text, number] {
                server.ask(Method::POST, "/v1/events").kind("application/json").body(body).send().await.ok(202);
            }
        }
        server.settle().await;
        for account in [account.to_owned(), format!("{account}.n")] {
            let path =
                format!("/v1/accounts/{account}/usage?window=1d&metric=m&from={noon}&to={}", noon.plus(Millis(1)));
            let body = server.get(&path).await.text();
            assert!(body.contains(&format!(r#""value":{sum},"#)), "{account}: {body}");
        }
    }
}
