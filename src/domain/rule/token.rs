//! The words of a rule, each with its place in the source.

use super::error::RuleError;
use crate::domain::quantity::{Quantity, QuantityError};

/// A byte range of the source.
pub(super) type Span = (usize, usize);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Number(Quantity),
    Name(String),
    Text(String),
    Operator(&'static str),
    Open,
    Close,
    End,
}

/// Longer operators stand before their own beginnings.
const OPERATORS: [&str; 18] =
    ["=>", "=<", "==", "!=", ">=", "<=", "&&", "||", "<>", ">", "<", "!", "+", "-", "*", "/", "%", "="];

/// Splits a source into tokens; the last is [`Token::End`].
pub(super) fn scan(source: &str) -> Result<Vec<(Token, Span)>, RuleError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(rest) = source.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(first) = rest.chars().next() else { break };
        if first.is_ascii_whitespace() {
            at = at.saturating_add(1);
            continue;
        }
        let (token, length) = next(rest, first, at)?;
        let end = at.saturating_add(length);
        tokens.push((token, (at, end)));
        at = end;
    }
    tokens.push((Token::End, (source.len(), source.len())));
    Ok(tokens)
}

fn next(rest: &str, first: char, at: usize) -> Result<(Token, usize), RuleError> {
    let prefix = |keep: fn(char) -> bool| rest.find(|c| !keep(c)).unwrap_or(rest.len());
    match first {
        '(' => return Ok((Token::Open, 1)),
        ')' => return Ok((Token::Close, 1)),
        '"' | '\'' => return text(rest, first, at),
        '0'..='9' | '.' => {
            let length = number_length(rest);
            let digits = rest.get(..length).unwrap_or(rest);
            return match Quantity::parse(digits) {
                Ok(number) => Ok((Token::Number(number), length)),
                Err(fault) => {
                    let error =
                        RuleError::syntax(format_args!("{digits:?} is {fault}"), (at, at.saturating_add(length)));
                    Err(match fault {
                        QuantityError::Syntax => error.expecting("a number such as 85 or 0.5"),
                        QuantityError::TooPrecise => error.expecting("at most 9 decimal places"),
                        QuantityError::TooLarge => error.expecting("at most 1e15"),
                    })
                }
            };
        }
        'a'..='z' | 'A'..='Z' | '_' => {
            let length = prefix(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
            return Ok((Token::Name(rest.get(..length).unwrap_or(rest).to_owned()), length));
        }
        _ => {}
    }
    match OPERATORS.iter().find(|operator| rest.starts_with(**operator)) {
        Some(operator) => Ok((Token::Operator(operator), operator.len())),
        None => {
            let what =
                if first.is_control() { "a control character".to_owned() } else { format!("unexpected '{first}'") };
            let error = RuleError::syntax(what, (at, at.saturating_add(first.len_utf8())));
            Err(match first {
                '&' => error.hinting("write && for \"and\""),
                '|' => error.hinting("write || for \"or\""),
                ',' | ';' => error.hinting("join conditions with && or ||"),
                '≥' => error.hinting("write >="),
                '≤' => error.hinting("write <="),
                _ => error.expecting("a name, a number or an operator"),
            })
        }
    }
}

fn number_length(rest: &str) -> usize {
    let mut length = 0;
    let mut previous = '0';
    for c in rest.chars() {
        let sign_of_exponent = matches!(c, '+' | '-') && matches!(previous, 'e' | 'E');
        if !(c.is_ascii_alphanumeric() || c == '.' || c == '_' || sign_of_exponent) {
            break;
        }
        length = c.len_utf8().saturating_add(length);
        previous = c;
    }
    length
}

fn text(rest: &str, quote: char, at: usize) -> Result<(Token, usize), RuleError> {
    let inner = rest.get(1..).unwrap_or("");
    match inner.find(quote) {
        Some(end) => {
            let content = inner.get(..end).unwrap_or("").to_owned();
            Ok((Token::Text(content), end.saturating_add(2)))
        }
        None => Err(RuleError::syntax("a text that does not end", (at, at.saturating_add(rest.len())))
            .expecting("a closing quote")),
    }
}
