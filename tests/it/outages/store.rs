//! ClickHouse is broken: an engine of the test's own that is killed or frozen, or the common one behind a proxy that
//! answers for it. Events are accepted and alerts fire all the while.

use super::table::Row;
use super::{Stage, blocking};
use crate::kafka::brokers;
use crate::nodes::clickhouse;
use crate::process::Receiver;
use crate::proxy::{Fault, Proxy};
use crate::services::{Own, Service};
use highwater::runtime::clock;
use std::sync::Arc;
use std::time::Duration;

/// Breaks the store under load, mends it, and checks.
async fn check(fault: &str, address: &str, lasting: Duration, set: impl Fn(bool) + Send + Sync + 'static) {
    let Some(brokers) = brokers() else { return };
    let set = Arc::new(set);
    let mut stage = Stage::new(&brokers, &format!("http://{address}"), Receiver::start().await);
    let (first, second) = stage.pair().await;
    stage.load(&[&[&first], &[&second]]).await;
    let (before, pages) = (stage.accepted(), stage.receiver.deliveries.lock().unwrap().len());
    let breaking = Arc::clone(&set);
    blocking(move || breaking(true)).await;
    tokio::time::sleep(lasting).await;
    let during = stage.accepted() - before;
    assert!(during > 0, "events are accepted while the store is away");
    assert!(stage.receiver.deliveries.lock().unwrap().len() > pages, "and alerts fire");
    let mending = Arc::clone(&set);
    blocking(move || mending(false)).await;
    let recovery = stage.recovers(&[&first, &second], clock::now()).await;
    stage.check(Row { fault: fault.to_owned(), before, during, recovery }, vec![first], second).await;
    // An engine of the test's own ends here, and no earlier.
    drop(set);
}

/// An engine of the test's own.
async fn check_own(fault: &str, lasting: Duration, breaks: fn(&Own), mends: fn(&Own)) {
    if clickhouse().is_none() {
        return;
    }
    let engine = blocking(|| Own::start(Service::ClickHouse)).await;
    let address = engine.address.clone();
    check(fault, &address, lasting, move |broken| if broken { breaks(&engine) } else { mends(&engine) }).await;
}

/// The common engine behind a proxy.
async fn check_proxied(fault: &str, lasting: Duration, wrong: Fault) {
    let Some(clickhouse) = clickhouse() else { return };
    let proxy = Proxy::before(clickhouse.trim_start_matches("http://").parse().unwrap());
    let address = proxy.address.to_string();
    check(fault, &address, lasting, move |broken| proxy.set(if broken { wrong } else { Fault::None })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_is_killed_and_starts_again() {
    check_own("ClickHouse SIGKILLed, 5 s later started", Duration::from_secs(5), Own::kill, Own::restart).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_freezes() {
    check_own("ClickHouse frozen (SIGSTOP) for 20 s", Duration::from_secs(20), Own::freeze, Own::thaw).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_third_insert_is_answered_by_500() {
    check_proxied("ClickHouse answers 500 to every third insert, 10 s", Duration::from_secs(10), Fault::InsertFails(3))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_is_full() {
    check_proxied("ClickHouse's disk is full (code 243) for 8 s", Duration::from_secs(8), Fault::DiskFull).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_is_slow() {
    let slow = Fault::Slow(Duration::from_millis(1_500));
    check_proxied("ClickHouse slow: 1.5 s more for each piece of an insert, 10 s", Duration::from_secs(10), slow).await;
}
