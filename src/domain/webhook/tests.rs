//! Tests of what a log owes to endpoints.
