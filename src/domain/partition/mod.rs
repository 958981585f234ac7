//! The partition engine: dedup verdicts, windows, quota levels, alert states and debts, folded from one log.
//!
//! `apply` is total: what stands in the log is always taken in. It reads no clock; time is what the records say.

pub mod aggregate;
pub mod effect;
pub mod notification;
