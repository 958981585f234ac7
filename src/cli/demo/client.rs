//! The demo's own client: it uses the API as anybody does.

use anyhow::{Context, bail};
use reqwest::Method;
use serde_json::Value;
use std::net::SocketAddr;

pub(super) struct Client {
    http: reqwest::Client,
    pub(super) base: String,
    pub(super) key: String,
}

impl Client {
    pub(super) fn new(address: SocketAddr, key: &str) -> anyhow::Result<Self> {
        // Where a node runs in this process, it has done the same.
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { http, base: format!("http://{address}"), key: key.to_owned() })
    }

    /// Calls the API; anything but a success is an error with the problem's detail.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.base)).bearer_auth(&self.key);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.with_context(|| format!("{method} {path}"))?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("{method} {path} was answered {status}: {text}");
        }
        Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? })
    }
}
