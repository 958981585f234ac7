//! What people and tools may ask for, normalised and validated for shape before it is logged.

use super::access::{
    ClientChange, KeyChange, KeyRotation, ProjectChange, ProjectDraft, SecretRotation, TokenRevocation, WorkspaceChange,
};
use super::access_note::AccessNote;
pub use super::alert_draft::{AlertDraft, AlertPatch, AlertWarning, ChannelChoice, RulePatch};
pub use super::intake::IntakeGap;
use super::keeper::Keeper;
pub use super::last_uses::LastUse;
pub(super) use super::patch::clearable;
pub use super::pressure::PressureReport;
use super::resource::{ApiKey, ChannelKind, OAuthClient};
use super::sandbox::Seed;
pub use super::silences::{SilenceDraft, SilencePatch};
pub use super::trials::TestSubject;
use crate::domain::definition::{MetricDefinition, Quota};
use crate::domain::id::{
    AccountId, AccountScope, AlertId, ChannelId, ClientId, IncidentId, KeyId, MetricName, NotificationId, ProjectId,
    SilenceId, Tenant, WebhookId, WorkspaceId,
};
use crate::domain::partition::notification::Notification;
use crate::domain::time::{Millis, Timestamp};
use crate::domain::webhook::rows::Posted;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use super::overflow::{DropReport, DropsLeft};
pub use super::webhook::{Redelivery, WebhookDraft, WebhookHealth, WebhookPatch, WebhookReport, WebhookRotation};

/// One record of the control log: a command with who sent it and how it may be repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The workspace and mode that it acts on.
    pub tenant: Tenant,
    /// The key that sent it; absent for the command line.
    pub actor: Option<KeyId>,
    /// The request that carried it.
    pub request_id: String,
    /// The version that the caller expects the resource to have.
    pub if_match: Option<u64>,
    /// Makes a repetition answer as the first time.
    pub idempotency: Option<Idempotency>,
    /// Where the request came from, as far as that is known; for the audit log alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<core::net::IpAddr>,
    /// What is asked for.
    pub command: Command,
}

/// An `Idempotency-Key` in its scope, and what was sent with it. Both are SHA-256 digests in lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// H(workspace, mode, credential lineage, method, route with parameters, key).
    pub record: String,
    /// H(content type, query, canonical body).
    pub fingerprint: String,
    /// What the answer shows beside the resource, as the caller's side wrote it; a repetition shows the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<String>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// The first record of every control log; a second one is refused.
    Initialise {
        /// The key of the event fingerprints, 16 bytes.
        fingerprint_key: [u8; 16],
        /// How many partitions the data has, for ever.
        partitions: u32,
        /// What the folds go by.
        settings: Settings,
        /// Proves that a node holds the same master key.
        master_key_check: String,
    },
    /// Changes what the folds go by.
    ChangeSettings {
        /// The settings from here on.
        settings: Settings,
    },
    /// Asks for an engine version from here on; one that is not above the present one changes nothing.
    EngineVersion {
        /// The version.
        version: u32,
    },
    /// Notes the mark of the snapshots that every node shares; another one is refused unless it takes over.
    ShareSnapshots {
        /// The mark.
        mark: String,
        /// Whether it takes the place of another one.
        #[serde(default)]
        takes_over: bool,
    },
    /// Notes who keeps the rows that the folds derive; another keeper is refused unless it takes over.
    KeepRows {
        /// Who does.
        keeper: Keeper,
        /// Whether it takes the place of another one.
        takes_over: bool,
    },
    /// Creates a workspace.
    CreateWorkspace {
        /// Its id.
        id: WorkspaceId,
        /// Its name.
        name: String,
    },
    /// Changes the workspace that the entry is of.
    UpdateWorkspace(WorkspaceChange),
    /// Creates an API key.
    CreateKey {
        /// The key, as a hash.
        key: ApiKey,
    },
    /// Revokes an API key for ever.
    RevokeKey {
        /// Which one.
        id: KeyId,
    },
    /// Changes what an API key is called and where it may be used.
    UpdateKey(KeyChange),
    /// Gives an API key, and all that it replaced or that replaced it, a rate limit; `None` is that of the node.
    LimitKey {
        /// Which one.
        id: KeyId,
        /// Requests a minute; 0 is no limit.
        rate_limit: Option<u32>,
    },
    /// Replaces an API key.
    RotateKey(Box<KeyRotation>),
    /// Creates an OAuth client.
    CreateClient(Box<OAuthClient>),
    /// Changes what an OAuth client is called and where it may be used; from engine version 3 on.
    UpdateClient(ClientChange),
    /// Replaces the secret of an OAuth client.
    RotateClientSecret(SecretRotation),
    /// Deletes an OAuth client; its tokens end with it.
    DeleteClient {
        /// Which one.
        id: ClientId,
    },
    /// Revokes an access token.
    RevokeToken(TokenRevocation),
    /// Notes what changes nothing and belongs in the audit log; from engine version 3 on.
    NoteAccess(AccessNote),
    /// Creates a project.
    CreateProject(ProjectDraft),
    /// Changes a project.
    UpdateProject(ProjectChange),
    /// Deletes a project; refused while an alert, a key or a client names it.
    DeleteProject {
        /// Which one.
        id: ProjectId,
    },
    /// Creates an account with settings of its own.
    CreateAccount {
        /// The account.
        account: AccountId,
        /// A name for people.
        name: Option<String>,
        /// The caller's own notes.
        metadata: BTreeMap<String, String>,
    },
    /// Changes an account; makes the record of one that was only seen.
    UpdateAccount {
        /// The account.
        account: AccountId,
        /// What changes.
        patch: AccountPatch,
    },
    /// Deletes an account with its quotas and its usage.
    DeleteAccount {
        /// The account.
        account: AccountId,
    },
    /// Sets a quota; creates the account's record where there is none.
    PutQuota {
        /// The account, or all of them.
        account: AccountScope,
        /// The metric.
        metric: MetricName,
        /// The quota.
        quota: Quota,
    },
    /// Removes a quota.
    DeleteQuota {
        /// The account, or all of them.
        account: AccountScope,
        /// The metric.
        metric: MetricName,
    },
    /// Defines a metric.
    PutMetric {
        /// The metric.
        metric: MetricName,
        /// What is known of it.
        definition: MetricDefinition,
    },
    /// Changes a metric's definition.
    UpdateMetric {
        /// The metric.
        metric: MetricName,
        /// What changes.
        patch: MetricPatch,
    },
    /// Makes a metric an undeclared one again.
    DeleteMetric {
        /// The metric.
        metric: MetricName,
    },
    /// Notes that a file was imported as a whole, so that it is passed over the next time.
    RecordImport {
        /// SHA-256 of the file, lower-case hex.
        digest: String,
        /// How many of its lines were accepted.
        accepted: u64,
        /// How many were refused.
        refused: u64,
    },
    /// Creates a channel.
    CreateChannel {
        /// Its id.
        id: ChannelId,
        /// What it is.
        draft: ChannelDraft,
    },
    /// Changes a channel.
    UpdateChannel {
        /// Which one.
        id: ChannelId,
        /// What changes.
        patch: ChannelPatch,
    },
    /// Deletes a channel; refused while an alert names it.
    DeleteChannel {
        /// Which one.
        id: ChannelId,
    },
    /// Creates an alert.
    CreateAlert {
        /// Its id.
        id: AlertId,
        /// What it is.
        draft: Box<AlertDraft>,
    },
    /// Changes an alert.
    UpdateAlert {
        /// Which one.
        id: AlertId,
        /// What changes.
        patch: Box<AlertPatch>,
    },
    /// Deletes an alert; a firing resolves once.
    DeleteAlert {
        /// Which one.
        id: AlertId,
    },
    /// Pauses an alert.
    PauseAlert {
        /// Which one.
        id: AlertId,
        /// When the pause ends by itself.
        until: Option<Timestamp>,
    },
    /// Ends a pause.
    ResumeAlert {
        /// Which one.
        id: AlertId,
    },
    /// Creates an endpoint that is told of state changes.
    CreateWebhook {
        /// Its id.
        id: WebhookId,
        /// What it is.
        draft: Box<WebhookDraft>,
    },
    /// Changes an endpoint.
    UpdateWebhook {
        /// Which one.
        id: WebhookId,
        /// What changes.
        patch: Box<WebhookPatch>,
    },
    /// Deletes an endpoint; what is owed to it is given up.
    DeleteWebhook {
        /// Which one.
        id: WebhookId,
    },
    /// Sends nothing to an endpoint until it is resumed.
    PauseWebhook {
        /// Which one.
        id: WebhookId,
    },
    /// Ends a pause, or enables an endpoint that was disabled.
    ResumeWebhook {
        /// Which one.
        id: WebhookId,
    },
    /// Gives an endpoint another secret; the ones before sign along for a while.
    RotateWebhookSecret(WebhookRotation),
    /// Sends an endpoint an event that says nothing.
    TestWebhook {
        /// Which one.
        id: WebhookId,
    },
    /// Makes deliveries again, under the ids that they had.
    Redeliver(Redelivery),
    /// Notes what came of an attempt to deliver an event that the control log owes.
    RecordDelivery(Posted),
    /// Sums up how an endpoint did at one node.
    ReportWebhookHealth(WebhookReport),
    /// Tells that deliveries to an endpoint were dropped, because as many waited as may.
    ReportDrops(DropReport),
    /// Notes when a node saw keys and OAuth clients last, these under their names among the keys.
    NoteKeyUses {
        /// The last use of each.
        uses: Vec<(KeyId, LastUse)>,
    },
    /// Tells that a node refused events.
    ReportPressure(PressureReport),
    /// Notes that a partition of the public topic is read from here on. Written from engine version 3 on.
    BeginIntake {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// Notes that messages of the public topic were lost before they were read. Written from engine version 3 on.
    RecordIntakeGap(IntakeGap),
    /// Notes that time passed.
    Tick,
    /// Sets the log's clock, which was wrong.
    SetClock {
        /// To when.
        to: Timestamp,
    },
    /// Opens a workspace's sandbox; one that is open stays as it is.
    OpenSandbox {
        /// What it begins with.
        seed: Box<Seed>,
    },
    /// Starts a sandbox anew: a new epoch.
    ResetSandbox {
        /// The midnight whose daily reset this is; one is enough for each, whoever asks. Absent where people ask.
        midnight: Option<Timestamp>,
        /// What it begins with.
        seed: Box<Seed>,
    },
    /// Puts a sandbox's clock forward.
    AdvanceClock {
        /// By how much.
        by: Millis,
    },
    /// Creates a silence.
    CreateSilence {
        /// Its id.
        id: SilenceId,
        /// What it is.
        draft: SilenceDraft,
    },
    /// Changes a silence that has not ended.
    UpdateSilence {
        /// Which one.
        id: SilenceId,
        /// What changes.
        patch: SilencePatch,
    },
    /// Ends a silence at once.
    ExpireSilence {
        /// Which one.
        id: SilenceId,
    },
    /// Notes that somebody takes care of an incident.
    AcknowledgeIncident {
        /// Which one.
        id: IncidentId,
        /// The alert that fired.
        alert: AlertId,
    },
    /// Tells that a channel lost a message, or took one.
    ReportChannel(ChannelReport),
    /// Sends a message to a channel again, under the id that it had.
    RedeliverMessage(MessageRedelivery),
    /// Sends a test message to an alert's channels, or to one channel.
    SendTest {
        /// The message's id.
        id: NotificationId,
        /// What is tried.
        subject: TestSubject,
    },
}

/// What came of a message to a channel, where that changes how the channel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelReport {
    /// Which channel.
    pub id: ChannelId,
    /// Whether it took the message; else the message is lost.
    pub delivered: bool,
    /// Whether it was a test: one that arrives says that the channel works, whatever was known of it.
    pub is_test: bool,
    /// When, by the node's clock.
    pub at: Timestamp,
}

/// A message that is to be sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageRedelivery {
    /// To whom.
    pub channel: ChannelId,
    /// All of it: the partition that made it keeps nothing of what is settled.
    pub notification: Box<Notification>,
    /// Attempts so far.
    pub attempts: u32,
}

/// What the folds go by. Every change is a fact, so a refold sees the same values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How long after its end a window stays open.
    pub grace: Millis,
    /// How old an event may be when it is accepted.
    pub lateness_horizon: Millis,
    /// How long an event's identity is remembered.
    pub dedup_horizon: Millis,
    /// How long a closed window stays correctable.
    pub correction_horizon: Millis,
    /// Whether only accounts that someone created are accepted.
    pub strict_accounts: bool,
}

impl Default for Settings {
    fn default() -> Self {
        use crate::domain::limits::{CORRECTION_HORIZON, DEDUP_HORIZON, GRACE, LATENESS_HORIZON};
        Self {
            grace: GRACE,
            lateness_horizon: LATENESS_HORIZON,
            dedup_horizon: DEDUP_HORIZON,
            correction_horizon: CORRECTION_HORIZON,
            strict_accounts: false,
        }
    }
}

/// Changes of an account. An absent field stays; `Some(None)` clears.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AccountPatch {
    /// The name for people.
    #[serde(deserialize_with = "clearable::deserialize", skip_serializing_if = "Option::is_none")]
    pub name: Option<Option<String>>,
    /// Entries of the caller's notes; `None` removes one.
    #[serde(deserialize_with = "clearable::deserialize", skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Option<BTreeMap<String, Option<String>>>>,
}

/// Changes of a metric's definition. An absent field stays; `Some(None)` clears.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetricPatch {
    /// The unit.
    #[serde(deserialize_with = "clearable::deserialize", skip_serializing_if = "Option::is_none")]
    pub unit: Option<Option<String>>,
    /// How values become one.
    pub aggregate: Option<crate::domain::definition::Fold>,
    /// The dimensions with series of their own.
    pub group_by: Option<Vec<String>>,
}

/// A channel to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelDraft {
    /// What it is.
    pub kind: ChannelKind,
    /// A name for people.
    pub name: String,
    /// Whether alerts that name only the type go here.
    pub default: bool,
    /// Where and how to deliver, sealed with the master key.
    pub sealed: String,
    /// The target with its secret parts left out, for people.
    pub hint: String,
    /// The project that it is labelled with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectId>,
}

/// Changes of a channel. An absent field stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChannelPatch {
    /// The name for people.
    pub name: Option<String>,
    /// Whether alerts that name only the type go here.
    pub default: Option<bool>,
    /// The sealed target and its hint.
    pub target: Option<(String, String)>,
}
