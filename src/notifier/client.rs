//! Sending one message, once: vetted, bounded in time and size, never redirected.

use super::guard::{Guard, TargetError};
use super::resolver::VettingResolver;
use super::{answer, payload, signature};
use crate::domain::control::resource::ChannelKind;
use crate::domain::limits::{CONNECT_TIMEOUT, DELIVERY_TIMEOUT};
use crate::domain::partition::notification::Notification;
use crate::domain::time::{Millis, Timestamp};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use reqwest::{Client, RequestBuilder, Response, Url};
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use std::time::Duration;

/// Where a message goes. Its `Debug` form hides what is secret.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A signed webhook.
    Webhook {
        /// Where to.
        url: SecretString,
        /// What signs.
        secrets: Vec<SecretString>,
    },
    /// Slack's incoming webhook.
    SlackWebhook {
        /// Where to.
        url: SecretString,
    },
    /// Slack's `chat.postMessage`.
    SlackBot {
        /// The bot's token.
        token: SecretString,
        /// The channel's id or name.
        channel: String,
        /// Another base than `https://slack.com/api/`.
        api: Option<Url>,
    },
}

impl Destination {
    /// Whether messages can answer earlier ones.
    pub const fn has_threads(&self) -> bool {
        matches!(self, Self::SlackBot { .. })
    }
}

/// Where events go. Its `Debug` form hides what is secret.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where to.
    pub url: SecretString,
    /// What signs.
    pub secrets: Vec<SecretString>,
    /// Headers of its own.
    pub headers: Vec<(String, SecretString)>,
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub enum Outgoing<'a> {
    /// One notification, in a thread where there is one.
    One(&'a Notification, Option<&'a str>),
    /// Several in one message; Slack only.
    Digest(&'a [Notification]),
}

/// What came of sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Taken, or why not.
    pub result: Result<Sent, Failure>,
}

impl Attempt {
    /// An attempt that was not made, because the destination cannot be used.
    pub const fn refused(why: String) -> Self {
        Self { result: Err(Failure::Unusable(why)) }
    }

    /// The status of the answer, where there was one.
    pub const fn status(&self) -> Option<u16> {
        match &self.result {
            Ok(sent) => Some(sent.status),
            Err(Failure::Status { code, .. }) => Some(*code),
            Err(
                Failure::Slack { .. }
                | Failure::Timeout
                | Failure::Broken(_)
                | Failure::ConnectTimeout
                | Failure::Connect(_)
                | Failure::Blocked(_)
                | Failure::Unusable(_),
            ) => None,
        }
    }
}

/// The receiver took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The answer's status.
    pub status: u16,
    /// What later messages may answer.
    pub thread: Option<String>,
}

/// The receiver did not take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It answered with another status than 2xx.
    Status {
        /// The status.
        code: u16,
        /// How long it asks us to wait.
        retry_after: Option<Millis>,
        /// The beginning of the answer; nothing of private networks.
        body: String,
        /// Whether it was Slack.
        slack: bool,
    },
    /// Slack answered `ok: false`.
    Slack {
        /// Its word for the fault.
        error: String,
        /// How long it asks us to wait.
        retry_after: Option<Millis>,
    },
    /// It did not answer in time.
    Timeout,
    /// The connection ended before an answer came.
    Broken(String),
    /// No connection was made in time.
    ConnectTimeout,
    /// It could not be reached.
    Connect(String),
    /// The guard does not allow it.
    Blocked(String),
    /// The destination itself cannot be used: deleted, or sealed with another key.
    Unusable(String),
}

impl Failure {
    /// Whether trying again has no sense.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Status { code, slack, .. } => *code == 410 || (*slack && matches!(code, 400 | 403 | 404)),
            Self::Slack { error, .. } => !matches!(
                error.as_str(),
                "ratelimited"
                    | "rate_limited"
                    | "internal_error"
                    | "fatal_error"
                    | "service_unavailable"
                    | "request_timeout"
            ),
            Self::Unusable(_) => true,
            Self::Timeout | Self::Broken(_) | Self::ConnectTimeout | Self::Connect(_) | Self::Blocked(_) => false,
        }
    }

    /// Whether the message was sent and no answer came, so that the receiver may have taken it.
    pub const fn is_unanswered(&self) -> bool {
        match self {
            Self::Timeout | Self::Broken(_) => true,
            Self::Status { .. }
            | Self::Slack { .. }
            | Self::ConnectTimeout
            | Self::Connect(_)
            | Self::Blocked(_)
            | Self::Unusable(_) => false,
        }
    }

    /// Whether the receiver is overloaded.
    pub fn is_throttling(&self) -> bool {
        match self {
            Self::Status { code, .. } => matches!(code, 429 | 502 | 504),
            Self::Slack { error, .. } => error.starts_with("rate"),
            Self::Timeout | Self::ConnectTimeout => true,
            Self::Broken(_) | Self::Connect(_) | Self::Blocked(_) | Self::Unusable(_) => false,
        }
    }

    /// How long the receiver asks us to wait.
    pub const fn retry_after(&self) -> Option<Millis> {
        match self {
            Self::Status { retry_after, .. } | Self::Slack { retry_after, .. } => *retry_after,
            Self::Timeout
            | Self::Broken(_)
            | Self::ConnectTimeout
            | Self::Connect(_)
            | Self::Blocked(_)
            | Self::Unusable(_) => None,
        }
    }

    /// Whether Slack said it.
    pub const fn is_slack(&self) -> bool {
        match self {
            Self::Status { slack, .. } => *slack,
            Self::Slack { .. } => true,
            Self::Timeout
            | Self::Broken(_)
            | Self::ConnectTimeout
            | Self::Connect(_)
            | Self::Blocked(_)
            | Self::Unusable(_) => false,
        }
    }

    /// What happened, for people.
    pub fn text(&self) -> String {
        match self {
            Self::Status { code, body, .. } if body.is_empty() => format!("status {code}"),
            Self::Status { code, body, .. } => format!("status {code}: {body}"),
            Self::Slack { error, .. } => format!("Slack said {error}"),
            Self::Timeout => "no answer in time".to_owned(),
            Self::Broken(detail) => format!("the connection ended before an answer came: {detail}"),
            Self::ConnectTimeout => "no connection in time".to_owned(),
            Self::Connect(detail) => format!("not reached: {detail}"),
            Self::Blocked(detail) => format!("blocked: {detail}"),
            Self::Unusable(detail) => format!("unusable channel: {detail}"),
        }
    }
}

/// Why there is no notifier.
#[derive(Debug, thiserror::Error)]
pub enum NotifierError {
    /// The HTTP client could not be made.
    #[error("set up the HTTP client")]
    Client(#[from] reqwest::Error),
    /// The TLS library could not be set up.
    #[error("set up TLS")]
    Tls(#[from] rustls::Error),
}

/// Sends messages; cheap to clone.
#[derive(Clone, Debug)]
pub struct Notifier {
    pub(super) client: Client,
    pub(super) guard: Arc<Guard>,
    pub(super) base_url: Arc<str>,
}

impl Notifier {
    /// Makes a notifier; `base_url` is where the links in messages lead.
    ///
    /// # Errors
    /// Where the HTTP client cannot be made.
    pub fn new(guard: Guard, base_url: &str) -> Result<Self, NotifierError> {
        Self::with_timeout(guard, base_url, DELIVERY_TIMEOUT)
    }

    /// Where links in messages lead, without a slash at the end.
    pub fn base_url(&self) -> &str {
        self.base_url.trim_end_matches('/')
    }

    fn with_timeout(guard: Guard, base_url: &str, timeout: Millis) -> Result<Self, NotifierError> {
        // Another part of the process may have set the provider up already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let guard = Arc::new(guard);
        let client = Client::builder()
            .dns_resolver(Arc::new(VettingResolver { guard: Arc::clone(&guard) }))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(duration(CONNECT_TIMEOUT))
            .timeout(duration(timeout))
            .pool_idle_timeout(Duration::from_secs(60))
            .build()?;
        Ok(Self { client, guard, base_url: base_url.into() })
    }

    /// The guard that vets targets.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Returns the body that one notification is sent with.
    pub fn body(&self, kind: ChannelKind, notification: &Notification) -> String {
        match kind {
            ChannelKind::Slack => self.slack_message(Outgoing::One(notification, None)).to_string(),
            ChannelKind::Webhook => {
                String::from_utf8_lossy(&payload::webhook_body(notification, &self.base_url)).into_owned()
            }
        }
    }

    /// Sends a message, once.
    pub async fn send(&self, destination: &Destination, message: Outgoing<'_>, now: Timestamp) -> Attempt {
        let result = match destination {
            Destination::Webhook { url, secrets } => self.webhook(url, secrets, message, now).await,
            Destination::SlackWebhook { url } => self.slack_webhook(url, message, now).await,
            Destination::SlackBot { token, channel, api } => {
                self.slack_bot((token, channel, api.as_ref()), message, now).await
            }
        };
        Attempt { result }
    }

    async fn webhook(
        &self,
        url: &SecretString,
        secrets: &[SecretString],
        message: Outgoing<'_>,
        now: Timestamp,
    ) -> Result<Sent, Failure> {
        let url = self.vetted(url.expose_secret())?;
        let notification = match message {
            Outgoing::One(notification, _) => notification,
            Outgoing::Digest(_) => return Err(Failure::Unusable("webhooks take one notification each".to_owned())),
        };
        let body = payload::webhook_body(notification, &self.base_url);
        self.signed((url, secrets), HeaderMap::new(), (&notification.id.to_string(), body), now).await
    }

    /// Sends an event, once.
    pub async fn post(&self, endpoint: &Endpoint, id: &str, body: Vec<u8>, now: Timestamp) -> Attempt {
        let result = match (self.vetted(endpoint.url.expose_secret()), header_map(&endpoint.headers)) {
            (Ok(url), Ok(headers)) => self.signed((url, &endpoint.secrets), headers, (id, body), now).await,
            (Err(failure), _) | (_, Err(failure)) => Err(failure),
        };
        Attempt { result }
    }

    async fn signed(
        &self,
        (url, secrets): (Url, &[SecretString]),
        headers: HeaderMap,
        (id, body): (&str, Vec<u8>),
        now: Timestamp,
    ) -> Result<Sent, Failure> {
        let timestamp = now.0.div_euclid(1_000);
        let secrets: Vec<&str> = secrets.iter().map(ExposeSecret::expose_secret).collect();
        let signed = signature::sign(&secrets, id, timestamp, &body);
        let request = self
            .client
            .post(url)
            .headers(headers)
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp.to_string())
            .header("webhook-signature", signed)
            .body(body);
        let answer = self.perform(request).await?;
        let status = answer.status().as_u16();
        if answer.status().is_success() {
            return Ok(Sent { status, thread: None });
        }
        let retry_after = answer::retry_after(&answer, now);
        let body = answer::shown(answer, &self.guard).await;
        Err(Failure::Status { code: status, retry_after, body, slack: false })
    }

    pub(super) fn vetted(&self, url: &str) -> Result<Url, Failure> {
        let url = Url::parse(url).map_err(|error| Failure::Unusable(error.to_string()))?;
        self.guard.check_literal(&url).map_err(|error| Failure::Blocked(error.to_string()))?;
        Ok(url)
    }

    pub(super) async fn perform(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let agent = concat!("highwater/", env!("CARGO_PKG_VERSION"));
        let request = request.header(CONTENT_TYPE, "application/json").header(USER_AGENT, agent);
        request.send().await.map_err(|error| failure(&error))
    }
}

/// Makes headers of texts that were checked when they were given.
fn header_map(texts: &[(String, SecretString)]) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for (name, value) in texts {
        let unusable = || Failure::Unusable(format!("the header {name} cannot be sent"));
        let name: HeaderName = name.parse().map_err(|_| unusable())?;
        let mut value = HeaderValue::from_str(value.expose_secret()).map_err(|_| unusable())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

fn failure(error: &reqwest::Error) -> Failure {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(blocked) = inner.downcast_ref::<TargetError>() {
            return Failure::Blocked(blocked.to_string());
        }
        cause = inner.source();
    }
    if error.is_timeout() {
        return if error.is_connect() { Failure::ConnectTimeout } else { Failure::Timeout };
    }
    // The innermost cause says what happened; the outer ones repeat the URL, which may be secret.
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if error.is_connect() { Failure::Connect(cause.to_string()) } else { Failure::Broken(cause.to_string()) }
}

fn duration(span: Millis) -> Duration {
    Duration::from_millis(u64::try_from(span.0).unwrap_or(0))
}
