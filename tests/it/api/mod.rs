//! The REST API over HTTP, by noun.

mod accounts;
mod alerts;
mod auth;
mod browsers;
mod channels;
mod documents;
mod events;
mod hostile_events;
mod idempotency;
mod keys;
mod limits;
mod lists;
mod oauth;
mod operations;
mod problems;
mod projects;
mod quarantine;
mod replays;
mod robustness;
mod rules;
mod slack;
mod targets;
mod tls;
mod usage;
mod webhooks;
