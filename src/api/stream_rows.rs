//! Rows as the stream tells them.

use crate::domain::id::{AccountId, AlertId, Epoch, Position, ProjectId, Tenant};
use crate::domain::partition::effect::{OVERFLOW_GROUP, SeriesKey, TransitionRow, WindowRow};
use crate::domain::quantity::Quantity;
use crate::domain::time::WINDOW;
use crate::runtime::control::ControlPlane;
use crate::store::Changes;
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// What a stream is told of.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    pub(super) tenant: Tenant,
    pub(super) usage: bool,
    pub(super) alerts: bool,
    /// All where empty.
    pub(super) accounts: Vec<AccountId>,
    /// The projects whose alerts are told; all where empty.
    pub(super) projects: Vec<ProjectId>,
    /// Where an alert's project is looked up.
    pub(super) control: ControlPlane,
}

/// One event of the stream.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) event: &'static str,
    pub(super) data: String,
    position: Position,
}

#[derive(Serialize)]
struct StateChange<'a> {
    alert_id: String,
    account_id: &'a str,
    metric: Option<&'a str>,
    from: &'static str,
    to: &'static str,
    reason: &'static str,
    at: String,
    value: Option<Box<RawValue>>,
    over: bool,
    sequence: u64,
    position: u64,
    notification_id: Option<String>,
}

#[derive(Serialize)]
struct WindowChange<'a> {
    account_id: &'a str,
    metric: &'a str,
    group: Option<Box<RawValue>>,
    /// Whether it holds what is in no group of its own; each dimension of `group` is then null.
    overflow: bool,
    start: String,
    end: String,
    part: u64,
    count: u64,
    sum: Box<RawValue>,
    min: Box<RawValue>,
    max: Box<RawValue>,
    last: Box<RawValue>,
    late_events: u64,
    revision: u64,
}

impl Filter {
    fn wants(&self, tenant: Tenant, account: &AccountId) -> bool {
        tenant == self.tenant && (self.accounts.is_empty() || self.accounts.contains(account))
    }

    /// Whether something is of an account's present epoch: what was deleted is told to nobody.
    fn is_present(&self, account: &AccountId, epoch: Epoch) -> bool {
        epoch >= self.control.state().epoch_of(self.tenant, account)
    }

    fn reaches(&self, alert: AlertId) -> bool {
        if self.projects.is_empty() {
            return true;
        }
        let state = self.control.state();
        let project = state.alert(self.tenant, alert).and_then(|alert| alert.definition.project);
        project.is_some_and(|project| self.projects.contains(&project))
    }

    /// The lines of a batch, in the order of its records.
    pub(super) fn lines(
        &self,
        transitions: &[TransitionRow],
        windows: &[WindowRow],
        is_new: impl Fn(Position) -> bool,
    ) -> Vec<Line> {
        self.both(transitions, windows, |_, position| is_new(position))
    }

    /// The lines of a page of the store.
    pub(super) fn lines_of(&self, page: &Changes, is_new: impl Fn(&AccountId, Position) -> bool) -> Vec<Line> {
        self.both(&page.transitions, &page.windows, is_new)
    }

    fn both(
        &self,
        transitions: &[TransitionRow],
        windows: &[WindowRow],
        is_new: impl Fn(&AccountId, Position) -> bool,
    ) -> Vec<Line> {
        let transitions = transitions.iter().filter(|row| {
            let wanted = self.alerts && self.wants(row.key.tenant, &row.key.account) && self.reaches(row.key.alert);
            wanted && is_new(&row.key.account, row.position) && self.is_present(&row.key.account, row.epoch)
        });
        let windows = windows.iter().filter(|row| {
            let series = &row.series;
            self.usage
                && self.wants(series.tenant, &series.account)
                && is_new(&series.account, row.revision)
                && self.is_present(&series.account, series.epoch)
        });
        let mut lines: Vec<Line> = windows.map(|row| self.window(row)).chain(transitions.map(transition)).collect();
        lines.sort_by_key(|line| line.position);
        lines
    }

    /// A group as JSON: nothing for the total.
    fn group(&self, series: &SeriesKey) -> Option<Box<RawValue>> {
        if series.group != OVERFLOW_GROUP {
            return (!series.group.is_empty()).then(|| RawValue::from_string(series.group.clone()).ok()).flatten();
        }
        let state = self.control.state();
        let definition = state.metric(series.tenant, &series.metric).map(|record| &record.definition.group_by);
        let nulls: BTreeMap<&str, ()> = definition.into_iter().flatten().map(|name| (name.as_str(), ())).collect();
        serde_json::to_string(&nulls).ok().and_then(|text| RawValue::from_string(text).ok())
    }

    fn window(&self, row: &WindowRow) -> Line {
        let (series, aggregate) = (&row.series, &row.aggregate);
        let data = WindowChange {
            account_id: series.account.as_str(),
            metric: series.metric.as_str(),
            group: self.group(series),
            overflow: series.group == OVERFLOW_GROUP,
            start: row.start.to_string(),
            end: row.start.plus(WINDOW).to_string(),
            part: row.part.0,
            count: aggregate.count,
            sum: number(aggregate.sum),
            min: number(aggregate.min),
            max: number(aggregate.max),
            last: number(aggregate.last),
            late_events: row.late_events,
            revision: row.revision.0,
        };
        Line { event: "usage.window", data: serde_json::to_string(&data).unwrap_or_default(), position: row.revision }
    }
}

fn transition(row: &TransitionRow) -> Line {
    let data = StateChange {
        alert_id: row.key.alert.to_string(),
        account_id: row.key.account.as_str(),
        metric: row.key.metric.as_ref().map(|metric| metric.as_str()),
        from: row.from.name(),
        to: row.to.name(),
        reason: row.reason.name(),
        at: row.at.to_string(),
        value: row.evidence.value.map(number),
        over: row.evidence.is_over(),
        sequence: row.sequence,
        position: row.position.0,
        notification_id: row.notification.map(|id| id.to_string()),
    };
    Line { event: "alert.state", data: serde_json::to_string(&data).unwrap_or_default(), position: row.position }
}

/// An exact JSON number.
fn number(quantity: Quantity) -> Box<RawValue> {
    RawValue::from_string(quantity.to_string()).unwrap_or_default()
}
