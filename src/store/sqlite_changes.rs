//! What changed behind a position. No index serves it: it is asked when a stream goes on behind what this node folded
//! before its eyes.

use super::query::Span;
use super::value::{Amount, mode, parsed, workspace};
use crate::domain::id::{AccountId, Epoch, MetricName, Position};
use crate::domain::partition::aggregate::Aggregate;
use crate::domain::partition::effect::{SeriesKey, TransitionRow, WindowRow};
use crate::domain::time::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, params};

type Answer<T> = rusqlite::Result<T>;

pub(super) fn changed(connection: &Connection, span: &Span) -> Answer<(Vec<TransitionRow>, Vec<WindowRow>)> {
    Ok((transitions(connection, span)?, windows(connection, span)?))
}

fn transitions(connection: &Connection, span: &Span) -> Answer<Vec<TransitionRow>> {
    let mut select = connection.prepare_cached(
        "SELECT body FROM alert_transitions
         WHERE workspace = ?1 AND mode = ?2 AND json_extract(body, '$.position') > ?3
           AND json_extract(body, '$.position') <= ?4
         ORDER BY json_extract(body, '$.position'), alert, account, metric, sequence LIMIT ?5",
    )?;
    let values = params![
        workspace(span.tenant),
        mode(span.tenant),
        span.behind.0.cast_signed(),
        span.through.0.cast_signed(),
        limit(span)
    ];
    select.query_map(values, |row| parsed(row.get_ref(0)?.as_str()?))?.collect()
}

fn windows(connection: &Connection, span: &Span) -> Answer<Vec<WindowRow>> {
    let mut select = connection.prepare_cached(
        "SELECT s.epoch, s.account, s.metric, s.grp, w.start, w.part, w.count, w.sum, w.min, w.max, w.last, w.last_at,
           w.late_events, w.revision
         FROM series s JOIN usage_windows w ON w.series = s.id
         WHERE s.workspace = ?1 AND s.mode = ?2 AND w.revision > ?3 AND w.revision <= ?4
         ORDER BY w.revision, s.epoch, s.account, s.metric, s.grp, w.start, w.part LIMIT ?5",
    )?;
    let values = params![
        workspace(span.tenant),
        mode(span.tenant),
        span.behind.0.cast_signed(),
        span.through.0.cast_signed(),
        limit(span)
    ];
    let rows = select.query_map(values, |row| {
        let unsigned = |at: usize| Ok::<_, rusqlite::Error>(row.get::<_, i64>(at)?.cast_unsigned());
        Ok(WindowRow {
            series: SeriesKey {
                tenant: span.tenant,
                epoch: Epoch(unsigned(0)?),
                account: named(AccountId::new(row.get_ref(1)?.as_str()?))?,
                metric: named(MetricName::new(row.get_ref(2)?.as_str()?))?,
                group: row.get(3)?,
            },
            start: Timestamp(row.get(4)?),
            part: Position(unsigned(5)?),
            aggregate: Aggregate {
                count: unsigned(6)?,
                sum: row.get::<_, Amount>(7)?.0,
                min: row.get::<_, Amount>(8)?.0,
                max: row.get::<_, Amount>(9)?.0,
                last: row.get::<_, Amount>(10)?.0,
                last_at: Timestamp(row.get(11)?),
            },
            late_events: unsigned(12)?,
            revision: Position(unsigned(13)?),
        })
    })?;
    rows.collect()
}

fn limit(span: &Span) -> i64 {
    i64::try_from(span.limit).unwrap_or(i64::MAX)
}

fn named<T>(read: Result<T, crate::domain::id::InvalidId>) -> Answer<T> {
    read.map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))
}
