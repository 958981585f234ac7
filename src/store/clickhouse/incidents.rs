//! Incidents: transitions that begin them, each with the next one of its instance that leads out of firing.

use super::filter::{Filter, Value, bounded, instant, json};
use crate::domain::incident;
use crate::domain::partition::effect::TransitionRow;
use crate::store::{IncidentEntry, IncidentQuery, StoreError};
use clickhouse::{Client, Row};
use serde::Deserialize;

/// How an incident began and how it ended; the latter is empty where nothing followed.
#[derive(Debug, Row, Deserialize)]
struct IncidentRecord {
    body: String,
    ending: String,
}

pub(in crate::store) async fn incidents(
    client: &Client,
    query: &IncidentQuery,
) -> Result<Vec<IncidentEntry>, StoreError> {
    let mut filter = Filter::of(query.tenant);
    filter.any_of("alert", query.alerts.iter().map(ToString::to_string));
    filter.any_of("account", query.accounts.iter().map(|account| account.as_str().to_owned()));
    if let Some(id) = query.id {
        // The instance that it happened to, with all that happened to it.
        filter
            .sql
            .push_str(" AND (alert, account, metric) IN (SELECT alert, account, metric FROM alert_transitions WHERE ");
        let outer = std::mem::take(&mut filter.sql);
        filter.tenant(query.tenant);
        filter.and("incident = ?", Value::Text(id.to_string()));
        filter.sql = format!("{outer}{})", filter.sql);
    }
    let inner = std::mem::replace(&mut filter.sql, "incident != ''".to_owned());
    if let Some(id) = query.id {
        filter.and("incident = ?", Value::Text(id.to_string()));
    }
    if let Some(lasts) = query.lasts {
        let compare = if lasts { "!=" } else { "=" };
        filter.and(&format!("JSONExtractString(ending, 'from') {compare} ?"), Value::Text("firing".to_owned()));
    }
    filter.between("at", query.from, query.to);
    let (order, behind) = query.age.sql();
    if let Some((at, id)) = query.after {
        filter.and(&format!("(at, incident) {behind} ({}, ?)", instant(at)), Value::Text(id.to_string()));
    }
    let sql = format!(
        "SELECT ?fields FROM (
           SELECT at, incident, body, leadInFrame(body, 1, '') OVER (
             PARTITION BY alert, account, metric ORDER BY sequence ASC
             ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
           ) AS ending
           FROM (
             SELECT alert, account, metric, sequence, at, incident, body FROM alert_transitions
             WHERE {inner} AND (JSONExtractString(body, 'from') = 'firing') != (JSONExtractString(body, 'to') = 'firing')
             ORDER BY alert, account, metric, sequence, position DESC LIMIT 1 BY alert, account, metric, sequence
           )
         ) WHERE {} ORDER BY at {order}, incident {order} LIMIT {} OFFSET {}",
        filter.sql,
        bounded(query.limit),
        bounded(query.offset)
    );
    let records = filter.bind(client.query(&sql)).fetch_all::<IncidentRecord>().await?;
    records.iter().map(entry).collect()
}

fn entry(record: &IncidentRecord) -> Result<IncidentEntry, StoreError> {
    let end: Option<TransitionRow> = if record.ending.is_empty() { None } else { Some(json(&record.ending)?) };
    Ok(IncidentEntry { begin: json(&record.body)?, end: end.filter(incident::ends) })
}
