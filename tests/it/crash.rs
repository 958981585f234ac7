//! kill -9 at random moments under load: nothing that was acknowledged is lost, nothing counts twice, nobody is paged
//! under two ids, and what is kept follows from the journal.
//!
//! `HIGHWATER_TEST_CRASH_ROUNDS` sets the number of rounds.

use crate::load::{Aim, Ledger, QUOTA, Random, Watched, check_alerts, check_usage, send, set_up, settle};
use crate::process::{Receiver, Server, bootstrap, highwater};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const ROUNDS_DEFAULT: u64 = 50;
const SENDERS: u64 = 3;

#[expect(clippy::disallowed_methods, reason = "how long a test runs is no configuration of the product")]
fn rounds() -> u64 {
    std::env::var("HIGHWATER_TEST_CRASH_ROUNDS").map_or(ROUNDS_DEFAULT, |rounds| rounds.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9() {
    let rounds = rounds();
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = Random(seed);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let key = bootstrap(&data);
    let receiver = Receiver::start().await;
    let ledger = Arc::new(Ledger::default());
    let mut alerts = Watched::default();
    for round in 0..rounds {
        let server = Server::start(&data);
        if round == 0 {
            alerts = set_up(&server.base, &key, &receiver, QUOTA).await;
        }
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| {
                let random = Random(random.below(u64::MAX));
                let aim = Aim {
                    bases: vec![server.base.clone()],
                    key: key.clone(),
                    ends: true,
                    pace: Duration::ZERO,
                    stop: Arc::default(),
                };
                tokio::spawn(send(Arc::clone(&ledger), aim, random))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(random.below(250))).await;
        server.kill();
        for sender in senders {
            sender.await.unwrap();
        }
    }
    let server = Server::start(&data);
    settle(&ledger, &server.base, &key).await;
    check_usage(&ledger, &server.base, &key).await;
    check_alerts(&ledger, (&server.base, &key), &alerts, &receiver).await;
    server.stop();
    let verified = highwater(&["verify", "--data", data.to_str().unwrap()]);
    assert!(verified.status.success(), "{}{}", text(&verified.stdout), text(&verified.stderr));
    let acknowledged: u64 = ledger.counted.lock().unwrap().values().map(|(count, _)| count).sum();
    println!(
        "{rounds} kills: {acknowledged} events acknowledged, {} batches sent again, {} notifications, none lost or doubled",
        ledger.retries.load(Ordering::Relaxed),
        receiver.deliveries.lock().unwrap().len()
    );
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
