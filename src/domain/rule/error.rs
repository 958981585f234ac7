//! What is wrong with a rule, where, and what would be right.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The kind of a rule's fault; its text is part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuleErrorCode {
    /// It cannot be parsed.
    #[serde(rename = "rule_syntax")]
    Syntax,
    /// Its parts do not fit together.
    #[serde(rename = "rule_type")]
    Type,
    /// It is too long, too deep or has too many parts.
    #[serde(rename = "rule_too_complex")]
    TooComplex,
}

impl RuleErrorCode {
    /// The code as the API writes it.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Syntax => "rule_syntax",
            Self::Type => "rule_type",
            Self::TooComplex => "rule_too_complex",
        }
    }
}

/// A fault of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// The kind.
    pub code: RuleErrorCode,
    /// What is wrong, with its column.
    pub detail: String,
    /// Where it begins, in bytes from the start of the source.
    pub offset: usize,
    /// How many bytes it covers.
    pub length: usize,
    /// What was expected there.
    pub expected: Option<String>,
    /// What would be right.
    pub hint: Option<String>,
}

impl std::error::Error for RuleError {}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl RuleError {
    pub(super) fn new(code: RuleErrorCode, what: impl fmt::Display, (offset, end): (usize, usize)) -> Self {
        let column = offset.saturating_add(1);
        Self {
            code,
            detail: format!("{what} at column {column}"),
            offset,
            length: end.saturating_sub(offset),
            expected: None,
            hint: None,
        }
    }

    pub(super) fn syntax(what: impl fmt::Display, span: (usize, usize)) -> Self {
        Self::new(RuleErrorCode::Syntax, what, span)
    }

    pub(super) fn expecting(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub(super) fn hinting(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
