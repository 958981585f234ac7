//! The REST API: thin handlers, one file a noun. A handler extracts, asks a handle, renders.
//!
//! [`problem`] is the one renderer of errors, [`change`] the one way to change the control plane, [`page`] the one way
//! to list.

mod answer;
mod app;
mod change;
mod created;
mod description;
mod docs;
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
mod channels;
mod event_schema;
mod events;
mod incidents;
mod metrics;
mod operations;
mod quarantine;
mod quotas;
mod silences;
mod trials;
mod usage;

pub use router::openapi;
pub use running::{Listeners, Running};
pub use server::{ListenerLimits, ServeError};
