//! Platform events: what happened, told to the endpoints that people subscribe with.
//!
//! Events follow from the records of a log. [`outbox::Outbox`] is what a log's fold owes of them, the same in every
//! partition's fold and in the control fold.

pub mod event;
pub mod kind;
pub mod outbox;
pub mod rows;

#[cfg(test)]
mod tests;
