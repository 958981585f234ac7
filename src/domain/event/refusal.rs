//! Why one event is not taken.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The kind of a refusal; its text is part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// A field is missing or has a wrong value.
    InvalidEvent,
    /// A field is not one of ours.
    UnknownField,
    /// A CloudEvent breaks its specification.
    InvalidCloudevent,
    /// The event has too many bytes.
    EventTooLarge,
    /// It is further ahead than clocks may differ.
    TimestampInFuture,
    /// It is older than the lateness horizon.
    TimestampTooOld,
    /// Only known accounts are accepted, and this is none.
    UnknownAccount,
    /// Another event with its id was counted before.
    EventConflict,
    /// It is not JSON.
    MalformedJson,
    /// Its line has too many bytes.
    LineTooLarge,
}

impl RefusalCode {
    /// The code as the API writes it.
    pub const fn text(self) -> &'static str {
        match self {
            Self::InvalidEvent => "invalid_event",
            Self::UnknownField => "unknown_field",
            Self::InvalidCloudevent => "invalid_cloudevent",
            Self::EventTooLarge => "event_too_large",
            Self::TimestampInFuture => "timestamp_in_future",
            Self::TimestampTooOld => "timestamp_too_old",
            Self::UnknownAccount => "unknown_account",
            Self::EventConflict => "event_conflict",
            Self::MalformedJson => "malformed_json",
            Self::LineTooLarge => "line_too_large",
        }
    }
}

/// Why one event is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The kind.
    pub code: RefusalCode,
    /// What is wrong and what would be right.
    pub detail: String,
    /// Where, as a JSON pointer (RFC 6901) into the event.
    pub pointer: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pointer {
            Some(pointer) => write!(f, "{} at {pointer}: {}", self.code.text(), self.detail),
            None => write!(f, "{}: {}", self.code.text(), self.detail),
        }
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    pub(super) fn new(code: RefusalCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), pointer: None }
    }

    pub(super) fn at(code: RefusalCode, pointer: &str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), pointer: Some(pointer.to_owned()) }
    }

    pub(super) fn json(error: &serde_json::Error) -> Self {
        Self::new(RefusalCode::MalformedJson, error.to_string())
    }
}

/// Makes a name one token of a JSON pointer.
pub(super) fn pointer_token(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
