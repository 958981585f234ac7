//! `replay`: makes the store anew, and takes the place of whoever kept the rows before.

use super::DataArguments;
use super::exit::Code;
use super::terminal::{complain, grouped, say};
#[cfg(feature = "clickhouse")]
use crate::config::ConfigError;
use crate::folder::with_ending;
use crate::runtime::clock::Stopwatch;
#[cfg(feature = "clickhouse")]
use crate::runtime::data::ClickHousePlace;
use crate::runtime::data::{Logs, StorePlace, take_over};
use crate::runtime::offline::{self, Report};
use crate::store::{SqliteStore, Store};
use anyhow::Context;
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    data: DataArguments,
    /// Keep every event in ClickHouse's usage_events, too, as `serve --archive` does from then on
    #[arg(long, env = "HIGHWATER_ARCHIVE", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", default_value = "false")]
    archive: bool,
}

/// What is said of a journal without a record.
pub(super) const EMPTY: &str = "highwater: the journal is empty: there is nothing to fold. Where data is missing, put the newest \
                                journal.db back, with the journal.db-wal that belongs to it";

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Code> {
    let stopwatch = Stopwatch::start();
    super::multi_threaded()?.block_on(async {
        // The old store may be what is broken, so nothing but how far it reaches is read of it.
        let places = arguments.data.with_traces_and(arguments.archive)?;
        let opened = Logs::open(&places).await;
        let mut logs = opened.with_context(|| format!("open {}", places.folder.display()))?;
        if logs.is_empty() {
            complain(EMPTY);
            return Ok(Code::NothingThere);
        }
        let (report, store) = match &places.store {
            StorePlace::Sqlite(path) => {
                let store = path.clone().unwrap_or_else(|| logs.folder.store());
                into_file(&mut logs, &store).await.with_context(|| format!("fold {}", places.journal_name()))?
            }
            #[cfg(feature = "clickhouse")]
            StorePlace::ClickHouse(place) => into_database(&logs, place).await?,
        };
        take_over(&logs, &places, &store).await?;
        for (partition, position, digest) in &report.digests {
            say(&format!("partition {}  position {position}  digest {digest}", partition.0));
        }
        let seconds = stopwatch.elapsed().as_secs_f64();
        say(&format!("replayed {} records into a new store in {seconds:.1} s", grouped(report.records)));
        Ok(Code::Done)
    })
}

/// Makes a file beside the old one, which goes when the new one is whole. Both are locked until the end.
async fn into_file(logs: &mut Logs, store: &Path) -> anyhow::Result<(Report, Store)> {
    logs.folder.hold(store)?;
    let fresh = with_ending(store, ".new");
    remove(&fresh)?;
    logs.folder.hold(&fresh)?;
    let filled = Store::Sqlite(SqliteStore::open(&fresh)?);
    let report = fold_into(logs, filled.clone()).await?;
    // Everything is in the file itself then: its WAL would not move along.
    filled.close();
    let place = || format!("put the new store in the place of {}", store.display());
    // The old WAL goes first: SQLite would take it for the new file's.
    remove_wal(store)?;
    std::fs::rename(&fresh, store).with_context(place)?;
    sync_folder_of(store).with_context(place)?;
    Ok((report, Store::Sqlite(SqliteStore::open(store)?)))
}

/// Makes a renaming last beyond a power cut.
fn sync_folder_of(file: &Path) -> std::io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}

/// Fills a database that is empty: rows that are there could be such as do not follow from the log.
#[cfg(feature = "clickhouse")]
async fn into_database(logs: &Logs, place: &ClickHousePlace) -> anyhow::Result<(Report, Store)> {
    let place = place.clone();
    let store = Store::ClickHouse(tokio::task::spawn_blocking(move || place.open()).await??);
    if !store.progress_all().await?.is_empty() {
        let detail = "the database holds rows already; name one that does not exist, and then give it to the nodes";
        return Err(ConfigError::Value { name: "store", detail: detail.to_owned() }.into());
    }
    Ok((fold_into(logs, store.clone()).await?, store))
}

async fn fold_into(logs: &Logs, store: Store) -> anyhow::Result<Report> {
    let (journal, key) = (logs.journal.clone(), logs.fingerprint_key());
    Ok(tokio::task::spawn_blocking(move || offline::replay(&journal, key, &store)).await??)
}

/// Removes a SQLite file with what belongs to it.
pub(super) fn remove(path: &Path) -> anyhow::Result<()> {
    remove_wal(path)?;
    remove_file(path)
}

fn remove_wal(path: &Path) -> anyhow::Result<()> {
    remove_file(&with_ending(path, "-wal"))?;
    remove_file(&with_ending(path, "-shm"))
}

fn remove_file(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("remove {}", path.display())),
    }
}
