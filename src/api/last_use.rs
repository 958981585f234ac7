//! When keys were used last, as this node saw it. It is kept in memory alone: a restart forgets it, other nodes have their
//! own, and no request waits for it.

use crate::domain::id::KeyId;
use crate::domain::limits::{LAST_USE_EVERY, LAST_USES_MAX};
use crate::domain::time::Timestamp;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{PoisonError, RwLock};

/// The last use of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastUse {
    /// When, to a minute.
    pub at: Timestamp,
    /// From where.
    pub address: IpAddr,
}

/// The last use of every key.
#[derive(Debug, Default)]
pub(super) struct LastUses(RwLock<BTreeMap<KeyId, LastUse>>);

impl LastUses {
    /// Notes a use. Most calls find one of the same minute, and only read.
    pub(super) fn note(&self, key: KeyId, address: IpAddr, now: Timestamp) {
        if self.of(key).is_some_and(|last| now < last.at.plus(LAST_USE_EVERY)) {
            return;
        }
        let mut uses = self.0.write().unwrap_or_else(PoisonError::into_inner);
        uses.insert(key, LastUse { at: now, address });
        if uses.len() > LAST_USES_MAX {
            let oldest = uses.iter().min_by_key(|(_, last)| last.at).map(|(key, _)| *key);
            oldest.and_then(|key| uses.remove(&key));
        }
    }

    /// The last use of a key; nothing where this node saw none.
    pub(super) fn of(&self, key: KeyId) -> Option<LastUse> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_use_is_told_to_a_minute_and_the_oldest_goes_first() {
        let uses = LastUses::default();
        let (first, second) = (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)));
        uses.note(KeyId(1), first, Timestamp(1_000));
        uses.note(KeyId(1), second, Timestamp(60_999));
        assert_eq!(uses.of(KeyId(1)), Some(LastUse { at: Timestamp(1_000), address: first }));
        uses.note(KeyId(1), second, Timestamp(61_000));
        assert_eq!(uses.of(KeyId(1)), Some(LastUse { at: Timestamp(61_000), address: second }));
        for key in 2..=LAST_USES_MAX as u128 + 1 {
            uses.note(KeyId(key), first, Timestamp(100_000));
        }
        assert_eq!((uses.of(KeyId(1)), uses.0.read().unwrap().len()), (None, LAST_USES_MAX));
    }
}
