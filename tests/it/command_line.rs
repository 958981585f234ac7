//! Commands for operators, beside a node that serves and without one.

use crate::process::{Server, bootstrap, call, highwater};
use serde_json::Value;

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
