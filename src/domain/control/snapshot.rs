//! The folded state as bytes, so that a start need not fold the log from its beginning.

use super::fold::Control;

/// What the bytes mean. Whatever changes the state's form, or what an entry does to it, raises this: the bytes of another
/// format are not read, and the log, which is never cut, is folded whole.
pub const CONTROL_FORMAT: u32 = 3;

impl Control {
    /// Writes the state.
    ///
    /// # Errors
    /// Where a part of it has no JSON form, which none has by design.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Reads what [`Self::to_bytes`] of the same format wrote.
    ///
    /// # Errors
    /// Where the bytes are no such state.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}
