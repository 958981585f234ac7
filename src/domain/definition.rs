//! What people define: quotas, metrics, alerts, silences. The same values stand in commands, in copies to the partitions
//! and in both folds.

use crate::domain::id::{AccountScope, AlertId, ChannelId, MetricName, ProjectId, SilenceId};
use crate::domain::quantity::Quantity;
use crate::domain::time::{Millis, Period, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the values of a span become one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fold {
    /// They add up.
    #[default]
    Sum,
    /// The greatest counts.
    Max,
    /// The one with the latest event time counts.
    Last,
}

impl Fold {
    /// The name as the API writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Max => "max",
            Self::Last => "last",
        }
    }
}

/// How much of a metric an account may use in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// The limit, zero or more, in the metric's unit.
    pub limit: Quantity,
    /// The period after which counting starts anew.
    pub period: Period,
    /// How the period's values become `used`.
    pub aggregate: Fold,
}

/// How much of a limit is used, in percent. A limit of zero allows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsedPercent {
    /// `used * 100 / limit`, rounded towards minus infinity at the ninth decimal; 0 where nothing is used of a limit of zero.
    Exact(Quantity),
    /// Something is used of a limit of zero, which is more than any percentage.
    Over,
}

impl UsedPercent {
    /// The share of a limit that is used.
    pub fn of(used: Quantity, limit: Quantity) -> Self {
        match used.percent_of(limit) {
            Some(percent) => Self::Exact(percent),
            None if used > Quantity::ZERO => Self::Over,
            None => Self::Exact(Quantity::ZERO),
        }
    }

    /// The percentage; absent where it is greater than every number.
    pub const fn exact(self) -> Option<Quantity> {
        match self {
            Self::Exact(percent) => Some(percent),
            Self::Over => None,
        }
    }

    /// Whether it is greater than every number.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Over)
    }
}

/// What is known of a metric. Undeclared metrics have the default one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricDefinition {
    /// What is counted, for people.
    pub unit: Option<String>,
    /// How a window's values become its `value`.
    pub aggregate: Fold,
    /// The dimensions that get series of their own, at most [`GROUP_BY_MAX`](crate::domain::limits::GROUP_BY_MAX).
    pub group_by: Vec<String>,
}

/// How bad it is when an alert fires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Look soon.
    #[default]
    Warning,
    /// Look now.
    Critical,
}

impl Severity {
    /// The name as the API writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What an alert does about messages when all that it reads is missing. Its state is `no_data` in every case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoDataPolicy {
    /// A firing resolves with reason `no_data`.
    #[default]
    Ok,
    /// One `alert.no_data` is sent, and a resolve when data is back.
    Alert,
    /// A firing stays; nothing is sent.
    Keep,
}

/// What an alert does while its rule cannot be decided: a quota is missing, or it divides by zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InconclusivePolicy {
    /// A firing stays.
    #[default]
    Keep,
    /// A firing resolves with reason `inconclusive`.
    Ok,
}

impl InconclusivePolicy {
    /// Whether it is the default.
    pub const fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }
}

/// A field that came after the layout of snapshots was fixed: texts have it, binary formats keep it elsewhere.
mod in_texts_alone {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { value.serialize(serializer) } else { ().serialize(serializer) }
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        if deserializer.is_human_readable() {
            T::deserialize(deserializer)
        } else {
            <()>::deserialize(deserializer)?;
            Ok(T::default())
        }
    }
}

/// An alert as it was accepted: validated, with its channels resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertDefinition {
    /// The alert.
    pub id: AlertId,
    /// Counts edits, from 1.
    pub version: u64,
    /// The account, or all of them.
    pub account: AccountScope,
    /// The metric that unqualified names stand for; each fitting one where absent.
    pub metric: Option<MetricName>,
    /// The rule's source.
    pub rule: String,
    /// The condition that ends a firing; "the rule is false" where absent.
    pub recover: Option<String>,
    /// The version of the rule grammar that accepted the sources.
    pub grammar: u32,
    /// How long the condition must hold before the alert fires.
    pub hold: Millis,
    /// How long a firing outlives its condition.
    pub keep_firing_for: Millis,
    /// After how long a firing that lasts is sent again (rules that read no quota).
    pub repeat_interval: Millis,
    /// How bad it is.
    pub severity: Severity,
    /// What missing data means.
    pub no_data: NoDataPolicy,
    /// What a rule that cannot be decided means.
    #[serde(default, skip_serializing_if = "InconclusivePolicy::is_keep", with = "in_texts_alone")]
    pub inconclusive: InconclusivePolicy,
    /// A name for people.
    pub name: Option<String>,
    /// A text that is sent along.
    pub message: Option<String>,
    /// Labels for silences and receivers.
    pub labels: BTreeMap<String, String>,
    /// The project that the alert belongs to.
    pub project: Option<ProjectId>,
    /// Where notifications go.
    pub channels: Vec<ChannelId>,
    /// Whether, and until when, the alert is paused.
    pub pause: Option<Pause>,
}

/// A pause of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// When it ends by itself; never where absent.
    pub until: Option<Timestamp>,
}

/// Holds the messages of matching alerts for a while; their states go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// The silence.
    pub id: SilenceId,
    /// All of them must match.
    pub matchers: Vec<Matcher>,
    /// When it begins to hold.
    pub starts_at: Timestamp,
    /// When it ends.
    pub ends_at: Timestamp,
}

/// One condition of a silence on a name: `alert_id`, `account_id`, `metric`, `severity`, `name` or a label. What it is
/// compared with stands in [`silence`](crate::domain::silence).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matcher {
    /// What is looked at.
    pub name: String,
    /// The text or regular expression.
    pub value: String,
    /// How they are compared.
    pub op: MatchOp,
}

impl Matcher {
    /// Whether the value is an expression.
    pub const fn is_expression(&self) -> bool {
        match self.op {
            MatchOp::Matches | MatchOp::MatchesNot => true,
            MatchOp::Equal | MatchOp::NotEqual => false,
        }
    }

    /// Compiles the value as an expression for whole texts, in linear time and bounded space.
    ///
    /// # Errors
    /// Where it is no expression by itself, or a too large one.
    pub fn expression(&self) -> Result<regex::Regex, regex::Error> {
        let build = |pattern: &str| {
            let mut builder = regex::RegexBuilder::new(pattern);
            builder.size_limit(crate::domain::limits::MATCHER_BYTES_MAX).build()
        };
        // By itself first: `a)|(b` is an expression only inside of parentheses.
        build(&self.value)?;
        build(&format!("^(?:{})$", self.value))
    }
}

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MatchOp {
    /// Equal.
    #[serde(rename = "=")]
    Equal,
    /// Not equal.
    #[serde(rename = "!=")]
    NotEqual,
    /// The whole text matches the expression.
    #[serde(rename = "=~")]
    Matches,
    /// The whole text does not match the expression.
    #[serde(rename = "!~")]
    MatchesNot,
}
