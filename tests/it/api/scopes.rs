//! What each scope and each role opens: every operation of the description against every one of them.

use super::operations;
use super::things::{call, described};
use crate::server::Server;
use highwater::domain::control::resource::{Role, Scope};
use highwater::domain::id::{Mode, Tenant};
use reqwest::Method;
use std::collections::BTreeSet;

/// A credential and what it may do.
struct Held {
    what: String,
    text: String,
    mode: &'static str,
    scopes: BTreeSet<Scope>,
}

/// A key of every scope alone and one of every role, in both modes, and an OAuth token of every scope.
async fn credentials(server: &Server) -> Vec<Held> {
    let mut held = Vec::new();
    for mode in [Mode::Live, Mode::Sandbox] {
        let tenant = Tenant { workspace: server.workspace, mode };
        let alone = Scope::ALL.iter().map(|scope| (scope.text().to_owned(), BTreeSet::from([*scope])));
        let roles = Role::ALL.iter().map(|role| (format!("role {}", role.text()), role.scopes()));
        for (what, scopes) in alone.chain(roles) {
            let scopes = Scope::closure(&scopes);
            let (text, _) = server.new_key(tenant, scopes.clone()).await;
            held.push(Held { what: format!("{what}, {}", mode.name()), text, mode: mode.name(), scopes });
        }
    }
    let client = server.post("/v1/oauth/clients", serde_json::json!({"name": "all", "role": "owner"})).await.ok(201);
    for scope in Scope::ALL {
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}&scope={}",
            client["client_id"].as_str().unwrap(),
            client["client_secret"].as_str().unwrap(),
            scope.text()
        );
        let ask = server.ask(Method::POST, "/v1/oauth/token").anonymous();
        let token = ask.kind("application/x-www-form-urlencoded").body(form).send().await.ok(200);
        held.push(Held {
            what: format!("token of {}", scope.text()),
            text: token["access_token"].as_str().unwrap().to_owned(),
            mode: "live",
            scopes: Scope::closure(&[*scope].into()),
        });
    }
    held
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_operation_takes_its_scope_and_no_other() {
    let server = Server::start().await;
    let credentials = credentials(&server).await;
    let document = highwater::api::openapi();
    let (mut open, mut shut) = (0, 0);
    for (method, path) in described() {
        let named = (method.as_str(), path.as_str());
        let is_apart = operations::OPEN_TO_ANY.contains(&named) || operations::OF_CLIENTS.contains(&named);
        // The stream does not end, and is looked at by tests of its own.
        if is_apart || path == "/v1/stream" {
            continue;
        }
        let scope = document["paths"][&path][&method]["security"][0]["key"][0].as_str().unwrap();
        let scope = Scope::parse(scope).unwrap();
        let all = operations::all();
        let concrete = all.iter().find(|known| known.path == path).unwrap().call();
        let ask = server.ask(method.to_uppercase().parse().unwrap(), &concrete).anonymous();
        ask.send().await.problem(401, "authentication_required");
        for held in &credentials {
            let answer = call(&server, named, &concrete, &held.text).await;
            let what = format!("{method} {path} with {}", held.what);
            assert_eq!(answer.header("x-mode"), held.mode, "{what}");
            if held.scopes.contains(&scope) {
                open += 1;
                // A mode or a narrowing to projects may still forbid it.
                let is_shut = answer.status == 403 && answer.json()["code"] == "insufficient_scope";
                let is_wrong = matches!(answer.status, 401 | 405 | 500..);
                assert!(!is_shut && !is_wrong, "{what}: {} {}", answer.status, answer.text());
                continue;
            }
            shut += 1;
            answer.problem(403, "insufficient_scope");
            let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{}\"", scope.text());
            assert_eq!(answer.header("www-authenticate"), challenge, "{what}");
        }
    }
    println!("scope matrix: {} cases, of which {open} may and {shut} must not", open + shut);
    assert!(open >= 800 && shut >= 5_000, "{open} and {shut}");
}
