//! Credentials: what API keys and access tokens look like, and whom a presented one stands for.
//!
//! A key leaves this module as a hash or as a principal; nothing past it sees the key itself.

mod key;
mod token;
mod verify;

pub use key::{KeyError, ParsedKey, RANDOM_BYTES, generate, generate_secret, hash, hint, parse, prefix, secret_hint};
pub use token::{Claims, issue, looks_like_token, open as open_token};
pub use verify::{
    AuthError, Principal, admits, authenticate, authenticate_token, named, names_unknown_client, names_unknown_key,
    token_scopes, verify_secret,
};
