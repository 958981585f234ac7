//! Slack messages in Block Kit: one notification; [`digest`](super::digest) is a message of many.
//!
//! What people named (accounts, alerts, rules) stands between code marks or in `plain_text` without emoji, so that
//! `@channel` or `:fire:` is shown as it is written; links are not unfurled.

use super::markup::{code, code_block, cut, escaped, link, mrkdwn, units};
use super::payload;
use crate::domain::partition::effect::{Evidence, Reason};
use crate::domain::partition::notification::{Notification, NotificationKind};
use crate::domain::rule::{RuleProgram, TraceStep};
use serde_json::{Value, json};

/// What Slack takes of a header.
pub(super) const HEADER_UNITS_MAX: usize = 150;
/// What a section holds; Slack takes 3,000.
pub(super) const SECTION_UNITS_MAX: usize = 2_900;
/// What a message without blocks holds; Slack cuts at 40,000.
pub(super) const PLAIN_UNITS_MAX: usize = 30_000;
const FIELD_UNITS_MAX: usize = 1_900;
const STEP_UNITS_MAX: usize = 600;
const NAME_UNITS_MAX: usize = 600;

/// Returns the message of one notification.
pub(super) fn message(notification: &Notification, base_url: &str) -> Value {
    let title = title(notification, str::to_owned);
    let mut blocks = vec![
        json!({"type": "header", "text": {"type": "plain_text", "text": cut(&title, HEADER_UNITS_MAX), "emoji": false}}),
        json!({"type": "section", "fields": fields(notification)}),
        json!({"type": "section", "text": mrkdwn(&why(notification))}),
    ];
    if let Some(message) = &notification.message {
        blocks
            .push(json!({"type": "section", "text": {"type": "plain_text", "text": cut(message, SECTION_UNITS_MAX), "emoji": false}}));
    }
    blocks.push(json!({"type": "context", "elements": [mrkdwn(&footer(notification, base_url))]}));
    json!({"text": marked_title(notification), "blocks": blocks, "unfurl_links": false, "unfurl_media": false})
}

/// Returns the same without blocks, for a receiver that does not take them.
pub(super) fn plain(notification: &Notification, base_url: &str) -> Value {
    let named = facts(notification).into_iter().map(|(name, text)| format!("{name}: {}", code(&text, FIELD_UNITS_MAX)));
    let mut lines = vec![marked_title(notification)];
    lines.extend(named);
    lines.push(why(notification));
    lines.extend(notification.message.as_ref().map(|message| code_block(message, SECTION_UNITS_MAX)));
    lines.push(footer(notification, base_url));
    json!({"text": lines.join("\n"), "unfurl_links": false, "unfurl_media": false})
}

fn footer(notification: &Notification, base_url: &str) -> String {
    let history = link(&payload::link(notification, base_url), "history");
    format!("{} · {} · {history}", notification.severity.name(), notification.at)
}

/// The title where markup is read.
fn marked_title(notification: &Notification) -> String {
    title(notification, |name| code(name, NAME_UNITS_MAX))
}

fn title(notification: &Notification, show: impl Fn(&str) -> String) -> String {
    let sign = match notification.kind {
        NotificationKind::Firing => "🔴 Firing",
        NotificationKind::Resolved => "✅ Resolved",
        NotificationKind::NoData => "⚪ No data",
        NotificationKind::Corrected => "🔁 Corrected",
        NotificationKind::Pending => "🟡 Pending",
        NotificationKind::Test => "🧪 Test",
    };
    let name = notification.alert_name.as_deref().unwrap_or(&notification.evidence.rule);
    format!("{sign}: {} · {}", show(name), show(notification.key.account.as_str()))
}

fn fields(notification: &Notification) -> Vec<Value> {
    let field = |(name, text): (&str, String)| mrkdwn(&format!("*{name}*\n{}", code(&text, FIELD_UNITS_MAX)));
    facts(notification).into_iter().map(field).collect()
}

fn facts(notification: &Notification) -> Vec<(&'static str, String)> {
    let evidence = &notification.evidence;
    let mut fields = vec![("Account", notification.key.account.to_string())];
    let metrics = payload::metrics(notification);
    if !metrics.is_empty() {
        fields.push((if metrics.len() == 1 { "Metric" } else { "Metrics" }, metrics.join(", ")));
    }
    match (&evidence.value_name, evidence.value) {
        (Some(name), Some(value)) => fields.push(("Value", format!("{name} = {value}"))),
        (Some(name), None) if evidence.is_over() => {
            fields.push(("Value", format!("{name} is over every number: nothing is allowed")));
        }
        (Some(_) | None, _) => {}
    }
    if let Some(quota) = &evidence.quota {
        fields.push(("Limit", format!("{} of {} a {}", quota.used, quota.limit, quota.period.name())));
    }
    if let Some(window) = &evidence.window {
        let open = if window.closed { "" } else { " (still open)" };
        fields.push(("Window", format!("{} – {}{open}", window.start, window.end)));
    }
    fields.push(("Rule", evidence.rule.clone()));
    fields
}

fn why(notification: &Notification) -> String {
    let because = match notification.reason {
        Reason::Condition => "the condition decided it",
        Reason::Held => "the hold time ran out",
        Reason::PeriodEnded => "the quota's period ended",
        Reason::Late => "a late event changed the newest window",
        Reason::Edited => "the alert was edited",
        Reason::Redefined => "the quota was changed",
        Reason::Paused => "the alert was paused",
        Reason::Deleted => "the alert was deleted",
        Reason::AccountDeleted => "the account was deleted",
        Reason::NoData => "there is no data",
        Reason::Repeat => "it still fires",
        Reason::SilenceEnded => "a silence ended and it still fires",
        Reason::CaughtUp => "this is how it stands after a time without processing",
        Reason::Retraction => "a late event takes the earlier message back",
        Reason::LateFire => "a late event shows that it should have fired",
        Reason::ChannelAdded => "it fires, and this channel was added to the alert",
        Reason::Test => "this is a test: nothing has happened",
        Reason::QuotaRemoved => "the quota was removed",
        Reason::Inconclusive => "the rule cannot be decided",
    };
    let meanwhile = match notification.fired_meanwhile {
        0 => String::new(),
        times => format!("\nIt fired {times} times meanwhile."),
    };
    let head = format!("*Why* {because}.{meanwhile}\n");
    let room = SECTION_UNITS_MAX.saturating_sub(units(&head));
    head + &steps(&notification.evidence, room)
}

/// The steps that decided, as many as there is room for: the whole rule first of all, then the outermost conditions. What
/// is left out is left out by whole lines.
fn steps(evidence: &Evidence, units_max: usize) -> String {
    const NOTE_UNITS: usize = 40;
    let line = |step: &TraceStep| {
        format!("{} = {}", code(&step.expression, STEP_UNITS_MAX), escaped(&step.value, STEP_UNITS_MAX))
    };
    let lines: Vec<String> = evidence.trace.0.iter().map(line).collect();
    let depths = RuleProgram::compile(&evidence.rule).map(|rule| rule.depths()).unwrap_or_default();
    let mut order: Vec<usize> = (0..lines.len()).collect();
    if depths.len() == lines.len() {
        order.sort_by_key(|at| depths.get(*at).copied());
    } else {
        // Inner steps stand before outer ones.
        order.reverse();
    }
    let mut room = units_max.saturating_sub(NOTE_UNITS);
    let mut kept: Vec<usize> = Vec::new();
    for at in order {
        let length = lines.get(at).map_or(0, |line| units(line).saturating_add(1));
        let Some(left) = room.checked_sub(length) else { break };
        room = left;
        kept.push(at);
    }
    kept.sort_unstable();
    let rest = lines.len().saturating_sub(kept.len());
    let note = (rest > 0).then(|| format!("… and {rest} inner steps"));
    let shown = kept.iter().filter_map(|at| lines.get(*at).cloned());
    note.into_iter().chain(shown).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::AccountId;
    use crate::domain::rule::{Trace, TraceStep};
    use crate::notifier::digest::{digest, plain as plain_digest};
    use crate::notifier::payload::tests::notification;

    #[test]
    fn a_message_shows_value_limit_rule_and_why() {
        insta::assert_json_snapshot!(message(&notification(7), "https://hw.example"));
    }

    #[test]
    fn the_outermost_conditions_are_kept_where_there_is_no_room_for_all() {
        use crate::domain::quantity::Quantity;
        use crate::domain::rule::Value;
        let names = ["sum", "count", "min", "max", "avg", "last", "rate"];
        let conditions: Vec<String> =
            (0..14).map(|n| format!("{}(\"m{n}\") {} {n}", names[n % 7], if n == 13 { "<" } else { ">=" })).collect();
        let rule = conditions.join(" && ");
        let program = RuleProgram::compile(&rule).unwrap();
        let mut told = notification(7);
        let values: Vec<Value> = (0..14).map(|_| Value::Known(Quantity::whole(20))).collect();
        told.evidence.trace = program.explain(&values);
        told.evidence.rule = rule.clone();
        let why = why(&told);
        assert!(units(&why) <= SECTION_UNITS_MAX, "{}", units(&why));
        let text = why.replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&");
        assert!(text.contains(&format!("`{}` = false", program.normalized())), "the whole rule: {text}");
        for condition in &conditions {
            let value = if condition.contains('<') { "false" } else { "true" };
            assert!(text.contains(&format!("`{condition}` = {value}")), "{condition}: {text}");
        }
        assert!(text.contains("… and "), "what is left out is counted: {text}");
        // A rule of a later grammar, and one step that is longer than the room.
        told.evidence.rule = "?".to_owned();
        assert!(super::why(&told).contains("false"));
        told.evidence.trace.0 = vec![TraceStep { expression: "x".repeat(4_000), value: "true".to_owned() }];
        assert!(super::message(&told, "https://hw.example").to_string().contains("xxx"));
    }

    #[test]
    fn nobody_can_be_called_out_by_a_name() {
        let text = message(&notification(7), "https://hw.example").to_string();
        // The header is plain text, in which nothing is read as markup.
        assert_eq!(text.matches("<!channel>").count(), 1);
        assert!(text.contains("&lt;!channel&gt;"));
        assert!(!plain(&notification(7), "https://hw.example").to_string().contains("<!channel>"));
    }

    /// The texts in which markup is read, without what stands between code marks; no plain text has emoji.
    fn read_as_markup(value: &Value, found: &mut Vec<String>) {
        if value["type"] == "plain_text" {
            assert_ne!(value["emoji"], true, "{value}");
            return;
        }
        if let Some(text) = value["text"].as_str() {
            let parts = text.replace("```", "`");
            found.push(parts.split('`').step_by(2).collect());
        }
        let inner = value.as_object().into_iter().flat_map(|object| object.values());
        inner.chain(value.as_array().into_iter().flatten()).for_each(|one| read_as_markup(one, found));
    }

    #[test]
    fn names_that_are_markup_are_shown_as_they_are_written() {
        for name in ["@channel", ":fire:", "_x_@here"] {
            let mut one = notification(7);
            one.key.account = AccountId::new(name).unwrap();
            one.alert_name = Some(format!("*{name}* `{name}`\n{name}"));
            one.message = Some(format!("{name}\n```{name}```"));
            one.evidence.rule = format!("sum(\"{name}\") > 1");
            one.evidence.value_name = Some(format!("sum(\"{name}\")"));
            one.evidence.trace = Trace(vec![TraceStep { expression: name.to_owned(), value: "1".to_owned() }]);
            let many = [one.clone(), notification(8), one.clone()];
            let base = "https://hw.example";
            for message in [message(&one, base), plain(&one, base), digest(&many, base), plain_digest(&many, base)] {
                assert!(message.to_string().contains(name), "{message}");
                let mut found = Vec::new();
                read_as_markup(&message, &mut found);
                assert!(!found.is_empty() && found.iter().all(|text| !text.contains(name)), "{name}: {found:?}");
            }
        }
    }

    #[test]
    fn what_is_too_long_is_cut_by_lines_and_the_deciding_step_stays() {
        let mut long = notification(7);
        let step =
            |n: usize| TraceStep { expression: format!("{} < {n} && \"", "x".repeat(480)), value: "1".to_owned() };
        long.evidence.trace = Trace((0..20).map(step).collect());
        long.alert_name = Some("🔴 & <b>".repeat(40));
        let message = message(&long, "https://hw.example");
        let why = message["blocks"][2]["text"]["text"].as_str().unwrap();
        assert!(units(why) <= SECTION_UNITS_MAX && why.contains("&lt; 19 &amp;&amp;"), "{why}");
        assert!(why.lines().skip(2).all(|line| line.ends_with("= 1")), "{why}");
        assert!(units(message["blocks"][0]["text"]["text"].as_str().unwrap()) <= HEADER_UNITS_MAX);
    }
}
