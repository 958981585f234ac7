//! Several partitions of a node that write at once.

use super::place::{P, Place};
use super::sample::{effects, progress, seeds};
use crate::domain::id::{PartitionId, WorkspaceId};
use crate::domain::partition::effect::Effects;
use crate::store::{ClickHouseSettings, ClickHouseStore, Store, StoreError};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use std::sync::Barrier;

const WRITERS: u32 = 16;

/// Partition n writes rows of workspace n + 1; the answers, by partition.
fn written_at_once(store: &ClickHouseStore) -> Vec<Result<(), StoreError>> {
    let tree = proptest::collection::vec(seeds(), 20).new_tree(&mut TestRunner::deterministic()).unwrap();
    let (store, seeds) = (Store::ClickHouse(store.clone()), tree.current());
    let together = Barrier::new(usize::try_from(WRITERS).unwrap());
    std::thread::scope(|scope| {
        let writers = (0..WRITERS).map(|n| {
            let effects: Effects = effects(u128::from(n) + 1, &seeds);
            let (store, together) = (&store, &together);
            scope.spawn(move || {
                together.wait();
                store.write_blocking(PartitionId(n), effects.into(), progress(u64::from(n) + 1))
            })
        });
        let writers: Vec<_> = writers.collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    })
}

fn counted(store: &ClickHouseStore, sql: &str) -> u32 {
    store.ask(&format!("SELECT toString(count()) {sql}")).unwrap()[0].parse().unwrap()
}

#[tokio::test]
async fn partitions_that_write_at_once_make_few_parts() {
    let Some(place) = Place::clickhouse() else { return };
    let store = place.other_node(ClickHouseSettings::default());
    for answer in written_at_once(&store) {
        answer.unwrap();
    }
    let reached = Store::ClickHouse(store.clone()).progress_all().await.unwrap();
    let expected: Vec<_> = (0..WRITERS).map(|n| (PartitionId(n), progress(u64::from(n) + 1))).collect();
    assert_eq!(reached.into_iter().collect::<Vec<_>>(), expected);
    let workspaces = store.ask("SELECT toString(uniqExact(workspace)) FROM usage_windows").unwrap();
    assert_eq!(workspaces, [WRITERS.to_string()]);
    let parts =
        counted(&store, "FROM system.parts WHERE database = currentDatabase() AND table = 'positions' AND active");
    assert!(parts <= WRITERS / 2, "{parts} parts of {WRITERS} writes");
}

#[test]
fn what_is_refused_of_one_partition_keeps_no_others_out() {
    let Some(place) = Place::clickhouse() else { return };
    let store = place.other_node(ClickHouseSettings::default());
    let refused = WorkspaceId(4);
    store.tell(&format!("ALTER TABLE accounts ADD CONSTRAINT test CHECK workspace != '{refused}'")).unwrap();
    for (n, answer) in written_at_once(&store).into_iter().enumerate() {
        let is_refused = matches!(answer, Err(StoreError::Refused { code: 469, .. }));
        assert_eq!(is_refused, n == 3, "partition {n}: {answer:?}");
        assert!(is_refused || answer.is_ok(), "partition {n}: {answer:?}");
    }
    assert_eq!(counted(&store, "FROM positions WHERE partition = 3"), 0);
    assert_eq!(counted(&store, &format!("FROM positions WHERE partition != 3 AND partition >= {}", P.0)), WRITERS - 1);
}
