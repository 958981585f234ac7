//! Incidents: transitions that begin them, found by an index of their own, each with the transition that ended it.

use super::query::{IncidentEntry, IncidentQuery};
use super::value::{Id, json, mode, parsed, workspace};
use crate::domain::incident;
use crate::domain::partition::effect::TransitionRow;
use crate::domain::time::Timestamp;
use rusqlite::{Connection, params};

/// Notes a transition that begins an incident.
pub(super) fn note(connection: &Connection, row: &TransitionRow) -> rusqlite::Result<()> {
    if !incident::begins(row) {
        return Ok(());
    }
    let mut insert = connection.prepare_cached(
        "INSERT OR REPLACE INTO incidents (workspace, mode, id, at, alert, account, metric, sequence)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    insert.execute(params![
        workspace(row.key.tenant),
        mode(row.key.tenant),
        Id(incident::id(row).0),
        row.at.0,
        Id(row.key.alert.0),
        row.key.account.as_str(),
        row.key.metric.as_ref().map_or("", |metric| metric.as_str()),
        row.sequence.cast_signed()
    ])?;
    Ok(())
}

/// Notes all of them, in a store of a release that did not.
pub(super) fn note_all(connection: &Connection) -> rusqlite::Result<()> {
    let mut select = connection.prepare("SELECT body FROM alert_transitions")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        note(connection, &parsed(row.get_ref(0)?.as_str()?)?)?;
    }
    Ok(())
}

pub(super) fn incidents(connection: &Connection, query: &IncidentQuery) -> rusqlite::Result<Vec<IncidentEntry>> {
    let (order, behind) = query.age.sql();
    let mut select = connection.prepare_cached(&format!(
        "SELECT body, ending FROM (
           SELECT i.at AS at, i.id AS id, s.body AS body, (
             SELECT e.body FROM alert_transitions e
             WHERE e.workspace = s.workspace AND e.mode = s.mode AND e.alert = s.alert AND e.account = s.account
               AND e.metric = s.metric AND e.sequence > s.sequence
               AND (json_extract(e.body, '$.from') = 'firing') <> (json_extract(e.body, '$.to') = 'firing')
             ORDER BY e.sequence LIMIT 1
           ) AS ending
           FROM incidents i CROSS JOIN alert_transitions s
           WHERE i.workspace = ?1 AND i.mode = ?2 AND (?3 IS NULL OR i.id = ?3)
             AND (?4 = '[]' OR hex(i.alert) IN (SELECT value FROM json_each(?4)))
             AND (?5 = '[]' OR i.account IN (SELECT value FROM json_each(?5)))
             AND i.at >= ?6 AND i.at < ?7 AND (?8 IS NULL OR (i.at, i.id) {behind} (?8, ?9))
             AND s.workspace = i.workspace AND s.mode = i.mode AND s.alert = i.alert AND s.account = i.account
             AND s.metric = i.metric AND s.sequence = i.sequence
         )
         WHERE ?10 IS NULL OR (ending IS NULL OR json_extract(ending, '$.from') <> 'firing') = ?10
         ORDER BY at {order}, id {order} LIMIT ?11 OFFSET ?12"
    ))?;
    let alerts: Vec<String> = query.alerts.iter().map(|alert| format!("{:032X}", alert.0)).collect();
    let values = params![
        workspace(query.tenant),
        mode(query.tenant),
        query.id.map(|id| Id(id.0)),
        json(&alerts)?,
        json(&query.accounts)?,
        query.from.unwrap_or(Timestamp::MIN).0,
        query.to.unwrap_or(Timestamp::MAX).0,
        query.after.map(|(at, _)| at.0),
        query.after.map(|(_, id)| Id(id.0)),
        query.lasts,
        query.limit as i64,
        query.offset as i64
    ];
    let rows = select.query_map(values, |row| {
        let end: Option<TransitionRow> = match row.get_ref(1)?.as_str_or_null()? {
            Some(text) => Some(parsed(text)?),
            None => None,
        };
        Ok(IncidentEntry { begin: parsed(row.get_ref(0)?.as_str()?)?, end: end.filter(incident::ends) })
    })?;
    rows.collect()
}
