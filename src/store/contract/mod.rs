//! What every adapter must do, asked of each in the same words.

#[cfg(feature = "clickhouse")]
mod clickhouse;
mod equal;
#[cfg(feature = "clickhouse")]
mod group;
mod place;
mod purge;
mod sample;
mod walk;
mod windows;
