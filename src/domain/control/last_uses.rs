//! When keys and clients were used last, as the nodes noted now and then: what a node knows better is in its memory.

use crate::domain::id::KeyId;
use crate::domain::time::Timestamp;
use core::net::IpAddr;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The last use of a key, or of an OAuth client under its name among the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastUse {
    /// When, to a minute.
    pub at: Timestamp,
    /// From where.
    pub address: IpAddr,
}

/// The last use of every key and client that there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Uses(BTreeMap<KeyId, LastUse>);

impl Uses {
    /// Notes what a node saw; what was seen later elsewhere stays. Of what is gone nothing is kept.
    pub(super) fn note(&mut self, uses: &[(KeyId, LastUse)], is_known: impl Fn(KeyId) -> bool) {
        for (key, last) in uses {
            let known = self.0.entry(*key).or_insert(*last);
            if known.at < last.at {
                *known = *last;
            }
        }
        self.0.retain(|key, _| is_known(*key));
    }

    pub(super) fn of(&self, key: KeyId) -> Option<LastUse> {
        self.0.get(&key).copied()
    }
}
