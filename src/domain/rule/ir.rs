//! The tree that a rule becomes: numbers and booleans only.

use super::token::Span;
use crate::domain::id::MetricName;
use crate::domain::quantity::Quantity;
use serde::{Deserialize, Serialize};

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $kind:ident;)*) => {
        /// An input's name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Name {
            $($(#[$doc])* $name,)*
        }

        impl Name {
            /// Every name, in the order of the documentation.
            pub const ALL: [Self; 12] = [$(Self::$name,)*];

            /// The name as a rule writes it.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// Whether it is a level of the quota's period; else it belongs to the 5-minute window.
            pub const fn reads_quota(self) -> bool {
                match self {
                    $(Self::$name => matches!(Kind::$kind, Kind::Quota),)*
                }
            }

            /// Whether it belongs to the 5-minute window.
            pub const fn reads_window(self) -> bool {
                !self.reads_quota()
            }
        }
    };
}

enum Kind {
    Quota,
    Window,
}

names! {
    /// `used * 100 / limit`; of a limit of zero 0, and greater than every number once anything is used.
    QuotaPercent = "quota_percent", Quota;
    /// What was used in the quota's period.
    Used = "used", Quota;
    /// The quota's limit.
    Limit = "limit", Quota;
    /// `limit - used`.
    Remaining = "remaining", Quota;
    /// How much of the quota's period has passed, 0 to 100.
    PeriodElapsedPercent = "period_elapsed_percent", Quota;
    /// The sum of the window's values; also written `usage`.
    Sum = "sum", Window;
    /// How many events the window has.
    Count = "count", Window;
    /// The least value of the window.
    Min = "min", Window;
    /// The greatest value of the window.
    Max = "max", Window;
    /// The mean of the window's values.
    Avg = "avg", Window;
    /// The value with the latest event time.
    Last = "last", Window;
    /// `sum` per second.
    Rate = "rate", Window;
}

impl Name {
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == "usage" { Some(Self::Sum) } else { Self::ALL.into_iter().find(|name| name.text() == text) }
    }
}

/// One thing that a rule reads; its index in [`RuleProgram::inputs`](super::RuleProgram::inputs) is its slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The name.
    pub name: Name,
    /// The metric that it is asked of; the instance's own where absent.
    pub metric: Option<MetricName>,
}

/// A comparison of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

impl Comparison {
    /// Tells whether the comparison holds.
    pub fn holds(self, left: Quantity, right: Quantity) -> bool {
        match self {
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Equal => left == right,
            Self::NotEqual => left != right,
        }
    }

    /// Tells whether the comparison holds of something greater than every number, and any number.
    pub const fn holds_over(self) -> bool {
        match self {
            Self::Greater | Self::GreaterOrEqual | Self::NotEqual => true,
            Self::Less | Self::LessOrEqual | Self::Equal => false,
        }
    }

    /// The comparison that says the same with its sides exchanged.
    pub const fn mirrored(self) -> Self {
        match self {
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Equal => Self::Equal,
            Self::NotEqual => Self::NotEqual,
        }
    }

    /// The operator as a rule writes it.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Equal => "==",
            Self::NotEqual => "!=",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Arithmetic {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }
}

/// A part of the tree. Parts refer to earlier ones by their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Number(Quantity),
    Flag(bool),
    Input(usize),
    Negate(usize),
    Arithmetic(Arithmetic, usize, usize),
    Compare(Comparison, usize, usize),
    Not(usize),
    And(usize, usize),
    Or(usize, usize),
}

impl Node {
    pub(super) const fn is_boolean(&self) -> bool {
        match self {
            Self::Flag(_) | Self::Compare(..) | Self::Not(_) | Self::And(..) | Self::Or(..) => true,
            Self::Number(_) | Self::Input(_) | Self::Negate(_) | Self::Arithmetic(..) => false,
        }
    }
}

/// A whole tree; its root is the last node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    /// Where each node stands in the source.
    pub(super) spans: Vec<Span>,
    pub(super) inputs: Vec<Input>,
}

impl Tree {
    pub(super) fn get(&self, at: usize) -> &Node {
        const NEVER: &Node = &Node::Flag(false);
        self.nodes.get(at).unwrap_or(NEVER)
    }

    pub(super) fn root(&self) -> usize {
        self.nodes.len().saturating_sub(1)
    }

    pub(super) fn slot(&mut self, input: Input) -> usize {
        match self.inputs.iter().position(|known| *known == input) {
            Some(slot) => slot,
            None => {
                self.inputs.push(input);
                self.inputs.len().saturating_sub(1)
            }
        }
    }
}
