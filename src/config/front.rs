//! What stands between callers and the handlers, as it is given.

use super::{ConfigError, Given};
use crate::api::{ConnectionsAsked, Front, Rates, TlsFiles};
use crate::domain::limits::{BODY_MEMORY, BODY_MEMORY_MIN, CONNECTIONS_MIN, RATE_LIMIT_MAX};
use crate::domain::time::Millis;
use ipnet::IpNet;
use std::net::IpAddr;

/// Puts flags and environment over the file over the defaults.
///
/// # Errors
/// Where a value is wrong.
pub(super) fn resolve(given: &Given, file: &Given) -> Result<Front, ConfigError> {
    let proxies = given.trusted_proxies.as_ref().or(file.trusted_proxies.as_ref());
    let cors_origins = given.cors_origins.clone().or_else(|| file.cors_origins.clone()).unwrap_or_default();
    for origin in &cors_origins {
        check_origin(origin)?;
    }
    let body_memory = given.body_memory.or(file.body_memory).unwrap_or(BODY_MEMORY);
    if body_memory < BODY_MEMORY_MIN {
        return Err(value("body_memory", format!("{body_memory} is less than {BODY_MEMORY_MIN}, what one body needs")));
    }
    Ok(Front {
        body_memory,
        trusted_proxies: networks(proxies.map_or(&[], Vec::as_slice))?,
        connections: ConnectionsAsked {
            all: least("connections", given.connections.or(file.connections))?,
            per_address: least(
                "connections_per_address",
                given.connections_per_address.or(file.connections_per_address),
            )?,
        },
        rates: rates(given, file)?,
        cors_origins,
        hsts: given.hsts.or(file.hsts),
    })
}

/// Where the certificate and its key are; neither or both.
///
/// # Errors
/// Where one is given alone.
pub(super) fn tls(given: &Given, file: &Given) -> Result<Option<TlsFiles>, ConfigError> {
    let certificate = given.tls_cert.as_ref().or(file.tls_cert.as_ref());
    let key = given.tls_key.as_ref().or(file.tls_key.as_ref());
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate: certificate.clone(), key: key.clone() })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(value("tls_key", "a certificate needs its private key".to_owned())),
        (None, Some(_)) => Err(value("tls_cert", "a private key needs its certificate".to_owned())),
    }
}

/// An origin as browsers write it, or what they send would never be equal to it.
fn check_origin(origin: &str) -> Result<(), ConfigError> {
    let written = url::Url::parse(origin).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    if origin == "*" || written.is_some_and(|url| url.origin().ascii_serialization() == origin) {
        return Ok(());
    }
    Err(value("cors_origins", format!("{origin:?} is neither * nor an origin such as https://console.example.com")))
}

fn least(name: &'static str, asked: Option<usize>) -> Result<Option<usize>, ConfigError> {
    match asked {
        Some(asked) if asked < CONNECTIONS_MIN => Err(value(name, format!("{asked} is less than {CONNECTIONS_MIN}"))),
        asked => Ok(asked),
    }
}

fn rates(given: &Given, file: &Given) -> Result<Rates, ConfigError> {
    let default = Rates::default();
    let limit = |name, limit: Option<u32>, default| match limit.unwrap_or(default) {
        limit @ 0..=RATE_LIMIT_MAX => Ok(limit),
        limit => Err(value(name, format!("{limit} is more than {RATE_LIMIT_MAX}; 0 is no limit"))),
    };
    let window = given.rate_limit_window.or(file.rate_limit_window).unwrap_or(default.window);
    if !(Millis::seconds(1)..=Millis::hours(1)).contains(&window) {
        return Err(value("rate_limit_window", format!("{window} is not between 1s and 1h")));
    }
    let sandbox_ingest = given.sandbox_ingest_rate_limit.or(file.sandbox_ingest_rate_limit);
    Ok(Rates {
        window,
        live: limit("rate_limit", given.rate_limit.or(file.rate_limit), default.live)?,
        sandbox: limit("sandbox_rate_limit", given.sandbox_rate_limit.or(file.sandbox_rate_limit), default.sandbox)?,
        ingest: limit("ingest_rate_limit", given.ingest_rate_limit.or(file.ingest_rate_limit), default.ingest)?,
        sandbox_ingest: limit("sandbox_ingest_rate_limit", sandbox_ingest, default.sandbox_ingest)?,
        auth_failures: limit(
            "auth_failure_limit",
            given.auth_failure_limit.or(file.auth_failure_limit),
            default.auth_failures,
        )?,
    })
}

fn networks(given: &[String]) -> Result<Vec<IpNet>, ConfigError> {
    let network = |text: &String| {
        let text = text.trim();
        let network = text.parse::<IpNet>().map(|network| network.trunc()).ok();
        network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)).ok_or_else(|| {
            value("trusted_proxies", format!("{text:?} is no network such as 10.0.0.0/8 and no address"))
        })
    };
    given.iter().map(network).collect()
}

fn value(name: &'static str, detail: String) -> ConfigError {
    ConfigError::Value { name, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_proxies_are_read_from_anywhere() {
        let file: Given = toml::from_str("rate_limit = 5000\ntrusted_proxies = [\"10.1.2.3/8\", \"::1\"]").unwrap();
        let given = Given { sandbox_rate_limit: Some(0), ..Given::default() };
        let front = resolve(&given, &file).unwrap();
        assert_eq!(front.rates, Rates { live: 5_000, sandbox: 0, ..Rates::default() });
        assert_eq!(front.trusted_proxies, ["10.0.0.0/8".parse().unwrap(), "::1/128".parse::<IpNet>().unwrap()]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |given: Given, name: &str| {
            let error = resolve(&given, &Given::default()).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        };
        wrong(Given { ingest_rate_limit: Some(RATE_LIMIT_MAX + 1), ..Given::default() }, "ingest_rate_limit");
        wrong(Given { connections: Some(1), ..Given::default() }, "connections:");
        wrong(Given { connections_per_address: Some(0), ..Given::default() }, "connections_per_address");
        wrong(Given { rate_limit_window: Some(Millis(1)), ..Given::default() }, "rate_limit_window");
        wrong(Given { body_memory: Some(BODY_MEMORY_MIN - 1), ..Given::default() }, "body_memory");
        for origin in
            ["console.example.com", "https://a.example/", "https://A.example", "https://a.example:443", "null"]
        {
            wrong(Given { cors_origins: Some(vec![origin.to_owned()]), ..Given::default() }, "cors_origins");
        }
        let half = tls(&Given { tls_key: Some("key.pem".into()), ..Given::default() }, &Given::default());
        assert!(half.unwrap_err().to_string().starts_with("tls_cert"));
        wrong(Given { trusted_proxies: Some(vec!["proxy.example".to_owned()]), ..Given::default() }, "trusted_proxies");
    }
}
