//! To be written: notifier.
