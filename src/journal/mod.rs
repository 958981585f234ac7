//! To be written: journal.
