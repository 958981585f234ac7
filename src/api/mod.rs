//! The REST API: thin handlers, one file a noun. A handler extracts, asks a handle, renders.
//!
//! [`problem`] is the one renderer of errors, [`change`] the one way to change the control plane, [`page`] the one way
//! to list.

mod address;
mod answer;
mod app;
mod change;
mod created;
mod crowd;
mod description;
mod docs;
mod front;
mod gate;
mod grant;
mod http2;
mod incoming;
mod input;
mod last_use;
mod linger;
mod page;
mod problem;
mod receipt;
mod router;
mod running;
mod second_look;
mod sending;
mod server;
mod shapes;
mod shown_once;
mod text;
mod tls;

mod accounts;
mod alert_input;
mod alert_rows;
mod alert_view;
mod alerts;
mod audit;
mod channels;
mod deliveries;
mod event_schema;
mod event_types;
mod events;
mod incidents;
mod key_view;
mod keys;
mod metrics;
mod oauth;
mod oauth_clients;
mod operations;
mod outbox;
mod projects;
mod quarantine;
mod quotas;
mod rehearsals;
mod relations;
mod sandbox;
mod silences;
mod stream;
mod stream_rows;
mod trials;
mod usage;
mod usage_query;
mod webhook_actions;
mod webhook_input;
mod webhooks;
mod whoami;
mod workspace;

pub use front::Front;
pub use gate::Rates;
pub use router::openapi;
pub use running::{Listeners, Running};
pub use server::{ListenerLimits, ServeError};
pub use tls::{Tls, TlsError, TlsFiles};
