//! A real broker: where it is, topics of one's own, and a producer as services have it.

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::time::Duration;

/// Where the broker of the tests is. Where one is required and none is named, the test fails.
#[expect(clippy::disallowed_methods, reason = "where the services of a test are is no configuration of the product")]
pub(crate) fn brokers() -> Option<String> {
    let named = std::env::var("HIGHWATER_TEST_KAFKA").ok();
    let required = std::env::var("HIGHWATER_TEST_SERVICES").is_ok_and(|value| value == "required");
    assert!(named.is_some() || !required, "HIGHWATER_TEST_KAFKA is not set; scripts/services up starts a broker");
    named
}

/// A name that no other test uses.
pub(crate) fn fresh_name(what: &str) -> String {
    format!("{what}-{}", ulid::Ulid(highwater::runtime::clock::ulid()))
}

/// A producer with its defaults, as a service would have it.
pub(crate) struct Producer {
    producer: FutureProducer,
    topic: String,
}

impl Producer {
    pub(crate) fn new(brokers: &str, topic: &str) -> Self {
        let producer =
            ClientConfig::new().set("bootstrap.servers", brokers).set("message.max.bytes", "8000000").create().unwrap();
        Self { producer, topic: topic.to_owned() }
    }

    /// Sends one message and waits until the broker has it.
    pub(crate) async fn send(&self, key: Option<&str>, headers: &[(&str, &str)], value: Option<&[u8]>) {
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }));
        let mut record: FutureRecord<'_, str, [u8]> = FutureRecord::to(&self.topic).headers(headers);
        record.key = key;
        record.payload = value;
        self.producer.send(record, Duration::from_secs(10)).await.unwrap();
    }
}

/// Removes the records of a topic's partition before an offset, as its retention would.
pub(crate) async fn cut(brokers: &str, topic: &str, partition: i32, before: i64) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(before)).unwrap();
    admin.delete_records(&list, &AdminOptions::new()).await.unwrap();
}

/// Deletes a topic and makes another one of its name, with one partition.
pub(crate) async fn made_anew(brokers: &str, topic: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
    for deleted in admin.delete_topics(&[topic], &options).await.unwrap() {
        deleted.unwrap();
    }
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1)).set("message.timestamp.type", "LogAppendTime");
    for _ in 0..100 {
        // The old one may be on its way out still.
        if admin.create_topics([&new], &options).await.unwrap().into_iter().all(|made| made.is_ok()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{topic} could not be made anew");
}
