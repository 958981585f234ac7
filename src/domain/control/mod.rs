//! To be written: control.
