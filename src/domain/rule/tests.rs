//! Rules by example and by property.

use super::*;
use crate::domain::quantity::Quantity;
use proptest::prelude::*;

fn compile(source: &str) -> RuleProgram {
    RuleProgram::compile(source).unwrap_or_else(|error| panic!("{source}: {error}"))
}

fn known(values: &[&str]) -> Vec<Value> {
    values.iter().map(|text| Value::Known(Quantity::parse(text).unwrap())).collect()
}

#[test]
fn rules_are_decided_exactly() {
    let check = |source: &str, values: &[&str], want: Verdict| {
        assert_eq!(compile(source).evaluate(&known(values)), want, "{source} {values:?}");
    };
    check("quota_percent > 85", &["85"], Verdict::False);
    check("quota_percent > 85", &["85.000000001"], Verdict::True);
    check("85 < quota_percent", &["86"], Verdict::True);
    check("used / limit > 0.85", &["86", "100"], Verdict::True);
    check("used / limit > 0.85", &["1", "0"], Verdict::Inconclusive);
    check("used / limit * 100 >= 57", &["57", "100"], Verdict::True);
    check("count == 1.0", &["1"], Verdict::True);
    check("sum + 2 * count - -1 > 10", &["3", "3"], Verdict::False);
    check("sum + 2 * count - -1 >= 10", &["3", "3"], Verdict::True);
    check("sum % 3 == 1", &["10"], Verdict::True);
    check("!(sum > 1) || sum == 2", &["2"], Verdict::True);
    check("true && sum > 1", &["2"], Verdict::True);
}

#[test]
fn what_is_decided_without_the_missing_parts_is_decided() {
    let check = |source: &str, values: &[Value], want: Verdict| {
        assert_eq!(compile(source).evaluate(values), want, "{source} {values:?}");
    };
    let (one, none, no_quota) = (Value::Known(Quantity::ONE), Value::NoData, Value::NoQuota);
    check("min > 1", &[none], Verdict::NoData);
    check("min > 1 && max > 1", &[none, none], Verdict::NoData);
    check("min > 1 && max > 1", &[none, one], Verdict::False);
    check("min > 1 || max > 0", &[none, one], Verdict::True);
    check("min > 1 || max > 1", &[none, one], Verdict::Inconclusive);
    check("quota_percent > 1", &[no_quota], Verdict::Inconclusive);
    check("max > 0 || 1 / (max - 1) > 0", &[one], Verdict::True);
    check("max > 1 || 1 / (max - 1) > 0", &[one], Verdict::Inconclusive);
}

#[test]
fn the_outermost_steps_of_an_explanation_are_known() {
    let check = |source: &str, want: &[(&str, usize)]| {
        let program = compile(source);
        let steps = program.explain(&known(&["1", "1", "1", "1"])).0;
        let depths = program.depths();
        assert_eq!(steps.len(), depths.len());
        for (expression, depth) in want {
            let at = steps.iter().position(|step| step.expression == *expression).expect(expression);
            assert_eq!(depths[at], *depth, "{expression} of {source}");
        }
        assert_eq!(depths.last(), Some(&0), "{source}");
    };
    check("sum > 1", &[("sum", 1), ("sum > 1", 0)]);
    check(
        "sum > 1 && count > 1 && max > 1 && min + 1 > 1",
        &[("sum > 1", 1), ("min + 1 > 1", 1), ("min + 1", 2), ("min", 3), ("sum > 1 && count > 1", usize::MAX)],
    );
    check("sum > 1 && !(count > 1 || max > 1 || min > 1)", &[("sum > 1", 1), ("count > 1", 3), ("count", 4)]);
}

#[test]
fn what_is_greater_than_every_number_is_compared_and_not_calculated_with() {
    let check = |source: &str, values: &[Value], want: Verdict| {
        let program = compile(source);
        assert_eq!(program.evaluate(values), want, "{source} {values:?}");
        let root = program.explain(values).0.last().unwrap().value.clone();
        let said = match want {
            Verdict::True => "true",
            Verdict::False => "false",
            Verdict::NoData | Verdict::Inconclusive => "unknown",
        };
        assert_eq!(root, said, "{source}");
    };
    use Verdict::{False, Inconclusive, True};
    let (over, one) = (Value::Over, Value::Known(Quantity::ONE));
    for (op, want) in [(">", True), (">=", True), ("!=", True), ("<", False), ("<=", False), ("==", False)] {
        check(&format!("quota_percent {op} 999999999999999"), &[over], want);
        check(&format!("quota_percent {op} used"), &[over, one], want);
    }
    for (op, want) in [("<", True), ("<=", True), ("!=", True), (">", False), (">=", False), ("==", False)] {
        check(&format!("85 {op} quota_percent"), &[over], want);
        check(&format!("used {op} quota_percent"), &[one, over], want);
    }
    check("quota_percent + 0 > 1", &[over], Inconclusive);
    check("-quota_percent < 1", &[over], Inconclusive);
    check("quota_percent / quota_percent > 0", &[over], Inconclusive);
    check("quota_percent > quota_percent(\"x\")", &[over, over], Inconclusive);
    check("quota_percent > 85 && used > 0", &[over, one], True);
    check("quota_percent + 1 > 2 || used > 0", &[over, one], True);
    let trace = compile("quota_percent > 85").explain(&[over]);
    assert_eq!((trace.0[0].expression.as_str(), trace.0[0].value.as_str()), ("quota_percent", "over"));
}

#[test]
fn slips_get_words_of_their_own() {
    let check = |source: &str, code: RuleErrorCode, offset: usize, says: &str| {
        let error = RuleProgram::compile(source).expect_err(source);
        assert_eq!((error.code, error.offset), (code, offset), "{source}: {error}");
        let text = format!("{error} {}", error.expected.clone().unwrap_or_default());
        assert!(text.contains(says), "{source}: {text}");
    };
    use RuleErrorCode::{Syntax, TooComplex, Type};
    check("", Syntax, 0, "quota_percent > 85");
    check("quota_percent => 85", Syntax, 14, "write >=");
    check("quota_percent = 85", Syntax, 14, "write ==");
    check("quota_percent > 85%", Syntax, 18, "in percent already");
    check("quota_percent > 85% && sum > 1", Syntax, 18, "in percent already");
    check("sum > 1 and count > 2", Syntax, 8, "write &&");
    check("sum > 1 OR count > 2", Syntax, 8, "write ||");
    check("not sum > 1", Syntax, 0, "write !");
    check("85 < quota_percent < 95", Syntax, 19, "do not chain");
    check("quota_percent > \"85\"", Type, 16, "leave the quotas out".replace("quotas", "quotes").as_str());
    check("quota_percnt > 85", Syntax, 0, "did you mean quota_percent?");
    check("usge > 85", Syntax, 0, "did you mean usage?");
    check("api.calls > 85", Syntax, 0, "sum(\"api.calls\")");
    check("sum(api) > 1", Syntax, 4, "in quotes");
    check("sum(\"Api\") > 1", Syntax, 4, "no metric");
    check("sum", Type, 0, "compare it");
    check("sum > (count > 1)", Type, 7, "compares numbers");
    check("sum > 1; count > 2", Syntax, 7, "join conditions");
    check("sum > 1e999", Syntax, 6, "1e15");
    check("sum > 0.1234567891", Syntax, 6, "9 decimal places");
    check("sum >", Syntax, 5, "ends too early");
    check("(sum > 1", Syntax, 0, "not closed");
    check("sum > 1)", Syntax, 7, "')' without");
    check("sum > 1 count", Syntax, 8, "an operator");
    check("sum > ümlaut", Syntax, 6, "unexpected 'ü'");
    check(&"(".repeat(400), TooComplex, 33, "32 levels");
    check(&format!("sum > {}1", "-".repeat(400)), TooComplex, 39, "32 levels");
    check(&"1".repeat(600), TooComplex, 0, "512");
    let flat = format!("sum > 1{}", " || sum > 1".repeat(40));
    assert_eq!(RuleProgram::compile(&flat).unwrap_err().code, TooComplex);
}

#[test]
fn units_that_make_no_sense_are_warned_of() {
    let codes = |source: &str| compile(source).warnings().iter().map(|warning| warning.code).collect::<Vec<_>>();
    assert_eq!(codes("quota_percent > 8500"), ["unit"]);
    assert_eq!(codes("quota_percent > 0.85"), ["unit"]);
    assert_eq!(codes("period_elapsed_percent > 100"), ["always_false"]);
    assert_eq!(codes("count >= 0"), ["always_true"]);
    assert_eq!(codes("1 > 0"), ["constant"]);
    assert!(codes("quota_percent > 85 && sum > 100").is_empty());
}

#[test]
fn only_what_grows_fires_early() {
    let early = |source: &str| compile(source).fires_early();
    for source in ["sum > 1", "1 <= count", "max > 3 && rate >= 2", "sum(\"a\") > 1 || count > 2"] {
        assert!(early(source), "{source}");
    }
    for source in [
        "sum < 1",
        "min > 1",
        "!(sum > 1)",
        "sum > count",
        "sum + 1 > 2",
        "quota_percent > 1",
        "sum > 1 && used > 1",
        "1 > 0",
    ] {
        assert!(!early(source), "{source}");
    }
}

#[test]
fn the_canonical_spelling_leaves_out_what_it_can() {
    let check = |source: &str, want: &str| assert_eq!(compile(source).normalized(), want);
    check("  usage>100", "sum > 100");
    check("((sum) > (1)) && (count>2||max>3)", "sum > 1 && (count > 2 || max > 3)");
    check("sum-(count-1)>0", "sum - (count - 1) > 0");
    check("(sum-count)-1>0", "sum - count - 1 > 0");
    check("!(sum>1)", "!(sum > 1)");
    check("sum > 85.50", "sum > 85.5");
}

#[test]
fn a_trace_tells_every_part() {
    let trace = compile("quota_percent > 85 && count > 1").explain(&known(&["90", "1"]));
    let lines: Vec<String> = trace.0.iter().map(|step| format!("{} = {}", step.expression, step.value)).collect();
    assert_eq!(
        lines,
        [
            "quota_percent = 90",
            "quota_percent > 85 = true",
            "count = 1",
            "count > 1 = false",
            "quota_percent > 85 && count > 1 = false"
        ]
    );
}

/// A tree to generate sources from, with an evaluator as plain as can be.
#[derive(Clone, Debug)]
enum Tree {
    Number(i64),
    Input(usize),
    Math(char, Box<Tree>, Box<Tree>),
    Compare(&'static str, Box<Tree>, Box<Tree>),
    Not(Box<Tree>),
    Join(&'static str, Box<Tree>, Box<Tree>),
}

const NAMES: [&str; 3] = ["sum", "count", "max"];

fn number() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![(-9_i64..9).prop_map(Tree::Number), (0_usize..3).prop_map(Tree::Input)];
    leaf.prop_recursive(2, 6, 2, |inner| {
        (prop::sample::select(vec!['+', '-', '*']), inner.clone(), inner)
            .prop_map(|(op, a, b)| Tree::Math(op, Box::new(a), Box::new(b)))
    })
}

fn condition() -> impl Strategy<Value = Tree> {
    let leaf = (prop::sample::select(vec![">", ">=", "<", "<=", "==", "!="]), number(), number())
        .prop_map(|(op, a, b)| Tree::Compare(op, Box::new(a), Box::new(b)));
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|a| Tree::Not(Box::new(a))),
            (prop::sample::select(vec!["&&", "||"]), inner.clone(), inner).prop_map(|(op, a, b)| Tree::Join(
                op,
                Box::new(a),
                Box::new(b)
            )),
        ]
    })
}

fn source(tree: &Tree) -> String {
    match tree {
        Tree::Number(n) => format!("({n})"),
        Tree::Input(at) => NAMES[*at].to_owned(),
        Tree::Math(op, a, b) => format!("({} {op} {})", source(a), source(b)),
        Tree::Compare(op, a, b) | Tree::Join(op, a, b) => format!("({} {op} {})", source(a), source(b)),
        Tree::Not(a) => format!("!{}", source(a)),
    }
}

fn plain_number(tree: &Tree, values: &[Option<i64>; 3]) -> Option<i64> {
    match tree {
        Tree::Number(n) => Some(*n),
        Tree::Input(at) => values[*at],
        Tree::Math(op, a, b) => {
            let (a, b) = (plain_number(a, values)?, plain_number(b, values)?);
            Some(match op {
                '+' => a + b,
                '-' => a - b,
                _ => a * b,
            })
        }
        Tree::Compare(..) | Tree::Join(..) | Tree::Not(..) => unreachable!(),
    }
}

fn plain_flag(tree: &Tree, values: &[Option<i64>; 3]) -> Option<bool> {
    match tree {
        Tree::Compare(op, a, b) => {
            let (a, b) = (plain_number(a, values)?, plain_number(b, values)?);
            Some(match *op {
                ">" => a > b,
                ">=" => a >= b,
                "<" => a < b,
                "<=" => a <= b,
                "==" => a == b,
                _ => a != b,
            })
        }
        Tree::Not(a) => plain_flag(a, values).map(|flag| !flag),
        Tree::Join(op, a, b) => {
            let decides = *op == "||";
            match (plain_flag(a, values), plain_flag(b, values)) {
                (Some(x), _) | (_, Some(x)) if x == decides => Some(decides),
                (Some(_), Some(_)) => Some(!decides),
                _ => None,
            }
        }
        Tree::Number(_) | Tree::Input(_) | Tree::Math(..) => unreachable!(),
    }
}

proptest! {
    #[test]
    fn evaluation_agrees_with_a_plain_reading(
        tree in condition(),
        values in prop::array::uniform3(prop::option::of(-9_i64..9)),
    ) {
        let text = source(&tree);
        prop_assume!(text.len() <= 512);
        let Ok(program) = RuleProgram::compile(&text) else {
            // Only the bound on the number of parts may stand in the way.
            prop_assert_eq!(RuleProgram::compile(&text).unwrap_err().code, RuleErrorCode::TooComplex);
            return Ok(());
        };
        let at = |input: &Input| NAMES.iter().position(|name| *name == input.name.text()).unwrap();
        let given = |program: &RuleProgram| -> Vec<Value> {
            program.inputs().iter().map(|input| values[at(input)].map_or(Value::NoData, |n| Value::Known(Quantity::whole(n)))).collect()
        };
        let verdict = program.evaluate(&given(&program));
        match plain_flag(&tree, &values) {
            Some(true) => prop_assert_eq!(verdict, Verdict::True),
            Some(false) => prop_assert_eq!(verdict, Verdict::False),
            None => prop_assert!(matches!(verdict, Verdict::NoData | Verdict::Inconclusive)),
        }
        let again = compile(program.normalized());
        prop_assert_eq!(again.normalized(), program.normalized());
        prop_assert_eq!(again.evaluate(&given(&again)), verdict);
    }

    #[test]
    fn no_source_makes_it_panic(tokens in prop::collection::vec(prop::sample::select(vec![
        "sum", "quota_percent", "(", ")", "\"a\"", "'", ">", "=", "==", "&&", "||", "!", "-", "%", "1", "85%", "é", " ", "and", ".", "1e9", ",", ";", "true",
    ]), 0..60)) {
        if let Err(error) = RuleProgram::compile(&tokens.concat()) {
            prop_assert!(error.offset + error.length <= tokens.concat().len().max(error.offset));
        }
    }
}
