//! A Slack message for many notifications: grouped by alert, what fires apart from what ended, pages before all others.

use super::markup::{code, cut, link, mrkdwn, units};
use super::payload;
use super::slack::{HEADER_UNITS_MAX, PLAIN_UNITS_MAX, SECTION_UNITS_MAX};
use crate::domain::definition::Severity;
use crate::domain::id::AlertId;
use crate::domain::limits::{DIGEST_LINES_MAX, DIGEST_NAMES_MAX};
use crate::domain::partition::notification::{Notification, NotificationKind};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const NAME_UNITS_MAX: usize = 100;
const ACCOUNT_UNITS_MAX: usize = 140;

/// The notifications of one alert that say the same.
struct Group<'a> {
    first: &'a Notification,
    all: Vec<&'a Notification>,
}

impl Group<'_> {
    /// What the order of the groups goes by; as they came where it is the same.
    fn rank(&self) -> (bool, bool, NotificationKind, std::cmp::Reverse<Severity>) {
        (self.ends(), !self.pages(), self.first.kind, std::cmp::Reverse(self.first.severity))
    }

    fn ends(&self) -> bool {
        self.first.kind == NotificationKind::Resolved
    }

    /// Whether somebody is to look at once.
    fn pages(&self) -> bool {
        self.first.severity == Severity::Critical && !self.ends()
    }
}

/// What a digest says, before it is laid out.
struct Said {
    title: String,
    /// One text or more for each group; none is longer than a section.
    present: Vec<String>,
    ended: Vec<String>,
}

/// Returns the message, in the order that the notifications have.
pub(super) fn digest(notifications: &[Notification], base_url: &str) -> Value {
    let Said { title, present, ended } = said(notifications, base_url);
    let title = cut(&title, HEADER_UNITS_MAX);
    let mut blocks = vec![json!({"type": "header", "text": {"type": "plain_text", "text": title}})];
    let apart = !present.is_empty() && !ended.is_empty();
    blocks.extend(sections(&present));
    if apart {
        blocks.push(json!({"type": "divider"}));
    }
    blocks.extend(sections(&ended));
    json!({"text": title, "blocks": blocks, "unfurl_links": false, "unfurl_media": false})
}

/// Returns the same without blocks.
pub(super) fn plain(notifications: &[Notification], base_url: &str) -> Value {
    let Said { title, present, ended } = said(notifications, base_url);
    let mut text = title;
    for line in present.iter().chain(&ended) {
        if units(&text).saturating_add(units(line)).saturating_add(2) > PLAIN_UNITS_MAX {
            text.push_str("\n…");
            break;
        }
        text.push('\n');
        text.push_str(line);
    }
    json!({"text": text, "unfurl_links": false, "unfurl_media": false})
}

fn said(notifications: &[Notification], base_url: &str) -> Said {
    let groups = groups(notifications);
    let lines = |ends: bool| {
        let (mut lines, mut shown, mut left_out) = (Vec::new(), 0_usize, (0_usize, BTreeSet::new()));
        for group in groups.iter().filter(|group| group.ends() == ends) {
            if group.pages() || shown < DIGEST_LINES_MAX {
                shown = shown.saturating_add(1);
                lines.extend(texts(group, base_url));
            } else {
                left_out.0 = left_out.0.saturating_add(group.all.len());
                left_out.1.insert(group.first.key.alert);
            }
        }
        if left_out.0 > 0 {
            lines.push(format!("• and {} more of {} other alerts", left_out.0, left_out.1.len()));
        }
        lines
    };
    Said { title: title(notifications), present: lines(false), ended: lines(true) }
}

fn title(notifications: &[Notification]) -> String {
    let counted = |kind: NotificationKind, what: &str| {
        let count = notifications.iter().filter(|notification| notification.kind == kind).count();
        (count > 0).then(|| format!("{count} {what}"))
    };
    let counts = [
        counted(NotificationKind::Firing, "firing"),
        counted(NotificationKind::NoData, "without data"),
        counted(NotificationKind::Corrected, "corrected"),
        counted(NotificationKind::Pending, "pending"),
        counted(NotificationKind::Test, "tests"),
        counted(NotificationKind::Resolved, "resolved"),
    ];
    let counts: Vec<String> = counts.into_iter().flatten().collect();
    format!("{} alert messages in one: {}", notifications.len(), counts.join(", "))
}

fn groups(notifications: &[Notification]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let key = |one: &Notification| -> (NotificationKind, AlertId, Severity) { (one.kind, one.key.alert, one.severity) };
    for one in notifications {
        match groups.iter_mut().find(|group| key(group.first) == key(one)) {
            Some(group) => group.all.push(one),
            None => groups.push(Group { first: one, all: vec![one] }),
        }
    }
    groups.sort_by_key(Group::rank);
    groups
}

/// What is said of a group: each account that it pages for, or the first few and how many there are.
fn texts(group: &Group<'_>, base_url: &str) -> Vec<String> {
    let first = group.first;
    let accounts: BTreeSet<_> = group.all.iter().map(|one| &one.key.account).collect();
    let mut seen = BTreeSet::new();
    let instances: Vec<_> = group.all.iter().map(|one| &one.key).filter(|key| seen.insert(*key)).collect();
    let by_account = accounts.len() == instances.len();
    let names = instances.iter().map(|key| match &key.metric {
        Some(metric) if !by_account => code(&format!("{} {metric}", key.account), ACCOUNT_UNITS_MAX),
        Some(_) | None => code(key.account.as_str(), ACCOUNT_UNITS_MAX),
    });
    let names: Vec<String> = names.take(if group.pages() { usize::MAX } else { DIGEST_NAMES_MAX }).collect();
    let name = first.alert_name.as_deref().unwrap_or(&first.evidence.rule);
    let count = match (instances.len(), by_account) {
        (1, _) => String::new(),
        (count, true) => format!("{count} accounts: "),
        (count, false) => format!("{count} instances: "),
    };
    let more = if names.len() < instances.len() { " …" } else { "" };
    let head = format!("{} {} ({}): {count}", sign(first.kind), code(name, NAME_UNITS_MAX), first.severity.name());
    let all = if instances.len() > 1 { " all:" } else { "" };
    let tail = format!("{more}{all} {}", link(&payload::link(first, base_url), "history"));
    let mut texts = Vec::new();
    let mut text = head;
    for (place, name) in names.iter().enumerate() {
        let between = if place == 0 { "" } else { ", " };
        let length = units(&text).saturating_add(units(between)).saturating_add(units(name));
        // The link is never cut: room for it is kept in each text.
        if length.saturating_add(units(&tail)) > SECTION_UNITS_MAX {
            texts.push(std::mem::replace(&mut text, format!("… {name}")));
        } else {
            text.push_str(between);
            text.push_str(name);
        }
    }
    text.push_str(&tail);
    texts.push(text);
    texts
}

const fn sign(kind: NotificationKind) -> &'static str {
    match kind {
        NotificationKind::Firing => "🔴",
        NotificationKind::Resolved => "✅",
        NotificationKind::NoData => "⚪",
        NotificationKind::Corrected => "🔁",
        NotificationKind::Pending => "🟡",
        NotificationKind::Test => "🧪",
    }
}

/// Puts as many texts into each section as it holds.
fn sections(texts: &[String]) -> Vec<Value> {
    let mut sections: Vec<String> = Vec::new();
    for text in texts {
        match sections.last_mut() {
            Some(last) if units(last).saturating_add(units(text)).saturating_add(1) <= SECTION_UNITS_MAX => {
                last.push('\n');
                last.push_str(text);
            }
            Some(_) | None => sections.push(text.clone()),
        }
    }
    sections.iter().map(|text| json!({"type": "section", "text": mrkdwn(text)})).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::AccountId;
    use crate::notifier::payload::tests::notification;
    use proptest::prelude::*;

    const BASE: &str = "https://hw.example";

    fn about(n: u128, alert: u128, severity: Severity, kind: NotificationKind) -> Notification {
        let mut one = notification(n);
        one.key.alert = AlertId(alert);
        one.key.account = AccountId::new(&format!("acc_{n}")).unwrap();
        one.alert_name = Some(format!("alert-{alert}"));
        Notification { severity, kind, ..one }
    }

    /// The texts of all sections.
    fn lines(message: &Value) -> Vec<String> {
        let blocks = message["blocks"].as_array().unwrap();
        let texts = blocks.iter().filter_map(|block| block["text"]["text"].as_str());
        texts.skip(1).flat_map(str::lines).map(str::to_owned).collect()
    }

    #[test]
    fn a_storm_is_grouped_by_alert_with_every_page_named_first() {
        use NotificationKind::{Firing, Resolved};
        use Severity::{Critical, Warning};
        let many = (0..180).map(|n| about(n, 1, Warning, Firing));
        let ended = (300..302).map(|n| about(n, 1, Warning, Resolved));
        let pages = (200..210).map(|n| about(n, 2, Critical, Firing));
        let all: Vec<Notification> = ended.chain(many).chain(pages).collect();
        let message = digest(&all, BASE);
        assert_eq!(message["text"], "192 alert messages in one: 190 firing, 2 resolved");
        let lines = lines(&message);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("🔴 `alert-2` (critical): 10 accounts: `acc_200`, "), "{}", lines[0]);
        for n in 200..210 {
            assert!(lines[0].contains(&format!("`acc_{n}`")), "{n} is not named");
        }
        let history = |alert| format!("all: <https://hw.example/v1/alerts/{}/history|history>", AlertId(alert));
        let some = "🔴 `alert-1` (warning): 180 accounts: `acc_0`, `acc_1`, `acc_2`, `acc_3`, `acc_4` … ";
        assert_eq!(lines[1], format!("{some}{}", history(1)));
        assert_eq!(lines[2], format!("✅ `alert-1` (warning): 2 accounts: `acc_300`, `acc_301` {}", history(1)));
    }

    #[test]
    fn nobody_is_called_out_and_no_link_is_cut() {
        let mut one = about(1, 1, Severity::Warning, NotificationKind::Firing);
        one.alert_name = Some("*<!channel> & ".repeat(40));
        let lines = lines(&digest(&[one.clone(), one], BASE));
        assert!(!lines[0].contains("<!channel>") && lines[0].ends_with("/history|history>"), "{lines:?}");
    }

    #[test]
    fn many_alerts_are_counted_behind_the_first() {
        let each = |n| about(n, n, Severity::Info, NotificationKind::Firing);
        let all: Vec<Notification> = (1..=200).map(each).collect();
        let lines = lines(&digest(&all, BASE));
        assert_eq!((lines.len(), lines[40].as_str()), (41, "• and 160 more of 160 other alerts"));
    }

    proptest! {
        #[test]
        fn whatever_comes_fits_into_a_message(
            all in prop::collection::vec((0_u128..60, 0_usize..3, 0_usize..6, "[a-z<&🔴*]{0,300}"), 2..200),
        ) {
            let severities = [Severity::Info, Severity::Warning, Severity::Critical];
            use NotificationKind as K;
            let kinds = [K::Firing, K::Resolved, K::NoData, K::Corrected, K::Pending, K::Test];
            let all: Vec<Notification> = (0..).zip(all).map(|(n, (alert, severity, kind, name))| Notification {
                alert_name: Some(name),
                ..about(n, alert + 1, severities[severity], kinds[kind])
            }).collect();
            let message = digest(&all, BASE);
            let blocks = message["blocks"].as_array().unwrap();
            prop_assert!(blocks.len() <= 50);
            for block in blocks.iter().skip(1).filter(|block| block["type"] == "section") {
                prop_assert!(units(block["text"]["text"].as_str().unwrap()) <= 3_000);
            }
            for page in all.iter().filter(|one| one.severity == Severity::Critical && one.kind != K::Resolved) {
                let name = format!("`{}`", page.key.account);
                prop_assert!(message.to_string().contains(&name), "{name} is not named");
            }
            prop_assert!(units(plain(&all, BASE)["text"].as_str().unwrap()) <= 40_000);
        }
    }
}
