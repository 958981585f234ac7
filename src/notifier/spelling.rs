//! Whether the host of a URL is the one that its reader sees: characters without width, other spellings of the same
//! name, and letters that look like others (UTS #39).

use regex::Regex;
use std::sync::LazyLock;
use unicode_security::confusable_detection::skeleton;
use unicode_security::{RestrictionLevel, RestrictionLevelDetection};
use url::{Host, Url};

#[expect(clippy::expect_used, reason = "the pattern is a constant, and a test compiles it")]
static INVISIBLE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"[\p{Default_Ignorable_Code_Point}\p{Cf}]").expect("a valid pattern"));

/// Returns a character of a text that nobody sees.
pub(super) fn invisible(text: &str) -> Option<char> {
    INVISIBLE.find(text)?.as_str().chars().next()
}

/// Returns what the host should be written as, where the text of a URL has another spelling of its name: letters in
/// circles, of full width, percent-encoded or not composed, and dots of other scripts.
pub(super) fn rewritten(text: &str, url: &Url) -> Option<String> {
    let after_scheme = text.get(url.scheme().len()..).and_then(|rest| rest.strip_prefix("://")).unwrap_or("");
    let authority = after_scheme.split(['/', '?', '#']).next().unwrap_or("");
    match url.host() {
        Some(Host::Domain(name)) => {
            let written = without_port(authority);
            let (shown, _) = idna::domain_to_unicode(name);
            let same = written.eq_ignore_ascii_case(name) || written.to_lowercase() == shown;
            if same { None } else { Some(shown) }
        }
        Some(Host::Ipv4(address)) if !authority.is_ascii() || authority.contains('%') => Some(address.to_string()),
        Some(Host::Ipv4(_) | Host::Ipv6(_)) if authority.is_empty() => url.host_str().map(str::to_owned),
        Some(Host::Ipv4(_) | Host::Ipv6(_)) | None => None,
    }
}

/// Returns the first label of a host's name that may be taken for another one: it mixes scripts, or every letter beyond ASCII
/// looks like one of ASCII. The name may be in either form.
pub(super) fn lookalike(name: &str) -> Option<String> {
    let (shown, valid) = idna::domain_to_unicode(name);
    if valid.is_err() {
        return Some(shown);
    }
    shown.split('.').find(|label| !label.is_ascii() && is_lookalike(label)).map(str::to_owned)
}

fn is_lookalike(label: &str) -> bool {
    let level = label.detect_restriction_level();
    if level > RestrictionLevel::HighlyRestrictive {
        return true;
    }
    label.chars().all(|c| c.is_ascii() || looks_ascii(c))
}

fn looks_ascii(c: char) -> bool {
    let mut buffer = [0; 4];
    let mut seen = skeleton(c.encode_utf8(&mut buffer));
    seen.next().is_some_and(|first| first.is_ascii()) && seen.next().is_none()
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) | None => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_written_as_it_is_read() {
        let spelling = |text: &str| rewritten(text, &Url::parse(text).unwrap());
        for plain in [
            "https://example.com",
            "HTTPS://Example.COM:8443/a?b=c",
            "https://m\u{fc}nchen.example/",
            "https://xn--mnchen-3ya.example/",
            "https://M\u{dc}NCHEN.example/",
            "https://1.2.3.4/",
            "https://[2606:2800:220:1::1]:8443/",
        ] {
            assert_eq!(spelling(plain), None, "{plain}");
        }
        for (text, host) in [
            ("https://\u{ff45}xample.com/", "example.com"),
            ("https://exam%70le.com/", "example.com"),
            ("https://exam%E2%80%8Bple.com/example.com", "example.com"),
            ("https://example\u{3002}com/", "example.com"),
            ("https://mu\u{308}nchen.example/", "m\u{fc}nchen.example"),
            ("https:example.com", "example.com"),
            ("https:///example.com", "example.com"),
            ("https://\u{2460}.1.1.1/", "1.1.1.1"),
            ("https:1.1.1.1/", "1.1.1.1"),
        ] {
            assert_eq!(spelling(text).as_deref(), Some(host), "{text}");
        }
    }

    #[test]
    fn names_that_look_like_others_are_told_from_names_of_other_scripts() {
        for honest in [
            "example.com",
            "m\u{fc}nchen.example",
            "l\u{e6}ger.example",
            "\u{43f}\u{440}\u{438}\u{43c}\u{435}\u{440}.\u{440}\u{444}",
            "\u{4f8b}\u{3048}.jp",
            "\u{4f8b}a.example",
            "\u{3b4}\u{3bf}\u{3ba}.gr",
            "xn--mnchen-3ya.example",
        ] {
            assert_eq!(lookalike(honest), None, "{honest}");
        }
        for (name, label) in [
            ("p\u{430}ypal.com", "p\u{430}ypal"),
            ("\u{430}\u{440}\u{440}\u{4cf}\u{435}.com", "\u{430}\u{440}\u{440}\u{4cf}\u{435}"),
            ("g\u{43e}\u{43e}gle.com", "g\u{43e}\u{43e}gle"),
            ("xn--80ak6aa92e.com", "\u{430}\u{440}\u{440}\u{4cf}\u{435}"),
            ("m\u{131}crosoft.com", "m\u{131}crosoft"),
            ("\u{3bf}\u{3bf}.com", "\u{3bf}\u{3bf}"),
        ] {
            assert_eq!(lookalike(name).as_deref(), Some(label), "{name}");
        }
    }

    #[test]
    fn what_has_no_width_is_found() {
        for c in "\u{ad}\u{34f}\u{61c}\u{115f}\u{180e}\u{200b}\u{200c}\u{200d}\u{200e}\u{202e}\u{2060}\u{2066}\u{3164}\u{fe0f}\u{feff}\u{e0061}".chars() {
            assert_eq!(invisible(&format!("https://ex{c}ample.com")), Some(c), "{c:?}");
        }
        assert_eq!(invisible("https://m\u{fc}nchen.example/caf\u{e9}"), None);
    }
}
