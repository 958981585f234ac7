//! What an answer about usage cannot show in its numbers: names that nothing is known of, groups that are not whole.

use super::app::{App, Caller};
use super::problem::Problem;
use super::receipt::store_away;
use super::usage_coverage::{Counted, Coverage, Dimensions};
use super::usage_totals::Terms;
use crate::domain::control::intake::IntakeGap;
use crate::domain::id::{AccountId, AccountScope, Epoch, MetricName};
use crate::domain::limits::{GROUPS_PER_HOUR_MAX, USAGE_WARNINGS_MAX};
use crate::domain::time::{Timestamp, WINDOW};
use crate::store::{GroupQuery, MetricQuery};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use utoipa::ToSchema;

/// Something about an answer that its numbers do not show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct UsageWarning {
    /// `metric_unknown`: no event, no quota and no definition names the metric. `group_unknown`: no group ever had the
    /// value. `groups_since`: what was recorded before `since` is in no group, or lacks a dimension. `group_overflow`: some
    /// events are in no group of their own. `intake_gap`: messages of the intake topic were lost before they were read.
    pub(super) code: &'static str,
    /// The same for people.
    pub(super) detail: String,
    /// The metric that it is about; null where it is about all of them.
    pub(super) metric: Option<String>,
    /// Since when the answer is whole; null where that is not a matter of time.
    pub(super) since: Option<String>,
}

impl UsageWarning {
    fn of_all(code: &'static str, detail: String, since: Timestamp) -> Self {
        Self { code, detail, metric: None, since: Some(since.to_string()) }
    }

    pub(super) fn of_metric(code: &'static str, metric: &MetricName, detail: String) -> Self {
        Self { code, detail, metric: Some(metric.to_string()), since: None }
    }
}

/// Returns what an answer over a span warns of, in front what is true of all that it shows, at most as much as one has.
pub(super) fn bounded(
    app: &App,
    caller: &Caller,
    span: (Timestamp, Timestamp),
    warnings: Vec<UsageWarning>,
) -> Vec<UsageWarning> {
    let mut all: Vec<UsageWarning> = intake_gap(app, caller, span).into_iter().chain(warnings).collect();
    all.truncate(USAGE_WARNINGS_MAX);
    all
}

/// Warns of messages of the intake that were lost in a span `[from, to)`: whose they were is not known.
fn intake_gap(app: &App, caller: &Caller, (from, to): (Timestamp, Timestamp)) -> Option<UsageWarning> {
    let state = app.node.data.control.state();
    let tenant = caller.principal.tenant;
    // What was lost before a reset would be gone by it.
    let began = state.sandbox(tenant).and_then(|sandbox| sandbox.last_reset_at);
    let noted = state.intake().gaps().iter().filter(|noted| began.is_none_or(|began| began <= noted.found_at));
    let gaps: Vec<IntakeGap> = noted.map(|noted| noted.in_world(tenant)).collect();
    let gaps: Vec<&IntakeGap> = gaps.iter().filter(|gap| gap.overlaps(from, to)).collect();
    let left_from = gaps.iter().map(|gap| gap.left_from).max()?;
    let since = match gaps.iter().map(|gap| gap.read_until).min()? {
        Some(read_until) => format!("between {read_until} and {left_from}"),
        None => format!("before {left_from}"),
    };
    let detail = format!("messages of the intake were lost {since}: usage of that time may be too low");
    Some(UsageWarning::of_all("intake_gap", detail, left_from))
}

/// Since when all of some dimensions have been kept of each metric, in the caller's world.
pub(super) fn kept_since(
    app: &App,
    caller: &Caller,
    metrics: &[MetricName],
    dimensions: &[&String],
) -> BTreeMap<MetricName, Timestamp> {
    let state = app.node.data.control.state();
    let since = |metric: &MetricName| {
        let record = state.metric(caller.principal.tenant, metric)?;
        let newest = dimensions.iter().filter_map(|name| record.kept_since.get(*name)).max()?;
        Some((metric.clone(), *newest))
    };
    metrics.iter().filter_map(since).collect()
}

/// Warns of those of some metrics that nothing is known of, once no event of theirs was found.
///
/// # Errors
/// 503 where the store is away.
pub(super) async fn unknown_metrics(
    app: &App,
    caller: &Caller,
    mut metrics: Vec<MetricName>,
    accounts: &[AccountId],
) -> Result<Vec<UsageWarning>, Problem> {
    let tenant = caller.principal.tenant;
    let since = {
        let state = app.node.data.control.state();
        metrics.retain(|metric| {
            let limited = state.quota(tenant, &AccountScope::All, metric).is_some()
                || accounts.iter().any(|account| state.effective_quota(tenant, account, metric).is_some());
            !limited && state.metric(tenant, metric).is_none()
        });
        state.sandbox(tenant).map(|sandbox| sandbox.epoch).unwrap_or_default()
    };
    if metrics.is_empty() {
        return Ok(Vec::new());
    }
    let asked = MetricQuery { tenant, since, metrics: metrics.clone() };
    let known = app.node.data.store.metrics_among(asked).await.map_err(store_away)?;
    let unknown = metrics.iter().filter(|metric| !known.contains(*metric));
    let detail = |metric| format!("nothing is known of {metric}: no event, no quota and no definition names it");
    Ok(unknown.map(|metric| UsageWarning::of_metric("metric_unknown", metric, detail(metric))).collect())
}

/// Warns of values that no group of an account's metric ever had, among those that were not found in the time that is asked
/// for.
///
/// # Errors
/// 503 where the store is away.
pub(super) async fn unknown_groups(
    app: &App,
    terms: &Terms,
    (account, epoch, metric): (&AccountId, Epoch, &MetricName),
    coverage: Coverage,
) -> Result<Vec<UsageWarning>, Problem> {
    if coverage.missing.is_empty() {
        return Ok(Vec::new());
    }
    let query = GroupQuery { tenant: terms.query.tenant, epoch, account: account.clone(), metric: metric.clone() };
    let shared = Arc::new(Mutex::new(coverage));
    let (coverage, only) = (Arc::clone(&shared), terms.only.clone());
    let take = move |group: &str| {
        let mut coverage = coverage.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(dimensions) = serde_json::from_str::<Dimensions<'_>>(group) {
            coverage.found(&dimensions, &only);
        }
        if coverage.missing.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    app.node.data.store.groups(query, take).await.map_err(store_away)?;
    let coverage = std::mem::take(&mut *shared.lock().unwrap_or_else(PoisonError::into_inner));
    let warning = |(name, values): (String, std::collections::BTreeSet<String>)| {
        let values: Vec<String> = values.into_iter().collect();
        let others = if terms.only.len() > 1 { " together with the other dimensions" } else { "" };
        let detail = format!("no group of {metric} ever had {name}={}{others}", values.join(" or "));
        UsageWarning::of_metric("group_unknown", metric, detail)
    };
    Ok(coverage.missing.into_iter().map(warning).collect())
}

/// Warns of metrics whose groups do not make up the whole; `totals` were counted before `groups`.
pub(super) fn partial_groups(
    terms: &Terms,
    totals: Option<&BTreeMap<MetricName, Counted>>,
    groups: &BTreeMap<MetricName, Counted>,
) -> Vec<UsageWarning> {
    let mut warnings = Vec::new();
    for metric in &terms.query.metrics {
        let of_groups = groups.get(metric).copied().unwrap_or_default();
        let of_total = totals.and_then(|totals| totals.get(metric)).copied().unwrap_or_default();
        let since = terms.kept_since.get(metric).filter(|since| terms.query.from < since.round_up(WINDOW));
        let early = of_total.early.saturating_sub(of_groups.early);
        if let Some(since) = since.filter(|_| early > 0) {
            let detail = format!(
                "{early} events in windows that began before {since} are in no group of {metric} with these dimensions"
            );
            let warning = UsageWarning::of_metric("groups_since", metric, detail);
            warnings.push(UsageWarning { since: Some(since.to_string()), ..warning });
        }
        let missing = of_total.events.saturating_sub(of_groups.events);
        if of_groups.overflow || missing > early {
            let most = GROUPS_PER_HOUR_MAX;
            let detail = format!("events of {metric} are in no group of their own: an hour has room for {most} groups");
            warnings.push(UsageWarning::of_metric("group_overflow", metric, detail));
        }
    }
    warnings
}
