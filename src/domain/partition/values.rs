//! What a rule's inputs stand at: levels of the judged periods and the window that is looked at.

use super::account::Account;
use super::alerts::Compiled;
use super::effect::{Evidence, QuotaEvidence, WindowEvidence};
use super::fact::V3;
use super::instance::Gate;
use super::state::TenantState;
use super::window::Part;
use crate::domain::definition::{Quota, UsedPercent};
use crate::domain::id::{MetricName, Position};
use crate::domain::quantity::Quantity;
use crate::domain::rule::{Input, Name, RuleProgram, Value, Verdict};
use crate::domain::time::{Timestamp, WINDOW};

/// From where a rule is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) tenant: &'a TenantState,
    pub(super) account: &'a Account,
    /// The metric that unqualified names stand for.
    pub(super) own: Option<&'a MetricName>,
    /// The start of the window that window names read.
    pub(super) window: Timestamp,
    /// The evaluation's own time.
    pub(super) at: Timestamp,
}

impl<'a> View<'a> {
    pub(super) fn verdict(&self, program: &RuleProgram) -> Verdict {
        program.evaluate(&self.values(program))
    }

    pub(super) fn values(&self, program: &RuleProgram) -> Vec<Value> {
        program.inputs().iter().map(|input| self.value(input)).collect()
    }

    pub(super) fn value(&self, input: &Input) -> Value {
        let Some(metric) = input.metric.as_ref().or(self.own) else { return Value::NoData };
        if input.name.reads_quota() { self.level(input.name, metric) } else { self.windowed(input.name, metric) }
    }

    pub(super) fn quota(&self, metric: &MetricName) -> Option<&'a Quota> {
        self.account.quota_of(self.tenant, metric)
    }

    pub(super) fn used(&self, metric: &MetricName, quota: &Quota) -> Quantity {
        let judged = self.tenant.judged(quota.period);
        let series = self.account.series_of(metric);
        series.map_or(Quantity::ZERO, |series| series.levels.used(quota.period, judged).value(quota.aggregate))
    }

    fn level(&self, name: Name, metric: &MetricName) -> Value {
        let Some(quota) = self.quota(metric) else { return Value::NoQuota };
        let used = || self.used(metric, quota);
        match name {
            Name::Used => Value::Known(used()),
            Name::Limit => Value::Known(quota.limit),
            Name::Remaining => Value::Known(quota.limit.minus(used())),
            Name::QuotaPercent => self.quota_percent(used(), quota.limit),
            Name::PeriodElapsedPercent => {
                let (start, end) = self.tenant.judged(quota.period);
                let elapsed = Quantity::whole(self.at.max(start).min(end).since(start).0);
                elapsed.percent_of(Quantity::whole(end.since(start).0)).map_or(Value::NoQuota, Value::Known)
            }
            Name::Sum | Name::Count | Name::Min | Name::Max | Name::Avg | Name::Last | Name::Rate => Value::NoData,
        }
    }

    fn quota_percent(&self, used: Quantity, limit: Quantity) -> Value {
        if self.tenant.engine_version < V3 {
            return used.percent_of(limit).map_or(Value::NoQuota, Value::Known);
        }
        match UsedPercent::of(used, limit) {
            UsedPercent::Exact(percent) => Value::Known(percent),
            UsedPercent::Over => Value::Over,
        }
    }

    fn part(&self, metric: &MetricName) -> Option<&'a Part> {
        self.account.series_of(metric)?.windows.get(self.window, self.at)
    }

    fn windowed(&self, name: Name, metric: &MetricName) -> Value {
        let aggregate = self.part(metric).map(|part| part.aggregate).unwrap_or_default();
        let present = |value: Quantity| if aggregate.is_empty() { Value::NoData } else { Value::Known(value) };
        match name {
            Name::Sum => Value::Known(aggregate.sum),
            Name::Count => Value::Known(Quantity::whole(i64::try_from(aggregate.count).unwrap_or(i64::MAX))),
            Name::Rate => aggregate.sum.divided_by(300).map_or(Value::NoData, Value::Known),
            Name::Min => present(aggregate.min),
            Name::Max => present(aggregate.max),
            Name::Last => present(aggregate.last),
            Name::Avg => aggregate.mean().map_or(Value::NoData, Value::Known),
            Name::QuotaPercent | Name::Used | Name::Limit | Name::Remaining | Name::PeriodElapsedPercent => {
                Value::NoQuota
            }
        }
    }

    /// Tells whether all windows that the rule reads hold non-negative values only.
    pub(super) fn only_non_negative(&self, program: &RuleProgram) -> bool {
        program.inputs().iter().all(|input| {
            let metric = input.metric.as_ref().or(self.own);
            metric.and_then(|metric| self.part(metric)).is_none_or(|part| !part.has_negative)
        })
    }

    /// Tells whether the rule is true on the window, and stays so while only non-negative values come.
    pub(super) fn proves(&self, program: &RuleProgram) -> bool {
        self.only_non_negative(program) && self.verdict(program) == Verdict::True
    }

    /// The periods and limits that the rule reads: what "once per period and limit" compares.
    pub(super) fn quota_key(&self, program: &RuleProgram) -> Vec<(Timestamp, Quantity)> {
        let mut key: Vec<_> = self
            .quota_metrics(program)
            .filter_map(|metric| self.quota(metric))
            .map(|quota| (self.tenant.judged(quota.period).0, quota.limit))
            .collect();
        key.dedup();
        key
    }

    pub(super) fn quota_metrics<'p>(&'p self, program: &'p RuleProgram) -> impl Iterator<Item = &'p MetricName> {
        let quota_inputs = program.inputs().iter().filter(|input| input.name.reads_quota());
        quota_inputs.filter_map(|input| input.metric.as_ref().or(self.own))
    }

    /// Collects what a decision rested on.
    pub(super) fn evidence(&self, compiled: &Compiled) -> Evidence {
        let mut evidence = Evidence {
            alert_version: compiled.definition.version,
            rule: compiled.definition.rule.clone(),
            trace: Default::default(),
            value_name: None,
            value: None,
            window: None,
            quota: None,
        };
        let Some(program) = &compiled.rule else { return evidence };
        let values = self.values(program);
        evidence.trace = program.explain(&values);
        evidence.value_name = program.inputs().first().map(|input| match &input.metric {
            Some(metric) => format!("{}(\"{metric}\")", input.name.text()),
            None => input.name.text().to_owned(),
        });
        evidence.value = values.first().and_then(known);
        evidence.window = program.reads_window().then(|| self.window_evidence(program));
        evidence.quota = self.quota_metrics(program).next().and_then(|metric| self.quota_evidence(metric));
        evidence
    }

    fn window_evidence(&self, program: &RuleProgram) -> WindowEvidence {
        let window_inputs = program.inputs().iter().filter(|input| input.name.reads_window());
        let parts = window_inputs.filter_map(|input| self.part(input.metric.as_ref().or(self.own)?));
        WindowEvidence {
            start: self.window,
            end: self.window.plus(WINDOW),
            revision: parts.map(|part| part.revision).max().unwrap_or(Position::START),
            closed: self.window < self.tenant.closed,
        }
    }

    pub(super) fn quota_evidence(&self, metric: &MetricName) -> Option<QuotaEvidence> {
        let quota = self.quota(metric)?;
        let (start, end) = self.tenant.judged(quota.period);
        Some(QuotaEvidence { limit: quota.limit, used: self.used(metric, quota), period: quota.period, start, end })
    }
}

impl Account {
    /// The quota that holds for a metric: the account's own, else that of all.
    pub(super) fn quota_of<'a>(&'a self, tenant: &'a TenantState, metric: &MetricName) -> Option<&'a Quota> {
        self.quotas.get(metric).or_else(|| tenant.quotas.get(metric))
    }

    /// Reads the first input's value of an instance, where that is yet to be done.
    pub(super) fn read_value(&mut self, tenant: &TenantState, place: usize) {
        let Some(instance) = self.instances.get(place).filter(|instance| instance.unread) else { return };
        let window = instance.early.unwrap_or(tenant.newest_closed());
        let view = View { tenant, account: self, own: instance.metric.as_ref(), window, at: instance.evaluated_at };
        let program = tenant.alerts.get(&instance.alert).and_then(|compiled| compiled.rule.as_ref());
        let first = program.and_then(|program| program.inputs().first());
        let value = first.and_then(|input| known(&view.value(input)));
        if let Some(instance) = self.instances.get_mut(place) {
            instance.value = value;
            instance.unread = false;
        }
    }

    /// Readies the instances that read a series for an event that evaluates none of them: their rows keep the values of
    /// the last evaluation, and the next one takes place whatever was proven before.
    pub(super) fn await_backfill(&mut self, tenant: &TenantState, series: usize) {
        let mut reader = 0;
        while let Some(place) = self.series.get(series).and_then(|series| series.readers.get(reader)).copied() {
            self.read_value(tenant, place);
            if let Some(instance) = self.instances.get_mut(place) {
                instance.gate = Gate::Open;
            }
            reader = reader.saturating_add(1);
        }
    }
}

pub(super) const fn known(value: &Value) -> Option<Quantity> {
    match value {
        Value::Known(quantity) => Some(*quantity),
        Value::Over | Value::NoData | Value::NoQuota => None,
    }
}
