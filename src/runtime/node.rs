//! A node: its data opened, its state restored, its loops running.

use super::clock;
use super::control::{Asking, ControlPlane, FoldError as ControlFoldError, SubmitError};
use super::dispatcher::{self, Dispatch, Means, Tally};
use super::ingest::Ingest;
use super::partitions::{self, Partitions, TakeError};
use super::snapshotter;
use super::timekeeper;
use crate::domain::control::command::{Command, Settings};
use crate::domain::id::{Log, Mode, PartitionId, Position, Tenant, WorkspaceId};
use crate::folder::{DataFolder, FolderError};
use crate::journal::{Journal, OpenError, SqliteJournal};
use crate::notifier::{Guard, Notifier, NotifierError};
use crate::snapshot::{SnapshotError, Snapshots};
use crate::store::{Progress, SqliteStore, Store, StoreError};
use crate::vault::Vault;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How many partitions embedded data has.
pub const EMBEDDED_PARTITIONS: u32 = 4;

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
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// The opened data.
    pub data: Data,
    /// The way in for events.
    pub ingest: Ingest,
    /// What sends.
    pub notifier: Notifier,
    /// What is folded here.
    pub partitions: Partitions,
    /// What the dispatcher counted.
    pub tally: Arc<Tally>,
    stop: watch::Sender<bool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// What a node does beside folding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Serves: sends notifications, ticks, takes snapshots.
    Serve,
    /// Imports: notifications stay owed until a serving node sends them.
    Import,
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
    #[error("the master key is not the one that this data was made with; put the right master.key back")]
    MasterKey,
    /// A partition cannot be folded.
    #[error(transparent)]
    Take(#[from] TakeError),
}

impl Logs {
    /// Opens the logs of embedded data, made where there are none.
    ///
    /// # Errors
    /// Where the folder is in use, or a log is damaged.
    pub fn open(path: &Path) -> Result<Self, StartError> {
        let folder = DataFolder::open(path)?;
        let journal = Journal::Sqlite(SqliteJournal::open(&folder.journal(), EMBEDDED_PARTITIONS, clock::now)?);
        let control = ControlPlane::open(journal.clone())?;
        Ok(Self { folder, journal, control })
    }

    /// The key of the event fingerprints.
    pub fn fingerprint_key(&self) -> [u8; 16] {
        self.control.state().fingerprint_key().unwrap_or_default()
    }
}

impl Data {
    /// Opens embedded data, made where there is none.
    ///
    /// # Errors
    /// Where any part of it cannot be used; nothing is changed then.
    pub async fn open(path: &Path) -> Result<Self, StartError> {
        let Logs { folder, journal, control } = Logs::open(path)?;
        let store = Store::Sqlite(SqliteStore::open(&folder.store())?);
        let snapshots = Snapshots::local(&folder.snapshots())?;
        let vault = Arc::new(Vault::new(folder.master_key(clock::random())?));
        let data = Self { folder, journal, store, snapshots, control, vault };
        data.set_up().await?;
        Ok(data)
    }

    /// The folder that holds the data.
    pub const fn folder(&self) -> &DataFolder {
        &self.folder
    }

    async fn set_up(&self) -> Result<(), StartError> {
        let known = self.control.state().master_key_check().map(String::from);
        if let Some(check) = known {
            return if self.vault.verify_check(&check) { Ok(()) } else { Err(StartError::MasterKey) };
        }
        let command = Command::Initialise {
            fingerprint_key: clock::random(),
            partitions: self.journal.partitions(),
            settings: Settings::default(),
            master_key_check: self.vault.check_value().to_owned(),
        };
        let nobody = Tenant { workspace: WorkspaceId(0), mode: Mode::Live };
        self.control.submit(Asking::by_command_line(nobody), command).await?;
        Ok(())
    }

    /// The key of the event fingerprints.
    pub fn fingerprint_key(&self) -> [u8; 16] {
        self.control.state().fingerprint_key().unwrap_or_default()
    }
}

impl Asking {
    /// Asks as the command line does: no key, no version, no repetition.
    pub fn by_command_line(tenant: Tenant) -> Self {
        let request_id = format!("req_{}", ulid::Ulid(clock::ulid()));
        Self { tenant, actor: None, request_id, if_match: None, idempotency: None }
    }
}

impl Node {
    /// Starts everything.
    ///
    /// # Errors
    /// Where a part cannot be restored or started.
    pub async fn start(data: Data, guard: Guard, base_url: &str, duty: Duty) -> Result<Self, StartError> {
        let notifier = Notifier::new(guard, base_url)?;
        let (stop, stopped) = watch::channel(false);
        let (dispatch, inbox) = mpsc::unbounded_channel::<Dispatch>();
        let tally = Arc::new(Tally::default());
        let partitions = Partitions::new(partitions::Means {
            journal: data.journal.clone(),
            store: data.store.clone(),
            snapshots: data.snapshots.clone(),
            fingerprint_key: data.fingerprint_key(),
            dispatch: (duty == Duty::Serve).then_some(dispatch),
        });
        for partition in (0..data.journal.partitions()).map(PartitionId) {
            partitions.take(partition).await?;
        }
        let (journal, control) = (data.journal.clone(), data.control.clone());
        let keeping = timekeeper::run(journal, control, partitions.clone(), stopped.clone());
        let mut tasks = vec![tokio::spawn(keeping)];
        if duty == Duty::Serve {
            let means = Means {
                journal: data.journal.clone(),
                control: data.control.clone(),
                store: data.store.clone(),
                notifier: notifier.clone(),
                vault: Arc::clone(&data.vault),
            };
            tasks.push(tokio::spawn(dispatcher::run(means, inbox, stopped.clone(), Arc::clone(&tally))));
            let (snapshots, store) = (data.snapshots.clone(), data.store.clone());
            tasks.push(tokio::spawn(snapshotter::run(partitions.clone(), snapshots, store, stopped)));
        }
        let ingest = Ingest::new(data.journal.clone(), data.control.clone());
        Ok(Self { data, ingest, notifier, partitions, tally, stop, tasks })
    }

    /// Waits until everything that the journal holds now is folded and stored, for at most `patience`.
    pub async fn settle(&self, patience: Duration) -> bool {
        let ends: Vec<_> = self
            .partitions
            .held()
            .iter()
            .map(|held| held.processor.partition)
            .map(|partition| (partition, self.data.journal.end(Log::Partition(partition))))
            .collect();
        let all = async {
            for (partition, end) in ends {
                self.data.store.wait_for(partition, end).await;
            }
        };
        tokio::time::timeout(patience, all).await.is_ok()
    }

    /// Tells whether a fold has stopped for good.
    pub fn has_failed(&self) -> bool {
        self.partitions.has_failed()
    }

    /// Stops in order: nothing new, attempts under way end, folds stop, the store is written, a last snapshot is taken.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        for task in self.tasks.drain(..) {
            if let Err(error) = task.await {
                tracing::error!(error = %error, "a task ended badly");
            }
        }
        self.partitions.end_all().await;
    }

    /// How far a partition's rows reach.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn progress(&self, partition: PartitionId) -> Result<Progress, StoreError> {
        let progress = self.data.store.progress(partition).await?;
        Ok(progress.unwrap_or(Progress { position: Position::START, clock: crate::domain::time::Timestamp(0) }))
    }
}
