//! The data of a node: where its parts are, and how they are opened together.

use super::clock;
use super::control::{Asking, ControlPlane, FoldError as ControlFoldError, SubmitError};
use super::ownership::OwnershipError;
use crate::domain::control::command::{Command, Settings};
use crate::domain::control::keeper::Keeper;
use crate::domain::id::{Mode, Tenant, WorkspaceId};
use crate::folder::{DataFolder, FolderError};
use crate::journal::{Journal, OpenError, SqliteJournal};
use crate::notifier::NotifierError;
use crate::snapshot::{SnapshotError, SnapshotPlace, Snapshots};
use crate::store::{SqliteStore, Store, StoreError};
use crate::vault::Vault;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How many partitions embedded data has.
pub const EMBEDDED_PARTITIONS: u32 = 4;

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
    fn open_snapshots(&self, folder: &DataFolder) -> Result<Snapshots, SnapshotError> {
        let own = || SnapshotPlace::Folder(folder.snapshots());
        Snapshots::open(&self.snapshots.clone().unwrap_or_else(own))
    }
}

/// The opened logs of a data folder, with the control plane folded: all that a refold needs.
#[derive(Debug)]
pub struct Logs {
    /// The folder, locked.
    pub folder: DataFolder,
    /// The logs.
    pub journal: Journal,
    /// The control plane, folded.
    pub control: ControlPlane,
}

/// Opened data: nothing runs yet.
#[derive(Debug)]
pub struct Data {
    folder: DataFolder,
    /// The logs.
    pub journal: Journal,
    /// The read models.
    pub store: Store,
    /// The snapshots.
    pub snapshots: Snapshots,
    /// The control plane, folded.
    pub control: ControlPlane,
    /// What seals secrets.
    pub vault: Arc<Vault>,
    /// The engine version that the logs are asked for at most; absent: what this release folds.
    pub engine_version: Option<u32>,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The journal cannot be opened.
    #[error("open the journal")]
    Journal(#[from] OpenError),
    /// The store cannot be opened.
    #[error("open the store")]
    Store(#[from] StoreError),
    /// The snapshots cannot be used.
    #[error("use the snapshots")]
    Snapshots(#[from] SnapshotError),
    /// The control log cannot be folded.
    #[error(transparent)]
    Control(#[from] ControlFoldError),
    /// The data could not be set up.
    #[error("set up the data")]
    SetUp(#[from] SubmitError),
    /// The notifier cannot be made.
    #[error(transparent)]
    Notifier(#[from] NotifierError),
    /// The master key is not the one that the data was made with.
    #[error("the master key is not the one that this data was made with; put the right one back")]
    MasterKey,
    /// Nodes that share data cannot each make a key of their own.
    #[error("a cluster needs one master key for all of its nodes: give --master-key-file")]
    NoMasterKey,
    /// The snapshots are not those of the other nodes.
    #[error(
        "the snapshots are not those that the other nodes of this cluster share: give all the same --snapshots; \
         where those are lost, `highwater replay` begins new ones"
    )]
    OtherSnapshots,
    /// The rows are kept elsewhere.
    #[error(
        "{known} keeps the rows of this journal, and this node would leave them to {own}: nodes of one journal share one \
         --store clickhouse+http://…; to move the rows to this node's store, run `highwater replay` with these arguments"
    )]
    OtherKeeper {
        /// Who does.
        known: Keeper,
        /// Who would.
        own: Keeper,
    },
    /// The intake cannot be read.
    #[cfg(feature = "kafka")]
    #[error(transparent)]
    Intake(#[from] super::intake::IntakeError),
    /// The partitions cannot be folded.
    #[error(transparent)]
    Ownership(#[from] OwnershipError),
}

impl Logs {
    /// Opens the logs, made where there are none, and folds the whole control log.
    ///
    /// # Errors
    /// Where the folder is in use, a log is damaged, or the brokers do not answer.
    pub async fn open(places: &Places) -> Result<Self, StartError> {
        let mut folder = DataFolder::open(&places.folder)?;
        let journal = open_journal(places, &mut folder).await?;
        let control = {
            let journal = journal.clone();
            let opened = tokio::task::spawn_blocking(move || ControlPlane::open(journal)).await;
            opened.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?
        };
        Ok(Self { folder, journal, control })
    }

    /// The key of the event fingerprints.
    pub fn fingerprint_key(&self) -> [u8; 16] {
        self.control.state().fingerprint_key().unwrap_or_default()
    }
}

impl Data {
    /// Opens the data, made where there is none.
    ///
    /// # Errors
    /// Where any part of it cannot be used; nothing is changed then.
    pub async fn open(places: &Places) -> Result<Self, StartError> {
        let mut folder = DataFolder::open(&places.folder)?;
        let journal = open_journal(places, &mut folder).await?;
        let snapshots = places.open_snapshots(&folder)?;
        let control = ControlPlane::open_from(snapshots.clone(), journal.clone()).await?;
        let store = match &places.store {
            StorePlace::Sqlite(path) => {
                path.as_deref().map_or(Ok(()), |path| folder.hold(path))?;
                Store::Sqlite(SqliteStore::open(&path.clone().unwrap_or_else(|| folder.store()))?)
            }
            #[cfg(feature = "clickhouse")]
            StorePlace::ClickHouse(place) => {
                let place = place.clone();
                let opened = tokio::task::spawn_blocking(move || place.open()).await;
                Store::ClickHouse(opened.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?)
            }
        };
        let key = match places.master_key {
            Some(MasterKey(key)) => key,
            None if places.is_shared() => return Err(StartError::NoMasterKey),
            None => folder.master_key(clock::random())?,
        };
        let vault = Arc::new(Vault::new(key));
        let data = Self { folder, journal, store, snapshots, control, vault, engine_version: None };
        data.set_up().await?;
        if places.is_shared() {
            data.check_snapshots().await?;
        }
        Ok(data)
    }

    /// Asks the logs for an engine version at most.
    #[must_use]
    pub fn held_back_to(self, engine_version: Option<u32>) -> Self {
        Self { engine_version, ..self }
    }

    /// The folder that holds the data.
    pub const fn folder(&self) -> &DataFolder {
        &self.folder
    }

    async fn set_up(&self) -> Result<(), StartError> {
        if self.control.state().master_key_check().is_none() {
            let command = Command::Initialise {
                fingerprint_key: clock::random(),
                partitions: self.journal.partitions(),
                settings: Settings::default(),
                master_key_check: self.vault.check_value().to_owned(),
            };
            // Another node may do the same at this moment; the first of the two commands counts.
            self.control.submit(Asking::by_command_line(NOBODY), command).await?;
        }
        let known = self.control.state().master_key_check().map(String::from).unwrap_or_default();
        if self.vault.verify_check(&known) { Ok(()) } else { Err(StartError::MasterKey) }
    }

    /// Makes sure that the folds' rows go where those of the other nodes go. A node that keeps them in a store of its own is
    /// the only one of its journal: another one would never see them.
    ///
    /// # Errors
    /// Where another node keeps them, or the nodes share a store and this one has its own.
    pub(super) async fn keep_rows(&self) -> Result<Option<Keeper>, StartError> {
        if !self.journal.is_shared() {
            return Ok(None);
        }
        let own = keeper(&self.store, &self.folder)?;
        if self.control.state().keeper().is_none() {
            let command = Command::KeepRows { keeper: own.clone(), takes_over: false };
            // Another node may do the same at this moment; the first of the two commands counts.
            self.control.submit(Asking::by_command_line(NOBODY), command).await?;
        }
        match self.control.state().keeper() {
            Some(known) if *known != own => Err(StartError::OtherKeeper { known: known.clone(), own }),
            Some(_) | None => Ok(Some(own)),
        }
    }

    /// Makes sure that the snapshots are where the other nodes keep them: a mark in the folder is the one in the log.
    async fn check_snapshots(&self) -> Result<(), StartError> {
        let found = self.snapshots.mark().await?;
        let known = self.control.state().snapshot_mark().map(String::from);
        if let Some(known) = known {
            return if found == Some(known) { Ok(()) } else { Err(StartError::OtherSnapshots) };
        }
        let mark = match found {
            Some(mark) => mark,
            None => self.snapshots.set_mark(&ulid::Ulid(clock::ulid()).to_string()).await?,
        };
        self.control
            .submit(Asking::by_command_line(NOBODY), Command::ShareSnapshots { mark: mark.clone(), takes_over: false })
            .await?;
        let known = self.control.state().snapshot_mark().map(String::from);
        if known == Some(mark) { Ok(()) } else { Err(StartError::OtherSnapshots) }
    }

    /// The key of the event fingerprints.
    pub fn fingerprint_key(&self) -> [u8; 16] {
        self.control.state().fingerprint_key().unwrap_or_default()
    }
}

async fn open_journal(places: &Places, folder: &mut DataFolder) -> Result<Journal, StartError> {
    match &places.journal {
        JournalPlace::Sqlite(path) => {
            path.as_deref().map_or(Ok(()), |path| folder.hold(path))?;
            let path = path.clone().unwrap_or_else(|| folder.journal());
            Ok(Journal::Sqlite(SqliteJournal::open(&path, EMBEDDED_PARTITIONS, clock::now)?))
        }
        #[cfg(feature = "kafka")]
        JournalPlace::Kafka(settings) => {
            Ok(Journal::Kafka(crate::journal::KafkaJournal::open(settings.clone()).await?))
        }
    }
}

/// Who keeps the rows of a node with this store.
fn keeper(store: &Store, folder: &DataFolder) -> Result<Keeper, FolderError> {
    match store {
        Store::Sqlite(_) => Ok(Keeper::Node(folder.id(clock::ulid())?)),
        #[cfg(feature = "clickhouse")]
        Store::ClickHouse(_) => Ok(Keeper::Shared),
    }
}

/// Makes a store that was just filled the one that keeps the rows, and these snapshots the ones that nodes share, whoever
/// and whichever it was before: a node with others ends.
///
/// # Errors
/// Where the snapshots do not answer, or the journal does not take it.
pub async fn take_over(logs: &Logs, places: &Places, store: &Store) -> Result<(), StartError> {
    if !logs.journal.is_shared() {
        return Ok(());
    }
    let snapshots = places.open_snapshots(&logs.folder)?;
    let mark = snapshots.set_mark(&ulid::Ulid(clock::ulid()).to_string()).await?;
    let taken = Command::ShareSnapshots { mark, takes_over: true };
    logs.control.submit(Asking::by_command_line(NOBODY), taken).await?;
    let taken = Command::KeepRows { keeper: keeper(store, &logs.folder)?, takes_over: true };
    logs.control.submit(Asking::by_command_line(NOBODY), taken).await?;
    Ok(())
}

/// What belongs to everybody is asked for in the name of nobody.
const NOBODY: Tenant = Tenant { workspace: WorkspaceId(0), mode: Mode::Live };

impl Asking {
    /// Asks as the command line does: no key, no version, no repetition.
    pub fn by_command_line(tenant: Tenant) -> Self {
        let request_id = format!("req_{}", ulid::Ulid(clock::ulid()));
        Self { tenant, actor: None, request_id, if_match: None, idempotency: None, ip: None }
    }
}
