//! Every closed window made anew by ClickHouse itself, from the raw events and in SQL, beside what the folds wrote.
//!
//! Nothing of the fold's code takes part, but what it wrote beside an event: in which epoch and group it counted, and whether
//! it was late.

use crate::domain::time::{Millis, WINDOW};
use crate::store::{RecomputeTerms, Recomputed, StoreError};
use clickhouse::{Client, Row};
use serde::Deserialize;

/// Windows that are compared at once: a day of them.
const SPAN: i64 = Millis::hours(24).0;
/// How many differences are named.
const NAMED_MAX: usize = 10;

/// How far a partition's rows reach, and behind where its events are archived.
#[derive(Row, Deserialize)]
struct Reach {
    partition: u32,
    position: u64,
    clock: i64,
    archived_from: Option<u64>,
}

/// The first and the last window of which there is anything.
#[derive(Row, Deserialize)]
struct Extent {
    first: i64,
    last: i64,
    rows: u64,
}

#[derive(Row, Deserialize)]
struct Day {
    windows: u64,
    wrong: u64,
    named: Vec<String>,
}

/// Compares, a day at a time.
pub(super) async fn recompute(client: &Client, terms: RecomputeTerms) -> Result<Recomputed, StoreError> {
    let reaches = "SELECT partition, newest.1 AS position, newest.2 AS clock, newest.3 AS archived_from
                   FROM (SELECT partition, argMax((position, clock, archived_from), (position, written_at)) AS newest
                         FROM positions GROUP BY partition)";
    let reaches = client.query(reaches).fetch_all::<Reach>().await?;
    let mut found = Recomputed {
        archived_partitions: reaches.iter().filter(|reach| reach.archived_from.is_some()).count(),
        ..Recomputed::default()
    };
    // What either table may have forgotten is not compared, nor what it is about to forget.
    let expired = super::retention::expired_before(client).await?;
    let tables = ["usage_windows", "usage_events"];
    let kept_from = tables.iter().filter_map(|table| expired.get(*table)).map(|before| before.0 + 2 * WINDOW.0).max();
    let extent = "SELECT toInt64(min(at)) AS first, toInt64(max(at)) AS last, count() AS rows FROM (
                    SELECT toUnixTimestamp64Milli(start) AS at FROM usage_windows
                    UNION ALL SELECT toUnixTimestamp64Milli(timestamp) FROM usage_events)";
    let extent = client.query(extent).fetch_one::<Extent>().await?;
    if extent.rows == 0 || found.archived_partitions == 0 {
        return Ok(found);
    }
    let first = kept_from.map_or(extent.first, |kept| kept.max(extent.first));
    let mut from = first.div_euclid(WINDOW.0) * WINDOW.0;
    while from <= extent.last {
        let to = (from.div_euclid(SPAN) + 1) * SPAN;
        let day = client.query(&sql(&reaches, terms, (from, to))).fetch_one::<Day>().await?;
        found.windows += day.windows;
        found.drift_count += day.wrong;
        found.drift.extend(day.named.into_iter().take(NAMED_MAX.saturating_sub(found.drift.len())));
        from = to;
    }
    Ok(found)
}

/// One number a partition, in their order, as an array.
fn array(reaches: &[Reach], terms: RecomputeTerms, of: impl Fn(&Reach) -> Option<String>, absent: &str) -> String {
    let known = |partition| reaches.iter().find(|reach| reach.partition == partition).and_then(&of);
    let numbers: Vec<String> =
        (0..terms.partitions).map(|partition| known(partition).unwrap_or_else(|| absent.to_owned())).collect();
    format!("[{}]", numbers.join(", "))
}

fn sql(reaches: &[Reach], terms: RecomputeTerms, (from, to): (i64, i64)) -> String {
    let positions = array(reaches, terms, |reach| Some(format!("toUInt64({})", reach.position)), "toUInt64(0)");
    let clocks = array(reaches, terms, |reach| Some(format!("toInt64({})", reach.clock)), "toInt64(0)");
    let never = format!("toUInt64({})", u64::MAX);
    let archived = array(reaches, terms, |reach| reach.archived_from.map(|from| format!("toUInt64({from})")), &never);
    let (window, grace, partitions) = (WINDOW.0, terms.grace.0, terms.partitions);
    let span = |column: &str| {
        let at = |ms: i64| format!("fromUnixTimestamp64Milli(toInt64({ms}), 'UTC')");
        format!("{column} >= {} AND {column} < {}", at(from), at(to))
    };
    let (in_events, in_windows) = (span("timestamp"), span("start"));
    let key = "workspace, mode, epoch, account, metric, grp, at";
    format!(
        "WITH {positions} AS positions, {clocks} AS clocks, {archived} AS archived
         SELECT count() AS windows, countIf(differs) AS wrong, groupArrayIf({NAMED_MAX})(said, differs) AS named
         FROM (
           SELECT {key},
             kafkaMurmurHash(concat(toString(workspace), '/', account)) % {partitions} + 1 AS place,
             countIf(source = 'events') AS of_events, countIf(source = 'windows') AS of_windows,
             anyIf(summary, source = 'events') AS wanted, anyIf(summary, source = 'windows') AS kept,
             max(revision) AS newest, max(first_part) AS first,
             (of_events != of_windows OR wanted != kept) AS differs,
             concat('usage_windows ', toString(workspace), ' ', toString(mode), ' ', account, ' ', toString(metric), ' ', grp, ' ',
               toString(fromUnixTimestamp64Milli(at, 'UTC')), ': ',
               if(of_windows = 0, 'missing', concat('kept ', toString(kept))), ', ',
               if(of_events = 0, 'no event is archived', concat('the archived events give ', toString(wanted)))) AS said
           FROM (
             SELECT {key}, 'events' AS source, toUInt64(0) AS revision, toUInt64(0) AS first_part,
               (count(), sum(value), min(value), max(value), argMax(value, (ms, position, number)), max(ms),
                 countIf(late)) AS summary
             FROM (
               SELECT DISTINCT workspace, mode, epoch, account, metric, arrayJoin(if(e.grp = '', [''], ['', e.grp])) AS grp,
                 toUnixTimestamp64Milli(timestamp) AS ms, ms - positiveModulo(ms, {window}) AS at,
                 value, late, partition, position, number
               FROM usage_events AS e
               WHERE {in_events} AND position <= positions[partition + 1]
             )
             GROUP BY {key}
             UNION ALL
             SELECT {key}, 'windows' AS source, max(newest.8) AS revision, min(part) AS first_part,
               (sum(newest.1), sum(newest.2), min(newest.3), max(newest.4), argMax(newest.5, (newest.6, part)),
                 max(newest.6), sum(newest.7)) AS summary
             FROM (
               SELECT workspace, mode, epoch, account, metric, grp, toUnixTimestamp64Milli(start) AS at, part,
                 argMax((w.count, w.sum, w.min, w.max, w.last, w.last_at, w.late_events, w.revision), w.revision) AS newest
               FROM usage_windows AS w
               WHERE {in_windows}
               GROUP BY workspace, mode, epoch, account, metric, grp, at, part
             )
             GROUP BY {key}
           )
           GROUP BY {key}
           HAVING archived[place] != {never} AND (of_windows = 0 OR first > archived[place])
             AND newest <= positions[place] AND at + {window} + {grace} <= clocks[place]
         )"
    )
}
