//! Commands for operators, beside a node that serves and without one.

use crate::process::{Server, bootstrap, call, highwater};
use serde_json::Value;
use std::process::Command;

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = highwater(arguments);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

async fn whoami(server: &Server, key: &str) -> Value {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/v1/whoami", server.base);
    let (status, who) = call(&http, ("GET", &url, key), None).await.unwrap();
    assert_eq!(status, 200, "{who}");
    who
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_a_key_that_exists_can_be_changed() {
    let folder = tempfile::tempdir().unwrap();
    let (data, key) = (folder.path().to_str().unwrap(), bootstrap(folder.path()));
    let server = Server::start(folder.path());
    let who = whoami(&server, &key).await;
    assert_eq!(who["rate_limits"][0]["limit"], Value::Null, "{who}");
    let id = who["key_id"].as_str().unwrap().to_owned();
    let limit = |more: &[&str]| run(&[&["limit", &id, "--data", data], more].concat());
    let (code, said) = limit(&["--requests", "600"]);
    assert_eq!(code, Some(3), "{said}");
    server.stop();
    assert_eq!(limit(&["--requests", "600"]), (Some(0), format!("{id}: 600 requests a minute\n")));
    assert_eq!(limit(&[]).0, Some(2));
    assert_eq!(limit(&["--requests", "1", "--default"]).0, Some(2));
    let (code, said) = run(&["limit", "key_01J9Z0000000000000000000AA", "--data", data, "--default"]);
    assert_eq!((code, said.contains("there is no API key key_01J9Z0000000000000000000AA")), (Some(1), true), "{said}");
    let server = Server::start(folder.path());
    assert_eq!(whoami(&server, &key).await["rate_limits"][0]["limit"], 600);
    server.stop();
    assert_eq!(limit(&["--default"]).0, Some(0));
    let server = Server::start(folder.path());
    assert_eq!(whoami(&server, &key).await["rate_limits"][0]["limit"], Value::Null);
    server.stop();
}

/// Where a filter of the log is given.
#[derive(Clone, Copy, Debug)]
enum Given {
    Flag,
    Variable,
    File,
}

/// Serves where an address is taken, so that it ends at once; returns the code and what it said.
fn logging(given: Given, filter: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command.args(["serve", "--admin", "127.0.0.1:0", "--listen", &taken.local_addr().unwrap().to_string()]);
    command.arg("--data").arg(folder.path().join("data"));
    match given {
        Given::Flag => command.args(["--log", filter]),
        Given::Variable => command.env("HIGHWATER_LOG", filter),
        Given::File => {
            let file = folder.path().join("highwater.toml");
            std::fs::write(&file, format!("log = {filter:?}\nlog_format = \"json\"\n")).unwrap();
            command.arg("--config").arg(file)
        }
    };
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_word_that_is_no_level_is_refused_wherever_it_is_given() {
    for given in [Given::Flag, Given::Variable, Given::File] {
        for (filter, wrong) in [
            ("verbose", "log: \"verbose\" is not a level; expected error, warn, info, debug, trace or off"),
            ("info,verbose", "log: \"verbose\" is not a level; expected"),
            ("highwater::api", "log: \"highwater::api\" is not a level; expected"),
            ("warnn", "log: \"warnn\" is not a level, did you mean warn?; expected"),
            ("", "log: \"\" has an empty directive; expected"),
        ] {
            let (code, said) = logging(given, filter);
            assert_eq!((code, said.contains(wrong)), (Some(2), true), "{given:?} {filter:?}: {said}");
        }
        let (code, said) = logging(given, "warn,highwater::api=debug");
        assert_eq!((code, said.contains("cannot listen on")), (Some(7), true), "{given:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_log_is_printed_beside_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    bootstrap(&data);
    let server = Server::start(&data);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for path in ["/v1/whoami", "/v1/alerts"] {
        let refused = http.get(format!("{}{path}", server.base)).bearer_auth("pk_live_nobodys").send().await.unwrap();
        assert_eq!(refused.status(), 401);
    }
    let printed = || {
        let output = highwater(&["audit", "--data", data.to_str().unwrap()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let lines = crate::server::eventually("the entry", async || Some(printed()).filter(|text| !text.is_empty())).await;
    assert_eq!(lines.lines().count(), 1, "once in an hour: {lines}");
    let entry: serde_json::Value = serde_json::from_str(&lines).unwrap();
    assert_eq!(
        (&entry["action"], &entry["code"], &entry["ip"]),
        (&"credential.present".into(), &"invalid_api_key".into(), &"127.0.0.1".into())
    );
    server.stop();
}
