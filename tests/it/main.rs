//! The one integration binary.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that fails says so"
)]

// What the tests work with.
mod kafka;
mod load;
mod log;
mod process;
#[cfg(feature = "clickhouse")]
mod proxy;
mod receiver;
mod rows;
mod script;
mod server;
mod words;

// The domain, through the fold.
mod alerts;
mod copies;
mod episodes;
mod groups;
mod history;
mod lateness;
mod model;
mod properties;
mod reference;
mod silences;

// The API, over HTTP.
mod api;

// Real services, and what becomes of the rest when they fail.
#[cfg(feature = "clickhouse")]
mod clickhouse;
mod cluster;

// The binary, as a process.
mod crash;
mod faults;
mod import;
mod repeats;
mod timing;

// The tree.
mod tidy;
