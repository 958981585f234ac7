//! Who owns which partition: membership in a consumer group. Kafka shares the partitions out; nothing is read or committed
//! through it.

use super::{ASK_TIMEOUT, KafkaSettings};
use crate::domain::id::PartitionId;
use crate::journal::port::{Member, ReadError};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaResult;
use rdkafka::{ClientContext, TopicPartitionList};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const POLL: Duration = Duration::from_millis(100);
/// What stands between a member's client id and the engine version that it folds at most. The client sends no user data
/// along with a membership, so the id has to say it.
const ENGINE_MARK: &str = ".engine-";
/// The state in which a group lists all of its members.
const STABLE: &str = "Stable";

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

/// The name of the group that shares the partitions out.
fn group_id(settings: &KafkaSettings) -> String {
    format!("{}.owners", settings.group)
}

/// The engine version that a client id names; none where the member's release says nothing of it.
fn engine_version_of(client_id: &str) -> Option<u32> {
    client_id.rsplit_once(ENGINE_MARK)?.1.parse().ok().filter(|version| *version > 0)
}

/// Reads the members of the group of owners from the brokers; blocks.
///
/// # Errors
/// Where the brokers do not answer, or the group does not list all of its members at the moment: it has none, or shares
/// the partitions out anew.
pub(super) fn members<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    settings: &KafkaSettings,
) -> Result<Vec<Member>, ReadError> {
    let storage = |detail: String| ReadError::Storage { detail };
    let name = group_id(settings);
    let list = consumer.fetch_group_list(Some(&name), ASK_TIMEOUT).map_err(|error| storage(error.to_string()))?;
    let group = list.groups().iter().find(|group| group.name() == name);
    let group = group.ok_or_else(|| storage(format!("the brokers do not know the group {name}")))?;
    if group.state() != STABLE || group.members().is_empty() {
        let (state, count) = (group.state(), group.members().len());
        return Err(storage(format!(
            "the group {name} is in state {state:?} with {count} members, expected {STABLE:?}"
        )));
    }
    let member = |member: &rdkafka::groups::GroupMemberInfo| Member {
        host: member.client_host().trim_start_matches('/').to_owned(),
        engine_version: engine_version_of(member.client_id()),
    };
    Ok(group.members().iter().map(member).collect())
}

impl Membership {
    /// Joins the group, as a member that folds up to an engine version. `handle` is called on the membership's own thread;
    /// others wait for partitions that are lost until it returns.
    ///
    /// # Errors
    /// Where the client cannot be made, or the operating system gives no thread.
    pub fn join(
        settings: &KafkaSettings,
        engine_version: u32,
        handle: impl Fn(Assignment) + Send + Sync + 'static,
    ) -> KafkaResult<Self> {
        let mut config = settings.client();
        let client_id = config.get("client.id").unwrap_or_default().to_owned();
        let consumer: BaseConsumer<Group<_>> = config
            .set("client.id", format!("{client_id}{ENGINE_MARK}{engine_version}"))
            .set("group.id", group_id(settings))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_names_an_engine_version_or_none() {
        for (client_id, version) in [
            ("highwater.engine-3", Some(3)),
            ("billing.engine-9.engine-12", Some(12)),
            ("highwater", None),
            ("", None),
            ("highwater.engine-", None),
            ("highwater.engine-0", None),
            ("highwater.engine-x", None),
            ("highwater.engine-3.other", None),
        ] {
            assert_eq!(engine_version_of(client_id), version, "{client_id}");
        }
    }
}
