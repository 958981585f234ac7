//! A server in the test's process: its data in a temporary folder, its listeners on free loopback ports.

use highwater::api::{Front, ListenerLimits, Listeners, Rates, Running, Tls};
use highwater::credential;
use highwater::domain::control::command::Command;
use highwater::domain::control::outcome::Outcome;
use highwater::domain::control::resource::{ApiKey, Role, Scope};
use highwater::domain::id::{KeyId, Mode, Tenant, WorkspaceId};
use highwater::notifier::Guard;
use highwater::runtime::clock;
use highwater::runtime::control::Asking;
use highwater::runtime::data::{Data, Places};
use highwater::runtime::node::{Duty, Node};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest that anything is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How a server is started.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) limits: ListenerLimits,
    pub(crate) guard: Guard,
    pub(crate) front: Front,
    pub(crate) tls: Option<Tls>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: ListenerLimits::default(),
            guard: loopback_guard(),
            front: Front { rates: unhurried(), ..Front::default() },
            tls: None,
        }
    }
}

/// Limits that no test reaches by accident; what they are by default is tested on its own.
pub(crate) fn unhurried() -> Rates {
    let many = 1_000_000;
    Rates { live: many, sandbox: many, ingest: many, sandbox_ingest: many, auth_failures: many, ..Rates::default() }
}

/// Lets notifications reach receivers of the tests.
pub(crate) fn loopback_guard() -> Guard {
    Guard { allow_cidrs: vec!["127.0.0.0/8".parse().unwrap()], ..Guard::default() }
}

/// A server that runs.
pub(crate) struct Server {
    running: Option<Running>,
    options: Options,
    folder: tempfile::TempDir,
    http: reqwest::Client,
    pub(crate) workspace: WorkspaceId,
    /// An owner's live key.
    pub(crate) key: String,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    pub(crate) async fn start_with(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let running = run(&folder, &options).await;
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let http = http.timeout(Duration::from_secs(60)).build().unwrap();
        let workspace = WorkspaceId(0);
        let mut server = Self { running: Some(running), options, folder, http, workspace, key: String::new() };
        server.workspace = server.new_workspace().await;
        server.key = server.owner_of(server.workspace, Mode::Live).await;
        server
    }

    /// Stops in order and starts again with the same data.
    pub(crate) async fn restart(&mut self) {
        self.take().stop().await;
        self.begin().await;
    }

    /// Starts again behind [`Self::take`].
    pub(crate) async fn begin(&mut self) {
        self.running = Some(run(&self.folder, &self.options).await);
    }

    /// Allows no target of the inside from the next start on.
    pub(crate) fn forbid(&mut self) {
        self.options.guard = Guard::default();
    }

    /// Where the data is.
    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    /// Takes the running node out, to stop it by hand.
    pub(crate) fn take(&mut self) -> Running {
        self.running.take().unwrap()
    }

    pub(crate) fn node(&self) -> &Node {
        self.running.as_ref().unwrap().node()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running.as_ref().unwrap().address
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.running.as_ref().unwrap().admin
    }

    pub(crate) async fn new_workspace(&self) -> WorkspaceId {
        let id = WorkspaceId(clock::ulid());
        let tenant = Tenant { workspace: id, mode: Mode::Live };
        self.submit(tenant, Command::CreateWorkspace { id, name: "tests".to_owned() }).await;
        id
    }

    pub(crate) async fn owner_of(&self, workspace: WorkspaceId, mode: Mode) -> String {
        self.new_key(Tenant { workspace, mode }, Role::Owner.scopes()).await.0
    }

    /// A live key of the server's workspace with just these scopes.
    pub(crate) async fn key_with(&self, scopes: &[Scope]) -> String {
        let tenant = Tenant { workspace: self.workspace, mode: Mode::Live };
        self.new_key(tenant, scopes.iter().copied().collect()).await.0
    }

    pub(crate) async fn new_key(&self, tenant: Tenant, scopes: BTreeSet<Scope>) -> (String, KeyId) {
        self.new_key_of(tenant, scopes, None).await
    }

    /// A key of a lineage; of its own where none is given.
    pub(crate) async fn new_key_of(
        &self,
        tenant: Tenant,
        scopes: BTreeSet<Scope>,
        lineage: Option<KeyId>,
    ) -> (String, KeyId) {
        let secret = credential::generate(tenant.mode, clock::random());
        let text = secret.expose_secret().to_owned();
        let id = KeyId(clock::ulid());
        let key = ApiKey {
            id,
            lookup: credential::parse(&text).unwrap().lookup,
            hash: credential::hash(&text),
            workspace: tenant.workspace,
            mode: tenant.mode,
            lineage: lineage.unwrap_or(id),
            name: "test".to_owned(),
            scopes,
            projects: Vec::new(),
            hint: credential::hint(&text),
            expires_at: None,
            rate_limit: None,
            role: None,
            allowed_ips: Vec::new(),
            metadata: BTreeMap::new(),
        };
        self.submit(tenant, Command::CreateKey { key }).await;
        (text, id)
    }

    pub(crate) async fn submit(&self, tenant: Tenant, command: Command) {
        let submitted = self.node().data.control.submit(Asking::by_command_line(tenant), command).await;
        let (_, applied) = submitted.unwrap();
        assert!(!matches!(applied.outcome, Outcome::Refused(_)), "{:?}", applied.outcome);
    }

    /// A request with the owner's key.
    pub(crate) fn ask(&self, method: Method, path: &str) -> Ask {
        Ask {
            http: self.http.clone(),
            method,
            url: format!("http://{}{path}", self.address()),
            key: Some(self.key.clone()),
            headers: HeaderMap::new(),
            body: Vec::new(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path).send().await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, path).send().await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path).json(&body).send().await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::PUT, path).json(&body).send().await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::PATCH, path).json(&body).send().await
    }

    /// Sends one event and waits until it is counted.
    pub(crate) async fn count(&self, account: &str, metric: &str, value: i64) {
        let event = serde_json::json!({"account_id": account, "metric": metric, "value": value});
        let receipt = self.post("/v1/events", event).await.ok(202)["receipt"].as_str().unwrap().to_owned();
        self.get(&format!("/v1/accounts/{account}/usage?after={receipt}")).await.ok(200);
    }

    /// Waits until everything that was accepted is stored.
    pub(crate) async fn settle(&self) {
        assert!(self.node().settle(PATIENCE).await, "the store fell behind");
    }

    /// Sends bytes on a connection of their own and returns all that comes back until it is closed.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        read_to_end(&mut stream).await
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }
}

async fn run(folder: &tempfile::TempDir, options: &Options) -> Running {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listeners =
        Listeners::open(any, any).await.unwrap().with_limits(options.limits).with_front(options.front.clone());
    let listeners = options.tls.clone().into_iter().fold(listeners, Listeners::with_tls);
    let data = Data::open(&Places::in_folder(&folder.path().join("data"))).await.unwrap();
    let node = Node::start(data, options.guard.clone(), "http://highwater.test", Duty::Serve).await.unwrap();
    listeners.serve(node)
}

/// Reads until the other side closes, for as long as the patience lasts.
pub(crate) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let read = tokio::time::timeout(PATIENCE, async {
        let mut some = [0; 4_096];
        // A reset is an end, too: the server does not read what is left of a refused body.
        while let Ok(n @ 1..) = stream.read(&mut some).await {
            all.extend_from_slice(&some[..n]);
        }
    });
    read.await.expect("the connection stays open");
    String::from_utf8_lossy(&all).into_owned()
}

/// Asks again until there is something, for as long as the patience lasts.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let all = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap_or_else(|_| panic!("{what} did not come about"))
}

/// A request to be.
#[derive(Clone)]
pub(crate) struct Ask {
    http: reqwest::Client,
    method: Method,
    url: String,
    key: Option<String>,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Ask {
    pub(crate) fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    pub(crate) fn anonymous(mut self) -> Self {
        self.key = None;
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        self.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    pub(crate) fn kind(self, kind: &str) -> Self {
        self.header("content-type", kind)
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.kind("application/json").body(body.to_string())
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) async fn send(self) -> Answer {
        let mut request = self.http.request(self.method, self.url).headers(self.headers);
        if let Some(key) = self.key {
            request = request.bearer_auth(key);
        }
        if !self.body.is_empty() {
            request = request.body(self.body);
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Answer { status, headers, bytes: answer.bytes().await.unwrap().to_vec() }
    }
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// The body of a success with this status; nothing where it is empty.
    #[track_caller]
    pub(crate) fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        if self.bytes.is_empty() { Value::Null } else { self.json() }
    }

    /// The body of a problem, which has every member that is promised.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.header("x-content-type-options"), "nosniff");
        let body = self.json();
        assert_eq!(body["code"], code, "{body}");
        assert_eq!(body["status"], status, "{body}");
        assert_eq!(body["type"], format!("/docs/errors#{code}"));
        assert_eq!(body["request_id"], self.header("x-request-id"));
        for text in ["title", "detail", "instance"] {
            assert!(body[text].as_str().is_some_and(|text| !text.is_empty()), "{text} in {body}");
        }
        let retryable = (status >= 500 && status != 504)
            || status == 429
            || matches!(code, "request_timeout" | "idempotency_in_progress");
        assert_eq!(body["retryable"], retryable, "{body}");
        body
    }
}
