//! What an alert would have done, and why one stands as it does: the engine itself, fed with the windows of the store.

use super::alert_input::{compile, recovery};
use super::alert_rows::{TransitionView, transition};
use super::alert_warnings::{rounded_spans, warnings};
use super::app::{App, Caller};
use super::delivered::outcomes;
use super::docs::Problems;
use super::incoming::Incoming;
use super::input::{Query, parameter};
use super::problem::Problem;
use super::receipt::store_away;
use super::usage::number;
use super::usage_totals::bounded;
use super::{accounts, alerts, text};
use crate::domain::control::command::AlertWarning;
use crate::domain::control::resource::Scope;
use crate::domain::definition::{AlertDefinition, InconclusivePolicy, NoDataPolicy, Quota, Severity};
use crate::domain::id::{AccountId, AccountScope, AlertId, Log, MetricName};
use crate::domain::limits::{PREVIEW_EVALUATIONS_MAX, PREVIEW_SPAN, REPEAT_INTERVAL};
use crate::domain::partition::effect::{State as AlertState, TransitionRow};
use crate::domain::partition::rehearsal::{PastWindow, Rehearsed, Script, Standing, appraise, rehearse};
use crate::domain::rule::{GRAMMAR, RuleProgram, Verdict};
use crate::domain::time::{Millis, Period, Timestamp, WINDOW};
use crate::store::{Age, InstanceQuery, TransitionQuery, WindowQuery};
use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// A rule, and the past that it is tried on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PreviewAsked {
    #[schema(max_length = 512)]
    rule: String,
    account_id: String,
    /// Moved back to a window's start; at most 31 days before `to`.
    from: String,
    /// Moved on to a window's end.
    to: String,
    /// `5m`: the engine looks at every window, and so does the preview.
    #[schema(pattern = "^5m$")]
    step: Option<String>,
    metric: Option<String>,
    r#for: Option<String>,
    keep_firing_for: Option<String>,
    recover: Option<String>,
    /// As the alert would have it; `ok` where it is left out.
    #[schema(value_type = Option<String>, pattern = "^(ok|alert|keep)$")]
    no_data: Option<NoDataPolicy>,
    /// As the alert would have it; `keep` where it is left out.
    #[schema(value_type = Option<String>, pattern = "^(keep|ok)$")]
    inconclusive: Option<InconclusivePolicy>,
}

/// What a rule would have done. Events are seen a window at a time, and quotas as they are set at present.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PreviewView {
    would_fire: Vec<WouldFire>,
    evaluations: u64,
    /// When the condition first held, `for` apart.
    first_match: Option<String>,
    rule_normalized: String,
    #[schema(value_type = Object)]
    rule_ast: crate::domain::rule::Ast,
    #[schema(value_type = Vec<Object>)]
    warnings: Vec<AlertWarning>,
}

/// One firing that would have been.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WouldFire {
    metric: Option<String>,
    from: String,
    /// Null where it would last.
    to: Option<String>,
    /// The most extreme value of the rule's first input.
    #[schema(value_type = Option<f64>)]
    peak: Option<Box<RawValue>>,
    /// Whether it was greater than every number, and null therefore: something was used of a limit of zero.
    over: bool,
}

/// Why an instance stands as it does.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExplanationView {
    object: &'static str,
    alert_id: String,
    account_id: String,
    metric: Option<String>,
    at: String,
    state: &'static str,
    /// The log whose records the positions name.
    log: String,
    /// What decided the state, as it was stored: the transition that led to it, with the window and the values of that
    /// moment. Reminders and corrections, which change no state, stand in the history. Null where nothing has happened yet.
    transition: Option<TransitionView>,
    /// Beside it the rule as it evaluates at `at`, on what is counted up to then, with the present rule and quotas: on
    /// the newest closed window, or on an open one that proves it true already. It may say otherwise than what decided.
    evaluation: Option<EvaluationView>,
}

/// A rule's value with all that it rests on.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EvaluationView {
    /// `true`, `false`, `no_data` or `inconclusive`.
    verdict: &'static str,
    rule: String,
    value_name: Option<String>,
    #[schema(value_type = Option<f64>)]
    value: Option<Box<RawValue>>,
    /// Whether the value is greater than every number, and null therefore: something is used of a limit of zero.
    over: bool,
    #[schema(value_type = Option<f64>)]
    limit: Option<Box<RawValue>>,
    #[schema(value_type = Option<f64>)]
    used: Option<Box<RawValue>>,
    window_start: Option<String>,
    /// Whether that window has closed; null where the rule reads none.
    window_closed: Option<bool>,
    /// Every sub-expression with its value.
    inputs: Vec<super::alert_rows::InputView>,
}

fn instant(pointer: &str, text: &str) -> Result<Timestamp, Problem> {
    let wrong = || Problem::invalid(pointer, "expected an RFC 3339 time such as 2026-11-24T08:00:00Z");
    Timestamp::parse(text).ok_or_else(wrong)
}

/// Tries a rule on the past. Nothing is kept of it.
#[utoipa::path(
    post, path = "/v1/alerts/preview", tag = "alerts", request_body = PreviewAsked,
    responses((status = 200, body = PreviewView),
              (status = 504, body = super::problem::ProblemBody, content_type = "application/problem+json",
               description = "It took too long; narrow the range."), Problems),
    security(("key" = ["read:alerts"]))
)]
pub(super) async fn preview(State(app): State<App>, caller: Caller, incoming: Incoming) -> Result<Response, Problem> {
    caller.require(Scope::ReadAlerts)?;
    Query::read(incoming.query(), &[])?;
    let asked: PreviewAsked = incoming.json()?;
    let program = compile("/rule", &asked.rule)?;
    let (from, to) = (instant("/from", &asked.from)?.window_start(WINDOW), instant("/to", &asked.to)?.round_up(WINDOW));
    if from >= to {
        return Err(Problem::invalid("/from", "it must be before to"));
    }
    if asked.step.as_deref().is_some_and(|step| step != "5m") {
        return Err(Problem::invalid("/step", "expected 5m: the engine looks at every window"));
    }
    if to.since(from) > PREVIEW_SPAN {
        return Err(too_large(format!("at most {PREVIEW_SPAN} are previewed")));
    }
    let account = AccountId::new(&asked.account_id)
        .map_err(|_| Problem::invalid("/account_id", format!("expected {}", AccountId::EXPECTED)))?;
    let metric = asked.metric.as_deref().map(MetricName::new).transpose();
    let metric = metric.map_err(|_| Problem::invalid("/metric", format!("expected {}", MetricName::EXPECTED)))?;
    let span = |pointer: &str, text: &Option<String>| {
        text.as_deref().map(|text| text::duration(pointer, text)).transpose().map(Option::unwrap_or_default)
    };
    let (account, _) = accounts::find(&app, &caller, account.as_str()).await?;
    let definition = AlertDefinition {
        hold: span("/for", &asked.r#for)?,
        keep_firing_for: span("/keep_firing_for", &asked.keep_firing_for)?,
        recover: asked.recover.map(recovery).transpose()?,
        no_data: asked.no_data.unwrap_or(NoDataPolicy::Ok),
        inconclusive: asked.inconclusive.unwrap_or(InconclusivePolicy::Keep),
        ..bare(account.clone(), metric, &asked.rule)
    };
    let scope = AccountScope::One(account.clone());
    let mut warnings = warnings(&app, &caller, &program, (&scope, definition.metric.as_ref())).await;
    warnings.extend(rounded_spans(&definition.rule, (definition.hold, definition.keep_firing_for)));
    let past = Past::read(&app, &caller, (&account, &definition), (from, to), to.since(from).0 / WINDOW.0).await?;
    let now = caller.now();
    let rehearsed: Rehearsed = work(&app, move || rehearse(past.script(&definition, from), to, now)).await?;
    let would_fire = rehearsed.episodes.into_iter().map(|episode| WouldFire {
        metric: episode.metric.map(|metric| metric.to_string()),
        from: episode.from.to_string(),
        to: episode.to.map(|to| to.to_string()),
        peak: episode.peak.filter(|_| !episode.over).map(number),
        over: episode.over,
    });
    let view = PreviewView {
        would_fire: would_fire.collect(),
        evaluations: rehearsed.evaluations,
        first_match: rehearsed.first_match.map(|at| at.to_string()),
        rule_normalized: program.normalized().to_owned(),
        rule_ast: program.ast(),
        warnings,
    };
    Ok(Json(view).into_response())
}

fn too_large(detail: String) -> Problem {
    Problem::unprocessable("query_too_large", detail).with("limit", PREVIEW_EVALUATIONS_MAX)
}

fn bare(account: AccountId, metric: Option<MetricName>, rule: &str) -> AlertDefinition {
    AlertDefinition {
        id: AlertId(1),
        version: 1,
        account: AccountScope::One(account),
        metric,
        rule: rule.to_owned(),
        recover: None,
        grammar: GRAMMAR,
        hold: Millis::ZERO,
        keep_firing_for: Millis::ZERO,
        repeat_interval: REPEAT_INTERVAL,
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

/// Works on a thread of its own, a few at a time, for as long as a query may take.
async fn work<T: Send + 'static>(app: &App, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let working = async { tokio::task::spawn_blocking(work).await.map_err(|error| Problem::internal(&error)) };
    bounded(&app.queries, app.query_timeout, working).await
}

/// What the engine is fed with.
struct Past {
    quotas: Vec<(MetricName, Quota)>,
    windows: Vec<PastWindow>,
    grace: Millis,
}

impl Past {
    /// Reads what an alert on one account looks at in `[from, to)`, and what its levels hold before.
    async fn read(
        app: &App,
        caller: &Caller,
        (account, definition): (&AccountId, &AlertDefinition),
        (from, to): (Timestamp, Timestamp),
        evaluations: i64,
    ) -> Result<Self, Problem> {
        let tenant = caller.principal.tenant;
        let programs: Vec<RuleProgram> = std::iter::once(&definition.rule)
            .chain(&definition.recover)
            .filter_map(|source| RuleProgram::compile(source).ok())
            .collect();
        let (epoch, quotas, grace) = {
            let state = app.node.data.control.state();
            (state.epoch_of(tenant, account), state.effective_quotas(tenant, account), state.settings().grace)
        };
        let inputs = || programs.iter().flat_map(|program| program.inputs());
        let mut metrics: BTreeSet<MetricName> = inputs().filter_map(|input| input.metric.clone()).collect();
        let mut instances = 1;
        if inputs().any(|input| input.metric.is_none()) {
            let own: BTreeSet<MetricName> = match &definition.metric {
                Some(metric) => [metric.clone()].into(),
                None => {
                    let known = app.node.data.store.metrics_of(tenant, epoch, account.clone()).await;
                    known.map_err(store_away)?.into_iter().collect()
                }
            };
            instances = own.len().max(1);
            metrics.extend(own);
        }
        if evaluations.saturating_mul(instances as i64) > PREVIEW_EVALUATIONS_MAX as i64 {
            let detail =
                format!("{evaluations} windows of {instances} metrics; take a shorter time or name the metric");
            return Err(too_large(detail));
        }
        let reads_quota = programs.iter().any(RuleProgram::reads_quota);
        let periods = quotas.iter().filter(|(metric, _)| metrics.contains(metric)).map(|(_, quota)| quota.period);
        let begin = |period: Period| period.bounds(from).0;
        let first =
            periods.filter(|_| reads_quota).map(begin).min().unwrap_or(from).min(from.minus(WINDOW.plus(WINDOW)));
        let mut windows = Vec::new();
        for metric in metrics {
            let query = WindowQuery {
                tenant,
                epoch,
                account: account.clone(),
                metric: Some(metric),
                from: first.window_start(WINDOW),
                to,
                width: WINDOW,
                groups: false,
            };
            let points = app.node.data.store.windows(query).await.map_err(store_away)?;
            windows.extend(points.into_iter().map(|point| PastWindow {
                metric: point.metric,
                start: point.start,
                aggregate: point.aggregate,
            }));
        }
        windows.sort_by(|a, b| (a.start, &a.metric).cmp(&(b.start, &b.metric)));
        Ok(Self { quotas, windows, grace })
    }

    fn script<'a>(&'a self, definition: &'a AlertDefinition, from: Timestamp) -> Script<'a> {
        Script { definition, quotas: &self.quotas, grace: self.grace, windows: &self.windows, from }
    }
}

/// Explains why an alert stands as it does on an account, or stood at a time: what decided its state, and how its rule
/// evaluates.
#[utoipa::path(
    get, path = "/v1/alerts/{id}/explain", tag = "alerts",
    params(("id" = String, Path), ("account_id" = String, Query), ("metric" = Option<String>, Query),
           ("at" = Option<String>, Query, description = "Now where absent")),
    responses((status = 200, body = ExplanationView), Problems), security(("key" = ["read:alerts"]))
)]
pub(super) async fn explain(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadAlerts)?;
    let query = Query::read(query.as_deref(), &["account_id", "metric", "at"])?;
    // An alert that is none is told first: what its explanation would need is nobody's concern.
    let definition = alerts::find(&app, &caller, &id)?.definition;
    let account = query.read_as("account_id", AccountId::EXPECTED, |text| AccountId::new(text).ok())?;
    let account = account.ok_or_else(|| parameter("account_id", "name the account"))?;
    let at = query.instant("at")?.unwrap_or_else(|| caller.now());
    let named = query.metric("metric")?;
    if !definition.account.covers(&account) {
        return Err(parameter("account_id", format!("the alert is on {} alone", definition.account)));
    }
    let (account, _) = accounts::find(&app, &caller, account.as_str()).await?;
    let metric = instance(&app, &caller, (&definition, &account), named).await?;
    let asked = TransitionQuery {
        tenant: caller.principal.tenant,
        alert: definition.id,
        accounts: vec![account.clone()],
        metric: Some(metric.clone()),
        changes_only: true,
        from: None,
        to: Some(at.plus(Millis(1))),
        age: Age::Falling,
        after: None,
        offset: 0,
        limit: 1,
    };
    let decided = app.node.data.store.transitions(asked).await.map_err(store_away)?.into_iter().next();
    let local = AlertDefinition { account: AccountScope::One(account.clone()), pause: None, ..definition.clone() };
    // Events may lie 5 minutes ahead, and an open window of theirs may have fired.
    let to = at.round_up(WINDOW).plus(WINDOW).plus(WINDOW);
    let past = Past::read(&app, &caller, (&account, &local), (at, to), 0).await?;
    let standings = work(&app, move || appraise(past.script(&local, at), at)).await?;
    let standing = standings.into_iter().find(|standing| standing.metric == metric);
    let sent = decided.as_ref().and_then(|row| row.notification);
    let deliveries = outcomes(&app, &caller, sent.into_iter().collect()).await?.into_values().flatten().collect();
    let decided_by = |row: &TransitionRow| transition(&app.node.data.control.state(), row).with(deliveries);
    let view = ExplanationView {
        object: "alert_explanation",
        alert_id: definition.id.to_string(),
        account_id: account.to_string(),
        metric: metric.map(|metric| metric.to_string()),
        at: at.to_string(),
        state: decided.as_ref().map_or(AlertState::Ok, |row| row.to).name(),
        log: Log::Partition(app.partition(&caller, &account)).to_string(),
        transition: decided.as_ref().map(decided_by),
        evaluation: standing.map(evaluation),
    };
    Ok(Json(view).into_response())
}

/// Which of an alert's instances on an account is meant.
async fn instance(
    app: &App,
    caller: &Caller,
    (definition, account): (&AlertDefinition, &AccountId),
    named: Option<MetricName>,
) -> Result<Option<MetricName>, Problem> {
    let asked = InstanceQuery {
        tenant: caller.principal.tenant,
        alert: definition.id,
        states: Vec::new(),
        accounts: vec![account.clone()],
        after: None,
        offset: 0,
        limit: 100,
    };
    let rows = app.node.data.store.instances(asked).await.map_err(store_away)?;
    let metrics: Vec<Option<MetricName>> = rows.into_iter().map(|row| row.key.metric).collect();
    match (named, metrics.as_slice()) {
        (Some(named), all) if all.contains(&Some(named.clone())) => Ok(Some(named)),
        (Some(_), _) => Err(Problem::not_found("instance of the alert on this account and metric")),
        (None, [only]) => Ok(only.clone()),
        (None, []) => Err(Problem::not_found("instance of the alert on this account")),
        (None, several) => {
            let names: Vec<&str> = several.iter().flatten().map(MetricName::as_str).take(20).collect();
            Err(parameter("metric", format!("name one of {}", names.join(", "))))
        }
    }
}

fn evaluation(standing: Standing) -> EvaluationView {
    let evidence = standing.evidence;
    EvaluationView {
        verdict: match standing.verdict {
            Verdict::True => "true",
            Verdict::False => "false",
            Verdict::NoData => "no_data",
            Verdict::Inconclusive => "inconclusive",
        },
        rule: evidence.rule.clone(),
        value_name: evidence.value_name.clone(),
        value: evidence.value.map(number),
        over: evidence.is_over(),
        limit: evidence.quota.map(|quota| number(quota.limit)),
        used: evidence.quota.map(|quota| number(quota.used)),
        window_start: evidence.window.map(|window| window.start.to_string()),
        window_closed: evidence.window.map(|window| window.closed),
        inputs: super::alert_rows::inputs(&evidence),
    }
}
