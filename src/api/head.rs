//! What RFC 9112 and RFC 9113 ask of a request's head beyond what hyper checks: one `Host`, a transfer coding that is known,
//! and no more bytes than are taken.
//!
//! Two parties that read a head differently can be led to see different requests in the same bytes, so what is in doubt is
//! refused, and its connection ends.

use super::linger;
use super::problem::Problem;
use super::router::refused;
use crate::domain::limits::HEAD_BYTES_MAX;
use axum::extract::Request;
use axum::http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version};
use axum::middleware::Next;
use axum::response::Response;
use std::net::Ipv6Addr;

/// What HTTP/2 counts for a field beyond its name and value (RFC 9113, section 6.5.2).
const FIELD_OVERHEAD_BYTES: usize = 32;

/// Lets a request on whose head is as the RFCs ask.
pub(super) async fn vet(request: Request, next: Next) -> Response {
    let Err(problem) = check(&request) else { return next.run(request).await };
    let mut response = refused(problem, &request);
    if request.version() < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        linger::discard(request).await;
    }
    response
}

fn check<B>(request: &axum::http::Request<B>) -> Result<(), Problem> {
    check_size(request)?;
    check_coding(request.headers())?;
    check_host(request)
}

fn check_size<B>(request: &axum::http::Request<B>) -> Result<(), Problem> {
    let own = if request.version() < Version::HTTP_2 { ": \r\n".len() } else { FIELD_OVERHEAD_BYTES };
    let bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + own).sum();
    if bytes <= HEAD_BYTES_MAX {
        return Ok(());
    }
    Err(Problem::of_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE))
}

/// hyper has refused what does not end in `chunked`, and every `Transfer-Encoding` of HTTP/1.0; over HTTP/2 there is none.
fn check_coding(headers: &HeaderMap) -> Result<(), Problem> {
    let lines = headers.get_all(TRANSFER_ENCODING).iter();
    let codings: Vec<&[u8]> =
        lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii).collect();
    let is_chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
    match codings.as_slice() {
        [] => Ok(()),
        [only] if is_chunked(only) => Ok(()),
        all if all.iter().filter(|coding| is_chunked(coding)).count() > 1 => {
            Err(Problem::bad_request("invalid_header", "Transfer-Encoding applies chunked more than once"))
        }
        all if all.iter().any(|coding| coding.is_empty()) => {
            Err(Problem::bad_request("invalid_header", "Transfer-Encoding names a coding that is empty"))
        }
        _ => Err(Problem::of_status(StatusCode::NOT_IMPLEMENTED)),
    }
}

fn check_host<B>(request: &axum::http::Request<B>) -> Result<(), Problem> {
    let refuse = |detail: &str| Err(Problem::bad_request("invalid_header", detail));
    let mut lines = request.headers().get_all(HOST).iter();
    let (given, further) = (lines.next(), lines.next());
    if further.is_some() {
        return refuse("Host is given more than once");
    }
    let host = given.map(HeaderValue::as_bytes);
    if host.is_some_and(|host| !is_host(host)) {
        return refuse("Host is no host with or without a port");
    }
    let named = request.uri().authority().map(Authority::as_str);
    match (request.version(), host, named) {
        (Version::HTTP_09 | Version::HTTP_10, _, _) | (_, Some(_), None) => Ok(()),
        (Version::HTTP_11, None, _) => refuse("HTTP/1.1 asks for a Host header"),
        // The request's target says which host is meant, and Host is not read (RFC 9112, section 3.2.2).
        (Version::HTTP_11, Some(_), Some(_)) => Ok(()),
        (_, None, None) => refuse("the request names no host: neither :authority nor Host"),
        (_, _, Some(named)) if !is_host(named.as_bytes()) => refuse(":authority is no host with or without a port"),
        (_, None, Some(_)) => Ok(()),
        (_, Some(host), Some(named)) if host.eq_ignore_ascii_case(named.as_bytes()) => Ok(()),
        (_, Some(_), Some(_)) => refuse("Host and :authority name different hosts"),
    }
}

/// `uri-host [ ":" port ]` (RFC 9110, section 7.2), where the host is not empty.
fn is_host(text: &[u8]) -> bool {
    let (host, port) = match text {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
            let (inside, behind) = rest.split_at(end);
            if !is_ip_literal(inside) {
                return false;
            }
            (inside, behind.get(1..).unwrap_or_default())
        }
        _ => text.split_at(text.iter().position(|byte| *byte == b':').unwrap_or(text.len())),
    };
    let is_port = match port {
        [] => true,
        // A port of no digits is the scheme's own.
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) && number(digits) <= 65_535,
        _ => false,
    };
    is_port && !host.is_empty() && (text.starts_with(b"[") || is_name(host))
}

fn number(digits: &[u8]) -> u32 {
    digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
}

/// `IPv6address / IPvFuture`.
fn is_ip_literal(inside: &[u8]) -> bool {
    if let [b'v' | b'V', rest @ ..] = inside {
        let Some(dot) = rest.iter().position(|byte| *byte == b'.') else { return false };
        let (version, address) = rest.split_at(dot);
        let address = address.get(1..).unwrap_or_default();
        return !version.is_empty()
            && version.iter().all(u8::is_ascii_hexdigit)
            && !address.is_empty()
            && address.iter().all(|byte| is_plain(*byte) || *byte == b':');
    }
    std::str::from_utf8(inside).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// `reg-name`, which IPv4 addresses are too: unreserved characters, sub-delimiters and percent-encoded bytes.
fn is_name(host: &[u8]) -> bool {
    let mut rest = host;
    loop {
        match rest {
            [] => return true,
            [b'%', high, low, more @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest = more,
            [byte, more @ ..] if is_plain(*byte) => rest = more,
            [_, ..] => return false,
        }
    }
}

/// Unreserved characters and sub-delimiters (RFC 3986, section 2).
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~')
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(version: Version, uri: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = axum::http::Request::builder().version(version).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap()).err().map(|problem| problem.status.as_u16())
    }

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for good in [
            "x",
            "a.example",
            "A.EXAMPLE:8080",
            "a.example:",
            "127.0.0.1",
            "127.0.0.1:80",
            "[::1]",
            "[::1]:443",
            "[2001:db8::7]:65535",
            "[v1.fe:80]",
            "%41b",
            "a_b~c",
            "xn--bcher-kva.example",
            "a.",
        ] {
            assert!(is_host(good.as_bytes()), "{good:?}");
        }
        for bad in [
            "",
            ":80",
            "a b",
            "a/b",
            "a@b",
            "user@a.example",
            "a.example:x",
            "a.example:80:80",
            "a.example:65536",
            "a.example:000080",
            "::1",
            "[::1",
            "[]",
            "[::1]x",
            "[::1]:x",
            "[x]",
            "[v.x]",
            "[v1.]",
            "a?b",
            "a#b",
            "%4",
            "%zz",
            "a,b.example/",
            "a\\b",
            "http://a.example",
            "a\"b",
            "<a>",
            "bücher.example",
            "a\tb",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad:?}");
        }
    }

    #[test]
    fn each_version_asks_for_its_own() {
        let one = Version::HTTP_11;
        assert_eq!(refused(one, "/", &[("host", "a")]), None);
        assert_eq!(refused(one, "/", &[]), Some(400));
        assert_eq!(refused(one, "/", &[("host", "a"), ("host", "a")]), Some(400));
        assert_eq!(refused(one, "/", &[("host", "a b")]), Some(400));
        assert_eq!(refused(one, "http://b/", &[]), Some(400), "a target with a host does not stand for Host");
        assert_eq!(refused(one, "http://b/", &[("host", "a")]), None);
        assert_eq!(refused(Version::HTTP_10, "/", &[]), None);
        assert_eq!(refused(Version::HTTP_10, "/", &[("host", "a"), ("host", "b")]), Some(400));
        let two = Version::HTTP_2;
        assert_eq!(refused(two, "https://a/", &[]), None);
        assert_eq!(refused(two, "/", &[("host", "a")]), None);
        assert_eq!(refused(two, "/", &[]), Some(400));
        assert_eq!(refused(two, "https://a/", &[("host", "A")]), None);
        assert_eq!(refused(two, "https://a/", &[("host", "b")]), Some(400));
        assert_eq!(refused(two, "https://user@a/", &[]), Some(400));
    }

    #[test]
    fn a_body_comes_in_chunks_or_as_it_is() {
        let coded = |lines: &[&str]| {
            let mut headers = vec![("host", "a")];
            headers.extend(lines.iter().map(|line| ("transfer-encoding", *line)));
            refused(Version::HTTP_11, "/", &headers)
        };
        for good in [&[][..], &["chunked"], &["Chunked"], &[" chunked "]] {
            assert_eq!(coded(good), None, "{good:?}");
        }
        for unknown in [&["gzip, chunked"][..], &["gzip", "chunked"], &["identity, chunked"], &["chunked;a=b, chunked"]]
        {
            assert_eq!(coded(unknown), Some(501), "{unknown:?}");
        }
        for wrong in [&["chunked, chunked"][..], &["chunked", "chunked"], &[", chunked"], &["chunked, gzip, chunked"]] {
            assert_eq!(coded(wrong), Some(400), "{wrong:?}");
        }
    }

    #[test]
    fn a_head_is_as_long_as_the_limit_says() {
        let long = "x".repeat(HEAD_BYTES_MAX);
        for version in [Version::HTTP_11, Version::HTTP_2] {
            assert_eq!(refused(version, "http://a/", &[("host", "a"), ("x-long", &long)]), Some(431));
            let fits = &long[..HEAD_BYTES_MAX - 128];
            assert_eq!(refused(version, "http://a/", &[("host", "a"), ("x-long", fits)]), None);
        }
    }
}
