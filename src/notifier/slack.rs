//! Slack messages in Block Kit: one notification, or a digest of many.
//!
//! Text of users is escaped (`&`, `<`, `>` are the only characters that Slack reads as markup in `mrkdwn`) or stands in
//! `plain_text`; links are not unfurled.

use super::payload::link;
use crate::domain::limits::DIGEST_ITEMS_MAX;
use crate::domain::partition::effect::Reason;
use crate::domain::partition::notification::{Notification, NotificationKind};
use serde_json::{Value, json};

const HEADER_CHARS_MAX: usize = 150;
const SECTION_CHARS_MAX: usize = 2_900;
const FIELD_CHARS_MAX: usize = 1_900;

/// Returns the message of one notification.
pub(super) fn message(notification: &Notification, base_url: &str) -> Value {
    let title = title(notification);
    let mut blocks = vec![
        json!({"type": "header", "text": {"type": "plain_text", "text": cut(&title, HEADER_CHARS_MAX), "emoji": true}}),
        json!({"type": "section", "fields": fields(notification)}),
        json!({"type": "section", "text": {"type": "mrkdwn", "text": cut(&why(notification), SECTION_CHARS_MAX)}}),
    ];
    if let Some(message) = &notification.message {
        blocks
            .push(json!({"type": "section", "text": {"type": "plain_text", "text": cut(message, SECTION_CHARS_MAX)}}));
    }
    let footer =
        format!("{} · {} · <{}|history>", notification.severity.name(), notification.at, link(notification, base_url));
    blocks.push(json!({"type": "context", "elements": [{"type": "mrkdwn", "text": footer}]}));
    json!({"text": escape(&cut(&title, SECTION_CHARS_MAX)), "blocks": blocks, "unfurl_links": false, "unfurl_media": false})
}

/// Returns one message for many notifications.
pub(super) fn digest(notifications: &[Notification], base_url: &str) -> Value {
    let title = format!("{} alert messages in one", notifications.len());
    let mut lines: Vec<String> = notifications
        .iter()
        .take(DIGEST_ITEMS_MAX)
        .map(|notification| {
            let line = format!("• {} <{}|history>", escape(&self::title(notification)), link(notification, base_url));
            cut(&line, 300)
        })
        .collect();
    let rest = notifications.len().saturating_sub(DIGEST_ITEMS_MAX);
    if rest > 0 {
        lines.push(format!("• and {rest} more"));
    }
    // A section holds 3,000 characters, so the lines are shared out over a few.
    let sections =
        lines.chunks(8).map(|some| json!({"type": "section", "text": {"type": "mrkdwn", "text": some.join("\n")}}));
    let header = json!({"type": "header", "text": {"type": "plain_text", "text": title}});
    let blocks: Vec<Value> = std::iter::once(header).chain(sections).collect();
    json!({"text": title, "blocks": blocks, "unfurl_links": false, "unfurl_media": false})
}

fn title(notification: &Notification) -> String {
    let sign = match notification.kind {
        NotificationKind::Firing => "🔴 Firing",
        NotificationKind::Resolved => "✅ Resolved",
        NotificationKind::NoData => "⚪ No data",
        NotificationKind::Corrected => "🔁 Corrected",
        NotificationKind::Pending => "🟡 Pending",
        NotificationKind::Test => "🧪 Test",
    };
    let name = notification.alert_name.as_deref().unwrap_or(&notification.evidence.rule);
    format!("{sign}: {name} · {}", notification.key.account)
}

fn fields(notification: &Notification) -> Vec<Value> {
    let evidence = &notification.evidence;
    let mut fields = vec![("Account", notification.key.account.to_string())];
    if let Some(metric) = &notification.key.metric {
        fields.push(("Metric", metric.to_string()));
    }
    if let (Some(name), Some(value)) = (&evidence.value_name, evidence.value) {
        fields.push(("Value", format!("{name} = {value}")));
    }
    if let Some(quota) = &evidence.quota {
        fields.push(("Limit", format!("{} of {} a {}", quota.used, quota.limit, quota.period.name())));
    }
    if let Some(window) = &evidence.window {
        let open = if window.closed { "" } else { " (still open)" };
        fields.push(("Window", format!("{} – {}{open}", window.start, window.end)));
    }
    fields.push(("Rule", evidence.rule.clone()));
    let field = |(name, text): (&str, String)| json!({"type": "mrkdwn", "text": cut(&format!("*{name}*\n{}", escape(&text)), FIELD_CHARS_MAX)});
    fields.into_iter().map(field).collect()
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
        Reason::Test => "this is a test: nothing has happened",
    };
    let steps: Vec<String> = notification
        .evidence
        .trace
        .0
        .iter()
        .map(|step| format!("`{}` = {}", escape(&step.expression).replace('`', "'"), escape(&step.value)))
        .collect();
    let meanwhile = match notification.fired_meanwhile {
        0 => String::new(),
        times => format!("\nIt fired {times} times meanwhile."),
    };
    format!("*Why* {because}.{meanwhile}\n{}", steps.join("\n"))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Cuts a text to a number of characters, marking the cut.
fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let kept: String = text.chars().take(chars_max.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::payload::tests::notification;

    #[test]
    fn a_message_shows_value_limit_rule_and_why() {
        insta::assert_json_snapshot!(message(&notification(7), "https://hw.example"));
    }

    #[test]
    fn nobody_can_be_called_out_by_a_name() {
        let text = message(&notification(7), "https://hw.example").to_string();
        let mrkdwn = digest(&[notification(7)], "https://hw.example").to_string();
        // The header is plain text, in which nothing is read as markup.
        assert_eq!(text.matches("<!channel>").count(), 1);
        assert!(text.contains("&lt;!channel&gt;") && !mrkdwn.contains("<!channel>"));
    }

    #[test]
    fn a_digest_names_some_and_counts_the_rest() {
        let many: Vec<_> = (0..25).map(notification).collect();
        let text = digest(&many, "https://hw.example").to_string();
        assert!(text.contains("25 alert messages in one") && text.contains("and 5 more"));
    }
}
