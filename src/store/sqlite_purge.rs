//! Removing what accounts had in epochs that are over.

use super::value::{mode, workspace};
use crate::domain::partition::effect::Purge;
use rusqlite::{Transaction, params};

pub(super) fn purge(transaction: &Transaction<'_>, purge: &Purge) -> rusqlite::Result<()> {
    // The one epoch that there mostly is leads to the index of the series.
    let is_one = purge.from == purge.through;
    let epochs = if is_one { "= ?4" } else { "BETWEEN ?4 AND ?5" };
    let of_account = "workspace = ?1 AND mode = ?2 AND account = ?3 AND ?4 <= ?5";
    let series = format!("SELECT id FROM series WHERE {of_account} AND epoch {epochs}");
    let in_body = format!("json_extract(body, '$.epoch') {epochs}");
    let transitions = format!("alert_transitions WHERE {of_account} AND {in_body}");
    let statements = [
        format!("DELETE FROM usage_windows WHERE series IN ({series})"),
        format!("DELETE FROM series WHERE id IN ({series})"),
        format!("DELETE FROM accounts WHERE {of_account} AND epoch {epochs}"),
        format!("DELETE FROM alert_states WHERE {of_account} AND epoch {epochs}"),
        format!(
            "DELETE FROM incidents WHERE {of_account} AND (alert, metric, sequence) IN (
               SELECT alert, metric, sequence FROM {transitions})"
        ),
        format!("DELETE FROM {transitions}"),
        format!(
            "DELETE FROM notifications WHERE workspace = ?1 AND mode = ?2 AND json_extract(body, '$.key.account') = ?3
               AND ?4 <= ?5 AND {in_body}"
        ),
    ];
    let (from, through) = (purge.from.0.cast_signed(), purge.through.0.cast_signed());
    let (workspace, mode, account) = (workspace(purge.tenant), mode(purge.tenant), purge.account.as_str());
    for sql in statements {
        transaction.prepare_cached(&sql)?.execute(params![workspace, mode, account, from, through])?;
    }
    // Entries of before engine version 3 have no epoch: where an account is deleted they are of one that is over.
    let epoch = "json_extract(body, '$.epoch')";
    let ended = if is_one { format!("coalesce({epoch}, ?4)") } else { epoch.to_owned() };
    let sql = format!("DELETE FROM quarantine WHERE {of_account} AND {ended} {epochs} AND revision <= ?6");
    let values = params![workspace, mode, account, from, through, purge.position.0.cast_signed()];
    transaction.prepare_cached(&sql)?.execute(values)?;
    Ok(())
}
