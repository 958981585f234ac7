//! highwater: exact usage windows, quota levels and alerts, folded from a durable log.
//!
//! Layers import inward only: `domain ← {dedup, journal, store, notifier} ← runtime ← api ← cli`.

pub mod domain;

pub mod dedup;
