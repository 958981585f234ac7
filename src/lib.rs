//! highwater: exact usage windows, quota levels and alerts, folded from a durable log.
//!
//! Layers import inward only: `domain ← {credential, vault, dedup, journal, store, notifier} ← runtime ← api ← cli`.

pub mod domain;

pub mod credential;
pub mod dedup;
pub mod journal;
pub mod notifier;
pub mod store;
pub mod vault;
