//! An alert to be, and changes of one.

use super::patch::clearable;
use crate::domain::definition::{InconclusivePolicy, NoDataPolicy, Severity};
use crate::domain::id::{AccountScope, ChannelId, MetricName, ProjectId};
use crate::domain::time::Millis;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An alert to be: validated, its channels resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertDraft {
    /// The account, or all of them.
    pub account: AccountScope,
    /// The metric that unqualified names stand for.
    pub metric: Option<MetricName>,
    /// The rule as it was written.
    pub rule: String,
    /// The rule in its canonical spelling.
    pub normalized: String,
    /// What is odd about the rule.
    pub warnings: Vec<AlertWarning>,
    /// The condition that ends a firing.
    pub recover: Option<String>,
    /// The version of the rule grammar that accepted the sources.
    pub grammar: u32,
    /// `for`.
    pub hold: Millis,
    /// How long a firing outlives its condition.
    pub keep_firing_for: Millis,
    /// After how long a firing that lasts is sent again.
    pub repeat_interval: Millis,
    /// How bad it is.
    pub severity: Severity,
    /// What missing data means.
    pub no_data: NoDataPolicy,
    /// What a rule that cannot be decided means.
    #[serde(default, skip_serializing_if = "InconclusivePolicy::is_keep")]
    pub inconclusive: InconclusivePolicy,
    /// A name for people.
    pub name: Option<String>,
    /// A text that is sent along.
    pub message: Option<String>,
    /// Labels for silences and receivers.
    pub labels: BTreeMap<String, String>,
    /// The caller's own notes.
    pub metadata: BTreeMap<String, String>,
    /// The project that the alert belongs to.
    pub project: Option<ProjectId>,
    /// The channels as they were written: a type, an id, or several.
    pub channel: ChannelChoice,
    /// What they stand for.
    pub channels: Vec<ChannelId>,
}

/// Channels as a person writes them: `"slack"`, `"chn_…"`, or an array of either.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ChannelChoice {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// Something odd that does not keep an alert from being created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertWarning {
    /// What it is, for programs.
    pub code: String,
    /// What it is, for people.
    pub detail: String,
}

/// Changes of an alert. An absent field stays; `Some(None)` clears.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AlertPatch {
    /// The account, or all of them.
    pub account: Option<AccountScope>,
    /// The metric that unqualified names stand for.
    #[serde(deserialize_with = "clearable::deserialize", skip_serializing_if = "Option::is_none")]
    pub metric: Option<Option<MetricName>>,
    /// The rule with its canonical spelling, warnings and grammar.
    pub rule: Option<RulePatch>,
    /// The condition that ends a firing.
    #[serde(deserialize_with = "clearable::deserialize", skip_serializing_if = "Option::is_none")]
    pub recover: Option<Option<String>>,
    /// `for`.
    pub hold: Option<Millis>,
    /// How long a firing outlives its condition.
    pub keep_firing_for: Option<Millis>,
    /// After how long a firing that lasts is sent again.
    pub repeat_interval: Option<Millis>,
    /// How bad it is.
    pub severity: Option<Severity>,
    /// What missing data means.
    pub no_data: Option<NoDataPolicy>,
    /// What a rule that cannot be decided means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inconclusive: Option<InconclusivePolicy>,
    /// The name for people.
    #[serde(deserialize_with = "clearable::deserialize", skip_serializing_if = "Option::is_none")]
    pub name: Option<Option<String>>,
    /// The text that is sent along.
    #[serde(deserialize_with = "clearable::deserialize", skip_serializing_if = "Option::is_none")]
    pub message: Option<Option<String>>,
    /// Entries of the labels; `None` removes one.
    #[serde(deserialize_with = "clearable::deserialize", skip_serializing_if = "Option::is_none")]
    pub labels: Option<Option<BTreeMap<String, Option<String>>>>,
    /// Entries of the caller's notes; `None` removes one.
    #[serde(deserialize_with = "clearable::deserialize", skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Option<BTreeMap<String, Option<String>>>>,
    /// The project that the alert belongs to.
    #[serde(deserialize_with = "clearable::deserialize", skip_serializing_if = "Option::is_none")]
    pub project: Option<Option<ProjectId>>,
    /// The channels as written, and what they stand for.
    pub channel: Option<(ChannelChoice, Vec<ChannelId>)>,
}

/// A changed rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulePatch {
    /// The rule as it was written.
    pub source: String,
    /// The rule in its canonical spelling.
    pub normalized: String,
    /// What is odd about it.
    pub warnings: Vec<AlertWarning>,
    /// The version of the rule grammar that accepted it.
    pub grammar: u32,
}
