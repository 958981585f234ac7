//! Files that were imported as a whole. Only the newest are remembered; the events of all are told apart by their ids.

use super::outcome::Resource;
use super::verdict::{Accepted, Context};
use crate::domain::id::Position;
use crate::domain::limits::IMPORTS_REMEMBERED_MAX;
use crate::domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A file that was imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportRecord {
    /// The entry that notes it.
    pub position: Position,
    /// When it was noted, on the log's clock.
    pub at: Timestamp,
    /// How many of its lines were accepted.
    pub accepted: u64,
    /// How many were refused.
    pub refused: u64,
}

/// The imported files of one tenant, by digest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Imports {
    pub(super) records: BTreeMap<String, ImportRecord>,
}

impl Imports {
    pub(super) fn record(&mut self, context: Context, digest: &str, accepted: u64, refused: u64) -> Accepted {
        let record = ImportRecord { position: context.position, at: context.now, accepted, refused };
        self.records.insert(digest.to_owned(), record);
        if self.records.len() > IMPORTS_REMEMBERED_MAX {
            let oldest =
                self.records.iter().min_by_key(|(_, record)| record.position).map(|(digest, _)| digest.clone());
            oldest.and_then(|digest| self.records.remove(&digest));
        }
        Accepted::done(Resource::None)
    }
}
