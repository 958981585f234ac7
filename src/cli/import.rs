//! `import`: a file of events into a data folder that nothing serves meanwhile. What is refused goes into a file of its
//! own, with line numbers and reasons.

use super::exit::Code;
use super::terminal::{complain, grouped, say};
use super::{DataArguments, workspace};
use crate::config;
use crate::domain::control::command::Command;
use crate::domain::id::{Mode, Tenant};
use crate::runtime::clock::Stopwatch;
use crate::runtime::import::{RefusedLine, Totals, import};
use crate::runtime::ingest::{IdSource, Sender};
use crate::runtime::node::{Duty, Node};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

const READ_BYTES: usize = 1 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    data: DataArguments,
    /// The file, plain, gzip or zstd; `-` reads standard input
    file: PathBuf,
    /// Take events of any age; they count and fire nothing
    #[arg(long)]
    backfill: bool,
    /// The workspace, by name or ws_ id [default: the only one; made where there is none]
    #[arg(long)]
    workspace: Option<String>,
    /// Import into the sandbox instead of live data
    #[arg(long)]
    sandbox: bool,
    /// Ask the logs for this engine version at most, as `serve` has it
    #[arg(long, env = "HIGHWATER_ENGINE_VERSION", value_name = "VERSION")]
    engine_version: Option<u32>,
    /// Where refused lines go [default: FILE.rejected.ndjson]
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Code> {
    super::multi_threaded()?.block_on(async {
        let engine_version = config::engine_version(arguments.engine_version)?;
        let data = super::open(&arguments.data.places()?).await?.held_back_to(engine_version);
        let workspace = workspace::find_or_create(&data, arguments.workspace.as_deref()).await?;
        let mode = if arguments.sandbox { Mode::Sandbox } else { Mode::Live };
        let tenant = Tenant { workspace, mode };
        let source = Source::of(&arguments.file)?;
        if let Some(digest) = &source.digest {
            let known = data.control.state().import(tenant, digest).copied();
            if let Some(known) = known {
                say(&format!(
                    "{} was imported at {} ({} events); nothing to do",
                    arguments.file.display(),
                    known.at,
                    grouped(known.accepted)
                ));
                return Ok(Code::Done);
            }
        }
        let node = Node::start(data, Default::default(), "", Duty::Import).await?;
        let outcome = take_in(arguments, &node, tenant, source).await;
        node.stop().await;
        outcome
    })
}

/// What is imported, with what identifies its lines.
struct Source {
    reader: Box<dyn Read + Send>,
    /// SHA-256 of the file, lower-case hex; none of standard input.
    digest: Option<String>,
    /// Bytes as stored.
    length: Option<u64>,
}

impl Source {
    fn of(path: &Path) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self { reader: Box::new(std::io::stdin()), digest: None, length: None });
        }
        let open = || File::open(path).with_context(|| format!("open {}", path.display()));
        let mut hash = Sha256::new();
        let mut file = open()?;
        let mut block = vec![0; READ_BYTES];
        loop {
            match file.read(&mut block).with_context(|| format!("read {}", path.display()))? {
                0 => break,
                length => hash.update(block.get(..length).unwrap_or_default()),
            }
        }
        let file = open()?;
        let length = file.metadata().ok().map(|metadata| metadata.len());
        Ok(Self { reader: Box::new(file), digest: Some(format!("{:x}", hash.finalize())), length })
    }
}

/// Unpacks what begins like gzip or zstd.
fn unpacked(reader: impl Read + Send + 'static) -> anyhow::Result<Box<dyn Read + Send>> {
    let mut buffered = BufReader::with_capacity(READ_BYTES, reader);
    let head = buffered.fill_buf().context("read the beginning of the file")?;
    Ok(match head {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(buffered)?),
        _ => Box::new(buffered),
    })
}

async fn take_in(arguments: &Arguments, node: &Node, tenant: Tenant, source: Source) -> anyhow::Result<Code> {
    let stopwatch = Stopwatch::start();
    let progress = bar(source.length);
    let ids = match &source.digest {
        Some(digest) => IdSource::Derived { lineage: digest.clone(), key: "import".to_owned() },
        None => IdSource::Fresh,
    };
    let sender = Sender { tenant, ids, backfill: arguments.backfill };
    let mut rejects = Rejects { path: reject_path(arguments), file: None };
    let ingest = node.ingest.clone();
    let counted = progress.clone();
    let reader = unpacked(progress.wrap_read(source.reader))?;
    let task = tokio::task::spawn_blocking(move || {
        let totals = import(reader, &ingest, &sender, |totals, refused| {
            let seconds = stopwatch.elapsed().as_secs_f64().max(0.001);
            let rate = (totals.accepted as f64 / seconds) as u64;
            counted.set_message(format!("{} events, {} events/s", grouped(totals.accepted), grouped(rate)));
            rejects.write(refused)
        })?;
        rejects.finish()?;
        anyhow::Ok((totals, rejects.path))
    });
    let (totals, rejects) = task.await??;
    progress.set_message("counting");
    while !node.settle(Duration::from_secs(1)).await {
        if node.has_failed() {
            progress.finish_and_clear();
            complain("highwater: the journal or the store is damaged; the log says where");
            return Ok(Code::Damaged);
        }
    }
    progress.finish_and_clear();
    if let Some(digest) = source.digest {
        let Totals { accepted, refused, .. } = totals;
        workspace::submit(&node.data, tenant, Command::RecordImport { digest, accepted, refused }).await?;
    }
    Ok(report(&totals, &rejects, stopwatch.elapsed()))
}

fn report(totals: &Totals, rejects: &Path, elapsed: Duration) -> Code {
    let seconds = elapsed.as_secs_f64();
    let rate = (totals.accepted as f64 / seconds.max(0.001)) as u64;
    say(&format!(
        "{} events accepted and counted, {} lines refused in {seconds:.2} s: {} events/s",
        grouped(totals.accepted),
        grouped(totals.refused),
        grouped(rate)
    ));
    if totals.warned > 0 {
        complain(&format!(
            "highwater: dimensions of {} events could not all be kept as they were sent; they were cut or left out",
            grouped(totals.warned)
        ));
    }
    if totals.refused == 0 {
        return Code::Done;
    }
    complain(&format!("highwater: the refused lines are in {}, with their numbers and reasons", rejects.display()));
    Code::LinesRefused
}

fn bar(length: Option<u64>) -> ProgressBar {
    let Some(length) = length else {
        return ProgressBar::new_spinner().with_style(style("{spinner} {bytes} {msg}"));
    };
    ProgressBar::new(length).with_style(style("{bar:30} {percent}% {bytes}/{total_bytes} {msg}"))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn reject_path(arguments: &Arguments) -> PathBuf {
    arguments.rejects.clone().unwrap_or_else(|| match arguments.file.to_str() {
        Some("-") => "stdin.rejected.ndjson".into(),
        _ => {
            let mut name = arguments.file.clone().into_os_string();
            name.push(".rejected.ndjson");
            name.into()
        }
    })
}

/// The file of refused lines; made with the first of them.
struct Rejects {
    path: PathBuf,
    file: Option<BufWriter<File>>,
}

#[derive(Serialize)]
struct Reject<'a> {
    line: u64,
    code: &'static str,
    detail: &'a str,
    pointer: Option<&'a str>,
    event: &'a str,
}

impl Rejects {
    fn write(&mut self, refused: &[RefusedLine]) -> std::io::Result<()> {
        if refused.is_empty() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(BufWriter::new(File::create(&self.path)?)),
        };
        for RefusedLine { line, refusal, text } in refused {
            let reject = Reject {
                line: *line,
                code: refusal.code.text(),
                detail: &refusal.detail,
                pointer: refusal.pointer.as_deref(),
                event: text,
            };
            serde_json::to_writer(&mut *file, &reject)?;
            file.write_all(b"\n")?;
        }
        Ok(())
    }

    fn finish(&mut self) -> std::io::Result<()> {
        self.file.as_mut().map_or(Ok(()), BufWriter::flush)
    }
}
