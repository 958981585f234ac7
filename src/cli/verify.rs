//! `verify`: folds the journal from its beginning and compares what is kept with it.

use super::DataArguments;
use super::exit::Code;
use super::terminal::{complain, grouped, say};
use crate::config::ConfigError;
use crate::runtime::clock::Stopwatch;
use crate::runtime::data::Data;
use crate::runtime::offline::{self, Report};
use crate::store::RecomputeTerms;

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
        let data = Data::open(&arguments.data.existing()?).await?;
        let scratch = data.folder().scratch();
        super::replay::remove(&scratch)?;
        let outcome = offline::verify(&data, &scratch).await;
        super::replay::remove(&scratch)?;
        let mut report = outcome?;
        if arguments.deep {
            deep(&data, &mut report).await?;
        }
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
        if report.drift_count == 0 {
            say(&format!("no drift: {what}"));
            return Ok(Code::Done);
        }
        say(&format!("drift: {} differences; {what}", grouped(report.drift_count)));
        report.drift.iter().for_each(|drift| complain(drift));
        complain("the journal is the truth: `highwater replay` makes the store anew from it");
        Ok(Code::Drift)
    })
}

/// The second opinion: ClickHouse's own, from the events themselves.
async fn deep(data: &Data, report: &mut Report) -> anyhow::Result<()> {
    let grace = data.control.state().settings().grace;
    let found = data.store.recompute(RecomputeTerms { partitions: data.journal.partitions(), grace }).await?;
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
