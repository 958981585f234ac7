//! `replay`: makes the store anew, and takes the place of whoever kept the rows before.

use super::DataArguments;
use super::exit::Code;
use super::terminal::{grouped, say};
#[cfg(feature = "clickhouse")]
use crate::config::ConfigError;
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

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Code> {
    let stopwatch = Stopwatch::start();
    super::multi_threaded()?.block_on(async {
        // The old store may be what is broken, so it is not opened.
        let places = arguments.data.existing_with(arguments.archive)?;
        let mut logs = Logs::open(&places).await?;
        let (report, store) = match &places.store {
            StorePlace::Sqlite(path) => {
                path.as_deref().map_or(Ok(()), |path| logs.folder.hold(path))?;
                into_file(&logs, &path.clone().unwrap_or_else(|| logs.folder.store())).await?
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

/// Makes a file beside the old one, which goes when the new one is whole.
async fn into_file(logs: &Logs, store: &Path) -> anyhow::Result<(Report, Store)> {
    let fresh = with_ending(store, ".new");
    remove(&fresh)?;
    let report = fold_into(logs, Store::Sqlite(SqliteStore::open(&fresh)?)).await?;
    remove(store)?;
    std::fs::rename(&fresh, store).with_context(|| format!("put the new store in the place of {}", store.display()))?;
    Ok((report, Store::Sqlite(SqliteStore::open(store)?)))
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
    for path in [path.to_owned(), with_ending(path, "-wal"), with_ending(path, "-shm")] {
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("remove {}", path.display())),
        }
    }
    Ok(())
}

fn with_ending(path: &Path, ending: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
