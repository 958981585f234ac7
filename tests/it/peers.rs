//! Clients that are not ours produce onto the public topic: Kafka's own console producer with each of its codecs, and
//! librdkafka as it comes. Whatever keys and partitions they choose, everything counts once.

use crate::kafka::{Producer, brokers};
use crate::nodes::{Cluster, ask, total, verify, wait_for};
use crate::process::bootstrap_with;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Kafka's codecs, as its producer names them.
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const EVENTS: u64 = 2_000;
/// How many events of each sender another one sends, too, under the same ids.
const SHARED: u64 = 300;

/// One event; the account and the value follow from the number, so that two senders of one number send the same.
fn event(number: u64) -> String {
    format!(
        "{{\"account_id\":\"acc_{}\",\"metric\":\"m\",\"value\":{},\"id\":\"e{number}\"}}",
        number % 7,
        1 + number % 5
    )
}

/// Sends lines with the console producer of the broker's own jars; blocks.
fn console(brokers: &str, topic: &str, options: &[&str], lines: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/services");
    let mut producer = Command::new(script)
        .args(["produce", topic])
        .args(options)
        .env("HIGHWATER_TEST_KAFKA", brokers)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    producer.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(producer.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_others_are_counted_once() {
    let Some(brokers) = brokers() else { return };
    let cluster = Cluster::new(&brokers);
    let key = bootstrap_with(&cluster.data(), &cluster.arguments());
    let server = cluster.start();
    let topic = format!("{}.usage", cluster.prefix);
    let intake = Producer::new(&brokers, &topic);
    let mut consoles = Vec::new();
    for (turn, codec) in (0..).zip(CODECS) {
        let (brokers, topic) = (brokers.clone(), topic.clone());
        consoles.push(tokio::task::spawn_blocking(move || {
            let mut lines = String::new();
            for number in turn * EVENTS..(turn + 1) * EVENTS + SHARED {
                // Half of them with a key, which says nothing of the account.
                if turn % 2 == 0 {
                    writeln!(lines, "k{}\t{}", number % 11, event(number))
                } else {
                    writeln!(lines, "{}", event(number))
                }
                .unwrap();
            }
            let keyed: &[&str] = if turn % 2 == 0 { &["--property", "parse.key=true"] } else { &[] };
            console(&brokers, &topic, &[&["--compression-codec", codec], keyed].concat(), &lines);
        }));
    }
    let last = CODECS.len() as u64 * EVENTS;
    let wanted = last + EVENTS;
    let sending = (last..wanted).map(|number| {
        let (intake, body) = (&intake, event(number));
        async move {
            let key = format!("key {}", number % 13);
            intake.send((number % 3 > 0).then_some(key.as_str()), &[], Some(body.as_bytes())).await;
        }
    });
    futures::future::join_all(sending).await;
    for console in consoles {
        console.await.unwrap();
    }
    let mut counted = (0, 0);
    for account in 0..7 {
        let own = (0..wanted).filter(|number| number % 7 == account);
        let (count, sum) = own.fold((0, 0), |(count, sum), number| (count + 1, sum + 1 + number % 5));
        let path = format!("/v1/accounts/acc_{account}/usage?window=1h&metric=m");
        let usage = wait_for(&server, &key, &path, |usage| total(usage, "count") >= count as f64).await;
        assert_eq!((total(&usage, "count"), total(&usage, "value")), (count as f64, sum as f64), "acc_{account}");
        counted = (counted.0 + count, counted.1 + sum);
    }
    let (_, aside) = ask(&server, &key, "GET", "/v1/quarantine", None).await;
    assert_eq!(aside["items"].as_array().unwrap().len(), 0, "{aside}");
    server.stop();
    verify(&cluster, &cluster.data());
    println!(
        "{} events of other clients, {} of them sent twice: counted once",
        counted.0,
        CODECS.len() as u64 * SHARED
    );
}
