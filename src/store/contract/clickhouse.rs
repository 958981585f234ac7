//! What only a store on a server does: migrations by several nodes, retention, the view for people, other nodes' writes.

use super::place::{P, Place, settings};
use super::sample::{effects, progress, seeds};
use crate::domain::id::{Position, Tenant};
use crate::domain::partition::effect::Effects;
use crate::store::{ClickHouseSettings, ClickHouseStore, Keep, Retention, Store, StoreError, WindowQuery};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

fn store(place: &Place) -> &ClickHouseStore {
    match &place.store {
        Store::ClickHouse(store) => store,
        Store::Sqlite(_) => panic!("another store"),
    }
}

fn some_effects(workspace: u128) -> Effects {
    let tree = proptest::collection::vec(seeds(), 300).new_tree(&mut TestRunner::deterministic()).unwrap();
    effects(workspace, &tree.current())
}

#[test]
fn several_nodes_may_start_at_once_and_an_older_release_may_not() {
    let Some(place) = Place::clickhouse() else { return };
    store(&place).drop_database().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| place.other_node(settings()).ask("SELECT name FROM migrations").unwrap());
        }
    });
    let versions = "SELECT toString(version) FROM migrations GROUP BY version ORDER BY version";
    assert_eq!(store(&place).ask(versions).unwrap(), ["1", "2", "3", "4", "5", "6"]);
    let later = "INSERT INTO migrations (version, name) VALUES (1000, 'of a later release')";
    store(&place).tell(later).unwrap();
    let error = ClickHouseStore::open(place.address(), settings()).unwrap_err();
    assert_eq!(error, StoreError::TooNew { found: 1_000, known: 6 });
}

#[test]
fn rows_are_kept_as_long_as_is_said() {
    let Some(place) = Place::clickhouse() else { return };
    let kept = || {
        let sql = "SELECT extract(engine_full, 'TTL .* SETTINGS') FROM system.tables
                   WHERE database = currentDatabase() AND name IN ('usage_windows', 'quarantine') ORDER BY name";
        store(&place).ask(sql).unwrap()
    };
    assert_eq!(kept(), ["", ""]);
    let retention = Retention { windows: Keep::Days(400), quarantine: Keep::Days(30), ..Retention::default() };
    for _ in 0..2 {
        drop(place.other_node(ClickHouseSettings { retention, ..settings() }));
        let wanted =
            ["TTL toDateTime(at) + toIntervalDay(30) SETTINGS", "TTL toDateTime(start) + toIntervalDay(400) SETTINGS"];
        assert_eq!(kept(), wanted);
    }
    // Who says nothing, such as a command line without it, changes nothing.
    drop(place.other_node(settings()));
    let retention = Retention { windows: Keep::Days(40), quarantine: Keep::Forever, ..Retention::default() };
    drop(place.other_node(ClickHouseSettings { retention, ..settings() }));
    assert_eq!(kept(), ["", "TTL toDateTime(start) + toIntervalDay(40) SETTINGS"]);
}

#[tokio::test]
async fn the_view_shows_what_the_api_answers() {
    let Some(place) = Place::clickhouse() else { return };
    let effects = some_effects(1);
    place.write(&effects, 1);
    // Older rows after newer ones, each in a write of its own.
    let mut windows = effects.windows.clone();
    windows.sort_by_key(|row| std::cmp::Reverse(row.revision));
    for row in windows {
        place.write(&Effects { windows: vec![row], ..Effects::default() }, 2);
    }
    for row in &effects.windows {
        let key = &row.series;
        let Tenant { workspace, mode } = key.tenant;
        let newest = effects.accounts.iter().filter(|a| a.tenant == key.tenant && a.account == key.account);
        if newest.map(|account| account.epoch).max() != Some(key.epoch) {
            continue;
        }
        let query = WindowQuery {
            tenant: key.tenant,
            epoch: key.epoch,
            account: key.account.clone(),
            metric: Some(key.metric.clone()),
            from: row.start,
            to: row.start.plus(crate::domain::time::WINDOW),
            width: crate::domain::time::WINDOW,
            groups: !key.group.is_empty(),
        };
        let [point] = &place.store.windows(query).await.unwrap()[..] else { panic!("one window") };
        let seen = point.aggregate;
        let numbers = [seen.sum, seen.min, seen.max, seen.last].map(|amount| amount.to_string()).join(" ");
        let sql = format!(
            "SELECT concat(toString(events), ' ', toString(sum), ' ', toString(min), ' ', toString(max), ' ',
               toString(last), ' ', toString(late_events), ' ', toString(revision)) FROM usage_5m
             WHERE workspace = '{workspace}' AND mode = '{}' AND account = '{}' AND metric = '{}' AND empty(grp) = {}
               AND start = fromUnixTimestamp64Milli({})",
            mode.name(),
            key.account,
            key.metric,
            key.group.is_empty(),
            row.start.0
        );
        let wanted = format!("{} {numbers} {} {}", seen.count, point.late_events, point.revision);
        assert_eq!(store(&place).ask(&sql).unwrap(), [wanted]);
    }
}

#[tokio::test]
async fn a_node_hears_of_what_another_one_wrote() {
    let Some(place) = Place::clickhouse() else { return };
    let other = Store::ClickHouse(place.other_node(settings()));
    let waiting = tokio::spawn(async move { other.wait_for(P, Position(5)).await });
    place.write(&Effects::default(), 4);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    place.write(&Effects::default(), 5);
    let patience = std::time::Duration::from_secs(20);
    tokio::time::timeout(patience, waiting).await.unwrap().unwrap();
    // A node that starts later knows without waiting.
    let third = Store::ClickHouse(place.other_node(settings()));
    tokio::time::timeout(patience, third.wait_for(P, Position(5))).await.unwrap();
}

#[test]
fn what_the_server_refuses_is_told_apart() {
    let Some(place) = Place::clickhouse() else { return };
    store(&place).tell("DROP TABLE accounts").unwrap();
    let error = place.store.write_blocking(P, some_effects(1).into(), progress(9)).unwrap_err();
    assert!(matches!(error, StoreError::Refused { code: 60, .. }), "{error}");
    let reached = store(&place).ask("SELECT toString(count()) FROM positions").unwrap();
    assert_eq!(reached, ["0"], "the position is written last");
    let windows = store(&place).ask("SELECT toString(count() > 0) FROM usage_windows").unwrap();
    assert_eq!(windows, ["1"], "rows are written first");
}
