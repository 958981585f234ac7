//! The REST API over HTTP, by noun.

mod accounts;
mod alerts;
mod auth;
mod channels;
mod deliveries;
mod documents;
mod endpoints;
mod events;
mod hostile_events;
mod idempotency;
mod lists;
mod operations;
mod problems;
mod quarantine;
mod robustness;
mod rules;
mod slack;
mod stream;
mod targets;
mod usage;
mod webhooks;
