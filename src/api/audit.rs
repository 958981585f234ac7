//! The audit log: who did what, and what came of it.

use super::app::{App, Caller};
use super::created::{CREATED, Created, CreatedParameters};
use super::docs::Problems;
use super::grant::escalation;
use super::input::Query;
use super::page::{PARAMETERS, Page, Paging};
use super::problem::Problem;
use crate::domain::control::audit::AuditRecord;
use crate::domain::control::audit_line::hex;
use crate::domain::control::resource::Scope;
use crate::store::Age;
use axum::extract::{RawQuery, State};
use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// One thing that somebody did, or was refused for the state of things.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuditView {
    id: String,
    object: &'static str,
    mode: &'static str,
    /// The key, `command_line`, or `unknown` where a credential did not work.
    actor: String,
    /// For example `alert.update`.
    action: String,
    target_type: &'static str,
    /// The id of what it was done to; of a quota `<account>/<metric>`.
    target: String,
    request_id: String,
    /// Null for the command line.
    ip: Option<String>,
    /// `accepted` or `refused`.
    outcome: &'static str,
    /// Why it was refused.
    code: Option<String>,
    /// SHA-256 of the target before; null where there was none.
    before: Option<String>,
    /// SHA-256 of the target behind it; null where there is none.
    after: Option<String>,
    /// The hash of the entry before it; null on what was noted before entries were chained.
    previous_hash: Option<String>,
    /// SHA-256 of the entry's line (`format=ndjson`) without its last member, this hash.
    hash: Option<String>,
    at: String,
}

/// Lists what people did with this workspace in this mode, newest first: every change that was accepted, and every one
/// that was refused for the state of things. The newest 10,000 are kept. Besides, once for each address (`oauth_token.issue`: for each
/// client), reason and hour: `secret.read`, `credential.escalate`, `oauth_token.issue`, and `credential.present` where it did not work.
///
/// With `format=ndjson` all entries that fit are in one answer, oldest first, each with the hash of the one before it.
#[utoipa::path(
    get, path = "/v1/audit-log", tag = "audit",
    params(("actor" = Option<Vec<String>>, Query), ("action" = Option<Vec<String>>, Query),
           ("target" = Option<Vec<String>>, Query),
           ("from" = Option<String>, Query, description = "Inclusive"), ("to" = Option<String>, Query, description = "Exclusive"),
           ("format" = Option<String>, Query, description = "json (default) or ndjson: one entry a line, oldest first, no pages"),
           ("page" = Option<usize>, Query), ("page_size" = Option<usize>, Query), ("cursor" = Option<String>, Query),
           CreatedParameters),
    responses((status = 200, content((Page<AuditView> = "application/json"), (String = "application/x-ndjson"))), Problems), security(("key" = ["read:audit"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    caller.require(Scope::ReadAudit)?;
    if !caller.principal.projects.is_empty() {
        return Err(escalation("the audit log is of the whole workspace; this credential is narrowed to projects"));
    }
    let known = [&PARAMETERS[..], &CREATED, &["actor", "action", "target", "from", "to", "format"]].concat();
    let query = Query::read(query.as_deref(), &known)?;
    let as_lines = query.read_as("format", "json or ndjson", |text| match text {
        "json" => Some(false),
        "ndjson" => Some(true),
        _ => None,
    })?;
    let paging = Paging::read(&app, &caller, uri.path(), &query)?;
    let created = Created::read(&query)?;
    let (from, to) = created.span(&query)?;
    let among = |name: &str, text: &dyn Fn() -> String| {
        let wanted = query.all(name);
        wanted.is_empty() || wanted.contains(&text())
    };
    let fits = |record: &&AuditRecord| {
        from.is_none_or(|from| record.at >= from)
            && to.is_none_or(|to| record.at < to)
            && among("actor", &|| record.actor_text())
            && among("action", &|| record.action.to_string())
            && among("target", &|| record.target.id())
    };
    if as_lines == Some(true) {
        let records: Vec<AuditRecord> =
            app.node.data.control.state().audit(caller.principal.tenant).filter(fits).cloned().collect();
        let lines: String = records.iter().map(|record| record.line(caller.principal.tenant.mode) + "\n").collect();
        return Ok(([(CONTENT_TYPE, "application/x-ndjson")], lines).into_response());
    }
    let state = app.node.data.control.state();
    let (all, key) = (state.audit(caller.principal.tenant), |record: &&AuditRecord| record.id.to_string());
    let items = match created.age() {
        Age::Falling => paging.cut(created.order(), all.rev().filter(fits), key),
        Age::Rising => paging.cut(created.order(), all.filter(fits), key),
    };
    let items = items.into_iter().map(|record| view(&caller, record)).collect();
    drop(state);
    Ok(paging.answer(&app, items, |entry: &AuditView| entry.id.clone()))
}

fn view(caller: &Caller, record: &AuditRecord) -> AuditView {
    AuditView {
        id: record.id.to_string(),
        object: "audit_entry",
        mode: caller.principal.tenant.mode.name(),
        actor: record.actor_text(),
        action: record.action.to_string(),
        target_type: record.target.kind(),
        target: record.target.id(),
        request_id: record.request_id.clone(),
        ip: record.ip.map(|ip| ip.to_string()),
        outcome: record.outcome_text(),
        code: record.refused.as_ref().map(ToString::to_string),
        before: record.before.as_ref().map(hex),
        after: record.after.as_ref().map(hex),
        previous_hash: record.link.map(|link| hex(&link.previous)),
        hash: record.link.map(|link| hex(&link.hash)),
        at: record.at.to_string(),
    }
}
