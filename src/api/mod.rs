//! The REST API: thin handlers, one file a noun. A handler extracts, asks a handle, renders.
//!
//! [`problem`] is the one renderer of errors, [`change`] the one way to change the control plane, [`page`] the one way
//! to list.

mod answer;
mod app;
mod change;
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
mod deliveries;
mod event_schema;
mod event_types;
mod events;
mod metrics;
mod operations;
mod quarantine;
mod quotas;
mod stream;
mod stream_rows;
mod usage;
mod webhook_actions;
mod webhook_input;
mod webhooks;

pub use router::openapi;
pub use running::{Listeners, Running};
pub use server::{ListenerLimits, ServeError};
