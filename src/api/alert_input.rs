//! Reading what people write about alerts: rules, channels, durations.

use super::alert_channels;
use super::alert_warnings::warnings;
use super::app::{App, Caller};
use super::input::{defaulted, nullable, present};
use super::labels::project;
use super::problem::{Fault, Problem};
use super::text;
use crate::domain::control::command::{AlertDraft, AlertPatch, ChannelChoice, RulePatch};
use crate::domain::control::resource::Alert;
use crate::domain::definition::{InconclusivePolicy, NoDataPolicy, Severity};
use crate::domain::id::{AccountScope, MetricName};
use crate::domain::limits::{MESSAGE_CHARS_MAX, REPEAT_INTERVAL};
use crate::domain::rule::{GRAMMAR, RuleProgram};
use crate::domain::time::Millis;
use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// An alert to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AlertCreate {
    /// An account, or `*` for all.
    account_id: String,
    /// For example `quota_percent > 85`.
    #[schema(max_length = 512)]
    rule: String,
    /// A type (`slack`, `webhook`), a channel's id, or an array of either.
    #[schema(value_type = ChannelNames)]
    channel: ChannelChoice,
    metric: Option<String>,
    name: Option<String>,
    /// How long the condition must hold; `0s` where absent. A rule that reads a window counts closed windows in a row, and
    /// a span is rounded up to whole ones: `1s` to `5m` is one.
    r#for: Option<String>,
    /// How long a firing goes on behind the condition, counted as `for` is; `0s` where absent.
    keep_firing_for: Option<String>,
    /// The condition that ends a firing.
    recover: Option<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>, pattern = "^(info|warning|critical)$")]
    severity: Severity,
    repeat_interval: Option<String>,
    /// What a firing does once all that the rule reads is missing: `ok` resolves it at once, whatever `keep_firing_for` says;
    /// `keep` leaves it; `alert` sends one message that data is missing, and a resolve when it is back.
    #[serde(default)]
    #[schema(value_type = Option<String>, pattern = "^(ok|alert|keep)$")]
    no_data: NoDataPolicy,
    /// What a firing does while the rule cannot be decided, for want of a quota or behind a division by zero: it stays, or
    /// resolves with reason `inconclusive`.
    #[serde(default)]
    #[schema(value_type = Option<String>, pattern = "^(keep|ok)$")]
    inconclusive: InconclusivePolicy,
    /// Labels for silences and receivers. `alert_id`, `account_id`, `metric`, `severity` and `name` are reserved.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    message: Option<String>,
    project_id: Option<String>,
}

/// A channel's type or id, or several.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its derived description is used")]
pub(super) enum ChannelNames {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

type MapPatch = Option<Option<BTreeMap<String, Option<String>>>>;

/// Changes of an alert.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AlertUpdate {
    #[serde(deserialize_with = "present")]
    account_id: Option<String>,
    #[serde(deserialize_with = "present")]
    #[schema(max_length = 512)]
    rule: Option<String>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<ChannelNames>)]
    channel: Option<ChannelChoice>,
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    metric: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    name: Option<Option<String>>,
    /// `null` stands for `0s`.
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    r#for: Option<Option<String>>,
    /// `null` stands for `0s`.
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    keep_firing_for: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    recover: Option<Option<String>>,
    /// `null` stands for `warning`.
    #[serde(deserialize_with = "defaulted")]
    #[schema(value_type = Option<String>, pattern = "^(info|warning|critical)$")]
    severity: Option<Severity>,
    /// `null` stands for `4h`.
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    repeat_interval: Option<Option<String>>,
    /// `null` stands for `ok`.
    #[serde(deserialize_with = "defaulted")]
    #[schema(value_type = Option<String>, pattern = "^(ok|alert|keep)$")]
    no_data: Option<NoDataPolicy>,
    /// `null` stands for `keep`.
    #[serde(deserialize_with = "defaulted")]
    #[schema(value_type = Option<String>, pattern = "^(keep|ok)$")]
    inconclusive: Option<InconclusivePolicy>,
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<BTreeMap<String, Option<String>>>)]
    labels: MapPatch,
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<BTreeMap<String, Option<String>>>)]
    metadata: MapPatch,
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    message: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    project_id: Option<Option<String>>,
}

/// Checks an alert to be, and resolves its channels.
///
/// # Errors
/// 422 where a field is wrong.
pub(super) async fn draft(app: &App, caller: &Caller, wanted: AlertCreate) -> Result<AlertDraft, Problem> {
    let account = scope(wanted.account_id)?;
    let metric = wanted.metric.map(metric).transpose()?;
    let program = compile("/rule", &wanted.rule)?;
    let recover = wanted.recover.map(recovery).transpose()?;
    let project = project(app, caller, wanted.project_id)?;
    let channels = alert_channels::resolve(app, caller, &wanted.channel, project)?;
    text::unreserved("/labels", wanted.labels.keys())?;
    let warnings = warnings(app, caller, &program, (&account, metric.as_ref())).await;
    Ok(AlertDraft {
        normalized: program.normalized().to_owned(),
        rule: wanted.rule,
        warnings,
        recover,
        grammar: GRAMMAR,
        hold: duration("/for", wanted.r#for)?.unwrap_or_default(),
        keep_firing_for: duration("/keep_firing_for", wanted.keep_firing_for)?.unwrap_or_default(),
        repeat_interval: interval(wanted.repeat_interval)?.unwrap_or(REPEAT_INTERVAL),
        severity: wanted.severity,
        no_data: wanted.no_data,
        inconclusive: wanted.inconclusive,
        name: wanted.name.map(|name| text::name("/name", name)).transpose()?,
        message: wanted.message.map(|message| text::bounded("/message", message, MESSAGE_CHARS_MAX)).transpose()?,
        labels: text::map("/labels", wanted.labels)?,
        metadata: text::map("/metadata", wanted.metadata)?,
        project,
        channel: wanted.channel,
        channels,
        account,
        metric,
    })
}

/// Checks changes of an alert.
///
/// # Errors
/// 422 where a field is wrong.
pub(super) async fn patch(
    app: &App,
    caller: &Caller,
    alert: &Alert,
    wanted: AlertUpdate,
) -> Result<AlertPatch, Problem> {
    let account = wanted.account_id.map(scope).transpose()?;
    let metric = wanted.metric.map(|named| named.map(metric).transpose()).transpose()?;
    let definition = &alert.definition;
    let rule = match wanted.rule {
        None => None,
        Some(source) => {
            let program = compile("/rule", &source)?;
            let on = account.as_ref().unwrap_or(&definition.account);
            let own = metric.as_ref().unwrap_or(&definition.metric).as_ref();
            let warnings = warnings(app, caller, &program, (on, own)).await;
            Some(RulePatch { normalized: program.normalized().to_owned(), source, warnings, grammar: GRAMMAR })
        }
    };
    let project = wanted.project_id.map(|id| project(app, caller, id)).transpose()?;
    let label = project.unwrap_or(definition.project);
    // Where the channels are of another project than the alert is from here on, what was written stands for others.
    let choice = wanted.channel.or_else(|| {
        let moves = project.is_some() && !alert_channels::take_alerts_of(app, caller, &definition.channels, label);
        moves.then(|| alert.channel.clone())
    });
    let channel = match choice {
        None => None,
        Some(choice) => {
            let channels = alert_channels::resolve(app, caller, &choice, label)?;
            Some((choice, channels))
        }
    };
    let set = wanted.labels.iter().flatten().flatten().filter(|(_, value)| value.is_some());
    text::unreserved("/labels", set.map(|(name, _)| name))?;
    let bounded = |message: String| text::bounded("/message", message, MESSAGE_CHARS_MAX);
    Ok(AlertPatch {
        account,
        metric,
        rule,
        recover: wanted.recover.map(|source| source.map(recovery).transpose()).transpose()?,
        hold: wanted.r#for.map(|text| or_default(duration("/for", text), Millis::ZERO)).transpose()?,
        keep_firing_for: wanted
            .keep_firing_for
            .map(|text| or_default(duration("/keep_firing_for", text), Millis::ZERO))
            .transpose()?,
        repeat_interval: wanted.repeat_interval.map(|text| or_default(interval(text), REPEAT_INTERVAL)).transpose()?,
        severity: wanted.severity,
        no_data: wanted.no_data,
        inconclusive: wanted.inconclusive,
        name: wanted.name.map(|name| name.map(|name| text::name("/name", name)).transpose()).transpose()?,
        message: wanted.message.map(|message| message.map(bounded).transpose()).transpose()?,
        labels: text::map_patch("/labels", wanted.labels)?,
        metadata: text::map_patch("/metadata", wanted.metadata)?,
        project,
        channel,
    })
}

fn or_default(span: Result<Option<Millis>, Problem>, default: Millis) -> Result<Millis, Problem> {
    Ok(span?.unwrap_or(default))
}

fn scope(text: String) -> Result<AccountScope, Problem> {
    let expected = crate::domain::id::AccountId::EXPECTED;
    AccountScope::try_from(text).map_err(|_| Problem::invalid("/account_id", format!("expected *, or {expected}")))
}

fn metric(text: String) -> Result<MetricName, Problem> {
    MetricName::new(&text).map_err(|_| Problem::invalid("/metric", format!("expected {}", MetricName::EXPECTED)))
}

fn duration(pointer: &str, text: Option<String>) -> Result<Option<Millis>, Problem> {
    text.map(|text| text::duration(pointer, &text)).transpose()
}

fn interval(text: Option<String>) -> Result<Option<Millis>, Problem> {
    match duration("/repeat_interval", text)? {
        Some(span) if span < Millis::minutes(1) => Err(Problem::invalid("/repeat_interval", "at least 1m")),
        other => Ok(other),
    }
}

pub(super) fn recovery(source: String) -> Result<String, Problem> {
    compile("/recover", &source)?;
    Ok(source)
}

/// Compiles a rule; its fault becomes a problem with place and hint.
pub(super) fn compile(pointer: &str, source: &str) -> Result<RuleProgram, Problem> {
    RuleProgram::compile(source).map_err(|error| {
        let detail = match &error.expected {
            Some(expected) => format!("{error}; expected {expected}"),
            None => error.to_string(),
        };
        let fault = Fault {
            pointer: pointer.to_owned(),
            code: error.code.text().to_owned(),
            detail: detail.clone(),
            offset: Some(error.offset),
            length: Some(error.length),
            hint: error.hint,
        };
        let param = pointer.trim_start_matches('/').to_owned();
        Problem { errors: vec![fault], ..Problem::unprocessable(error.code.text(), detail) }.with("param", param)
    })
}
