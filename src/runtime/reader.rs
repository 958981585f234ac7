//! The data of a node, opened beside whoever writes it: nothing is locked, made or changed.

use super::control::ControlPlane;
use super::copies::Copies;
#[cfg(feature = "kafka")]
use super::data::JournalPlace;
use super::data::{EMBEDDED_PARTITIONS, Places, StartError, StorePlace, check_known_key, is_empty};
use crate::domain::id::{Log, PartitionId, Position};
use crate::folder::{DataFolder, FolderError, HeldFile};
use crate::journal::{Journal, SqliteJournal};
use crate::snapshot::Snapshots;
use crate::store::{Progress, SqliteStore, Store, StoreError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Data that is only read. What is in files is as it was at one moment: the store first, then the journal, which therefore
/// has every record that the store's rows follow from.
#[derive(Debug)]
pub struct DataReader {
    folder: DataFolder,
    /// The logs, up to where they ended when they were opened.
    pub journal: Journal,
    /// The read models; nothing where there is no file, or one that holds nothing.
    pub store: Option<Store>,
    /// How far the rows of each log reach.
    pub stored: BTreeMap<PartitionId, Progress>,
    /// The snapshots.
    pub snapshots: Snapshots,
    /// The control plane, folded.
    pub control: ControlPlane,
}

impl DataReader {
    /// Opens what is there.
    ///
    /// # Errors
    /// Where the journal ends before the store or a snapshot, something is damaged, the master key is missing or another
    /// one, or a service does not answer.
    pub async fn open(places: &Places) -> Result<Self, StartError> {
        let folder = DataFolder::beside(&places.folder)?;
        let store = open_store(places).await?;
        let stored = match &store {
            Some(store) => store.progress_all().await?,
            None => BTreeMap::new(),
        };
        let snapshots = Snapshots::open_to_read(&places.snapshot_place())?;
        let copies = Copies::find(&snapshots, EMBEDDED_PARTITIONS, &stored).await?;
        let journal = match places.journal_file() {
            // Where the file is gone, all that it had is missing.
            Some(file) if !file.is_file() => {
                copies.check(|_| Ok::<_, StartError>(Position::START))?;
                Journal::Memory(crate::journal::MemoryJournal::new(EMBEDDED_PARTITIONS))
            }
            Some(file) => Journal::Sqlite(SqliteJournal::open_to_read(&file, EMBEDDED_PARTITIONS)?),
            None => open_brokers(places).await?,
        };
        let copies = match journal.is_shared() {
            true => Copies::find(&snapshots, journal.partitions(), &stored).await?,
            false => copies,
        };
        let asked = journal.clone();
        let checked =
            tokio::task::spawn_blocking(move || copies.check(|log| asked.end_now(log).map_err(StartError::End)));
        checked.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        let control = ControlPlane::open_from(snapshots.clone(), journal.clone()).await?;
        check_known_key(places, &folder, &control)?;
        let reader = Self { folder, journal, store, stored, snapshots, control };
        reader.check_mark().await?;
        Ok(reader)
    }

    /// Makes sure that the snapshots are those which the nodes of a cluster share.
    async fn check_mark(&self) -> Result<(), StartError> {
        let known = self.control.state().snapshot_mark().map(String::from);
        if known.is_none() || self.snapshots.mark().await? == known { Ok(()) } else { Err(StartError::OtherSnapshots) }
    }

    /// Reports whether nothing was ever recorded.
    pub fn is_empty(&self) -> bool {
        is_empty(&self.journal)
    }

    /// The key of the event fingerprints.
    pub fn fingerprint_key(&self) -> [u8; 16] {
        self.control.state().fingerprint_key().unwrap_or_default()
    }

    /// How many records of a log stand behind what is stored of it.
    pub fn unstored(&self, log: Log) -> u64 {
        let stored = self.stored.get(&log.rows()).map_or(Position::START, |progress| progress.position);
        self.journal.end(log).0.saturating_sub(stored.0)
    }

    /// Makes an empty file for a store to compare with.
    ///
    /// # Errors
    /// Where another process compares in this directory, or the operating system refuses.
    pub fn hold_scratch(&mut self) -> Result<PathBuf, FolderError> {
        self.folder.hold_scratch()
    }
}

#[cfg(feature = "kafka")]
async fn open_brokers(places: &Places) -> Result<Journal, StartError> {
    match &places.journal {
        JournalPlace::Kafka(settings) => {
            Ok(Journal::Kafka(crate::journal::KafkaJournal::open(settings.clone()).await?))
        }
        JournalPlace::Sqlite(_) => Ok(Journal::Memory(crate::journal::MemoryJournal::new(EMBEDDED_PARTITIONS))),
    }
}

#[cfg(not(feature = "kafka"))]
async fn open_brokers(_places: &Places) -> Result<Journal, StartError> {
    Ok(Journal::Memory(crate::journal::MemoryJournal::new(EMBEDDED_PARTITIONS)))
}

async fn open_store(places: &Places) -> Result<Option<Store>, StartError> {
    match &places.store {
        StorePlace::Sqlite(_) => {
            let Some(file) = places.store_file().filter(|file| file.is_file()) else { return Ok(None) };
            bring_up_to_date(&file)?;
            Ok(SqliteStore::open_to_read(&file)?.map(Store::Sqlite))
        }
        #[cfg(feature = "clickhouse")]
        StorePlace::ClickHouse(place) => {
            let place = place.clone();
            let opened = tokio::task::spawn_blocking(move || place.open()).await;
            Ok(Some(Store::ClickHouse(opened.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?)))
        }
    }
}

/// Gives a store that an earlier release made, and that nobody writes, the tables of this one.
fn bring_up_to_date(file: &Path) -> Result<(), StartError> {
    let is_blank = SqliteStore::open_to_read(file)?.is_none();
    if is_blank {
        return Ok(());
    }
    let Some(held) = HeldFile::take_free(file)? else { return Ok(()) };
    let updated = SqliteStore::open(file).map(drop);
    // SQLite has closed the file before its lock is given back.
    drop(held);
    match updated {
        // A file that may only be read is compared as it is.
        Ok(()) | Err(StoreError::Storage { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
