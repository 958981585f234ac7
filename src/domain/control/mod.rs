//! The control plane: commands in, outcomes out, folded alike on every node.
//!
//! [`fold::Control`] is the state. It refuses for what the state is, never for what a command looks like: that was
//! checked before the command was logged.

pub mod access;
pub mod access_note;
pub mod command;
pub mod entry;
pub mod outcome;
mod overflow;
pub mod resource;
pub mod sandbox;
pub mod scope;

pub mod fold;

mod accounts;
mod acknowledgements;
mod alert_draft;
mod alerts;
pub mod audit;
pub mod audit_line;
mod channels;
mod clients;
mod clock;
mod due;
mod events;
pub mod idempotency;
pub mod imports;
pub mod intake;
pub mod keeper;
mod keys;
pub mod last_uses;
mod metrics;
mod patch;
pub mod pressure;
mod projects;
mod quotas;
mod registry;
pub mod silences;
pub mod snapshot;
pub mod trials;
mod verdict;
mod webhook;

#[cfg(test)]
mod tests;
