//! A compiled rule: what the engine evaluates.

use super::error::RuleError;
use super::evaluate::{self, Number, Part};
use super::ir::{Comparison, Input, Node, Tree};
use super::{parse, print, warn};
use crate::domain::id::MetricName;
use crate::domain::quantity::Quantity;
use serde::{Deserialize, Serialize};

/// The version of the grammar that this release accepts; commands carry it.
pub const GRAMMAR: u32 = 1;

/// A rule that was compiled once.
#[derive(Clone, Debug)]
pub struct RuleProgram {
    source: String,
    normalized: String,
    warnings: Vec<Warning>,
    tree: Tree,
    threshold: Option<Threshold>,
    fires_early: bool,
}

/// What the engine knows of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Its value.
    Known(Quantity),
    /// Greater than every number: the share of a limit of zero that any use is.
    Over,
    /// There is no event to tell it from.
    NoData,
    /// There is no quota. Before engine version 3 also: its limit is zero.
    NoQuota,
}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The condition holds.
    True,
    /// It does not.
    False,
    /// All that it reads is missing.
    NoData,
    /// Some of what it reads is missing, there is no quota, or it divides by zero.
    Inconclusive,
}

/// Something odd about a valid rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What it is, for programs.
    pub code: &'static str,
    /// What it is, for people.
    pub detail: String,
}

/// A rule that is one comparison with a constant, its name on the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// The input's place among [`RuleProgram::inputs`].
    pub slot: usize,
    /// The comparison.
    pub op: Comparison,
    /// The constant.
    pub constant: Quantity,
}

/// Every sub-expression with its value, inner ones first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace(pub Vec<TraceStep>);

/// One sub-expression with its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    /// Its canonical text.
    pub expression: String,
    /// A number, `over` (greater than every number), `true`, `false` or `unknown`.
    pub value: String,
}

impl RuleProgram {
    /// Compiles a source.
    ///
    /// # Errors
    /// Where it is too long or too deep, cannot be parsed, or its types do not fit; with the place and what would be right.
    pub fn compile(source: &str) -> Result<Self, RuleError> {
        let tree = parse::parse(source)?;
        let root = tree.root();
        let threshold = warn::against_constant(&tree, tree.get(root)).and_then(|(input, op, constant)| {
            let slot = tree.inputs.iter().position(|known| known == input)?;
            Some(Threshold { slot, op, constant })
        });
        Ok(Self {
            source: source.to_owned(),
            normalized: print::print(&tree, root),
            warnings: warn::warnings(&tree),
            threshold,
            fires_early: only_grows(&tree, root) && !tree.inputs.is_empty(),
            tree,
        })
    }

    /// The source as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The canonical spelling; compiling it gives an equivalent rule.
    pub fn normalized(&self) -> &str {
        &self.normalized
    }

    /// The rule as a tree.
    pub fn ast(&self) -> super::Ast {
        super::ast::ast(&self.tree, self.tree.root())
    }

    /// What is odd about it.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// What it reads, each once, in order of first appearance.
    pub fn inputs(&self) -> &[Input] {
        &self.tree.inputs
    }

    /// Whether it reads a level of a quota's period.
    pub fn reads_quota(&self) -> bool {
        self.inputs().iter().any(|input| input.name.reads_quota())
    }

    /// Whether it reads a 5-minute window.
    pub fn reads_window(&self) -> bool {
        self.inputs().iter().any(|input| input.name.reads_window())
    }

    /// Whether time alone changes what it reads.
    pub fn reads_time(&self) -> bool {
        self.inputs().iter().any(|input| input.name == super::ir::Name::PeriodElapsedPercent)
    }

    /// Whether a name stands for the instance's own metric.
    pub fn reads_own_metric(&self) -> bool {
        self.inputs().iter().any(|input| input.metric.is_none())
    }

    /// The metrics that the rule names, `own` where a name is unqualified; a metric comes once for each input.
    pub fn metrics<'a>(&'a self, own: Option<&'a MetricName>) -> impl Iterator<Item = &'a MetricName> {
        self.inputs().iter().filter_map(move |input| input.metric.as_ref().or(own))
    }

    /// Evaluates the rule; `values` are in the order of [`Self::inputs`].
    pub fn evaluate(&self, values: &[Value]) -> Verdict {
        if let Some(threshold) = &self.threshold {
            let holds = match values.get(threshold.slot) {
                Some(Value::Known(value)) => Some(threshold.op.holds(*value, threshold.constant)),
                Some(Value::Over) => Some(threshold.op.holds_over()),
                Some(Value::NoData | Value::NoQuota) | None => None,
            };
            if let Some(holds) = holds {
                return if holds { Verdict::True } else { Verdict::False };
            }
        }
        match evaluate::flag(&self.tree, self.tree.root(), values) {
            Some(true) => Verdict::True,
            Some(false) => Verdict::False,
            None if !values.is_empty() && values.iter().all(|value| *value == Value::NoData) => Verdict::NoData,
            None => Verdict::Inconclusive,
        }
    }

    /// Tells every sub-expression's value.
    pub fn explain(&self, values: &[Value]) -> Trace {
        let steps = self.tree.nodes.iter().enumerate().filter(|(_, node)| is_shown(node));
        let step = |(at, _): (usize, &Node)| TraceStep {
            expression: print::print(&self.tree, at),
            value: match evaluate::part(&self.tree, at, values) {
                Part::Number(Some(Number::Exact(number))) => number.to_string(),
                Part::Number(Some(Number::Over)) => "over".to_owned(),
                Part::Flag(Some(flag)) => flag.to_string(),
                Part::Number(None) | Part::Flag(None) => "unknown".to_owned(),
            },
        };
        Trace(steps.map(step).collect())
    }

    /// Tells how deep each step of [`Self::explain`] lies, 0 for the whole rule. All parts of a chain of `&&`, or of `||`,
    /// lie one below it; the shorter chains within come last.
    pub fn depths(&self) -> Vec<usize> {
        let mut depths = vec![usize::MAX; self.tree.nodes.len()];
        let mut waiting = vec![(self.tree.root(), 0_usize, None)];
        while let Some((at, depth, chain)) = waiting.pop() {
            let node = self.tree.get(at);
            let continues = matches!((node, chain), (Node::And(..), Some(true)) | (Node::Or(..), Some(false)));
            if let Some(known) = depths.get_mut(at) {
                *known = if continues { usize::MAX } else { depth };
            }
            let below = if continues { depth } else { depth.saturating_add(1) };
            match node {
                Node::And(left, right) => waiting.extend([(*left, below, Some(true)), (*right, below, Some(true))]),
                Node::Or(left, right) => waiting.extend([(*left, below, Some(false)), (*right, below, Some(false))]),
                Node::Arithmetic(_, left, right) | Node::Compare(_, left, right) => {
                    waiting.extend([(*left, below, None), (*right, below, None)]);
                }
                Node::Negate(inner) | Node::Not(inner) => waiting.push((*inner, below, None)),
                Node::Number(_) | Node::Flag(_) | Node::Input(_) => {}
            }
        }
        let shown = self.tree.nodes.iter().zip(depths).filter(|(node, _)| is_shown(node));
        shown.map(|(_, depth)| depth).collect()
    }

    /// Whether a true verdict on a window that is still open is final, as long as only non-negative values come.
    pub const fn fires_early(&self) -> bool {
        self.fires_early
    }

    /// The comparison that the whole rule is, where it is one.
    pub const fn threshold(&self) -> Option<Threshold> {
        self.threshold
    }
}

/// Whether a node is a step of an explanation: a constant says nothing.
const fn is_shown(node: &Node) -> bool {
    !matches!(node, Node::Number(_) | Node::Flag(_))
}

/// `sum`, `count`, `max` and `rate` only grow while non-negative values come; so does their passing a constant, and what
/// `&&` and `||` make of that.
fn only_grows(tree: &Tree, at: usize) -> bool {
    use super::ir::Name;
    match tree.get(at) {
        Node::And(left, right) | Node::Or(left, right) => only_grows(tree, *left) && only_grows(tree, *right),
        node @ Node::Compare(..) => warn::against_constant(tree, node).is_some_and(|(input, comparison, _)| {
            matches!(input.name, Name::Sum | Name::Count | Name::Max | Name::Rate)
                && matches!(comparison, Comparison::Greater | Comparison::GreaterOrEqual)
        }),
        Node::Number(_) | Node::Flag(_) | Node::Input(_) | Node::Negate(_) | Node::Arithmetic(..) | Node::Not(_) => {
            false
        }
    }
}
