//! The handle: a client, the threads that its connections live on, and what is known to be stored.

use super::address::Address;
use super::group::Group;
use super::retention::{self, Retention};
use super::write::Portion;
use super::{migrate, read, recompute, scan};
use crate::domain::id::{PartitionId, Position};
use crate::domain::partition::effect::Effects;
use crate::store::{Progress, RecomputeTerms, Recomputed, ScannedRow, StoreError};
use clickhouse::{Client, Compression};
use secrecy::ExposeSecret;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// How often the positions are read while something waits for another node's write, at first and at most.
const POLL_FIRST: Duration = Duration::from_millis(50);
const POLL_MOST: Duration = Duration::from_secs(1);

/// How the adapter behaves; every node of a cluster is given the same.
#[derive(Clone, Debug)]
pub struct ClickHouseSettings {
    /// How long rows are kept.
    pub retention: Retention,
    /// Whether every event that is counted is kept, too.
    pub archive: bool,
    /// How long a query may take.
    pub query_timeout: Duration,
    /// How long a block's insert may take.
    pub insert_timeout: Duration,
    /// How many rows a block holds at most.
    pub block_rows_max: usize,
    /// About how many bytes a block holds at most, uncompressed.
    pub block_bytes_max: usize,
}

impl Default for ClickHouseSettings {
    fn default() -> Self {
        Self {
            retention: Retention::default(),
            archive: false,
            query_timeout: Duration::from_secs(30),
            insert_timeout: Duration::from_secs(60),
            block_rows_max: 500_000,
            block_bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// Read models in a ClickHouse database; cheap to clone.
#[derive(Clone)]
pub struct ClickHouseStore {
    shared: Arc<Shared>,
}

struct Shared {
    address: Address,
    client: Client,
    settings: ClickHouseSettings,
    /// Connections live on threads of the store's own: whoever blocks on it may do so from any thread, also from one of
    /// a runtime. Taken when it is dropped.
    runtime: Option<Runtime>,
    progress: watch::Sender<BTreeMap<PartitionId, Position>>,
    polling: tokio::sync::Mutex<()>,
    group: Group,
}

impl ClickHouseStore {
    /// Opens a store, made where there is none; blocks.
    ///
    /// The address is `clickhouse+http(s)://[user:password@]host[:port]/database`.
    ///
    /// # Errors
    /// Where the address is none, the server does not answer or refuses, or the tables are of a later release.
    pub fn open(address: &str, settings: ClickHouseSettings) -> Result<Self, StoreError> {
        let address = Address::parse(address)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("store-clickhouse")
            .enable_all()
            .build()
            .map_err(storage)?;
        let mut client = Client::default()
            .with_url(&address.url)
            .with_compression(Compression::Lz4)
            .with_product_info("highwater", env!("CARGO_PKG_VERSION"));
        if let Some(user) = &address.user {
            client = client.with_user(user);
        }
        if let Some(password) = &address.password {
            client = client.with_password(password.expose_secret());
        }
        let shared = Shared {
            client: client.clone().with_database(&address.database),
            address,
            settings,
            runtime: Some(runtime),
            progress: watch::channel(BTreeMap::new()).0,
            polling: tokio::sync::Mutex::new(()),
            group: Group::default(),
        };
        let store = Self { shared: Arc::new(shared) };
        store.block(store.limited(migrate::migrate(&client, &store.shared.client, &store.shared.address.database)))?;
        store.block(store.limited(retention::retain(&store.shared.client, store.shared.settings.retention)))?;
        let positions = store.block(store.limited(read::progress(&store.shared.client)))?;
        store.learn(positions.into_iter().map(|(partition, progress)| (partition, progress.position)));
        Ok(store)
    }

    /// Writes rows, then the partition's position; blocks. After an error any of the rows may be in, the position is not
    /// or is: the same call again makes it whole.
    pub(in crate::store) fn write(
        &self,
        partition: PartitionId,
        effects: Arc<Effects>,
        up_to: Progress,
    ) -> Result<(), StoreError> {
        let (client, settings) = (&self.shared.client, &self.shared.settings);
        self.block(self.shared.group.write(client, settings, Portion { partition, up_to, effects }))?;
        self.learn([(partition, up_to.position)]);
        Ok(())
    }

    /// Resolves when a partition's rows reach a position: by this node's own write at once, by another node's soon.
    pub(in crate::store) async fn wait_for(&self, partition: PartitionId, position: Position) {
        let mut progress = self.shared.progress.subscribe();
        let reached = |positions: &BTreeMap<PartitionId, Position>| {
            position == Position::START || positions.get(&partition).is_some_and(|stored| *stored >= position)
        };
        let mut patience = POLL_FIRST;
        // The sender lives as long as this handle; what is left is that the time is up.
        while !matches!(tokio::time::timeout(patience, progress.wait_for(reached)).await, Ok(Ok(_))) {
            patience = (patience * 2).min(POLL_MOST);
            // One of all that wait reads; the others hear of it.
            let Ok(_alone) = self.shared.polling.try_lock() else { continue };
            match self.read(|client| async move { read::progress(&client).await }).await {
                Ok(stored) => {
                    self.learn(stored.into_iter().map(|(partition, progress)| (partition, progress.position)))
                }
                Err(error) => {
                    let cause = crate::telemetry::chain(&error);
                    tracing::debug!(error = %cause, "the store does not tell how far it reaches");
                }
            }
        }
    }

    /// Asks the server something.
    pub(in crate::store) async fn read<T, F>(&self, ask: impl FnOnce(Client) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let (asked, patience) = (ask(self.shared.client.clone()), self.shared.settings.query_timeout);
        let Some(runtime) = &self.shared.runtime else { return Err(StoreError::Closed) };
        let answer = runtime.spawn(async move { tokio::time::timeout(patience, asked).await }).await;
        answer.map_err(storage)?.unwrap_or_else(|_| Err(late(patience)))
    }

    pub(in crate::store) fn archives(&self) -> bool {
        self.shared.settings.archive
    }

    /// Makes every closed window anew; takes as long as it takes.
    pub(in crate::store) async fn recompute(&self, terms: RecomputeTerms) -> Result<Recomputed, StoreError> {
        let Some(runtime) = &self.shared.runtime else { return Err(StoreError::Closed) };
        let client = self.shared.client.clone();
        runtime.spawn(async move { recompute::recompute(&client, terms).await }).await.map_err(storage)?
    }

    /// Visits every row of every table but `positions`, by table and key; blocks.
    pub(in crate::store) fn scan(
        &self,
        visit: &mut dyn FnMut(ScannedRow) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let Some(runtime) = &self.shared.runtime else { return Err(StoreError::Closed) };
        let (client, handle) = (&self.shared.client, runtime.handle());
        std::thread::scope(|scope| {
            let (rows, scanned) = std::sync::mpsc::sync_channel(4);
            let reading = std::thread::Builder::new()
                .name("store-scan".to_owned())
                .spawn_scoped(scope, move || handle.block_on(scan::scan(client, &rows)))
                .map_err(storage)?;
            for row in scanned.iter().flatten() {
                if visit(row).is_break() {
                    break;
                }
            }
            // The reader ends when there is nobody to read for.
            drop(scanned);
            reading.join().map_err(|_| StoreError::Storage { detail: "the scan panicked".to_owned() })?
        })
    }

    /// Removes the database with all that is in it.
    #[cfg(test)]
    pub(in crate::store) fn drop_database(&self) -> Result<(), StoreError> {
        self.tell(&format!("DROP DATABASE `{}`", self.shared.address.database))
    }

    /// Runs a statement that answers nothing.
    #[cfg(test)]
    pub(in crate::store) fn tell(&self, sql: &str) -> Result<(), StoreError> {
        self.block(async { Ok(self.shared.client.query_raw(sql).execute().await?) })
    }

    /// Runs a query, and returns the texts that it answers.
    #[cfg(test)]
    pub(in crate::store) fn ask(&self, sql: &str) -> Result<Vec<String>, StoreError> {
        self.block(async { Ok(self.shared.client.query_raw(sql).fetch_all::<String>().await?) })
    }

    async fn limited<T>(&self, asked: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let patience = self.shared.settings.query_timeout;
        tokio::time::timeout(patience, asked).await.unwrap_or_else(|_| Err(late(patience)))
    }

    /// Runs something to its end, from whatever thread.
    fn block<T: Send>(&self, work: impl Future<Output = Result<T, StoreError>> + Send) -> Result<T, StoreError> {
        let Some(runtime) = &self.shared.runtime else { return Err(StoreError::Closed) };
        let handle = runtime.handle();
        // A thread that belongs to a runtime must not wait for another one; a fresh one may.
        std::thread::scope(|scope| {
            let working = std::thread::Builder::new()
                .name("store-call".to_owned())
                .spawn_scoped(scope, move || handle.block_on(work))
                .map_err(storage)?;
            working.join().map_err(|_| StoreError::Storage { detail: "the call panicked".to_owned() })?
        })
    }

    fn learn(&self, stored: impl IntoIterator<Item = (PartitionId, Position)>) {
        self.shared.progress.send_modify(|positions| {
            for (partition, position) in stored {
                let known = positions.entry(partition).or_default();
                *known = position.max(*known);
            }
        });
    }
}

impl fmt::Debug for ClickHouseStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClickHouseStore").field(&self.shared.address).finish()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // To wait for its threads is forbidden on a thread of another runtime, and there is nothing to wait for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn late(patience: Duration) -> StoreError {
    StoreError::Unreachable { detail: format!("no answer within {} s", patience.as_secs_f64()) }
}

fn storage(error: impl fmt::Display) -> StoreError {
    StoreError::Storage { detail: error.to_string() }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the crate's errors are open-ended")]
impl From<clickhouse::error::Error> for StoreError {
    fn from(error: clickhouse::error::Error) -> Self {
        use clickhouse::error::Error;
        let detail = crate::telemetry::chain(&error);
        match error {
            Error::BadResponse(text) => match exception_code(&text) {
                Some(code) => Self::Refused { code, detail: text },
                None => Self::Unreachable { detail: text },
            },
            Error::Network(_) | Error::TimedOut => Self::Unreachable { detail },
            // What the crate cannot read or write.
            _ => Self::Storage { detail },
        }
    }
}

/// Reads the number in `Code: 60. DB::Exception: …`.
fn exception_code(text: &str) -> Option<u32> {
    let digits = text.split_once("Code: ")?.1;
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clickhouse::error::Error;

    #[test]
    fn errors_tell_refusal_from_absence() {
        let refused = Error::BadResponse("Code: 60. DB::Exception: Unknown table x. (UNKNOWN_TABLE)".to_owned());
        assert!(matches!(StoreError::from(refused), StoreError::Refused { code: 60, .. }));
        let proxied = Error::BadResponse("502 Bad Gateway".to_owned());
        assert!(matches!(StoreError::from(proxied), StoreError::Unreachable { .. }));
        assert!(matches!(StoreError::from(Error::TimedOut), StoreError::Unreachable { .. }));
        assert!(matches!(StoreError::from(Error::NotEnoughData), StoreError::Storage { .. }));
    }

    #[test]
    fn a_server_that_is_not_there_is_unreachable() {
        let error = ClickHouseStore::open("clickhouse+http://127.0.0.1:1/usage", ClickHouseSettings::default());
        assert!(matches!(error, Err(StoreError::Unreachable { .. })), "{error:?}");
    }
}
