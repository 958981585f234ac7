//! Usage: windows, measures, groups, levels of quotas, and what each answer says of its finality.

use crate::server::{Options, Server, eventually};
use highwater::api::ListenerLimits;
use highwater::domain::time::{Millis, Period, Timestamp, WINDOW};
use highwater::runtime::clock;
use serde_json::{Value, json};
use std::time::Duration;

/// A whole day in the past that is not too old for events: its last 20 hours at least.
pub(super) fn yesterday() -> Timestamp {
    Timestamp(clock::now().0 / 86_400_000 * 86_400_000 - 86_400_000)
}

pub(super) async fn send(server: &Server, events: &[(&str, &str, Timestamp)]) -> String {
    let events: Vec<Value> = events
        .iter()
        .map(|(metric, value, at)| json!({"account_id": "acme", "metric": metric, "value": value, "timestamp": at.to_string()}))
        .collect();
    server.post("/v1/events/batch", json!({"events": events})).await.ok(202)["receipt"].as_str().unwrap().to_owned()
}

pub(super) fn values(usage: &Value) -> Vec<String> {
    usage["items"].as_array().unwrap().iter().map(|item| item["value"].to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_reads_what_was_just_written() {
    let server = Server::start().await;
    for n in 1..=20 {
        let receipt = send(&server, &[("m", "1", clock::now())]).await;
        let path = format!("/v1/accounts/acme/usage?window=1h&metric=m&after={receipt}");
        let usage = server.get(&path).await.ok(200);
        let count: u64 = usage["items"].as_array().unwrap().iter().map(|item| item["count"].as_u64().unwrap()).sum();
        assert_eq!(count, n);
        assert_eq!(
            server.get(&format!("/v1/receipts/{receipt}")).await.ok(200),
            json!({"receipt": receipt, "applied": true})
        );
    }
    // Many at once take a while to be counted, and are all there.
    let lines = "{\"account_id\":\"acme\",\"metric\":\"many\"}\n".repeat(10_000);
    for n in 1..=3 {
        let ask = server.ask(reqwest::Method::POST, "/v1/events").kind("application/x-ndjson").body(lines.clone());
        let receipt = ask.send().await.ok(202)["receipt"].as_str().unwrap().to_owned();
        let path = format!("/v1/accounts/acme/usage?window=1d&metric=many&after={receipt}");
        let usage = server.get(&path).await.ok(200);
        let count: u64 = usage["items"].as_array().unwrap().iter().map(|item| item["count"].as_u64().unwrap()).sum();
        assert_eq!(count, n * 10_000);
    }
    for bad in ["rcp_", "rcp_%21", "7.1"] {
        server.get(&format!("/v1/receipts/{bad}")).await.problem(404, "resource_not_found");
        server.get(&format!("/v1/accounts/acme/usage?after={bad}")).await.problem(400, "invalid_parameter");
    }
    // A place that no log has, and one that does not exist yet: `999.1` and `0.999999`.
    for made_up in ["rcp_OTk5LjE", "rcp_MC45OTk5OTk"] {
        server.get(&format!("/v1/receipts/{made_up}")).await.problem(404, "resource_not_found");
        server.get(&format!("/v1/accounts/acme/usage?after={made_up}")).await.problem(404, "resource_not_found");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_of_every_width_hold_their_start_and_not_their_end() {
    let server = Server::start().await;
    let noon = yesterday().plus(Millis::hours(12));
    let at = |minutes: i64| noon.plus(Millis::minutes(minutes));
    let just_before = at(5).minus(Millis(1));
    let events = [
        ("m", "1", noon),
        ("m", "2", just_before),
        ("m", "4", at(5)),
        ("m", "8", at(15)),
        ("m", "16", at(60)),
        ("m", "32", noon.minus(Millis(1))),
    ];
    let receipt = send(&server, &events).await;
    let ask = async |query: &str| {
        let path = format!("/v1/accounts/acme/usage?metric=m&after={receipt}&{query}");
        server.get(&path).await.ok(200)
    };
    let usage = ask(&format!("window=5m&from={noon}&to={}", at(20))).await;
    assert_eq!(values(&usage), ["3", "4", "0", "8"]);
    assert_eq!(
        (&usage["from"], &usage["to"], &usage["window"]),
        (&json!(noon.to_string()), &json!(at(20).to_string()), &json!("5m"))
    );
    assert_eq!(usage["items"][0]["start"], noon.to_string());
    assert_eq!(usage["items"][0]["end"], at(5).to_string());
    assert_eq!(values(&ask(&format!("window=15m&from={noon}&to={}", at(75))).await), ["7", "8", "0", "0", "16"]);
    assert_eq!(values(&ask(&format!("window=1h&from={}&to={}", at(-60), at(120))).await), ["32", "15", "16"]);
    assert_eq!(values(&ask(&format!("window=1d&from={noon}&to={}", at(1))).await), ["63"]);
    // Any multiple of five minutes that divides a day, told in its shortest form.
    for (window, canonical, expected) in [
        ("10m", "10m", vec!["7", "8"]),
        ("30m", "30m", vec!["15"]),
        ("45m", "45m", vec!["15"]),
        ("3600s", "1h", vec!["15"]),
        ("720m", "12h", vec!["31"]),
        ("24h", "1d", vec!["63"]),
    ] {
        let usage = ask(&format!("window={window}&from={noon}&to={}", at(16))).await;
        assert_eq!(
            (values(&usage), &usage["window"]),
            (expected.iter().map(|v| v.to_string()).collect(), &json!(canonical))
        );
        let question =
            json!({"account_ids": ["acme"], "window": window, "from": noon.to_string(), "to": at(16).to_string()});
        let asked = server.post("/v1/usage/query", question).await.ok(200);
        assert_eq!(
            (values(&asked), &asked["window"]),
            (expected.iter().map(|v| v.to_string()).collect(), &json!(canonical))
        );
    }
    // The ends are moved out to whole windows, and told.
    let moved = ask(&format!("window=5m&from={}&to={}", at(1), at(6))).await;
    assert_eq!((values(&moved), &moved["to"]), (vec!["3".to_owned(), "4".to_owned()], &json!(at(10).to_string())));
    // Without ends: the last twelve, the running one among them.
    let last = ask("window=5m").await;
    assert_eq!(last["items"].as_array().unwrap().len(), 12);
    let (from, to) = (
        Timestamp::parse(last["from"].as_str().unwrap()).unwrap(),
        Timestamp::parse(last["to"].as_str().unwrap()).unwrap(),
    );
    assert_eq!(to.since(from), Millis::hours(1));
    for query in [
        "window=7m",
        "window=25m",
        "window=2d",
        "window=0s",
        "window=",
        "from=yesterday",
        "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
        "agg=median",
        "format=xml",
        "metric=Upper",
    ] {
        server.get(&format!("/v1/accounts/acme/usage?{query}")).await.problem(400, "invalid_parameter");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_measure_of_a_window() {
    let server = Server::start().await;
    let noon = yesterday().plus(Millis::hours(12));
    let at = |seconds: i64| noon.plus(Millis::seconds(seconds));
    let receipt = send(&server, &[("m", "3", at(1)), ("m", "-1", at(2)), ("m", "2.5", at(3))]).await;
    for (agg, value, empty) in [
        ("sum", "4.5", "0"),
        ("count", "3", "0"),
        ("min", "-1", "null"),
        ("max", "3", "null"),
        ("avg", "1.5", "null"),
        ("last", "2.5", "null"),
        ("rate", "0.015", "0"),
    ] {
        let path = format!("/v1/accounts/acme/usage?metric=m&after={receipt}&from={noon}&to={}&agg={agg}", at(600));
        assert_eq!(values(&server.get(&path).await.ok(200)), [value, empty], "{agg}");
    }
    // A definition's own measure stands where none is asked for.
    server.put("/v1/metrics/m", json!({"unit": "calls", "aggregate": "max"})).await.ok(201);
    let usage = server.get(&format!("/v1/accounts/acme/usage?metric=m&from={noon}&to={}", at(300))).await.ok(200);
    assert_eq!((&usage["items"][0]["value"], &usage["items"][0]["unit"]), (&json!(3), &json!("calls")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_and_spreadsheets() {
    let server = Server::start().await;
    server.put("/v1/metrics/m", json!({"group_by": ["region", "tier"]})).await.ok(201);
    let noon = yesterday().plus(Millis::hours(12));
    let event = |region: &str, value: i64| json!({"account_id": "acme", "metric": "m", "value": value, "timestamp": noon.to_string(), "dimensions": {"region": region, "tier": "=1+1,\"x\""}});
    let events = json!([event("eu", 1), event("us", 2), event("eu", 4)]);
    // What is sent behind the answer to a definition is counted by it.
    let receipt = server.post("/v1/events/batch", events).await.ok(202)["receipt"].as_str().unwrap().to_owned();
    let span = format!("from={noon}&to={}&after={receipt}", noon.plus(Millis::minutes(5)));
    let usage = server.get(&format!("/v1/accounts/acme/usage?metric=m&group_by=region,tier&{span}")).await.ok(200);
    assert_eq!(values(&usage), ["5", "2"]);
    assert_eq!(usage["items"][0]["group"], json!({"region": "eu", "tier": "=1+1,\"x\""}));
    assert_eq!(values(&server.get(&format!("/v1/accounts/acme/usage?metric=m&{span}")).await.ok(200)), ["7"]);
    for (query, wrong) in [
        ("group_by=region", "group_by"),
        ("metric=m&group_by=region,colour", "group_by"),
        ("metric=m&group_by=", "group_by"),
        ("metric=other&group_by=region,tier", "group_by"),
        ("dim[region]=eu", "dim"),
        ("metric=m&dim[colour]=red", "dim"),
    ] {
        let problem = server.get(&format!("/v1/accounts/acme/usage?{query}")).await.problem(400, "invalid_parameter");
        assert_eq!(problem["param"], wrong, "{query}");
    }
    for query in ["dim=eu", "dim[region=eu", "sum[region]=eu"] {
        server.get(&format!("/v1/accounts/acme/usage?metric=m&{query}")).await.problem(400, "unknown_parameter");
    }
    let csv = server.get(&format!("/v1/accounts/acme/usage?metric=m&format=csv&group_by=region,tier&{span}")).await;
    assert_eq!((csv.status, csv.header("content-type")), (200, "text/csv; charset=utf-8"));
    let text = csv.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "metric,start,end,value,count,complete,late_events,revision,group,overflow");
    assert_eq!(lines.len(), 3);
    // No cell begins as a formula does.
    for cell in text.split([',', '\n']) {
        assert!(!cell.trim_start_matches('"').starts_with(['=', '@', '+']), "{cell} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_told_apart_and_chosen_by_any_of_their_dimensions() {
    let server = Server::start().await;
    server.put("/v1/metrics/m", json!({"group_by": ["tier", "region", "size"]})).await.ok(201);
    let noon = yesterday().plus(Millis::hours(12));
    let event = |value: i64, dimensions: Value| json!({"account_id": "acme", "metric": "m", "value": value, "timestamp": noon.to_string(), "dimensions": dimensions});
    let events = json!([
        event(1, json!({"region": "eu", "tier": "free", "size": 5})),
        event(2, json!({"region": "eu", "tier": "paid", "size": 5})),
        event(4, json!({"region": "us", "tier": "free", "size": 7})),
        event(8, json!({"tier": "free"}))
    ]);
    let receipt = server.post("/v1/events/batch", events).await.ok(202)["receipt"].as_str().unwrap().to_owned();
    let span = format!("from={noon}&to={}&after={receipt}", noon.plus(Millis::minutes(5)));
    let ask = async |query: &str| server.get(&format!("/v1/accounts/acme/usage?metric=m&{span}&{query}")).await.ok(200);
    let groups =
        |usage: &Value| usage["items"].as_array().unwrap().iter().map(|i| i["group"].clone()).collect::<Vec<_>>();
    let by_region = ask("group_by=region").await;
    let expected = [json!({"region": "eu"}), json!({"region": "us"}), json!({"region": null})];
    assert_eq!(
        (values(&by_region), groups(&by_region)),
        (["3", "4", "8"].map(str::to_owned).to_vec(), expected.to_vec())
    );
    // The order of the names does not matter, and all of them are the whole list.
    let swapped = ask("group_by=region,tier").await;
    assert_eq!(swapped["items"], ask("group_by=tier,region").await["items"]);
    assert_eq!(values(&swapped), ["1", "2", "4", "8"]);
    assert_eq!(values(&ask("group_by=size,region,tier").await).len(), 4);
    // A choice without groups is one total, which is zero where nothing is chosen.
    for (query, expected) in [
        ("dim[region]=eu", "3"),
        ("dim%5Bregion%5D=eu&dim[region]=us", "7"),
        ("dim[region]=eu&dim[tier]=paid", "2"),
        ("dim[size]=5", "3"),
        ("dim[region]=none", "0"),
        ("dim[region]=eu&agg=count", "2"),
    ] {
        let usage = ask(query).await;
        assert_eq!((values(&usage), groups(&usage)), (vec![expected.to_owned()], vec![Value::Null]), "{query}");
    }
    assert_eq!(groups(&ask("dim[region]=eu&group_by=tier").await), [json!({"tier": "free"}), json!({"tier": "paid"})]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_about_one_account_is_bounded_as_one_about_all() {
    let server = Server::start().await;
    server.put("/v1/metrics/m", json!({"group_by": ["n"]})).await.ok(201);
    let start = clock::now().window_start(WINDOW);
    for window in 0..12 {
        let at = start.minus(Millis(WINDOW.0 * window)).to_string();
        let event = |n: i64| json!({"account_id": "acme", "metric": "m", "timestamp": at, "dimensions": {"n": n}});
        let events: Vec<Value> = (0..1_000).map(event).collect();
        server.post("/v1/events/batch", json!({"events": events})).await.ok(202);
    }
    server.settle().await;
    let span = |windows: i64| {
        format!("metric=m&from={}&to={}", start.minus(Millis(WINDOW.0 * (windows - 1))), start.plus(WINDOW))
    };
    let usage = server.get(&format!("/v1/accounts/acme/usage?group_by=n&{}", span(11))).await.ok(200);
    assert_eq!(usage["items"].as_array().unwrap().len(), 11_000);
    let refused = server.get(&format!("/v1/accounts/acme/usage?group_by=n&{}", span(12))).await;
    assert_eq!(refused.problem(422, "query_too_large")["limit"], 11_000);
    // The total of as many groups is one point a window.
    assert_eq!(values(&server.get(&format!("/v1/accounts/acme/usage?{}", span(12))).await.ok(200)), vec!["1000"; 12]);
    let limits = ListenerLimits { query: Duration::from_millis(1), ..ListenerLimits::default() };
    let hurried = Server::start_with(Options { limits, ..Options::default() }).await;
    hurried.put("/v1/metrics/m", json!({"group_by": ["n"]})).await.ok(201);
    let event = |n: i64| json!({"account_id": "acme", "metric": "m", "dimensions": {"n": n}});
    let events: Vec<Value> = (0..1_000).map(event).collect();
    hurried.post("/v1/events/batch", json!({"events": events})).await.ok(202);
    hurried.settle().await;
    let refused = eventually("a question that takes too long", async || {
        let answer = hurried.get("/v1/accounts/acme/usage?metric=m&group_by=n").await;
        (answer.status != 200).then_some(answer)
    });
    refused.await.problem(504, "query_timeout");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_says_how_final_it_is() {
    let server = Server::start().await;
    let noon = yesterday().plus(Millis::hours(12));
    // The first event of a closed window makes it; another one behind it is late, too.
    let receipt = send(&server, &[("m", "1", noon)]).await;
    let span = format!("metric=m&from={noon}&to={}", noon.plus(Millis::minutes(5)));
    let first = server.get(&format!("/v1/accounts/acme/usage?{span}&after={receipt}")).await.ok(200);
    assert_eq!(first["complete"], true);
    assert_eq!((&first["items"][0]["complete"], &first["items"][0]["late_events"]), (&json!(true), &json!(1)));
    let as_of = Timestamp::parse(first["as_of"].as_str().unwrap()).unwrap();
    assert!(clock::now().since(as_of) < Millis::minutes(1), "{first}");
    let receipt = send(&server, &[("m", "2", noon)]).await;
    let second = server.get(&format!("/v1/accounts/acme/usage?{span}&after={receipt}")).await.ok(200);
    assert_eq!((&second["items"][0]["value"], &second["items"][0]["late_events"]), (&json!(3), &json!(2)));
    assert!(second["items"][0]["revision"].as_u64() > first["items"][0]["revision"].as_u64());
    let receipt = send(&server, &[("m", "2", clock::now())]).await;
    let running = server.get(&format!("/v1/accounts/acme/usage?metric=m&after={receipt}")).await.ok(200);
    assert_eq!(running["complete"], false);
    let items = running["items"].as_array().unwrap();
    assert_eq!((&items.last().unwrap()["complete"], &items[0]["complete"]), (&json!(false), &json!(true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_and_unknown_are_not_the_same() {
    let server = Server::start().await;
    server.get("/v1/accounts/nobody/usage").await.problem(404, "resource_not_found");
    server.post("/v1/accounts", json!({"id": "quiet"})).await.ok(201);
    assert_eq!(server.get("/v1/accounts/quiet/usage").await.ok(200)["items"], json!([]));
    assert_eq!(values(&server.get("/v1/accounts/quiet/usage?metric=m").await.ok(200)), vec!["0"; 12]);
    server.put("/v1/accounts/quiet/quotas/calls", json!({"limit": 7, "period": "day"})).await.ok(201);
    let usage = server.get("/v1/accounts/quiet/usage").await.ok(200);
    assert_eq!(values(&usage), vec!["0"; 12], "what is limited is known");
    let level = &usage["quotas"][0];
    assert_eq!(
        (&level["metric"], &level["limit"], &level["used"], &level["remaining"], &level["percent"]),
        (&json!("calls"), &json!(7), &json!(0), &json!(7), &json!(0))
    );
    let resets = Timestamp::parse(level["resets_at"].as_str().unwrap()).unwrap();
    assert!(resets > clock::now() && resets.0 % 86_400_000 == 0);
    let year = "window=5m&from=2026-01-01T00:00:00Z&to=2026-12-31T00:00:00Z";
    let problem = server.get(&format!("/v1/accounts/quiet/usage?{year}")).await.problem(422, "query_too_large");
    assert_eq!(problem["limit"], 11_000);
    server.get(&format!("/v1/accounts/quiet/usage?metric=m&{year}")).await.problem(422, "query_too_large");
    let far = "from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z&window=1d";
    server.get(&format!("/v1/accounts/quiet/usage?{far}")).await.problem(422, "query_too_large");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_level_counts_over_its_own_period() {
    let server = Server::start().await;
    let periods = ["hour", "day", "week", "month"];
    for period in periods {
        let quota = json!({"limit": 100, "period": period});
        server.put(&format!("/v1/accounts/acme/quotas/{period}"), quota).await.ok(201);
    }
    let now = clock::now();
    let times = [Millis::ZERO, Millis::hours(1), Millis::hours(24), Millis::hours(47)].map(|back| now.minus(back));
    let events: Vec<_> = periods.iter().flat_map(|metric| times.map(|at| (*metric, "1", at))).collect();
    let receipt = send(&server, &events).await;
    let usage = server.get(&format!("/v1/accounts/acme/usage?after={receipt}")).await.ok(200);
    let levels = usage["quotas"].as_array().unwrap();
    assert_eq!(levels.len(), 4);
    let as_of = Timestamp::parse(usage["as_of"].as_str().unwrap()).unwrap();
    for level in levels {
        let period = [Period::Hour, Period::Day, Period::Week, Period::Month]
            .into_iter()
            .find(|period| level["period"] == period.name())
            .unwrap();
        let (start, end) = period.bounds(as_of);
        let used = times.iter().filter(|at| (start..end).contains(*at)).count();
        assert_eq!((&level["metric"], &level["used"]), (&json!(period.name()), &json!(used)), "{usage}");
        assert_eq!(level["resets_at"], end.to_string());
    }
    let one = server.get("/v1/accounts/acme/usage?metric=day").await.ok(200);
    assert_eq!(one["quotas"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn levels_of_quotas_are_told_exactly() {
    let server = Server::start().await;
    server.put("/v1/accounts/*/quotas/calls", json!({"limit": 100, "period": "month"})).await.ok(201);
    server
        .put("/v1/accounts/acme/quotas/peak", json!({"limit": "0.3", "period": "month", "aggregate": "max"}))
        .await
        .ok(201);
    server.count("acme", "calls", 57).await;
    let receipt = send(&server, &[("peak", "0.1", clock::now()), ("peak", "0.2", clock::now())]).await;
    let usage = server.get(&format!("/v1/accounts/acme/usage?after={receipt}")).await;
    let text = usage.text();
    assert!(
        text.contains(
            r#""metric":"calls","limit":100,"used":57,"remaining":43,"percent":57,"over":false,"period":"month""#
        ),
        "{text}"
    );
    assert!(text.contains(r#""metric":"peak","limit":0.3,"used":0.2,"remaining":0.1,"percent":66.6"#), "{text}");
}
