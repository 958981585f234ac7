//! Where the data is: the URLs of logs and store, the place of snapshots, the master key.

use super::ConfigError;
#[cfg(feature = "clickhouse")]
use crate::runtime::data::ClickHousePlace;
use crate::runtime::data::{JournalPlace, MasterKey, Places, StorePlace};
use crate::snapshot::SnapshotPlace;
use std::path::{Path, PathBuf};

/// Where the data is, as it was given.
#[derive(Clone, Debug)]
pub struct PlacesGiven {
    /// The data folder.
    pub data: PathBuf,
    /// The URL of the logs.
    pub journal: Option<String>,
    /// The URL of the read models.
    pub store: Option<String>,
    /// How long the store keeps rows.
    pub retention: Option<String>,
    /// Whether the store keeps events, too.
    pub archive: bool,
    /// The place of the snapshots.
    pub snapshots: Option<String>,
    /// The file of the master key.
    pub master_key_file: Option<PathBuf>,
}

/// Reads where the data is.
///
/// # Errors
/// Where a URL is none that is known, or the master key cannot be read.
pub fn places(given: &PlacesGiven) -> Result<Places, ConfigError> {
    Ok(Places {
        folder: given.data.clone(),
        journal: given.journal.as_deref().map_or(Ok(JournalPlace::Sqlite(None)), journal_place)?,
        store: store_place(given)?,
        snapshots: given.snapshots.as_deref().map(snapshot_place).transpose()?,
        master_key: given.master_key_file.as_deref().map(master_key).transpose()?,
    })
}

fn journal_place(url: &str) -> Result<JournalPlace, ConfigError> {
    if let Some(file) = url.strip_prefix("sqlite:").filter(|file| !file.is_empty()) {
        return Ok(JournalPlace::Sqlite(Some(file.into())));
    }
    #[cfg(feature = "kafka")]
    if url.starts_with("kafka:") {
        let settings = crate::journal::KafkaSettings::parse(url);
        return settings
            .map(JournalPlace::Kafka)
            .map_err(|error| ConfigError::Value { name: "journal", detail: error.to_string() });
    }
    let detail = format!("{} is neither sqlite:FILE nor kafka://HOST:PORT", scheme(url));
    Err(ConfigError::Value { name: "journal", detail })
}

/// The beginning of a URL, which is all that an error repeats of it: there may be a password in the rest.
fn scheme(url: &str) -> String {
    let end = url.find(':').map_or(0, |at| at + 1);
    format!("{:?}", format!("{}…", url.get(..end).unwrap_or_default()))
}

fn store_place(given: &PlacesGiven) -> Result<StorePlace, ConfigError> {
    let place = given.store.as_deref().map_or(Ok(StorePlace::Sqlite(None)), store_url)?;
    match place {
        StorePlace::Sqlite(_) if given.retention.is_some() || given.archive => {
            let name = if given.archive { "archive" } else { "retention" };
            Err(ConfigError::Value { name, detail: "needs a --store in ClickHouse".to_owned() })
        }
        StorePlace::Sqlite(file) => Ok(StorePlace::Sqlite(file)),
        #[cfg(feature = "clickhouse")]
        StorePlace::ClickHouse(mut place) => {
            let value = |detail| ConfigError::Value { name: "retention", detail };
            let retention = given.retention.as_deref().map(crate::store::Retention::parse).transpose();
            place.settings.retention = retention.map_err(value)?.unwrap_or_default();
            place.settings.archive = given.archive;
            Ok(StorePlace::ClickHouse(place))
        }
    }
}

fn store_url(url: &str) -> Result<StorePlace, ConfigError> {
    if let Some(file) = url.strip_prefix("sqlite:").filter(|file| !file.is_empty()) {
        return Ok(StorePlace::Sqlite(Some(file.into())));
    }
    #[cfg(feature = "clickhouse")]
    if url.starts_with("clickhouse+") {
        return Ok(StorePlace::ClickHouse(ClickHousePlace { address: url.to_owned(), settings: Default::default() }));
    }
    let detail = format!("{} is neither sqlite:FILE nor clickhouse+http://HOST:8123/DATABASE", scheme(url));
    Err(ConfigError::Value { name: "store", detail })
}

fn snapshot_place(text: &str) -> Result<SnapshotPlace, ConfigError> {
    SnapshotPlace::parse(text).map_err(|detail| ConfigError::Value { name: "snapshots", detail })
}

fn master_key(path: &Path) -> Result<MasterKey, ConfigError> {
    let value = |detail| ConfigError::Value { name: "master_key_file", detail };
    let bytes = std::fs::read(path).map_err(|error| value(format!("read {}: {error}", path.display())))?;
    crate::folder::remark_readable(path);
    let key = crate::folder::key_of(&bytes);
    key.map(MasterKey).ok_or_else(|| value(format!("{} holds no 64 hexadecimal digits", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_repeats_no_password() {
        for (name, wrong) in [
            ("journal", journal_place("kafak://me:secret@h:1").err()),
            ("store", store_url("clickhouse://me:secret@h/d").err()),
        ] {
            let said = wrong.unwrap().to_string();
            assert!(said.contains(name) && !said.contains("secret"), "{said}");
        }
    }
}
