//! Metric definitions. Undeclared metrics work: they are summed and have no groups.

use super::answer;
use super::app::{App, Caller};
use super::change::submit;
use super::created::{CREATED, Created, CreatedParameters};
use super::docs::Problems;
use super::incoming::Incoming;
use super::input::{Query, defaulted, nullable};
use super::page::{PARAMETERS, Page, Paging};
use super::problem::Problem;
use crate::domain::control::command::{Command, MetricPatch};
use crate::domain::control::outcome::Resource;
use crate::domain::control::resource::{MetricRecord, Scope};
use crate::domain::definition::{Fold, MetricDefinition};
use crate::domain::id::MetricName;
use crate::domain::limits::{DIMENSION_NAME_BYTES_MAX, GROUP_BY_MAX};
use axum::extract::{Path, RawQuery, State};
use axum::http::Uri;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A metric that was defined.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MetricView {
    metric: String,
    object: &'static str,
    mode: &'static str,
    version: u64,
    unit: Option<String>,
    aggregate: &'static str,
    group_by: Vec<String>,
    created_at: String,
    updated_at: String,
}

/// A metric's definition.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricPut {
    unit: Option<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>, pattern = "^(sum|max|last)$")]
    aggregate: Fold,
    #[serde(default)]
    group_by: Vec<String>,
}

/// Changes of a metric's definition.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricUpdate {
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    unit: Option<Option<String>>,
    /// `null` stands for `sum`.
    #[serde(default, deserialize_with = "defaulted")]
    #[schema(value_type = Option<String>, pattern = "^(sum|max|last)$")]
    aggregate: Option<Fold>,
    /// `null` stands for none.
    #[serde(default, deserialize_with = "defaulted")]
    group_by: Option<Vec<String>>,
}

fn view(caller: &Caller, record: &MetricRecord) -> MetricView {
    MetricView {
        metric: record.metric.to_string(),
        object: "metric",
        mode: caller.principal.tenant.mode.name(),
        version: record.life.version,
        unit: record.definition.unit.clone(),
        aggregate: record.definition.aggregate.name(),
        group_by: record.definition.group_by.clone(),
        created_at: record.life.created_at.to_string(),
        updated_at: record.life.updated_at.to_string(),
    }
}

fn name(text: &str) -> Result<MetricName, Problem> {
    MetricName::new(text).map_err(|_| super::input::parameter("metric", format!("expected {}", MetricName::EXPECTED)))
}

fn groups(group_by: Vec<String>) -> Result<Vec<String>, Problem> {
    if group_by.len() > GROUP_BY_MAX {
        return Err(Problem::invalid(
            "/group_by",
            format!("{} dimensions, at most {GROUP_BY_MAX} are taken", group_by.len()),
        ));
    }
    for (at, dimension) in group_by.iter().enumerate() {
        let pointer = format!("/group_by/{at}");
        if dimension.is_empty() || dimension.len() > DIMENSION_NAME_BYTES_MAX {
            return Err(Problem::invalid(&pointer, format!("expected 1 to {DIMENSION_NAME_BYTES_MAX} bytes")));
        }
        if group_by.iter().take(at).any(|other| other == dimension) {
            return Err(Problem::invalid(&pointer, "the dimension stands twice"));
        }
    }
    Ok(group_by)
}

/// Lists metric definitions by name, or by age with `sort`.
#[utoipa::path(
    get, path = "/v1/metrics", tag = "metrics",
    params(("page" = Option<usize>, Query), ("page_size" = Option<usize>, Query), ("cursor" = Option<String>, Query),
           ("q" = Option<String>, Query, description = "Begins with"), CreatedParameters),
    responses((status = 200, body = Page<MetricView>), Problems), security(("key" = ["read:accounts"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadAccounts)?;
    let query = Query::read(query.as_deref(), &[&PARAMETERS[..], &CREATED, &["q"]].concat())?;
    let paging = Paging::read(&app, &caller, uri.path(), &query)?;
    let created = Created::read(&query)?;
    let prefix = query.one("q")?.unwrap_or("");
    let key = |record: &MetricRecord| created.key(record.life.created_at, record.metric.as_str());
    let items: Vec<MetricRecord> = {
        let state = app.node.data.control.state();
        let fits = |record: &&MetricRecord| {
            record.metric.as_str().starts_with(prefix) && created.holds(record.life.created_at)
        };
        let (order, all) = created.sorted(state.metrics(caller.principal.tenant).filter(fits), |record| key(record));
        paging.cut(order, all.into_iter().cloned(), key)
    };
    Ok(paging.answer_as(&app, items, key, |record| view(&caller, record)))
}

/// Defines a metric.
#[utoipa::path(
    put, path = "/v1/metrics/{metric}", tag = "metrics", params(("metric" = String, Path)), request_body = MetricPut,
    responses((status = 200, body = MetricView), (status = 201, body = MetricView), Problems), security(("key" = ["write:accounts"]))
)]
pub(super) async fn put(
    State(app): State<App>,
    caller: Caller,
    Path(metric): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteAccounts)?;
    let wanted: MetricPut = incoming.json()?;
    let unit = wanted.unit.map(|unit| super::text::name("/unit", unit)).transpose()?;
    let definition = MetricDefinition { unit, aggregate: wanted.aggregate, group_by: groups(wanted.group_by)? };
    let command = Command::PutMetric { metric: name(&metric)?, definition };
    let sent = incoming.sent();
    let changed = submit(&app, &caller, sent, command).await?;
    answered(&caller, &changed)
}

/// Changes a metric's definition (JSON Merge Patch, RFC 7396).
#[utoipa::path(
    patch, path = "/v1/metrics/{metric}", tag = "metrics", params(("metric" = String, Path)), request_body = MetricUpdate,
    responses((status = 200, body = MetricView), Problems), security(("key" = ["write:accounts"]))
)]
pub(super) async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(metric): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteAccounts)?;
    let wanted: MetricUpdate = incoming.json()?;
    let unit = match wanted.unit {
        Some(Some(unit)) => Some(Some(super::text::name("/unit", unit)?)),
        other => other,
    };
    let patch = MetricPatch { unit, aggregate: wanted.aggregate, group_by: wanted.group_by.map(groups).transpose()? };
    let command = Command::UpdateMetric { metric: name(&metric)?, patch };
    let sent = incoming.sent();
    let changed = submit(&app, &caller, sent, command).await?;
    answered(&caller, &changed)
}

/// Makes a metric an undeclared one again.
#[utoipa::path(
    delete, path = "/v1/metrics/{metric}", tag = "metrics", params(("metric" = String, Path)),
    responses((status = 204), Problems), security(("key" = ["write:accounts"]))
)]
pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(metric): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteAccounts)?;
    let sent = incoming.sent();
    submit(&app, &caller, sent, Command::DeleteMetric { metric: name(&metric)? }).await?;
    Ok(answer::gone())
}

fn answered(caller: &Caller, changed: &super::change::Changed) -> Result<Response, Problem> {
    let Resource::Metric(record) = &changed.resource else { return Ok(answer::gone()) };
    let location = format!("/v1/metrics/{}", record.metric);
    Ok(answer::changed(changed, &view(caller, record), record.life.version, &location))
}
