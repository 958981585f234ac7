//! What answers warn of about an alert: names that nothing is known of, limits of zero, spans that are rounded.

use super::app::{App, Caller};
use crate::domain::control::command::AlertWarning;
use crate::domain::definition::Quota;
use crate::domain::id::{AccountScope, MetricName};
use crate::domain::quantity::Quantity;
use crate::domain::rule::{Input, Name, RuleProgram};
use crate::domain::time::{Millis, WINDOW};
use crate::store::MetricQuery;
use std::collections::BTreeSet;

/// What is odd about the rule itself, or about what it will find.
pub(super) async fn warnings(
    app: &App,
    caller: &Caller,
    program: &RuleProgram,
    (account, metric): (&AccountScope, Option<&MetricName>),
) -> Vec<AlertWarning> {
    let mut warnings: Vec<AlertWarning> = program
        .warnings()
        .iter()
        .map(|warning| AlertWarning { code: warning.code.to_owned(), detail: warning.detail.clone() })
        .collect();
    let inputs = program.inputs();
    let own = |input: &Input| input.metric.as_ref().or(metric).cloned();
    let named: BTreeSet<MetricName> = inputs.iter().filter_map(own).collect();
    for metric in named {
        if !is_known(app, caller, account, &metric).await {
            warnings.push(AlertWarning {
                code: "unknown_metric".to_owned(),
                detail: format!("nothing is known of {metric} yet: no event, no quota and no definition names it"),
            });
        }
    }
    let quotas: BTreeSet<Option<MetricName>> = inputs.iter().filter(|i| i.name.reads_quota()).map(own).collect();
    for metric in quotas.into_iter().filter(|metric| !has_quota(app, caller, account, metric.as_ref())) {
        let what =
            metric.map_or("no metric of this account has a quota yet".to_owned(), |m| format!("{m} has no quota yet"));
        warnings.push(AlertWarning {
            code: "no_quota".to_owned(),
            detail: format!(
                "{what}; the alert is inconclusive until PUT /v1/accounts/{account}/quotas/{{metric}} sets one"
            ),
        });
    }
    warnings.extend(zero_limits(app, caller, program, (account, metric)));
    warnings
}

/// Names the limits of zero that a rule takes percentages of.
fn zero_limits(
    app: &App,
    caller: &Caller,
    program: &RuleProgram,
    (account, metric): (&AccountScope, Option<&MetricName>),
) -> Option<AlertWarning> {
    let percents = program.inputs().iter().filter(|input| input.name == Name::QuotaPercent);
    let asked: Vec<Option<&MetricName>> = percents.map(|input| input.metric.as_ref().or(metric)).collect();
    let quotas: Vec<(MetricName, Quota)> = {
        let (state, tenant) = (app.node.data.control.state(), caller.principal.tenant);
        match account {
            AccountScope::One(account) => state.effective_quotas(tenant, account),
            AccountScope::All => {
                let defaults = state.quotas_of(tenant, account);
                defaults.map(|record| (record.metric.clone(), record.quota)).collect()
            }
        }
    };
    let is_asked = |metric: &MetricName| asked.iter().any(|asked| asked.is_none_or(|asked| asked == metric));
    let zero = quotas.iter().filter(|(metric, quota)| quota.limit == Quantity::ZERO && is_asked(metric));
    let named: Vec<&str> = zero.map(|(metric, _)| metric.as_str()).take(10).collect();
    (!named.is_empty()).then(|| AlertWarning {
        code: "limit_zero".to_owned(),
        detail: format!(
            "the limit of {} is zero: nothing is allowed, and quota_percent is greater than every number once anything is used",
            named.join(", ")
        ),
    })
}

fn has_quota(app: &App, caller: &Caller, account: &AccountScope, metric: Option<&MetricName>) -> bool {
    let tenant = caller.principal.tenant;
    let state = app.node.data.control.state();
    match (account, metric) {
        (AccountScope::One(account), Some(metric)) => state.effective_quota(tenant, account, metric).is_some(),
        (AccountScope::One(account), None) => !state.effective_quotas(tenant, account).is_empty(),
        // Some account may have one of its own.
        (AccountScope::All, _) => true,
    }
}

/// Whether a metric is defined, limited or in use. What the store cannot tell is taken for known.
async fn is_known(app: &App, caller: &Caller, account: &AccountScope, metric: &MetricName) -> bool {
    let tenant = caller.principal.tenant;
    let (defined, epoch) = {
        let state = app.node.data.control.state();
        let limited = match account {
            AccountScope::One(account) => state.effective_quota(tenant, account, metric).is_some(),
            AccountScope::All => state.quota(tenant, &AccountScope::All, metric).is_some(),
        };
        let epoch = match account {
            AccountScope::One(account) => state.epoch_of(tenant, account),
            AccountScope::All => state.sandbox(tenant).map(|sandbox| sandbox.epoch).unwrap_or_default(),
        };
        (limited || state.metric(tenant, metric).is_some(), epoch)
    };
    if defined {
        return true;
    }
    let store = &app.node.data.store;
    match account {
        AccountScope::One(account) => {
            store.metrics_of(tenant, epoch, account.clone()).await.map_or(true, |known| known.contains(metric))
        }
        AccountScope::All => {
            let asked = MetricQuery { tenant, since: epoch, metrics: vec![metric.clone()] };
            store.metrics_among(asked).await.map_or(true, |known| known.contains(metric))
        }
    }
}

/// Names the spans of an alert that are no whole windows, where its rule counts windows.
pub(super) fn rounded_spans(rule: &str, (hold, keep_firing_for): (Millis, Millis)) -> Vec<AlertWarning> {
    let is_uneven = |span: &Millis| span.0.checked_rem(WINDOW.0).is_some_and(|rest| rest != 0);
    let mut spans = vec![("for", hold), ("keep_firing_for", keep_firing_for)];
    spans.retain(|(_, span)| is_uneven(span));
    if spans.is_empty() || !RuleProgram::compile(rule).is_ok_and(|program| program.reads_window()) {
        return Vec::new();
    }
    let warning = |(name, span): (&str, Millis)| {
        let windows = span.windows();
        let counted = Millis(windows.saturating_mul(WINDOW.0));
        let noun = if windows == 1 { "closed window" } else { "closed windows in a row" };
        let detail =
            format!("{name} of {span} is counted as {windows} {noun} ({counted}): the rule reads the {WINDOW} window");
        AlertWarning { code: "span_rounded".to_owned(), detail }
    };
    spans.into_iter().map(warning).collect()
}
