//! highwater: exact usage windows, quota levels and alerts, folded from a durable log.
//!
//! Layers import inward only: `domain ← {dedup, journal, store, snapshot, notifier} ← runtime ← api ← cli`.

pub mod domain;

pub mod credential;
pub mod vault;

pub mod dedup;
pub mod folder;
pub mod journal;
pub mod limiter;
pub mod notifier;
pub mod snapshot;
pub mod sqlite_file;
pub mod store;

pub mod runtime;

pub mod api;

pub mod cli;
pub mod config;

pub mod telemetry;
