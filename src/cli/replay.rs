//! `replay`: makes the store anew beside the old one, which goes when the new one is whole.

use super::DataArguments;
use super::exit::Code;
use super::terminal::{grouped, say};
use crate::runtime::clock::Stopwatch;
use crate::runtime::data::Logs;
use crate::runtime::offline;
use crate::store::{SqliteStore, Store};
use anyhow::Context;
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    data: DataArguments,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Code> {
    let stopwatch = Stopwatch::start();
    super::multi_threaded()?.block_on(async {
        // The old store may be what is broken, so it is not opened.
        let logs = Logs::open(&arguments.data.existing()?).await?;
        let (fresh, store) = (logs.folder.scratch(), logs.folder.store());
        remove(&fresh)?;
        let report = {
            let (journal, key, fresh) = (logs.journal.clone(), logs.fingerprint_key(), fresh.clone());
            let replay = move || offline::replay(&journal, key, &Store::Sqlite(SqliteStore::open(&fresh)?));
            tokio::task::spawn_blocking(replay).await??
        };
        remove(&store)?;
        std::fs::rename(&fresh, &store)
            .with_context(|| format!("put the new store in the place of {}", store.display()))?;
        for (partition, position, digest) in &report.digests {
            say(&format!("partition {}  position {position}  digest {digest}", partition.0));
        }
        let seconds = stopwatch.elapsed().as_secs_f64();
        say(&format!("replayed {} records into a new store in {seconds:.1} s", grouped(report.records)));
        Ok(Code::Done)
    })
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
