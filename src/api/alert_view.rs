//! What is shown of an alert: its definition, and how its instances stand.

use super::alert_warnings::rounded_spans;
use super::answer;
use super::app::Caller;
use super::change::Changed;
use super::usage::number;
use crate::domain::control::command::{AlertWarning, ChannelChoice};
use crate::domain::control::outcome::Resource;
use crate::domain::control::resource::Alert;
use crate::domain::definition::{AlertDefinition, InconclusivePolicy, NoDataPolicy, Pause};
use crate::domain::partition::effect::State as AlertState;
use crate::domain::quantity::Quantity;
use crate::domain::rule::RuleProgram;
use crate::domain::time::Timestamp;
use crate::runtime::clock;
use crate::store::Summary;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// An alert.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AlertView {
    pub(super) id: String,
    object: &'static str,
    mode: &'static str,
    version: u64,
    account_id: String,
    metric: Option<String>,
    name: Option<String>,
    rule: String,
    rule_normalized: String,
    recover: Option<String>,
    #[schema(value_type = Vec<Object>)]
    warnings: Vec<AlertWarning>,
    #[schema(value_type = super::alert_input::ChannelNames)]
    channel: ChannelChoice,
    channels: Vec<String>,
    /// `active` or `paused`.
    status: &'static str,
    paused_until: Option<String>,
    /// The worst state of its instances: `firing`, `no_data`, `inconclusive`, `pending`, `ok`.
    state: &'static str,
    /// How many instances are in each state.
    states: BTreeMap<&'static str, u64>,
    silenced: bool,
    #[schema(value_type = Option<f64>)]
    last_value: Option<Box<RawValue>>,
    last_evaluated_at: Option<String>,
    r#for: String,
    keep_firing_for: String,
    repeat_interval: String,
    severity: &'static str,
    no_data: &'static str,
    /// `keep` or `ok`: what a firing does while the rule cannot be decided.
    inconclusive: &'static str,
    labels: BTreeMap<String, String>,
    metadata: BTreeMap<String, String>,
    message: Option<String>,
    project_id: Option<String>,
    created_at: String,
    updated_at: String,
}

/// What an answer shows of an alert beside its definition: how it stood, and when.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Standing {
    at: Timestamp,
    states: BTreeMap<AlertState, u64>,
    silenced: bool,
    last_value: Option<Quantity>,
    last_evaluated_at: Option<Timestamp>,
    /// Whether the store was asked: an alert that was just made has not been looked at, and is ok.
    looked_at: bool,
}

impl Standing {
    /// An alert that was just made.
    pub(super) fn begun() -> Self {
        Self {
            at: clock::now(),
            states: BTreeMap::new(),
            silenced: false,
            last_value: None,
            last_evaluated_at: None,
            looked_at: false,
        }
    }

    pub(super) fn of(summary: Option<&Summary>) -> Self {
        let Some(summary) = summary else { return Self::begun() };
        Self {
            states: summary.counts.clone(),
            silenced: summary.silenced,
            last_value: summary.last_value,
            last_evaluated_at: summary.last_evaluated_at,
            looked_at: true,
            ..Self::begun()
        }
    }

    /// As it stands in the caller's world, whose clock may be ahead.
    pub(super) fn in_world(self, caller: &Caller) -> Self {
        Self { at: self.at.plus(caller.advance), ..self }
    }

    pub(super) fn state(&self, definition: &AlertDefinition) -> AlertState {
        if !self.looked_at {
            return AlertState::Ok;
        }
        Summary { counts: self.states.clone(), ..Summary::default() }.worst().unwrap_or_else(|| {
            match RuleProgram::compile(&definition.rule) {
                Ok(program) if program.reads_quota() => AlertState::Inconclusive,
                Ok(_) => AlertState::NoData,
                Err(_) => AlertState::Inconclusive,
            }
        })
    }

    /// Names the version, and what changes without one once there is something to tell.
    pub(super) fn etag(&self, alert: &Alert) -> String {
        if self.states.is_empty() && alert.definition.pause.is_none() {
            return answer::etag(alert.life.version);
        }
        let paused = pause_at(&alert.definition, self.at);
        let told = format!("{:?}", (&self.states, self.silenced, self.last_value, self.last_evaluated_at, paused));
        let digest = Sha256::digest(told.as_bytes());
        let hex: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        format!("\"{}-{hex}\"", alert.life.version)
    }
}

/// The pause that holds at an instant.
pub(super) fn pause_at(definition: &AlertDefinition, now: Timestamp) -> Option<Pause> {
    definition.pause.filter(|pause| pause.until.is_none_or(|until| until > now))
}

/// Shows an alert.
pub(super) fn view(caller: &Caller, alert: &Alert, standing: &Standing) -> AlertView {
    let definition = &alert.definition;
    let paused = pause_at(definition, standing.at);
    AlertView {
        id: definition.id.to_string(),
        object: "alert",
        mode: caller.principal.tenant.mode.name(),
        version: alert.life.version,
        account_id: definition.account.to_string(),
        metric: definition.metric.as_ref().map(ToString::to_string),
        name: definition.name.clone(),
        rule: definition.rule.clone(),
        rule_normalized: alert.normalized.clone(),
        recover: definition.recover.clone(),
        warnings: warnings(alert),
        channel: alert.channel.clone(),
        channels: definition.channels.iter().map(ToString::to_string).collect(),
        status: if paused.is_some() { "paused" } else { "active" },
        paused_until: paused.and_then(|pause| pause.until).map(|until| until.to_string()),
        state: standing.state(definition).name(),
        states: standing.states.iter().map(|(state, n)| (state.name(), *n)).collect(),
        silenced: standing.silenced,
        last_value: standing.last_value.map(number),
        last_evaluated_at: standing.last_evaluated_at.map(|at| at.to_string()),
        r#for: definition.hold.to_string(),
        keep_firing_for: definition.keep_firing_for.to_string(),
        repeat_interval: definition.repeat_interval.to_string(),
        severity: definition.severity.name(),
        no_data: match definition.no_data {
            NoDataPolicy::Ok => "ok",
            NoDataPolicy::Alert => "alert",
            NoDataPolicy::Keep => "keep",
        },
        inconclusive: match definition.inconclusive {
            InconclusivePolicy::Keep => "keep",
            InconclusivePolicy::Ok => "ok",
        },
        labels: definition.labels.clone(),
        metadata: alert.metadata.clone(),
        message: definition.message.clone(),
        project_id: definition.project.map(|project| project.to_string()),
        created_at: alert.life.created_at.to_string(),
        updated_at: alert.life.updated_at.to_string(),
    }
}

/// What was odd when its rule was written, and about its spans.
fn warnings(alert: &Alert) -> Vec<AlertWarning> {
    let definition = &alert.definition;
    let rounded = rounded_spans(&definition.rule, (definition.hold, definition.keep_firing_for));
    alert.warnings.iter().cloned().chain(rounded).collect()
}

/// `standing` is how the alert stands, unless a repetition shows how it stood.
pub(super) fn answered(caller: &Caller, changed: &Changed, standing: &Standing) -> Response {
    let stood = changed.beside.as_deref().and_then(|beside| serde_json::from_str(beside).ok());
    let Resource::Alert(alert) = &changed.resource else { return answer::gone() };
    let location = format!("/v1/alerts/{}", alert.definition.id);
    let view = view(caller, alert, stood.as_ref().unwrap_or(standing));
    answer::changed(changed, &view, alert.life.version, &location)
}
