//! `verify`: folds the journal from its beginning and compares what is kept with it, beside a server that writes.

use super::DataArguments;
use super::exit::Code;
use super::terminal::{complain, grouped, say};
use crate::config::ConfigError;
use crate::runtime::clock::Stopwatch;
use crate::runtime::offline::{self, Report};
use crate::runtime::reader::DataReader;
use crate::store::RecomputeTerms;
use anyhow::Context;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    data: DataArguments,
    /// Let ClickHouse make every closed window anew from its archive of events, and compare (see `serve --archive`)
    #[arg(long)]
    deep: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Code> {
    let stopwatch = Stopwatch::start();
    super::multi_threaded()?.block_on(async {
        let places = arguments.data.with_traces()?;
        let mut data = DataReader::open(&places).await.with_context(|| format!("read {}", places.folder.display()))?;
        if data.is_empty() {
            complain(super::replay::EMPTY);
            return Ok(Code::NothingThere);
        }
        let scratch = data.hold_scratch()?;
        let outcome = offline::verify(&data, &scratch).await;
        super::replay::remove(&scratch)?;
        let mut report = outcome.with_context(|| format!("read {}", places.journal_name()))?;
        if arguments.deep {
            deep(&data, &mut report).await?;
        }
        Ok(tell(&data, &report, stopwatch))
    })
}

/// Says what was found, and what could not be compared.
fn tell(data: &DataReader, report: &Report, stopwatch: Stopwatch) -> Code {
    for (partition, position, digest) in &report.digests {
        say(&format!("partition {}  position {position}  digest {digest}", partition.0));
    }
    let what = format!(
        "{} records folded, {} rows and {} snapshots compared{} in {:.1} s",
        grouped(report.records),
        grouped(report.rows),
        report.snapshots,
        if report.expired == 0 { String::new() } else { format!(" ({} rows expired)", grouped(report.expired)) },
        stopwatch.elapsed().as_secs_f64()
    );
    if report.unstored > 0 {
        let records = grouped(report.unstored);
        say(&format!("{records} records behind what is stored are whole; there was nothing to compare them with"));
    }
    if report.drift_count > 0 {
        say(&format!("drift: {} differences; {what}", grouped(report.drift_count)));
        report.drift.iter().for_each(|drift| complain(drift));
        complain("the journal is the truth: `highwater replay` makes the store anew from it");
        return Code::Drift;
    }
    if data.store.is_none() {
        say(&format!("no store: {what}"));
        complain("the store is missing, so no row was compared: `highwater replay` makes it from the journal");
        return Code::NothingThere;
    }
    if report.rows == 0 && report.snapshots == 0 {
        say(&format!("nothing compared: {what}"));
        complain("the store holds no row and there is no snapshot yet, so nothing was compared");
        return Code::NothingThere;
    }
    say(&format!("no drift: {what}"));
    Code::Done
}

/// The second opinion: ClickHouse's own, from the events themselves.
async fn deep(data: &DataReader, report: &mut Report) -> anyhow::Result<()> {
    let grace = data.control.state().settings().grace;
    let terms = RecomputeTerms { partitions: data.journal.partitions(), grace };
    let found = match &data.store {
        Some(store) => store.recompute(terms).await?,
        None => None,
    };
    let refused = |detail: &str| ConfigError::Value { name: "deep", detail: detail.to_owned() };
    let found = found.ok_or_else(|| refused("needs a --store in ClickHouse"))?;
    if found.archived_partitions == 0 {
        let detail =
            "nothing is archived: `serve --archive` does it from now on, `replay --archive` from the beginning";
        return Err(refused(detail).into());
    }
    say(&format!(
        "ClickHouse made {} closed windows anew from its archive, {} of them differ",
        grouped(found.windows),
        grouped(found.drift_count)
    ));
    report.add_drift(found.drift_count, found.drift);
    Ok(())
}
