//! What is noted in the audit log without a change: each once for an address (a token's issue: for a client), reason and hour, and
//! so many an hour on this node. So nobody fills the control log, which is never cut, and least of all who has no credential.
//! A kill loses what was not told in its last second.

use super::control::{Asking, ControlPlane, SubmitError};
use crate::domain::control::access_note::{AccessKind, AccessNote};
use crate::domain::control::command::Command;
use crate::domain::id::{KeyId, Mode, Tenant, WorkspaceId};
use crate::domain::limits::{ACCESS_NOTES_PER_HOUR_MAX, ACCESS_NOTES_WITHOUT_CREDENTIAL_MAX};
use crate::domain::partition::fact::V3;
use crate::domain::time::{Millis, Timestamp};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How often what was noted is told.
const ROUND: Duration = Duration::from_secs(1);

/// Whose audit log has what is known to be no tenant's: the operator reads it (`highwater audit`).
pub const NO_TENANT: Tenant = Tenant { workspace: WorkspaceId(0), mode: Mode::Live };

/// What happened, to whom it belongs, and who did it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Whose audit log it belongs to.
    pub tenant: Tenant,
    /// The credential; absent where it did not work.
    pub actor: Option<KeyId>,
    /// In which request.
    pub request_id: String,
    /// From where.
    pub ip: IpAddr,
    /// What.
    pub note: AccessNote,
}

/// What was noted in the running hour; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct AccessNotes(Arc<Mutex<Hour>>);

/// Who or where, in whose log, what, why, and of a secret which one.
type Seen = (Tenant, String, AccessKind, Option<String>, Option<String>);

#[derive(Debug, Default)]
struct Hour {
    began: Timestamp,
    seen: BTreeSet<Seen>,
    without_credential: usize,
    is_full: bool,
    waiting: Vec<Access>,
}

impl AccessNotes {
    /// Notes an access, where it is the first of its kind in this hour and there is room.
    pub fn note(&self, access: Access, now: Timestamp) {
        let mut hour = self.lock();
        let began = Timestamp(now.0.div_euclid(Millis::hours(1).0).saturating_mul(Millis::hours(1).0));
        if hour.began != began {
            let waiting = std::mem::take(&mut hour.waiting);
            *hour = Hour { began, waiting, ..Hour::default() };
        }
        let is_valid = access.note.kind != AccessKind::CredentialRefused;
        let whose = match access.note.kind {
            AccessKind::TokenIssued => access.note.target.id(),
            AccessKind::SecretRead | AccessKind::EscalationRefused | AccessKind::CredentialRefused => {
                access.ip.to_string()
            }
        };
        let which = (access.note.kind == AccessKind::SecretRead).then(|| access.note.target.id());
        let seen = (access.tenant, whose, access.note.kind, access.note.refused.clone(), which);
        if hour.seen.contains(&seen) {
            return;
        }
        let has_room = hour.seen.len() < ACCESS_NOTES_PER_HOUR_MAX
            && (is_valid || hour.without_credential < ACCESS_NOTES_WITHOUT_CREDENTIAL_MAX);
        if !has_room {
            if !std::mem::replace(&mut hour.is_full, true) {
                tracing::warn!("more accesses than an hour's are noted of are not in the audit log");
            }
            return;
        }
        hour.without_credential += usize::from(!is_valid);
        hour.seen.insert(seen);
        hour.waiting.push(access);
    }

    fn take(&self) -> Vec<Access> {
        std::mem::take(&mut self.lock().waiting)
    }

    async fn tell(&self, control: &ControlPlane) {
        // Older releases of a cluster do not read it.
        if control.state().engine_version() < V3 {
            return;
        }
        let mut waiting = self.take().into_iter();
        while let Some(access) = waiting.next() {
            let Access { tenant, actor, request_id, ip, note } = access.clone();
            let asking = Asking { actor, request_id, ip: Some(ip), ..Asking::by_command_line(tenant) };
            let Err(error) = control.submit(asking, Command::NoteAccess(note)).await else { continue };
            tracing::debug!(error = %crate::telemetry::chain(&error), "an access is not noted yet");
            // Behind any other error the record is there.
            if matches!(error, SubmitError::Append(_)) {
                let mut hour = self.lock();
                hour.waiting.push(access);
                hour.waiting.extend(waiting);
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Hour> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells what was noted, until `stop` says so, and once more then.
pub(super) async fn run(notes: AccessNotes, control: ControlPlane, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(ROUND) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        notes.tell(&control).await;
        if *stop.borrow() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::control::audit::Target;
    use crate::domain::id::WebhookId;
    use std::net::Ipv4Addr;

    fn access(kind: AccessKind, from: u32, target: u128) -> Access {
        Access {
            tenant: NO_TENANT,
            actor: None,
            request_id: String::new(),
            ip: Ipv4Addr::from_bits(from).into(),
            note: AccessNote { kind, target: Target::Webhook(WebhookId(target)), refused: None },
        }
    }

    #[test]
    fn strangers_fill_no_more_than_their_part_of_an_hour() {
        let notes = AccessNotes::default();
        let hour = Millis::hours(1).0;
        for at in [0, hour, 5 * hour] {
            for from in 0..10_000 {
                notes.note(access(AccessKind::CredentialRefused, from, 1), Timestamp(at));
                notes.note(access(AccessKind::CredentialRefused, from, 1), Timestamp(at + hour - 1));
            }
            assert_eq!(notes.take().len(), ACCESS_NOTES_WITHOUT_CREDENTIAL_MAX);
            for target in 0..1_000 {
                notes.note(access(AccessKind::SecretRead, 7, target), Timestamp(at));
            }
            let rest = ACCESS_NOTES_PER_HOUR_MAX - ACCESS_NOTES_WITHOUT_CREDENTIAL_MAX;
            assert_eq!(notes.take().len(), rest, "who has a credential is noted all the same");
        }
        assert_eq!(notes.lock().seen.len(), ACCESS_NOTES_PER_HOUR_MAX);
    }

    #[test]
    fn each_is_noted_once_for_whom_it_is_about() {
        let notes = AccessNotes::default();
        let count = |kind, from, target| {
            notes.note(access(kind, from, target), Timestamp(1));
            notes.take().len()
        };
        assert_eq!(count(AccessKind::TokenIssued, 1, 1), 1);
        assert_eq!(count(AccessKind::TokenIssued, 2, 1), 0, "one client, wherever it is");
        assert_eq!(count(AccessKind::TokenIssued, 2, 2), 1);
        assert_eq!(count(AccessKind::SecretRead, 1, 1), 1);
        assert_eq!(count(AccessKind::SecretRead, 1, 2), 1, "another secret");
        assert_eq!(count(AccessKind::EscalationRefused, 1, 1), 1);
        assert_eq!(count(AccessKind::EscalationRefused, 1, 2), 0, "one address and one reason");
    }
}
