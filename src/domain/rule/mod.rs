//! The rule language: `quota_percent > 85 && sum("api.calls") > 100`.
//!
//! A source is scanned into tokens ([`token`]), parsed and type-checked into a small tree of our own ([`parse`], [`ir`]),
//! looked over for what makes no sense ([`warn`](mod@warn)) and evaluated exactly in fixed point with three-valued logic
//! ([`evaluate`]). Nothing here reads anything but the source and the values it is given.

mod ast;
mod error;
mod evaluate;
mod ir;
mod parse;
mod print;
mod program;
mod token;
mod warn;

#[cfg(test)]
mod tests;

pub use ast::Ast;
pub use error::{RuleError, RuleErrorCode};
pub use ir::{Comparison, Input, Name};
pub use program::{GRAMMAR, RuleProgram, Threshold, Trace, TraceStep, Value, Verdict, Warning};
