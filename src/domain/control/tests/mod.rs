//! Tests of the whole fold.
