//! What stands between callers and the handlers, as the operator wants it.

use ipnet::IpNet;

/// Whom to believe, and what to allow.
#[derive(Clone, Debug, Default)]
pub struct Front {
    /// Proxies whose `X-Forwarded-For` is believed; nobody's by default.
    pub trusted_proxies: Vec<IpNet>,
}
