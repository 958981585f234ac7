//! The real binary as a process, and a receiver that verifies what reaches it.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

/// Runs a command of the binary to its end.
pub(crate) fn highwater(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_highwater")).args(arguments).output().unwrap()
}

/// Runs `serve` where it must not come to serve; returns its exit code and what it says.
pub(crate) fn refused_to_serve(data: &Path, more: &[&str]) -> (Option<i32>, String) {
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", data.to_str().unwrap()];
    ended(&[&serve, more].concat(), std::time::Duration::from_secs(60))
}

/// Runs a command that ends by itself, for at most so long; returns its code and what it said on standard error.
pub(crate) fn ended(arguments: &[&str], patience: std::time::Duration) -> (Option<i32>, String) {
    let said = tempfile::NamedTempFile::new().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_highwater"))
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(said.reopen().unwrap())
        .spawn()
        .unwrap();
    let pause = std::time::Duration::from_millis(50);
    for _ in 0..patience.as_millis() / pause.as_millis() {
        if let Some(status) = child.try_wait().unwrap() {
            return (status.code(), std::fs::read_to_string(said.path()).unwrap());
        }
        std::thread::sleep(pause);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    (None, std::fs::read_to_string(said.path()).unwrap())
}

/// Runs `bootstrap` and returns the key that it prints.
pub(crate) fn bootstrap(data: &Path) -> String {
    bootstrap_with(data, &[])
}

/// As [`bootstrap`], with more arguments.
pub(crate) fn bootstrap_with(data: &Path, more: &[&str]) -> String {
    let output = highwater(&[&["bootstrap", "--data", data.to_str().unwrap()], more].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A serving process. It is killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) base: String,
    /// What it wrote before it served.
    pub(crate) opening: String,
    pub(crate) admin: String,
}

impl Server {
    /// Starts one on a free port, and waits until it says that it serves.
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    /// As [`Self::start`], with more arguments.
    pub(crate) fn start_with(data: &Path, more: &[&str]) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_highwater")), data, more)
    }

    /// As [`Self::start_with`], under limits that `ulimit` knows.
    pub(crate) fn start_under(limits: &str, data: &Path, more: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit {limits} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_highwater")]);
        Self::spawn(shell, data, more)
    }

    fn spawn(mut command: Command, data: &Path, more: &[&str]) -> Self {
        // Whoever asks it something makes a client, and that takes a provider, whichever test comes first.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--allow-target", "127.0.0.0/8"])
            .args(["--base-url", "http://highwater.example", "--rate-limit", "0", "--ingest-rate-limit", "0"])
            .args(["--log-format", "json", "--data", data.to_str().unwrap()])
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut log = Vec::new();
        let (base, admin) = loop {
            let Some(Ok(line)) = lines.next() else { panic!("the server did not start:\n{}", log.join("\n")) };
            if let Some((_, rest)) = line.split_once("serving http") {
                let (_, admin) = rest.split_once("metrics http://").unwrap();
                let base = format!("http{}", rest.split_whitespace().next().unwrap());
                break (base, format!("http://{}", admin.split("/metrics").next().unwrap()));
            }
            log.push(line);
        };
        // The log is read on, or the process would block on a full pipe; what is an error fails the test's output.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if line.contains("\"ERROR\"") || line.contains("\"WARN\"") || line.contains("panicked") {
                    eprintln!("server: {line}");
                }
            }
        });
        Self { child, base, opening: log.join("\n"), admin }
    }

    /// What `/metrics` says, by name and labels.
    pub(crate) async fn metrics(&self) -> BTreeMap<String, f64> {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let text = http.get(format!("{}/metrics", self.admin)).send().await.unwrap().text().await.unwrap();
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        samples.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
    }

    /// Stops the process as it stands; it learns nothing of the time that passes.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets the process go on.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Kills the process as a power cut would: it learns nothing of it.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until the process ends by itself, for at most a minute, and returns its exit code.
    pub(crate) fn end(mut self) -> Option<i32> {
        for _ in 0..600 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        None
    }

    /// Sends SIGHUP.
    pub(crate) fn hang_up(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    }

    /// Asks the process to stop, and waits until it has.
    pub(crate) fn stop(mut self) {
        self.signal("-TERM");
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Calls the API; returns the status and the body.
pub(crate) async fn call(
    http: &reqwest::Client,
    (method, url, key): (&str, &str, &str),
    body: Option<&Value>,
) -> Result<(u16, Value), reqwest::Error> {
    let mut request = http.request(method.parse().unwrap(), url).bearer_auth(key);
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let answer = request.send().await?;
    let status = answer.status().as_u16();
    let text = answer.text().await?;
    Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
}

/// What a receiver took, by id: the bodies of every delivery.
pub(crate) type Deliveries = Arc<Mutex<BTreeMap<String, Vec<Value>>>>;

#[derive(Clone)]
struct Hook {
    secret: Arc<Mutex<String>>,
    deliveries: Deliveries,
}

/// A webhook receiver that refuses what is not signed with its secret.
pub(crate) struct Receiver {
    pub(crate) url: String,
    pub(crate) secret: Arc<Mutex<String>>,
    pub(crate) deliveries: Deliveries,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let hook = Hook { secret: Arc::default(), deliveries: Arc::default() };
        let (secret, deliveries) = (Arc::clone(&hook.secret), Arc::clone(&hook.deliveries));
        let router = Router::new().route("/hook", axum::routing::post(take)).with_state(hook);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, secret, deliveries }
    }
}

async fn take(State(hook): State<Hook>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (id, signature) = (header("webhook-id"), header("webhook-signature"));
    let timestamp = header("webhook-timestamp").parse().unwrap_or(0);
    let secret = hook.secret.lock().unwrap().clone();
    if !highwater::notifier::verify(&secret, &signature, &id, timestamp, &body) {
        return StatusCode::UNAUTHORIZED;
    }
    hook.deliveries.lock().unwrap().entry(id).or_default().push(serde_json::from_slice(&body).unwrap());
    StatusCode::NO_CONTENT
}
