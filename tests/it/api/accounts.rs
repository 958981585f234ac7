//! Accounts, their quotas, and metric definitions.

use crate::server::Server;
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accounts_life() {
    let server = Server::start().await;
    let path = "/v1/accounts/acme";
    server.get(path).await.problem(404, "resource_not_found");
    let made = server
        .post("/v1/accounts", json!({"id": "acme", "name": "Acme", "metadata": {"tier": "gold", "seat": "1"}}))
        .await;
    let body = made.ok(201);
    assert_eq!((made.header("location"), made.header("etag")), (path, "\"1\""));
    assert_eq!(
        (&body["id"], &body["object"], &body["mode"], &body["version"]),
        (&json!("acme"), &json!("account"), &json!("live"), &json!(1))
    );
    assert_eq!(server.get(path).await.ok(200), body);
    server.post("/v1/accounts", json!({"id": "acme"})).await.problem(409, "resource_conflict");
    // A merge patch leaves what it does not name, and clears what is null.
    let patched = server.patch(path, json!({"metadata": {"tier": null, "new": "2"}})).await.ok(200);
    assert_eq!((&patched["name"], &patched["metadata"]), (&json!("Acme"), &json!({"seat": "1", "new": "2"})));
    let merge =
        server.ask(Method::PATCH, path).kind("application/merge-patch+json").body(r#"{"name":null,"metadata":null}"#);
    let cleared = merge.send().await.ok(200);
    assert_eq!((&cleared["name"], &cleared["metadata"], &cleared["version"]), (&Value::Null, &json!({}), &json!(3)));
    assert_eq!(cleared["created_at"], body["created_at"]);
    server.patch(path, json!({"id": "other"})).await.problem(422, "unknown_field");
    for (field, value) in [
        ("name", json!("")),
        ("name", json!("x".repeat(201))),
        ("name", json!("\u{7}")),
        ("metadata", json!({"k": "x".repeat(501)})),
        ("metadata", json!({"": "x"})),
        ("metadata", json!({"k": 1})),
    ] {
        server.patch(path, json!({field: value})).await.problem(422, "validation_failed");
    }
    let many: serde_json::Map<_, _> = (0..21).map(|n| (n.to_string(), json!("x"))).collect();
    server.post("/v1/accounts", json!({"id": "b", "metadata": many})).await.problem(422, "validation_failed");
    for id in ["", "with space", "ünï", &"x".repeat(129)] {
        server.post("/v1/accounts", json!({"id": id})).await.problem(422, "validation_failed");
    }
    assert_eq!(server.delete(path).await.status, 204);
    server.get(path).await.problem(404, "resource_not_found");
    server.delete(path).await.problem(404, "resource_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_was_only_seen_is_one_until_it_is_deleted() {
    let server = Server::start().await;
    server.count("seen", "m", 3).await;
    let seen = server.get("/v1/accounts/seen").await;
    assert_eq!((&seen.ok(200)["version"], seen.header("etag")), (&json!(0), "\"0\""));
    assert_eq!(server.patch("/v1/accounts/seen", json!({"name": "Seen"})).await.ok(200)["version"], 1);
    assert_eq!(server.delete("/v1/accounts/seen").await.status, 204);
    server.get("/v1/accounts/seen/usage").await.problem(404, "resource_not_found");
    assert_eq!(server.get("/v1/accounts").await.ok(200)["items"], json!([]));
    // Events behind the deletion begin anew.
    server.count("seen", "m", 1).await;
    let usage = server.get("/v1/accounts/seen/usage?window=1h&metric=m").await.ok(200);
    let count: u64 = usage["items"].as_array().unwrap().iter().map(|item| item["count"].as_u64().unwrap()).sum();
    assert_eq!(count, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_guard_changes() {
    let server = Server::start().await;
    let path = "/v1/accounts/acme";
    server.post("/v1/accounts", json!({"id": "acme"})).await.ok(201);
    let patch =
        |etag: &str| server.ask(Method::PATCH, path).header("if-match", etag).json(&json!({"name": "x"})).send();
    patch("\"1\"").await.ok(200);
    assert_eq!(patch("\"1\"").await.problem(412, "version_mismatch")["current_version"], 2);
    patch("W/\"2\"").await.ok(200);
    patch("3").await.ok(200);
    patch("*").await.ok(200);
    for bad in ["seven", "\"\"", "\"1\", \"2\"", "\"-1\"", "\"+1\"", "ünï"] {
        patch(bad).await.problem(400, "invalid_header");
    }
    let get = |etag: &str| server.ask(Method::GET, path).header("if-none-match", etag).send();
    let unchanged = get("\"5\"").await;
    assert_eq!((unchanged.status, unchanged.bytes.len(), unchanged.header("etag")), (304, 0, "\"5\""));
    assert_eq!((unchanged.header("x-mode"), unchanged.header("cache-control")), ("live", "no-store"));
    for etag in ["W/\"5\"", "\"1\", \"5\"", "*"] {
        assert_eq!(get(etag).await.status, 304, "{etag}");
    }
    assert_eq!(get("\"4\"").await.ok(200)["version"], 5);
    let delete = |etag: &str| server.ask(Method::DELETE, path).header("if-match", etag).send();
    delete("\"4\"").await.problem(412, "version_mismatch");
    assert_eq!(delete("\"5\"").await.status, 204);
    // Only where there is none yet.
    let create = || server.ask(Method::PUT, "/v1/metrics/m").header("if-none-match", "*").json(&json!({})).send();
    create().await.ok(201);
    create().await.problem(412, "version_mismatch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotas_of_one_and_of_all() {
    let server = Server::start().await;
    let put = |account: &str, body: Value| {
        let path = format!("/v1/accounts/{account}/quotas/calls");
        let server = &server;
        async move { server.put(&path, body).await }
    };
    let made = put("acme", json!({"limit": 5000, "period": "day"})).await;
    let body = made.ok(201);
    assert_eq!((made.header("location"), made.header("etag")), ("/v1/accounts/acme/quotas/calls", "\"1\""));
    assert_eq!(
        (&body["limit"], &body["period"], &body["aggregate"], &body["account_id"]),
        (&json!(5000), &json!("day"), &json!("sum"), &json!("acme"))
    );
    assert_eq!(server.get("/v1/accounts/acme").await.ok(200)["version"], 1, "the account is known");
    assert_eq!(put("acme", json!({"limit": "0.5", "period": "week", "aggregate": "max"})).await.ok(200)["version"], 2);
    put("*", json!({"limit": 9, "period": "month"})).await.ok(201);
    let exact = server.get("/v1/accounts/acme/quotas").await.text();
    assert!(exact.contains("\"limit\":0.5,"), "{exact}");
    assert_eq!(server.get("/v1/accounts/*/quotas").await.ok(200)["items"][0]["limit"], 9);
    for (field, value) in [
        ("limit", json!(-1)),
        ("limit", json!(1e16)),
        ("limit", json!("x")),
        ("period", json!("year")),
        ("aggregate", json!("avg")),
    ] {
        let mut body = json!({"limit": 1, "period": "day"});
        body[field] = value;
        let problem = put("acme", body).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], format!("/{field}"), "{problem}");
    }
    put("acme", json!({"period": "day"})).await.problem(422, "validation_failed");
    put("with%20space", json!({"limit": 1, "period": "day"})).await.problem(404, "resource_not_found");
    server
        .put("/v1/accounts/acme/quotas/Upper", json!({"limit": 1, "period": "day"}))
        .await
        .problem(400, "invalid_parameter");
    server.get("/v1/accounts/nobody/quotas").await.problem(404, "resource_not_found");
    assert_eq!(server.delete("/v1/accounts/acme/quotas/calls").await.status, 204);
    server.delete("/v1/accounts/acme/quotas/calls").await.problem(404, "resource_not_found");
    let level = server.get("/v1/accounts/acme/usage?metric=calls").await.ok(200)["quotas"][0].clone();
    assert_eq!(
        (&level["limit"], &level["period"]),
        (&json!(9), &json!("month")),
        "that of all stands where there is no own"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metric_definitions() {
    let server = Server::start().await;
    let path = "/v1/metrics/api.calls";
    let made = server.put(path, json!({"unit": "calls", "aggregate": "last", "group_by": ["region"]})).await;
    let body = made.ok(201);
    assert_eq!(
        (made.header("location"), &body["metric"], &body["object"]),
        (path, &json!("api.calls"), &json!("metric"))
    );
    let patched = server.patch(path, json!({"unit": null})).await.ok(200);
    assert_eq!(
        (&patched["unit"], &patched["aggregate"], &patched["group_by"]),
        (&Value::Null, &json!("last"), &json!(["region"]))
    );
    let cleared = server.patch(path, json!({"aggregate": null, "group_by": null})).await.ok(200);
    assert_eq!(
        (&cleared["aggregate"], &cleared["group_by"], &cleared["version"]),
        (&json!("sum"), &json!([]), &json!(3))
    );
    for body in [
        json!({"group_by": ["a", "b", "c", "d"]}),
        json!({"group_by": ["a", "a"]}),
        json!({"group_by": [""]}),
        json!({"aggregate": "avg"}),
        json!({"unit": ""}),
    ] {
        server.put(path, body).await.problem(422, "validation_failed");
    }
    server.put(path, json!({"unti": "x"})).await.problem(422, "unknown_field");
    server.patch("/v1/metrics/other", json!({})).await.problem(404, "resource_not_found");
    server.put("/v1/metrics/Upper", json!({})).await.problem(400, "invalid_parameter");
    assert_eq!(server.delete(path).await.status, 204);
    server.delete(path).await.problem(404, "resource_not_found");
    assert_eq!(server.get("/v1/metrics").await.ok(200)["items"], json!([]));
}

/// An account has a row for each of its epochs, and only that of the present one counts: a page of the store may end among
/// those of one account.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_that_were_deleted_often_are_listed_once_and_always() {
    let server = Server::start().await;
    let names = ["a", "b", "c", "d"];
    for round in 0..34 {
        let events: Vec<Value> = names.map(|name| json!({"account_id": name, "metric": "m"})).to_vec();
        let receipt = server.post("/v1/events/batch", json!({"events": events})).await.ok(202)["receipt"].clone();
        let receipt = receipt.as_str().unwrap();
        server.get(&format!("/v1/accounts/a/usage?after={receipt}")).await.ok(200);
        if round < 33 {
            for name in names {
                assert_eq!(server.delete(&format!("/v1/accounts/{name}")).await.status, 204);
            }
        }
    }
    for query in ["", "&sort=created_at", "&sort=-created_at"] {
        for size in [1, 3, 100] {
            let mut next = Some(format!("/v1/accounts?page_size={size}{query}"));
            let mut seen = Vec::new();
            while let Some(path) = next {
                let page = server.get(&path).await.ok(200);
                seen.extend(
                    page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()),
                );
                let cursor = page["next_cursor"].as_str();
                next = cursor.map(|cursor| format!("/v1/accounts?cursor={cursor}{query}"));
            }
            seen.sort_unstable();
            assert_eq!(seen, names, "{size} {query}");
        }
    }
}
