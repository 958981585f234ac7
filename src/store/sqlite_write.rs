//! Writing rows: upserts by key, in which the greater revision wins.

use super::query::Progress;
use super::value::{Amount, Id, json, mode, workspace};
use crate::domain::id::PartitionId;
use crate::domain::partition::effect::{Effects, SeriesKey};
use rusqlite::{OptionalExtension, Transaction, params};

type Series = hashbrown::HashMap<SeriesKey, i64>;

/// Writes everything, the position last.
pub(super) fn write(
    transaction: &Transaction<'_>,
    series: &mut Series,
    partition: PartitionId,
    effects: &Effects,
    up_to: Progress,
) -> rusqlite::Result<()> {
    windows(transaction, series, effects)?;
    accounts(transaction, effects)?;
    instances(transaction, effects)?;
    history(transaction, effects)?;
    deliveries(transaction, effects)?;
    quarantine(transaction, partition, effects)?;
    super::sqlite_webhooks::write(transaction, &effects.webhooks)?;
    for purge in &effects.purges {
        super::sqlite_purge::purge(transaction, purge)?;
        // Their series have no number any more.
        series.retain(|key, _| {
            let is_over = (purge.from..=purge.through).contains(&key.epoch);
            !is_over || key.tenant != purge.tenant || key.account != purge.account
        });
    }
    transaction.execute(
        "INSERT INTO positions (partition, position, clock) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET position = excluded.position, clock = excluded.clock
         WHERE excluded.position >= positions.position",
        params![partition.0, up_to.position.0.cast_signed(), up_to.clock.0],
    )?;
    Ok(())
}

fn windows(transaction: &Transaction<'_>, series: &mut Series, effects: &Effects) -> rusqlite::Result<()> {
    let mut upsert = transaction.prepare_cached(
        "INSERT INTO usage_windows (series, start, part, count, sum, min, max, last, last_at, late_events, revision)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT DO UPDATE SET count = excluded.count, sum = excluded.sum, min = excluded.min, max = excluded.max,
           last = excluded.last, last_at = excluded.last_at, late_events = excluded.late_events,
           revision = excluded.revision
         WHERE excluded.revision >= usage_windows.revision",
    )?;
    for row in &effects.windows {
        let number = match series.get(&row.series) {
            Some(number) => *number,
            None => {
                let number = series_number(transaction, &row.series)?;
                series.insert(row.series.clone(), number);
                number
            }
        };
        let aggregate = &row.aggregate;
        upsert.execute(params![
            number,
            row.start.0,
            row.part.0.cast_signed(),
            aggregate.count.cast_signed(),
            Amount(aggregate.sum),
            Amount(aggregate.min),
            Amount(aggregate.max),
            Amount(aggregate.last),
            aggregate.last_at.0,
            row.late_events.cast_signed(),
            row.revision.0.cast_signed()
        ])?;
    }
    Ok(())
}

fn series_number(transaction: &Transaction<'_>, key: &SeriesKey) -> rusqlite::Result<i64> {
    let values = params![
        workspace(key.tenant),
        mode(key.tenant),
        key.epoch.0.cast_signed(),
        key.account.as_str(),
        key.metric.as_str(),
        key.group
    ];
    let known = transaction
        .prepare_cached(
            "SELECT id FROM series
             WHERE workspace = ?1 AND mode = ?2 AND epoch = ?3 AND account = ?4 AND metric = ?5 AND grp = ?6",
        )?
        .query_row(values, |row| row.get(0))
        .optional()?;
    if let Some(number) = known {
        return Ok(number);
    }
    transaction
        .prepare_cached(
            "INSERT INTO series (workspace, mode, epoch, account, metric, grp) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .insert(values)
}

fn accounts(transaction: &Transaction<'_>, effects: &Effects) -> rusqlite::Result<()> {
    let mut upsert = transaction.prepare_cached(
        "INSERT INTO accounts (workspace, mode, account, epoch, first_seen_at, revision) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET first_seen_at = excluded.first_seen_at, revision = excluded.revision
         WHERE excluded.revision >= accounts.revision",
    )?;
    for row in &effects.accounts {
        upsert.execute(params![
            workspace(row.tenant),
            mode(row.tenant),
            row.account.as_str(),
            row.epoch.0.cast_signed(),
            row.first_seen_at.0,
            row.revision.0.cast_signed()
        ])?;
    }
    Ok(())
}

fn instances(transaction: &Transaction<'_>, effects: &Effects) -> rusqlite::Result<()> {
    let mut upsert = transaction.prepare_cached(
        "INSERT INTO alert_states (workspace, mode, alert, account, metric, epoch, state, since, silenced, value,
           evaluated_at, revision)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
         ON CONFLICT DO UPDATE SET epoch = excluded.epoch, state = excluded.state, since = excluded.since,
           silenced = excluded.silenced, value = excluded.value, evaluated_at = excluded.evaluated_at,
           revision = excluded.revision
         WHERE excluded.revision >= alert_states.revision",
    )?;
    for row in &effects.instances {
        upsert.execute(params![
            workspace(row.key.tenant),
            mode(row.key.tenant),
            Id(row.key.alert.0),
            row.key.account.as_str(),
            row.key.metric.as_ref().map_or("", |metric| metric.as_str()),
            row.epoch.0.cast_signed(),
            row.state.map(|state| state.name()),
            row.since.0,
            row.silenced,
            row.value.map(Amount),
            row.evaluated_at.0,
            row.revision.0.cast_signed()
        ])?;
    }
    Ok(())
}

fn history(transaction: &Transaction<'_>, effects: &Effects) -> rusqlite::Result<()> {
    let mut transition = transaction.prepare_cached(
        "INSERT OR REPLACE INTO alert_transitions (workspace, mode, alert, account, metric, sequence, at, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for row in &effects.transitions {
        transition.execute(params![
            workspace(row.key.tenant),
            mode(row.key.tenant),
            Id(row.key.alert.0),
            row.key.account.as_str(),
            row.key.metric.as_ref().map_or("", |metric| metric.as_str()),
            row.sequence.cast_signed(),
            row.at.0,
            json(row)?
        ])?;
        super::sqlite_incidents::note(transaction, row)?;
    }
    let mut notification = transaction.prepare_cached(
        "INSERT OR REPLACE INTO notifications (workspace, mode, id, alert, at, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for row in &effects.notifications {
        notification.execute(params![
            workspace(row.key.tenant),
            mode(row.key.tenant),
            Id(row.id.0),
            Id(row.key.alert.0),
            row.at.0,
            json(row)?
        ])?;
    }
    Ok(())
}

fn deliveries(transaction: &Transaction<'_>, effects: &Effects) -> rusqlite::Result<()> {
    let mut upsert = transaction.prepare_cached(
        "INSERT INTO deliveries (workspace, mode, notification, channel, status, attempts, outcome, next_at, at, revision)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT DO UPDATE SET status = excluded.status, attempts = excluded.attempts, outcome = excluded.outcome,
           next_at = excluded.next_at, at = excluded.at, revision = excluded.revision
         WHERE excluded.revision >= deliveries.revision",
    )?;
    for row in &effects.deliveries {
        upsert.execute(params![
            workspace(row.tenant),
            mode(row.tenant),
            Id(row.notification.0),
            Id(row.channel.0),
            row.status.name(),
            row.attempts,
            row.outcome,
            row.next_at.map(|at| at.0),
            row.at.0,
            row.revision.0.cast_signed()
        ])?;
    }
    Ok(())
}

fn quarantine(transaction: &Transaction<'_>, partition: PartitionId, effects: &Effects) -> rusqlite::Result<()> {
    let mut upsert = transaction.prepare_cached(
        "INSERT INTO quarantine (workspace, mode, id, partition, code, account, status, at, revision, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT DO UPDATE SET partition = excluded.partition, code = excluded.code, account = excluded.account,
           status = excluded.status, at = excluded.at, revision = excluded.revision, body = excluded.body
         WHERE excluded.revision >= quarantine.revision",
    )?;
    for row in &effects.quarantine {
        upsert.execute(params![
            workspace(row.tenant),
            mode(row.tenant),
            Id(row.id.0),
            partition.0,
            row.code,
            row.account.as_ref().map_or("", |account| account.as_str()),
            row.status.name(),
            row.at.0,
            row.revision.0.cast_signed(),
            json(row)?
        ])?;
    }
    Ok(())
}
