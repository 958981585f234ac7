//! Exact evaluation with three-valued logic: what is decided without the missing parts is decided.

use super::ir::{Arithmetic, Comparison, Node, Tree};
use super::program::Value;
use crate::domain::quantity::Quantity;

/// A part's value; `None` where it cannot be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Number(Option<Number>),
    Flag(Option<bool>),
}

/// A number that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Exact(Quantity),
    /// Greater than every exact number; nothing is calculated with it.
    Over,
}

/// Evaluates a node. Both sides of `&&` and `||` are looked at only where the first does not decide.
pub(super) fn part(tree: &Tree, at: usize, values: &[Value]) -> Part {
    match tree.get(at) {
        Node::Number(number) => Part::Number(Some(Number::Exact(*number))),
        Node::Flag(flag) => Part::Flag(Some(*flag)),
        Node::Input(slot) => Part::Number(match values.get(*slot) {
            Some(Value::Known(quantity)) => Some(Number::Exact(*quantity)),
            Some(Value::Over) => Some(Number::Over),
            Some(Value::NoData | Value::NoQuota) | None => None,
        }),
        Node::Negate(inner) => {
            let negated = exact(tree, *inner, values).map(|q| Quantity(q.0.saturating_neg()));
            Part::Number(negated.map(Number::Exact))
        }
        Node::Arithmetic(operator, left, right) => {
            let both = exact(tree, *left, values).zip(exact(tree, *right, values));
            Part::Number(both.and_then(|(left, right)| calculate(*operator, left, right)).map(Number::Exact))
        }
        Node::Compare(comparison, left, right) => {
            let both = number(tree, *left, values).zip(number(tree, *right, values));
            Part::Flag(both.and_then(|(left, right)| compare(*comparison, left, right)))
        }
        Node::Not(inner) => Part::Flag(flag(tree, *inner, values).map(|flag| !flag)),
        Node::And(left, right) => Part::Flag(match flag(tree, *left, values) {
            Some(false) => Some(false),
            Some(true) => flag(tree, *right, values),
            None => flag(tree, *right, values).filter(|right| !right),
        }),
        Node::Or(left, right) => Part::Flag(match flag(tree, *left, values) {
            Some(true) => Some(true),
            Some(false) => flag(tree, *right, values),
            None => flag(tree, *right, values).filter(|right| *right),
        }),
    }
}

pub(super) fn flag(tree: &Tree, at: usize, values: &[Value]) -> Option<bool> {
    match part(tree, at, values) {
        Part::Flag(flag) => flag,
        Part::Number(_) => None,
    }
}

fn number(tree: &Tree, at: usize, values: &[Value]) -> Option<Number> {
    match part(tree, at, values) {
        Part::Number(number) => number,
        Part::Flag(_) => None,
    }
}

fn exact(tree: &Tree, at: usize, values: &[Value]) -> Option<Quantity> {
    match number(tree, at, values)? {
        Number::Exact(quantity) => Some(quantity),
        Number::Over => None,
    }
}

/// Compares two numbers; which of two that are greater than every number is the greater one is unknown.
fn compare(comparison: Comparison, left: Number, right: Number) -> Option<bool> {
    match (left, right) {
        (Number::Exact(left), Number::Exact(right)) => Some(comparison.holds(left, right)),
        (Number::Over, Number::Exact(_)) => Some(comparison.holds_over()),
        (Number::Exact(_), Number::Over) => Some(comparison.mirrored().holds_over()),
        (Number::Over, Number::Over) => None,
    }
}

/// Calculates in fixed point: products and quotients are rounded towards minus infinity at the ninth decimal, what is too
/// large for the format is unknown, and so is a division by zero.
fn calculate(operator: Arithmetic, left: Quantity, right: Quantity) -> Option<Quantity> {
    const ONE: i128 = Quantity::ONE.0;
    match operator {
        Arithmetic::Add => left.0.checked_add(right.0).map(Quantity),
        Arithmetic::Subtract => left.0.checked_sub(right.0).map(Quantity),
        Arithmetic::Multiply => match left.0.checked_mul(right.0) {
            Some(product) => Some(Quantity(product.div_euclid(ONE))),
            None => {
                let (whole, rest) = (left.0.div_euclid(ONE), left.0.rem_euclid(ONE));
                let large = whole.checked_mul(right.0)?;
                let small = rest.checked_mul(right.0)?.div_euclid(ONE);
                large.checked_add(small).map(Quantity)
            }
        },
        Arithmetic::Divide => left.scaled(1, right),
        Arithmetic::Remainder => left.0.checked_rem(right.0).map(Quantity),
    }
}
