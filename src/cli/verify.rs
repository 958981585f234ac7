//! `verify`: folds the journal from its beginning and compares what is kept with it.

use super::DataArguments;
use super::exit::Code;
use super::terminal::{complain, grouped, say};
use crate::runtime::clock::Stopwatch;
use crate::runtime::data::Data;
use crate::runtime::offline;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    data: DataArguments,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Code> {
    let stopwatch = Stopwatch::start();
    super::multi_threaded()?.block_on(async {
        let data = Data::open(&arguments.data.existing()?).await?;
        let scratch = data.folder().scratch();
        super::replay::remove(&scratch)?;
        let outcome = offline::verify(&data, &scratch).await;
        super::replay::remove(&scratch)?;
        let report = outcome?;
        for (partition, position, digest) in &report.digests {
            say(&format!("partition {}  position {position}  digest {digest}", partition.0));
        }
        let what = format!(
            "{} records folded, {} rows and {} snapshots compared in {:.1} s",
            grouped(report.records),
            grouped(report.rows),
            report.snapshots,
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
