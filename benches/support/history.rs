//! A log of a million events, and the fold that takes it in.

use highwater::domain::control::outcome::Change;
use highwater::domain::definition::{
    AlertDefinition, Fold as Aggregate, InconclusivePolicy, NoDataPolicy, Quota, Severity,
};
use highwater::domain::event::{Frame, FrameBuilder, parse_line};
use highwater::domain::id::{
    AccountId, AccountScope, AlertId, Epoch, MetricName, Mode, PartitionId, Position, Stamp, Tenant, WorkspaceId,
};
use highwater::domain::partition::effect::Effects;
use highwater::domain::partition::fact::{ENGINE_VERSION, Fact, Note};
use highwater::domain::quantity::Quantity;
use highwater::domain::time::{Millis, Period, Timestamp};
use highwater::runtime::processor::Fold;
use std::collections::BTreeMap;

/// How many events there are.
pub(crate) const EVENTS: u64 = 1_000_000;
/// What is counted.
pub(crate) const METRICS: [&str; 5] = ["api.requests", "storage.bytes", "compute.ms", "egress.bytes", "jobs.run"];
const FRAME_EVENTS: usize = 6_000;
/// The one partition.
pub(crate) const PARTITION: PartitionId = PartitionId(0);
/// What identities are hashed with.
pub(crate) const KEY: [u8; 16] = [7; 16];
const START: Timestamp = Timestamp(1_795_000_000_000);
const TENANT: Tenant = Tenant { workspace: WorkspaceId(1), mode: Mode::Live };

/// Where a record stands.
pub(crate) fn stamp(position: u64, at: Timestamp) -> Stamp {
    Stamp { position: Position(position), recorded_at: at }
}

/// Events of one hour in order of time, as the records of a log. `series` tells the account and the metric of each.
pub(crate) fn records(series: fn(u64) -> (u64, usize)) -> Vec<(Stamp, Fact)> {
    let mut records = Vec::new();
    let mut frame = FrameBuilder::new(false);
    for number in 0..EVENTS {
        let (account, metric) = series(number);
        let metric = METRICS[metric];
        let line = format!(r#"{{"account_id":"acc_{account:06}","metric":"{metric}","value":{}}}"#, 1 + number % 9);
        let event = parse_line(line.as_bytes()).expect("a valid event");
        let at = START.plus(Millis((number * 3_600_000 / EVENTS) as i64));
        let account = AccountId::new(event.account_id.as_ref()).expect("an account");
        let place = frame.account(TENANT, Epoch(0), &account);
        frame.push(place, &event, &format!("event-{:012}", number), at, at);
        if frame.len() == FRAME_EVENTS || number + 1 == EVENTS {
            let full = std::mem::replace(&mut frame, FrameBuilder::new(false));
            let frame = Frame::decode(&full.finish()).expect("a frame");
            records.push((stamp(records.len() as u64 + 3, at), Fact::UsageRecorded(frame)));
        }
    }
    records
}

/// A fold with a quota on every account, and a rule that reads it.
pub(crate) fn fold() -> Fold {
    let mut fold = Fold::new(PARTITION, 1, KEY);
    let quota = Quota { limit: Quantity::whole(1_000_000), period: Period::Month, aggregate: Aggregate::Sum };
    let metric = MetricName::new(METRICS[0]).expect("a metric");
    let changes = vec![
        (Position(1), Change::Quota { tenant: TENANT, account: AccountScope::All, metric, quota: Some(quota) }),
        (Position(2), Change::Alert { tenant: TENANT, definition: Box::new(alert()) }),
    ];
    let copied = Note::ControlCopied { after: Position(0), through: Position(2), changes };
    let version = Note::EngineVersion { version: ENGINE_VERSION };
    for (position, note) in [(1, version), (2, copied)] {
        fold.take_fact(stamp(position, START), &Fact::Note(note), &mut Effects::default());
    }
    fold
}

fn alert() -> AlertDefinition {
    AlertDefinition {
        id: AlertId(1),
        version: 1,
        account: AccountScope::All,
        metric: None,
        rule: "quota_percent > 85".to_owned(),
        recover: None,
        grammar: 1,
        hold: Millis(0),
        keep_firing_for: Millis(0),
        repeat_interval: Millis::hours(4),
        severity: Severity::Warning,
        no_data: NoDataPolicy::Ok,
        inconclusive: InconclusivePolicy::Keep,
        name: None,
        message: None,
        labels: BTreeMap::new(),
        project: None,
        channels: Vec::new(),
        pause: None,
    }
}
