//! A rule as a tree that others can read.

use super::ir::{Node, Tree};
use serde::Serialize;

/// A part of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Ast {
    /// A number, exactly as it is compared.
    Number {
        /// In decimals.
        value: String,
    },
    /// `true` or `false`.
    Flag {
        /// Which one.
        value: bool,
    },
    /// Something that is read.
    Input {
        /// Its name.
        name: &'static str,
        /// The metric that it is asked of; the instance's own where absent.
        metric: Option<String>,
    },
    /// An operator with one operand.
    Unary {
        /// `-` or `!`.
        operator: &'static str,
        /// What it is applied to.
        operand: Box<Self>,
    },
    /// An operator with two operands.
    Binary {
        /// As the rule writes it.
        operator: &'static str,
        /// The left one.
        left: Box<Self>,
        /// The right one.
        right: Box<Self>,
    },
}

pub(super) fn ast(tree: &Tree, at: usize) -> Ast {
    let operand = |at: &usize| Box::new(ast(tree, *at));
    let binary =
        |operator, left: &usize, right: &usize| Ast::Binary { operator, left: operand(left), right: operand(right) };
    match tree.get(at) {
        Node::Number(number) => Ast::Number { value: number.to_string() },
        Node::Flag(value) => Ast::Flag { value: *value },
        Node::Input(slot) => {
            let input = tree.inputs.get(*slot);
            Ast::Input {
                name: input.map_or("", |input| input.name.text()),
                metric: input.and_then(|input| input.metric.as_ref()).map(ToString::to_string),
            }
        }
        Node::Negate(inner) => Ast::Unary { operator: "-", operand: operand(inner) },
        Node::Not(inner) => Ast::Unary { operator: "!", operand: operand(inner) },
        Node::Arithmetic(operator, left, right) => binary(operator.text(), left, right),
        Node::Compare(comparison, left, right) => binary(comparison.text(), left, right),
        Node::And(left, right) => binary("&&", left, right),
        Node::Or(left, right) => binary("||", left, right),
    }
}
