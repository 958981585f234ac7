//! The control plane: commands in, outcomes out, folded alike on every node.

pub mod command;
pub mod outcome;
pub mod resource;
