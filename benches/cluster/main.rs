//! The cluster shape on one machine: a million JSON events that wait in a topic become windows in ClickHouse; how long a node takes to be back;
//! and what it does over HTTP.
//!
//! `make bench-cluster`; with `-- backlog` the first of it alone, five times over. Beside it, in the same run, what one would otherwise pick: ClickHouse's own Kafka engine with a
//! materialized view into 5-minute sums, which removes no duplicates.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench says what it found, or that it cannot run")]
#![cfg(all(feature = "kafka", feature = "clickhouse"))]

#[path = "../support/batch.rs"]
mod batch;
#[path = "../support/connection.rs"]
mod connection;
#[path = "../support/figures.rs"]
mod figures;
#[path = "../support/hook.rs"]
mod hook;

mod node;
mod ours;
mod peer;
mod services;
mod topic;

use highwater::runtime::clock;
use services::Services;

const REPETITIONS: usize = 5;

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime").block_on(run());
}

async fn run() {
    let services = Services::found();
    if std::env::args().any(|argument| argument == "backlog") {
        for _ in 0..REPETITIONS {
            let (prefix, _) = filled(&services).await;
            ours::show_backlog(&services, &prefix).await;
        }
        return;
    }
    let (prefix, topic) = filled(&services).await;
    ours::show(&services, &prefix).await;
    peer::show(&services, &topic).await;
}

/// Fills a new topic; returns its prefix and its name.
async fn filled(services: &Services) -> (String, String) {
    let prefix = format!("bench-{}", ulid::Ulid(clock::ulid()));
    let topic = format!("{prefix}.usage");
    topic::fill(&services.brokers, &topic).await;
    (prefix, topic)
}
