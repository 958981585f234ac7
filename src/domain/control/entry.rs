//! Entries as the control log holds them: JSON with a version. Every version ever written stays readable.

use super::command::Entry;
use serde::{Deserialize, Serialize};

/// The version that this release writes.
pub const ENTRY_VERSION: u32 = 1;

/// Why bytes of the control log are not an entry.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// A later release wrote it.
    #[error("control entry has version {found}, this release reads up to {ENTRY_VERSION}")]
    Newer {
        /// The version in the log.
        found: u32,
    },
    /// There was never such a version.
    #[error("control entry has version {found}, the first one was 1")]
    Unknown {
        /// The version in the log.
        found: u32,
    },
    /// The bytes are not what the version says.
    #[error("malformed control entry")]
    Malformed(#[from] serde_json::Error),
}

#[derive(Serialize)]
struct Written<'a> {
    v: u32,
    #[serde(flatten)]
    entry: &'a Entry,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

impl Entry {
    /// Returns the entry's journal bytes: one JSON object with its version as `v`.
    pub fn encode(&self) -> Vec<u8> {
        let written = serde_json::to_vec(&Written { v: ENTRY_VERSION, entry: self });
        crate::check!(written.is_ok(), "control.entry_encodes");
        written.unwrap_or_default()
    }

    /// Reads journal bytes of this version or an older one.
    ///
    /// # Errors
    /// Where a later release wrote the bytes, or they are no entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        match serde_json::from_slice::<Version>(bytes)?.v {
            ENTRY_VERSION => Ok(serde_json::from_slice(bytes)?),
            0 => Err(EntryError::Unknown { found: 0 }),
            found => Err(EntryError::Newer { found }),
        }
    }
}
