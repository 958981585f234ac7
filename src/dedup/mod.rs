//! The dedup index: which event identities were counted, for as long as the horizon says.
//!
//! It is asked for a whole frame at a time. An answer depends only on what was recorded before and on the clock, never on
//! how entries are kept, so sealing, merging or dropping them changes no answer.

mod memory;

pub use memory::{Index, RestoreError};
