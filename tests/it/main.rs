//! The integration tests, one binary.

mod log;
mod script;
mod words;

mod alerts;
mod episodes;
mod lateness;
