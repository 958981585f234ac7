//! Lists with a key of several columns: walked in pages of any size, each behind the last row of the one before, they are
//! whole, and hold no row twice.

use super::place::Place;
use super::sample::{EPOCH, Seed, effects, seeds, tenant};
use crate::domain::id::{AlertId, Epoch, Tenant, WebhookId};
use crate::domain::incident;
use crate::domain::partition::effect::Effects;
use crate::domain::time::Timestamp;
use crate::store::{
    AccountQuery, Age, IncidentQuery, InstanceQuery, OutboxQuery, QuarantineQuery, Store, TransitionPlace,
    TransitionQuery, WebhookDeliveryQuery,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::fmt::Debug;

const ALERT: AlertId = AlertId(1 << 100);

/// Follows `page` from row to row, and compares with all at once.
async fn walked<R: Clone + Debug>(
    name: &str,
    size: usize,
    page: impl AsyncFn(Option<R>, usize) -> Vec<R>,
) -> Result<usize, TestCaseError> {
    let texts = |rows: &[R]| rows.iter().map(|row| format!("{row:?}")).collect::<Vec<_>>();
    let whole = page(None, 10_000).await;
    let mut seen: Vec<R> = Vec::new();
    while seen.len() <= whole.len() {
        let rows = page(seen.last().cloned(), size).await;
        let is_last = rows.len() < size;
        seen.extend(rows);
        if is_last {
            break;
        }
    }
    prop_assert_eq!(texts(&seen), texts(&whole), "{} in pages of {}", name, size);
    Ok(whole.len())
}

/// Rows whose times are few, so that pages end between rows that differ in the last columns of the key alone.
fn crowded(workspace: u128, rows: &[Seed]) -> Effects {
    let mut effects = effects(workspace, rows);
    for row in &mut effects.accounts {
        row.first_seen_at = Timestamp(EPOCH + row.first_seen_at.0 % 2);
    }
    effects
}

async fn accounts(store: &Store, tenant: Tenant, size: usize) -> Result<(), TestCaseError> {
    let by_name = async |last: Option<crate::domain::partition::effect::AccountRow>, limit| {
        store.accounts(tenant, last.map(|row| (row.account, row.epoch)), limit).await.unwrap()
    };
    let count = walked("accounts", size, by_name).await?;
    for age in [Age::Falling, Age::Rising] {
        let by_age = async |last: Option<crate::domain::partition::effect::AccountRow>, limit| {
            let after = last.map(|row| (row.first_seen_at, row.account, row.epoch));
            let query = AccountQuery { tenant, from: None, to: None, age, after, limit };
            store.accounts_by_age(query).await.unwrap()
        };
        prop_assert_eq!(walked("accounts by age", size, by_age).await?, count);
    }
    Ok(())
}

async fn alerts(store: &Store, tenant: Tenant, size: usize) -> Result<(), TestCaseError> {
    let instances = async |last: Option<crate::domain::partition::effect::InstanceRow>, limit| {
        let after = last.map(|row| (row.key.account, row.key.metric));
        let (states, accounts) = (Vec::new(), Vec::new());
        let query = InstanceQuery { tenant, alert: ALERT, states, accounts, after, offset: 0, limit };
        store.instances(query).await.unwrap()
    };
    walked("instances", size, instances).await?;
    for age in [Age::Falling, Age::Rising] {
        let transitions = async |last: Option<crate::domain::partition::effect::TransitionRow>, limit| {
            let place = |row: crate::domain::partition::effect::TransitionRow| TransitionPlace {
                at: row.at,
                account: row.key.account,
                metric: row.key.metric,
                sequence: row.sequence,
            };
            let (alert, accounts, after) = (ALERT, Vec::new(), last.map(place));
            let (metric, changes_only, from, to, offset) = (None, false, None, None, 0);
            let query =
                TransitionQuery { tenant, alert, accounts, metric, changes_only, from, to, age, after, offset, limit };
            store.transitions(query).await.unwrap()
        };
        walked("transitions", size, transitions).await?;
        let incidents = async |last: Option<crate::store::IncidentEntry>, limit| {
            let after = last.map(|entry| (entry.begin.at, incident::id(&entry.begin)));
            let (id, alerts, accounts) = (None, Vec::new(), Vec::new());
            let (lasts, from, to, offset) = (None, None, None, 0);
            let query = IncidentQuery { tenant, id, alerts, accounts, lasts, from, to, age, after, offset, limit };
            store.incidents(query).await.unwrap()
        };
        walked("incidents", size, incidents).await?;
    }
    Ok(())
}

async fn sent(store: &Store, tenant: Tenant, size: usize) -> Result<(), TestCaseError> {
    for age in [Age::Falling, Age::Rising] {
        let deliveries = async |last: Option<crate::domain::webhook::rows::Delivery>, limit| {
            let query = WebhookDeliveryQuery {
                tenant,
                webhook: WebhookId(1),
                event: None,
                statuses: Vec::new(),
                outcome: None,
                kinds: Vec::new(),
                from: None,
                to: None,
                age,
                after: last.map(|row| (row.created_at, row.id.event)),
                offset: 0,
                limit,
            };
            store.webhook_deliveries(query).await.unwrap()
        };
        walked("deliveries to endpoints", size, deliveries).await?;
        type Kept =
            (crate::domain::partition::effect::DeliveryRow, crate::domain::partition::notification::Notification);
        let outbox = async |last: Option<Kept>, limit| {
            let query = OutboxQuery {
                tenant,
                epoch: Epoch(0),
                outcomes: [1, 2].map(|revision| format!("{revision}; \u{0}'?")),
                channels: Vec::new(),
                alerts: Vec::new(),
                among: None,
                from: None,
                to: None,
                age,
                after: last.map(|(row, _)| (row.at, row.notification, row.channel)),
                offset: 0,
                limit,
            };
            store.outbox(query).await.unwrap()
        };
        walked("outbox", size, outbox).await?;
        let quarantine = async |last: Option<crate::store::QuarantineEntry>, limit| {
            let query = QuarantineQuery {
                tenant,
                id: None,
                since: None,
                statuses: Vec::new(),
                codes: Vec::new(),
                accounts: Vec::new(),
                from: None,
                to: None,
                age,
                after: last.map(|entry| (entry.row.at, entry.row.id)),
                offset: 0,
                limit,
            };
            store.quarantine(query).await.unwrap()
        };
        walked("quarantine", size, quarantine).await?;
    }
    Ok(())
}

#[test]
fn lists_are_walked_whole_in_pages_of_any_size() {
    let places: Vec<Place> = Place::all();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let workspace = std::cell::Cell::new(1_000_u128);
    let mut runner = TestRunner::new(Config::with_cases(12));
    let run = |(rows, size): (Vec<Seed>, usize)| {
        workspace.set(workspace.get() + 1);
        for place in &places {
            place.write(&crowded(workspace.get(), &rows), 1);
            let tenant = tenant(workspace.get(), false);
            runtime.block_on(async {
                accounts(&place.store, tenant, size).await?;
                alerts(&place.store, tenant, size).await?;
                sent(&place.store, tenant, size).await
            })?;
        }
        Ok(())
    };
    runner.run(&(prop::collection::vec(seeds(), 40..160), 1_usize..5), run).unwrap();
}
