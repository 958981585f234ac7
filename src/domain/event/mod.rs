//! To be written: event.
