//! Checking texts and maps of callers.

use super::problem::Problem;
use crate::domain::limits::{METADATA_ENTRIES_MAX, METADATA_NAME_CHARS_MAX, METADATA_VALUE_CHARS_MAX, NAME_CHARS_MAX};
use crate::domain::silence::MATCHER_FIELDS;
use crate::domain::time::Millis;
use std::collections::BTreeMap;

/// Checks a name for people.
///
/// # Errors
/// 422 where it is empty, too long or has control characters.
pub(super) fn name(pointer: &str, text: String) -> Result<String, Problem> {
    bounded(pointer, text, NAME_CHARS_MAX)
}

/// Checks a text of at most `chars_max` characters.
///
/// # Errors
/// 422 where it is empty, too long or has control characters other than line breaks.
pub(super) fn bounded(pointer: &str, text: String, chars_max: usize) -> Result<String, Problem> {
    let chars = text.chars().count();
    if chars == 0 || chars > chars_max {
        return Err(Problem::invalid(pointer, format!("{chars} characters, expected 1 to {chars_max}")));
    }
    if text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(Problem::invalid(pointer, "control characters are not taken"));
    }
    Ok(text)
}

/// Checks a map of notes or labels.
///
/// # Errors
/// 422 where it has too many entries, or one is too long.
pub(super) fn map(pointer: &str, entries: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Problem> {
    if entries.len() > METADATA_ENTRIES_MAX {
        return Err(Problem::invalid(
            pointer,
            format!("{} entries, at most {METADATA_ENTRIES_MAX} are taken", entries.len()),
        ));
    }
    for (name, value) in &entries {
        entry(pointer, name, value)?;
    }
    Ok(entries)
}

type Patch = Option<Option<BTreeMap<String, Option<String>>>>;

/// Checks changes of a map.
///
/// # Errors
/// 422 where an entry is too long.
pub(super) fn map_patch(pointer: &str, patch: Patch) -> Result<Patch, Problem> {
    for (name, value) in patch.iter().flatten().flatten() {
        entry(pointer, name, value.as_deref().unwrap_or(""))?;
    }
    Ok(patch)
}

/// Refuses labels whose names matchers of silences read elsewhere; such a label could never be matched. Removing one is
/// allowed, and stored ones stay.
///
/// # Errors
/// 422 where a name is reserved.
pub(super) fn unreserved<'a>(pointer: &str, names: impl Iterator<Item = &'a String>) -> Result<(), Problem> {
    for name in names {
        if MATCHER_FIELDS.contains(&name.as_str()) {
            let fields = MATCHER_FIELDS.join(", ");
            let detail = format!("{name} is a reserved name: matchers of silences read {fields} from the alert itself");
            return Err(Problem::invalid(&format!("{pointer}/{name}"), detail));
        }
    }
    Ok(())
}

fn entry(pointer: &str, name: &str, value: &str) -> Result<(), Problem> {
    let name_chars = name.chars().count();
    if name_chars == 0 || name_chars > METADATA_NAME_CHARS_MAX {
        return Err(Problem::invalid(
            pointer,
            format!("a name of {name_chars} characters, expected 1 to {METADATA_NAME_CHARS_MAX}"),
        ));
    }
    if value.chars().count() > METADATA_VALUE_CHARS_MAX {
        return Err(Problem::invalid(
            &format!("{pointer}/{name}"),
            format!("more than {METADATA_VALUE_CHARS_MAX} characters"),
        ));
    }
    Ok(())
}

/// Reads a duration.
///
/// # Errors
/// 422 where it is none.
pub(super) fn duration(pointer: &str, text: &str) -> Result<Millis, Problem> {
    Millis::parse(text)
        .ok_or_else(|| Problem::invalid(pointer, format!("{text:?} is no duration such as 30s, 5m, 4h or 2d")))
}
