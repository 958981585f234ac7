//! When keys were used last, as this node saw it: to a minute in memory, and in the control log every 10 minutes and at the
//! end, so that other nodes and a restart know it. No request waits for it. A kill loses what was not noted yet.

use super::clock;
use super::control::{Asking, ControlPlane};
use crate::domain::control::command::Command;
use crate::domain::control::last_uses::LastUse;
use crate::domain::id::{KeyId, Mode, Tenant, WorkspaceId};
use crate::domain::limits::{LAST_USE_EVERY, LAST_USES_MAX, LAST_USES_NOTED_EVERY};
use crate::domain::time::Timestamp;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;

/// Whose keys they are is said by their ids.
const NOBODY: Tenant = Tenant { workspace: WorkspaceId(0), mode: Mode::Live };

/// The last use of every key; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct LastUses(Arc<RwLock<BTreeMap<KeyId, LastUse>>>);

impl LastUses {
    /// Notes a use. Most calls find one of the same minute, and only read.
    pub fn note(&self, key: KeyId, address: IpAddr, now: Timestamp) {
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
    pub fn of(&self, key: KeyId) -> Option<LastUse> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key).copied()
    }

    /// What was seen behind an instant.
    fn behind(&self, at: Timestamp) -> Vec<(KeyId, LastUse)> {
        let uses = self.0.read().unwrap_or_else(PoisonError::into_inner);
        uses.iter().filter(|(_, last)| last.at > at).map(|(key, last)| (*key, *last)).collect()
    }
}

/// Notes in the control log what was seen, until `stop` says so, and once more then.
pub(super) async fn run(uses: LastUses, control: ControlPlane, mut stop: watch::Receiver<bool>) {
    let every = Duration::from_millis(u64::try_from(LAST_USES_NOTED_EVERY.0).unwrap_or(600_000));
    let mut noted = Timestamp(0);
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        let (now, seen) = (clock::now(), uses.behind(noted));
        if !seen.is_empty() {
            match control.submit(Asking::by_command_line(NOBODY), Command::NoteKeyUses { uses: seen }).await {
                Ok(_) => noted = now,
                Err(error) => {
                    let cause = crate::telemetry::chain(&error);
                    tracing::debug!(error = %cause, "when keys were used last is not noted yet");
                }
            }
        }
        if *stop.borrow() {
            return;
        }
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
