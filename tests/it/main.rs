//! The integration tests, one binary.

mod log;
mod rows;
mod script;
mod words;

mod alerts;
mod episodes;
mod lateness;

mod copies;
mod groups;
mod history;
mod properties;

mod model;
mod reference;
