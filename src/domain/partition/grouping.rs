//! Counting events in the groups of their series, beside the total.

use super::changes::Turn;
use super::fact::V3;
use super::flush::window_row;
use super::group_hours::GroupHours;
use super::state::{DirtyPart, Partition};
use super::window::Arrival;
use crate::domain::event::{Frame, FrameEvent};
use std::sync::Arc;

impl Partition {
    /// Counts an event in its group, and returns that; up to engine version 2 in none where the series has no room for
    /// another one.
    pub(super) fn count_group(
        &mut self,
        frame: &Frame,
        event: &FrameEvent,
        (account_slot, series): (usize, usize),
        arrival: &Arrival,
        turn: &mut Turn<'_>,
    ) -> Option<Arc<str>> {
        let by_hour = self.engine_version >= V3;
        let account = self.accounts.get_mut(account_slot)?;
        let tenant = self.tenants.get(&account.tenant)?;
        let definition = account.series.get(series).and_then(|s| tenant.metrics.get(&s.metric))?;
        let group: Arc<str> = frame.group_of(event, &definition.group_by).into();
        let counted_in = account.series.get_mut(series)?;
        let (group, newly_dirty, evicted) = if by_hour {
            let counted = counted_in.group_hours.count(&group, arrival);
            if counted.group != group {
                turn.effects.counts.ungrouped = turn.effects.counts.ungrouped.saturating_add(1);
            }
            (counted.group, counted.newly_dirty, counted.evicted)
        } else {
            if !counted_in.has_room(&group, arrival.clock) {
                turn.effects.counts.ungrouped = turn.effects.counts.ungrouped.saturating_add(1);
                return None;
            }
            let counted = counted_in.groups.entry(group.clone()).or_default().count(arrival);
            let evicted = counted.evicted.map(|part| (group.clone(), part)).into_iter().collect();
            (group, counted.newly_dirty, evicted)
        };
        if let Some(series) = account.series.get(series) {
            let row = |(group, part): &(Arc<str>, _)| window_row(account.series_key(series, Some(group)), part);
            turn.effects.windows.extend(evicted.iter().map(row));
        }
        if newly_dirty {
            let start = arrival.window();
            self.dirty.parts.push(DirtyPart { account: account_slot, series, group: Some(group.clone()), start });
        }
        Some(group)
    }

    /// Takes the groups that are held over into the hours of their windows, as they are kept from engine version 3 on.
    /// Call it only when [`Partition::flush`] has handed everything over.
    pub(super) fn group_by_hour(&mut self) {
        let (now, horizons) = (self.clock.now(), self.horizons);
        for account in &mut self.accounts {
            let clock = self.tenants.get(&account.tenant).map_or(now, |tenant| now.plus(tenant.advance));
            for series in account.series.iter_mut() {
                let mut hours = GroupHours::default();
                for (group, windows) in std::mem::take(&mut series.groups) {
                    for part in windows.into_held(clock) {
                        hours.take_over(&group, part, horizons.grace, horizons.correction);
                    }
                }
                series.group_hours = hours;
            }
        }
    }
}
