//! What every adapter must do, asked of each in the same words.

use super::*;
use crate::domain::id::{Log, PartitionId, Position};
use crate::domain::time::Timestamp;
use bytes::Bytes;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

#[cfg(feature = "kafka")]
mod kafka;

const P0: Log = Log::Partition(PartitionId(0));
const P1: Log = Log::Partition(PartitionId(1));

static NOW: AtomicI64 = AtomicI64::new(1_000);

/// Steps back now and then, as clocks do.
fn wobbling_clock() -> Timestamp {
    let n = NOW.fetch_add(10, Ordering::Relaxed);
    Timestamp(if n % 30 == 0 { n - 500 } else { n })
}

fn open(path: &Path) -> SqliteJournal {
    SqliteJournal::open(path, 2, wobbling_clock).unwrap()
}

async fn adapters(folder: &Path) -> Vec<Journal> {
    let mut adapters = vec![Journal::Memory(MemoryJournal::new(2)), Journal::Sqlite(open(&folder.join("journal.db")))];
    #[cfg(feature = "kafka")]
    for settings in kafka::clusters().await {
        adapters.push(Journal::Kafka(KafkaJournal::connect(settings).await.unwrap()));
    }
    adapters
}

/// Reads until so many records came: a read returns at least one, not all.
fn read_all(journal: &Journal, log: Log, after: Position, count: usize) -> Vec<Record> {
    let mut all: Vec<Record> = Vec::new();
    while all.len() < count {
        let after = all.last().map_or(after, |record| record.position);
        all.extend(journal.read(log, after, count - all.len(), usize::MAX).unwrap());
    }
    all
}

fn payload(n: usize) -> Bytes {
    Bytes::from(format!("record {n}"))
}

#[tokio::test]
async fn records_come_back_in_order_and_within_bounds() {
    let folder = tempfile::tempdir().unwrap();
    for journal in adapters(folder.path()).await {
        assert_eq!(journal.append(vec![]).await.unwrap(), vec![]);
        let batch = (0..10).map(|n| (if n % 2 == 0 { P0 } else { P1 }, payload(n))).collect();
        let stamps = journal.append(batch).await.unwrap();
        assert_eq!(stamps.len(), 10);
        assert_eq!(journal.end(P0), stamps[8].position);
        assert_eq!(journal.end(Log::Control), Position::START);
        let all = read_all(&journal, P0, Position::START, 5);
        let texts: Vec<_> = all.iter().map(|record| record.payload.clone()).collect();
        assert_eq!(texts, [0, 2, 4, 6, 8].map(payload));
        assert!(
            all.windows(2)
                .all(|pair| pair[0].position < pair[1].position && pair[0].recorded_at <= pair[1].recorded_at)
        );
        assert_eq!(read_all(&journal, P0, all[1].position, 2), all[2..4]);
        let some = journal.read(P0, Position::START, 100, 1).unwrap();
        assert!(some.len() <= 1, "within its bounds");
        assert_eq!(read_all(&journal, P0, Position::START, 1).len(), 1, "at least one, whatever its size");
        assert_eq!(journal.read(P0, all[4].position, 100, usize::MAX).unwrap(), []);
        let large = Bytes::from(vec![7; 4 << 20]);
        let stamp = journal.append(vec![(P1, large.clone())]).await.unwrap()[0];
        assert_eq!(read_all(&journal, P1, Position(stamp.position.0 - 1), 1)[0].payload, large);
        assert_eq!(journal.end_now(P1).unwrap(), stamp.position);
    }
}

#[tokio::test]
async fn waiting_ends_when_something_is_there() {
    let folder = tempfile::tempdir().unwrap();
    for journal in adapters(folder.path()).await {
        let waiting = tokio::spawn({
            let journal = journal.clone();
            async move { journal.wait_beyond(P1, Position::START).await }
        });
        journal.append(vec![(P0, payload(0))]).await.unwrap();
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        journal.append(vec![(P1, payload(1))]).await.unwrap();
        waiting.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_at_once_get_places_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    for journal in adapters(folder.path()).await {
        let tasks: Vec<_> = (0..40)
            .map(|n| {
                let journal = journal.clone();
                tokio::spawn(async move { journal.append(vec![(P0, payload(n)), (P0, payload(n))]).await.unwrap() })
            })
            .collect();
        let mut positions = Vec::new();
        for task in tasks {
            let stamps = task.await.unwrap();
            assert!(stamps[0].position < stamps[1].position, "a batch stays in order");
            positions.extend(stamps.into_iter().map(|stamp| stamp.position));
        }
        positions.sort_unstable();
        positions.dedup();
        assert_eq!(positions.len(), 80);
    }
}

#[tokio::test]
async fn a_reopened_journal_goes_on_where_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = Journal::Sqlite(open(&path));
    journal.append((0..100).map(|n| (P0, payload(n))).collect()).await.unwrap();
    drop(journal);
    let journal = Journal::Sqlite(open(&path));
    assert_eq!(journal.end(P0), Position(100));
    let stamp = journal.append(vec![(P0, payload(100))]).await.unwrap()[0];
    assert_eq!(stamp.position, Position(101));
    let all = journal.read(P0, Position::START, 1_000, usize::MAX).unwrap();
    assert_eq!(all.len(), 101);
    assert!(all.windows(2).all(|pair| pair[0].recorded_at <= pair[1].recorded_at));
    drop(journal);
    let refused = SqliteJournal::open(&path, 3, wobbling_clock).unwrap_err();
    assert_eq!(refused, OpenError::Partitions { found: 2, wanted: 3 });
}

#[tokio::test]
async fn damage_is_found_and_named() {
    let check = async |sql: &str, at: u64, says: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let journal = Journal::Sqlite(open(&path));
        journal.append((0..200).map(|n| (P0, payload(n))).collect()).await.unwrap();
        drop(journal);
        rusqlite::Connection::open(&path).unwrap().execute(sql, []).unwrap();
        // Near the end it is found at once; further back, when it is read.
        let error = match SqliteJournal::open(&path, 2, wobbling_clock) {
            Err(error) => {
                assert!(at > 136, "{sql}: found too early");
                error.to_string()
            }
            Ok(journal) => {
                Journal::Sqlite(journal).read(P0, Position::START, 1_000, usize::MAX).unwrap_err().to_string()
            }
        };
        assert!(error.contains(says) && error.contains("p0"), "{sql}: {error}");
    };
    check("UPDATE records SET payload = x'00' WHERE position = 190", 190, "record 190").await;
    check("UPDATE records SET payload = x'00' WHERE position = 20", 20, "record 20").await;
    check("UPDATE records SET recorded_at = recorded_at + 1 WHERE position = 200", 200, "record 200").await;
    check("DELETE FROM records WHERE position = 180", 180, "record 181 where 180").await;
    check("DELETE FROM records WHERE position = 1", 1, "record 2 where 1").await;
}

#[tokio::test]
async fn a_failed_append_may_or_may_not_be_in() {
    let memory = MemoryJournal::new(2);
    let journal = Journal::Memory(memory.clone());
    memory.fail_next(super::memory::Fault::Before);
    assert!(journal.append(vec![(P0, payload(1))]).await.is_err());
    assert_eq!(journal.end(P0), Position::START);
    memory.fail_next(super::memory::Fault::After);
    assert!(journal.append(vec![(P0, payload(1))]).await.is_err());
    assert_eq!(journal.end(P0), Position(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_ends_leaves_nothing_in_its_wal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let wal = || std::fs::metadata(folder.path().join("journal.db-wal")).map_or(0, |metadata| metadata.len());
    let journal = Journal::Sqlite(open(&path));
    let lingering = journal.clone();
    journal.append((0..50).map(|n| (P0, payload(n))).collect()).await.unwrap();
    assert!(wal() > 0);
    let closing = journal.clone();
    tokio::task::spawn_blocking(move || closing.close()).await.unwrap();
    assert_eq!(wal(), 0, "though handles are left");
    assert_eq!(lingering.append(vec![(P0, payload(50))]).await, Err(AppendError::Closed));
    assert_eq!(lingering.read(P0, Position(49), 10, usize::MAX).unwrap().len(), 1);
    drop((journal, lingering));
    let journal = Journal::Sqlite(open(&path));
    journal.append(vec![(P0, payload(50))]).await.unwrap();
    drop(journal);
    assert_eq!(wal(), 0, "the last handle waits for the writer");
}

#[tokio::test]
async fn who_reads_beside_a_writer_sees_one_moment_and_appends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    assert!(matches!(SqliteJournal::open_to_read(&path, 2), Err(OpenError::Storage { .. })), "none is made");
    std::fs::write(&path, "").unwrap();
    let blank = Journal::Sqlite(SqliteJournal::open_to_read(&path, 2).unwrap());
    assert_eq!((blank.end(P0), blank.end(Log::Control)), (Position::START, Position::START));
    drop(blank);
    let writer = Journal::Sqlite(open(&path));
    writer.append((0..50).map(|n| (P0, payload(n))).collect()).await.unwrap();
    let reader = Journal::Sqlite(SqliteJournal::open_to_read(&path, 2).unwrap());
    writer.append(vec![(P0, payload(50))]).await.unwrap();
    assert_eq!((reader.end(P0), writer.end(P0)), (Position(50), Position(51)));
    assert_eq!(read_all(&reader, P0, Position::START, 50), read_all(&writer, P0, Position::START, 50));
    assert_eq!(reader.append(vec![(P0, payload(51))]).await, Err(AppendError::Closed));
    let refused = SqliteJournal::open_to_read(&path, 3).unwrap_err();
    assert_eq!(refused, OpenError::Partitions { found: 2, wanted: 3 });
}
