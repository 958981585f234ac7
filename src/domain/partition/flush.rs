//! Handing over the rows of what changed.

use super::effect::{Effects, InstanceRow, SeriesKey, WindowRow};
use super::fact::V3;
use super::state::Partition;
use super::window::Part;

impl Partition {
    /// Hands over the rows of everything that the records since the last call changed.
    pub fn flush(&mut self, effects: &mut Effects) {
        for dirty in std::mem::take(&mut self.dirty.parts) {
            let Some(account) = self.accounts.get_mut(dirty.account) else { continue };
            let Some(series) = account.series.get_mut(dirty.series) else { continue };
            let part = match &dirty.group {
                None => series.windows.take_dirty(dirty.start),
                Some(group) if self.engine_version >= V3 => series.group_hours.take_dirty(group, dirty.start),
                Some(group) => series.groups.get_mut(group).and_then(|windows| windows.take_dirty(dirty.start)),
            };
            let part = part.cloned();
            if let (Some(part), Some(series)) = (part, account.series.get(dirty.series)) {
                effects.windows.push(window_row(account.series_key(series, dirty.group.as_deref()), &part));
            }
        }
        for slot in std::mem::take(&mut self.dirty.accounts) {
            self.flush_instances(slot, effects);
        }
    }

    /// Hands over what is dirty of one account, before its series go.
    pub(super) fn flush_account(&mut self, slot: usize, effects: &mut Effects) {
        let (own, others) = std::mem::take(&mut self.dirty.parts).into_iter().partition(|part| part.account == slot);
        self.dirty.parts = own;
        let kept_accounts = std::mem::take(&mut self.dirty.accounts);
        self.flush(effects);
        self.dirty.parts = others;
        self.flush_instances(slot, effects);
        self.dirty.accounts = kept_accounts.into_iter().filter(|kept| *kept != slot).collect();
    }

    fn flush_instances(&mut self, slot: usize, effects: &mut Effects) {
        let Some(account) = self.accounts.get_mut(slot) else { return };
        let Some(state) = self.tenants.get(&account.tenant) else { return };
        let mut places = std::mem::take(&mut account.dirty);
        places.sort_by(|one, other| account.instances.compare(*one, *other));
        for place in places {
            let Some(instance) = account.instances.get_mut(place).filter(|instance| instance.dirty) else { continue };
            instance.dirty = false;
            account.read_value(state, place);
            let Some(instance) = account.instances.get(place) else { continue };
            let (own, at) = (instance.metric.as_ref(), instance.evaluated_at);
            let compiled = state.alerts.get(&instance.alert);
            let silenced = compiled.is_some_and(|compiled| state.is_silenced(compiled, &account.name, own, at));
            effects.instances.push(InstanceRow {
                key: instance.key(account),
                epoch: account.epoch,
                state: Some(instance.state),
                since: instance.since,
                silenced,
                value: instance.value,
                evaluated_at: at,
                revision: instance.touched,
            });
        }
    }
}

pub(super) fn window_row(series: SeriesKey, part: &Part) -> WindowRow {
    WindowRow {
        series,
        start: part.start,
        part: part.name,
        aggregate: part.aggregate,
        late_events: part.late_events,
        revision: part.revision,
    }
}
