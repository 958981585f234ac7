//! Pages of what the store keeps and an answer may not show: it is read on until a page is full.

use super::problem::Problem;
use crate::domain::control::fold::Control;
use crate::domain::id::{AccountId, Epoch, Tenant};
use crate::domain::limits::{LOOKED_AT_MAX, LOOKED_AT_ONCE};
use crate::domain::partition::effect::TransitionRow;
use crate::domain::time::Timestamp;
use crate::domain::webhook::event::{Content, Event};
use crate::domain::webhook::kind::EventType;
use std::future::Future;

/// Tells whether a transition is of what is there now, and not of an account or a world that was deleted.
pub(super) fn is_present(state: &Control, row: &TransitionRow) -> bool {
    row.epoch >= state.epoch_of(row.key.tenant, &row.key.account)
}

/// Tells the same of something of an account that was recorded with its epoch, or at an instant of the log's clock where it
/// has none.
pub(super) fn is_of_present(
    state: &Control,
    tenant: Tenant,
    account: &AccountId,
    (epoch, at): (Option<Epoch>, Timestamp),
) -> bool {
    match epoch {
        Some(epoch) => epoch >= state.epoch_of(tenant, account),
        None => state.epoch_began(tenant, account).is_none_or(|began| at > began),
    }
}

/// Tells the same of a platform event: one that is of no account is always there.
pub(super) fn is_present_event(state: &Control, event: &Event) -> bool {
    match &event.content {
        Content::Alert { notification, .. } => {
            notification.epoch >= state.epoch_of(event.tenant, &notification.key.account)
        }
        Content::Quota(told) => is_of_present(state, event.tenant, &told.account, (None, event.at)),
        Content::Data(data) if matches!(event.kind, EventType::AccountCreated | EventType::AccountDeleted) => {
            let data = serde_json::from_str::<serde_json::Value>(data).ok();
            let account = data.and_then(|data| AccountId::new(data.get("id")?.as_str()?).ok());
            // The deletion itself is of the epoch that it begins.
            let epoch = Epoch(event.position.0);
            account.is_none_or(|account| epoch >= state.epoch_of(event.tenant, &account))
        }
        Content::Data(_) => true,
    }
}

/// Reads rows until so many of those that fit are there, behind those that are passed over. `next` gives rows behind one, at
/// most as many as it is told.
///
/// # Errors
/// As `next`; 422 where too many would be looked at.
pub(super) async fn read_on<R: Clone, F: Future<Output = Result<Vec<R>, Problem>> + Send>(
    (skip, wanted): (usize, usize),
    next: impl Fn(Option<R>, usize) -> F,
    fits: impl Fn(&R) -> bool,
) -> Result<Vec<R>, Problem> {
    read_by(wanted.max(LOOKED_AT_ONCE), (skip, wanted), next, fits).await
}

/// As [`read_on`], of rows that may be large: no more are read at once than a page has, unless some are passed over.
///
/// # Errors
/// As [`read_on`].
pub(super) async fn read_on_large<R: Clone, F: Future<Output = Result<Vec<R>, Problem>> + Send>(
    (skip, wanted): (usize, usize),
    next: impl Fn(Option<R>, usize) -> F,
    fits: impl Fn(&R) -> bool,
) -> Result<Vec<R>, Problem> {
    let at_once = skip.saturating_add(wanted).min(LOOKED_AT_ONCE);
    read_by(at_once, (skip, wanted), next, fits).await
}

async fn read_by<R: Clone, F: Future<Output = Result<Vec<R>, Problem>> + Send>(
    at_once: usize,
    (mut skip, wanted): (usize, usize),
    next: impl Fn(Option<R>, usize) -> F,
    fits: impl Fn(&R) -> bool,
) -> Result<Vec<R>, Problem> {
    let (mut found, mut looked_at, mut last) = (Vec::new(), 0, None);
    loop {
        let rows = next(last, at_once).await?;
        let is_last = rows.len() < at_once;
        looked_at += rows.len();
        last = rows.last().cloned();
        for row in rows.into_iter().filter(|row| fits(row)) {
            if skip > 0 {
                skip -= 1;
                continue;
            }
            found.push(row);
            if found.len() == wanted {
                return Ok(found);
            }
        }
        if is_last {
            return Ok(found);
        }
        if looked_at >= LOOKED_AT_MAX {
            let detail = format!("more than {LOOKED_AT_MAX} rows would be looked at; narrow the time");
            return Err(Problem::unprocessable("query_too_large", detail).with("limit", LOOKED_AT_MAX));
        }
    }
}
