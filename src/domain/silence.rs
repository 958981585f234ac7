//! Which alert instances a silence holds: its matchers against what is known of an instance.
//!
//! The fold, the `silenced` that it stores and the preview of a silence call the same function.

use super::definition::{AlertDefinition, MatchOp, Matcher};
use super::id::{AccountId, MetricName};
use super::rule::RuleProgram;

/// The names that a matcher reads from the instance itself; any other name is a label of the alert.
pub const MATCHER_FIELDS: [&str; 5] = ["alert_id", "account_id", "metric", "severity", "name"];

/// What matchers are compared with.
#[derive(Clone, Copy, Debug)]
pub struct SilenceSubject<'a> {
    /// The alert.
    pub definition: &'a AlertDefinition,
    /// Its rule; absent where this release cannot read it.
    pub rule: Option<&'a RuleProgram>,
    /// The instance's account.
    pub account: &'a AccountId,
    /// The instance's own metric.
    pub metric: Option<&'a MetricName>,
}

/// How matchers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatcherSemantics {
    /// As engine versions 1 and 2 do: `metric` is the instance's own alone, and an expression that does not compile
    /// matches nothing, so that `!~` holds with it.
    OwnMetric,
    /// `metric` is any metric that the rule names, and a matcher that does not compile holds nothing.
    NamedMetrics,
}

/// The matchers of a silence, their expressions compiled.
#[derive(Debug)]
pub struct MatcherSet(Vec<CompiledMatcher>);

#[derive(Debug)]
struct CompiledMatcher {
    matcher: Matcher,
    /// Absent where none is meant, or where it does not compile.
    expression: Option<regex::Regex>,
}

impl Matcher {
    /// Tells whether it matches the empty text. A silence of such matchers alone would hold whatever has none of the
    /// labels that it names.
    pub fn matches_empty(&self) -> bool {
        CompiledMatcher::new(self.clone()).matches_text("")
    }
}

impl CompiledMatcher {
    fn new(matcher: Matcher) -> Self {
        let expression = if matcher.is_expression() { matcher.expression().ok() } else { None };
        Self { matcher, expression }
    }

    fn compiles(&self) -> bool {
        !self.matcher.is_expression() || self.expression.is_some()
    }

    /// Whether the text is equal to the value, or matches the expression, whatever the operator wants of that.
    fn agrees(&self, text: &str) -> bool {
        match self.matcher.op {
            MatchOp::Equal | MatchOp::NotEqual => text == self.matcher.value,
            MatchOp::Matches | MatchOp::MatchesNot => {
                self.expression.as_ref().is_some_and(|expression| expression.is_match(text))
            }
        }
    }

    const fn wants_agreement(&self) -> bool {
        match self.matcher.op {
            MatchOp::Equal | MatchOp::Matches => true,
            MatchOp::NotEqual | MatchOp::MatchesNot => false,
        }
    }

    fn matches_text(&self, text: &str) -> bool {
        self.agrees(text) == self.wants_agreement()
    }

    /// `=` and `=~`: any of the metrics; `!=` and `!~`: none of them.
    fn matches_metrics(&self, subject: SilenceSubject<'_>, semantics: MatcherSemantics) -> bool {
        let own = || self.matches_text(subject.metric.map_or("", MetricName::as_str));
        let rule = match semantics {
            MatcherSemantics::OwnMetric => None,
            MatcherSemantics::NamedMetrics => subject.rule,
        };
        let Some(rule) = rule.filter(|rule| rule.metrics(subject.metric).next().is_some()) else { return own() };
        let agrees = rule.metrics(subject.metric).any(|metric| self.agrees(metric.as_str()));
        agrees == self.wants_agreement()
    }

    /// Whether it holds for an alert; absent where that depends on the instance.
    fn matches_alert(&self, definition: &AlertDefinition) -> Option<bool> {
        let matched = match self.matcher.name.as_str() {
            "account_id" | "metric" => return None,
            "alert_id" => self.matches_text(&definition.id.to_string()),
            "severity" => self.matches_text(definition.severity.name()),
            "name" => self.matches_text(definition.name.as_deref().unwrap_or("")),
            label => self.matches_text(definition.labels.get(label).map_or("", String::as_str)),
        };
        Some(matched)
    }

    fn matches(&self, subject: SilenceSubject<'_>, semantics: MatcherSemantics) -> bool {
        self.matches_alert(subject.definition).unwrap_or_else(|| {
            if self.matcher.name == "metric" {
                self.matches_metrics(subject, semantics)
            } else {
                self.matches_text(subject.account.as_str())
            }
        })
    }
}

impl MatcherSet {
    /// Compiles matchers.
    pub fn new(matchers: &[Matcher]) -> Self {
        Self(matchers.iter().cloned().map(CompiledMatcher::new).collect())
    }

    /// Tells whether all of them match an instance. No matchers match nothing.
    pub fn matches(&self, subject: SilenceSubject<'_>, semantics: MatcherSemantics) -> bool {
        let readable = match semantics {
            MatcherSemantics::OwnMetric => true,
            MatcherSemantics::NamedMetrics => self.0.iter().all(CompiledMatcher::compiles),
        };
        readable && !self.0.is_empty() && self.0.iter().all(|matcher| matcher.matches(subject, semantics))
    }

    /// Tells whether some instance of an alert may match: whether all matchers that look at the alert alone do.
    pub fn may_match(&self, definition: &AlertDefinition) -> bool {
        self.0.iter().all(|matcher| matcher.matches_alert(definition).unwrap_or(true))
    }

    /// The only account whose instances may match, where a matcher names one.
    pub fn only_account(&self) -> Option<AccountId> {
        let named = self.0.iter().map(|compiled| &compiled.matcher);
        let mut named = named.filter(|matcher| matcher.name == "account_id" && matcher.op == MatchOp::Equal);
        named.next().and_then(|matcher| AccountId::new(&matcher.value).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::definition::{NoDataPolicy, Severity};
    use crate::domain::id::{AccountScope, AlertId};
    use crate::domain::time::Millis;
    use std::collections::BTreeMap;

    fn matcher(text: &str) -> Matcher {
        let (op, name) = [("!=", MatchOp::NotEqual), ("=~", MatchOp::Matches), ("!~", MatchOp::MatchesNot)]
            .into_iter()
            .find_map(|(sign, op)| Some((op, text.split_once(sign)?)))
            .unwrap_or_else(|| (MatchOp::Equal, text.split_once('=').unwrap()));
        Matcher { name: name.0.to_owned(), value: name.1.to_owned(), op }
    }

    fn alert(rule: &str) -> AlertDefinition {
        AlertDefinition {
            id: AlertId(1),
            version: 1,
            account: AccountScope::All,
            metric: None,
            rule: rule.to_owned(),
            recover: None,
            grammar: 1,
            hold: Millis::ZERO,
            keep_firing_for: Millis::ZERO,
            repeat_interval: Millis::hours(4),
            severity: Severity::Critical,
            no_data: NoDataPolicy::Ok,
            inconclusive: Default::default(),
            name: Some("busy".to_owned()),
            message: None,
            labels: BTreeMap::from([("team".to_owned(), "core".to_owned())]),
            project: None,
            channels: Vec::new(),
            pause: None,
        }
    }

    #[test]
    fn what_matches_the_empty_text_is_told() {
        let check = |text: &str, empty: bool| assert_eq!(matcher(text).matches_empty(), empty, "{text}");
        check("team=", true);
        check("team=core", false);
        check("team!=", false);
        check("team!=core", true);
        check("team=~.*", true);
        check("team=~.+", false);
        check("team=~", true);
        check("team=~core|", true);
        check("team!~.*", false);
        check("team!~core", true);
        check("team!~", false);
    }

    #[test]
    fn matchers_look_at_every_metric_that_the_rule_names() {
        let account = AccountId::new("acme").unwrap();
        let own = MetricName::new("own").unwrap();
        let check = |rule: &str, metric: Option<&MetricName>, matchers: &str, before: bool, now: bool| {
            let definition = alert(rule);
            let program = RuleProgram::compile(rule).ok();
            let set = MatcherSet::new(&matchers.split(' ').map(matcher).collect::<Vec<_>>());
            let subject = SilenceSubject { definition: &definition, rule: program.as_ref(), account: &account, metric };
            let both =
                [MatcherSemantics::OwnMetric, MatcherSemantics::NamedMetrics].map(|how| set.matches(subject, how));
            assert_eq!(both, [before, now], "{rule} {metric:?} {matchers}");
        };
        let (sum, both) = ("sum(\"pay\") > 1", "sum(\"pay\") > 1 && count(\"refunds\") > 2");
        check(sum, None, "metric=pay", false, true);
        check(sum, None, "metric=other", false, false);
        check(sum, None, "metric!=other", true, true);
        check(sum, None, "metric!=pay", true, false);
        check(sum, None, "metric=", true, false);
        check(both, None, "metric=refunds", false, true);
        check(both, None, "metric=~pay|x", false, true);
        check(both, None, "metric!=refunds", true, false);
        check(both, None, "metric!~ref.*", true, false);
        check(both, None, "metric!~ref", true, true);
        check(both, None, "metric=pay metric=refunds", false, true);
        check("sum > avg(\"pay\")", Some(&own), "metric=own", true, true);
        check("sum > avg(\"pay\")", Some(&own), "metric=pay", false, true);
        check("sum > avg(\"pay\")", Some(&own), "metric!=pay", true, false);
        // A rule that reads nothing, and one that this release cannot read.
        check("1 > 0", None, "metric=", true, true);
        check("a later grammar", Some(&own), "metric=own", true, true);
        // The rest is as it was.
        check(sum, None, "account_id=acme severity=critical team=core name=busy", true, true);
        check(sum, None, "account_id=acme severity!=critical", false, false);
        check(sum, None, "region=", true, true);
        // An expression that does not compile holds nothing.
        check(sum, None, "account_id=acme team!~(", true, false);
        check(sum, None, "account_id=acme team=~(", false, false);
    }

    #[test]
    fn what_cannot_match_is_known_of_the_alert_alone() {
        let set = |text: &str| MatcherSet::new(&text.split(' ').map(matcher).collect::<Vec<_>>());
        let definition = alert("sum > 1");
        assert!(set("severity=critical metric=x account_id=y").may_match(&definition));
        assert!(!set("severity=info metric=x").may_match(&definition));
        assert_eq!(set("severity=info account_id=acme").only_account(), AccountId::new("acme").ok());
        assert_eq!(set("account_id=~acme").only_account(), None);
    }
}
