//! What stands between callers and the handlers, as the operator wants it.

use super::bounds::ConnectionsAsked;
use super::gate::Rates;
use crate::domain::limits::BODY_MEMORY;
use crate::domain::time::Millis;
use axum::Router;
use axum::http::header::{
    AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, LINK, LOCATION, RETRY_AFTER, STRICT_TRANSPORT_SECURITY,
    WWW_AUTHENTICATE,
};
use axum::http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use std::time::Duration;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::set_header::SetResponseHeaderLayer;

/// Whom to believe, and what to allow.
#[derive(Clone, Debug)]
pub struct Front {
    /// Proxies whose `X-Forwarded-For` is believed; nobody's by default.
    pub trusted_proxies: Vec<IpNet>,
    /// How many connections there may be.
    pub connections: ConnectionsAsked,
    /// How often each may ask.
    pub rates: Rates,
    /// Bytes that all request bodies under way may hold, unpacked.
    pub body_memory: usize,
    /// Origins whose pages may call the API from a browser, or `*`; none by default.
    pub cors_origins: Vec<String>,
    /// How long browsers shall come back encrypted only; not said by default.
    pub hsts: Option<Millis>,
}

impl Default for Front {
    fn default() -> Self {
        Self {
            trusted_proxies: Vec::new(),
            connections: ConnectionsAsked::default(),
            rates: Rates::default(),
            body_memory: BODY_MEMORY,
            cors_origins: Vec::new(),
            hsts: None,
        }
    }
}

/// How long a browser remembers what it may send.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);

impl Front {
    /// Puts around a router what browsers are told.
    pub(super) fn around<S: Clone + Send + Sync + 'static>(&self, router: Router<S>) -> Router<S> {
        let router = match self.cors_origins.as_slice() {
            [] => router,
            origins => router.layer(cors(origins)),
        };
        let age = self.hsts.map(|age| format!("max-age={}", age.0 / 1_000));
        match age.and_then(|age| HeaderValue::from_str(&age).ok()) {
            Some(age) => router.layer(SetResponseHeaderLayer::overriding(STRICT_TRANSPORT_SECURITY, age)),
            None => router,
        }
    }
}

/// Keys are sent by hand and not by the browser, so that no page can use what its reader is let in with elsewhere.
fn cors(origins: &[String]) -> CorsLayer {
    let named = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    let allowed =
        if origins.iter().any(|origin| origin == "*") { AllowOrigin::any() } else { AllowOrigin::list(named) };
    let own = HeaderName::from_static;
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            AUTHORIZATION,
            CONTENT_TYPE,
            IF_MATCH,
            IF_NONE_MATCH,
            own("idempotency-key"),
            own("last-event-id"),
            own("traceparent"),
            own("x-request-id"),
        ])
        .expose_headers([
            ETAG,
            LINK,
            LOCATION,
            RETRY_AFTER,
            WWW_AUTHENTICATE,
            own("deprecation"),
            own("idempotent-replayed"),
            own("ratelimit"),
            own("ratelimit-policy"),
            own("sunset"),
            own("usage-warnings"),
            own("x-mode"),
            own("x-ratelimit-limit"),
            own("x-ratelimit-remaining"),
            own("x-ratelimit-reset"),
            own("x-request-id"),
        ])
        .max_age(PREFLIGHT_AGE)
}
