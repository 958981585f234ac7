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
mod nodes;
mod private;
mod process;
#[cfg(feature = "clickhouse")]
mod proxy;
mod receiver;
mod rows;
mod script;
mod server;
mod services;
mod words;

// The domain, through the fold.
mod alerts;
mod bands;
mod copies;
mod episodes;
mod explanations;
mod groups;
mod history;
mod last_words;
mod lateness;
mod model;
mod previews;
mod properties;
mod reference;
mod silences;
mod spans;
mod worlds;

// The API, over HTTP.
mod api;

// Real services, and what becomes of the rest when they fail.
#[cfg(feature = "clickhouse")]
mod archive;
#[cfg(feature = "clickhouse")]
mod clickhouse;
mod clocks;
mod cluster;
mod command_line;
mod intake_gaps;
mod keepers;
#[cfg(feature = "clickhouse")]
mod outages;
mod peers;
#[cfg(feature = "clickhouse")]
mod shapes;
mod unheard;
mod unreachable;
mod versions;

// What is shipped beside the binary.
mod deploy;
mod descriptors;

// The binary, as a process.
mod crash;
mod faults;
mod files;
mod flapping;
mod hooks;
mod import;
mod planes;
mod repeats;
mod sandbox;
mod secrets;
mod stopping;
mod timing;

// The tree.
mod tidy;
