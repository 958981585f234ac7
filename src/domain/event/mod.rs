//! Usage events: how they are read, what is refused, and how accepted ones are encoded in the journal.
//!
//! Bytes become [`UsageEvent`]s that borrow from them ([`parse_events`], [`parse_binary_cloudevent`]); [`decide()`] may
//! still refuse one by its time; accepted ones are gathered in [`FrameBuilder`]s and come back as [`Frame`]s, whose
//! [`fingerprints`] identify them.

mod body;
mod cloudevent;
mod decide;
mod dimensions;
mod fields;
mod fingerprint;
mod frame;
mod frame_read;
mod frame_write;
mod native;
mod quick;
mod refusal;
mod scan;

pub use body::{BodyError, ContentKind, Item, id_of, parse_events, parse_line};
pub use cloudevent::parse_binary_cloudevent;
pub use decide::{Acceptance, decide, derived_id};
pub use dimensions::{EventWarning, EventWarningCode, Reduction};
pub use fingerprint::{Fingerprint, content_digest, fingerprints};
pub use frame::{Frame, FrameAccount, FrameEvent, OwnedValue};
pub use frame_read::FrameError;
pub use frame_write::{AccountPlace, FrameBuilder};
pub use refusal::{Refusal, RefusalCode};

use crate::domain::id::ProjectId;
use crate::domain::quantity::Quantity;
use crate::domain::time::Timestamp;
use std::borrow::Cow;

/// The value of a dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DimensionValue<'a> {
    /// A text.
    Text(Cow<'a, str>),
    /// A number.
    Number(Quantity),
    /// True or false.
    Flag(bool),
}

/// A usage event as it was sent: valid by itself, not yet accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageEvent<'a> {
    /// Whose usage it is.
    pub account_id: Cow<'a, str>,
    /// What is counted.
    pub metric: Cow<'a, str>,
    /// How much.
    pub value: Quantity,
    /// The sender's id of the event.
    pub id: Option<Cow<'a, str>>,
    /// The sender; part of the event's identity.
    pub source: Option<Cow<'a, str>>,
    /// When it happened.
    pub timestamp: Option<Timestamp>,
    /// The project that it is labelled with.
    pub project_id: Option<ProjectId>,
    /// What else is known of it, by name.
    pub dimensions: Vec<(Cow<'a, str>, DimensionValue<'a>)>,
    /// What was changed about the dimensions, and that there may be too many; `None` where they are kept as they were sent.
    pub reduction: Option<Box<Reduction>>,
}
