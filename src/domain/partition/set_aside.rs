//! Events that were set aside, as the fold remembers them from engine version 3 on: one entry for each event and what it
//! says, however often it comes. What somebody settled stays settled.

use super::changes::Turn;
use super::effect::{Effects, Purge, QuarantineRow, QuarantineStatus, Repeats};
use super::fact::V3;
use super::state::Partition;
use crate::domain::event::{Frame, content_digest};
use crate::domain::id::{AccountId, Epoch, Mode, Position, QuarantineId, Tenant};
use crate::domain::limits::QUARANTINE_REMEMBERED_MAX;
use crate::domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// The newest entries of each tenant.
#[derive(Clone, Debug, Default)]
pub(super) struct QuarantineMemory {
    tenants: BTreeMap<Tenant, TenantMemory>,
}

#[derive(Clone, Debug, Default)]
struct TenantMemory {
    entries: BTreeMap<QuarantineId, RememberedEntry>,
    /// By the last record of each.
    order: BTreeSet<(Position, QuarantineId)>,
}

/// An entry without what it says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RememberedEntry {
    account: Option<AccountId>,
    count: u64,
    first_at: Timestamp,
    last_at: Timestamp,
    status: QuarantineStatus,
    last: Position,
}

/// What a snapshot keeps of it.
pub(super) type SavedQuarantine = Vec<(Tenant, Vec<(QuarantineId, RememberedEntry)>)>;

impl QuarantineMemory {
    /// Takes note of an event that was set aside, and returns the row of its entry: with the time of the first such event
    /// and the status that the entry has.
    fn note(&mut self, row: QuarantineRow) -> QuarantineRow {
        let memory = self.tenants.entry(row.tenant).or_default();
        let known = memory.entries.get(&row.id);
        let entry = RememberedEntry {
            account: row.account.clone(),
            count: known.map_or(1, |known| known.count.saturating_add(1)),
            first_at: known.map_or(row.at, |known| known.first_at),
            last_at: row.at,
            status: known.map_or(row.status, |known| known.status),
            last: row.revision,
        };
        memory.put(row.id, entry.clone());
        entry.shown(row)
    }

    /// Settles an entry, and returns its row.
    fn settle(&mut self, row: QuarantineRow) -> QuarantineRow {
        let memory = self.tenants.entry(row.tenant).or_default();
        let entry = match memory.entries.get(&row.id) {
            Some(known) => RememberedEntry { status: row.status, last: row.revision, ..known.clone() },
            // It was forgotten since, and is remembered anew, so that it stays settled.
            None => RememberedEntry {
                account: row.account.clone(),
                count: row.repeats.map_or(1, |repeats| repeats.count),
                first_at: row.at,
                last_at: row.repeats.map_or(row.at, |repeats| repeats.last_at),
                status: row.status,
                last: row.revision,
            },
        };
        memory.put(row.id, entry.clone());
        entry.shown(row)
    }

    /// Forgets what is known of an account, or of a whole tenant.
    pub(super) fn forget(&mut self, tenant: Tenant, account: Option<&AccountId>) {
        let Some(account) = account else {
            self.tenants.remove(&tenant);
            return;
        };
        let Some(memory) = self.tenants.get_mut(&tenant) else { return };
        let TenantMemory { entries, order } = memory;
        entries.retain(|id, entry| {
            let kept = entry.account.as_ref() != Some(account);
            if !kept {
                order.remove(&(entry.last, *id));
            }
            kept
        });
        if entries.is_empty() {
            self.tenants.remove(&tenant);
        }
    }

    pub(super) fn saved(&self) -> SavedQuarantine {
        let entries = |memory: &TenantMemory| memory.entries.iter().map(|(id, entry)| (*id, entry.clone())).collect();
        self.tenants.iter().map(|(tenant, memory)| (*tenant, entries(memory))).collect()
    }

    pub(super) fn restored(saved: SavedQuarantine) -> Self {
        let memory = |entries: Vec<(QuarantineId, RememberedEntry)>| TenantMemory {
            order: entries.iter().map(|(id, entry)| (entry.last, *id)).collect(),
            entries: entries.into_iter().collect(),
        };
        Self { tenants: saved.into_iter().map(|(tenant, entries)| (tenant, memory(entries))).collect() }
    }
}

impl TenantMemory {
    fn put(&mut self, id: QuarantineId, entry: RememberedEntry) {
        let last = entry.last;
        if let Some(known) = self.entries.insert(id, entry) {
            self.order.remove(&(known.last, id));
        }
        self.order.insert((last, id));
        while self.order.len() > QUARANTINE_REMEMBERED_MAX {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            self.entries.remove(&oldest);
        }
    }
}

impl RememberedEntry {
    fn shown(&self, row: QuarantineRow) -> QuarantineRow {
        let repeats = (self.count > 1).then_some(Repeats { count: self.count, last_at: self.last_at });
        QuarantineRow { at: self.first_at, status: self.status, repeats, ..row }
    }
}

impl Partition {
    /// Puts an event into the quarantine. Up to engine version 2 the entry's id is a hash of where the event stands, from
    /// there on of whose it is, what it is known by and what it says.
    pub(super) fn set_aside(
        &mut self,
        frame: &Frame,
        (number, epoch): (usize, Epoch),
        (code, detail): (&str, &str),
        turn: &mut Turn<'_>,
    ) {
        let Some(event) = frame.events.get(number) else { return };
        let Some(named) = usize::try_from(event.account).ok().and_then(|at| frame.accounts.get(at)) else { return };
        let by_content = self.engine_version >= V3;
        let digest: [u8; 32] = if by_content {
            content_digest(frame, event, epoch)
        } else {
            Sha256::digest(format!("{}:{}:{number}", self.id.0, turn.stamp.position)).into()
        };
        let row = QuarantineRow {
            tenant: named.tenant,
            id: id_of(digest),
            code: code.to_owned(),
            detail: detail.to_owned(),
            account: Some(named.account.clone()),
            body: frame.to_json(event),
            at: turn.stamp.recorded_at,
            status: QuarantineStatus::Open,
            revision: turn.stamp.position,
            epoch: by_content.then_some(epoch),
            repeats: None,
        };
        turn.effects.quarantine.push(if by_content { self.quarantine.note(row) } else { row });
    }

    /// Takes in that an intake set a message aside: from engine version 3 on one entry for each body, whose detail is that of
    /// the last copy.
    pub(super) fn take_refused(&mut self, row: &QuarantineRow, turn: &mut Turn<'_>) {
        let mut row = QuarantineRow { revision: turn.stamp.position, ..row.clone() };
        if self.engine_version >= V3 {
            let epoch = self.epoch_in(row.tenant, row.account.as_ref());
            let mut hash = Sha256::new();
            hash.update(b"refused");
            // One that names no account may come to any partition.
            hash.update(self.id.0.to_be_bytes());
            hash.update(row.tenant.workspace.0.to_be_bytes());
            for part in [row.tenant.mode.name(), &row.code, row.account.as_ref().map_or("", AccountId::as_str)] {
                hash.update(part);
                hash.update([0]);
            }
            hash.update(epoch.0.to_be_bytes());
            hash.update(row.body.as_bytes());
            row = self.quarantine.note(QuarantineRow { id: id_of(hash.finalize().into()), epoch: Some(epoch), ..row });
        }
        turn.effects.quarantine.push(row);
    }

    /// Takes in that somebody settled an entry; from engine version 3 on nothing where its account was deleted since.
    pub(super) fn take_settled(&mut self, row: &QuarantineRow, turn: &mut Turn<'_>) {
        let mut row = QuarantineRow { revision: turn.stamp.position, ..row.clone() };
        if self.engine_version >= V3 {
            let present = self.epoch_in(row.tenant, row.account.as_ref());
            if row.epoch.is_some_and(|epoch| epoch < present) {
                return;
            }
            row = self.quarantine.settle(row);
        }
        turn.effects.quarantine.push(row);
    }

    /// Asks for the removal of what accounts had in epochs that ended before engine version 3.
    pub(super) fn purge_deleted(&self, effects: &mut Effects) {
        let live = self.accounts.iter().filter(|account| account.tenant.mode == Mode::Live);
        let deleted = live.filter(|account| account.epoch > Epoch::default());
        effects.purges.extend(deleted.map(|account| Purge {
            tenant: account.tenant,
            account: account.name.clone(),
            from: Epoch::default(),
            through: Epoch(account.epoch.0.saturating_sub(1)),
            position: self.clock.position,
        }));
    }

    /// The epoch that the fold knows of an account, or of all of a tenant's.
    fn epoch_in(&self, tenant: Tenant, account: Option<&AccountId>) -> Epoch {
        let Some(state) = self.tenants.get(&tenant) else { return Epoch::default() };
        let slot = account.and_then(|account| state.accounts.get(account));
        slot.and_then(|slot| self.accounts.get(*slot)).map_or(state.epoch, |account| account.epoch)
    }
}

/// The first half of a digest.
fn id_of(digest: [u8; 32]) -> QuarantineId {
    let mut first = [0_u8; 16];
    first.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    QuarantineId(u128::from_be_bytes(first))
}
