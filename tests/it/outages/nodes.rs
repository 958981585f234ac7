//! Nodes are killed, come and go, and sleep past their sessions.

use super::table::Row;
use super::{Stage, rounds};
use crate::kafka::brokers;
use crate::load::Random;
use crate::nodes::{clickhouse, wait_until_held};
use crate::process::Receiver;
use highwater::runtime::clock;
use std::time::Duration;

async fn stage() -> Option<Stage> {
    let (brokers, clickhouse) = (brokers()?, clickhouse()?);
    Some(Stage::new(&brokers, &clickhouse, Receiver::start().await))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_killed_again_and_again() {
    let Some(mut stage) = stage().await else { return };
    let kills = rounds(4, 20);
    let (steady, mut victim) = stage.pair().await;
    stage.load(&[&[&steady], &[&steady]]).await;
    let before = stage.accepted();
    let mut random = Random(u64::from(std::process::id()));
    for _ in 0..kills {
        victim.kill();
        victim = stage.cluster.start_node("second");
        tokio::time::sleep(Duration::from_millis(random.below(4_000))).await;
    }
    let during = stage.accepted() - before;
    victim.kill();
    let killed = clock::now();
    let recovery = stage.recovers(&[&steady], killed).await;
    let row = Row { fault: format!("a node killed (SIGKILL) {} times", kills + 1), before, during, recovery };
    stage.check(row, Vec::new(), steady).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go() {
    let Some(mut stage) = stage().await else { return };
    let visits = rounds(2, 6);
    let (first, second) = stage.pair().await;
    stage.load(&[&[&first], &[&second, &first]]).await;
    let before = stage.accepted();
    for _ in 0..visits {
        let visitor = stage.cluster.start_node("visitor");
        tokio::time::sleep(Duration::from_secs(5)).await;
        visitor.stop();
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let during = stage.accepted() - before;
    let recovery = stage.recovers(&[&first, &second], clock::now()).await;
    let fault = format!("rebalance every 5 s: a third node joins and leaves {visits} times");
    stage.check(Row { fault, before, during, recovery }, vec![first], second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_sleeps_past_its_session_and_wakes_up() {
    let Some(mut stage) = stage().await else { return };
    let (awake, sleeper) = stage.pair().await;
    // One sender waits for the sleeper: what it sent is taken in by whoever has lost the partition.
    stage.load(&[&[&awake], &[&sleeper, &awake]]).await;
    let before = stage.accepted();
    sleeper.freeze();
    wait_until_held(&[&awake], &stage.key, |counts| counts == [4]).await;
    // The new owner counts and pages what the sleeper had begun.
    tokio::time::sleep(Duration::from_secs(rounds(3, 10))).await;
    let during = stage.accepted() - before;
    sleeper.thaw();
    let woken = clock::now();
    let recovery = stage.recovers(&[&sleeper, &awake], woken).await;
    wait_until_held(&[&awake, &sleeper], &stage.key, |counts| counts == [2, 2]).await;
    let fault = "a node frozen past its session (zombie), then woken".to_owned();
    stage.check(Row { fault, before, during, recovery }, vec![awake], sleeper).await;
}
