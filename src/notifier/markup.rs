//! Text for Slack: escaped, and cut to lengths as Slack counts them, in UTF-16 units. Nothing that is cut loses half of a
//! character, an entity or a link.

use serde_json::{Value, json};

/// Stands where a text was cut.
const CUT: &str = "…";

/// Returns how long Slack takes a text to be.
pub(super) fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

/// Cuts a plain text to a number of units, marking the cut.
pub(super) fn cut(text: &str, units_max: usize) -> String {
    cut_as(text, units_max, |c, to| to.push(c))
}

/// Escapes what Slack reads as markup everywhere (`&`, `<`, `>`), and cuts what comes of it to a number of units.
pub(super) fn escaped(text: &str, units_max: usize) -> String {
    cut_as(text, units_max, |c, to| match c {
        '&' => to.push_str("&amp;"),
        '<' => to.push_str("&lt;"),
        '>' => to.push_str("&gt;"),
        c => to.push(c),
    })
}

/// As [`escaped`], between code marks: nothing in it is a mention, an emoji or bold. Whatever people name stands so, since
/// Slack has no other way to show `:fire:` as it is written.
pub(super) fn code(text: &str, units_max: usize) -> String {
    format!("`{}`", escaped(&text.replace('`', "'").replace(['\n', '\r'], " "), units_max.saturating_sub(2)))
}

/// As [`code`], for a text of many lines.
pub(super) fn code_block(text: &str, units_max: usize) -> String {
    format!("```\n{}\n```", escaped(&text.replace('`', "'"), units_max.saturating_sub(8)))
}

/// A link, which is never cut.
pub(super) fn link(url: &str, label: &str) -> String {
    format!("<{}|{label}>", escaped(url, usize::MAX))
}

/// A text object of markup. Slack adds no links or mentions of its own to it.
pub(super) fn mrkdwn(text: &str) -> Value {
    json!({"type": "mrkdwn", "text": text, "verbatim": true})
}

/// Writes a text character by character, up to a number of units.
fn cut_as(text: &str, units_max: usize, write: impl Fn(char, &mut String)) -> String {
    let (mut kept, mut length) = (String::new(), 0_usize);
    // How much is kept where the rest does not fit: room for the mark must be left behind it.
    let (mut fits, room) = (0_usize, units_max.saturating_sub(units(CUT)));
    for c in text.chars() {
        let before = kept.len();
        write(c, &mut kept);
        length = length.saturating_add(kept.get(before..).map_or(0, units));
        if length <= room {
            fits = kept.len();
        }
        if length > units_max {
            kept.truncate(fits);
            return kept + CUT;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_are_those_of_slack_and_no_entity_is_cut() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde…");
        // Four pictures of two units each.
        assert_eq!(cut("🔴🔴🔴🔴", 7), "🔴🔴🔴…");
        assert_eq!(escaped("a<b>", 5), "a&lt;…".get(..1).unwrap().to_owned() + "…");
        assert_eq!(escaped("a<b", 6), "a&lt;b");
        assert_eq!(code("@channel :fire: `x`\ny", 40), "`@channel :fire: 'x' y`");
        assert_eq!(code_block("a\n```b", 40), "```\na\n'''b\n```");
        assert_eq!(units(&code_block(&"x".repeat(99), 40)), 40);
        assert_eq!(link("https://hw.example/?a=1&b=2", "all"), "<https://hw.example/?a=1&amp;b=2|all>");
    }

    proptest! {
        #[test]
        fn what_is_cut_fits_and_reads_back(text in "[a-c<>&🔴é]{0,40}", most in 1_usize..40) {
            let short = escaped(&text, most);
            prop_assert!(units(&short) <= most);
            let read = short.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
            let begins = read.strip_suffix('…').map_or(read == text, |begins| text.starts_with(begins));
            prop_assert!(begins, "{short} of {text}");
        }
    }
}
