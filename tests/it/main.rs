//! The one integration binary.
#![expect(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a test that fails says so")]

#[cfg(feature = "clickhouse")]
mod clickhouse;
mod crash;
mod faults;
mod import;
mod process;
#[cfg(feature = "clickhouse")]
mod proxy;
mod tidy;
