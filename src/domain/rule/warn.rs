//! What is odd about a rule that is valid: units that make no sense, conditions that never change.

use super::ir::{Comparison, Input, Name, Node, Tree};
use super::print;
use super::program::Warning;
use crate::domain::quantity::Quantity;

/// Looks a tree over.
pub(super) fn warnings(tree: &Tree) -> Vec<Warning> {
    let mut found = Vec::new();
    if tree.inputs.is_empty() {
        found.push(warning("constant", "the rule reads nothing, so it never changes".to_owned()));
    }
    for (at, node) in tree.nodes.iter().enumerate() {
        if let Some((input, comparison, constant)) = against_constant(tree, node) {
            found.extend(odd(tree, at, (input, comparison, constant)));
        }
    }
    found
}

/// Reads `name op constant`, with the name brought to the left.
pub(super) fn against_constant<'t>(tree: &'t Tree, node: &Node) -> Option<(&'t Input, Comparison, Quantity)> {
    let Node::Compare(comparison, left, right) = node else { return None };
    match (tree.get(*left), tree.get(*right)) {
        (Node::Input(slot), other) => Some((tree.inputs.get(*slot)?, *comparison, constant(tree, other)?)),
        (other, Node::Input(slot)) => Some((tree.inputs.get(*slot)?, comparison.mirrored(), constant(tree, other)?)),
        _ => None,
    }
}

fn constant(tree: &Tree, node: &Node) -> Option<Quantity> {
    if let Node::Number(number) = node {
        return Some(*number);
    }
    let Node::Negate(inner) = node else { return None };
    let Node::Number(number) = tree.get(*inner) else { return None };
    Some(Quantity(number.0.saturating_neg()))
}

fn odd(tree: &Tree, at: usize, (input, comparison, constant): (&Input, Comparison, Quantity)) -> Option<Warning> {
    let text = print::print(tree, at);
    let name = input.name;
    let hundred = Quantity::whole(100);
    if name == Name::QuotaPercent && constant > Quantity::whole(1_000) {
        return Some(warning(
            "unit",
            format!("{text}: quota_percent is in percent; {constant} % is more than ten times the limit"),
        ));
    }
    let ratio = constant > Quantity::ZERO && constant <= Quantity::ONE;
    if ratio && matches!(name, Name::QuotaPercent | Name::PeriodElapsedPercent) {
        let percent = constant.scaled(100, Quantity::ONE)?;
        let name = name.text();
        return Some(warning("unit", format!("{text}: {name} is in percent, not a ratio; did you mean {percent}?")));
    }
    let (least, most) = match name {
        Name::Count => (Some(Quantity::ZERO), None),
        Name::PeriodElapsedPercent => (Some(Quantity::ZERO), Some(hundred)),
        Name::Limit => (Some(Quantity::ZERO), None),
        Name::QuotaPercent | Name::Used | Name::Remaining => (None, None),
        Name::Sum | Name::Min | Name::Max | Name::Avg | Name::Last | Name::Rate => (None, None),
    };
    let below = least.is_some_and(|least| constant < least);
    let above = most.is_some_and(|most| constant > most);
    let at_least = least == Some(constant);
    let at_most = most == Some(constant);
    let always = match comparison {
        Comparison::Greater => decided(below, above || at_most),
        Comparison::GreaterOrEqual => decided(below || at_least, above),
        Comparison::Less => decided(above, below || at_least),
        Comparison::LessOrEqual => decided(above || at_most, below),
        Comparison::Equal => decided(false, below || above),
        Comparison::NotEqual => decided(below || above, false),
    };
    match always? {
        true => Some(warning("always_true", format!("{text} is always true"))),
        false => Some(warning("always_false", format!("{text} can never be true"))),
    }
}

const fn decided(always: bool, never: bool) -> Option<bool> {
    match (always, never) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    }
}

fn warning(code: &'static str, detail: String) -> Warning {
    Warning { code, detail }
}
