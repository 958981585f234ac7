//! Telling the world: signed webhooks and Slack messages, to targets that are vetted when they are made and again when
//! they are connected to.
//!
//! [`payload`], [`slack`], [`signature`], [`backoff`] and [`queue`] are pure; [`client`] sends. Nothing here retries or
//! remembers: the dispatcher decides when, the journal remembers what came of it.

mod answer;
pub mod backoff;
mod client;
mod digest;
mod guard;
mod lane;
mod markup;
mod payload;
mod queue;
mod resolver;
mod signature;
mod slack;
mod special_ranges;
mod spelling;
mod to_slack;

pub use client::{Attempt, Destination, Endpoint, Failure, Notifier, NotifierError, Outgoing, Sent};
pub use guard::{Guard, TargetError, TargetKind};
pub use payload::{event_body, webhook_body};
pub use queue::{DestinationKind, Queue, Rank, Ticket, Work};
pub use signature::{new_secret, sign, verify};
