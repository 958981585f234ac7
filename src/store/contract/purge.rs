//! What an account had in epochs that are over leaves the store, and nothing else.

use super::place::Place;
use super::sample::{account, effects, seeds, tenant};
use crate::domain::id::{Epoch, Position};
use crate::domain::partition::effect::{Effects, Purge};
use crate::store::ScannedRow;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// The last record that the rows are of; the entries of the quarantine have revisions up to 11.
const ASKED_AT: Position = Position(6);

/// What stays, told by the rows themselves.
fn kept(rows: &Effects, purge: &Purge) -> Effects {
    let over = |epoch: Epoch| (purge.from..=purge.through).contains(&epoch);
    let mut kept = rows.clone();
    kept.windows.retain(|row| row.series.account != purge.account || !over(row.series.epoch));
    kept.accounts.retain(|row| row.account != purge.account || !over(row.epoch));
    kept.instances.retain(|row| row.key.account != purge.account || !over(row.epoch));
    kept.transitions.retain(|row| row.key.account != purge.account || !over(row.epoch));
    kept.notifications.retain(|row| row.key.account != purge.account || !over(row.epoch));
    kept
}

#[test]
fn a_purge_removes_what_an_account_had_and_nothing_else() {
    let places: Vec<Place> = Place::all().into_iter().map(Place::merging).collect();
    let workspace = std::cell::Cell::new(2_000_u128);
    let mut runner = TestRunner::new(Config::with_cases(8));
    let run = |(seeds, whose, through): (Vec<_>, usize, u64)| {
        workspace.set(workspace.get() + 1);
        let mut rows = effects(workspace.get(), &seeds);
        rows.quarantine.clear();
        // A state is one row in all epochs: a later record is of a later one.
        rows.instances.iter_mut().for_each(|row| row.epoch = Epoch(u64::from(row.revision > ASKED_AT)));
        let tenant = tenant(workspace.get(), false);
        let (from, through) = (Epoch(0), Epoch(through));
        let purge = Purge { tenant, account: account(whose), from, through, position: ASKED_AT };
        let of_others = |rows: &Effects| {
            let mut others = rows.clone();
            others.windows.retain(|row| row.series.tenant != tenant);
            others.accounts.retain(|row| row.tenant != tenant);
            others.instances.retain(|row| row.key.tenant != tenant);
            others.transitions.retain(|row| row.key.tenant != tenant);
            others.notifications.retain(|row| row.key.tenant != tenant);
            others
        };
        let expected = Place::memory();
        let mut left = kept(&rows, &purge);
        let others = of_others(&rows);
        left.windows.extend(others.windows);
        left.accounts.extend(others.accounts);
        left.instances.extend(others.instances);
        left.transitions.extend(others.transitions);
        left.notifications.extend(others.notifications);
        expected.write(&left, 1);
        for place in &places {
            place.write(&rows, 1);
            place.write(&Effects { purges: vec![purge.clone()], ..Effects::default() }, 2);
            // A write that is repeated, rows and all, comes to the same.
            place.write(&Effects { purges: vec![purge.clone()], ..rows.clone() }, 2);
            let own = |mut all: Vec<ScannedRow>| {
                let prefix = format!("{:032x}|", workspace.get());
                all.retain(|row| row.key.starts_with(&prefix));
                all
            };
            prop_assert_eq!(own(place.dump()), own(expected.dump()), "{:?}", place.store);
        }
        Ok(())
    };
    runner.run(&(prop::collection::vec(seeds(), 1..60), 0_usize..3, 0_u64..2), run).unwrap();
}

#[test]
fn a_purge_leaves_entries_of_the_quarantine_that_came_behind_it() {
    let mut runner = TestRunner::new(Config::with_cases(8));
    let places: Vec<Place> = Place::all().into_iter().map(Place::merging).collect();
    let workspace = std::cell::Cell::new(3_000_u128);
    let run = |seeds: Vec<_>| {
        workspace.set(workspace.get() + 1);
        let all = effects(workspace.get(), &seeds);
        let rows = Effects { quarantine: all.quarantine, ..Effects::default() };
        let (tenant, account) = (tenant(workspace.get(), false), account(1));
        let (from, through, position) = (Epoch(0), Epoch(0), ASKED_AT);
        let purge = Purge { tenant, account: account.clone(), from, through, position };
        let mut newest = std::collections::BTreeMap::new();
        for row in &rows.quarantine {
            let known = newest.entry((row.tenant, row.id)).or_insert(row);
            if known.revision <= row.revision {
                *known = row;
            }
        }
        let goes = |row: &crate::domain::partition::effect::QuarantineRow| {
            let is_over = row.epoch.unwrap_or_default() == Epoch(0);
            row.tenant == tenant && row.account.as_ref() == Some(&account) && is_over && row.revision <= ASKED_AT
        };
        let left: Vec<_> = newest.into_values().filter(|row| !goes(row)).cloned().collect();
        let expected = Place::memory();
        expected.write(&Effects { quarantine: left, ..Effects::default() }, 1);
        for place in &places {
            place.write(&rows, 1);
            place.write(&Effects { purges: vec![purge.clone()], ..Effects::default() }, 2);
            let own = |mut all: Vec<ScannedRow>| {
                let prefix = format!("{:032x}|", workspace.get());
                all.retain(|row| row.key.starts_with(&prefix));
                all
            };
            prop_assert_eq!(own(place.dump()), own(expected.dump()), "{:?}", place.store);
        }
        Ok(())
    };
    runner.run(&prop::collection::vec(seeds(), 1..120), run).unwrap();
}
