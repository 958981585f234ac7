//! The body of a webhook. The same notification always gives the same bytes, on every retry and after every refold.

use crate::domain::id::{Log, MetricName};
use crate::domain::limits::QUOTA_THRESHOLD_PERCENT;
use crate::domain::partition::effect::QuotaEvidence;
use crate::domain::partition::notification::{Notification, NotificationKind};
use crate::domain::quantity::Quantity;
use crate::domain::rule::{RuleProgram, TraceStep};
use crate::domain::webhook::event::{Content, Event};
use crate::domain::webhook::kind::EventType;
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};

/// Receivers are promised bodies of at most this size.
const BODY_BYTES_MAX: usize = 20 * 1024;

/// The version of the bodies.
const API_VERSION: &str = "v1";

#[derive(Serialize)]
struct Body<D> {
    id: String,
    r#type: &'static str,
    timestamp: String,
    workspace_id: String,
    mode: &'static str,
    api_version: &'static str,
    log: String,
    sequence: u64,
    index: u32,
    data: D,
}

#[derive(Serialize)]
struct Data<'a> {
    /// Null where a channel is tried.
    alert_id: Option<String>,
    /// Stands where nothing has happened.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    test: bool,
    alert_name: Option<&'a str>,
    alert_version: u64,
    account_id: &'a str,
    metric: Option<&'a str>,
    /// Every metric that the rule names.
    metrics: &'a [String],
    state: &'static str,
    reason: &'static str,
    severity: &'static str,
    rule: &'a str,
    value_name: Option<&'a str>,
    value: Option<Box<RawValue>>,
    /// Whether the value is greater than every number, and null therefore.
    over: bool,
    quota: Option<Quota>,
    window: Option<Window>,
    inputs: &'a [TraceStep],
    labels: &'a BTreeMap<String, String>,
    message: Option<&'a str>,
    follows: Option<String>,
    /// The messages that a resolve closes, to this destination; channels alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    closes: Vec<String>,
    fired_meanwhile: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    silenced: Option<bool>,
    latency: Latency,
    url: String,
}

#[derive(Serialize)]
struct QuotaData<'a> {
    account_id: &'a str,
    metric: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold_percent: Option<u32>,
    quota: Quota,
    /// The period that has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<Quota>,
}

#[derive(Serialize)]
struct Quota {
    limit: Box<RawValue>,
    used: Box<RawValue>,
    remaining: Box<RawValue>,
    /// Null where it is greater than every number: any use of a limit of zero.
    percent: Option<Box<RawValue>>,
    over: bool,
    period: &'static str,
    starts_at: String,
    resets_at: String,
}

#[derive(Serialize)]
struct Window {
    start: String,
    end: String,
    complete: bool,
    revision: u64,
}

/// When the deciding event was accepted and recorded, and the decision's own time.
#[derive(Serialize)]
struct Latency {
    accepted_at: Option<String>,
    recorded_at: String,
    decided_at: String,
}

/// Returns the body of a notification's webhook.
pub fn webhook_body(notification: &Notification, base_url: &str) -> Vec<u8> {
    bounded_body(notification, None, base_url)
}

/// Returns the body of an event.
pub fn event_body(event: &Event, base_url: &str) -> Vec<u8> {
    match &event.content {
        Content::Alert { notification, silenced } => bounded_body(notification, Some(*silenced), base_url),
        Content::Data(data) => envelope(event, RawValue::from_string(data.clone()).unwrap_or_default()),
        Content::Quota(told) => envelope(
            event,
            QuotaData {
                account_id: told.account.as_str(),
                metric: told.metric.as_str(),
                threshold_percent: (event.kind == EventType::QuotaThresholdReached).then_some(QUOTA_THRESHOLD_PERCENT),
                quota: quota(told.quota),
                ended: told.ended.map(quota),
            },
        ),
    }
}

fn envelope<D: Serialize>(event: &Event, data: D) -> Vec<u8> {
    let body = Body {
        id: event.id.to_string(),
        r#type: event.kind.name(),
        timestamp: event.at.to_string(),
        workspace_id: event.tenant.workspace.to_string(),
        mode: event.tenant.mode.name(),
        api_version: API_VERSION,
        log: event.log.to_string(),
        sequence: event.position.0,
        index: event.index,
        data,
    };
    serde_json::to_vec(&body).unwrap_or_default()
}

fn bounded_body(notification: &Notification, silenced: Option<bool>, base_url: &str) -> Vec<u8> {
    let evidence = &notification.evidence;
    let metrics = metrics(notification);
    let mut inputs = evidence.trace.0.as_slice();
    loop {
        let bytes = serde_json::to_vec(&body(notification, silenced, (&metrics, inputs), base_url)).unwrap_or_default();
        // The trace is the only part without a tight bound of its own; its outermost steps are given up last.
        if bytes.len() <= BODY_BYTES_MAX || inputs.is_empty() {
            return bytes;
        }
        inputs = inputs.get(inputs.len().div_ceil(2)..).unwrap_or_default();
    }
}

fn body<'a>(
    notification: &'a Notification,
    silenced: Option<bool>,
    (metrics, inputs): (&'a [String], &'a [TraceStep]),
    base_url: &str,
) -> Body<Data<'a>> {
    let key = &notification.key;
    let evidence = &notification.evidence;
    Body {
        id: notification.id.to_string(),
        r#type: notification.kind.event_type().name(),
        timestamp: notification.at.to_string(),
        workspace_id: key.tenant.workspace.to_string(),
        mode: key.tenant.mode.name(),
        api_version: API_VERSION,
        log: Log::Partition(notification.partition).to_string(),
        sequence: notification.position.0,
        index: notification.index,
        data: Data {
            alert_id: notification.is_about_alert().then(|| key.alert.to_string()),
            test: notification.kind == NotificationKind::Test,
            alert_name: notification.alert_name.as_deref(),
            alert_version: evidence.alert_version,
            account_id: key.account.as_str(),
            metric: key.metric.as_ref().map(|metric| metric.as_str()),
            metrics,
            state: notification.state.name(),
            reason: notification.reason.name(),
            severity: notification.severity.name(),
            rule: &evidence.rule,
            value_name: evidence.value_name.as_deref(),
            value: evidence.value.map(number),
            over: evidence.is_over(),
            quota: evidence.quota.map(quota),
            window: evidence.window.map(|window| Window {
                start: window.start.to_string(),
                end: window.end.to_string(),
                complete: window.closed,
                revision: window.revision.0,
            }),
            inputs,
            labels: &notification.labels,
            message: notification.message.as_deref(),
            follows: notification.follows.map(|id| id.to_string()),
            closes: notification.closes.iter().map(ToString::to_string).collect(),
            fired_meanwhile: notification.fired_meanwhile,
            silenced,
            latency: Latency {
                accepted_at: notification.accepted_at.map(|at| at.to_string()),
                recorded_at: notification.recorded_at.to_string(),
                decided_at: notification.at.to_string(),
            },
            url: link(notification, base_url),
        },
    }
}

/// Every metric that a notification's rule names, by name. An instance whose rule names all of its metrics has none of its
/// own.
pub(super) fn metrics(notification: &Notification) -> Vec<String> {
    let own = notification.key.metric.as_ref();
    let rule = RuleProgram::compile(&notification.evidence.rule).ok();
    let mut named: BTreeSet<&MetricName> = rule.iter().flat_map(|rule| rule.metrics(own)).collect();
    if rule.is_none() {
        named.extend(own);
    }
    named.into_iter().map(ToString::to_string).collect()
}

/// Where people read on about a notification.
pub(super) fn link(notification: &Notification, base_url: &str) -> String {
    let base = base_url.trim_end_matches('/');
    if notification.is_about_alert() {
        format!("{base}/v1/alerts/{}/history", notification.key.alert)
    } else {
        format!("{base}/docs")
    }
}

fn quota(quota: QuotaEvidence) -> Quota {
    Quota {
        limit: number(quota.limit),
        used: number(quota.used),
        remaining: number(quota.limit.minus(quota.used)),
        percent: quota.percent().exact().map(number),
        over: quota.percent().is_over(),
        period: quota.period.name(),
        starts_at: quota.start.to_string(),
        resets_at: quota.end.to_string(),
    }
}

/// An exact JSON number.
fn number(quantity: Quantity) -> Box<RawValue> {
    RawValue::from_string(quantity.to_string()).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::definition::Severity;
    use crate::domain::id::*;
    use crate::domain::partition::effect::{Evidence, InstanceKey, QuotaEvidence, Reason, State};
    use crate::domain::rule::Trace;
    use crate::domain::time::{Period, Timestamp};

    pub(in crate::notifier) fn notification(n: u128) -> Notification {
        let at = Timestamp::parse("2026-11-24T08:52:10.123Z").unwrap();
        let (start, end) = Period::Day.bounds(at);
        Notification {
            id: NotificationId(n),
            kind: NotificationKind::Firing,
            reason: Reason::Condition,
            key: InstanceKey {
                tenant: Tenant { workspace: WorkspaceId(1), mode: Mode::Live },
                alert: AlertId(2),
                account: AccountId::new("acc_123").unwrap(),
                metric: Some(MetricName::new("api.requests").unwrap()),
            },
            epoch: Epoch(0),
            sequence: 1,
            state: State::Firing,
            alert_name: Some("Near the limit <!channel>".to_owned()),
            message: Some("Call the customer & ask".to_owned()),
            severity: Severity::Warning,
            labels: [("team".to_owned(), "payments".to_owned())].into(),
            evidence: Evidence {
                alert_version: 1,
                rule: "quota_percent > 85".to_owned(),
                trace: Trace(vec![TraceStep { expression: "quota_percent".to_owned(), value: "86.2".to_owned() }]),
                value_name: Some("quota_percent".to_owned()),
                value: Some(Quantity::parse("86.2").unwrap()),
                window: None,
                quota: Some(QuotaEvidence {
                    limit: Quantity::whole(5_000),
                    used: Quantity::whole(4_310),
                    period: Period::Day,
                    start,
                    end,
                }),
            },
            follows: None,
            closes: Vec::new(),
            fired_meanwhile: 0,
            at,
            recorded_at: at,
            accepted_at: Some(at),
            partition: PartitionId(3),
            position: Position(48_213),
            index: 0,
            channels: vec![ChannelId(9)],
        }
    }

    #[test]
    fn the_body_says_what_was_decided_and_why() {
        let bytes = webhook_body(&notification(7), "https://hw.example/");
        let body: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        insta::assert_json_snapshot!(body);
        assert_eq!(bytes, webhook_body(&notification(7), "https://hw.example"));
    }

    #[test]
    fn the_metrics_that_the_rule_names_are_told() {
        let check = |rule: &str, own: Option<&str>, want: &[&str]| {
            let mut told = notification(7);
            told.evidence.rule = rule.to_owned();
            told.key.metric = own.map(|own| MetricName::new(own).unwrap());
            assert_eq!(metrics(&told), want, "{rule}");
            let body: serde_json::Value = serde_json::from_slice(&webhook_body(&told, "https://hw.example")).unwrap();
            assert_eq!(body["data"]["metrics"], serde_json::json!(want), "{rule}");
            assert_eq!(body["data"]["metric"], serde_json::json!(own), "{rule}");
        };
        check("sum(\"pay\") > 1", None, &["pay"]);
        check("sum(\"pay\") > count(\"calls\") && max(\"pay\") > 1", None, &["calls", "pay"]);
        check("sum > avg(\"pay\")", Some("calls"), &["calls", "pay"]);
        check("of a later grammar", Some("calls"), &["calls"]);
        check("1 > 0", None, &[]);
    }

    #[test]
    fn any_use_of_a_limit_of_zero_is_over_every_percentage() {
        let check = |used: i64, limit: i64, percent: serde_json::Value, over: bool| {
            let mut told = notification(7);
            let quota = told.evidence.quota.as_mut().unwrap();
            (quota.used, quota.limit) = (Quantity::whole(used), Quantity::whole(limit));
            told.evidence.value = quota.percent().exact();
            let body: serde_json::Value = serde_json::from_slice(&webhook_body(&told, "https://hw.example")).unwrap();
            let data = &body["data"];
            assert_eq!(
                (&data["quota"]["percent"], &data["quota"]["over"]),
                (&percent, &over.into()),
                "{used} of {limit}"
            );
            assert_eq!((&data["value"], &data["over"]), (&percent, &over.into()), "{used} of {limit}");
        };
        check(1, 0, serde_json::Value::Null, true);
        check(0, 0, 0.into(), false);
        check(-1, 0, 0.into(), false);
        check(120, 100, 120.into(), false);
    }

    #[test]
    fn the_body_stays_within_its_bound() {
        let mut large = notification(7);
        let step = TraceStep { expression: "x".repeat(500), value: "1".to_owned() };
        large.evidence.trace = Trace(vec![step; 64]);
        assert!(webhook_body(&large, "https://hw.example").len() <= BODY_BYTES_MAX);
    }
}
