//! The log's edge: what looks like a secret is masked in every line, whoever wrote it and wherever in it it stands.

use regex::{Regex, bytes};
use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::LazyLock;

/// What secrets look like; the first group stays. An underscore may be percent-encoded, as in a path. Hints, which have four
/// characters behind the prefix, are shorter.
const PATTERNS: &str = r"(?x)
    ((?:pk|cs|pat)(?:_|%5[Ff])(?:live|test)(?:_|%5[Ff]))[0-9A-Za-z_%-]{8,}   # keys, secrets of clients, access tokens
  | (whsec_)[0-9A-Za-z+/=]{8,}                                                # secrets of endpoints and channels
  | (xox[a-z]-)[0-9A-Za-z-]{4,}                                               # tokens of Slack
  | (/services/T)[0-9A-Za-z]+/[0-9A-Za-z/_-]+                                 # incoming webhooks of Slack
  | ((?i:\b(?:bearer|basic)\x20+))[0-9A-Za-z._~+/=-]{8,}                      # credentials in a header
  | (://[^\s:/@?\x23]*:)[^\s@/]+@                                             # a password in a URL
";
const MASKED: &str = "${1}${2}${3}${4}${5}${6}[masked]";

#[expect(clippy::expect_used, reason = "the pattern is a constant, and the tests use it")]
static SECRETS: LazyLock<bytes::Regex> = LazyLock::new(|| bytes::Regex::new(PATTERNS).expect("a valid pattern"));
#[expect(clippy::expect_used, reason = "the pattern is a constant, and the tests use it")]
static SECRETS_IN_TEXT: LazyLock<Regex> = LazyLock::new(|| Regex::new(PATTERNS).expect("a valid pattern"));

/// Tells whether a text has something in it that looks like a secret.
pub fn has_secret(text: &str) -> bool {
    SECRETS_IN_TEXT.is_match(text)
}

/// Masks what it is given before it writes it. A line comes in one piece, as the log writes it.
pub(super) struct Masked<W>(pub(super) W);

impl<W: Write> Write for Masked<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(&masked(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn masked(line: &[u8]) -> Cow<'_, [u8]> {
    SECRETS.replace_all(line, MASKED.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::{generate, generate_secret, hint};
    use crate::domain::id::Mode;
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    fn text(line: &str) -> String {
        String::from_utf8(masked(line.as_bytes()).into_owned()).unwrap()
    }

    proptest! {
        /// No part of a key that opens anything is written, whatever stands around it.
        #[test]
        fn a_key_is_masked_wherever_it_stands(before in ".{0,20}", behind in ".{0,20}", random in any::<[u8; 32]>()) {
            let random = [random, random].concat().try_into().unwrap();
            let of_client = generate_secret(Mode::Live, random).expose_secret().to_owned();
            for mode in [Mode::Live, Mode::Sandbox] {
                let key = generate(mode, random).expose_secret().to_owned();
                for secret in [&key, &key.replace('_', "%5F"), &of_client] {
                    let line = format!("{before}{secret}{behind}");
                    prop_assert!(has_secret(&line));
                    let said = text(&line);
                    prop_assert!(!said.contains(&secret[14..30]) && !said.contains(&secret[30..]), "{said}");
                }
            }
        }
    }

    #[test]
    fn what_is_masked_says_what_it_was_and_what_is_none_stays() {
        for (line, said) in [
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_[masked]"),
            ("token=xoxb-17653672481-19874698323", "token=xoxb-[masked]"),
            ("POST https://hooks.slack.com/services/T00/B00/XXX", "POST https://hooks.slack.com/services/T[masked]"),
            ("Authorization: Bearer abcdefgh.ijk", "Authorization: Bearer [masked]"),
            ("authorization: basic QWxhZGRpbjpvcGVu", "authorization: basic [masked]"),
            ("connect to http://default:secret@store:8123/db", "connect to http://default:[masked]store:8123/db"),
            ("id=req-pat_live_AAAABBBBCCCC-7 x", "id=req-pat_live_[masked] x"),
        ] {
            assert_eq!(text(line), said);
        }
        let key = generate(Mode::Live, [7; 64]);
        let hint = format!("key {} is shown", hint(key.expose_secret()));
        for line in
            [hint.as_str(), "expected pk_live_ or pk_test_, 12 characters", "a bearer of news", "http://[::1]:8080/a@b"]
        {
            assert_eq!(text(line), line);
        }
    }
}
