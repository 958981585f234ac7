//! What may be sent to: the guard against requests to the inside of somebody's network (SSRF).
//!
//! A target is vetted as text when it is made, and its addresses again whenever it is connected to, inside the resolver
//! that the connection uses, so what was checked is what is used. Self-hosters name their own receivers in an allow list.

use super::special_ranges::is_blocked;
use super::spelling;
use crate::domain::limits::URL_BYTES_MAX;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};
use url::{Host, Url};

/// What may be sent to beyond the public internet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// Networks whose addresses are allowed, over plain HTTP and on any port too.
    pub allow_cidrs: Vec<IpNet>,
    /// Host names that are allowed, whatever they resolve to.
    pub allow_hosts: Vec<String>,
}

/// What a target is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// A webhook of the caller's own.
    Webhook,
    /// Slack's incoming webhooks.
    Slack,
}

/// Why a target is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct TargetError {
    /// What is wrong and what would be right.
    pub reason: String,
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, TargetError> {
    Err(TargetError { reason: reason.into() })
}

impl Guard {
    /// Vets a URL as text: its scheme, host, port and literal address. Names are vetted when they are resolved.
    ///
    /// # Errors
    /// Where the target is not allowed.
    pub fn check_url(&self, text: &str, kind: TargetKind) -> Result<Url, TargetError> {
        if text.len() > URL_BYTES_MAX {
            return refuse(format!("the URL has {} bytes, at most {URL_BYTES_MAX} are taken", text.len()));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
            return refuse("the URL has white space, a control character or a backslash");
        }
        if let Some(c) = spelling::invisible(text) {
            return refuse(format!("the URL has a character that nobody sees (U+{:04X})", u32::from(c)));
        }
        let Ok(url) = Url::parse(text) else { return refuse("not a URL: expected https://host/path") };
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("the URL has a user name or password; receivers are authenticated by signature");
        }
        if url.fragment().is_some() {
            return refuse("the URL has a fragment (#…), which is never sent");
        }
        if !matches!(url.scheme(), "https" | "http") {
            return refuse(format!("scheme {} is not taken; use https", url.scheme()));
        }
        let Some(host) = url.host() else { return refuse("the URL has no host") };
        if let Some(plain) = spelling::rewritten(text, &url) {
            return refuse(format!("the host has another spelling; write it as https://{plain}"));
        }
        let allowed = self.allows_host(&host);
        if url.scheme() == "http" && !allowed {
            return refuse("http is taken for allow-listed targets only (--allow-target); use https");
        }
        let port = url.port_or_known_default().unwrap_or(443);
        if !allowed && !matches!(port, 443 | 8443 | 1024..) {
            return refuse(format!("port {port} is not taken; use 443, 8443 or one from 1024"));
        }
        if !allowed {
            check_host(&host)?;
        }
        if kind == TargetKind::Slack && !allowed {
            let is_slack = url.host_str() == Some("hooks.slack.com") && url.path().starts_with("/services/");
            if !is_slack || url.scheme() != "https" || url.port().is_some() {
                return refuse("expected https://hooks.slack.com/services/…");
            }
        }
        Ok(url)
    }

    /// Tells whether an address may be connected to for a host.
    pub fn allows_address(&self, host: &str, address: IpAddr) -> bool {
        let listed = self.allow_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host));
        listed || self.allow_cidrs.iter().any(|net| net.contains(&address.to_canonical())) || !is_blocked(address)
    }

    /// Vets a URL right before it is sent to: literal addresses never pass through a resolver.
    ///
    /// # Errors
    /// Where the host is an address that is not allowed.
    pub fn check_literal(&self, url: &Url) -> Result<(), TargetError> {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        if self.allows_address(url.host_str().unwrap_or(""), address) { Ok(()) } else { refuse(not_public(address)) }
    }

    /// Tells whether a URL's host is allowed by name, or by its literal address: what the operator lists as their own.
    pub fn lists(&self, url: &Url) -> bool {
        url.host().is_some_and(|host| self.allows_host(&host))
    }

    /// Tells whether what was connected to belongs to somebody's network, so that what it says is handed to nobody: an
    /// address that is not public, one that the operator lists, or a host that they list by name.
    ///
    /// A connection whose address is not known counts as one.
    pub fn is_inside(&self, url: &Url, peer: Option<IpAddr>) -> bool {
        let Some(peer) = peer else { return true };
        self.lists(url) || is_blocked(peer) || self.allow_cidrs.iter().any(|net| net.contains(&peer.to_canonical()))
    }

    fn allows_host(&self, host: &Host<&str>) -> bool {
        let address = match host {
            // The one name whose address is known without asking (RFC 6761 §6.3).
            Host::Domain("localhost") => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Host::Domain(name) => return self.allow_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)),
            Host::Ipv4(address) => IpAddr::V4(*address),
            Host::Ipv6(address) => IpAddr::V6(*address),
        };
        self.allow_cidrs.iter().any(|net| net.contains(&address.to_canonical()))
    }
}

fn check_host(host: &Host<&str>) -> Result<(), TargetError> {
    let address = match host {
        Host::Domain(name) => {
            let name = name.to_ascii_lowercase();
            if name.ends_with('.') {
                return refuse("the host ends in a dot");
            }
            let inside = ["localhost", "metadata.google.internal"];
            if inside.contains(&name.as_str()) || name.ends_with(".localhost") || name.ends_with(".internal") {
                return refuse(format!("{name} is not a public host"));
            }
            if let Some(label) = spelling::lookalike(&name) {
                return refuse(format!(
                    "{label} ({name}) mixes scripts or looks like ASCII, so it may be taken for another host"
                ));
            }
            return Ok(());
        }
        Host::Ipv4(address) => IpAddr::V4(*address),
        Host::Ipv6(address) => IpAddr::V6(*address),
    };
    if is_blocked(address) { refuse(not_public(address)) } else { Ok(()) }
}

fn not_public(address: IpAddr) -> String {
    format!("{address} is not a public address; allow it with --allow-target if it is your own receiver")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inside_of_a_network_is_refused_in_every_spelling() {
        let guard = Guard::default();
        for host in [
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
            "[fe80::1]",
            "[fd00::1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "169.254.169.254",
            "100.64.0.1",
            "198.18.0.1",
            "192.0.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "localhost",
            "localhost.",
            "metadata.google.internal",
            "a.localhost",
            "10.0.0.1",
            "192.168.1.1",
            "[fec0::1]",
            "[2001::1]",
            "[::ffff:0:127.0.0.1]",
            "[::ffff:0:10.0.0.1]",
            "168.63.129.16",
            "[fe80::5efe:10.0.0.1]",
        ] {
            let url = format!("https://{host}/hook");
            assert!(guard.check_url(&url, TargetKind::Webhook).is_err(), "{url}");
        }
        for host in ["example.com", "93.184.216.34", "[2606:2800:220:1::1]", "hooks.example.org:8443"] {
            let url = format!("https://{host}/hook");
            assert!(guard.check_url(&url, TargetKind::Webhook).is_ok(), "{url}");
        }
    }

    #[test]
    fn odd_urls_are_refused_with_a_reason() {
        let guard = Guard::default();
        let check = |url: &str, says: &str| {
            let error = guard.check_url(url, TargetKind::Webhook).unwrap_err().to_string();
            assert!(error.contains(says), "{url}: {error}");
        };
        check("http://example.com/", "use https");
        check("file:///etc/passwd", "scheme file");
        check("https://user:pass@example.com/", "user name");
        check("https://example.com/#a", "fragment");
        check("https://example.com:22/", "port 22");
        check("https://example.com\\@evil/", "backslash");
        check("https://example.com/\r\nX: y", "white space");
        check("not a url", "white space");
        check("nonsense", "not a URL");
        check("https://exam\u{200b}ple.com/", "U+200B");
        check("https://example.com/\u{202e}", "U+202E");
        check("https://exam%70le.com/", "https://example.com");
        check("https://\u{ff45}xample.com/", "https://example.com");
        check("https://p\u{430}ypal.com/", "another host");
        check("https://xn--pypal-4ve.com/", "another host");
        check(&format!("https://example.com/{}", "a".repeat(3_000)), "2048");
        let slack = |url: &str| guard.check_url(url, TargetKind::Slack).is_ok();
        assert!(slack("https://hooks.slack.com/services/T0/B0/x"));
        assert!(!slack("https://hooks.slack.com.evil.example/services/T0/B0/x"));
        assert!(!slack("https://hooks.slack.com/other"));
    }

    #[test]
    fn an_allow_list_opens_what_it_names() {
        let guard =
            Guard { allow_cidrs: vec!["127.0.0.0/8".parse().unwrap()], allow_hosts: vec!["chat.corp.example".into()] };
        assert!(guard.check_url("http://127.0.0.1:9/hook", TargetKind::Webhook).is_ok());
        assert!(guard.check_url("http://chat.corp.example/hook", TargetKind::Slack).is_ok());
        assert!(guard.check_url("http://localhost:9/hook", TargetKind::Webhook).is_ok());
        assert!(guard.check_url("http://10.0.0.1/hook", TargetKind::Webhook).is_err());
        assert!(
            guard.check_url("http://[::ffff:0:7f00:1]/hook", TargetKind::Webhook).is_err(),
            "127.0.0.1 by a translator"
        );
        assert!(guard.allows_address("chat.corp.example", "10.0.0.1".parse().unwrap()));
        assert!(!guard.allows_address("evil.example", "10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_listed_or_leads_inside_is_inside_whatever_its_name_says() {
        let guard =
            Guard { allow_cidrs: vec!["9.9.9.0/24".parse().unwrap()], allow_hosts: vec!["chat.corp.example".into()] };
        let inside = |url: &str, peer: Option<&str>| {
            guard.is_inside(&Url::parse(url).unwrap(), peer.map(|address| address.parse().unwrap()))
        };
        assert!(inside("https://chat.corp.example/", Some("10.0.0.1")), "a listed name of a private address");
        assert!(inside("https://CHAT.corp.example/", Some("93.184.216.34")), "a listed name of a public one");
        assert!(inside("https://other.example/", Some("::ffff:10.0.0.1")), "a name that leads inside");
        assert!(inside("https://other.example/", Some("9.9.9.9")), "a name that leads into a listed net");
        assert!(inside("https://other.example/", None), "nobody knows where");
        assert!(!inside("https://other.example/", Some("93.184.216.34")));
    }
}
