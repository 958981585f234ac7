//! Pages of what the store keeps and an answer may not show: it is read on until a page is full.

use super::problem::Problem;
use crate::domain::control::fold::Control;
use crate::domain::limits::{LOOKED_AT_MAX, LOOKED_AT_ONCE};
use crate::domain::partition::effect::TransitionRow;
use std::future::Future;

/// Tells whether a transition is of what is there now, and not of an account or a world that was deleted.
pub(super) fn is_present(state: &Control, row: &TransitionRow) -> bool {
    row.epoch >= state.epoch_of(row.key.tenant, &row.key.account)
}

/// Reads rows until so many of those that fit are there, behind those that are passed over. `next` gives rows behind one, at
/// most as many as it is told.
///
/// # Errors
/// As `next`; 422 where too many would be looked at.
pub(super) async fn read_on<R: Clone, F: Future<Output = Result<Vec<R>, Problem>> + Send>(
    (mut skip, wanted): (usize, usize),
    next: impl Fn(Option<R>, usize) -> F,
    fits: impl Fn(&R) -> bool,
) -> Result<Vec<R>, Problem> {
    let at_once = wanted.max(LOOKED_AT_ONCE);
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
