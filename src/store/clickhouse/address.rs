//! Where a ClickHouse server is: `clickhouse+http://user:password@host:8123/database`. A password is never printed.

use crate::store::StoreError;
use secrecy::SecretString;
use std::fmt;

const FORM: &str = "clickhouse+http(s)://[user:password@]host[:port]/database";

/// A server, a database and who asks.
#[derive(Clone)]
pub(super) struct Address {
    /// `http://host:port`.
    pub(super) url: String,
    /// A plain identifier.
    pub(super) database: String,
    /// The user; the server's default one where absent.
    pub(super) user: Option<String>,
    /// The user's password.
    pub(super) password: Option<SecretString>,
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// Where it has another form, with what is wrong; the text itself is not repeated, as it may hold a password.
    pub(super) fn parse(text: &str) -> Result<Self, StoreError> {
        let wrong = |detail: &str| StoreError::Address { detail: format!("{detail}; expected {FORM}") };
        let url = url::Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
        let (scheme, port) = match url.scheme() {
            "clickhouse+http" => ("http", 8123),
            "clickhouse+https" => ("https", 8443),
            other => return Err(wrong(&format!("the scheme is {other}"))),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("there is no host"))?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("nothing may stand behind the database"));
        }
        let database = url.path().trim_matches('/');
        if database.is_empty() {
            return Err(wrong("there is no database"));
        }
        if !is_identifier(database) {
            return Err(wrong("a database is named by a letter or _, then up to 63 letters, digits and _"));
        }
        let decoded = |text: &str| {
            let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
            decoded.map(|text| text.into_owned()).map_err(|_| wrong("user or password is not UTF-8"))
        };
        let user = Some(decoded(url.username())?).filter(|user| !user.is_empty());
        let password = url.password().map(decoded).transpose()?;
        if user.is_none() && password.is_some() {
            return Err(wrong("there is a password and no user"));
        }
        Ok(Self {
            url: format!("{scheme}://{host}:{}", url.port().unwrap_or(port)),
            database: database.to_owned(),
            user,
            password: password.map(SecretString::from),
        })
    }
}

fn is_identifier(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.url, self.database)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn addresses_are_read() {
        let check = |text: &str, url: &str, user: Option<&str>, password: Option<&str>| {
            let address = Address::parse(text).unwrap();
            let secret = address.password.as_ref().map(|password| password.expose_secret());
            assert_eq!((address.url.as_str(), address.user.as_deref(), secret), (url, user, password), "{text}");
            assert_eq!(address.database, "usage");
            assert!(!format!("{address:?}").contains("secret"));
        };
        check("clickhouse+http://ch.internal/usage", "http://ch.internal:8123", None, None);
        check("clickhouse+https://ch.internal/usage", "https://ch.internal:8443", None, None);
        check("clickhouse+http://127.0.0.1:80/usage/", "http://127.0.0.1:80", None, None);
        check("clickhouse+http://[::1]:9/usage", "http://[::1]:9", None, None);
        check("clickhouse+http://me:secret%2F1@h/usage", "http://h:8123", Some("me"), Some("secret/1"));
        check("clickhouse+http://me@h/usage", "http://h:8123", Some("me"), None);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        let check = |text: &str, says: &str| {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains(FORM), "{error}");
            assert!(!error.contains("secret"), "{error}");
        };
        check("ch.internal:8123", "scheme is ch.internal");
        check("http://me:secret@h/usage", "scheme is http");
        check("clickhouse+http:///usage", "no host");
        check("clickhouse+http://h", "no database");
        check("clickhouse+http://h/a/b", "a database is named");
        check("clickhouse+http://h/a-b", "a database is named");
        check("clickhouse+http://h/usage?x=secret", "nothing may stand behind");
        check("clickhouse+http://:secret@h/usage", "no user");
        check("clickhouse+http://h:port/usage", "invalid port");
    }
}
