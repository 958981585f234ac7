//! The REST API over HTTP, by noun.

mod accounts;
mod alerts;
mod audit;
mod auth;
mod channels;
mod documents;
mod events;
mod hostile_events;
mod idempotency;
mod lists;
mod modes;
mod operations;
mod problems;
mod quarantine;
mod robustness;
mod rules;
mod sandbox;
mod slack;
mod targets;
mod usage;
mod webhooks;
