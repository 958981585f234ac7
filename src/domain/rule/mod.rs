//! To be written: rule.
