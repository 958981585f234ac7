//! Precedence climbing over the tokens, with types checked on the way and words of their own for the slips people make.
//!
//! From loosest to tightest: `||`, `&&`, `!`, comparisons (which do not chain), `+ -`, `* / %`, unary `-`.

use super::error::{RuleError, RuleErrorCode};
use super::ir::{Arithmetic, Comparison, Input, Name, Node, Tree};
use super::token::{Span, Token, scan};
use crate::domain::id::MetricName;
use crate::domain::limits::{RULE_BYTES_MAX, RULE_DEPTH_MAX, RULE_NODES_MAX};

/// Parses a source into a boolean tree.
pub(super) fn parse(source: &str) -> Result<Tree, RuleError> {
    if source.len() > RULE_BYTES_MAX {
        let what = format!("the rule has {} bytes, at most {RULE_BYTES_MAX} are allowed", source.len());
        return Err(RuleError::new(RuleErrorCode::TooComplex, what, (0, source.len())));
    }
    let mut parser = Parser { tokens: scan(source)?, at: 0, depth: 0, tree: Tree::default() };
    if parser.peek() == &Token::End {
        return Err(RuleError::syntax("the rule is empty", (0, 0))
            .expecting("a condition")
            .hinting("for example quota_percent > 85"));
    }
    let root = parser.either()?;
    parser.refuse_rest()?;
    parser.want_boolean(root, "the rule")?;
    Ok(parser.tree)
}

struct Parser {
    tokens: Vec<(Token, Span)>,
    at: usize,
    depth: usize,
    tree: Tree,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(token, _)| token)
    }

    fn span(&self) -> Span {
        self.tokens.get(self.at).or(self.tokens.last()).map_or((0, 0), |(_, span)| *span)
    }

    fn advance(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    fn push(&mut self, node: Node, span: Span) -> Result<usize, RuleError> {
        if self.tree.nodes.len() >= RULE_NODES_MAX {
            let what = format!("the rule has more than {RULE_NODES_MAX} parts");
            return Err(RuleError::new(RuleErrorCode::TooComplex, what, span).hinting("split it into several alerts"));
        }
        self.tree.nodes.push(node);
        self.tree.spans.push(span);
        Ok(self.tree.root())
    }

    /// Runs a deeper level, refused past the bound so that no source can exhaust the stack.
    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, RuleError>) -> Result<T, RuleError> {
        if self.depth >= RULE_DEPTH_MAX {
            let what = format!("the rule is nested more than {RULE_DEPTH_MAX} levels deep");
            return Err(RuleError::new(RuleErrorCode::TooComplex, what, self.span()));
        }
        self.depth = self.depth.saturating_add(1);
        let parsed = parse(self);
        self.depth = self.depth.saturating_sub(1);
        parsed
    }

    fn joined(&self, left: usize, right: usize) -> Span {
        let start = self.tree.spans.get(left).map_or(0, |span| span.0);
        let end = self.tree.spans.get(right).map_or(0, |span| span.1);
        (start, end)
    }

    fn either(&mut self) -> Result<usize, RuleError> {
        let mut left = self.both()?;
        while self.peek() == &Token::Operator("||") {
            self.want_boolean(left, "the left side of ||")?;
            self.advance();
            let right = self.both()?;
            self.want_boolean(right, "the right side of ||")?;
            left = self.push(Node::Or(left, right), self.joined(left, right))?;
        }
        Ok(left)
    }

    fn both(&mut self) -> Result<usize, RuleError> {
        let mut left = self.comparison()?;
        while self.peek() == &Token::Operator("&&") {
            self.want_boolean(left, "the left side of &&")?;
            self.advance();
            let right = self.comparison()?;
            self.want_boolean(right, "the right side of &&")?;
            left = self.push(Node::And(left, right), self.joined(left, right))?;
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Result<usize, RuleError> {
        let left = self.sum()?;
        let Some(comparison) = self.comparison_operator()? else { return Ok(left) };
        self.want_number(left, comparison)?;
        self.advance();
        self.refuse_text_operand()?;
        let right = self.sum()?;
        self.want_number(right, comparison)?;
        let node = self.push(Node::Compare(comparison, left, right), self.joined(left, right))?;
        if self.comparison_operator()?.is_some() {
            return Err(RuleError::syntax("comparisons do not chain; a second one begins", self.span())
                .expecting("&& or ||")
                .hinting("write a < x && x < b"));
        }
        Ok(node)
    }

    fn comparison_operator(&self) -> Result<Option<Comparison>, RuleError> {
        let slip = |what: &str, hint: &str| Err(RuleError::syntax(what, self.span()).hinting(hint));
        match self.peek() {
            Token::Operator(">") => Ok(Some(Comparison::Greater)),
            Token::Operator(">=") => Ok(Some(Comparison::GreaterOrEqual)),
            Token::Operator("<") => Ok(Some(Comparison::Less)),
            Token::Operator("<=") => Ok(Some(Comparison::LessOrEqual)),
            Token::Operator("==") => Ok(Some(Comparison::Equal)),
            Token::Operator("!=") => Ok(Some(Comparison::NotEqual)),
            Token::Operator("=") => slip("'=' would assign", "write == to compare"),
            Token::Operator("=>") => slip("'=>' is no comparison", "write >= for \"at least\""),
            Token::Operator("=<") => slip("'=<' is no comparison", "write <= for \"at most\""),
            Token::Operator("<>") => slip("'<>' is no comparison", "write != for \"differs from\""),
            Token::Operator(_) | Token::Number(_) | Token::Name(_) | Token::Text(_) => Ok(None),
            Token::Open | Token::Close | Token::End => Ok(None),
        }
    }

    fn sum(&mut self) -> Result<usize, RuleError> {
        let mut left = self.product()?;
        loop {
            let operator = match self.peek() {
                Token::Operator("+") => Arithmetic::Add,
                Token::Operator("-") => Arithmetic::Subtract,
                Token::Number(_)
                | Token::Name(_)
                | Token::Text(_)
                | Token::Operator(_)
                | Token::Open
                | Token::Close
                | Token::End => return Ok(left),
            };
            self.advance();
            let right = self.product()?;
            left = self.arithmetic(operator, left, right)?;
        }
    }

    fn product(&mut self) -> Result<usize, RuleError> {
        let mut left = self.unary()?;
        loop {
            let operator = match self.peek() {
                Token::Operator("*") => Arithmetic::Multiply,
                Token::Operator("/") => Arithmetic::Divide,
                Token::Operator("%") => Arithmetic::Remainder,
                Token::Number(_)
                | Token::Name(_)
                | Token::Text(_)
                | Token::Operator(_)
                | Token::Open
                | Token::Close
                | Token::End => return Ok(left),
            };
            let sign = self.span();
            self.advance();
            if operator == Arithmetic::Remainder && self.ends_a_number() {
                return Err(RuleError::syntax("'%' is the remainder of a division", sign)
                    .hinting("leave the percent sign out: quota_percent is in percent already"));
            }
            let right = self.unary()?;
            left = self.arithmetic(operator, left, right)?;
        }
    }

    fn ends_a_number(&self) -> bool {
        match self.peek() {
            Token::End | Token::Close => true,
            Token::Operator(operator) => *operator != "-",
            Token::Name(name) => is_word(name).is_some(),
            Token::Number(_) | Token::Text(_) | Token::Open => false,
        }
    }

    fn arithmetic(&mut self, operator: Arithmetic, left: usize, right: usize) -> Result<usize, RuleError> {
        for side in [left, right] {
            if self.tree.get(side).is_boolean() {
                let span = self.tree.spans.get(side).copied().unwrap_or_default();
                let what = format!("'{}' takes numbers, this is a condition", operator.text());
                return Err(RuleError::new(RuleErrorCode::Type, what, span).expecting("a number"));
            }
        }
        self.push(Node::Arithmetic(operator, left, right), self.joined(left, right))
    }

    fn unary(&mut self) -> Result<usize, RuleError> {
        let (start, _) = self.span();
        match self.peek() {
            Token::Operator("-") => {
                self.advance();
                let inner = self.deeper(Self::unary)?;
                if self.tree.get(inner).is_boolean() {
                    let span = self.tree.spans.get(inner).copied().unwrap_or_default();
                    return Err(RuleError::new(RuleErrorCode::Type, "'-' takes a number, this is a condition", span));
                }
                let end = self.tree.spans.get(inner).map_or(start, |span| span.1);
                self.push(Node::Negate(inner), (start, end))
            }
            Token::Operator("!") => {
                self.advance();
                let inner = self.deeper(Self::unary)?;
                self.want_boolean(inner, "what '!' negates")?;
                let end = self.tree.spans.get(inner).map_or(start, |span| span.1);
                self.push(Node::Not(inner), (start, end))
            }
            Token::Number(_)
            | Token::Name(_)
            | Token::Text(_)
            | Token::Operator(_)
            | Token::Open
            | Token::Close
            | Token::End => self.primary(),
        }
    }

    fn primary(&mut self) -> Result<usize, RuleError> {
        let span = self.span();
        match self.peek().clone() {
            Token::Number(number) => {
                self.advance();
                self.push(Node::Number(number), span)
            }
            Token::Name(name) => self.name(&name, span),
            Token::Open => {
                self.advance();
                let inner = self.deeper(Self::either)?;
                if self.peek() != &Token::Close {
                    self.refuse_rest()?;
                    return Err(RuleError::syntax("a parenthesis is not closed", span).expecting("')'"));
                }
                self.advance();
                Ok(inner)
            }
            Token::Text(text) => Err(RuleError::new(RuleErrorCode::Type, "a text is no number", span)
                .expecting("a name or a number")
                .hinting(format!("texts name metrics only, as in sum(\"{text}\")"))),
            Token::Close => Err(RuleError::syntax("a ')' without its '('", span).expecting("a name or a number")),
            Token::End => Err(RuleError::syntax("the rule ends too early", span).expecting("a name or a number")),
            Token::Operator(operator) => {
                let error =
                    RuleError::syntax(format_args!("unexpected '{operator}'"), span).expecting("a name or a number");
                Err(match operator {
                    "=>" | "=" => error.hinting("write >= or =="),
                    _ => error,
                })
            }
        }
    }

    fn name(&mut self, text: &str, span: Span) -> Result<usize, RuleError> {
        if let "true" | "false" = text {
            self.advance();
            return self.push(Node::Flag(text == "true"), span);
        }
        if let Some(operator) = is_word(text) {
            return Err(
                RuleError::syntax(format_args!("'{text}' is no operator"), span).hinting(format!("write {operator}"))
            );
        }
        let Some(name) = Name::parse(text) else {
            let error = RuleError::syntax(format_args!("unknown name '{text}'"), span)
                .expecting("quota_percent, used, limit, remaining, period_elapsed_percent, sum, count, min, max, avg, last or rate");
            return Err(match nearest(text) {
                Some(name) => error.hinting(format!("did you mean {name}?")),
                None if text.contains('.') => error.hinting(format!("a metric is named as in sum(\"{text}\")")),
                None => error,
            });
        };
        self.advance();
        let mut end = span.1;
        let mut metric = None;
        if self.peek() == &Token::Open {
            self.advance();
            let (named, close) = self.metric(name)?;
            metric = Some(named);
            end = close;
        }
        let slot = self.tree.slot(Input { name, metric });
        self.push(Node::Input(slot), (span.0, end))
    }

    /// Reads the metric of `name("metric")` and the closing parenthesis.
    fn metric(&mut self, name: Name) -> Result<(MetricName, usize), RuleError> {
        let span = self.span();
        let example = format!("write {}(\"api.requests\")", name.text());
        let Token::Text(text) = self.peek().clone() else {
            let error = RuleError::syntax(format_args!("{} takes one metric", name.text()), span);
            return Err(error.expecting("a metric in quotes").hinting(example));
        };
        let metric = MetricName::new(&text).map_err(|_| {
            RuleError::syntax(format_args!("'{text}' is no metric"), span)
                .expecting(MetricName::EXPECTED)
                .hinting(example)
        })?;
        self.advance();
        if self.peek() != &Token::Close {
            return Err(RuleError::syntax("more than one metric", self.span()).expecting("')'"));
        }
        let (_, close) = self.span();
        self.advance();
        Ok((metric, close))
    }

    fn refuse_text_operand(&self) -> Result<(), RuleError> {
        let Token::Text(text) = self.peek() else { return Ok(()) };
        let what = format_args!("\"{text}\" is a text, not a number");
        let error = RuleError::new(RuleErrorCode::Type, what, self.span());
        Err(error.expecting("a number").hinting("leave the quotes out"))
    }

    fn refuse_rest(&self) -> Result<(), RuleError> {
        let span = self.span();
        self.comparison_operator()?;
        match self.peek() {
            Token::End => Ok(()),
            Token::Name(name) => match is_word(name) {
                Some(operator) => Err(RuleError::syntax(format_args!("'{name}' is no operator"), span)
                    .hinting(format!("write {operator}"))),
                None => Err(RuleError::syntax(format_args!("unexpected '{name}'"), span)
                    .expecting("an operator such as && or >")),
            },
            Token::Close => Err(RuleError::syntax("a ')' without its '('", span)),
            Token::Operator(operator) => {
                Err(RuleError::syntax(format_args!("unexpected '{operator}'"), span).expecting("&& or ||"))
            }
            Token::Number(_) | Token::Text(_) | Token::Open => {
                Err(RuleError::syntax("two values without an operator between them", span)
                    .expecting("an operator such as && or >"))
            }
        }
    }

    fn want_boolean(&self, at: usize, what: &str) -> Result<(), RuleError> {
        if self.tree.get(at).is_boolean() {
            return Ok(());
        }
        let span = self.tree.spans.get(at).copied().unwrap_or_default();
        Err(RuleError::new(RuleErrorCode::Type, format_args!("{what} is a number, not a condition;"), span)
            .expecting("a comparison")
            .hinting("compare it, for example quota_percent > 85"))
    }

    fn want_number(&self, at: usize, comparison: Comparison) -> Result<(), RuleError> {
        if !self.tree.get(at).is_boolean() {
            return Ok(());
        }
        let span = self.tree.spans.get(at).copied().unwrap_or_default();
        let what = format!("'{}' compares numbers, this is a condition", comparison.text());
        Err(RuleError::new(RuleErrorCode::Type, what, span).expecting("a number"))
    }
}

fn is_word(name: &str) -> Option<&'static str> {
    match name.to_ascii_lowercase().as_str() {
        "and" => Some("&&"),
        "or" => Some("||"),
        "not" => Some("!"),
        _ => None,
    }
}

/// The known name that takes the fewest edits, where it takes few.
fn nearest(text: &str) -> Option<&'static str> {
    let known = Name::ALL.iter().map(|name| name.text()).chain(["usage"]);
    let scored = known.map(|name| (edits(text, name), name)).min()?;
    let most = if text.len() <= 3 { 1 } else { text.len().div_euclid(3).max(2) };
    (scored.0 <= most).then_some(scored.1)
}

/// Levenshtein's distance, for texts that are short.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i.saturating_add(1);
        for (j, to) in b.iter().enumerate() {
            let above = row.get(j.saturating_add(1)).copied().unwrap_or(usize::MAX);
            let change = diagonal.saturating_add(usize::from(from != *to));
            let best = change.min(above.saturating_add(1)).min(left.saturating_add(1));
            diagonal = above;
            if let Some(place) = row.get_mut(j) {
                *place = left;
            }
            left = best;
        }
        if let Some(place) = row.last_mut() {
            *place = left;
        }
    }
    row.last().copied().unwrap_or(0)
}
