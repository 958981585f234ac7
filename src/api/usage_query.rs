//! Usage across accounts, added up by account and by dimensions.

use super::app::{App, Caller};
use super::docs::Problems;
use super::incoming::Incoming;
use super::input::Query;
use super::problem::Problem;
use super::receipt::store_away;
use super::usage::{Measure, number};
use super::usage_totals::{self as totals, Added, Points, Span, Terms, WIDTHS};
use super::usage_warnings::{self, UsageWarning, kept_since, partial_groups, unknown_metrics};
use crate::domain::control::resource::Scope;
use crate::domain::id::{AccountId, MetricName, PartitionId};
use crate::domain::limits::{USAGE_GROUPS_MAX, USAGE_NAMES_MAX};
use crate::domain::time::{Millis, Timestamp, WINDOW};
use crate::store::UsageQuery;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// What is asked across accounts.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UsageAsked {
    /// The accounts; all where absent.
    #[schema(max_items = 1000)]
    account_ids: Option<Vec<String>>,
    /// The metrics; all where absent.
    #[schema(max_items = 1000)]
    metrics: Option<Vec<String>>,
    /// A multiple of 5m that divides a day; `5m` where absent.
    window: Option<String>,
    /// Inclusive; moved back to a window's start. The last 12 windows where absent.
    from: Option<String>,
    /// Exclusive; moved on to a window's end. Now where absent.
    to: Option<String>,
    /// What is told apart: `account_id`, and dimensions that each named metric keeps (its `group_by`). Metrics always are.
    group_by: Option<Vec<String>>,
    /// `sum`, `count`, `min`, `max`, `avg`, `last` or `rate` (per second); the metric's own where absent.
    #[schema(pattern = "^(sum|count|min|max|avg|last|rate)$")]
    agg: Option<String>,
}

/// Usage across accounts. Windows without events have no item.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UsageAnswer {
    object: &'static str,
    window: String,
    /// The first start, inclusive.
    from: String,
    /// The last end, exclusive.
    to: String,
    /// Everything that was recorded up to here is counted, whatever the account.
    as_of: String,
    /// Whether every window has closed.
    complete: bool,
    items: Vec<UsageTotal>,
    /// What the numbers do not show.
    warnings: Vec<UsageWarning>,
    page: usize,
    has_more: bool,
}

/// One window of one group.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UsageTotal {
    /// Null where accounts are not told apart.
    account_id: Option<String>,
    metric: String,
    unit: Option<String>,
    /// The dimensions that are told apart; null where none is.
    #[schema(value_type = Option<Object>)]
    group: Option<Box<RawValue>>,
    /// Whether it holds what is in no group of its own; each dimension of `group` is then null.
    overflow: bool,
    start: String,
    end: String,
    #[schema(value_type = Option<f64>)]
    value: Option<Box<RawValue>>,
    count: u64,
    complete: bool,
    late_events: u64,
}

struct Asked {
    terms: Terms,
    width: Millis,
    measure: Option<Measure>,
}

/// Adds usage up across accounts; it changes nothing.
#[utoipa::path(
    post, path = "/v1/usage/query", tag = "usage", request_body = UsageAsked,
    responses((status = 200, body = UsageAnswer),
              (status = 504, body = super::problem::ProblemBody, content_type = "application/problem+json",
               description = "It took too long; narrow the range."), Problems),
    security(("key" = ["read:usage"]))
)]
pub(super) async fn query(State(app): State<App>, caller: Caller, incoming: Incoming) -> Result<Response, Problem> {
    caller.require(Scope::ReadUsage)?;
    Query::read(incoming.query(), &[])?;
    let asked = read(&app, &caller, incoming.json()?)?;
    let progress = app.node.data.store.progress_all().await.map_err(store_away)?;
    let all = (0..app.node.data.journal.partitions()).map(PartitionId);
    let as_of = all.map(|partition| progress.get(&partition).map_or(Timestamp(0), |p| p.clock)).min();
    let as_of = caller.in_world(as_of.unwrap_or(Timestamp(0)));
    let terms = &asked.terms;
    let work = points(&app, &caller, terms);
    let (points, warnings) = totals::bounded(&app.queries, app.query_timeout, work).await?;
    let grace = app.node.data.control.state().settings().grace;
    let closed = |end: Timestamp| end.plus(grace) <= as_of;
    let state = app.node.data.control.state();
    let mut items = Vec::with_capacity(points.len());
    for ((group, start), sum) in points {
        let definition = state.metric(caller.principal.tenant, &group.metric).map(|record| &record.definition);
        let measure = asked.measure.unwrap_or(Measure::Of(definition.map(|d| d.aggregate).unwrap_or_default()));
        let end = start.plus(asked.width);
        items.push(UsageTotal {
            account_id: group.account.map(|account| account.to_string()),
            metric: group.metric.to_string(),
            unit: definition.and_then(|definition| definition.unit.clone()),
            group: group.dimensions.and_then(|text| RawValue::from_string(text).ok()),
            overflow: group.overflow,
            start: start.to_string(),
            end: end.to_string(),
            value: measure.of(&sum.aggregate, asked.width).map(number),
            count: sum.aggregate.count,
            complete: closed(end),
            late_events: sum.late_events,
        });
    }
    drop(state);
    let answer = UsageAnswer {
        object: "usage_query",
        window: asked.width.to_string(),
        from: terms.query.from.to_string(),
        to: terms.query.to.to_string(),
        as_of: as_of.to_string(),
        complete: closed(terms.query.to),
        items,
        warnings,
        page: 1,
        has_more: false,
    };
    Ok(Json(answer).into_response())
}

async fn points(app: &App, caller: &Caller, terms: &Terms) -> Result<(Points, Vec<UsageWarning>), Problem> {
    // Before the groups, which may then hold more than these, and never less.
    let whole = if terms.reads_groups() { totals::count_totals(app, terms).await? } else { None };
    let Added { points, coverage } = totals::add_up(app, terms).await?;
    let mut absent = terms.query.metrics.clone();
    let found: BTreeSet<&MetricName> = points.keys().map(|(group, _)| &group.metric).collect();
    absent.retain(|metric| !found.contains(metric));
    let mut warnings = unknown_metrics(app, caller, absent, &terms.query.accounts).await?;
    if terms.reads_groups() {
        warnings.extend(partial_groups(terms, whole.as_ref(), &coverage.counted));
    }
    Ok((points, usage_warnings::bounded(app, caller, (terms.query.from, terms.query.to), warnings)))
}

fn names<T>(
    pointer: &str,
    texts: Option<Vec<String>>,
    read: impl Fn(&str) -> Option<T>,
    expected: &str,
) -> Result<Vec<T>, Problem> {
    let Some(texts) = texts else { return Ok(Vec::new()) };
    if texts.is_empty() || texts.len() > USAGE_NAMES_MAX {
        return Err(Problem::invalid(pointer, format!("{} names, expected 1 to {USAGE_NAMES_MAX}", texts.len())));
    }
    let wrong = |at: usize| Problem::invalid(&format!("{pointer}/{at}"), format!("expected {expected}"));
    texts.iter().enumerate().map(|(at, text)| read(text).ok_or_else(|| wrong(at))).collect()
}

fn read(app: &App, caller: &Caller, wanted: UsageAsked) -> Result<Asked, Problem> {
    let instant = |pointer: &str, text: Option<String>| match text.as_deref().map(Timestamp::parse) {
        None => Ok(None),
        Some(Some(at)) => Ok(Some(at)),
        Some(None) => Err(Problem::invalid(pointer, "expected an RFC 3339 time such as 2026-11-24T08:00:00Z")),
    };
    let width = match wanted.window.as_deref() {
        None => WINDOW,
        Some(text) => totals::width(text).ok_or_else(|| Problem::invalid("/window", format!("expected {WIDTHS}")))?,
    };
    let ends = (instant("/from", wanted.from)?, instant("/to", wanted.to)?);
    let before = || Problem::invalid("/from", "it must be before to");
    let span = Span::read(width, ends, caller.now(), before)?;
    let measure = match wanted.agg.as_deref() {
        None => None,
        Some(text) => Some(
            Measure::parse(text)
                .ok_or_else(|| Problem::invalid("/agg", "expected sum, count, min, max, avg, last or rate"))?,
        ),
    };
    let account = |text: &str| AccountId::new(text).ok();
    let accounts = names("/account_ids", wanted.account_ids, account, AccountId::EXPECTED)?;
    let metric = |text: &str| MetricName::new(text).ok();
    let metrics = names("/metrics", wanted.metrics, metric, MetricName::EXPECTED)?;
    let group_by = wanted.group_by.unwrap_or_else(|| vec!["account_id".to_owned()]);
    let mut dimensions = Vec::new();
    let state = app.node.data.control.state();
    for (at, name) in group_by.iter().enumerate() {
        if matches!(name.as_str(), "account_id" | "metric") {
            continue;
        }
        let keeps = |metric: &MetricName| {
            let record = state.metric(caller.principal.tenant, metric);
            record.is_some_and(|record| record.definition.group_by.contains(name))
        };
        if metrics.is_empty() || !metrics.iter().all(keeps) {
            let detail = "name metrics that keep this dimension (their group_by)";
            return Err(Problem::invalid(&format!("/group_by/{at}"), detail));
        }
        dimensions.push(name.clone());
    }
    drop(state);
    let by_account = group_by.iter().any(|name| name == "account_id");
    let tenant = caller.principal.tenant;
    let groups = !dimensions.is_empty();
    let kept_since = kept_since(app, caller, &metrics, &dimensions.iter().collect::<Vec<_>>());
    let query = UsageQuery { tenant, accounts, epoch: None, metrics, from: span.from, to: span.to, groups };
    let terms = Terms {
        query,
        width: Some(width),
        by_account,
        dimensions,
        only: BTreeMap::new(),
        groups_max: USAGE_GROUPS_MAX,
        windows_each: span.windows(),
        kept_since,
    };
    Ok(Asked { terms, width, measure })
}
