//! How often one may ask: at most so many times in *any* span of one length, not in each minute of the clock.
//!
//! Time is an argument. Nothing here knows what is counted, nor answers anybody.

mod ring;
mod rings;

pub use ring::{Decision, Ring, Standing};
pub use rings::{Full, Rings};
