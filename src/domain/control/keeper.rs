//! Who keeps the rows that the folds of a shared journal derive: a store that every node reaches, or one node alone.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Who keeps the rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keeper {
    /// A store that every node writes to and reads.
    Shared,
    /// A node with a store of its own; the id is its data folder's.
    Node(String),
}

impl fmt::Display for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared => f.write_str("a store that nodes share"),
            Self::Node(id) => write!(f, "the single node {id} with a store of its own"),
        }
    }
}
