//! Sandboxes: what a workspace's sandbox begins with, its resets and its clock.
//!
//! What a sandbox begins with is in the log, so a release that seeds other things folds old logs to what they were.

use super::command::{AlertDraft, ChannelDraft};
use super::outcome::{Change, Refused, Resource};
use super::registry::World;
use super::resource::ChannelKind;
use super::verdict::{Accepted, Context, Verdict, not_found};
use crate::domain::definition::Quota;
use crate::domain::id::{AccountId, AccountScope, AlertId, ChannelId, Epoch, MetricName, Mode, Tenant, WorkspaceId};
use crate::domain::limits::SANDBOX_ADVANCE_MAX;
use crate::domain::time::{Millis, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// A workspace's sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// When it was opened, on the log's clock.
    pub opened_at: Timestamp,
    /// When it last started anew, on the log's clock.
    pub last_reset_at: Option<Timestamp>,
    /// The control position of that; 0 before the first reset.
    pub epoch: Epoch,
    /// How far its clock is ahead.
    pub advance: Millis,
}

/// What a sandbox begins with. What stands in its way is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// Channels; they outlive resets.
    pub channels: Vec<(ChannelId, ChannelDraft)>,
    /// Accounts.
    pub accounts: Vec<SeedAccount>,
    /// Alerts.
    pub alerts: Vec<(AlertId, AlertDraft)>,
    /// Usage that nobody sent.
    pub usage: Vec<SeedUsage>,
}

/// An account that a sandbox begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedAccount {
    /// The account.
    pub account: AccountId,
    /// A name for people.
    pub name: String,
    /// Notes.
    pub metadata: BTreeMap<String, String>,
    /// Its quotas.
    pub quotas: Vec<(MetricName, Quota)>,
}

/// Usage that a sandbox begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedUsage {
    /// Whose it is.
    pub account: AccountId,
    /// What is counted.
    pub metric: MetricName,
    /// How long before the beginning the first value was used.
    pub ago: Millis,
    /// How far the values are apart.
    pub every: Millis,
    /// Whole amounts, one after another.
    pub values: Vec<i64>,
}

/// Returns the channel that stands for a kind that nobody configured: its messages are kept, and never sent.
pub fn outbox_channel(workspace: WorkspaceId, kind: ChannelKind) -> ChannelId {
    let digest = Sha256::digest(format!("outbox:{workspace}:{}", kind.name()));
    let mut first = [0_u8; 16];
    first.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
    ChannelId(u128::from_be_bytes(first))
}

/// Returns which kind a channel stands for, where it is a sandbox's outbox.
pub fn outbox_kind(tenant: Tenant, channel: ChannelId) -> Option<ChannelKind> {
    let kinds = [ChannelKind::Slack, ChannelKind::Webhook];
    let is_outbox = |kind: &ChannelKind| outbox_channel(tenant.workspace, *kind) == channel;
    match tenant.mode {
        Mode::Live => None,
        Mode::Sandbox => kinds.into_iter().find(is_outbox),
    }
}

/// Returns what is noted of a message that was kept, as the outcome of its one attempt.
pub const fn kept_as(kind: ChannelKind) -> &'static str {
    match kind {
        ChannelKind::Slack => "kept in the outbox: slack",
        ChannelKind::Webhook => "kept in the outbox: webhook",
    }
}

impl World {
    pub(super) fn open_sandbox(&mut self, context: Context, seed: &Seed) -> Verdict {
        expect_sandbox(context)?;
        if let Some(open) = self.sandbox {
            return Ok(Accepted::done(Resource::Sandbox(open)));
        }
        let sandbox =
            Sandbox { opened_at: context.now, last_reset_at: None, epoch: Epoch::default(), advance: Millis::ZERO };
        self.sandbox = Some(sandbox);
        let changes = self.sow(context, seed);
        Ok(Accepted { changes, ..Accepted::created(Resource::Sandbox(sandbox)) })
    }

    /// Forgets everything but what is set up once: credentials, which are not kept here, channels and endpoints.
    pub(super) fn reset_sandbox(&mut self, context: Context, midnight: Option<Timestamp>, seed: &Seed) -> Verdict {
        let open = self.opened(context)?;
        if let Some(midnight) = midnight {
            if midnight > context.now {
                return Err(Refused::Conflict { detail: format!("{midnight} has not come") });
            }
            if open.last_reset_at.unwrap_or(open.opened_at) >= midnight {
                return Ok(Accepted::done(Resource::Sandbox(open)));
            }
        }
        let epoch = Epoch(context.position.0);
        let sandbox = Sandbox { last_reset_at: Some(context.now), epoch, advance: Millis::ZERO, ..open };
        // By name, so that whatever a world gets to hold is decided on here.
        let Self {
            accounts,
            quotas,
            metrics,
            channels: _,
            alerts,
            imports,
            projects: _,
            webhooks: _,
            silences,
            acknowledgements,
            trials,
            sandbox: place,
        } = self;
        *accounts = Default::default();
        *quotas = Default::default();
        *metrics = Default::default();
        *alerts = Default::default();
        *imports = Default::default();
        *acknowledgements = Default::default();
        *trials = Default::default();
        let hushed: Vec<_> = std::mem::take(silences).records.into_keys().collect();
        *place = Some(sandbox);
        let mut changes = vec![Change::SandboxReset { tenant: context.tenant }];
        changes.extend(hushed.into_iter().map(|silence| Change::SilenceDeleted { tenant: context.tenant, silence }));
        changes.extend(self.sow(context, seed));
        Ok(Accepted { changes, ..Accepted::done(Resource::Sandbox(sandbox)) })
    }

    pub(super) fn advance_clock(&mut self, context: Context, by: Millis) -> Verdict {
        let open = self.opened(context)?;
        let advance = open.advance.plus(by);
        if advance > SANDBOX_ADVANCE_MAX {
            let what = "days that a sandbox's clock is put forward between two resets".to_owned();
            let limit = usize::try_from(SANDBOX_ADVANCE_MAX.0.div_euclid(Millis::days(1).0)).unwrap_or(usize::MAX);
            return Err(Refused::LimitReached { what, limit });
        }
        let sandbox = Sandbox { advance, ..open };
        self.sandbox = Some(sandbox);
        let change = Change::ClockAdvanced { tenant: context.tenant, by };
        Ok(Accepted::done(Resource::Sandbox(sandbox)).telling(change))
    }

    fn opened(&self, context: Context) -> Result<Sandbox, Refused> {
        expect_sandbox(context)?;
        self.sandbox.ok_or_else(|| not_found("sandbox", context.tenant.workspace))
    }

    /// Makes what the seed holds, as far as there is room and nothing of the same name.
    fn sow(&mut self, context: Context, seed: &Seed) -> Vec<Change> {
        // Nobody's expectation of a version is about these.
        let context = Context { if_match: None, ..context };
        let Self { accounts, quotas, channels, alerts, projects, .. } = self;
        let mut made = Vec::new();
        for (id, draft) in &seed.channels {
            made.push(channels.create(context, projects, *id, draft));
        }
        for SeedAccount { account, name, metadata, quotas: limits } in &seed.accounts {
            made.push(accounts.create(context, account, &Some(name.clone()), metadata));
            for (metric, quota) in limits {
                let scope = AccountScope::One(account.clone());
                if quotas.get(&scope, metric).is_none() {
                    made.push(quotas.put(context, accounts, (&scope, metric), *quota));
                }
            }
        }
        for (id, draft) in &seed.alerts {
            made.push(alerts.create(context, channels, *id, draft));
        }
        let mut changes: Vec<Change> = made.into_iter().flatten().flat_map(|accepted| accepted.changes).collect();
        changes.extend(seed.usage.iter().map(|usage| Change::UsageSeeded {
            tenant: context.tenant,
            account: usage.account.clone(),
            metric: usage.metric.clone(),
            from: context.now.minus(usage.ago),
            every: usage.every,
            values: usage.values.clone(),
        }));
        changes
    }
}

fn expect_sandbox(context: Context) -> Result<(), Refused> {
    match context.tenant.mode {
        Mode::Sandbox => Ok(()),
        Mode::Live => Err(not_found("sandbox", context.tenant.workspace)),
    }
}
