//! What the store keeps of an alert: its instances, and what happened to them.

use super::alerts::{find, states};
use super::app::{App, Caller};
use super::created::{CREATED, Created, CreatedParameters};
use super::delivered::{DeliveredView, outcomes};
use super::docs::Problems;
use super::input::Query;
use super::page::{PARAMETERS, Page, Paging};
use super::problem::Problem;
use super::read_on::{is_present, read_on};
use super::receipt::store_away;
use super::usage::number;
use crate::domain::control::fold::Control;
use crate::domain::control::resource::Scope;
use crate::domain::id::{AccountId, MetricName};
use crate::domain::incident;
use crate::domain::partition::effect::{Evidence, InstanceRow, State as AlertState, TransitionRow};
use crate::domain::quantity::Quantity;
use crate::domain::rule::{Name, RuleProgram};
use crate::domain::time::Timestamp;
use crate::store::{InstanceQuery, TransitionPlace, TransitionQuery};
use axum::extract::{Path, RawQuery, State};
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// One alert on one account and metric.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InstanceView {
    object: &'static str,
    account_id: String,
    /// Null where every name of the rule names its metric.
    metric: Option<String>,
    state: &'static str,
    since: String,
    silenced: bool,
    #[schema(value_type = Option<f64>)]
    value: Option<Box<RawValue>>,
    /// Whether the value is greater than every number, and null therefore: something is used of a limit of zero.
    over: bool,
    evaluated_at: String,
    revision: u64,
}

/// What happened to an instance.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TransitionView {
    object: &'static str,
    account_id: String,
    metric: Option<String>,
    sequence: u64,
    from: &'static str,
    to: &'static str,
    reason: &'static str,
    at: String,
    recorded_at: String,
    /// The deciding record's place in its partition's log.
    position: u64,
    notification_id: Option<String>,
    /// What became of the message that told of it, at each channel; in the history alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries: Option<Vec<DeliveredView>>,
    /// The incident that this begins.
    incident_id: Option<String>,
    /// When somebody took care of it.
    acknowledged_at: Option<String>,
    /// The key that did.
    acknowledged_by: Option<String>,
    #[schema(value_type = Option<f64>)]
    value: Option<Box<RawValue>>,
    /// Whether the value is greater than every number, and null therefore: something was used of a limit of zero.
    over: bool,
    value_name: Option<String>,
    #[schema(value_type = Option<f64>)]
    limit: Option<Box<RawValue>>,
    #[schema(value_type = Option<f64>)]
    used: Option<Box<RawValue>>,
    window_start: Option<String>,
    window_revision: Option<u64>,
    rule: String,
    alert_version: u64,
    /// Every sub-expression with its value.
    inputs: Vec<InputView>,
}

/// A sub-expression with its value.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InputView {
    expression: String,
    /// A number, `over` (greater than every number), `true`, `false` or `unknown`.
    value: String,
}

/// Lists an alert's instances by account and metric.
#[utoipa::path(
    get, path = "/v1/alerts/{id}/instances", tag = "alerts",
    params(("id" = String, Path), ("account_id" = Option<Vec<String>>, Query), ("state" = Option<Vec<String>>, Query),
           ("page" = Option<usize>, Query), ("page_size" = Option<usize>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Page<InstanceView>), Problems), security(("key" = ["read:alerts"]))
)]
pub(super) async fn instances(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    RawQuery(query): RawQuery,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadAlerts)?;
    let query = Query::read(query.as_deref(), &[&PARAMETERS[..], &["account_id", "state"]].concat())?;
    let paging = Paging::read(&app, &caller, uri.path(), &query)?;
    let definition = find(&app, &caller, &id)?.definition;
    let asked = InstanceQuery {
        tenant: caller.principal.tenant,
        alert: definition.id,
        states: states(&query)?,
        accounts: query.accounts("account_id")?,
        after: paging.after_parts(|parts| match parts {
            [account, metric] => Some((AccountId::new(account).ok()?, optional_metric(metric)?)),
            _ => None,
        })?,
        offset: paging.offset(),
        limit: paging.size + 1,
    };
    let rows = app.node.data.store.instances(asked).await.map_err(store_away)?;
    let rule = RuleProgram::compile(&definition.rule).ok();
    let state = app.node.data.control.state();
    let items = rows.iter().map(|row| instance(row, is_over(&state, rule.as_ref(), row))).collect();
    drop(state);
    Ok(paging.answer(&app, items, |row: &InstanceView| {
        format!("{} {}", row.account_id, row.metric.as_deref().unwrap_or("-"))
    }))
}

/// Whether an instance's value is greater than every number: the share of a limit of zero of which something is used. The
/// row holds no value then, and there is no other share that it has none for.
fn is_over(state: &Control, rule: Option<&RuleProgram>, row: &InstanceRow) -> bool {
    let first = rule.and_then(|rule| rule.inputs().first()).filter(|input| input.name == Name::QuotaPercent);
    let metric = first.and_then(|input| input.metric.as_ref().or(row.key.metric.as_ref()));
    let quota = metric.and_then(|metric| state.effective_quota(row.key.tenant, &row.key.account, metric));
    let is_decided = row.state.is_some_and(|state| state != AlertState::Inconclusive);
    is_decided && row.value.is_none() && quota.is_some_and(|(quota, _)| quota.limit == Quantity::ZERO)
}

fn instance(row: &InstanceRow, over: bool) -> InstanceView {
    InstanceView {
        object: "alert_instance",
        account_id: row.key.account.to_string(),
        metric: row.key.metric.as_ref().map(ToString::to_string),
        state: row.state.unwrap_or_default().name(),
        since: row.since.to_string(),
        silenced: row.silenced,
        value: row.value.map(number),
        over,
        evaluated_at: row.evaluated_at.to_string(),
        revision: row.revision.0,
    }
}

/// Lists what happened to an alert's instances, newest first, each with what decided it.
#[utoipa::path(
    get, path = "/v1/alerts/{id}/history", tag = "alerts",
    params(("id" = String, Path), ("account_id" = Option<Vec<String>>, Query), ("from" = Option<String>, Query),
           ("to" = Option<String>, Query), ("page" = Option<usize>, Query), ("page_size" = Option<usize>, Query),
           ("cursor" = Option<String>, Query), CreatedParameters),
    responses((status = 200, body = Page<TransitionView>), Problems), security(("key" = ["read:alerts"]))
)]
pub(super) async fn history(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    RawQuery(query): RawQuery,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadAlerts)?;
    let query = Query::read(query.as_deref(), &[&PARAMETERS[..], &CREATED, &["account_id", "from", "to"]].concat())?;
    let paging = Paging::read(&app, &caller, uri.path(), &query)?;
    let created = Created::read(&query)?;
    let (from, to) = created.span(&query)?;
    let asked = TransitionQuery {
        tenant: caller.principal.tenant,
        alert: find(&app, &caller, &id)?.definition.id,
        accounts: query.accounts("account_id")?,
        metric: None,
        changes_only: false,
        from,
        to,
        age: created.age(),
        after: paging.after_parts(transition_place)?,
        offset: paging.offset(),
        limit: paging.size + 1,
    };
    let hides = app.node.data.control.state().has_epochs(caller.principal.tenant);
    let rows = if hides {
        let next = |last: Option<TransitionRow>, limit| {
            let behind = last.map(place_of);
            let query = TransitionQuery { offset: 0, limit, after: behind.or(asked.after.clone()), ..asked.clone() };
            async { app.node.data.store.transitions(query).await.map_err(store_away) }
        };
        let fits = |row: &TransitionRow| is_present(&app.node.data.control.state(), row);
        read_on((asked.offset, asked.limit), next, fits).await?
    } else {
        app.node.data.store.transitions(asked).await.map_err(store_away)?
    };
    let mut told = outcomes(&app, &caller, rows.iter().filter_map(|row| row.notification).collect()).await?;
    let state = app.node.data.control.state();
    let items = rows
        .iter()
        .map(|row| transition(&state, row).with(row.notification.and_then(|id| told.remove(&id)).unwrap_or_default()));
    let items = items.collect();
    drop(state);
    Ok(paging.answer(&app, items, |row: &TransitionView| {
        format!("{} {} {} {}", row.at, row.account_id, row.metric.as_deref().unwrap_or("-"), row.sequence)
    }))
}

fn place_of(row: TransitionRow) -> TransitionPlace {
    TransitionPlace { at: row.at, account: row.key.account, metric: row.key.metric, sequence: row.sequence }
}

fn transition_place(parts: &[&str]) -> Option<TransitionPlace> {
    let [at, account, metric, sequence] = parts else { return None };
    Some(TransitionPlace {
        at: Timestamp::parse(at)?,
        account: AccountId::new(account).ok()?,
        metric: optional_metric(metric)?,
        sequence: sequence.parse().ok()?,
    })
}

/// Reads a metric's place in a cursor, `-` where there is none.
fn optional_metric(text: &str) -> Option<Option<MetricName>> {
    if text == "-" { Some(None) } else { MetricName::new(text).ok().map(Some) }
}

impl TransitionView {
    /// Beside it what became of its message.
    pub(super) fn with(self, deliveries: Vec<DeliveredView>) -> Self {
        Self { deliveries: Some(deliveries), ..self }
    }
}

pub(super) fn transition(state: &Control, row: &TransitionRow) -> TransitionView {
    let incident = incident::begins(row).then(|| incident::id(row));
    let acknowledged = incident.and_then(|id| state.acknowledgement(row.key.tenant, id));
    let evidence = &row.evidence;
    TransitionView {
        object: "alert_transition",
        account_id: row.key.account.to_string(),
        metric: row.key.metric.as_ref().map(ToString::to_string),
        sequence: row.sequence,
        from: row.from.name(),
        to: row.to.name(),
        reason: row.reason.name(),
        at: row.at.to_string(),
        recorded_at: row.recorded_at.to_string(),
        position: row.position.0,
        notification_id: row.notification.map(|id| id.to_string()),
        deliveries: None,
        incident_id: incident.map(|id| id.to_string()),
        acknowledged_at: acknowledged.map(|known| known.at.to_string()),
        acknowledged_by: acknowledged.and_then(|known| known.by).map(|key| key.to_string()),
        value: evidence.value.map(number),
        over: evidence.is_over(),
        value_name: evidence.value_name.clone(),
        limit: evidence.quota.map(|quota| number(quota.limit)),
        used: evidence.quota.map(|quota| number(quota.used)),
        window_start: evidence.window.map(|window| window.start.to_string()),
        window_revision: evidence.window.map(|window| window.revision.0),
        rule: evidence.rule.clone(),
        alert_version: evidence.alert_version,
        inputs: inputs(evidence),
    }
}

pub(super) fn inputs(evidence: &Evidence) -> Vec<InputView> {
    let steps = evidence.trace.0.iter();
    steps.map(|step| InputView { expression: step.expression.clone(), value: step.value.clone() }).collect()
}
