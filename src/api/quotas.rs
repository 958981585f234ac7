//! Quotas: how much of a metric an account may use in a period.

use super::answer;
use super::app::{App, Caller};
use super::change::submit;
use super::created::{CREATED, Created, CreatedParameters};
use super::docs::Problems;
use super::incoming::Incoming;
use super::input::Query;
use super::page::{PARAMETERS, Page, Paging};
use super::problem::Problem;
use crate::domain::control::command::{AlertWarning, Command};
use crate::domain::control::outcome::Resource;
use crate::domain::control::resource::{QuotaRecord, Scope};
use crate::domain::definition::{Fold, Quota};
use crate::domain::id::{AccountScope, MetricName};
use crate::domain::quantity::{Quantity, exact};
use crate::domain::time::Period;
use axum::extract::{Path, RawQuery, State};
use axum::http::Uri;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A quota.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QuotaView {
    object: &'static str,
    mode: &'static str,
    version: u64,
    /// The account, or `*`: the default of all.
    account_id: String,
    metric: String,
    #[serde(with = "exact")]
    #[schema(value_type = f64)]
    limit: Quantity,
    /// `hour`, `day`, `week` (from Monday) or `month`, in UTC.
    period: &'static str,
    /// `sum`, `max` or `last`.
    aggregate: &'static str,
    /// What is odd about it.
    #[schema(value_type = Vec<Object>)]
    warnings: Vec<AlertWarning>,
    created_at: String,
    updated_at: String,
}

/// A quota to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QuotaPut {
    /// 0 allows nothing: any use is over every threshold.
    #[serde(with = "exact")]
    #[schema(value_type = f64, minimum = 0)]
    limit: Quantity,
    #[schema(value_type = String, pattern = "^(hour|day|week|month)$")]
    period: Period,
    #[serde(default)]
    #[schema(value_type = Option<String>, pattern = "^(sum|max|last)$")]
    aggregate: Fold,
}

fn view(caller: &Caller, record: &QuotaRecord) -> QuotaView {
    QuotaView {
        object: "quota",
        mode: caller.principal.tenant.mode.name(),
        version: record.life.version,
        account_id: record.account.to_string(),
        metric: record.metric.to_string(),
        limit: record.quota.limit,
        period: record.quota.period.name(),
        aggregate: record.quota.aggregate.name(),
        warnings: warnings(&record.quota),
        created_at: record.life.created_at.to_string(),
        updated_at: record.life.updated_at.to_string(),
    }
}

/// What is odd about a quota.
fn warnings(quota: &Quota) -> Vec<AlertWarning> {
    let detail =
        "nothing is allowed: any use is over every threshold of quota_percent, and quota.exceeded is sent for it";
    let zero = AlertWarning { code: "limit_zero".to_owned(), detail: detail.to_owned() };
    if quota.limit == Quantity::ZERO { vec![zero] } else { Vec::new() }
}

fn scope(text: &str) -> Result<AccountScope, Problem> {
    AccountScope::try_from(text.to_owned()).map_err(|_| Problem::not_found("account"))
}

fn metric(text: &str) -> Result<MetricName, Problem> {
    MetricName::new(text).map_err(|_| super::input::parameter("metric", format!("expected {}", MetricName::EXPECTED)))
}

/// Lists the quotas that were set on an account, or on all (`*`).
#[utoipa::path(
    get, path = "/v1/accounts/{account_id}/quotas", tag = "accounts",
    params(("account_id" = String, Path, description = "An account, or * for all"),
           ("page" = Option<usize>, Query), ("page_size" = Option<usize>, Query), ("cursor" = Option<String>, Query),
           CreatedParameters),
    responses((status = 200, body = Page<QuotaView>), Problems), security(("key" = ["read:accounts"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    RawQuery(query): RawQuery,
    Path(account): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadAccounts)?;
    let query = Query::read(query.as_deref(), &[PARAMETERS, CREATED].concat())?;
    let paging = Paging::read(&app, &caller, uri.path(), &query)?;
    let scope = scope(&account)?;
    if let AccountScope::One(account) = &scope {
        super::accounts::find(&app, &caller, account.as_str()).await?;
    }
    let created = Created::read(&query)?;
    let key = |record: &QuotaRecord| created.key(record.life.created_at, record.metric.as_str());
    let items: Vec<QuotaRecord> = {
        let state = app.node.data.control.state();
        let quotas = state.quotas_of(caller.principal.tenant, &scope);
        let (order, all) =
            created.sorted(quotas.filter(|record| created.holds(record.life.created_at)), |record| key(record));
        paging.cut(order, all.into_iter().cloned(), key)
    };
    Ok(paging.answer_as(&app, items, key, |record| view(&caller, record)))
}

/// Sets a quota; makes the account known.
#[utoipa::path(
    put, path = "/v1/accounts/{account_id}/quotas/{metric}", tag = "accounts", request_body = QuotaPut,
    params(("account_id" = String, Path, description = "An account, or * for all"), ("metric" = String, Path)),
    responses((status = 200, body = QuotaView), (status = 201, body = QuotaView), Problems), security(("key" = ["write:accounts"]))
)]
pub(super) async fn put(
    State(app): State<App>,
    caller: Caller,
    Path((account, metric_name)): Path<(String, String)>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteAccounts)?;
    let wanted: QuotaPut = incoming.json()?;
    if wanted.limit.is_negative() {
        return Err(Problem::invalid("/limit", "a limit is zero or more"));
    }
    let quota = Quota { limit: wanted.limit, period: wanted.period, aggregate: wanted.aggregate };
    let command = Command::PutQuota { account: scope(&account)?, metric: metric(&metric_name)?, quota };
    let sent = incoming.sent();
    let changed = submit(&app, &caller, sent, command).await?;
    let Resource::Quota(record) = &changed.resource else { return Ok(answer::gone()) };
    let location = format!("/v1/accounts/{account}/quotas/{metric_name}");
    Ok(answer::changed(&changed, &view(&caller, record), record.life.version, &location))
}

/// Removes a quota.
#[utoipa::path(
    delete, path = "/v1/accounts/{account_id}/quotas/{metric}", tag = "accounts",
    params(("account_id" = String, Path), ("metric" = String, Path)),
    responses((status = 204), Problems), security(("key" = ["write:accounts"]))
)]
pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path((account, metric_name)): Path<(String, String)>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteAccounts)?;
    let command = Command::DeleteQuota { account: scope(&account)?, metric: metric(&metric_name)? };
    let sent = incoming.sent();
    submit(&app, &caller, sent, command).await?;
    Ok(answer::gone())
}
