//! The one integration binary.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that fails says so"
)]

mod api;
mod crash;
mod faults;
mod import;
mod process;
mod receiver;
mod server;
mod tidy;
