//! The REST API: thin handlers, one file a noun. A handler extracts, asks a handle, renders.
//!
//! [`problem`] is the one renderer of errors, [`change`] the one way to change the control plane, [`page`] the one way
//! to list.

mod address;
mod answer;
mod app;
mod change;
mod description;
mod docs;
mod front;
mod incoming;
mod input;
mod linger;
mod page;
mod problem;
mod receipt;
mod router;
mod running;
mod second_look;
mod server;
mod text;

mod accounts;
mod alert_input;
mod alert_rows;
mod alert_view;
mod alerts;
mod audit;
mod channels;
mod event_schema;
mod events;
mod metrics;
mod operations;
mod outbox;
mod quarantine;
mod quotas;
mod sandbox;
mod usage;

pub use front::Front;
pub use router::openapi;
pub use running::{Listeners, Running};
pub use server::{ListenerLimits, ServeError};
