//! Credentials: what an API key looks like, and whom a presented one stands for.
//!
//! A key leaves this module as a hash or as a principal; nothing past it sees the key itself.

mod key;
mod verify;

pub use key::{KeyError, ParsedKey, RANDOM_BYTES, generate, hash, hint, parse, prefix};
pub use verify::{AuthError, Principal, authenticate, names_unknown_key};
