//! Sandboxes on this node: what they begin with, their daily reset, and what would have left them.

use super::clock;
use super::control::{Asking, ControlPlane, SubmitError};
use super::partitions::Partitions;
use super::target::Target;
use crate::domain::control::command::{AlertDraft, ChannelChoice, ChannelDraft, Command};
use crate::domain::control::outcome::{Applied, Outcome};
use crate::domain::control::resource::ChannelKind;
use crate::domain::control::sandbox::{Sandbox, Seed, SeedAccount, SeedUsage, outbox_channel};
use crate::domain::definition::{Fold, InconclusivePolicy, NoDataPolicy, Quota, Severity};
use crate::domain::id::{AccountId, AccountScope, AlertId, MetricName, PartitionId, Tenant};
use crate::domain::limits::REPEAT_INTERVAL;
use crate::domain::quantity::Quantity;
use crate::domain::rule::{GRAMMAR, RuleProgram};
use crate::domain::time::{Millis, Period, Timestamp};
use crate::vault::Vault;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often it is looked whether a day has begun.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const DAY: Millis = Millis::days(1);

/// The partition whose owner asks for the daily resets.
const RESETTER: PartitionId = PartitionId(0);

/// The midnight at or before an instant.
pub const fn midnight(at: Timestamp) -> Timestamp {
    at.window_start(DAY)
}

/// Opens a tenant's sandbox where it is closed.
///
/// # Errors
/// Where the journal did not take the command.
pub async fn open(control: &ControlPlane, vault: &Vault, tenant: Tenant) -> Result<(), SubmitError> {
    if control.state().sandbox(tenant).is_some() {
        return Ok(());
    }
    let seed = Box::new(seed(vault, tenant));
    control.submit(Asking::by_command_line(tenant), Command::OpenSandbox { seed }).await?;
    Ok(())
}

/// Asks for the daily resets as the days begin, while this node owns the first partition, until `stop` says so.
pub async fn keep(control: ControlPlane, partitions: Partitions, vault: Arc<Vault>, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        if partitions.held().iter().any(|held| held.processor.partition == RESETTER) {
            reset_due(&control, &vault, clock::now()).await;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = stop.changed() => {}
        }
    }
}

/// Asks for the reset of every sandbox that had none on the day of `now`; returns how many it was that started anew.
///
/// Two owners may ask at once, and one may ask twice: the control log takes the first request of each day.
pub async fn reset_due(control: &ControlPlane, vault: &Vault, now: Timestamp) -> usize {
    let midnight = midnight(now);
    let is_due = |sandbox: &Sandbox| sandbox.last_reset_at.unwrap_or(sandbox.opened_at) < midnight;
    let due: Vec<Tenant> =
        control.state().sandboxes().filter(|(_, sandbox)| is_due(sandbox)).map(|(tenant, _)| tenant).collect();
    let mut count = 0;
    for tenant in due {
        let command = Command::ResetSandbox { midnight: Some(midnight), seed: Box::new(seed(vault, tenant)) };
        match control.submit(Asking::by_command_line(tenant), command).await {
            // The log's clock may be behind this node's; it is asked again.
            Ok((_, Applied { outcome: Outcome::Refused(why), .. })) => {
                tracing::debug!(%why, "a sandbox's daily reset waits");
            }
            Ok((_, applied)) => count += usize::from(!applied.changes.is_empty()),
            Err(error) => {
                tracing::warn!(error = %crate::telemetry::chain(&error), "a sandbox's daily reset waits for the journal");
            }
        }
    }
    count
}

/// What a sandbox begins with. Names, amounts and times apart from the beginning are always the same.
pub fn seed(vault: &Vault, tenant: Tenant) -> Seed {
    let steady = account("acc_demo_steady", "Steady Ltd (demo)", 50_000);
    let growing = account("acc_demo_growing", "Growing GmbH (demo)", 20_000);
    let burst = account("acc_demo_burst", "Burst Inc (demo)", 10_000);
    let accounts: Vec<SeedAccount> = [steady, growing, burst].into_iter().flatten().collect();
    let usage = [
        usage("acc_demo_steady", |n| 100 + wobble(n, 20)),
        usage("acc_demo_growing", |n| 2 * n + wobble(n, 10)),
        // One value at the beginning takes the account to nine tenths of its quota, so the alert fires.
        once("acc_demo_burst", 9_000),
    ];
    let slack = outbox_channel(tenant.workspace, ChannelKind::Slack);
    let target = Target::SlackWebhook { url: "https://slack.example/services/outbox".to_owned() };
    let channel = target.seal(vault, slack).ok().map(|sealed| {
        let hint = "https://slack.example/…".to_owned();
        let name = "Outbox (demo)".to_owned();
        (slack, ChannelDraft { kind: ChannelKind::Slack, name, default: false, sealed, hint, project: None })
    });
    let alert = |burst| (AlertId(clock::ulid()), alert(burst, tenant));
    Seed {
        channels: channel.into_iter().collect(),
        accounts,
        alerts: AccountId::new("acc_demo_burst").ok().map(alert).into_iter().collect(),
        usage: usage.into_iter().flatten().collect(),
    }
}

fn requests() -> Option<MetricName> {
    MetricName::new("api.requests").ok()
}

fn account(id: &str, name: &str, limit: i64) -> Option<SeedAccount> {
    let quota = Quota { limit: Quantity::whole(limit), period: Period::Day, aggregate: Fold::Sum };
    Some(SeedAccount {
        account: AccountId::new(id).ok()?,
        name: name.to_owned(),
        metadata: BTreeMap::from([("contact".to_owned(), format!("billing@{}.example", id.replace('_', "-")))]),
        quotas: vec![(requests()?, quota)],
    })
}

/// A day of usage, every quarter of an hour.
fn usage(id: &str, value: impl Fn(i64) -> i64) -> Option<SeedUsage> {
    const VALUES: i64 = 96;
    Some(SeedUsage {
        account: AccountId::new(id).ok()?,
        metric: requests()?,
        ago: Millis::minutes(15 * VALUES),
        every: Millis::minutes(15),
        values: (0..VALUES).map(value).collect(),
    })
}

fn once(id: &str, value: i64) -> Option<SeedUsage> {
    let (account, metric) = (AccountId::new(id).ok()?, requests()?);
    Some(SeedUsage { account, metric, ago: Millis::ZERO, every: DAY, values: vec![value] })
}

/// The same noise every time: a linear congruential sequence (Knuth's MMIX constants), seeded with its place.
fn wobble(n: i64, width: i64) -> i64 {
    let mixed = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (mixed >> 33).rem_euclid(width)
}

fn alert(account: AccountId, tenant: Tenant) -> AlertDraft {
    let rule = "quota_percent > 85";
    let normalized = RuleProgram::compile(rule).map(|program| program.normalized().to_owned());
    AlertDraft {
        account: AccountScope::One(account),
        metric: None,
        rule: rule.to_owned(),
        normalized: normalized.unwrap_or_default(),
        warnings: Vec::new(),
        recover: None,
        grammar: GRAMMAR,
        hold: Millis::ZERO,
        keep_firing_for: Millis::ZERO,
        repeat_interval: REPEAT_INTERVAL,
        severity: Severity::Warning,
        no_data: NoDataPolicy::Ok,
        inconclusive: InconclusivePolicy::Keep,
        name: Some("Burst is close to its quota (demo)".to_owned()),
        message: Some("See what would have been sent: GET /v1/sandbox/outbox".to_owned()),
        labels: BTreeMap::new(),
        metadata: BTreeMap::new(),
        project: None,
        channel: ChannelChoice::One(ChannelKind::Slack.name().to_owned()),
        channels: vec![outbox_channel(tenant.workspace, ChannelKind::Slack)],
    }
}
