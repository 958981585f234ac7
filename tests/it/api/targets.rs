//! Where notifications may go: nothing of the inside of a network, when it is written down and when it is connected to.

use crate::receiver::Receiver;
use crate::server::{Options, Server, eventually};
use highwater::domain::id::{Mode, NotificationId, Tenant};
use highwater::notifier::Guard;
use serde_json::{Value, json};
use std::net::{IpAddr, TcpListener};
use std::process::Command;

fn strict() -> Options {
    Options { guard: Guard::default(), ..Options::default() }
}

fn webhook(url: &str) -> Value {
    json!({"type": "webhook", "name": "hook", "url": url})
}

/// The inside of a network, in every spelling.
const HOSTS: &[&str] = &[
    "127.0.0.1",
    "0.0.0.0",
    "0",
    "127.1",
    "0x7f.1",
    "0177.0.0.1",
    "2130706433",
    "①②⑦.⓪.⓪.①",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::]",
    "[fe80::1%25eth0]",
    "[fe80::1]",
    "[fd00::1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[2001::1]",
    "[fec0::1]",
    "169.254.169.254",
    "100.64.0.1",
    "198.18.0.1",
    "192.0.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "localhost",
    "localhost.",
    "LOCALHOST",
    "a.localhost",
    "metadata.google.internal",
    "db.internal",
    "example.com.",
    "[::ffff:0:127.0.0.1]",
    "[::ffff:0:169.254.169.254]",
    "[4000::1]",
    "168.63.129.16",
    "[::ffff:168.63.129.16]",
    "exam\u{200b}ple.com",
    "example.com\u{2060}",
    "exam%E2%80%8Bple.com",
    "\u{ff45}xample.com",
    "p\u{430}ypal.com",
    "xn--80ak6aa92e.com",
];

/// What is no URL of a public receiver.
const URLS: &[&str] = &[
    "http://example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "https://user@example.com/",
    "https://user:pass@example.com/",
    "https://example.com/#x",
    "https://example.com:22/",
    "https://example.com:80/",
    "https://example.com:6/",
    "https://example.com\\@127.0.0.1/",
    "https://example.com/\r\nx: y",
    "https://exa mple.com/",
    "https://",
    "example.com",
    "",
    "https://127.0.0.1@example.com/",
    "https://[::1",
    "javascript:alert(1)",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_inside_of_a_network_is_no_target() {
    let server = Server::start_with(strict()).await;
    let blocked = async |body: Value| {
        let problem = server.post("/v1/channels", body.clone()).await.problem(422, "target_blocked");
        let pointer = if body["slack_api_url"].is_string() { "/slack_api_url" } else { "/url" };
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    };
    for host in HOSTS {
        blocked(webhook(&format!("https://{host}/hook"))).await;
    }
    for url in URLS {
        blocked(webhook(url)).await;
    }
    blocked(webhook(&format!("https://example.com/{}", "x".repeat(2_048)))).await;
    // Endpoints are held to the same.
    let urls = HOSTS.iter().map(|host| format!("https://{host}/hook")).chain(URLS.iter().map(|url| (*url).to_owned()));
    for url in urls {
        let problem = server.post("/v1/webhooks", json!({"url": url})).await.problem(422, "target_blocked");
        assert_eq!(problem["errors"][0]["pointer"], "/url", "{url}");
    }
    let made = server.post("/v1/webhooks", json!({"url": "https://example.com/"})).await.ok(201);
    let path = format!("/v1/webhooks/{}", made["id"].as_str().unwrap());
    server.patch(&path, json!({"url": "https://169.254.169.254/"})).await.problem(422, "target_blocked");
    for url in [
        "https://hooks.slack.com.evil.example/services/T/B/x",
        "https://evil.example/hooks.slack.com/services/T",
        "https://hooks.slack.com/other",
        "http://hooks.slack.com/services/T/B/x",
        "https://hooks.slack.com:8443/services/T/B/x",
        "https://user@hooks.slack.com/services/T/B/x",
    ] {
        blocked(json!({"type": "slack", "name": "s", "url": url})).await;
    }
    blocked(json!({"type": "slack", "name": "s", "bot_token": "t", "slack_channel": "#a", "slack_api_url": "http://127.0.0.1/"})).await;
    for url in [
        "https://example.com/",
        "https://example.com:8443/",
        "https://example.com:1024/",
        "https://93.184.216.34/",
        "https://[2606:2800:220:1::1]/",
    ] {
        let made = server.post("/v1/channels", webhook(url)).await.ok(201);
        let path = format!("/v1/channels/{}", made["id"].as_str().unwrap());
        server.patch(&path, json!({"url": "https://127.0.0.1/"})).await.problem(422, "target_blocked");
    }
}

/// A name that the operating system resolves to the inside, and that does not say so itself.
fn inside_name() -> Option<String> {
    let hosts = std::fs::read_to_string("/etc/hosts").ok()?;
    let names = hosts.lines().filter(|line| !line.starts_with('#')).flat_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
        words.map(move |name| (address, name.to_owned()))
    });
    let inside = |address: IpAddr| match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_private(),
        IpAddr::V6(address) => address.is_loopback(),
    };
    let fits = |(address, name): &(Option<IpAddr>, String)| {
        address.is_some_and(inside)
            && !name.contains("localhost.")
            && name != "localhost"
            && !name.ends_with(".internal")
    };
    names.into_iter().find(fits).map(|(_, name)| name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_leads_inside_is_refused_when_it_is_connected_to() {
    let Some(name) = inside_name() else { return };
    let server = Server::start_with(strict()).await;
    let made = server.post("/v1/channels", webhook(&format!("https://{name}:8443/hook"))).await.ok(201);
    let outcome = outcome(&server, &made["id"]).await;
    assert!(outcome.starts_with("blocked:") && outcome.contains(&name), "{outcome}");
}

/// What came of the first attempt to tell a channel.
async fn outcome(server: &Server, channel: &Value) -> String {
    let alert = json!({"account_id": "*", "rule": "sum > 10", "channel": channel});
    let alert = server.post("/v1/alerts", alert).await.ok(201)["id"].as_str().unwrap().to_owned();
    server.count("acme", "m", 11).await;
    let id: NotificationId = eventually("the firing", async || {
        let history = server.get(&format!("/v1/alerts/{alert}/history")).await.ok(200);
        history["items"][0]["notification_id"].as_str().map(|id| id.parse().unwrap())
    })
    .await;
    let tenant = Tenant { workspace: server.workspace, mode: Mode::Live };
    eventually("an attempt", async || {
        let rows = server.node().data.store.deliveries_of(tenant, id).await.unwrap();
        rows.into_iter().find_map(|row| row.outcome)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_allowed_once_is_looked_at_again() {
    // A target that was written down while it was allowed, and is not any more.
    let mut receiver = Receiver::start().await;
    let mut server = Server::start().await;
    let made = server.post("/v1/channels", webhook(&receiver.url())).await.ok(201);
    server.forbid();
    server.restart().await;
    let outcome = outcome(&server, &made["id"]).await;
    assert!(outcome.starts_with("blocked:") && outcome.contains("127.0.0.1"), "{outcome}");
    assert!(receiver.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_was_allowed_once_is_looked_at_again() {
    let mut receiver = Receiver::start().await;
    let mut server = Server::start().await;
    let made = server.post("/v1/webhooks", json!({"url": receiver.url(), "event_types": ["account.*"]})).await.ok(201);
    server.forbid();
    server.restart().await;
    server.post("/v1/accounts", json!({"id": "acme"})).await.ok(201);
    let path = format!("/v1/webhooks/{}/deliveries", made["id"].as_str().unwrap());
    let outcome = eventually("an attempt", async || {
        let page = server.get(&path).await.ok(200);
        page["items"][0]["outcome"].as_str().map(str::to_owned)
    })
    .await;
    assert!(outcome.starts_with("blocked:") && outcome.contains("127.0.0.1"), "{outcome}");
    assert!(receiver.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allow_list_opens_names_and_networks() {
    let guard =
        Guard { allow_cidrs: vec!["10.1.0.0/16".parse().unwrap()], allow_hosts: vec!["chat.corp.internal".to_owned()] };
    let server = Server::start_with(Options { guard, ..Options::default() }).await;
    for url in ["http://10.1.2.3:80/hook", "http://chat.corp.internal/hook", "https://CHAT.corp.internal/hook"] {
        server.post("/v1/channels", webhook(url)).await.ok(201);
    }
    for url in
        ["http://10.2.0.1/hook", "http://127.0.0.1/hook", "http://evil.corp.internal/hook", "http://localhost/hook"]
    {
        server.post("/v1/channels", webhook(url)).await.problem(422, "target_blocked");
    }
}

/// A proxy would resolve names itself, past the guard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_of_the_environment_is_not_used() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let told = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
        for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env(name, &url);
        }
        command.env_remove("no_proxy").env_remove("NO_PROXY").args(["demo", "--once"]).output().unwrap()
    });
    let told = told.await.unwrap();
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(
        told.status.success() && text.contains("alert.resolved"),
        "{text}{}",
        String::from_utf8_lossy(&told.stderr)
    );
    assert!(proxy.accept().is_err(), "somebody came to the proxy");
}
