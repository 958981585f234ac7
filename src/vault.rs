//! Sealing of secrets at rest with the master key. It keeps nothing in the clear and prints nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, KeyInit, Nonce};
use hmac::{Hmac, Mac};
use secrecy::SecretSlice;
use secrecy::zeroize::Zeroizing;
use sha2::Sha256;
use std::fmt;
use subtle::ConstantTimeEq;

const VERSION: &str = "v1.";
const NONCE_BYTES: usize = 12;

/// Why something could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The operating system gave no random bytes.
    #[error("no random bytes for a nonce from the operating system")]
    Randomness,
    /// More than the cipher takes at once.
    #[error("too long to seal")]
    TooLong,
    /// It is not of a form that this release reads.
    #[error("not a sealed value: expected v1. and base64url")]
    Malformed,
    /// Another key or another context sealed it, or it was changed since.
    #[error("sealed with another key or for another context, or changed since")]
    Refused,
}

/// Seals with keys that are derived from one master key.
pub struct Vault {
    cipher: ChaCha20Poly1305,
    cursors: Zeroizing<[u8; 32]>,
    tokens: Zeroizing<[u8; 32]>,
    check: String,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}

impl Vault {
    /// Makes a vault of a master key.
    pub fn new(master_key: [u8; 32]) -> Self {
        let master_key = Zeroizing::new(master_key);
        let sealing = derived(&master_key, "highwater vault: seal v1");
        let check = derived(&master_key, "highwater vault: check v1");
        Self {
            cursors: derived(&master_key, "highwater vault: cursors v1"),
            tokens: derived(&master_key, "highwater vault: tokens v1"),
            cipher: ChaCha20Poly1305::new(Key::from_slice(sealing.as_slice())),
            check: format!("{VERSION}{}", URL_SAFE_NO_PAD.encode(check.as_slice())),
        }
    }

    /// Seals a secret for a context, which must be given again to open it: `v1.` and base64url of nonce, text and tag.
    ///
    /// # Errors
    /// Where the operating system gives no random bytes, or the secret is longer than 256 GiB.
    pub fn seal(&self, context: &str, plaintext: &[u8]) -> Result<String, VaultError> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| VaultError::Randomness)?;
        let payload = Payload { msg: plaintext, aad: context.as_bytes() };
        let text = self.cipher.encrypt(Nonce::from_slice(&nonce), payload).map_err(|_| VaultError::TooLong)?;
        Ok(format!("{VERSION}{}", URL_SAFE_NO_PAD.encode([nonce.as_slice(), &text].concat())))
    }

    /// Opens what was sealed for a context.
    ///
    /// # Errors
    /// Where the text is no sealed value, another key or context sealed it, or it was changed.
    pub fn open(&self, context: &str, sealed: &str) -> Result<SecretSlice<u8>, VaultError> {
        let encoded = sealed.strip_prefix(VERSION).ok_or(VaultError::Malformed)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| VaultError::Malformed)?;
        let (nonce, text) = bytes.split_at_checked(NONCE_BYTES).ok_or(VaultError::Malformed)?;
        let payload = Payload { msg: text, aad: context.as_bytes() };
        let plaintext = self.cipher.decrypt(Nonce::from_slice(nonce), payload).map_err(|_| VaultError::Refused)?;
        Ok(SecretSlice::from(plaintext))
    }

    /// Returns what signs the cursors of lists: the same on every node and after every restart.
    pub fn cursor_key(&self) -> [u8; 32] {
        *self.cursors
    }

    /// Returns what the MAC of access tokens is made with: the same on every node and after every restart.
    pub fn token_key(&self) -> &[u8; 32] {
        &self.tokens
    }

    /// Returns what the control log holds to know the master key again: one-way, the same for the same key.
    pub fn check_value(&self) -> &str {
        &self.check
    }

    /// Tells whether a check value was made with the same master key.
    pub fn verify_check(&self, check: &str) -> bool {
        self.check.as_bytes().ct_eq(check.as_bytes()).into()
    }
}

/// One key per purpose: what is sealed and what is published never share one.
fn derived(master_key: &[u8; 32], purpose: &str) -> Zeroizing<[u8; 32]> {
    // HMAC fills a short key up with zeros itself; a whole block is what its infallible constructor takes.
    let mut block = Zeroizing::new([0; 64]);
    block[..master_key.len()].copy_from_slice(master_key);
    let mut mac = <Hmac<Sha256> as KeyInit>::new(block.as_slice().into());
    mac.update(purpose.as_bytes());
    Zeroizing::new(mac.finalize().into_bytes().into())
}
