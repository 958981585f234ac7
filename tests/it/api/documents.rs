//! The description of the API: it is what the router has, what is checked in, and it is read without the network.

use super::operations;
use crate::server::Server;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

fn described() -> Value {
    highwater::api::openapi()
}

#[test]
fn the_checked_in_description_is_the_present_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/openapi.json");
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(kept == described(), "run: cargo run -- openapi > schemas/openapi.json");
}

#[test]
fn every_reference_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let document = described();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 50);
    for reference in found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
}

#[test]
fn every_operation_is_described_with_its_scope_and_errors() {
    let document = described();
    let mut ids = BTreeSet::new();
    let mut found = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{method} {path}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{name}");
            if !path.starts_with("/v1/") && path != "/metrics" {
                assert_eq!(operation["security"], json!([{}]), "{name}");
                continue;
            }
            let listed = (method.as_str(), path.as_str());
            if operations::OF_CLIENTS.contains(&listed) {
                assert_eq!(operation["security"], json!([{"client": []}]), "{name}");
                continue;
            }
            if operations::OPEN_TO_ANY.contains(&listed) {
                assert_eq!(operation["security"], json!([{"key": []}]), "{name}");
                continue;
            }
            found.insert(name.clone(), operation["security"][0]["key"][0].as_str().unwrap().to_owned());
            for status in [400, 401, 403, 404, 405, 406, 408, 409, 412, 413, 414, 415, 422, 429, 431, 500, 501, 503] {
                let mut answer = &operation["responses"][status.to_string()];
                if let Some(shared) = answer["$ref"].as_str() {
                    answer = document.pointer(&shared[1..]).unwrap();
                }
                let answer = &answer["content"]["application/problem+json"];
                assert_eq!(answer["schema"]["$ref"], "#/components/schemas/ProblemBody", "{name} {status}");
            }
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let has = |wanted: &str| parameters.iter().any(|parameter| parameter["name"] == wanted);
            assert_eq!(has("page_size"), has("cursor"), "{name}");
            if has("page_size") {
                let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"];
                let page = document.pointer(&schema.as_str().unwrap()[1..]).unwrap();
                let members: BTreeSet<&String> = page["properties"].as_object().unwrap().keys().collect();
                let expected = ["has_more", "items", "next_cursor", "page", "page_size"].map(str::to_owned);
                assert!(members.into_iter().eq(&expected), "{name}");
            }
        }
    }
    let expected: BTreeMap<String, String> = operations::all()
        .iter()
        .map(|op| (format!("{} {}", op.method.as_str().to_lowercase(), op.path), op.scope.text().to_owned()))
        .collect();
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_router_has_what_is_described_and_nothing_else() {
    let server = Server::start().await;
    for (path, item) in described()["paths"].as_object().unwrap() {
        let call =
            path.replace("{account_id}", "a").replace("{metric}", "m").replace("{id}", "x").replace("{receipt}", "x");
        let call = call.replace("{delivery_id}", "x");
        let answer = server.ask(Method::TRACE, &call).send().await;
        if operations::OF_CLIENTS.contains(&("post", path)) {
            assert_eq!((answer.status, &answer.json()["error"]), (405, &json!("invalid_request")), "{path}");
        } else {
            answer.problem(405, "method_not_allowed");
        }
        let allowed: BTreeSet<String> =
            answer.header("allow").split(',').map(str::to_lowercase).filter(|method| method != "head").collect();
        let described: BTreeSet<String> = item.as_object().unwrap().keys().cloned().collect();
        assert_eq!(allowed, described, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_bodies_of_events_are_described() {
    let document = described();
    let content = &document["paths"]["/v1/events"]["post"]["requestBody"]["content"];
    let kinds: Vec<&String> = content.as_object().unwrap().keys().collect();
    let expected = [
        "application/cloudevents+json",
        "application/cloudevents-batch+json",
        "application/json",
        "application/x-ndjson",
    ];
    assert_eq!(kinds, expected);
    let event = &document["components"]["schemas"]["NativeEvent"];
    assert_eq!(event["required"], json!(["account_id", "metric"]));
    assert_eq!(event["properties"]["metric"]["pattern"], "^[a-z][a-z0-9_.]{0,63}$");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documentation_is_read_offline() {
    let server = Server::start().await;
    let served = server.ask(Method::GET, "/v1/openapi.json").anonymous().send().await;
    assert_eq!(served.ok(200), described());
    let redirect = server.ask(Method::GET, "/docs").anonymous().send().await;
    assert_eq!((redirect.status, redirect.header("location")), (303, "/docs/"));
    let mut pages = vec!["/docs/".to_owned(), "/docs/errors".to_owned(), "/docs/guide".to_owned()];
    let mut seen = BTreeSet::new();
    while let Some(path) = pages.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let answer = server.ask(Method::GET, &path).anonymous().send().await;
        assert_eq!(answer.status, 200, "{path}");
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'self';") && !policy.contains("http"), "{path}: {policy}");
        let text = answer.text();
        for attribute in ["src=\"", "href=\""] {
            for target in
                text.split(attribute).skip(1).filter(|_| answer.header("content-type").starts_with("text/html"))
            {
                let target = target.split('"').next().unwrap();
                assert!(!target.contains("//"), "{path} loads {target}");
                if let Some(own) =
                    target.strip_prefix("./").or_else(|| (!target.starts_with(['/', '#'])).then_some(target))
                {
                    pages.push(format!("/docs/{own}"));
                }
            }
        }
    }
    assert!(seen.contains("/docs/swagger-ui-bundle.js") && seen.contains("/docs/swagger-initializer.js"), "{seen:?}");
    let initializer = server.get("/docs/swagger-initializer.js").await.text();
    assert!(initializer.contains("\"validatorUrl\": \"none\"") && !initializer.contains("http"), "{initializer}");
}

/// Every code that an answer may carry has its paragraph.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_code_has_a_paragraph() {
    let server = Server::start().await;
    let page = server.ask(Method::GET, "/docs/errors").anonymous().send().await.text();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api");
    let mut codes = BTreeSet::new();
    for file in std::fs::read_dir(source).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap_or_default();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ").replace("( \"", "(\"");
        for call in ["bad_request(\"", "unprocessable(\"", "unavailable(\"", "code: \""] {
            codes.extend(text.split(call).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
    }
    assert!(codes.contains("query_too_large") && codes.contains("not_yet_applied"), "{codes:?}");
    // Codes of warnings are no errors.
    codes.retain(|code| !["limit_zero", "no_quota", "span_rounded", "unknown_metric"].contains(&code.as_str()));
    for code in &codes {
        assert!(page.contains(&format!("id=\"{code}\"")), "{code}");
    }
}
