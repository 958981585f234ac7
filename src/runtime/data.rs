//! The data of a node: where its parts are, and how they are opened together.

use super::clock::{self, Deadline};
use super::control::{Asking, ControlPlane, FoldError as ControlFoldError, SubmitError};
use super::copies::Copies;
pub use super::copies::JournalBehind;
use super::ownership::OwnershipError;
#[cfg(feature = "clickhouse")]
pub use super::places::ClickHousePlace;
pub use super::places::{JournalPlace, MasterKey, Places, StorePlace};
use crate::domain::control::command::{Command, Settings};
use crate::domain::control::keeper::Keeper;
use crate::domain::id::{Log, Mode, PartitionId, Position, Tenant, WorkspaceId};
use crate::domain::limits::FILES_CLOSE_TIMEOUT;
use crate::folder::{DataFolder, FolderError};
use crate::journal::{Journal, OpenError, ReadError, SqliteJournal};
use crate::notifier::NotifierError;
use crate::snapshot::{SnapshotError, Snapshots};
use crate::store::{Progress, SqliteStore, Store, StoreError};
use crate::vault::Vault;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How many partitions embedded data has.
pub const EMBEDDED_PARTITIONS: u32 = 4;

/// The opened logs of a data folder, with the control plane folded: all that a refold needs.
#[derive(Debug)]
pub struct Logs {
    /// The logs.
    pub journal: Journal,
    /// The control plane, folded.
    pub control: ControlPlane,
    // Last, as in `Data`.
    /// The folder, locked.
    pub folder: DataFolder,
}

/// Opened data: nothing runs yet.
#[derive(Debug)]
pub struct Data {
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
    // Last: its locks are held until everything else is closed.
    folder: DataFolder,
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
    /// The journal is not the newest one.
    #[error(transparent)]
    JournalBehind(#[from] JournalBehind),
    /// The journal does not say where it ends.
    #[error("find the end of the journal")]
    End(#[from] ReadError),
    /// The master key is gone.
    #[error(
        "{} is missing: this data was made with a master key, and none other opens what it sealed; put it back, or name it \
         with --master-key-file", path.display()
    )]
    LostMasterKey {
        /// Where it should be.
        path: PathBuf,
    },
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
    /// Opens the logs to make everything else anew, and folds the whole control log.
    ///
    /// # Errors
    /// Where the folder is in use, a log is damaged or ends before the old store or a snapshot, the master key is missing or
    /// another one, or the brokers do not answer.
    pub async fn open(places: &Places) -> Result<Self, StartError> {
        let mut folder = DataFolder::open(&places.folder)?;
        places.hold_existing(&mut folder)?;
        let snapshots = Snapshots::open_to_read(&places.snapshot_place())?;
        // The old store may be what is broken; what can be read of it still tells whether the journal is the newest one.
        let stored = places.stored().await.unwrap_or_else(|error| {
            tracing::warn!(error = %crate::telemetry::chain(&error), "the old store cannot be read, and is made anew");
            BTreeMap::new()
        });
        let journal = open_journal(places, &mut folder, &snapshots, &stored).await?;
        let copies = Copies::find(&snapshots, journal.partitions(), &stored).await?;
        let control = {
            let journal = journal.clone();
            let opened = tokio::task::spawn_blocking(move || {
                copies.check(|log| journal.end_now(log).map_err(StartError::End))?;
                Ok::<_, StartError>(ControlPlane::open(journal.clone())?)
            })
            .await;
            opened.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?
        };
        check_known_key(places, &folder, &control)?;
        Ok(Self { journal, control, folder })
    }

    /// The key of the event fingerprints.
    pub fn fingerprint_key(&self) -> [u8; 16] {
        self.control.state().fingerprint_key().unwrap_or_default()
    }

    /// Reports whether nothing was ever recorded.
    pub fn is_empty(&self) -> bool {
        is_empty(&self.journal)
    }
}

/// Reports whether a journal has no record at all.
pub(super) fn is_empty(journal: &Journal) -> bool {
    let partitions = (0..journal.partitions()).map(|number| Log::Partition(PartitionId(number)));
    partitions.chain([Log::Control]).all(|log| journal.end(log) == Position::START)
}

impl Data {
    /// Opens the data, made where there is none.
    ///
    /// # Errors
    /// Where any part of it cannot be used; nothing is changed then.
    pub async fn open(places: &Places) -> Result<Self, StartError> {
        let mut folder = DataFolder::open(&places.folder)?;
        places.hold_existing(&mut folder)?;
        let snapshots = Snapshots::open(&places.snapshot_place())?;
        let stored = if places.is_shared() { BTreeMap::new() } else { places.stored().await? };
        let journal = open_journal(places, &mut folder, &snapshots, &stored).await?;
        let control = ControlPlane::open_from(snapshots.clone(), journal.clone()).await?;
        let vault = Arc::new(Vault::new(master_key(places, &folder, &control)?));
        check_key(&control, &vault)?;
        let store = match places.store_file() {
            Some(file) => {
                folder.hold(&file)?;
                Store::Sqlite(SqliteStore::open(&file)?)
            }
            None => open_server(places).await?,
        };
        let data = Self { journal, store, snapshots, control, vault, engine_version: None, folder };
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

    /// Closes what is in files of this process, in order: everything is in them, and nothing in a WAL. Who still uses the
    /// disk is not waited for beyond the deadline and a moment.
    pub async fn close_by(&self, deadline: Deadline) {
        let (journal, store) = (self.journal.clone(), self.store.clone());
        let closed = tokio::task::spawn_blocking(move || {
            journal.close();
            store.close();
        });
        let patience = Duration::from_millis(u64::try_from(FILES_CLOSE_TIMEOUT.0).unwrap_or(0));
        match tokio::time::timeout(deadline.remaining() + patience, closed).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(error = %error, "the data could not be closed in order"),
            Err(_) => tracing::warn!("the data could not be closed in time: copy the -wal files, too"),
        }
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
        check_key(&self.control, &self.vault)
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

/// Opens the journal to append to it. One that would be older than its copies is not even made, nor
/// begun in an empty file.
async fn open_journal(
    places: &Places,
    folder: &mut DataFolder,
    snapshots: &Snapshots,
    stored: &BTreeMap<PartitionId, Progress>,
) -> Result<Journal, StartError> {
    match &places.journal {
        JournalPlace::Sqlite(_) => {
            let path = places.journal_file().unwrap_or_else(|| folder.journal());
            let copies = Copies::find(snapshots, EMBEDDED_PARTITIONS, stored).await?;
            if SqliteJournal::is_absent(&path) {
                copies.check(|_| Ok::<_, StartError>(Position::START))?;
            }
            folder.hold(&path)?;
            let journal = Journal::Sqlite(SqliteJournal::open(&path, EMBEDDED_PARTITIONS, clock::now)?);
            copies.check(|log| Ok::<_, StartError>(journal.end(log)))?;
            Ok(journal)
        }
        #[cfg(feature = "kafka")]
        JournalPlace::Kafka(settings) => {
            Ok(Journal::Kafka(crate::journal::KafkaJournal::open(settings.clone()).await?))
        }
    }
}

/// Opens the store that is not in a file.
async fn open_server(places: &Places) -> Result<Store, StoreError> {
    match &places.store {
        StorePlace::Sqlite(_) => Err(StoreError::Address { detail: "it is a file".to_owned() }),
        #[cfg(feature = "clickhouse")]
        StorePlace::ClickHouse(place) => {
            let place = place.clone();
            let opened = tokio::task::spawn_blocking(move || place.open()).await;
            Ok(Store::ClickHouse(opened.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?))
        }
    }
}

/// The master key that was given, or that of the folder. One is made only for data that has none yet.
fn master_key(places: &Places, folder: &DataFolder, control: &ControlPlane) -> Result<[u8; 32], StartError> {
    let known = known_key(places, folder, control)?;
    if known.is_some() && places.master_key.is_none() && control.state().master_key_check().is_none() {
        tracing::warn!(
            "the journal is empty, and a master key is there: if this is a copy of older data, its journal.db-wal is \
             missing, and nothing of that data is here"
        );
    }
    known.map_or_else(|| Ok(folder.master_key(clock::random())?), Ok)
}

/// The master key that was given, or that of the folder; nothing only where no data was made with one yet.
fn known_key(places: &Places, folder: &DataFolder, control: &ControlPlane) -> Result<Option<[u8; 32]>, StartError> {
    if let Some(MasterKey(key)) = places.master_key {
        return Ok(Some(key));
    }
    if places.is_shared() {
        return Err(StartError::NoMasterKey);
    }
    let known = folder.known_master_key()?;
    if known.is_none() && control.state().master_key_check().is_some() {
        return Err(StartError::LostMasterKey { path: folder.master_key_file() });
    }
    Ok(known)
}

/// Makes sure that the key of the data is there, for who seals and opens nothing: data without its key is not whole, and
/// with another one it is mixed of several.
pub(super) fn check_known_key(places: &Places, folder: &DataFolder, control: &ControlPlane) -> Result<(), StartError> {
    known_key(places, folder, control)?.map_or(Ok(()), |key| check_key(control, &Vault::new(key)))
}

/// Makes sure that data which was made with a key is opened with that one.
fn check_key(control: &ControlPlane, vault: &Vault) -> Result<(), StartError> {
    let known = control.state().master_key_check().map(String::from);
    if known.is_none_or(|known| vault.verify_check(&known)) { Ok(()) } else { Err(StartError::MasterKey) }
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
    let snapshots = Snapshots::open(&places.snapshot_place())?;
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
