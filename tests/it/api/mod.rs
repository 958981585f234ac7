//! The REST API over HTTP, by noun.

mod accounts;
mod alerts;
mod auth;
mod channels;
mod documents;
mod events;
mod hostile_events;
mod idempotency;
mod incidents;
mod lists;
mod operations;
mod problems;
mod quarantine;
mod robustness;
mod rules;
mod silences;
mod slack;
mod targets;
mod trials;
mod usage;
mod webhooks;
