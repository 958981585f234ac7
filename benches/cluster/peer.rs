//! What one would otherwise pick.

use super::services::Services;
use super::topic::EVENTS;
use highwater::runtime::clock::{self, Stopwatch};

/// ClickHouse's Kafka engine with a materialized view; it removes no duplicates.
pub(super) async fn show(services: &Services, topic: &str) {
    let database = format!("peer_{}", ulid::Ulid(clock::ulid()));
    let table = format!("{database}.sums");
    for statement in [
        format!("CREATE DATABASE {database}"),
        format!(
            "CREATE TABLE {table} (account_id String, metric String, start DateTime, events UInt64, total Int64)
             ENGINE = SummingMergeTree ORDER BY (account_id, metric, start)"
        ),
        format!(
            "CREATE TABLE {database}.queue (account_id String, metric String, value Int64)
             ENGINE = Kafka SETTINGS kafka_broker_list = '{}', kafka_topic_list = '{topic}',
               kafka_group_name = '{database}', kafka_format = 'JSONEachRow', kafka_num_consumers = 2,
               input_format_skip_unknown_fields = 1",
            services.brokers
        ),
    ] {
        services.ask(&statement).await.expect("the statement runs");
    }
    let stopwatch = Stopwatch::start();
    let view = format!(
        "CREATE MATERIALIZED VIEW {database}.view TO {table} AS
         SELECT account_id, metric, toStartOfFiveMinutes(_timestamp) AS start, count() AS events, sum(value) AS total
         FROM {database}.queue GROUP BY account_id, metric, start"
    );
    services.ask(&view).await.expect("a view");
    let query = format!("SELECT sum(events) FROM {table}");
    let begun = services.wait(&query, 1, &stopwatch).await;
    let ended = services.wait(&query, EVENTS, &stopwatch).await;
    println!(
        "ClickHouse's Kafka engine, no dedup: {ended:.1} s behind the creation of the view ({:.0} events/s), \
         first ones behind {begun:.1} s ({:.0} events/s from there)",
        EVENTS as f64 / ended,
        EVENTS as f64 / (ended - begun).max(0.001)
    );
    services.ask(&format!("DROP DATABASE {database}")).await.expect("the end");
}
