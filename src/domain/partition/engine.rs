//! Taking in one record after another: the partition's whole behaviour begins here.

use super::archive::{Counting, EventRow};
use super::changes::Turn;
use super::effect::{AccountRow, Effects, Reason, State};
use super::fact::{Fact, Note, QUOTAS_TOLD, V3};
use super::fit::{Judging, fit_series};
use super::flush::window_row;
use super::judge::{Cause, judge, judge_again, must_judge};
use super::state::{DirtyPart, Partition, TenantState};
use super::step::Look;
use super::values::View;
use super::window::Arrival;
use crate::domain::event::{Frame, FrameEvent};
use crate::domain::id::{ChannelId, Epoch, Log, NotificationId, PartitionId, Position, Stamp};
use crate::domain::time::{Millis, Timestamp, WINDOW};
use crate::domain::webhook::event::Source;
use crate::domain::webhook::outbox::Outbox;
use std::collections::BTreeMap;

/// What the dedup index says of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Its identity is new.
    First,
    /// The same event was counted before.
    Duplicate,
    /// Another event has its identity.
    Conflict,
    /// It is older than what the index remembers, and was not looked up.
    TooOld,
}

impl Partition {
    /// The last record that was taken in.
    pub const fn position(&self) -> Position {
        self.clock.position
    }

    /// The fold's clock.
    pub fn clock(&self) -> Timestamp {
        self.clock.now()
    }

    /// The fold's clock behind a record of `recorded_at`.
    pub fn clock_with(&self, recorded_at: Timestamp) -> Timestamp {
        self.clock.with(recorded_at, None).now()
    }

    /// Tells whether the fold's clock is held back by an intake.
    pub const fn is_bounded(&self) -> bool {
        self.clock.intake_through.is_some()
    }

    /// How the log asks to be folded from here on.
    pub const fn engine_version(&self) -> u32 {
        self.engine_version
    }

    /// Which partition this is.
    pub const fn id(&self) -> PartitionId {
        self.id
    }

    /// Up to where the control plane is known.
    pub const fn control_through(&self) -> Position {
        self.control_through
    }

    /// How long an event's identity is remembered.
    pub const fn dedup_horizon(&self) -> crate::domain::time::Millis {
        self.horizons.dedup
    }

    /// What is still owed to the world, by notification and destination.
    pub fn outstanding(&self) -> impl Iterator<Item = super::debts::Owed<'_>> {
        self.debts.outstanding()
    }

    /// One debt, where it is still owed.
    pub fn owed(&self, id: NotificationId, channel: ChannelId) -> Option<super::debts::Owed<'_>> {
        self.debts.get(id, channel)
    }

    /// How many (notification, destination) pairs are owed.
    pub fn owed_count(&self) -> usize {
        self.debts.count()
    }

    /// What is owed to endpoints.
    pub const fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The epochs that the fold uses for a frame's accounts, in their order. An account that the frame names under
    /// several epochs has the latest of them.
    pub fn epochs(&self, frame: &Frame) -> Vec<Epoch> {
        let epoch = |named: &crate::domain::event::FrameAccount| {
            let Some(tenant) = self.tenants.get(&named.tenant) else { return named.epoch };
            let own = tenant.accounts.get(&named.account).and_then(|slot| self.accounts.get(*slot));
            named.epoch.max(own.map_or(tenant.epoch, |account| account.epoch))
        };
        let mut epochs: Vec<Epoch> = frame.accounts.iter().map(epoch).collect();
        let first = frame.accounts.first().map(|named| named.epoch);
        if frame.accounts.iter().any(|named| Some(named.epoch) != first) {
            let mut latest: BTreeMap<_, Epoch> = BTreeMap::new();
            for (named, epoch) in frame.accounts.iter().zip(&epochs) {
                let known = latest.entry((named.tenant, &named.account)).or_default();
                *known = (*epoch).max(*known);
            }
            for (named, epoch) in frame.accounts.iter().zip(&mut epochs) {
                *epoch = latest.get(&(named.tenant, &named.account)).copied().unwrap_or(*epoch);
            }
        }
        epochs
    }

    /// The dedup bases of a frame's events, in their order: max(event time, clock), rounded up to 5 minutes, a sandbox's
    /// advance left out of both. `None` for
    /// an event that is older than what the index remembers.
    pub fn bases(&self, frame: &Frame, recorded_at: Timestamp) -> Vec<Option<Timestamp>> {
        let now = self.clock_with(recorded_at);
        let advance = |named: &crate::domain::event::FrameAccount| {
            self.tenants.get(&named.tenant).map(|state| state.advance).unwrap_or_default()
        };
        let advances: Vec<Millis> = frame.accounts.iter().map(advance).collect();
        let base = |event: &FrameEvent| {
            let advance = usize::try_from(event.account).ok().and_then(|at| advances.get(at)).copied();
            let advance = advance.unwrap_or_default();
            let too_old = !frame.backfill && event.timestamp <= now.plus(advance).minus(self.horizons.dedup);
            // On the fold's own clock, so that a clock that is put forward keeps no identity for longer.
            (!too_old).then(|| event.timestamp.minus(advance).max(now).round_up(WINDOW))
        };
        frame.events.iter().map(base).collect()
    }

    /// Takes in one record. Records at or before [`Self::position`] are passed over.
    ///
    /// `seen` holds what the dedup index says of each event of a frame, and is empty for other facts.
    pub fn apply(&mut self, stamp: Stamp, fact: &Fact, seen: &[Seen], effects: &mut Effects) {
        if stamp.position <= self.clock.position {
            return;
        }
        let before = self.clock.now();
        let mut index = 0;
        let mut turn = Turn { stamp, index: &mut index, effects };
        let (recorded_at, intake_through) = match fact {
            Fact::Note(Note::ClockSet { to, set_at, restored }) if self.engine_version >= V3 && *to <= before => {
                self.clock.position = stamp.position;
                return self.set_clock((*to, *set_at), restored, &mut turn);
            }
            Fact::Note(Note::ClockSet { to, .. }) if self.engine_version >= V3 => (*to, None),
            Fact::Note(Note::Ticked { intake_through }) => (stamp.recorded_at, *intake_through),
            Fact::UsageRecorded(_) | Fact::Note(_) => (stamp.recorded_at, None),
        };
        self.clock = self.clock.with(recorded_at, intake_through);
        self.clock.position = stamp.position;
        let version = self.engine_version;
        let passed_over = self.run_deadlines(&mut turn, before, false);
        match fact {
            Fact::UsageRecorded(frame) => self.count_frame(frame, seen, &mut turn),
            Fact::Note(note) => self.take_note(note, &mut turn),
        }
        if passed_over && version < V3 && self.engine_version >= V3 {
            // A stop ended with the upgrade.
            self.end_catch_up(&mut turn);
        }
    }

    fn take_note(&mut self, note: &Note, turn: &mut Turn<'_>) {
        let stamp = turn.stamp;
        match note {
            Note::ControlCopied { after, through, changes } => self.take_changes((*after, *through), changes, turn),
            // Where it does more than time does, it was taken in before this.
            Note::Ticked { .. } | Note::ClockSet { .. } => {}
            Note::EventRefused { row } => self.take_refused(row, turn),
            Note::QuarantineSettled { row } => self.take_settled(row, turn),
            Note::NotificationAttempted(attempted) => {
                self.take_attempt(attempted, turn);
            }
            Note::DeliveryAttempted { posted } => {
                let mut source = Source { log: Log::Partition(self.id), stamp, index: turn.index };
                self.outbox.attempted(posted, &mut source, &mut turn.effects.webhooks);
            }
            Note::EngineVersion { version } => {
                let before = self.engine_version;
                if before < V3 && V3 <= *version {
                    // What is still to be stored is found where it was counted.
                    self.flush(turn.effects);
                }
                self.engine_version = before.max(*version);
                if before < QUOTAS_TOLD && QUOTAS_TOLD <= self.engine_version {
                    self.take_as_told();
                }
                if before < V3 && V3 <= self.engine_version {
                    self.group_by_hour();
                    self.purge_deleted(turn.effects);
                }
                self.hand_down_version(before, turn);
                if before < V3 && V3 <= self.engine_version {
                    self.begin_v3(turn);
                }
            }
        }
    }

    /// Goes over to engine version 3: nobody is told of the past by that.
    fn begin_v3(&mut self, turn: &mut Turn<'_>) {
        let mut open = Vec::new();
        for account in &mut self.accounts {
            for instance in account.instances.iter_mut() {
                instance.event_open = matches!(instance.state, State::Firing | State::NoData);
                if instance.state != State::Firing {
                    instance.told_for.clear();
                }
            }
            for instance in account.instances.iter() {
                let key = instance.key(account);
                let told =
                    instance.told.iter().flat_map(|told| told.channels.iter().map(|channel| (told.id, *channel)));
                open.extend(told.map(|(id, channel)| ((key.clone(), channel), id)));
            }
        }
        self.debts.keep_newest_only(open, turn.stamp, &mut turn.effects.deliveries);
        self.rebuild_timers();
    }

    pub(super) fn count_frame(&mut self, frame: &Frame, seen: &[Seen], turn: &mut Turn<'_>) {
        let epochs = self.epochs(frame);
        let mut places = Places::new(frame);
        for (number, event) in frame.events.iter().enumerate() {
            match seen.get(number).copied().unwrap_or(Seen::First) {
                Seen::First => self.count_event(frame, (number, event), &epochs, &mut places, turn),
                Seen::Duplicate => {
                    turn.effects.counts.duplicates = turn.effects.counts.duplicates.saturating_add(1);
                }
                Seen::Conflict => {
                    turn.effects.counts.conflicts = turn.effects.counts.conflicts.saturating_add(1);
                    let why = ("event_conflict", "another event with this id was counted before");
                    self.set_aside(frame, (number, epoch_of(&epochs, event)), why, turn);
                }
                Seen::TooOld => {
                    let why = ("timestamp_too_old", "the event is older than the span in which ids are remembered");
                    self.set_aside(frame, (number, epoch_of(&epochs, event)), why, turn);
                }
            }
        }
    }

    fn count_event(
        &mut self,
        frame: &Frame,
        (number, event): (usize, &FrameEvent),
        epochs: &[Epoch],
        places: &mut Places,
        turn: &mut Turn<'_>,
    ) {
        let Some((account_slot, series)) = self.place(frame, event, epochs, places, turn) else { return };
        let Some(account) = self.accounts.get_mut(account_slot) else { return };
        let Some(tenant) = self.tenants.get(&account.tenant) else { return };
        let epoch = account.epoch;
        if frame.backfill {
            account.await_backfill(tenant, series);
        }
        let clock = self.clock.now().plus(tenant.advance);
        let arrival = Arrival {
            at: event.timestamp,
            value: event.value,
            position: turn.stamp.position,
            clock,
            grace: self.horizons.grace,
            correction_horizon: self.horizons.correction,
        };
        let start = arrival.window();
        let late = arrival.is_late();
        turn.effects.counts.events = turn.effects.counts.events.saturating_add(1);
        turn.effects.counts.late = turn.effects.counts.late.saturating_add(u64::from(late));
        let Some(counted_in) = account.series.get_mut(series) else { return };
        counted_in.levels.count(event.value, event.timestamp, clock);
        let counted = counted_in.windows.count(&arrival);
        if let (Some(part), Some(series)) = (&counted.evicted, account.series.get(series)) {
            turn.effects.windows.push(window_row(account.series_key(series, None), part));
        }
        if counted.newly_dirty {
            self.dirty.parts.push(DirtyPart { account: account_slot, series, group: None, start });
        }
        let definition = account.series.get(series).and_then(|series| tenant.metrics.get(&series.metric));
        let group = if definition.is_some_and(|definition| !definition.group_by.is_empty()) {
            self.count_group(frame, event, (account_slot, series), &arrival, turn)
        } else {
            None
        };
        if let Some(events) = &mut turn.effects.events {
            let counting = Counting { stamp: turn.stamp, epoch, group, clock, late };
            events.extend(EventRow::of(frame, (number, event), &counting));
        }
        if !frame.backfill {
            self.look_at_quota((account_slot, series), clock, turn);
            let cause = Cause {
                accepted_at: Some(event.accepted_at),
                open_window: Some(start),
                ..Cause::of(if late { Reason::Late } else { Reason::Condition }, clock)
            };
            self.judge_readers((account_slot, series), start, cause, turn);
        }
    }

    /// Finds or makes the account and the series of an event; renews the account where the event knows of a deletion
    /// that the fold has not seen yet.
    fn place(
        &mut self,
        frame: &Frame,
        event: &FrameEvent,
        epochs: &[Epoch],
        places: &mut Places,
        turn: &mut Turn<'_>,
    ) -> Option<(usize, usize)> {
        let account_index = usize::try_from(event.account).ok()?;
        let metric_index = usize::try_from(event.metric).ok()?;
        if let Some(found) = places.get(account_index, metric_index) {
            return Some(found);
        }
        let named = frame.accounts.get(account_index)?;
        let metric = frame.metrics.get(metric_index)?;
        let slot = self.account_slot(named.tenant, &named.account);
        let epoch = epochs.get(account_index).copied().unwrap_or(named.epoch);
        self.renew_account(slot, epoch, turn);
        let account = self.accounts.get_mut(slot)?;
        let (series, made) = account.series.place(metric);
        let is_first = !std::mem::replace(&mut account.seen, true);
        if is_first {
            turn.effects.accounts.push(AccountRow {
                tenant: account.tenant,
                epoch: account.epoch,
                account: account.name.clone(),
                first_seen_at: turn.stamp.recorded_at,
                revision: turn.stamp.position,
            });
        }
        if made {
            let judging = if frame.backfill { Judging::None } else { Judging::Fresh };
            self.fit_alerts(slot, (series, is_first, judging), turn);
        }
        places.set(account_index, metric_index, (slot, series));
        Some((slot, series))
    }

    /// Makes the alert instances that a new series brings about.
    pub(super) fn fit_alerts(
        &mut self,
        slot: usize,
        (series, is_first, judging): (usize, bool, Judging),
        turn: &mut Turn<'_>,
    ) {
        let Some(tenant) = self.accounts.get(slot).map(|account| account.tenant) else { return };
        let cause = Cause::of(Reason::Condition, self.tenant_clock(tenant));
        self.on_account(slot, turn, |world, state, account| {
            fit_series(world, state, account, (series, is_first, judging), cause);
        });
    }

    /// Evaluates the instances that read a series, as far as an event in the window `start` may change their verdict.
    pub(super) fn judge_readers(
        &mut self,
        (slot, series): (usize, usize),
        start: Timestamp,
        cause: Cause,
        turn: &mut Turn<'_>,
    ) {
        let Some(account) = self.accounts.get(slot) else { return };
        let reader_count = account.series.get(series).map_or(0, |series| series.readers.len());
        if reader_count == 0 {
            return;
        }
        self.on_account(slot, turn, |world, state: &TenantState, account| {
            let closed = start < state.closed;
            for reader in 0..reader_count {
                let Some(place) = account.series.get(series).and_then(|series| series.readers.get(reader)) else {
                    break;
                };
                let place = *place;
                world.count_steps(1);
                if closed {
                    let newest = start == state.newest_closed();
                    if newest || reads_quota(state, account, place) {
                        let cause = Cause { look: if newest { Look::Newest } else { Look::Between }, ..cause };
                        judge(world, state, account, place, cause);
                    }
                    if newest {
                        note_newest(state, account, place, start, cause.at);
                    } else {
                        judge_again(world, state, account, place, (start, cause));
                    }
                } else if must_judge(state, account, place, series, start) {
                    judge(world, state, account, place, cause);
                } else {
                    world.mark(account, place, cause.at);
                }
            }
        });
    }
}

/// The epoch that the fold uses for an event's account.
fn epoch_of(epochs: &[Epoch], event: &FrameEvent) -> Epoch {
    usize::try_from(event.account).ok().and_then(|at| epochs.get(at)).copied().unwrap_or_default()
}

/// A late event in the newest closed window changes what that window is remembered to have decided.
fn note_newest(
    state: &TenantState,
    account: &mut super::account::Account,
    place: usize,
    start: Timestamp,
    at: Timestamp,
) {
    let Some(instance) = account.instances.get(place) else { return };
    let Some(program) = state.alerts.get(&instance.alert).and_then(|compiled| compiled.rule.as_ref()) else { return };
    let verdict = View { tenant: state, account, own: instance.metric.as_ref(), window: start, at }.verdict(program);
    let Some(instance) = account.instances.get_mut(place) else { return };
    let told = instance.fired_in.take_if(|(window, _)| *window == start).map(|(_, told)| told);
    if let Some(decided) = instance.decided.iter_mut().find(|decided| decided.start == start) {
        decided.verdict = verdict;
        decided.told = told.or(decided.told.take());
    }
}

fn reads_quota(state: &TenantState, account: &super::account::Account, place: usize) -> bool {
    let alert = account.instances.get(place).and_then(|instance| state.alerts.get(&instance.alert));
    alert.is_some_and(|compiled| compiled.reads_quota())
}

/// Where a frame's (account, metric) pairs stand, worked out once for each pair.
struct Places {
    metric_count: usize,
    found: Vec<Option<(u32, u32)>>,
}

impl Places {
    fn new(frame: &Frame) -> Self {
        let metric_count = frame.metrics.len();
        let pair_count = frame.accounts.len().saturating_mul(metric_count);
        // A frame that names very many of both is looked up event by event.
        let remembered = if pair_count <= 1 << 20 { pair_count } else { 0 };
        Self { metric_count, found: vec![None; remembered] }
    }

    fn at(&self, account: usize, metric: usize) -> usize {
        account.saturating_mul(self.metric_count).saturating_add(metric)
    }

    fn get(&self, account: usize, metric: usize) -> Option<(usize, usize)> {
        let (slot, series) = self.found.get(self.at(account, metric)).copied().flatten()?;
        Some((usize::try_from(slot).ok()?, usize::try_from(series).ok()?))
    }

    fn set(&mut self, account: usize, metric: usize, (slot, series): (usize, usize)) {
        let at = self.at(account, metric);
        if let (Some(place), Ok(slot), Ok(series)) =
            (self.found.get_mut(at), u32::try_from(slot), u32::try_from(series))
        {
            *place = Some((slot, series));
        }
    }
}
