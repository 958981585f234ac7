//! What waits in the topic.

use highwater::runtime::clock::Stopwatch;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use std::time::Duration;

pub(super) const EVENTS: u64 = 1_000_000;
const ACCOUNTS: u64 = 1_000;
const METRICS: [&str; 5] = ["api.requests", "storage.bytes", "compute.ms", "egress.bytes", "jobs.run"];

/// Puts the events into a topic of four partitions, as a service would send them.
pub(super) async fn fill(brokers: &str, topic: &str) {
    let client = || {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers);
        config
    };
    let admin: AdminClient<DefaultClientContext> = client().create().expect("an admin");
    let new = NewTopic::new(topic, 4, TopicReplication::Fixed(1)).set("message.timestamp.type", "LogAppendTime");
    admin.create_topics([&new], &AdminOptions::new()).await.expect("a topic");
    let producer: ThreadedProducer<DefaultProducerContext> =
        client().set("linger.ms", "50").set("queue.buffering.max.messages", "500000").create().expect("a producer");
    let stopwatch = Stopwatch::start();
    let mut bytes = 0;
    for number in 0..EVENTS {
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let (account, metric) = (mixed % ACCOUNTS, METRICS[(mixed >> 13) as usize % METRICS.len()]);
        let event = format!(
            r#"{{"id":"bench-{number:012}","account_id":"acc_{account:05}","metric":"{metric}","value":{},"dimensions":{{"region":"eu-west-1","service":"checkout"}}}}"#,
            1 + mixed % 9
        );
        bytes += event.len();
        let mut record = BaseRecord::<(), String>::to(topic).payload(&event);
        while let Err((error, back)) = producer.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
            tokio::time::sleep(Duration::from_millis(5)).await;
            record = back;
        }
    }
    producer.flush(Duration::from_secs(60)).expect("all are delivered");
    println!(
        "{EVENTS} events of {} bytes produced in {:.1} s",
        bytes / EVENTS as usize,
        stopwatch.elapsed().as_secs_f64()
    );
}
