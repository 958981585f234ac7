//! Records of the journal are gone: the fold stops and says which; it never goes on behind them.

use super::Stage;
use crate::kafka::{brokers, cut};
use crate::load::recover;
use crate::nodes::{clickhouse, wait_until_held};
use crate::process::{Receiver, ended};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_cut_is_not_folded_over() {
    let (Some(brokers), Some(clickhouse)) = (brokers(), clickhouse()) else { return };
    let mut stage = Stage::new(&brokers, &clickhouse, Receiver::start().await);
    let only = stage.cluster.start_node("only");
    wait_until_held(&[&only], &stage.key, |counts| counts == [4]).await;
    stage.load(&[&[&only]]).await;
    recover(&stage.ledger, &only.base, &stage.key).await;
    stage.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for sender in stage.senders.drain(..) {
        sender.await.unwrap();
    }
    let accepted = stage.accepted();
    // Killed before its first snapshot: whoever is next has to fold from the beginning, and that is gone.
    only.kill();
    let journal = format!("{}.journal", stage.cluster.prefix);
    cut(&brokers, &journal, 0, 5).await;
    let data = stage.cluster.folder_of("only");
    let listen = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", data.to_str().unwrap()];
    let arguments = [&["serve"], &listen[..], &stage.cluster.arguments()].concat();
    let (code, said) = ended(&arguments, PATIENCE);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("log p0 has record 6 where 1 should stand: records are missing"), "{said}");
    // What proves and repairs refuses as well, and names the same.
    let store = stage.cluster.shared.as_ref().unwrap().0.clone();
    // A store that holds rows is not filled again, whatever the log is like.
    let empty = format!("{store}_anew");
    for (command, place) in [("verify", store.as_str()), ("replay", empty.as_str())] {
        let mut arguments = [&[command, "--data", data.to_str().unwrap()], &stage.cluster.arguments()[..]].concat();
        arguments.iter_mut().filter(|argument| **argument == store).for_each(|argument| *argument = place);
        let (code, said) = ended(&arguments, PATIENCE);
        assert_eq!(code, Some(4), "{command}: {said}");
        assert!(said.contains("log p0 has record 6 where 1 should stand"), "{command}: {said}");
    }
    println!(
        "\n| journal cut below what the next node needs (retention) | {accepted} | - | {accepted} | - | named: p0, 1 to 5 | 0 \
         | - | - | - | stops with code 4 |"
    );
}
