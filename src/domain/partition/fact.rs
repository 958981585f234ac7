//! The facts of a partition's log and their encoding.
//!
//! Frames of events are binary (see [`frame`](crate::domain::event)); every other fact is a JSON object that opens with
//! `{"v":1,`. A record's first byte tells which.

use super::clock_set::Restored;
use super::effect::QuarantineRow;
use super::notification::Attempted;
use crate::domain::control::outcome::PositionedChange;
use crate::domain::event::{Frame, FrameError};
use crate::domain::id::Position;
use crate::domain::time::Timestamp;
use crate::domain::webhook::rows::Posted;
use serde::{Deserialize, Serialize};

/// The version that this release writes; it reads all up to it.
pub const FACT_VERSION: u32 = 1;

/// The engine version from which on `quota.*` events are told.
pub const QUOTAS_TOLD: u32 = 2;

/// The engine version whose semantics follow from faults that users reported.
///
/// What it changes:
/// - `metric` of a silence's matcher is compared with every metric that the rule names, and a matcher whose expression
///   does not compile holds nothing.
/// - What is told again of a firing that an open window proves names that window and its values.
/// - `quota_percent` of a limit of zero is 0 while nothing is used, and greater than every number from then on. It was
///   missing.
/// - The groups of a window add up to its total: each hour of event time has room for as many, and one group for all others.
/// - An event that is set aside again and again is one entry of the quarantine, which stays settled. What is known of an
///   account's entries goes with the account, and so do its rows.
/// - `ClockSet` sets the fold's clock back.
/// - A channel that takes messages again is sent what it has not heard; one that an edit adds to an alert hears what fires. A
///   message that a channel loses is told to endpoints as `delivery.exhausted`.
/// - whatever sent a resolve lets the next firing be sent; at most one message of an instance is pending for a
///   channel; catching up ends with one evaluation of what was passed over.
/// - `for` and `keep_firing_for` of rules that read a window count closed windows; a missing verdict ends `pending`; all that
///   opened something is closed; a removed quota ends a firing; the first window of an instance is not evaluated.
pub const V3: u32 = 3;

/// The engine version that this release folds at most, and asks for in the logs of partitions that it owns.
///
/// A log begins at version 1. A refold behaves up to the record that raises it as the fold did that wrote what follows.
pub const ENGINE_VERSION: u32 = V3;

/// One record of a partition's log.
#[derive(Clone, Debug)]
pub enum Fact {
    /// Valid events.
    UsageRecorded(Frame),
    /// Anything else.
    Note(Note),
}

/// A fact that is no frame of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Note {
    /// What the partition must know of the control plane.
    ControlCopied {
        /// Everything up to here was copied before.
        after: Position,
        /// Everything up to here is copied with this.
        through: Position,
        /// The changes between, in order.
        changes: Vec<PositionedChange>,
    },
    /// Time passed.
    Ticked {
        /// The intake holds nothing older that is not in the log; absent where there is no intake.
        intake_through: Option<Timestamp>,
    },
    /// An event of the intake could not be taken.
    EventRefused {
        /// The entry for the quarantine; its revision and time are the record's.
        row: QuarantineRow,
    },
    /// A quarantined event was sent in again, or given up.
    QuarantineSettled {
        /// The entry as it stands from here on.
        row: QuarantineRow,
    },
    /// An attempt to deliver was made.
    NotificationAttempted(Attempted),
    /// An attempt to deliver an event to an endpoint was made.
    DeliveryAttempted {
        /// The attempt.
        posted: Posted,
    },
    /// From here on the fold's clock is another one: the log's own was wrong.
    ClockSet {
        /// The clock.
        to: Timestamp,
        /// When it was set, by the clock of who set it: what is long past by then is told to nobody singly.
        set_at: Timestamp,
        /// What the wrong clock made the fold forget.
        restored: Restored,
    },
    /// From here on the fold behaves as this version says.
    EngineVersion {
        /// The version.
        version: u32,
    },
}

/// Why a record is not a fact that this release reads.
#[derive(Debug, thiserror::Error)]
pub enum FactError {
    /// A frame is damaged.
    #[error("damaged frame")]
    Frame(#[from] FrameError),
    /// A JSON fact is damaged.
    #[error("damaged fact")]
    Json(#[from] serde_json::Error),
    /// A later release wrote it.
    #[error("fact of version {found}, this release reads up to {FACT_VERSION}")]
    TooNew {
        /// The version found.
        found: u32,
    },
}

#[derive(Serialize)]
struct Written<'a> {
    v: u32,
    #[serde(flatten)]
    note: &'a Note,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

impl Note {
    /// Returns the record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        // Plain structs with text keys always have a JSON form.
        serde_json::to_vec(&Written { v: FACT_VERSION, note: self }).unwrap_or_default()
    }
}

impl Fact {
    /// Reads a record.
    ///
    /// # Errors
    /// Where the bytes are damaged or of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self, FactError> {
        if bytes.first() != Some(&b'{') {
            return Ok(Self::UsageRecorded(Frame::decode(bytes)?));
        }
        let Version { v } = serde_json::from_slice(bytes)?;
        if v > FACT_VERSION {
            return Err(FactError::TooNew { found: v });
        }
        Ok(Self::Note(serde_json::from_slice(bytes)?))
    }
}
