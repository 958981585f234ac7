//! To be written: dedup.
