//! The integration tests, in one binary.

mod api;
mod receiver;
mod server;
