//! Usage of an account in windows, with what each answer is worth: `as_of`, `complete`, `late_events`, `revision`.

use super::accounts::find;
use super::app::{App, Caller};
use super::docs::Problems;
use super::input::{Query, parameter};
use super::problem::Problem;
use super::receipt::{Receipt, store_away};
use super::usage_totals::{self as totals, Added, Group, Points, Span, Terms, WIDTHS, too_many};
use super::usage_warnings::{self, UsageWarning, kept_since, partial_groups, unknown_groups, unknown_metrics};
use crate::domain::control::resource::Scope;
use crate::domain::definition::{Fold, Quota, UsedPercent};
use crate::domain::id::{AccountId, Epoch, MetricName};
use crate::domain::limits::{USAGE_GROUPS_MAX, USAGE_POINTS_MAX};
use crate::domain::partition::aggregate::Aggregate;
use crate::domain::quantity::Quantity;
use crate::domain::time::{Millis, Period, Timestamp, WINDOW};
use crate::store::UsageQuery;
use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

const PARAMETERS: [&str; 9] = ["window", "from", "to", "metric", "group_by", "dim[]", "agg", "format", "after"];

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
    /// What the numbers do not show; CSV has the codes in the header `usage-warnings`.
    warnings: Vec<UsageWarning>,
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
    /// Whether it holds what is in no group of its own, since its hour had as many as there may be. Each dimension of
    /// `group` is then null, so that the items add up to the total.
    overflow: bool,
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
    /// Null where it is greater than every number: any use of a limit of zero.
    #[schema(value_type = Option<f64>)]
    percent: Option<Box<RawValue>>,
    /// Whether the percentage is greater than every number.
    over: bool,
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
    span: Span,
    metric: Option<MetricName>,
    measure: Option<Measure>,
    /// What is told apart.
    dimensions: Vec<String>,
    /// What alone is counted: for each of these dimensions one of the values.
    only: BTreeMap<String, Vec<String>>,
    csv: bool,
}

impl Asked {
    fn reads_groups(&self) -> bool {
        !self.dimensions.is_empty() || !self.only.is_empty()
    }

    /// What is read for the points.
    fn terms(&self, app: &App, caller: &Caller) -> Terms {
        let is_grouped = !self.dimensions.is_empty();
        let metrics: Vec<MetricName> = self.metric.iter().cloned().collect();
        let dimensions: Vec<&String> = self.dimensions.iter().chain(self.only.keys()).collect();
        Terms {
            kept_since: kept_since(app, caller, &metrics, &dimensions),
            query: UsageQuery { groups: self.reads_groups(), ..self.query(caller, metrics) },
            width: Some(self.span.width),
            by_account: false,
            dimensions: self.dimensions.clone(),
            only: self.only.clone(),
            groups_max: if is_grouped { USAGE_GROUPS_MAX } else { usize::MAX },
            windows_each: if is_grouped { 1 } else { self.span.windows() },
        }
    }

    /// The account's parts of some metrics, or of all where there is none.
    fn query(&self, caller: &Caller, metrics: Vec<MetricName>) -> UsageQuery {
        UsageQuery {
            tenant: caller.principal.tenant,
            accounts: vec![self.account.clone()],
            epoch: Some(self.epoch),
            metrics,
            from: self.span.from,
            to: self.span.to,
            groups: false,
        }
    }
}

/// Tells an account's usage in windows; without `from` and `to` the last 12, the running one included.
#[utoipa::path(
    get, path = "/v1/accounts/{account_id}/usage", tag = "usage",
    params(("account_id" = String, Path), ("window" = Option<String>, Query, description = "The width of the windows: a multiple of 5m (default) that divides a day"),
           ("from" = Option<String>, Query, description = "Inclusive; moved back to a window's start"),
           ("to" = Option<String>, Query, description = "Exclusive; moved on to a window's end"),
           ("metric" = Option<String>, Query), ("group_by" = Option<String>, Query, description = "What is told apart: any of the metric's group_by, separated by commas"),
           ("dim" = Option<HashMap<String, String>>, Query, style = DeepObject, explode,
            description = "Counts only what has these values (`dim[region]=eu`), of dimensions in the metric's group_by; a repetition means any of them"),
           ("agg" = Option<String>, Query, description = "sum, count, min, max, avg, last or rate (per second)"),
           ("format" = Option<String>, Query, description = "json (default) or csv"),
           ("after" = Option<String>, Query, description = "A receipt: waits until its events are counted")),
    responses((status = 200, content((UsageView = "application/json"), (String = "text/csv"))),
              (status = 504, body = super::problem::ProblemBody, content_type = "application/problem+json",
               description = "It took too long; narrow the range."), Problems),
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
    let work = async {
        let (points, warnings) = points(&app, &caller, &asked).await?;
        let quotas = if asked.csv { Vec::new() } else { quotas(&app, &caller, &asked, as_of).await? };
        Ok((points, quotas, warnings))
    };
    // What reads no groups is short, and waits for no question across accounts.
    let turns = if asked.reads_groups() { &app.queries } else { &app.reads };
    let (points, quotas, warnings) = totals::bounded(turns, app.query_timeout, work).await?;
    let closed = |end: Timestamp| end.plus(grace) <= as_of;
    let items = shown(&app, &caller, &asked, points, closed);
    if asked.csv {
        return Ok(csv(&items, &warnings));
    }
    Ok(Json(UsageView {
        account_id: asked.account.to_string(),
        window: asked.span.width.to_string(),
        from: asked.span.from.to_string(),
        to: asked.span.to.to_string(),
        as_of: as_of.to_string(),
        complete: closed(asked.span.to),
        items,
        quotas,
        warnings,
        page: 1,
        has_more: false,
    })
    .into_response())
}

async fn read(app: &App, caller: &Caller, query: &Query, account: &str) -> Result<Asked, Problem> {
    let width = query.read_as("window", WIDTHS, totals::width)?.unwrap_or(WINDOW);
    let ends = (query.instant("from")?, query.instant("to")?);
    let span = Span::read(width, ends, caller.now(), || parameter("from", "it must be before to"))?;
    let metric = query.metric("metric")?;
    let measure = query.read_as("agg", "sum, count, min, max, avg, last or rate", Measure::parse)?;
    let csv = query.read_as("format", "json or csv", |text| match text {
        "json" => Some(false),
        "csv" => Some(true),
        _ => None,
    })?;
    let dimensions: Vec<String> =
        query.one("group_by")?.map(|names| names.split(',').map(str::to_owned).collect()).unwrap_or_default();
    kept(app, caller, metric.as_ref(), ("group_by", dimensions.iter()))?;
    let only = query.members("dim");
    kept(app, caller, metric.as_ref(), ("dim", only.keys()))?;
    let (account, _) = find(app, caller, account).await?;
    let epoch = app.node.data.control.state().epoch_of(caller.principal.tenant, &account);
    Ok(Asked { account, epoch, span, metric, measure, dimensions, only, csv: csv.unwrap_or(false) })
}

/// Makes sure that a metric keeps the dimensions that a parameter names.
fn kept<'a>(
    app: &App,
    caller: &Caller,
    metric: Option<&MetricName>,
    (parameter_name, named): (&str, impl Iterator<Item = &'a String>),
) -> Result<(), Problem> {
    let state = app.node.data.control.state();
    let defined = metric.and_then(|metric| state.metric(caller.principal.tenant, metric));
    let kept = defined.map_or(&[][..], |record| &record.definition.group_by);
    for name in named {
        if kept.contains(name) {
            continue;
        }
        let detail = match metric {
            None => "name the metric too".to_owned(),
            Some(metric) if kept.is_empty() => format!("{metric} keeps no groups; define it with group_by first"),
            Some(metric) => format!("{metric} keeps the groups {}", kept.join(",")),
        };
        return Err(parameter(parameter_name, detail));
    }
    Ok(())
}

async fn points(app: &App, caller: &Caller, asked: &Asked) -> Result<(Points, Vec<UsageWarning>), Problem> {
    let terms = asked.terms(app, caller);
    // Before the groups, which may then hold more than these, and never less.
    let whole = if asked.reads_groups() { totals::count_totals(app, &terms).await? } else { None };
    let Added { points, coverage } = totals::add_up(app, &terms).await?;
    let mut warnings = Vec::new();
    if let Some(metric) = &asked.metric {
        if points.is_empty() {
            let accounts = [asked.account.clone()];
            warnings.extend(unknown_metrics(app, caller, vec![metric.clone()], &accounts).await?);
        }
        if asked.reads_groups() {
            warnings.extend(partial_groups(&terms, whole.as_ref(), &coverage.counted));
            let series = (&asked.account, asked.epoch, metric);
            warnings.extend(unknown_groups(app, &terms, series, coverage).await?);
        }
    }
    let warnings = usage_warnings::bounded(app, caller, (asked.span.from, asked.span.to), warnings);
    if !asked.dimensions.is_empty() {
        return Ok((points, warnings));
    }
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
    let count = asked.span.windows() * known.len() as i64;
    if count > USAGE_POINTS_MAX as i64 {
        return Err(too_many(count));
    }
    Ok((filled(points, known, asked.span), warnings))
}

/// Adds the windows without events, so that nothing and no answer never look alike.
fn filled(mut found: Points, metrics: Vec<MetricName>, span: Span) -> Points {
    let mut all = Points::new();
    for metric in metrics {
        let mut start = span.from;
        while start < span.to {
            let key = (Group { account: None, metric: metric.clone(), dimensions: None, overflow: false }, start);
            let sum = found.remove(&key).unwrap_or_default();
            all.insert(key, sum);
            start = start.plus(span.width);
        }
    }
    all
}

fn shown(
    app: &App,
    caller: &Caller,
    asked: &Asked,
    points: Points,
    closed: impl Fn(Timestamp) -> bool,
) -> Vec<UsagePoint> {
    let state = app.node.data.control.state();
    let mut items = Vec::with_capacity(points.len());
    for ((group, start), sum) in points {
        let definition = state.metric(caller.principal.tenant, &group.metric).map(|record| &record.definition);
        let measure = asked.measure.unwrap_or(Measure::Of(definition.map(|d| d.aggregate).unwrap_or_default()));
        let end = start.plus(asked.span.width);
        items.push(UsagePoint {
            metric: group.metric.to_string(),
            unit: definition.and_then(|definition| definition.unit.clone()),
            start: start.to_string(),
            end: end.to_string(),
            value: measure.of(&sum.aggregate, asked.span.width).map(number),
            count: sum.aggregate.count,
            complete: closed(end),
            late_events: sum.late_events,
            revision: sum.revision.0,
            group: group.dimensions.and_then(|text| RawValue::from_string(text).ok()),
            overflow: group.overflow,
        });
    }
    items
}

/// Reads what is used of every quota, at once for all that count over the same period.
async fn quotas(app: &App, caller: &Caller, asked: &Asked, as_of: Timestamp) -> Result<Vec<QuotaLevel>, Problem> {
    let tenant = caller.principal.tenant;
    let mut effective = app.node.data.control.state().effective_quotas(tenant, &asked.account);
    effective.retain(|(metric, _)| asked.metric.as_ref().is_none_or(|wanted| wanted == metric));
    // Before the first record there is no fold's clock; the period is then that of now.
    let at = if as_of.0 == 0 { caller.now() } else { as_of };
    let mut of_period: BTreeMap<Period, Vec<MetricName>> = BTreeMap::new();
    for (metric, quota) in &effective {
        of_period.entry(quota.period).or_default().push(metric.clone());
    }
    let mut used: BTreeMap<MetricName, Aggregate> = BTreeMap::new();
    for (period, metrics) in of_period {
        let (from, to) = period.bounds(at);
        let terms = Terms {
            query: UsageQuery { from, to, ..asked.query(caller, metrics) },
            width: None,
            by_account: false,
            dimensions: Vec::new(),
            only: BTreeMap::new(),
            groups_max: usize::MAX,
            windows_each: 1,
            kept_since: BTreeMap::new(),
        };
        let points = totals::add_up(app, &terms).await?.points;
        used.extend(points.into_iter().map(|((group, _), sum)| (group.metric, sum.aggregate)));
    }
    let level = |(metric, quota): (MetricName, Quota)| {
        let used = used.get(&metric).copied().unwrap_or_default().value(quota.aggregate);
        let percent = UsedPercent::of(used, quota.limit);
        QuotaLevel {
            metric: metric.to_string(),
            limit: number(quota.limit),
            used: number(used),
            remaining: number(quota.limit.minus(used)),
            percent: percent.exact().map(number),
            over: percent.is_over(),
            period: quota.period.name(),
            resets_at: quota.period.bounds(at).1.to_string(),
        }
    };
    Ok(effective.into_iter().map(level).collect())
}

/// An exact JSON number.
pub(super) fn number(quantity: Quantity) -> Box<RawValue> {
    RawValue::from_string(quantity.to_string()).unwrap_or_default()
}

fn csv(items: &[UsagePoint], warnings: &[UsageWarning]) -> Response {
    let mut text = String::from("metric,start,end,value,count,complete,late_events,revision,group,overflow\n");
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
            item.overflow.to_string(),
        ];
        text.push_str(&fields.join(","));
        text.push('\n');
    }
    let mut response = ([(CONTENT_TYPE, "text/csv; charset=utf-8")], text).into_response();
    let codes: BTreeSet<&str> = warnings.iter().map(|warning| warning.code).collect();
    let codes: Vec<&str> = codes.into_iter().collect();
    if let Ok(value) = HeaderValue::from_str(&codes.join(", "))
        && !codes.is_empty()
    {
        response.headers_mut().insert("usage-warnings", value);
    }
    response
}

/// Quotes a cell, and keeps spreadsheets from reading it as a formula.
fn cell(text: &str) -> String {
    let guarded = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() };
    if guarded.contains([',', '"', '\n', '\r']) { format!("\"{}\"", guarded.replace('"', "\"\"")) } else { guarded }
}
