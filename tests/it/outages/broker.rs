//! The broker is broken; it is the test's own.

use super::table::Row;
use super::{Stage, blocking};
use crate::nodes::clickhouse;
use crate::process::Receiver;
use crate::services::{Own, Service};
use highwater::runtime::clock;
use std::sync::Arc;
use std::time::Duration;

/// Breaks the broker under load, mends it, and checks.
async fn check(fault: &str, breaks: fn(&Own), lasting: Duration, mends: fn(&Own)) {
    let Some(clickhouse) = clickhouse() else { return };
    let broker = Arc::new(blocking(|| Own::start(Service::Kafka)).await);
    let mut stage = Stage::new(&broker.address, &clickhouse, Receiver::start().await);
    let (first, second) = stage.pair().await;
    stage.load(&[&[&first], &[&second], &[&second, &first]]).await;
    let before = stage.accepted();
    let own = Arc::clone(&broker);
    blocking(move || breaks(&own)).await;
    tokio::time::sleep(lasting).await;
    let during = stage.accepted() - before;
    let own = Arc::clone(&broker);
    blocking(move || mends(&own)).await;
    let mended = clock::now();
    let recovery = stage.recovers(&[&first, &second], mended).await;
    let row = Row { fault: fault.to_owned(), before, during, recovery };
    stage.check(row, vec![first], second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_is_killed_and_starts_again() {
    check("broker SIGKILLed, 5 s later started", Own::kill, Duration::from_secs(5), Own::restart).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_freezes() {
    check("broker frozen (SIGSTOP) for 20 s", Own::freeze, Duration::from_secs(20), Own::thaw).await;
}
