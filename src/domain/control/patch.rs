//! How changes merge into what stands: JSON Merge Patch on typed fields. It checks bounds that only the whole can break.

use super::outcome::Refused;
use crate::domain::limits::METADATA_ENTRIES_MAX;
use std::collections::BTreeMap;

/// A change of a map: absent leaves it, `Some(None)` empties it, an entry without a value goes.
pub(super) type MapPatch = Option<Option<BTreeMap<String, Option<String>>>>;

/// Sets a field that the patch names.
pub(super) fn set<T: Clone>(field: &mut T, patch: &Option<T>) {
    if let Some(value) = patch {
        field.clone_from(value);
    }
}

/// Merges changes into a map.
///
/// # Errors
/// Where the map would hold more than [`METADATA_ENTRIES_MAX`] entries.
pub(super) fn merge(map: &mut BTreeMap<String, String>, patch: &MapPatch, what: &str) -> Result<(), Refused> {
    let Some(patch) = patch else { return Ok(()) };
    let Some(entries) = patch else {
        map.clear();
        return Ok(());
    };
    for (name, value) in entries {
        match value {
            Some(value) => map.insert(name.clone(), value.clone()),
            None => map.remove(name),
        };
    }
    if map.len() > METADATA_ENTRIES_MAX {
        return Err(Refused::LimitReached { what: what.to_owned(), limit: METADATA_ENTRIES_MAX });
    }
    Ok(())
}

/// Keeps `Some(None)`, "clear it", apart from `None`, "leave it", which JSON's `null` alone would merge.
pub(super) mod clearable {
    use serde::{Deserialize, Deserializer};

    pub(in super::super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Option<T>>, D::Error> {
        Option::deserialize(deserializer).map(Some)
    }
}
