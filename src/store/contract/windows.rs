//! Windows: their parts merge, the newest row wins, and waiting for them ends.

use super::place::{P, Place};
use crate::domain::id::{AccountId, Epoch, MetricName, Mode, Position, Tenant, WorkspaceId};
use crate::domain::partition::aggregate::Aggregate;
use crate::domain::partition::effect::{Effects, SeriesKey, WindowRow};
use crate::domain::quantity::Quantity;
use crate::domain::time::{Millis, Timestamp, WINDOW};
use crate::store::{GroupQuery, MetricQuery, WindowQuery};
use proptest::prelude::*;
use std::ops::ControlFlow;

fn tenant(n: u128) -> Tenant {
    Tenant { workspace: WorkspaceId(n), mode: Mode::Live }
}

fn window(tenant: Tenant, metric: &str, start: i64, part: u64, values: &[i64], revision: u64) -> WindowRow {
    let mut aggregate = Aggregate::default();
    for (n, value) in values.iter().enumerate() {
        aggregate.add(Quantity::whole(*value), Timestamp(start * WINDOW.0 + n as i64));
    }
    WindowRow {
        series: SeriesKey {
            tenant,
            epoch: Epoch(0),
            account: AccountId::new("acme").unwrap(),
            metric: MetricName::new(metric).unwrap(),
            group: String::new(),
        },
        start: Timestamp(start * WINDOW.0),
        part: Position(part),
        aggregate,
        late_events: 0,
        revision: Position(revision),
    }
}

fn write(place: &Place, rows: Vec<WindowRow>, up_to: u64) {
    place.write(&Effects { windows: rows, ..Effects::default() }, up_to);
}

fn query(tenant: Tenant, width: Millis) -> WindowQuery {
    WindowQuery {
        tenant,
        epoch: Epoch(0),
        account: AccountId::new("acme").unwrap(),
        metric: None,
        from: Timestamp(0),
        to: Timestamp(i64::MAX),
        width,
        groups: false,
    }
}

#[tokio::test]
async fn parts_merge_and_windows_add_up() {
    for place in Place::all() {
        let store = place.store.clone();
        let t = tenant(1);
        let large = window(t, "big", 0, 1, &[i64::MAX, i64::MAX, i64::MAX], 1);
        write(
            &place,
            vec![
                window(t, "api", 0, 1, &[1, 2], 3),
                window(t, "api", 1, 2, &[5], 2),
                window(t, "api", 0, 9, &[-4], 9),
                large,
            ],
            9,
        );
        let points = store.windows(query(t, WINDOW)).await.unwrap();
        let seen: Vec<_> =
            points.iter().map(|p| (p.metric.as_str(), p.start.0 / WINDOW.0, p.aggregate.sum, p.revision.0)).collect();
        let huge = Quantity::whole(i64::MAX).plus(Quantity::whole(i64::MAX)).plus(Quantity::whole(i64::MAX));
        assert_eq!(seen, [("api", 0, Quantity::whole(-1), 9), ("api", 1, Quantity::whole(5), 2), ("big", 0, huge, 1)]);
        assert_eq!(
            (points[0].aggregate.count, points[0].aggregate.min, points[0].aggregate.last),
            (3, Quantity::whole(-4), Quantity::whole(2))
        );
        let wide = store.windows(query(t, Millis::minutes(15))).await.unwrap();
        assert_eq!((wide.len(), wide[0].aggregate.sum), (2, Quantity::whole(4)));
        assert_eq!(store.windows(query(tenant(2), WINDOW)).await.unwrap(), []);
        assert_eq!(store.metrics_of(t, Epoch(0), AccountId::new("acme").unwrap()).await.unwrap().len(), 2);
        assert_eq!(store.metrics_of(t, Epoch(1), AccountId::new("acme").unwrap()).await.unwrap().len(), 0);
    }
}

#[tokio::test]
async fn the_newest_row_of_a_window_counts_whenever_it_was_written() {
    for place in Place::all() {
        for revision in [2, 4, 3, 1, 4] {
            write(&place, vec![window(tenant(1), "api", 0, 1, &[revision as i64], revision)], 1);
        }
        let points = place.store.windows(query(tenant(1), WINDOW)).await.unwrap();
        assert_eq!(points.len(), 1);
        assert_eq!(
            (points[0].aggregate.sum, points[0].aggregate.count, points[0].revision.0),
            (Quantity::whole(4), 1, 4)
        );
    }
}

#[tokio::test]
async fn waiting_ends_when_the_position_is_stored() {
    for place in Place::all() {
        let store = place.store.clone();
        let waiting = tokio::spawn({
            let store = store.clone();
            async move { store.wait_for(P, Position(5)).await }
        });
        write(&place, vec![], 4);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        write(&place, vec![], 5);
        waiting.await.unwrap();
        write(&place, vec![], 3);
        assert_eq!(place.reached().await.unwrap().position, Position(5), "progress never goes back");
    }
}

#[tokio::test]
async fn groups_and_metrics_that_ever_were_are_told() {
    for place in Place::all() {
        let grouped = |metric: &str, group: &str, start: i64| {
            let mut row = window(tenant(1), metric, start, 1, &[1], 1);
            row.series.group = group.to_owned();
            row
        };
        let (eu, us) = ("{\"region\":\"eu\"}", "{\"region\":\"us\"}");
        let rows = vec![
            grouped("api", "", 0),
            grouped("api", eu, 0),
            grouped("api", eu, 1),
            grouped("api", us, 9),
            grouped("other", "", 0),
        ];
        write(&place, rows, 9);
        let groups = async |query: GroupQuery, most: usize| {
            let (sender, seen) = std::sync::mpsc::channel();
            let mut left = most;
            let take = move |group: &str| {
                sender.send(group.to_owned()).unwrap();
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            place.store.groups(query, take).await.unwrap();
            let mut seen: Vec<String> = seen.iter().collect();
            seen.sort_unstable();
            seen
        };
        let account = AccountId::new("acme").unwrap();
        let of = |metric: &str| MetricName::new(metric).unwrap();
        let query = GroupQuery { tenant: tenant(1), epoch: Epoch(0), account, metric: of("api") };
        assert_eq!(groups(query.clone(), 9).await, [eu, us]);
        assert_eq!(groups(query.clone(), 1).await.len(), 1, "it ends when it is told to");
        assert!(groups(GroupQuery { metric: of("other"), ..query.clone() }, 9).await.is_empty());
        assert!(groups(GroupQuery { epoch: Epoch(1), ..query.clone() }, 9).await.is_empty());
        assert!(groups(GroupQuery { tenant: tenant(2), ..query }, 9).await.is_empty());
        let among = async |since: u64, names: &[&str]| {
            let metrics = names.iter().map(|name| of(name)).collect();
            let query = MetricQuery { tenant: tenant(1), since: Epoch(since), metrics };
            place.store.metrics_among(query).await.unwrap().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(among(0, &["never", "other", "api"]).await, ["api", "other"]);
        assert!(among(0, &["never"]).await.is_empty());
        assert!(among(1, &["api"]).await.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_order_and_repetition_of_writes_ends_the_same(
        rows in prop::collection::vec((0_i64..3, 1_u64..3, 0_u64..20), 1..20),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
    ) {
        // A row's content follows from its revision, as in the fold.
        let row = |(start, part, revision): &(i64, u64, u64)| window(tenant(1), "api", *start, *part, &[*revision as i64], *revision);
        let expected = Place::memory();
        let mut sorted = rows.clone();
        sorted.sort_by_key(|(_, _, revision)| *revision);
        for one in &sorted {
            write(&expected, vec![row(one)], 1);
        }
        let shuffled = Place::memory();
        for pick in &order {
            write(&shuffled, vec![row(pick.get(&rows))], 1);
        }
        for one in &rows {
            write(&shuffled, vec![row(one)], 1);
        }
        prop_assert_eq!(shuffled.dump(), expected.dump());
    }
}
