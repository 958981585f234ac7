//! The text of an API key: `pk_(live|test)_<12 base62>_<32 base62 + 6 checksum>`. No error and no hint holds its secret.
//! The secret of an OAuth client has the same form behind `cs_`.

use crate::domain::id::Mode;
use secrecy::SecretString;
use sha2::{Digest, Sha256};

/// How many random bytes [`generate`] takes.
pub const RANDOM_BYTES: usize = 64;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const LOOKUP_CHARS: usize = 12;
const SECRET_CHARS: usize = 32;
const CHECKSUM_CHARS: usize = 6;
/// The largest multiple of 62 that a byte can count to; bytes from here on would favour the first characters.
const UNBIASED_BELOW: u8 = 248;

/// Why a text is not an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It does not have a key's form.
    #[error("not an API key: expected pk_live_ or pk_test_, 12 characters, _ and 38 characters of 0-9 A-Z a-z")]
    Malformed,
    /// Its checksum is another's: it was mistyped or made up.
    #[error("not an API key: the checksum does not fit")]
    Checksum,
}

/// The public parts of an API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedKey {
    /// The part that finds it: 12 base62 characters.
    pub lookup: String,
    /// Live or sandbox.
    pub mode: Mode,
}

/// Returns the first part of a mode's keys: `pk_live_` or `pk_test_`.
pub const fn prefix(mode: Mode) -> &'static str {
    match mode {
        Mode::Live => "pk_live_",
        Mode::Sandbox => "pk_test_",
    }
}

/// Returns the first part of the secrets of a mode's OAuth clients.
const fn secret_prefix(mode: Mode) -> &'static str {
    match mode {
        Mode::Live => "cs_live_",
        Mode::Sandbox => "cs_test_",
    }
}

/// Makes a key of random bytes. Every character is equally likely.
pub fn generate(mode: Mode, random: [u8; RANDOM_BYTES]) -> SecretString {
    generate_behind(prefix(mode), random)
}

/// Makes the secret of an OAuth client of random bytes.
pub fn generate_secret(mode: Mode, random: [u8; RANDOM_BYTES]) -> SecretString {
    generate_behind(secret_prefix(mode), random)
}

fn generate_behind(prefix: &str, random: [u8; RANDOM_BYTES]) -> SecretString {
    let mut characters = base62_characters(random);
    let mut key = String::with_capacity(prefix.len() + LOOKUP_CHARS + 1 + SECRET_CHARS + CHECKSUM_CHARS);
    key.push_str(prefix);
    key.extend(characters.by_ref().take(LOOKUP_CHARS));
    key.push('_');
    key.extend(characters.take(SECRET_CHARS));
    let checksum = checksum(&key);
    key.push_str(&checksum);
    SecretString::from(key)
}

/// Reads the public parts of a key.
///
/// # Errors
/// Where the text does not have the form, or its checksum does not fit: no look-up is needed to refuse it.
pub fn parse(key: &str) -> Result<ParsedKey, KeyError> {
    let (mode, rest) = [Mode::Live, Mode::Sandbox]
        .into_iter()
        .find_map(|mode| Some((mode, key.strip_prefix(prefix(mode))?)))
        .ok_or(KeyError::Malformed)?;
    let (lookup, tail) = rest.split_once('_').ok_or(KeyError::Malformed)?;
    let is_base62 = |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_alphanumeric());
    if !is_base62(lookup, LOOKUP_CHARS) || !is_base62(tail, SECRET_CHARS + CHECKSUM_CHARS) {
        return Err(KeyError::Malformed);
    }
    let (before, presented) = key.split_at_checked(key.len() - CHECKSUM_CHARS).ok_or(KeyError::Malformed)?;
    if presented != checksum(before) {
        return Err(KeyError::Checksum);
    }
    Ok(ParsedKey { lookup: lookup.to_owned(), mode })
}

/// Returns what the control log holds of a key: SHA-256 of the whole of it, in lower-case hex.
pub fn hash(key: &str) -> String {
    format!("{:x}", Sha256::digest(key.as_bytes()))
}

/// Returns what people may see of a key: `pk_live_7Hq2…xiM`. Of a text that is no key, nothing.
pub fn hint(key: &str) -> String {
    if parse(key).is_ok() { ends(key) } else { String::new() }
}

/// Returns what people may see of the secret of an OAuth client: `cs_live_7Hq2…xiM`. Of another text, nothing.
pub fn secret_hint(secret: &str) -> String {
    let is_secret = [Mode::Live, Mode::Sandbox].iter().any(|mode| secret.starts_with(secret_prefix(*mode)));
    if is_secret { ends(secret) } else { String::new() }
}

/// Both prefixes have 8 characters; 4 and 3 of the rest tell it apart from others and give nothing away.
fn ends(text: &str) -> String {
    let (first, last) = (text.get(..12).unwrap_or(""), text.get(text.len().saturating_sub(3)..).unwrap_or(""));
    format!("{first}…{last}")
}

fn checksum(before: &str) -> String {
    let mut rest = crc32fast::hash(before.as_bytes());
    let mut digits = [b'0'; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

/// Yields characters without end: of the random bytes, and of hashes of them where too many had to be passed over.
fn base62_characters(random: [u8; RANDOM_BYTES]) -> impl Iterator<Item = char> {
    let more = (0_u64..).flat_map(move |block| {
        let digest: [u8; 32] = Sha256::new().chain_update(random).chain_update(block.to_be_bytes()).finalize().into();
        digest
    });
    let unbiased = random.into_iter().chain(more).filter(|byte| *byte < UNBIASED_BELOW);
    unbiased.map(|byte| char::from(ALPHABET[usize::from(byte % 62)]))
}
