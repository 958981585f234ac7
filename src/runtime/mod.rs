//! The only place with tasks, threads, `select!` and a clock: it wires the pure parts to the adapters.
//!
//! [`data`] opens everything, [`node`] starts it; [`control`] and [`ingest`] are the ways in; [`base`] keeps snapshots of the control plane; [`ownership`] decides which [`partitions`] are taken and given
//! back; [`processor`] folds one's log; [`lag`] tells how far behind all of it is; [`pending`] for how long the oldest message;
//! [`engine_version`] decides what the logs may be asked for; [`writer`], [`dispatcher`], [`courier`], [`herald`], [`timekeeper`] and [`snapshotter`] do what the fold asks for; [`offline`]
//! folds without serving, what [`reader`] opens beside whoever writes; [`repair`] sets the logs' clock back.

pub mod access_notes;
mod channel_health;
pub mod clock;
mod clock_step;

mod copies;
pub mod data;
pub mod descriptors;
pub mod node;
mod places;
pub mod reader;

pub mod base;
pub mod control;
pub mod import;
pub mod ingest;
#[cfg(feature = "kafka")]
pub mod intake;
pub mod intake_gaps;
#[cfg(feature = "kafka")]
mod intake_places;

pub mod courier;
mod dispatch;
pub mod dispatcher;
pub mod drops;
pub mod engine_version;
mod health;
pub mod herald;
pub mod hub;
pub mod lag;
pub mod last_use;
pub mod outbox;
pub mod ownership;
pub mod partitions;
pub mod pending;
pub mod pressure;
pub mod processor;
pub mod requests;
pub mod sandbox;
pub mod snapshotter;
pub mod target;
pub mod timekeeper;
mod unsent;
pub mod writer;

pub mod offline;
pub mod repair;
