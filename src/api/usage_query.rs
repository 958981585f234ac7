//! Usage across accounts, added up by account and by dimensions.

use super::app::{App, Caller};
use super::docs::Problems;
use super::incoming::Incoming;
use super::input::Query;
use super::problem::Problem;
use super::receipt::store_away;
use super::usage::{Measure, number, too_many};
use crate::domain::control::resource::Scope;
use crate::domain::id::{AccountId, Epoch, MetricName, PartitionId};
use crate::domain::limits::{USAGE_GROUPS_MAX, USAGE_NAMES_MAX, USAGE_POINTS_MAX, USAGE_ROWS_MAX};
use crate::domain::partition::aggregate::Aggregate;
use crate::domain::time::{Millis, Timestamp, WINDOW};
use crate::store::{UsagePart, UsageQuery};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use utoipa::ToSchema;

const WINDOWS_DEFAULT: i64 = 12;

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
    /// `5m` (where absent), `15m`, `1h` or `1d`.
    #[schema(pattern = "^(5m|15m|1h|1d)$")]
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
    group: Option<serde_json::Map<String, serde_json::Value>>,
    start: String,
    end: String,
    #[schema(value_type = Option<f64>)]
    value: Option<Box<RawValue>>,
    count: u64,
    complete: bool,
    late_events: u64,
}

struct Asked {
    query: UsageQuery,
    width: Millis,
    measure: Option<Measure>,
    by_account: bool,
    dimensions: Vec<String>,
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
    let totals = run(&app, &asked).await?;
    let grace = app.node.data.control.state().settings().grace;
    let closed = |end: Timestamp| end.plus(grace) <= as_of;
    let state = app.node.data.control.state();
    let mut items = Vec::with_capacity(totals.points.len());
    for ((group, start), (aggregate, late_events)) in totals.points {
        let definition = state.metric(caller.principal.tenant, &group.metric).map(|record| &record.definition);
        let measure = asked.measure.unwrap_or(Measure::Of(definition.map(|d| d.aggregate).unwrap_or_default()));
        let end = start.plus(asked.width);
        items.push(UsageTotal {
            account_id: group.account.map(|account| account.to_string()),
            metric: group.metric.to_string(),
            unit: definition.and_then(|definition| definition.unit.clone()),
            group: group.dimensions.and_then(|text| serde_json::from_str(&text).ok()),
            start: start.to_string(),
            end: end.to_string(),
            value: measure.of(&aggregate, asked.width).map(number),
            count: aggregate.count,
            complete: closed(end),
            late_events,
        });
    }
    drop(state);
    let answer = UsageAnswer {
        object: "usage_query",
        window: asked.width.to_string(),
        from: asked.query.from.to_string(),
        to: asked.query.to.to_string(),
        as_of: as_of.to_string(),
        complete: closed(asked.query.to),
        items,
        page: 1,
        has_more: false,
    };
    Ok(Json(answer).into_response())
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
        None | Some("5m") => WINDOW,
        Some("15m") => Millis::minutes(15),
        Some("1h") => Millis::hours(1),
        Some("1d") => Millis::days(1),
        Some(_) => return Err(Problem::invalid("/window", "expected 5m, 15m, 1h or 1d")),
    };
    let to = instant("/to", wanted.to)?.unwrap_or_else(|| caller.now().plus(Millis(1))).round_up(width);
    let default_from = Timestamp(to.0.saturating_sub(width.0.saturating_mul(WINDOWS_DEFAULT)));
    let from = instant("/from", wanted.from)?.unwrap_or(default_from).window_start(width);
    if from >= to {
        return Err(Problem::invalid("/from", "it must be before to"));
    }
    let windows = to.since(from).0 / width.0;
    if windows > USAGE_POINTS_MAX as i64 {
        return Err(too_many(windows));
    }
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
    let query = UsageQuery { tenant, accounts, metrics, from, to, groups: !dimensions.is_empty() };
    Ok(Asked { query, width, measure, by_account, dimensions })
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    account: Option<AccountId>,
    metric: MetricName,
    dimensions: Option<String>,
}

/// What is added up, and why it ended early.
#[derive(Debug, Default)]
struct Totals {
    points: BTreeMap<(Group, Timestamp), (Aggregate, u64)>,
    groups: BTreeSet<Group>,
    epochs: BTreeMap<AccountId, Epoch>,
    rows: usize,
    excess: Option<String>,
}

impl Totals {
    fn add(&mut self, part: UsagePart, group: Group, (width, windows): (Millis, i64)) -> ControlFlow<()> {
        let start = part.start.window_start(width);
        if !self.groups.contains(&group) {
            self.groups.insert(group.clone());
            let groups = self.groups.len();
            if groups > USAGE_GROUPS_MAX {
                return self.end(format!("more than {USAGE_GROUPS_MAX} groups"));
            }
            if groups as i64 * windows > USAGE_POINTS_MAX as i64 {
                return self.end(format!("{windows} windows of more than {} groups", groups - 1));
            }
        }
        let (aggregate, late_events) = self.points.entry((group, start)).or_default();
        aggregate.merge(&part.aggregate);
        *late_events += part.late_events;
        ControlFlow::Continue(())
    }

    fn end(&mut self, why: String) -> ControlFlow<()> {
        self.excess = Some(why);
        ControlFlow::Break(())
    }
}

/// The values of some of a group's dimensions, as one text.
fn narrowed(group: &str, dimensions: &[String]) -> Option<String> {
    let all: BTreeMap<String, serde_json::Value> = serde_json::from_str(group).ok()?;
    let kept: BTreeMap<&String, serde_json::Value> =
        dimensions.iter().map(|name| (name, all.get(name).cloned().unwrap_or_default())).collect();
    serde_json::to_string(&kept).ok()
}

async fn run(app: &App, asked: &Asked) -> Result<Totals, Problem> {
    let limit = app.query_timeout;
    let working = async {
        let _permit = app.queries.acquire().await.map_err(|error| Problem::internal(&error))?;
        add_up(app, asked).await
    };
    tokio::time::timeout(limit, working).await.unwrap_or_else(|_| Err(too_slow(limit)))
}

/// 504: it would take too long.
pub(super) fn too_slow(limit: std::time::Duration) -> Problem {
    let detail = format!("it took longer than {} ms; ask for less at once", limit.as_millis());
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "query_timeout", detail)
}

/// Raised when nobody waits any more, so that the reading ends.
struct Abandon(Arc<AtomicBool>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn add_up(app: &App, asked: &Asked) -> Result<Totals, Problem> {
    let totals = Arc::new(Mutex::new(Totals::default()));
    let abandoned = Arc::new(AtomicBool::new(false));
    let _abandon = Abandon(Arc::clone(&abandoned));
    let windows = asked.query.to.since(asked.query.from).0 / asked.width.0;
    let (control, tenant, width) = (app.node.data.control.clone(), asked.query.tenant, asked.width);
    let (by_account, dimensions) = (asked.by_account, asked.dimensions.clone());
    let sum = Arc::clone(&totals);
    let take = move |part: UsagePart| {
        let mut totals = sum.lock().unwrap_or_else(PoisonError::into_inner);
        totals.rows += 1;
        if totals.rows > USAGE_ROWS_MAX {
            return totals.end(format!("more than {USAGE_ROWS_MAX} windows to read"));
        }
        if abandoned.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        let current = match totals.epochs.get(&part.account) {
            Some(epoch) => *epoch,
            None => {
                let epoch = control.state().epoch_of(tenant, &part.account);
                totals.epochs.insert(part.account.clone(), epoch);
                epoch
            }
        };
        if part.epoch != current {
            return ControlFlow::Continue(());
        }
        let group = Group {
            account: by_account.then(|| part.account.clone()),
            metric: part.metric.clone(),
            dimensions: if dimensions.is_empty() { None } else { narrowed(&part.group, &dimensions) },
        };
        totals.add(part, group, (width, windows))
    };
    app.node.data.store.usage(asked.query.clone(), take).await.map_err(store_away)?;
    let totals = std::mem::take(&mut *totals.lock().unwrap_or_else(PoisonError::into_inner));
    match &totals.excess {
        None => Ok(totals),
        Some(why) => {
            let detail = format!("{why}; at most {USAGE_POINTS_MAX} windows times groups are answered");
            Err(Problem::unprocessable("query_too_large", detail).with("limit", USAGE_POINTS_MAX))
        }
    }
}
