//! One partition's log, written by hand: every record gets the time that the test says.

use bytes::Bytes;
use highwater::domain::control::outcome::{Change, PositionedChange};
use highwater::domain::event::{DimensionValue, FrameBuilder, UsageEvent};
use highwater::domain::id::{AccountId, AccountScope, Epoch, MetricName, Mode, PartitionId, Position};
use highwater::domain::id::{Tenant, WorkspaceId};
use highwater::domain::partition::fact::Note;
use highwater::domain::quantity::Quantity;
use highwater::domain::time::Timestamp;
use highwater::journal::Record;
use highwater::runtime::processor::Fold;

pub(crate) const KEY: [u8; 16] = *b"a key for tests.";

/// Tuesday, 2026-11-24T00:00:00Z: where the tests' time begins.
pub(crate) const MIDNIGHT: Timestamp = Timestamp(1_795_478_400_000);

pub(crate) fn tenant() -> Tenant {
    Tenant { workspace: WorkspaceId(7), mode: Mode::Live }
}

pub(crate) fn account(name: &str) -> AccountId {
    AccountId::new(name).unwrap()
}

pub(crate) fn scope(name: &str) -> AccountScope {
    AccountScope::try_from(name.to_owned()).unwrap()
}

pub(crate) fn metric(name: &str) -> MetricName {
    MetricName::new(name).unwrap()
}

/// The fold of the only partition, before the first record.
pub(crate) fn fold() -> Fold {
    Fold::new(PartitionId(0), 1, KEY)
}

/// One event as a test writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) account: String,
    pub(crate) metric: String,
    pub(crate) value: Quantity,
    pub(crate) id: String,
    /// When it happened; when it is recorded where the sender does not say.
    pub(crate) at: Option<Timestamp>,
    pub(crate) dimensions: Vec<(String, String)>,
    /// The epoch that the accepting node saw.
    pub(crate) epoch: Epoch,
}

impl Usage {
    pub(crate) fn new(account: &str, metric: &str, value: Quantity, id: &str) -> Self {
        Self {
            account: account.to_owned(),
            metric: metric.to_owned(),
            value,
            id: id.to_owned(),
            at: None,
            dimensions: Vec::new(),
            epoch: Epoch(0),
        }
    }
}

/// The log's records so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) records: Vec<Record>,
    /// Up to where the control plane was copied.
    pub(crate) control: u64,
}

impl Log {
    pub(crate) fn push(&mut self, at: Timestamp, payload: Vec<u8>) -> &Record {
        let position = Position(self.records.len() as u64 + 1);
        self.records.push(Record { position, recorded_at: at, payload: Bytes::from(payload) });
        self.records.last().unwrap()
    }

    pub(crate) fn note(&mut self, at: Timestamp, note: &Note) -> &Record {
        self.push(at, note.encode())
    }

    /// Copies changes, each at a control position of its own.
    pub(crate) fn change(&mut self, at: Timestamp, changes: Vec<Change>) -> &Record {
        let after = Position(self.control);
        let mut positioned: Vec<PositionedChange> = Vec::new();
        for change in changes {
            self.control += 1;
            positioned.push((Position(self.control), change));
        }
        self.note(at, &Note::ControlCopied { after, through: Position(self.control), changes: positioned })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ordinary,
    Backfill,
}

/// The bytes of a frame whose events were accepted at `accepted_at`.
pub(crate) fn frame(accepted_at: Timestamp, events: &[Usage], kind: Kind) -> Vec<u8> {
    let mut builder = FrameBuilder::new(kind == Kind::Backfill);
    for usage in events {
        let dimensions = usage.dimensions.iter();
        let event = UsageEvent {
            account_id: usage.account.as_str().into(),
            metric: usage.metric.as_str().into(),
            value: usage.value,
            id: Some(usage.id.as_str().into()),
            source: None,
            timestamp: usage.at,
            project_id: None,
            dimensions: dimensions
                .map(|(name, value)| (name.as_str().into(), DimensionValue::Text(value.as_str().into())))
                .collect(),
            reduction: None,
        };
        let place = builder.account(tenant(), usage.epoch, &AccountId::new(usage.account.as_str()).unwrap());
        builder.push(place, &event, &usage.id, usage.at.unwrap_or(accepted_at), accepted_at);
    }
    builder.finish()
}
