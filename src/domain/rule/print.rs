//! The canonical spelling: single spaces, `sum` for `usage`, no parenthesis that could be left out.

use super::ir::{Input, Node, Tree};

/// Prints a node; `outer` is how tightly its surroundings bind.
pub(super) fn print(tree: &Tree, at: usize) -> String {
    let mut text = String::new();
    write(tree, at, 0, &mut text);
    text
}

pub(super) fn input(input: &Input) -> String {
    match &input.metric {
        Some(metric) => format!("{}(\"{metric}\")", input.name.text()),
        None => input.name.text().to_owned(),
    }
}

const fn tightness(node: &Node) -> u8 {
    use super::ir::Arithmetic::{Add, Divide, Multiply, Remainder, Subtract};
    match node {
        Node::Or(..) => 1,
        Node::And(..) => 2,
        Node::Compare(..) => 3,
        Node::Arithmetic(Add | Subtract, ..) => 4,
        Node::Arithmetic(Multiply | Divide | Remainder, ..) => 5,
        Node::Not(_) | Node::Negate(_) => 6,
        Node::Number(_) | Node::Flag(_) | Node::Input(_) => 7,
    }
}

fn write(tree: &Tree, at: usize, outer: u8, text: &mut String) {
    let node = tree.get(at);
    let own = tightness(node);
    if own < outer {
        text.push('(');
    }
    let tighter = own.saturating_add(1);
    match node {
        Node::Number(number) => text.push_str(&number.to_string()),
        Node::Flag(flag) => text.push_str(if *flag { "true" } else { "false" }),
        Node::Input(slot) => text.push_str(&tree.inputs.get(*slot).map(input).unwrap_or_default()),
        Node::Negate(inner) => {
            text.push('-');
            write(tree, *inner, own, text);
        }
        Node::Not(inner) => {
            text.push('!');
            write(tree, *inner, own, text);
        }
        // Left-associative: an equal on the left needs no parentheses, one on the right does.
        Node::Or(left, right) => infix(tree, (*left, own), "||", (*right, tighter), text),
        Node::And(left, right) => infix(tree, (*left, own), "&&", (*right, tighter), text),
        Node::Compare(comparison, left, right) => {
            infix(tree, (*left, tighter), comparison.text(), (*right, tighter), text);
        }
        Node::Arithmetic(operator, left, right) => infix(tree, (*left, own), operator.text(), (*right, tighter), text),
    }
    if own < outer {
        text.push(')');
    }
}

fn infix(tree: &Tree, left: (usize, u8), operator: &str, right: (usize, u8), text: &mut String) {
    write(tree, left.0, left.1, text);
    text.push(' ');
    text.push_str(operator);
    text.push(' ');
    write(tree, right.0, right.1, text);
}
