//! Rows as they stand in ClickHouse's columns, of domain types.

use crate::domain::id::{
    AccountId, AlertId, ChannelId, Epoch, MetricName, Mode, NotificationId, PartitionId, Position, ProjectId,
    QuarantineId, Tenant, WorkspaceId,
};
use crate::domain::partition::aggregate::Aggregate;
use crate::domain::partition::archive::EventRow;
use crate::domain::partition::effect::{
    AccountRow, DeliveryRow, DeliveryStatus, InstanceKey, InstanceRow, SeriesKey, State, WindowRow,
};
use crate::domain::quantity::Quantity;
use crate::domain::time::Timestamp;
use clickhouse::Row;
use serde::{Deserialize, Serialize};

/// How far a partition reaches.
#[derive(Debug, Row, Serialize, Deserialize)]
pub(super) struct PositionRecord {
    pub(super) partition: u32,
    pub(super) position: Position,
    pub(super) clock: Timestamp,
}

/// How far a partition reaches, as it is written.
#[derive(Clone, Debug, Row, Serialize, Deserialize)]
pub(super) struct WrittenPosition {
    pub(super) partition: u32,
    pub(super) position: Position,
    pub(super) clock: Timestamp,
    pub(super) archived_from: Option<Position>,
}

/// An event that was counted.
#[derive(Debug, Row, Serialize, Deserialize)]
pub(super) struct CountedRecord {
    #[serde(with = "text")]
    pub(super) workspace: WorkspaceId,
    #[serde(with = "text")]
    pub(super) mode: Mode,
    pub(super) epoch: Epoch,
    #[serde(with = "text")]
    pub(super) account: AccountId,
    #[serde(with = "text")]
    pub(super) metric: MetricName,
    pub(super) grp: String,
    pub(super) timestamp: Timestamp,
    pub(super) accepted_at: Timestamp,
    pub(super) recorded_at: Timestamp,
    pub(super) clock: Timestamp,
    pub(super) value: Quantity,
    pub(super) source: String,
    pub(super) id: String,
    #[serde(with = "optional_text")]
    pub(super) project: Option<ProjectId>,
    pub(super) dimensions: String,
    pub(super) backfill: bool,
    pub(super) late: bool,
    pub(super) partition: u32,
    pub(super) position: Position,
    pub(super) number: u32,
}

impl CountedRecord {
    pub(super) fn of(partition: PartitionId, row: &EventRow) -> Self {
        let row = row.clone();
        Self {
            workspace: row.tenant.workspace,
            mode: row.tenant.mode,
            epoch: row.epoch,
            account: row.account,
            metric: row.metric,
            grp: row.group,
            timestamp: row.timestamp,
            accepted_at: row.accepted_at,
            recorded_at: row.recorded_at,
            clock: row.clock,
            value: row.value,
            source: row.source,
            id: row.id,
            project: row.project,
            dimensions: row.dimensions,
            backfill: row.backfill,
            late: row.late,
            partition: partition.0,
            position: row.position,
            number: row.number,
        }
    }
}

/// A part of a window.
#[derive(Debug, Row, Serialize, Deserialize)]
pub(super) struct WindowRecord {
    #[serde(with = "text")]
    pub(super) workspace: WorkspaceId,
    #[serde(with = "text")]
    pub(super) mode: Mode,
    pub(super) epoch: Epoch,
    #[serde(with = "text")]
    pub(super) account: AccountId,
    #[serde(with = "text")]
    pub(super) metric: MetricName,
    pub(super) grp: String,
    pub(super) start: Timestamp,
    pub(super) part: Position,
    pub(super) count: u64,
    pub(super) sum: Quantity,
    pub(super) min: Quantity,
    pub(super) max: Quantity,
    pub(super) last: Quantity,
    pub(super) last_at: Timestamp,
    pub(super) late_events: u64,
    pub(super) revision: Position,
}

impl From<&WindowRow> for WindowRecord {
    fn from(row: &WindowRow) -> Self {
        let SeriesKey { tenant, epoch, account, metric, group } = row.series.clone();
        let Aggregate { count, sum, min, max, last, last_at } = row.aggregate;
        Self {
            workspace: tenant.workspace,
            mode: tenant.mode,
            epoch,
            account,
            metric,
            grp: group,
            start: row.start,
            part: row.part,
            count,
            sum,
            min,
            max,
            last,
            last_at,
            late_events: row.late_events,
            revision: row.revision,
        }
    }
}

impl WindowRecord {
    /// The events.
    pub(super) const fn aggregate(&self) -> Aggregate {
        Aggregate {
            count: self.count,
            sum: self.sum,
            min: self.min,
            max: self.max,
            last: self.last,
            last_at: self.last_at,
        }
    }
}

/// An account that has events.
#[derive(Debug, Row, Serialize, Deserialize)]
pub(super) struct AccountRecord {
    #[serde(with = "text")]
    pub(super) workspace: WorkspaceId,
    #[serde(with = "text")]
    pub(super) mode: Mode,
    #[serde(with = "text")]
    pub(super) account: AccountId,
    pub(super) epoch: Epoch,
    pub(super) first_seen_at: Timestamp,
    pub(super) revision: Position,
}

impl From<&AccountRow> for AccountRecord {
    fn from(row: &AccountRow) -> Self {
        Self {
            workspace: row.tenant.workspace,
            mode: row.tenant.mode,
            account: row.account.clone(),
            epoch: row.epoch,
            first_seen_at: row.first_seen_at,
            revision: row.revision,
        }
    }
}

impl From<AccountRecord> for AccountRow {
    fn from(record: AccountRecord) -> Self {
        Self {
            tenant: Tenant { workspace: record.workspace, mode: record.mode },
            epoch: record.epoch,
            account: record.account,
            first_seen_at: record.first_seen_at,
            revision: record.revision,
        }
    }
}

/// An alert instance.
#[derive(Debug, Row, Serialize, Deserialize)]
pub(super) struct InstanceRecord {
    #[serde(with = "text")]
    pub(super) workspace: WorkspaceId,
    #[serde(with = "text")]
    pub(super) mode: Mode,
    #[serde(with = "text")]
    pub(super) alert: AlertId,
    #[serde(with = "text")]
    pub(super) account: AccountId,
    #[serde(with = "optional_text")]
    pub(super) metric: Option<MetricName>,
    pub(super) epoch: Epoch,
    #[serde(with = "optional_text")]
    pub(super) state: Option<State>,
    pub(super) since: Timestamp,
    pub(super) silenced: bool,
    pub(super) value: Option<Quantity>,
    pub(super) evaluated_at: Timestamp,
    pub(super) revision: Position,
}

impl From<&InstanceRow> for InstanceRecord {
    fn from(row: &InstanceRow) -> Self {
        let InstanceKey { tenant, alert, account, metric } = row.key.clone();
        Self {
            workspace: tenant.workspace,
            mode: tenant.mode,
            alert,
            account,
            metric,
            epoch: row.epoch,
            state: row.state,
            since: row.since,
            silenced: row.silenced,
            value: row.value,
            evaluated_at: row.evaluated_at,
            revision: row.revision,
        }
    }
}

impl From<InstanceRecord> for InstanceRow {
    fn from(record: InstanceRecord) -> Self {
        Self {
            key: InstanceKey {
                tenant: Tenant { workspace: record.workspace, mode: record.mode },
                alert: record.alert,
                account: record.account,
                metric: record.metric,
            },
            epoch: record.epoch,
            state: record.state,
            since: record.since,
            silenced: record.silenced,
            value: record.value,
            evaluated_at: record.evaluated_at,
            revision: record.revision,
        }
    }
}

/// A transition of an alert instance; `body` is all of it.
#[derive(Debug, Row, Serialize, Deserialize)]
pub(super) struct TransitionRecord {
    #[serde(with = "text")]
    pub(super) workspace: WorkspaceId,
    #[serde(with = "text")]
    pub(super) mode: Mode,
    #[serde(with = "text")]
    pub(super) alert: AlertId,
    pub(super) at: Timestamp,
    #[serde(with = "text")]
    pub(super) account: AccountId,
    #[serde(with = "optional_text")]
    pub(super) metric: Option<MetricName>,
    pub(super) sequence: u64,
    pub(super) position: Position,
    pub(super) body: String,
    /// The incident that it begins; empty for others.
    pub(super) incident: String,
}

/// A notification; `body` is all of it.
#[derive(Debug, Row, Serialize, Deserialize)]
pub(super) struct NotificationRecord {
    #[serde(with = "text")]
    pub(super) workspace: WorkspaceId,
    #[serde(with = "text")]
    pub(super) mode: Mode,
    pub(super) at: Timestamp,
    #[serde(with = "text")]
    pub(super) id: NotificationId,
    #[serde(with = "text")]
    pub(super) alert: AlertId,
    pub(super) position: Position,
    pub(super) body: String,
}

/// What became of a notification at one destination.
#[derive(Debug, Row, Serialize, Deserialize)]
pub(super) struct DeliveryRecord {
    #[serde(with = "text")]
    pub(super) workspace: WorkspaceId,
    #[serde(with = "text")]
    pub(super) mode: Mode,
    #[serde(with = "text")]
    pub(super) notification: NotificationId,
    #[serde(with = "text")]
    pub(super) channel: ChannelId,
    #[serde(with = "text")]
    pub(super) status: DeliveryStatus,
    pub(super) attempts: u32,
    pub(super) outcome: Option<String>,
    pub(super) next_at: Option<Timestamp>,
    pub(super) at: Timestamp,
    pub(super) revision: Position,
}

impl From<&DeliveryRow> for DeliveryRecord {
    fn from(row: &DeliveryRow) -> Self {
        Self {
            workspace: row.tenant.workspace,
            mode: row.tenant.mode,
            notification: row.notification,
            channel: row.channel,
            status: row.status,
            attempts: row.attempts,
            outcome: row.outcome.clone(),
            next_at: row.next_at,
            at: row.at,
            revision: row.revision,
        }
    }
}

impl From<DeliveryRecord> for DeliveryRow {
    fn from(record: DeliveryRecord) -> Self {
        Self {
            tenant: Tenant { workspace: record.workspace, mode: record.mode },
            notification: record.notification,
            channel: record.channel,
            status: record.status,
            attempts: record.attempts,
            outcome: record.outcome,
            next_at: record.next_at,
            at: record.at,
            revision: record.revision,
        }
    }
}

/// A quarantined event; `body` is all of it.
#[derive(Debug, Row, Serialize, Deserialize)]
pub(super) struct QuarantineRecord {
    #[serde(with = "text")]
    pub(super) workspace: WorkspaceId,
    #[serde(with = "text")]
    pub(super) mode: Mode,
    #[serde(with = "text")]
    pub(super) id: QuarantineId,
    pub(super) partition: u32,
    pub(super) code: String,
    #[serde(with = "optional_text")]
    pub(super) account: Option<AccountId>,
    #[serde(with = "text")]
    pub(super) status: crate::domain::partition::effect::QuarantineStatus,
    pub(super) at: Timestamp,
    pub(super) revision: Position,
    pub(super) body: String,
}

/// Something that stands as its text, the one that the API writes.
pub(super) trait Text: Sized + for<'de> Deserialize<'de> {
    fn put<R>(&self, put: impl FnOnce(&str) -> R) -> R;
}

macro_rules! texts {
    (names: $($name:ty),*; ids: $($id:ty),*; enums: $($kind:ty),*;) => {
        $(impl Text for $name {
            fn put<R>(&self, put: impl FnOnce(&str) -> R) -> R {
                put(self.as_str())
            }
        })*
        $(impl Text for $id {
            fn put<R>(&self, put: impl FnOnce(&str) -> R) -> R {
                put(&self.to_string())
            }
        })*
        $(impl Text for $kind {
            fn put<R>(&self, put: impl FnOnce(&str) -> R) -> R {
                put(self.name())
            }
        })*
    };
}

texts! {
    names: AccountId, MetricName;
    ids: WorkspaceId, AlertId, ChannelId, NotificationId, ProjectId, QuarantineId, crate::domain::id::WebhookId;
    enums: Mode, State, DeliveryStatus, crate::domain::partition::effect::QuarantineStatus,
        crate::domain::webhook::kind::EventType;
}

/// Text columns.
pub(super) mod text {
    use super::Text;
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StrDeserializer};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in super::super) fn serialize<T: Text, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        value.put(|text| serializer.serialize_str(text))
    }

    pub(in super::super) fn deserialize<'de, T: Text, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        parsed(<&str>::deserialize(deserializer)?)
    }

    pub(in super::super) fn parsed<T: Text, E: serde::de::Error>(text: &str) -> Result<T, E> {
        // A text's own deserializer is one for people, to which ids and enums are texts.
        let source: StrDeserializer<'_, Error> = text.into_deserializer();
        T::deserialize(source).map_err(E::custom)
    }
}

/// Text columns in which the empty text is nothing.
mod optional_text {
    use super::Text;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<T: Text, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::text::serialize(value, serializer),
            None => serializer.serialize_str(""),
        }
    }

    pub(super) fn deserialize<'de, T: Text, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        if text.is_empty() { Ok(None) } else { super::text::parsed(text).map(Some) }
    }
}
