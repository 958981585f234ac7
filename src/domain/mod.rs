//! The pure heart: what events, rules, quotas and alerts mean.
//!
//! Nothing here reads a clock, performs IO, awaits, logs, counts metrics, draws random numbers or looks at the
//! environment. *decide* functions may refuse and stand before the journal; *apply* functions are total and stand
//! behind it. Effects are values that the runtime performs.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::float_arithmetic,
        clippy::as_conversions
    )
)]

pub mod id;
pub mod invariant;
pub mod limits;
pub mod quantity;
pub mod routing;
pub mod time;

pub mod definition;

pub mod rule;

pub mod event;

pub mod control;

pub mod partition;

pub mod incident;
pub mod silence;
pub mod webhook;
