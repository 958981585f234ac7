//! What changed behind a position.

use super::filter::{Filter, Value, bounded, json};
use super::record::WindowRecord;
use crate::domain::partition::effect::{SeriesKey, TransitionRow, WindowRow};
use crate::store::StoreError;
use crate::store::query::Span;
use clickhouse::Client;

type Answer<T> = Result<T, StoreError>;

pub(in crate::store) async fn changed(client: &Client, span: &Span) -> Answer<(Vec<TransitionRow>, Vec<WindowRow>)> {
    Ok((transitions(client, span).await?, windows(client, span).await?))
}

async fn transitions(client: &Client, span: &Span) -> Answer<Vec<TransitionRow>> {
    let mut filter = Filter::of(span.tenant);
    filter.and("position > ?", Value::Number(span.behind.0));
    filter.and("position <= ?", Value::Number(span.through.0));
    let sql = format!(
        "SELECT body FROM alert_transitions WHERE {} ORDER BY position, alert, account, metric, sequence
         LIMIT 1 BY alert, account, metric, sequence LIMIT {}",
        filter.sql,
        bounded(span.limit)
    );
    let bodies = filter.bind(client.query(&sql)).fetch_all::<String>().await?;
    bodies.iter().map(|body| json(body)).collect()
}

/// Of the rows of a key that were written behind the position the newest one counts: the newest of all is among them. One
/// that is behind the last position hides the older ones before it, as where they are replaced at once.
async fn windows(client: &Client, span: &Span) -> Answer<Vec<WindowRow>> {
    let mut filter = Filter::of(span.tenant);
    filter.and("revision > ?", Value::Number(span.behind.0));
    let written = std::mem::take(&mut filter.sql);
    filter.and("revision <= ?", Value::Number(span.through.0));
    let sql = format!(
        "SELECT ?fields FROM (
           SELECT * FROM usage_windows WHERE {written} ORDER BY epoch, account, metric, grp, start, part, revision DESC
           LIMIT 1 BY epoch, account, metric, grp, start, part
         ) WHERE {} ORDER BY revision, epoch, account, metric, grp, start, part LIMIT {}",
        filter.sql,
        bounded(span.limit)
    );
    let records = filter.bind(client.query(&sql)).fetch_all::<WindowRecord>().await?;
    let row = |record: WindowRecord| WindowRow {
        aggregate: record.aggregate(),
        series: SeriesKey {
            tenant: span.tenant,
            epoch: record.epoch,
            account: record.account,
            metric: record.metric,
            group: record.grp,
        },
        start: record.start,
        part: record.part,
        late_events: record.late_events,
        revision: record.revision,
    };
    Ok(records.into_iter().map(row).collect())
}
