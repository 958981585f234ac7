//! Signatures as Standard Webhooks 1.0 has them: HMAC-SHA256 over `id.timestamp.body`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Makes a secret of 32 random bytes.
pub fn new_secret(random: [u8; 32]) -> String {
    format!("whsec_{}", STANDARD.encode(random))
}

/// Signs a message with every secret; the signatures are separated by spaces, as a rotation needs it.
///
/// A secret that is no base64 behind `whsec_` signs with its text.
pub fn sign(secrets: &[&str], id: &str, timestamp: i64, body: &[u8]) -> String {
    let signatures: Vec<String> = secrets.iter().map(|secret| signature(secret, id, timestamp, body)).collect();
    signatures.join(" ")
}

/// Tells whether one of the signatures is that of the secret.
pub fn verify(secret: &str, signatures: &str, id: &str, timestamp: i64, body: &[u8]) -> bool {
    let wanted = signature(secret, id, timestamp, body);
    signatures.split(' ').any(|given| bool::from(given.as_bytes().ct_eq(wanted.as_bytes())))
}

fn signature(secret: &str, id: &str, timestamp: i64, body: &[u8]) -> String {
    let encoded = secret.strip_prefix("whsec_").unwrap_or(secret);
    let key = STANDARD.decode(encoded).unwrap_or_else(|_| secret.as_bytes().to_vec());
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else { return String::new() };
    mac.update(id.as_bytes());
    mac.update(b".");
    mac.update(timestamp.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_golden_vector_of_standard_webhooks() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let (id, timestamp, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        let signed = sign(&[secret], id, timestamp, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let both = sign(&[&new_secret([1; 32]), secret], id, timestamp, body);
        assert!(verify(secret, &both, id, timestamp, body) && verify(&new_secret([1; 32]), &both, id, timestamp, body));
        assert!(!verify(secret, &both, id, timestamp + 1, body) && !verify(secret, &both, id, timestamp, b"{}"));
        assert!(!verify(&new_secret([2; 32]), &both, id, timestamp, body));
    }
}
