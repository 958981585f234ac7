//! Who owns which partition: membership in a consumer group. Kafka shares the partitions out; nothing is read or committed
//! through it.

use super::KafkaSettings;
use crate::domain::id::PartitionId;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaResult;
use rdkafka::{ClientContext, TopicPartitionList};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const POLL: Duration = Duration::from_millis(100);

/// What becomes of partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// They are this member's from here on.
    Taken(Vec<PartitionId>),
    /// They go to others, once this was handled.
    Lost(Vec<PartitionId>),
}

/// A membership; it ends when it is left or dropped.
#[derive(Debug)]
pub struct Membership {
    leaving: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Group<F> {
    handle: F,
}

impl<F: Fn(Assignment) + Send + Sync> ClientContext for Group<F> {}

impl<F: Fn(Assignment) + Send + Sync> ConsumerContext for Group<F> {
    fn pre_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Revoke(list) if list.count() > 0 => (self.handle)(Assignment::Lost(partitions(list))),
            Rebalance::Revoke(_) | Rebalance::Assign(_) => {}
            Rebalance::Error(error) => tracing::warn!(error = %error, "the partitions could not be shared out anew"),
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Assign(list) = rebalance else { return };
        // Records are read elsewhere.
        if let Err(error) = consumer.pause(list) {
            tracing::warn!(error = %error, "a membership could not be kept from reading");
        }
        if list.count() > 0 {
            (self.handle)(Assignment::Taken(partitions(list)));
        }
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<PartitionId> {
    let numbers = list.elements().into_iter().filter_map(|element| u32::try_from(element.partition()).ok());
    numbers.map(PartitionId).collect()
}

impl Membership {
    /// Joins the group. `handle` is called on the membership's own thread; others wait for partitions that are lost until
    /// it returns.
    ///
    /// # Errors
    /// Where the client cannot be made, or the operating system gives no thread.
    pub fn join(settings: &KafkaSettings, handle: impl Fn(Assignment) + Send + Sync + 'static) -> KafkaResult<Self> {
        let consumer: BaseConsumer<Group<_>> = settings
            .client()
            .set("group.id", format!("{}.owners", settings.group))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "2000")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "latest")
            .create_with_context(Group { handle })?;
        consumer.subscribe(&[&settings.journal_topic])?;
        let leaving = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&leaving);
        let run = move || {
            while !told.load(Ordering::Acquire) {
                // What little arrives before a partition is paused is of no interest here.
                if let Some(Err(error)) = consumer.poll(POLL) {
                    tracing::warn!(error = %error, "the membership is disturbed");
                    std::thread::sleep(POLL);
                }
            }
            consumer.unsubscribe();
            // The goodbye is part of the poll that the closing of the consumer does.
        };
        let thread = std::thread::Builder::new().name("kafka-member".to_owned()).spawn(run);
        let thread = thread.map_err(|error| rdkafka::error::KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { leaving, thread: Some(thread) })
    }

    /// Leaves the group: every partition is lost and handled first; blocks.
    pub fn leave(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.leaving.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the membership panicked");
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.end();
    }
}
