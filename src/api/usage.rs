//! Usage of an account in windows, with what each answer is worth: `as_of`, `complete`, `late_events`, `revision`.

use super::accounts::find;
use super::app::{App, Caller};
use super::docs::Problems;
use super::input::{Query, parameter};
use super::problem::Problem;
use super::receipt::{Receipt, store_away};
use crate::domain::control::resource::Scope;
use crate::domain::definition::Fold;
use crate::domain::id::{AccountId, Epoch, MetricName};
use crate::domain::limits::USAGE_POINTS_MAX;
use crate::domain::partition::aggregate::Aggregate;
use crate::domain::quantity::Quantity;
use crate::domain::time::{Millis, Timestamp, WINDOW};
use crate::store::{WindowPoint, WindowQuery};
use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

const PARAMETERS: [&str; 8] = ["window", "from", "to", "metric", "group_by", "agg", "format", "after"];
const WINDOWS_DEFAULT: i64 = 12;

/// Usage of an account.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UsageView {
    account_id: String,
    /// The width of the windows.
    window: String,
    /// The first start, inclusive.
    from: String,
    /// The last end, exclusive.
    to: String,
    /// Everything that was recorded up to here is counted.
    as_of: String,
    /// Whether every window has closed.
    complete: bool,
    items: Vec<UsagePoint>,
    quotas: Vec<QuotaLevel>,
    page: usize,
    has_more: bool,
}

/// One window of one metric.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UsagePoint {
    metric: String,
    unit: Option<String>,
    /// Inclusive.
    start: String,
    /// Exclusive.
    end: String,
    /// An exact number; null where a window without events has none (`min`, `max`, `avg`, `last`).
    #[schema(value_type = Option<f64>)]
    value: Option<Box<RawValue>>,
    count: u64,
    /// Whether the window has closed.
    complete: bool,
    /// How many of its events came after it had closed.
    late_events: u64,
    /// Grows whenever the window changes.
    revision: u64,
    /// The group's dimensions; null for the total.
    #[schema(value_type = Option<Object>)]
    group: Option<Box<RawValue>>,
}

/// What is used of a quota.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QuotaLevel {
    metric: String,
    #[schema(value_type = f64)]
    limit: Box<RawValue>,
    #[schema(value_type = f64)]
    used: Box<RawValue>,
    #[schema(value_type = f64)]
    remaining: Box<RawValue>,
    /// Null where the limit is zero.
    #[schema(value_type = Option<f64>)]
    percent: Option<Box<RawValue>>,
    period: &'static str,
    resets_at: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    Of(Fold),
    Count,
    Min,
    Avg,
    Rate,
}

impl Measure {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "sum" => Some(Self::Of(Fold::Sum)),
            "max" => Some(Self::Of(Fold::Max)),
            "last" => Some(Self::Of(Fold::Last)),
            "count" => Some(Self::Count),
            "min" => Some(Self::Min),
            "avg" => Some(Self::Avg),
            "rate" => Some(Self::Rate),
            _ => None,
        }
    }

    pub(super) fn of(self, aggregate: &Aggregate, width: Millis) -> Option<Quantity> {
        let present = !aggregate.is_empty();
        match self {
            Self::Of(Fold::Sum) => Some(aggregate.sum),
            Self::Of(fold @ (Fold::Max | Fold::Last)) => present.then(|| aggregate.value(fold)),
            Self::Count => Some(Quantity::whole(i64::try_from(aggregate.count).unwrap_or(i64::MAX))),
            Self::Min => present.then_some(aggregate.min),
            Self::Avg => aggregate.mean(),
            Self::Rate => aggregate.sum.divided_by(u64::try_from(width.0 / 1_000).unwrap_or(1)),
        }
    }
}

/// What is asked.
struct Asked {
    account: AccountId,
    epoch: Epoch,
    width: Millis,
    from: Timestamp,
    to: Timestamp,
    metric: Option<MetricName>,
    measure: Option<Measure>,
    groups: bool,
    csv: bool,
}

/// Tells an account's usage in windows; without `from` and `to` the last 12, the running one included.
#[utoipa::path(
    get, path = "/v1/accounts/{account_id}/usage", tag = "usage",
    params(("account_id" = String, Path), ("window" = Option<String>, Query, description = "5m (default), 15m, 1h or 1d"),
           ("from" = Option<String>, Query, description = "Inclusive; moved back to a window's start"),
           ("to" = Option<String>, Query, description = "Exclusive; moved on to a window's end"),
           ("metric" = Option<String>, Query), ("group_by" = Option<String>, Query, description = "The metric's group_by, separated by commas"),
           ("agg" = Option<String>, Query, description = "sum, count, min, max, avg, last or rate (per second)"),
           ("format" = Option<String>, Query, description = "json (default) or csv"),
           ("after" = Option<String>, Query, description = "A receipt: waits until its events are counted")),
    responses((status = 200, content((UsageView = "application/json"), (String = "text/csv"))), Problems),
    security(("key" = ["read:usage"]))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
    Path(account): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadUsage)?;
    let query = Query::read(query.as_deref(), &PARAMETERS)?;
    if let Some(receipt) = query.read_as("after", "a receipt (rcp_…)", Receipt::parse)? {
        receipt.wait(&app).await?;
    }
    let asked = read(&app, &caller, &query, &account).await?;
    let partition = app.partition(&caller, &asked.account);
    let as_of = caller.in_world(app.node.progress(partition).await.map_err(store_away)?.clock);
    let grace = app.node.data.control.state().settings().grace;
    let points = points(&app, &caller, &asked).await?;
    let closed = |end: Timestamp| end.plus(grace) <= as_of;
    let items = shown(&app, &caller, &asked, points, closed)?;
    if asked.csv {
        return Ok(csv(&items));
    }
    let quotas = quotas(&app, &caller, &asked, as_of).await?;
    Ok(Json(UsageView {
        account_id: asked.account.to_string(),
        window: asked.width.to_string(),
        from: asked.from.to_string(),
        to: asked.to.to_string(),
        as_of: as_of.to_string(),
        complete: closed(asked.to),
        items,
        quotas,
        page: 1,
        has_more: false,
    })
    .into_response())
}

async fn read(app: &App, caller: &Caller, query: &Query, account: &str) -> Result<Asked, Problem> {
    let widths = [("5m", 5), ("15m", 15), ("1h", 60), ("1d", 1_440)];
    let named =
        |text: &str| widths.iter().find(|(name, _)| *name == text).map(|(_, minutes)| Millis::minutes(*minutes));
    let width = query.read_as("window", "5m, 15m, 1h or 1d", named)?.unwrap_or(WINDOW);
    let to = query.instant("to")?.unwrap_or_else(|| caller.now().plus(Millis(1))).round_up(width);
    let default_from = Timestamp(to.0.saturating_sub(width.0.saturating_mul(WINDOWS_DEFAULT)));
    let from = query.instant("from")?.unwrap_or(default_from).window_start(width);
    if from >= to {
        return Err(parameter("from", "it must be before to"));
    }
    let windows = to.since(from).0 / width.0;
    if windows > USAGE_POINTS_MAX as i64 {
        return Err(too_many(windows));
    }
    let metric = query.metric("metric")?;
    let measure = query.read_as("agg", "sum, count, min, max, avg, last or rate", Measure::parse)?;
    let csv = query.read_as("format", "json or csv", |text| match text {
        "json" => Some(false),
        "csv" => Some(true),
        _ => None,
    })?;
    let groups = match query.one("group_by")? {
        None => false,
        Some(named) => {
            let state = app.node.data.control.state();
            let defined = metric.as_ref().and_then(|metric| state.metric(caller.principal.tenant, metric));
            let kept = defined.map(|record| record.definition.group_by.join(",")).unwrap_or_default();
            if kept.is_empty() || kept != named {
                let detail = match &metric {
                    None => "name the metric too".to_owned(),
                    Some(metric) if kept.is_empty() => {
                        format!("{metric} keeps no groups; define it with group_by first")
                    }
                    Some(metric) => format!("{metric} keeps the groups {kept}"),
                };
                return Err(parameter("group_by", detail));
            }
            true
        }
    };
    let (account, _) = find(app, caller, account).await?;
    let epoch = app.node.data.control.state().epoch_of(caller.principal.tenant, &account);
    Ok(Asked { account, epoch, width, from, to, metric, measure, groups, csv: csv.unwrap_or(false) })
}

pub(super) fn too_many(points: i64) -> Problem {
    let detail =
        format!("{points} points, at most {USAGE_POINTS_MAX} are answered; take wider windows or a shorter time");
    Problem::unprocessable("query_too_large", detail).with("limit", USAGE_POINTS_MAX)
}

async fn points(app: &App, caller: &Caller, asked: &Asked) -> Result<Vec<WindowPoint>, Problem> {
    let query = WindowQuery {
        tenant: caller.principal.tenant,
        epoch: asked.epoch,
        account: asked.account.clone(),
        metric: asked.metric.clone(),
        from: asked.from,
        to: asked.to,
        width: asked.width,
        groups: asked.groups,
    };
    let mut points = app.node.data.store.windows(query).await.map_err(store_away)?;
    if !asked.groups {
        let known = match &asked.metric {
            Some(metric) => vec![metric.clone()],
            None => {
                let store = &app.node.data.store;
                let tenant = caller.principal.tenant;
                let counted = store.metrics_of(tenant, asked.epoch, asked.account.clone()).await;
                let limited = app.node.data.control.state().effective_quotas(tenant, &asked.account);
                // A metric with a quota is known without events, too: its windows are zero.
                let limited = limited.into_iter().map(|(metric, _)| metric);
                let all: BTreeSet<MetricName> = counted.map_err(store_away)?.into_iter().chain(limited).collect();
                all.into_iter().collect()
            }
        };
        let count = asked.to.since(asked.from).0 / asked.width.0 * known.len() as i64;
        if count > USAGE_POINTS_MAX as i64 {
            return Err(too_many(count));
        }
        points = filled(points, &known, asked);
    }
    if points.len() > USAGE_POINTS_MAX {
        return Err(too_many(points.len() as i64));
    }
    Ok(points)
}

/// Adds the windows without events, so that nothing and no answer never look alike.
fn filled(points: Vec<WindowPoint>, metrics: &[MetricName], asked: &Asked) -> Vec<WindowPoint> {
    let mut found: BTreeMap<(MetricName, Timestamp), WindowPoint> =
        points.into_iter().map(|point| ((point.metric.clone(), point.start), point)).collect();
    let mut all = Vec::new();
    for metric in metrics {
        let mut start = asked.from;
        while start < asked.to {
            all.push(found.remove(&(metric.clone(), start)).unwrap_or_else(|| WindowPoint {
                metric: metric.clone(),
                group: String::new(),
                start,
                aggregate: Aggregate::default(),
                late_events: 0,
                revision: Default::default(),
            }));
            start = start.plus(asked.width);
        }
    }
    all
}

fn shown(
    app: &App,
    caller: &Caller,
    asked: &Asked,
    points: Vec<WindowPoint>,
    closed: impl Fn(Timestamp) -> bool,
) -> Result<Vec<UsagePoint>, Problem> {
    let state = app.node.data.control.state();
    let mut items = Vec::with_capacity(points.len());
    for point in points {
        let definition = state.metric(caller.principal.tenant, &point.metric).map(|record| &record.definition);
        let measure = asked.measure.unwrap_or(Measure::Of(definition.map(|d| d.aggregate).unwrap_or_default()));
        let end = point.start.plus(asked.width);
        items.push(UsagePoint {
            metric: point.metric.to_string(),
            unit: definition.and_then(|definition| definition.unit.clone()),
            start: point.start.to_string(),
            end: end.to_string(),
            value: measure.of(&point.aggregate, asked.width).map(number),
            count: point.aggregate.count,
            complete: closed(end),
            late_events: point.late_events,
            revision: point.revision.0,
            group: RawValue::from_string(point.group).ok(),
        });
    }
    Ok(items)
}

async fn quotas(app: &App, caller: &Caller, asked: &Asked, as_of: Timestamp) -> Result<Vec<QuotaLevel>, Problem> {
    let tenant = caller.principal.tenant;
    let effective = app.node.data.control.state().effective_quotas(tenant, &asked.account);
    let mut levels = Vec::new();
    // Before the first record there is no fold's clock; the period is then that of now.
    let at = if as_of.0 == 0 { caller.now() } else { as_of };
    for (metric, quota) in effective {
        if asked.metric.as_ref().is_some_and(|wanted| *wanted != metric) {
            continue;
        }
        let (start, end) = quota.period.bounds(at);
        let query = WindowQuery {
            tenant,
            epoch: asked.epoch,
            account: asked.account.clone(),
            metric: Some(metric.clone()),
            from: start,
            to: end,
            width: WINDOW,
            groups: false,
        };
        let used = app.node.data.store.total(query).await.map_err(store_away)?.value(quota.aggregate);
        levels.push(QuotaLevel {
            metric: metric.to_string(),
            limit: number(quota.limit),
            used: number(used),
            remaining: number(quota.limit.minus(used)),
            percent: used.percent_of(quota.limit).map(number),
            period: quota.period.name(),
            resets_at: end.to_string(),
        });
    }
    Ok(levels)
}

/// An exact JSON number.
pub(super) fn number(quantity: Quantity) -> Box<RawValue> {
    RawValue::from_string(quantity.to_string()).unwrap_or_default()
}

fn csv(items: &[UsagePoint]) -> Response {
    let mut text = String::from("metric,start,end,value,count,complete,late_events,revision,group\n");
    for item in items {
        let value = item.value.as_ref().map_or("", |value| value.get());
        let group = item.group.as_ref().map_or(String::new(), |group| cell(group.get()));
        let fields = [
            cell(&item.metric),
            item.start.clone(),
            item.end.clone(),
            value.to_owned(),
            item.count.to_string(),
            item.complete.to_string(),
            item.late_events.to_string(),
            item.revision.to_string(),
            group,
        ];
        text.push_str(&fields.join(","));
        text.push('\n');
    }
    ([(CONTENT_TYPE, "text/csv; charset=utf-8")], text).into_response()
}

/// Quotes a cell, and keeps spreadsheets from reading it as a formula.
fn cell(text: &str) -> String {
    let guarded = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() };
    if guarded.contains([',', '"', '\n', '\r']) { format!("\"{}\"", guarded.replace('"', "\"\"")) } else { guarded }
}
