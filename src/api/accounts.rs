//! Accounts: those that people set something on, and those that were only seen in events.

use super::answer;
use super::app::{App, Caller};
use super::change::{repeated, submit};
use super::created::{CREATED, Created, CreatedParameters};
use super::docs::Problems;
use super::incoming::Incoming;
use super::input::{Query, nullable};
use super::page::{PARAMETERS, Page, Paging};
use super::problem::Problem;
use super::receipt::store_away;
use super::text;
use crate::domain::control::command::{AccountPatch, Command};
use crate::domain::control::fold::Control;
use crate::domain::control::outcome::Resource;
use crate::domain::control::resource::{Account, Scope};
use crate::domain::id::{AccountId, Epoch};
use crate::domain::partition::effect::AccountRow;
use crate::domain::time::Timestamp;
use crate::store::{AccountQuery, Age};
use axum::extract::{Path, RawQuery, State};
use axum::http::Uri;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// An account.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AccountView {
    /// The caller's own name for it.
    id: String,
    object: &'static str,
    mode: &'static str,
    /// 0 while nothing was set on it.
    version: u64,
    name: Option<String>,
    metadata: BTreeMap<String, String>,
    created_at: String,
    updated_at: String,
}

/// An account to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AccountCreate {
    id: String,
    name: Option<String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// Changes of an account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AccountUpdate {
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    name: Option<Option<String>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<BTreeMap<String, Option<String>>>)]
    metadata: Option<Option<BTreeMap<String, Option<String>>>>,
}

fn view(caller: &Caller, account: &Account) -> AccountView {
    AccountView {
        id: account.id.to_string(),
        object: "account",
        mode: caller.principal.tenant.mode.name(),
        version: account.life.version,
        name: account.name.clone(),
        metadata: account.metadata.clone(),
        created_at: account.life.created_at.to_string(),
        updated_at: account.life.updated_at.to_string(),
    }
}

fn seen(caller: &Caller, account: &AccountId, at: Timestamp) -> AccountView {
    AccountView {
        id: account.to_string(),
        object: "account",
        mode: caller.principal.tenant.mode.name(),
        version: 0,
        name: None,
        metadata: BTreeMap::new(),
        created_at: at.to_string(),
        updated_at: at.to_string(),
    }
}

/// Finds an account by either way that it may exist.
///
/// # Errors
/// 404 where it exists by neither, 503 where that cannot be told.
pub(super) async fn find(app: &App, caller: &Caller, id: &str) -> Result<(AccountId, AccountView), Problem> {
    let account = AccountId::new(id).map_err(|_| Problem::not_found("account"))?;
    let tenant = caller.principal.tenant;
    let (known, epoch) = {
        let state = app.node.data.control.state();
        (state.account(tenant, &account).map(|account| view(caller, account)), state.epoch_of(tenant, &account))
    };
    if let Some(known) = known {
        return Ok((account, known));
    }
    let row = app.node.data.store.account(tenant, epoch, account.clone()).await.map_err(store_away)?;
    match row {
        Some(row) => {
            let shown = seen(caller, &account, row.first_seen_at);
            Ok((account, shown))
        }
        None => Err(caller.missing(app, "account", |state, tenant| state.account(tenant, &account).is_some())),
    }
}

/// Lists accounts by name, or by age with `sort`.
#[utoipa::path(
    get, path = "/v1/accounts", tag = "accounts",
    params(("page" = Option<usize>, Query), ("page_size" = Option<usize>, Query), ("cursor" = Option<String>, Query),
           ("q" = Option<String>, Query, description = "Begins with"), CreatedParameters),
    responses((status = 200, body = Page<AccountView>), Problems), security(("key" = ["read:accounts"]))
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
    let wanted = Wanted {
        created: Created::read(&query)?,
        prefix: query.one("q")?.unwrap_or("").to_owned(),
        skip: paging.offset(),
        count: paging.size + 1,
    };
    let items = match wanted.created.sort {
        None => by_name(&app, &caller, &paging, &wanted).await?,
        Some(_) => by_age(&app, &caller, &paging, &wanted).await?,
    };
    let sorted = wanted.created.sort.is_some();
    let key = |view: &AccountView| if sorted { format!("{} {}", view.created_at, view.id) } else { view.id.clone() };
    Ok(paging.answer(&app, items, key))
}

/// What of a list is asked for.
struct Wanted {
    created: Created,
    prefix: String,
    skip: usize,
    count: usize,
}

impl Wanted {
    fn fits(&self, account: &AccountId, created_at: Timestamp) -> bool {
        account.as_str().starts_with(&self.prefix) && self.created.holds(created_at)
    }

    fn is_known(&self, account: &Account) -> bool {
        self.fits(&account.id, account.life.created_at)
    }

    /// Whether an account is there for its events alone, in its present epoch.
    fn is_seen(&self, state: &Control, row: &AccountRow) -> bool {
        state.account(row.tenant, &row.account).is_none()
            && row.epoch >= state.epoch_of(row.tenant, &row.account)
            && self.fits(&row.account, row.first_seen_at)
    }
}

async fn by_name(app: &App, caller: &Caller, paging: &Paging, wanted: &Wanted) -> Result<Vec<AccountView>, Problem> {
    let tenant = caller.principal.tenant;
    let after = paging.after.as_deref().and_then(|after| AccountId::new(after).ok());
    let most = wanted.skip + wanted.count;
    let mut views: BTreeMap<AccountId, AccountView> = BTreeMap::new();
    {
        let state = app.node.data.control.state();
        let known = state.accounts(tenant, after.as_ref()).filter(|account| wanted.is_known(account));
        views.extend(known.take(most).map(|account| (account.id.clone(), view(caller, account))));
    }
    // An account has a row for each of its epochs; the caller's place is behind all of them.
    let mut from = after.map(|account| (account, Epoch::LAST));
    let mut found = 0;
    // Rows that are passed over make more than one read needed.
    while found < most {
        let rows = app.node.data.store.accounts(tenant, from.clone(), most.max(100)).await.map_err(store_away)?;
        let Some(last) = rows.last().map(|row| (row.account.clone(), row.epoch)) else { break };
        let state = app.node.data.control.state();
        for row in rows.iter().filter(|row| wanted.is_seen(&state, row)) {
            found += 1;
            views.entry(row.account.clone()).or_insert_with(|| seen(caller, &row.account, row.first_seen_at));
        }
        from = Some(last);
    }
    Ok(views.into_values().skip(wanted.skip).take(wanted.count).collect())
}

async fn by_age(app: &App, caller: &Caller, paging: &Paging, wanted: &Wanted) -> Result<Vec<AccountView>, Problem> {
    let tenant = caller.principal.tenant;
    let age = wanted.created.age();
    let after = paging.after_parts(|parts| match parts {
        [at, account] => Some((Timestamp::parse(at)?, AccountId::new(account).ok()?)),
        _ => None,
    })?;
    let most = wanted.skip + wanted.count;
    let behind = |place: &(Timestamp, AccountId)| match (&after, age) {
        (None, _) => true,
        (Some(after), Age::Rising) => place > after,
        (Some(after), Age::Falling) => place < after,
    };
    let mut views: BTreeMap<(Timestamp, AccountId), AccountView> = BTreeMap::new();
    {
        let state = app.node.data.control.state();
        let known = state.accounts(tenant, None).filter(|account| wanted.is_known(account));
        let mut places: Vec<_> = known.map(|account| (account.life.created_at, account.id.clone())).collect();
        places.retain(behind);
        places.sort_unstable();
        if age == Age::Falling {
            places.reverse();
        }
        for place in places.into_iter().take(most) {
            if let Some(account) = state.account(tenant, &place.1) {
                views.insert(place, view(caller, account));
            }
        }
    }
    let Created { from, to, .. } = wanted.created;
    let behind_all = match age {
        Age::Rising => Epoch::LAST,
        Age::Falling => Epoch(0),
    };
    let place = after.clone().map(|(at, account)| (at, account, behind_all));
    let mut query = AccountQuery { tenant, from, to, age, after: place, limit: most.max(100) };
    let mut found = 0;
    while found < most {
        let rows = app.node.data.store.accounts_by_age(query.clone()).await.map_err(store_away)?;
        let Some(last) = rows.last() else { break };
        query.after = Some((last.first_seen_at, last.account.clone(), last.epoch));
        let state = app.node.data.control.state();
        for row in rows.iter().filter(|row| wanted.is_seen(&state, row)) {
            found += 1;
            let place = (row.first_seen_at, row.account.clone());
            views.insert(place, seen(caller, &row.account, row.first_seen_at));
        }
    }
    let all = views.into_values();
    Ok(match age {
        Age::Rising => all.skip(wanted.skip).take(wanted.count).collect(),
        Age::Falling => all.rev().skip(wanted.skip).take(wanted.count).collect(),
    })
}

/// Creates an account.
#[utoipa::path(
    post, path = "/v1/accounts", tag = "accounts", request_body = AccountCreate,
    responses((status = 201, body = AccountView), Problems), security(("key" = ["write:accounts"]))
)]
pub(super) async fn create(State(app): State<App>, caller: Caller, incoming: Incoming) -> Result<Response, Problem> {
    caller.require(Scope::WriteAccounts)?;
    let wanted: AccountCreate = incoming.json()?;
    let account =
        AccountId::new(&wanted.id).map_err(|_| Problem::invalid("/id", format!("expected {}", AccountId::EXPECTED)))?;
    let name = wanted.name.map(|name| text::name("/name", name)).transpose()?;
    let command = Command::CreateAccount { account, name, metadata: text::map("/metadata", wanted.metadata)? };
    let sent = incoming.sent();
    let changed = submit(&app, &caller, sent, command).await?;
    answered(&caller, &changed)
}

/// Shows an account.
#[utoipa::path(
    get, path = "/v1/accounts/{account_id}", tag = "accounts", params(("account_id" = String, Path)),
    responses((status = 200, body = AccountView), Problems), security(("key" = ["read:accounts"]))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadAccounts)?;
    Query::read(query.as_deref(), &[])?;
    let (_, view) = find(&app, &caller, &id).await?;
    Ok(answer::show(&caller, &view, &answer::etag(view.version)))
}

/// Changes an account (JSON Merge Patch, RFC 7396).
#[utoipa::path(
    patch, path = "/v1/accounts/{account_id}", tag = "accounts", params(("account_id" = String, Path)),
    request_body = AccountUpdate, responses((status = 200, body = AccountView), Problems), security(("key" = ["write:accounts"]))
)]
pub(super) async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteAccounts)?;
    let wanted: AccountUpdate = incoming.json()?;
    let sent = incoming.sent();
    if let Some(changed) = repeated(&app, &caller, sent)? {
        return answered(&caller, &changed);
    }
    let (account, _) = find(&app, &caller, &id).await?;
    let name = match wanted.name {
        Some(Some(name)) => Some(Some(text::name("/name", name)?)),
        other => other,
    };
    let metadata = text::map_patch("/metadata", wanted.metadata)?;
    let command = Command::UpdateAccount { account, patch: AccountPatch { name, metadata } };
    let changed = submit(&app, &caller, sent, command).await?;
    answered(&caller, &changed)
}

/// Deletes an account with its quotas and usage. Alerts on it stay.
///
/// At once no answer has anything of it any more: usage, history, incidents, deliveries, quarantine and stream begin anew
/// where it comes back, and what was quarantined cannot be sent in again. Its rows are removed from the store when the
/// deletion is folded. What remains: its events in the journal for as long as that keeps its records (for ever, unless
/// `retention.ms` of the Kafka topic says otherwise), so in backups of it too; the platform events that name it, with their
/// bodies, since deliveries that are under way are sent from them, and the deliveries to endpoints (in SQLite for ever, in
/// ClickHouse for as long as `--retention deliveries=` says); the deliveries to channels, without the account's name; and
/// entries of the audit log that name it.
#[utoipa::path(
    delete, path = "/v1/accounts/{account_id}", tag = "accounts", params(("account_id" = String, Path)),
    responses((status = 204), Problems), security(("key" = ["write:accounts"]))
)]
pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteAccounts)?;
    let (account, _) = find(&app, &caller, &id).await?;
    let sent = incoming.sent();
    submit(&app, &caller, sent, Command::DeleteAccount { account }).await?;
    Ok(answer::gone())
}

fn answered(caller: &Caller, changed: &super::change::Changed) -> Result<Response, Problem> {
    let Resource::Account(account) = &changed.resource else { return Ok(answer::gone()) };
    let location = format!("/v1/accounts/{}", account.id);
    Ok(answer::changed(changed, &view(caller, account), account.life.version, &location))
}
