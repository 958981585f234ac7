//! Access tokens: `pat_(live|test)_` and base64url of claims and their MAC. Nothing of one is kept, so it holds on every
//! node that has the master key, and behind every restart. To callers they are opaque.

use crate::domain::id::{ClientId, Mode};
use crate::domain::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use secrecy::SecretString;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// The form of the claims. Another form gets another number.
const VERSION: u8 = 1;
const CLAIM_BYTES: usize = 1 + 16 + 16 + 4 + 8 + 8 + 8;
const MAC_BYTES: usize = 32;

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The mode of the client.
    pub mode: Mode,
    /// The client that it was issued to.
    pub client: ClientId,
    /// What tells it apart from others.
    pub number: u128,
    /// The generation of the secret that it was issued for.
    pub generation: u32,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it stops to work.
    pub expires_at: Timestamp,
    /// Which of the client's scopes it has: bit n stands for the n-th, in the order of their texts.
    pub scopes: u64,
}

impl Claims {
    /// Returns the number as the control log writes it.
    pub fn number_text(&self) -> String {
        format!("{:032x}", self.number)
    }
}

const fn prefix(mode: Mode) -> &'static str {
    match mode {
        Mode::Live => "pat_live_",
        Mode::Sandbox => "pat_test_",
    }
}

/// Tells whether a text looks like an access token rather than an API key.
pub fn looks_like_token(text: &str) -> bool {
    text.starts_with("pat_")
}

/// Makes a token.
pub fn issue(mac_key: &[u8; 32], claims: &Claims) -> SecretString {
    let mut bytes = written(claims);
    let mac = mac(mac_key, claims.mode, &bytes);
    bytes.extend_from_slice(&mac);
    SecretString::from(format!("{}{}", prefix(claims.mode), URL_SAFE_NO_PAD.encode(bytes)))
}

/// Reads a token that was made with the same key; nothing where it was not.
pub fn open(mac_key: &[u8; 32], text: &str) -> Option<Claims> {
    let (mode, encoded) =
        [Mode::Live, Mode::Sandbox].into_iter().find_map(|mode| Some((mode, text.strip_prefix(prefix(mode))?)))?;
    // What is too long to be one is not decoded.
    if encoded.len() > (CLAIM_BYTES + MAC_BYTES) * 2 {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(encoded).ok()?;
    let (claims, presented) = bytes.split_at_checked(CLAIM_BYTES)?;
    let is_genuine = bool::from(mac(mac_key, mode, claims).as_slice().ct_eq(presented));
    if is_genuine { read(mode, claims) } else { None }
}

fn written(claims: &Claims) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(CLAIM_BYTES + MAC_BYTES);
    bytes.push(VERSION);
    bytes.extend_from_slice(&claims.client.0.to_be_bytes());
    bytes.extend_from_slice(&claims.number.to_be_bytes());
    bytes.extend_from_slice(&claims.generation.to_be_bytes());
    bytes.extend_from_slice(&claims.issued_at.0.to_be_bytes());
    bytes.extend_from_slice(&claims.expires_at.0.to_be_bytes());
    bytes.extend_from_slice(&claims.scopes.to_be_bytes());
    bytes
}

fn read(mode: Mode, bytes: &[u8]) -> Option<Claims> {
    let (version, rest) = bytes.split_first()?;
    if *version != VERSION {
        return None;
    }
    let (client, rest) = rest.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (generation, rest) = rest.split_first_chunk()?;
    let (issued_at, rest) = rest.split_first_chunk()?;
    let (expires_at, rest) = rest.split_first_chunk()?;
    let (scopes, _) = rest.split_first_chunk()?;
    Some(Claims {
        mode,
        client: ClientId(u128::from_be_bytes(*client)),
        number: u128::from_be_bytes(*number),
        generation: u32::from_be_bytes(*generation),
        issued_at: Timestamp(i64::from_be_bytes(*issued_at)),
        expires_at: Timestamp(i64::from_be_bytes(*expires_at)),
        scopes: u64::from_be_bytes(*scopes),
    })
}

fn mac(mac_key: &[u8; 32], mode: Mode, claims: &[u8]) -> [u8; MAC_BYTES] {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(mac_key) else { return [0; MAC_BYTES] };
    mac.update(prefix(mode).as_bytes());
    mac.update(claims);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    const KEY: [u8; 32] = [7; 32];

    fn claims() -> Claims {
        Claims {
            mode: Mode::Live,
            client: ClientId(1 << 100 | 5),
            number: u128::MAX / 3,
            generation: 9,
            issued_at: Timestamp(1_795_000_000_000),
            expires_at: Timestamp(1_795_003_600_000),
            scopes: 1 << 63 | 5,
        }
    }

    #[test]
    fn a_token_says_what_it_was_given_and_nothing_else_is_one() {
        let text = issue(&KEY, &claims()).expose_secret().to_owned();
        assert!(looks_like_token(&text) && text.starts_with("pat_live_"));
        assert_eq!(open(&KEY, &text), Some(claims()));
        assert_eq!(open(&[8; 32], &text), None, "another master key");
        assert_eq!(open(&KEY, &text.replace("pat_live_", "pat_test_")), None, "another mode");
        for at in 9..text.len() {
            let other = if text.as_bytes()[at] == b'A' { "B" } else { "A" };
            let mut changed = text.clone();
            changed.replace_range(at..=at, other);
            assert_eq!(open(&KEY, &changed), None, "character {at}");
        }
        for torn in
            ["", "pat_", "pat_live_", "pat_live_AAAA", &text[..60], &format!("{text}AAAA"), &"pat_live_A".repeat(9_000)]
        {
            assert_eq!(open(&KEY, torn), None, "{torn}");
        }
    }
}
