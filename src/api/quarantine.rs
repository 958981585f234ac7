//! The quarantine: events that were set aside, to be sent in again or given up.

use super::app::{App, Caller};
use super::created::{CREATED, Created, CreatedParameters};
use super::docs::Problems;
use super::events::{behind_reset, not_appended, not_taken};
use super::input::{Query, json};
use super::page::{PARAMETERS, Page, Paging};
use super::problem::Problem;
use super::read_on::{is_of_present, read_on_large};
use super::receipt::{Receipt, store_away};
use crate::domain::control::resource::Scope;
use crate::domain::event::{RefusalCode, UsageEvent, parse_line};
use crate::domain::id::{Log, QuarantineId};
use crate::domain::partition::effect::{QuarantineRow, QuarantineStatus};
use crate::domain::partition::fact::Note;
use crate::domain::time::Timestamp;
use crate::runtime::ingest::{IdSource, Sender};
use crate::store::{Age, QuarantineEntry, QuarantineQuery};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A quarantined event.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QuarantineView {
    id: String,
    object: &'static str,
    mode: &'static str,
    /// `open`, `replayed` or `discarded`.
    status: &'static str,
    code: String,
    detail: String,
    account_id: Option<String>,
    /// The event as it came.
    body: String,
    /// When it was recorded, at first.
    at: String,
    /// How often it came, the first time included.
    count: u64,
    /// When it was recorded last.
    last_at: String,
    /// Stands for the event that was sent in again.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<String>,
}

/// How an event is sent in again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = QuarantineReplay)]
pub(super) struct ReplayBody {
    /// The event, corrected; the kept one where absent.
    #[schema(value_type = Option<Object>)]
    event: Option<Box<serde_json::value::RawValue>>,
    /// Takes an event of any age: it counts and fires nothing.
    accept_late: bool,
}

fn view(caller: &Caller, row: &QuarantineRow, receipt: Option<String>) -> QuarantineView {
    QuarantineView {
        id: row.id.to_string(),
        object: "quarantined_event",
        mode: caller.principal.tenant.mode.name(),
        status: row.status.name(),
        code: row.code.clone(),
        detail: row.detail.clone(),
        account_id: row.account.as_ref().map(ToString::to_string),
        body: row.body.clone(),
        at: row.at.to_string(),
        count: row.repeats.map_or(1, |repeats| repeats.count),
        last_at: row.repeats.map_or(row.at, |repeats| repeats.last_at).to_string(),
        receipt,
    }
}

/// Lists quarantined events, newest first: one entry for each event and what it says, however often it came (of the newest
/// 10,000 of a partition). One that was settled stays settled. Those of an account that was deleted since are gone.
#[utoipa::path(
    get, path = "/v1/quarantine", tag = "quarantine",
    params(("status" = Option<Vec<String>>, Query), ("code" = Option<Vec<String>>, Query),
           ("account_id" = Option<Vec<String>>, Query), ("page" = Option<usize>, Query),
           ("page_size" = Option<usize>, Query), ("cursor" = Option<String>, Query), CreatedParameters),
    responses((status = 200, body = Page<QuarantineView>), Problems), security(("key" = ["read:events"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadEvents)?;
    let query =
        Query::read(query.as_deref(), &[&PARAMETERS[..], &CREATED, &["status", "code", "account_id"]].concat())?;
    let paging = Paging::read(&app, &caller, uri.path(), &query)?;
    let created = Created::read(&query)?;
    let all = [QuarantineStatus::Open, QuarantineStatus::Replayed, QuarantineStatus::Discarded];
    let asked = QuarantineQuery {
        tenant: caller.principal.tenant,
        id: None,
        statuses: query
            .read_all("status", "open, replayed or discarded", |text| all.into_iter().find(|s| s.name() == text))?,
        codes: query.all("code").to_vec(),
        accounts: query.accounts("account_id")?,
        from: created.from,
        to: created.to,
        age: created.age(),
        since: began(&app, &caller),
        after: paging.after_parts(|parts| match parts {
            [at, id] => Some((Timestamp::parse(at)?, id.parse().ok()?)),
            _ => None,
        })?,
        offset: paging.offset(),
        limit: paging.size + 1,
    };
    let hides = app.node.data.control.state().has_epochs(asked.tenant);
    let entries = if hides {
        let next = |last: Option<QuarantineEntry>, limit| {
            let behind = last.map(|entry| (entry.row.at, entry.row.id));
            let query = QuarantineQuery { offset: 0, limit, after: behind.or(asked.after), ..asked.clone() };
            async { app.node.data.store.quarantine(query).await.map_err(store_away) }
        };
        let fits = |entry: &QuarantineEntry| is_there(&app, &entry.row);
        read_on_large((asked.offset, asked.limit), next, fits).await?
    } else {
        app.node.data.store.quarantine(asked).await.map_err(store_away)?
    };
    let items = entries.iter().map(|entry| view(&caller, &entry.row, None)).collect();
    Ok(paging.answer(&app, items, |entry: &QuarantineView| format!("{} {}", entry.at, entry.id)))
}

/// When the caller's world began, where that was with a reset: what was set aside before is gone.
fn began(app: &App, caller: &Caller) -> Option<Timestamp> {
    app.node.data.control.state().sandbox(caller.principal.tenant)?.last_reset_at
}

/// Whether an event is of its account's present epoch.
fn is_there(app: &App, row: &QuarantineRow) -> bool {
    let state = app.node.data.control.state();
    row.account.as_ref().is_none_or(|account| is_of_present(&state, row.tenant, account, (row.epoch, row.at)))
}

async fn find(app: &App, caller: &Caller, id: &str) -> Result<QuarantineEntry, Problem> {
    let id: QuarantineId = id.parse().map_err(|_| Problem::not_found("quarantined event"))?;
    let asked = QuarantineQuery {
        tenant: caller.principal.tenant,
        id: Some(id),
        statuses: Vec::new(),
        codes: Vec::new(),
        accounts: Vec::new(),
        from: None,
        to: None,
        age: Age::default(),
        since: began(app, caller),
        after: None,
        offset: 0,
        limit: 1,
    };
    let found = app.node.data.store.quarantine(asked).await.map_err(store_away)?.into_iter().next();
    let found = found.filter(|entry| is_there(app, &entry.row));
    found.ok_or_else(|| Problem::not_found("quarantined event"))
}

/// Whether an event is known by what one that was counted is known by, and would be set aside for that once more.
fn conflicts_again(row: &QuarantineRow, event: &UsageEvent<'_>) -> bool {
    if row.code != RefusalCode::EventConflict.text() {
        return false;
    }
    let Ok(kept) = parse_line(row.body.as_bytes()) else { return false };
    (&kept.account_id, &kept.source, &kept.id) == (&event.account_id, &event.source, &event.id)
}

fn still_counted(event: &UsageEvent<'_>) -> Problem {
    let id = event.id.as_deref().unwrap_or_default();
    let detail = format!(
        "it conflicts with an event that was counted under the id {id:?}: send it in under another id (`event`), or discard it"
    );
    Problem::new(StatusCode::CONFLICT, "invalid_state", detail)
}

fn settled_already(entry: &QuarantineEntry) -> Problem {
    let detail = format!("the event is {} already", entry.row.status.name());
    Problem::new(StatusCode::CONFLICT, "invalid_state", detail)
}

async fn settle(app: &App, entry: QuarantineEntry, status: QuarantineStatus) -> Result<QuarantineRow, Problem> {
    let row = QuarantineRow { status, ..entry.row };
    let log = Log::Partition(entry.partition);
    let note = Note::QuarantineSettled { row: row.clone() };
    let stamps = app.node.data.journal.append(vec![(log, Bytes::from(note.encode()))]).await.map_err(not_appended)?;
    let receipt = Receipt(stamps.into_iter().map(|stamp| (log, stamp.position)).collect());
    receipt.wait(app).await?;
    Ok(row)
}

/// Sends a quarantined event in again: corrected, or as it is with `accept_late`. An `event_conflict` needs another id, since
/// the event that it conflicts with stays counted: without one it is a 409 `invalid_state`, and the entry stays open. One of
/// an account that was deleted since is not found.
#[utoipa::path(
    post, path = "/v1/quarantine/{id}/replay", tag = "quarantine", params(("id" = String, Path)),
    request_body = Option<ReplayBody>,
    responses((status = 200, body = QuarantineView), Problems), security(("key" = ["write:events"]))
)]
pub(super) async fn replay(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteEvents)?;
    Query::read(query.as_deref(), &[])?;
    let wanted: ReplayBody = if body.is_empty() { ReplayBody::default() } else { json(&headers, &body)? };
    let entry = find(&app, &caller, &id).await?;
    if entry.row.status != QuarantineStatus::Open {
        return Err(settled_already(&entry));
    }
    let bytes = wanted.event.as_ref().map_or(entry.row.body.as_str(), |event| event.get()).to_owned();
    let receipt = {
        // A repeated replay finds the same id, so that it counts once.
        let ids = IdSource::Derived { lineage: "quarantine".to_owned(), key: entry.row.id.to_string() };
        let sender = Sender { tenant: caller.principal.tenant, ids, backfill: wanted.accept_late };
        let prepared = {
            let mut batch = app.node.ingest.batch(&sender);
            let event = parse_line(bytes.as_bytes()).map_err(|refusal| refused(&refusal))?;
            if conflicts_again(&entry.row, &event) {
                return Err(still_counted(&event));
            }
            batch.push(0, bytes.as_bytes(), &event).map_err(|refusal| refused(&refusal))?;
            batch.finish()
        };
        // Its account may have been deleted since it was found, and must not come back by this.
        if !is_there(&app, &entry.row) {
            return Err(Problem::not_found("quarantined event"));
        }
        behind_reset(&app, &caller).await;
        let appended = app.node.ingest.append(prepared).await;
        Receipt(appended.map_err(|error| not_taken(&app, &caller, error))?).to_string()
    };
    let row = settle(&app, entry, QuarantineStatus::Replayed).await?;
    Ok(Json(view(&caller, &row, Some(receipt))).into_response())
}

fn refused(refusal: &crate::domain::event::Refusal) -> Problem {
    let pointer = format!("/event{}", refusal.pointer.as_deref().unwrap_or(""));
    Problem::invalid(&pointer, format!("{}: {}", refusal.code.text(), refusal.detail))
}

/// Gives a quarantined event up.
#[utoipa::path(
    post, path = "/v1/quarantine/{id}/discard", tag = "quarantine", params(("id" = String, Path)),
    responses((status = 200, body = QuarantineView), Problems), security(("key" = ["write:events"]))
)]
pub(super) async fn discard(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.require(Scope::WriteEvents)?;
    Query::read(query.as_deref(), &[])?;
    let entry = find(&app, &caller, &id).await?;
    let row = match entry.row.status {
        QuarantineStatus::Open => settle(&app, entry, QuarantineStatus::Discarded).await?,
        QuarantineStatus::Discarded => entry.row,
        QuarantineStatus::Replayed => return Err(settled_already(&entry)),
    };
    Ok(Json(view(&caller, &row, None)).into_response())
}
