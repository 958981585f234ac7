//! Where the parts of the data are: files, brokers, servers. Nothing is opened here but what tells how far a store is.

use crate::domain::id::PartitionId;
use crate::folder::{DataFolder, FolderError};
use crate::snapshot::SnapshotPlace;
use crate::store::{Progress, SqliteStore, Store, StoreError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the parts of the data are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The folder of this process.
    pub folder: PathBuf,
    /// The logs.
    pub journal: JournalPlace,
    /// The read models.
    pub store: StorePlace,
    /// The snapshots; in the data folder where absent. Nodes that share a journal share them.
    pub snapshots: Option<SnapshotPlace>,
    /// The master key; in the data folder where absent, made there at first.
    pub master_key: Option<MasterKey>,
}

/// Where the logs are.
#[derive(Clone, Debug)]
pub enum JournalPlace {
    /// In a SQLite file; in the data folder where absent.
    Sqlite(Option<PathBuf>),
    /// In Kafka's topics.
    #[cfg(feature = "kafka")]
    Kafka(crate::journal::KafkaSettings),
}

/// Where the read models are.
#[derive(Clone, Debug)]
pub enum StorePlace {
    /// In a SQLite file; in the data folder where absent.
    Sqlite(Option<PathBuf>),
    /// In ClickHouse.
    #[cfg(feature = "clickhouse")]
    ClickHouse(ClickHousePlace),
}

/// A database of ClickHouse, and how it is used.
#[cfg(feature = "clickhouse")]
#[derive(Clone)]
pub struct ClickHousePlace {
    /// Such as `clickhouse+http://host:8123/database`; it may hold a password.
    pub address: String,
    /// How the adapter behaves.
    pub settings: crate::store::ClickHouseSettings,
}

#[cfg(feature = "clickhouse")]
impl ClickHousePlace {
    /// Opens the database, made where there is none; blocks.
    ///
    /// # Errors
    /// Where the server does not answer or refuses.
    pub fn open(&self) -> Result<crate::store::ClickHouseStore, StoreError> {
        crate::store::ClickHouseStore::open(&self.address, self.settings.clone())
    }
}

#[cfg(feature = "clickhouse")]
impl std::fmt::Debug for ClickHousePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClickHousePlace").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A master key; nothing prints it.
#[derive(Clone, Copy)]
pub struct MasterKey(pub [u8; 32]);

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey")
    }
}

impl Places {
    /// Everything in one folder.
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            journal: JournalPlace::Sqlite(None),
            store: StorePlace::Sqlite(None),
            snapshots: None,
            master_key: None,
        }
    }

    /// Tells whether the data is shared with other nodes.
    pub const fn is_shared(&self) -> bool {
        match &self.journal {
            JournalPlace::Sqlite(_) => false,
            #[cfg(feature = "kafka")]
            JournalPlace::Kafka(_) => true,
        }
    }
}

impl Places {
    /// The journal's file; none where brokers hold the logs.
    pub fn journal_file(&self) -> Option<PathBuf> {
        match &self.journal {
            JournalPlace::Sqlite(path) => Some(path.clone().unwrap_or_else(|| self.folder.join("journal.db"))),
            #[cfg(feature = "kafka")]
            JournalPlace::Kafka(_) => None,
        }
    }

    /// The store's file; none where a server holds the read models.
    pub fn store_file(&self) -> Option<PathBuf> {
        match &self.store {
            StorePlace::Sqlite(path) => Some(path.clone().unwrap_or_else(|| self.folder.join("store.db"))),
            #[cfg(feature = "clickhouse")]
            StorePlace::ClickHouse(_) => None,
        }
    }

    /// Where the snapshots are.
    pub fn snapshot_place(&self) -> SnapshotPlace {
        self.snapshots.clone().unwrap_or_else(|| SnapshotPlace::Folder(self.folder.join("snapshots")))
    }

    /// What errors call the journal.
    pub fn journal_name(&self) -> String {
        self.journal_file().map_or_else(|| "the journal".to_owned(), |file| format!("the journal {}", file.display()))
    }

    /// Locks the files that are there: whether somebody else writes them is known before anything is read.
    pub(super) fn hold_existing(&self, folder: &mut DataFolder) -> Result<(), FolderError> {
        [self.journal_file(), self.store_file()].into_iter().flatten().try_for_each(|file| folder.hold_existing(&file))
    }

    /// How far the rows of a store reach that is in a file.
    ///
    /// # Errors
    /// Where it is damaged.
    pub(super) async fn stored(&self) -> Result<BTreeMap<PartitionId, Progress>, StoreError> {
        let Some(file) = self.store_file().filter(|file| file.is_file()) else { return Ok(BTreeMap::new()) };
        match SqliteStore::open_to_read(&file)? {
            Some(store) => Store::Sqlite(store).progress_all().await,
            None => Ok(BTreeMap::new()),
        }
    }
}
