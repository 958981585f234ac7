//! What the control fold answers to a command.

use super::resource::{
    Account, Acknowledgement, Alert, Channel, ClientRecord, KeyRecord, MetricRecord, Project, QuotaRecord,
    SilenceRecord, Webhook, Workspace,
};
use super::sandbox::Sandbox;
use super::trials::TestMessage;
use crate::domain::definition::{AlertDefinition, MetricDefinition, Quota, Silence};
use crate::domain::id::{
    AccountId, AccountScope, AlertId, ChannelId, MetricName, NotificationId, PartitionId, Position, ProjectId,
    ReplayId, SilenceId, Tenant, WebhookId,
};
use crate::domain::partition::notification::Notification;
use crate::domain::time::{Millis, Timestamp};
use crate::domain::webhook::outbox::Subscription;
use crate::domain::webhook::rows::{Again, DeliveryId, Rows};
use serde::{Deserialize, Serialize};

/// What one entry of the control log did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What the caller is told.
    pub outcome: Outcome,
    /// Whose outcome this is, where an idempotency record answered.
    pub replayed_from: Option<String>,
    /// What the partitions must learn.
    pub changes: Vec<Change>,
    /// What became of the events that the control log owes.
    pub rows: Rows,
}

/// What the caller is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was made or changed; this is how it stands.
    Created(Resource),
    /// It was changed, or was so already.
    Done(Resource),
    /// It is gone.
    Deleted,
    /// Nothing changed.
    Refused(Refused),
}

/// One resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resource {
    /// Nothing to show.
    None,
    /// A workspace.
    Workspace(Workspace),
    /// An API key.
    Key(Box<KeyRecord>),
    /// An OAuth client.
    Client(Box<ClientRecord>),
    /// A project.
    Project(Project),
    /// An account.
    Account(Account),
    /// A quota.
    Quota(QuotaRecord),
    /// A metric.
    Metric(MetricRecord),
    /// A channel.
    Channel(Box<Channel>),
    /// An alert.
    Alert(Box<Alert>),
    /// An endpoint.
    Webhook(Box<Webhook>),
    /// A delivery that was asked for.
    Delivery(DeliveryId),
    /// A replay that was asked for.
    Replay {
        /// Its id.
        id: ReplayId,
        /// How many deliveries it makes again.
        queued: u64,
        /// Behind which delivery the next one begins; absent where nothing is left.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<(Timestamp, NotificationId)>,
    },
    /// A sandbox.
    Sandbox(Sandbox),
    /// A silence.
    Silence(Box<SilenceRecord>),
    /// That somebody takes care of an incident.
    Acknowledgement(Acknowledgement),
    /// A test message that is on its way.
    Test(TestMessage),
    /// A message that is sent to a channel again.
    Message {
        /// The message.
        id: NotificationId,
        /// To whom.
        channel: ChannelId,
    },
}

/// Why a command changed nothing. Shape was checked before the log; these depend on the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    /// The log was set up before.
    #[error("already initialised")]
    AlreadyInitialised,
    /// There is no such thing.
    #[error("{kind} {id} does not exist")]
    NotFound {
        /// What was looked for.
        kind: String,
        /// Its id.
        id: String,
    },
    /// It exists already, or is in use.
    #[error("{detail}")]
    Conflict {
        /// What stands in the way.
        detail: String,
    },
    /// The caller expected another version.
    #[error("the version is {current}, not {expected}")]
    VersionMismatch {
        /// What the caller expects.
        expected: u64,
        /// What it is.
        current: u64,
    },
    /// A bound would be passed.
    #[error("at most {limit} {what}")]
    LimitReached {
        /// What is bounded.
        what: String,
        /// The bound.
        limit: usize,
    },
    /// The state of the thing does not allow it.
    #[error("{detail}")]
    InvalidState {
        /// What stands in the way.
        detail: String,
    },
    /// A bound on how often would be passed.
    #[error("at most {limit} {what}")]
    TooOften {
        /// What is bounded.
        what: String,
        /// The bound.
        limit: usize,
        /// When the next one may be.
        again_at: Timestamp,
        /// When this one was, on the log's clock.
        at: Timestamp,
    },
    /// The key was revoked, expired or replaced before.
    #[error("{detail}")]
    KeyNotActive {
        /// What it is instead.
        detail: String,
    },
    /// A named channel vanished meanwhile.
    #[error("channel {channel} does not exist")]
    ChannelNotConfigured {
        /// The channel.
        channel: String,
    },
    /// The idempotency key was used for something else.
    #[error("the idempotency key was used for another request, {original_request_id}")]
    IdempotencyKeyReused {
        /// That request.
        original_request_id: String,
    },
}

/// One thing that the partitions learn of the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// The folds go by other settings.
    Settings {
        /// How long after its end a window stays open.
        grace: Millis,
        /// How long an event's identity is remembered.
        dedup_horizon: Millis,
        /// How long a closed window stays correctable.
        correction_horizon: Millis,
    },
    /// A metric is defined, or undeclared again.
    Metric {
        /// Workspace and mode.
        tenant: Tenant,
        /// The metric.
        metric: MetricName,
        /// What is known of it.
        definition: Option<MetricDefinition>,
    },
    /// A quota is set or removed.
    Quota {
        /// Workspace and mode.
        tenant: Tenant,
        /// The account, or all of them.
        account: AccountScope,
        /// The metric.
        metric: MetricName,
        /// The quota.
        quota: Option<Quota>,
    },
    /// An alert is made or changed (edits, pauses, resumes).
    Alert {
        /// Workspace and mode.
        tenant: Tenant,
        /// How it stands.
        definition: Box<AlertDefinition>,
    },
    /// An alert is gone.
    AlertDeleted {
        /// Workspace and mode.
        tenant: Tenant,
        /// Which one.
        alert: AlertId,
    },
    /// An account is gone; its epoch is this change's control position.
    AccountDeleted {
        /// Workspace and mode.
        tenant: Tenant,
        /// Which one.
        account: AccountId,
    },
    /// A sandbox starts anew; its epoch is this change's control position.
    SandboxReset {
        /// Workspace and mode.
        tenant: Tenant,
    },
    /// A sandbox's clock is put forward.
    ClockAdvanced {
        /// Workspace and mode.
        tenant: Tenant,
        /// By how much.
        by: Millis,
    },
    /// A sandbox begins with usage that nobody sent.
    UsageSeeded {
        /// Workspace and mode.
        tenant: Tenant,
        /// Whose usage it is.
        account: AccountId,
        /// What is counted.
        metric: MetricName,
        /// When the first value was used.
        from: Timestamp,
        /// How far the values are apart.
        every: Millis,
        /// Whole amounts, one after another.
        values: Vec<i64>,
    },
    /// A silence is made or changed.
    Silence {
        /// Workspace and mode.
        tenant: Tenant,
        /// How it stands.
        silence: Silence,
    },
    /// A test message is to be sent by the partition that its account has.
    Test {
        /// Workspace and mode.
        tenant: Tenant,
        /// The message.
        test: TestMessage,
    },
    /// A channel takes messages again, or leads elsewhere: what it has not heard is sent to it.
    ChannelRepaired {
        /// Workspace and mode.
        tenant: Tenant,
        /// Which one.
        channel: ChannelId,
    },
    /// A message is to be sent to a channel again by the partition that made it.
    RedeliverMessage {
        /// Workspace and mode.
        tenant: Tenant,
        /// To whom.
        channel: ChannelId,
        /// All of it.
        notification: Box<Notification>,
        /// Attempts so far.
        attempts: u32,
    },
    /// A silence is gone.
    SilenceDeleted {
        /// Workspace and mode.
        tenant: Tenant,
        /// Which one.
        silence: SilenceId,
    },
    /// An endpoint wants other things, or nothing any more.
    Webhook {
        /// Workspace and mode.
        tenant: Tenant,
        /// Which one.
        webhook: WebhookId,
        /// What it wants; absent when it is gone.
        subscription: Option<Subscription>,
        /// The project that it is labelled with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        project: Option<ProjectId>,
    },
    /// Deliveries are to be made again by the logs that owed them.
    Redeliver {
        /// Workspace and mode.
        tenant: Tenant,
        /// To whom.
        webhook: WebhookId,
        /// Which ones.
        deliveries: Vec<Again>,
    },
}

impl Change {
    /// The change as far as it concerns one partition.
    #[must_use]
    pub fn for_partition(self, partition: PartitionId) -> Option<Self> {
        match self {
            Self::Redeliver { tenant, webhook, mut deliveries } => {
                deliveries.retain(|again| again.log == partition.log());
                (!deliveries.is_empty()).then_some(Self::Redeliver { tenant, webhook, deliveries })
            }
            Self::RedeliverMessage { ref notification, .. } => (notification.partition == partition).then_some(self),
            Self::Settings { .. }
            | Self::Metric { .. }
            | Self::Quota { .. }
            | Self::Alert { .. }
            | Self::AlertDeleted { .. }
            | Self::AccountDeleted { .. }
            | Self::SandboxReset { .. }
            | Self::ClockAdvanced { .. }
            | Self::Silence { .. }
            | Self::SilenceDeleted { .. }
            | Self::Webhook { .. }
            | Self::Test { .. }
            | Self::ChannelRepaired { .. }
            | Self::UsageSeeded { .. } => Some(self),
        }
    }
}

/// A change with the control position that made it.
pub type PositionedChange = (Position, Change);
