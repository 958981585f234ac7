//! What Kafka adds to the contract: several nodes, membership, topics, gaps. What needs no topic checks is asked of a mock
//! cluster as well, which is always there.

use super::*;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;

/// A real broker. Where one is required and not named, the tests fail instead of passing it over.
#[expect(clippy::disallowed_methods, reason = "where the services of a test are is no configuration of the product")]
fn brokers() -> Option<String> {
    let named = std::env::var("HIGHWATER_TEST_KAFKA").ok();
    let required = std::env::var("HIGHWATER_TEST_SERVICES").is_ok_and(|value| value == "required");
    assert!(named.is_some() || !required, "HIGHWATER_TEST_KAFKA is not set; scripts/services up starts a broker");
    named
}

/// Topics that no other test uses.
fn fresh_topics(brokers: &str) -> KafkaSettings {
    static NUMBER: AtomicI64 = AtomicI64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut random = [0_u8; 6];
    getrandom::fill(&mut random).unwrap();
    let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    KafkaSettings::parse(&format!("kafka://{brokers}?partitions=2&prefix=contract-{random}-{number}")).unwrap()
}

type Mock = MockCluster<'static, DefaultProducerContext>;
type Work = Box<dyn FnOnce(&Mock) + Send>;

/// Does something with a mock cluster that all tests share; it lives as long as the process, on a thread of its own.
fn with_mock<T: Send + 'static>(work: impl FnOnce(&Mock) -> T + Send + 'static) -> T {
    static MOCK: OnceLock<mpsc::Sender<Work>> = OnceLock::new();
    let mock = MOCK.get_or_init(|| {
        let (sender, works) = mpsc::channel::<Work>();
        std::thread::spawn(move || {
            let mock = Mock::new(1).unwrap();
            works.iter().for_each(|work| work(&mock));
        });
        sender
    });
    let (answer, answered) = mpsc::channel();
    mock.send(Box::new(move |mock| answer.send(work(mock)).unwrap())).unwrap();
    answered.recv().unwrap()
}

fn make_topics(mock: &Mock, settings: &KafkaSettings) {
    mock.create_topic(&settings.control_topic, 1, 1).unwrap();
    mock.create_topic(&settings.journal_topic, 2, 1).unwrap();
}

/// Fresh topics in the mock cluster, and on a real broker where there is one.
pub(super) async fn clusters() -> Vec<KafkaSettings> {
    let mut clusters = vec![with_mock(|mock| {
        let settings = fresh_topics(&mock.bootstrap_servers());
        make_topics(mock, &settings);
        settings
    })];
    if let Some(brokers) = brokers() {
        let settings = fresh_topics(&brokers);
        drop(KafkaJournal::open(settings.clone()).await.unwrap());
        clusters.push(settings);
    }
    clusters
}

#[test]
fn what_must_be_there_is_waited_for() {
    let mock = Mock::new(1).unwrap();
    let settings = fresh_topics(&mock.bootstrap_servers());
    make_topics(&mock, &settings);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let journal = Journal::Kafka(runtime.block_on(KafkaJournal::connect(settings.clone())).unwrap());
    runtime.block_on(journal.append((0..10).map(|n| (P0, payload(n))).collect())).unwrap();
    // A broker that takes its time: a read gives up after half a second.
    mock.broker_round_trip_time(-1, Duration::from_millis(900)).unwrap();
    assert_eq!(journal.read(P0, Position::START, 10, usize::MAX).unwrap(), []);
    let known = journal.read_known(P0, Position::START, 10, usize::MAX).unwrap();
    assert_eq!(known.first().map(|record| record.payload.clone()), Some(payload(0)));
}

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_appends_the_others_see() {
    for settings in clusters().await {
        let first = Journal::Kafka(KafkaJournal::connect(settings.clone()).await.unwrap());
        first.append(vec![(P0, payload(0))]).await.unwrap();
        let second = Journal::Kafka(KafkaJournal::connect(settings).await.unwrap());
        assert_eq!(second.end(P0), Position(1), "what was there when it was opened");
        let waiting = tokio::spawn({
            let second = second.clone();
            async move { second.wait_beyond(P0, Position(1)).await }
        });
        first.append(vec![(P0, payload(1))]).await.unwrap();
        waiting.await.unwrap();
        assert_eq!(read_all(&second, P0, Position(1), 1)[0].payload, payload(1));
        second.append(vec![(P0, payload(2))]).await.unwrap();
        assert_eq!(first.end_now(P0).unwrap(), Position(3));
        assert_eq!(read_all(&first, P0, Position::START, 3), read_all(&second, P0, Position::START, 3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_an_error_that_says_what_was_lost() {
    let Some(brokers) = brokers() else { return };
    let settings = fresh_topics(&brokers);
    let journal = Journal::Kafka(KafkaJournal::open(settings.clone()).await.unwrap());
    journal.append((0..10).map(|n| (P0, payload(n))).collect()).await.unwrap();
    let mut cut = TopicPartitionList::new();
    cut.add_partition_offset(&settings.journal_topic, 0, Offset::Offset(4)).unwrap();
    admin(&brokers).delete_records(&cut, &AdminOptions::new()).await.unwrap();
    let gap = ReadError::Gap { log: P0, expected: Position(3), found: Position(5) };
    let found = loop {
        match journal.read(P0, Position(2), 10, usize::MAX) {
            Ok(records) => assert_eq!(records, [], "nothing is passed over"),
            Err(error) => break error,
        }
    };
    assert_eq!(found, gap);
    assert_eq!(read_all(&journal, P0, Position(4), 6).len(), 6, "what is still there is read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_anew_is_not_taken_for_the_old_one() {
    let Some(brokers) = brokers() else { return };
    let settings = fresh_topics(&brokers);
    let journal = Journal::Kafka(KafkaJournal::open(settings.clone()).await.unwrap());
    journal.append((0..10).map(|n| (P0, payload(n))).collect()).await.unwrap();
    assert_eq!(read_all(&journal, P0, Position::START, 10).len(), 10);
    for deleted in admin(&brokers).delete_topics(&[&settings.journal_topic], &AdminOptions::new()).await.unwrap() {
        deleted.unwrap();
    }
    let again = loop {
        // The brokers may still be about to forget the old one.
        tokio::time::sleep(Duration::from_millis(200)).await;
        if let Ok(journal) = KafkaJournal::open(settings.clone()).await {
            break Journal::Kafka(journal);
        }
    };
    again.append((0..3).map(|n| (P0, payload(n))).collect()).await.unwrap();
    let found = (0..120).find_map(|_| journal.read(P0, Position(10), 10, usize::MAX).err());
    // Whether the new topic's records are known to the reader already is the brokers' matter.
    let Some(ReadError::CutBack { log: P0, read: Position(10), end }) = found else { panic!("{found:?}") };
    assert!(end <= Position(3), "{end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_topic_is_named_and_left_alone() {
    let Some(brokers) = brokers() else { return };
    let settings = fresh_topics(&brokers);
    let topic = NewTopic::new(&settings.control_topic, 1, TopicReplication::Fixed(1));
    admin(&brokers).create_topics([&topic], &AdminOptions::new()).await.unwrap();
    let error = KafkaJournal::open(settings).await.unwrap_err().to_string();
    assert!(error.contains(".control") && error.contains("CreateTime, it must be LogAppendTime"), "{error}");
    let settings = fresh_topics(&brokers);
    drop(KafkaJournal::open(settings.clone()).await.unwrap());
    let error = KafkaJournal::open(KafkaSettings { partitions: 3, ..settings }).await.unwrap_err();
    assert_eq!(error, OpenError::Partitions { found: 2, wanted: 3 });
    let nobody = KafkaSettings::parse("kafka://127.0.0.1:1?partitions=1").unwrap();
    assert!(matches!(KafkaJournal::open(nobody).await, Err(OpenError::Storage { .. })));
}

/// What a member holds, as it is told.
#[derive(Clone, Default)]
struct Share(std::sync::Arc<std::sync::Mutex<std::collections::BTreeSet<PartitionId>>>);

impl Share {
    fn handle(&self) -> impl Fn(Assignment) + Send + Sync + 'static {
        let held = self.0.clone();
        move |assignment| {
            let mut held = held.lock().unwrap();
            match assignment {
                Assignment::Taken(taken) => held.extend(taken),
                Assignment::Lost(lost) => lost.iter().for_each(|partition| assert!(held.remove(partition))),
            }
        }
    }

    fn wait(&self, what: &str, fits: impl Fn(usize) -> bool) {
        for _ in 0..600 {
            if fits(self.0.lock().unwrap().len()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("{what}: holds {:?}", self.0.lock().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_share_the_partitions_and_hand_them_over() {
    for settings in clusters().await {
        let (first, second) = (Share::default(), Share::default());
        let one = Membership::join(&settings, 2, first.handle()).unwrap();
        first.wait("the only member has all", |count| count == 2);
        let two = Membership::join(&settings, 3, second.handle()).unwrap();
        second.wait("the second gets its share", |count| count == 1);
        first.wait("which the first gave up before", |count| count == 1);
        // The mock cluster lists no members.
        if brokers().as_ref() == Some(&settings.brokers) {
            let journal = KafkaJournal::connect(settings.clone()).await.unwrap();
            assert_eq!(listed_versions(journal).await, BTreeSet::from([2, 3]));
        }
        one.leave();
        assert!(first.0.lock().unwrap().is_empty(), "everything is handled before it is left");
        second.wait("who stays gets the rest", |count| count == 2);
        two.leave();
        assert!(second.0.lock().unwrap().is_empty());
    }
}

/// The engine versions that the members of the group say, once it has two.
async fn listed_versions(journal: KafkaJournal) -> BTreeSet<u32> {
    let list = move || {
        for _ in 0..100 {
            // Of a group that shares out anew it is not said who its members are.
            match journal.members() {
                Ok(members) if members.len() == 2 => {
                    return members.into_iter().filter_map(|member| member.engine_version).collect();
                }
                Ok(_) | Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        BTreeSet::new()
    };
    tokio::task::spawn_blocking(list).await.unwrap()
}
