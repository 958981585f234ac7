//! `repair`: mends what a wrong clock did to the logs, while nothing serves them.

use super::DataArguments;
use super::exit::Code;
use super::terminal::{complain, grouped, say};
use crate::config::ConfigError;
use crate::domain::limits::CLOCK_STEP_MAX;
use crate::domain::time::Timestamp;
use crate::runtime::clock;
use crate::runtime::data::Logs;
use crate::runtime::repair::{ClockRepair, PartitionRepair};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    data: DataArguments,
    /// Set the clock of every log back to TIME: `now`, or an instant such as 2026-11-24T08:00:00Z. What is between TIME and the next
    /// start counts as a stop of the nodes, so TIME is to be the present. Stop every node first
    #[arg(long, value_name = "TIME", value_parser = instant)]
    clock_to: Timestamp,
    /// Say what it would do, and append nothing
    #[arg(long)]
    dry_run: bool,
}

fn instant(text: &str) -> Result<Timestamp, String> {
    if text == "now" {
        return Ok(clock::now());
    }
    Timestamp::parse(text)
        .ok_or_else(|| format!("{text:?} is not an instant such as 2026-11-24T08:00:00Z, and not `now`"))
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Code> {
    let to = arguments.clock_to;
    let now = clock::now();
    if to > now.plus(CLOCK_STEP_MAX) {
        let detail =
            format!("{to} is ahead of the present ({now}); expected a moment at which the clock was right, or `now`");
        return Err(ConfigError::Value { name: "clock_to", detail }.into());
    }
    super::multi_threaded()?.block_on(async {
        let logs = Logs::open(&arguments.data.with_traces()?).await?;
        if logs.is_empty() {
            complain(super::replay::EMPTY);
            return Ok(Code::NothingThere);
        }
        let planned = {
            let (journal, control) = (logs.journal.clone(), logs.control.state().clone());
            tokio::task::spawn_blocking(move || ClockRepair::plan(&journal, &control, (to, now))).await??
        };
        say(&format!("control      clock {}", told(planned.control_clock)));
        planned.partitions.iter().for_each(describe);
        if !planned.is_needed() {
            say(&format!("nothing to set: no clock is ahead of {to}"));
            return Ok(Code::Done);
        }
        if arguments.dry_run {
            say(&format!("nothing was appended: without --dry-run every log's clock is {to} from here on"));
            return Ok(Code::Done);
        }
        let request_id = format!("req_{}", ulid::Ulid(clock::ulid()));
        let appended = planned.append(&logs.journal, request_id).await?;
        let recorded_at = appended.recorded_at;
        let journal = logs.journal.clone();
        tokio::task::spawn_blocking(move || appended.expect_alone(&journal)).await??;
        say(&format!("the clock of every log is {to} from here on; windows and periods behind it are evaluated again"));
        if recorded_at > now.plus(CLOCK_STEP_MAX) {
            complain(&format!(
                "the brokers recorded this at {recorded_at}: their clock is still ahead; set it, then repair again"
            ));
            return Ok(Code::Failed);
        }
        Ok(Code::Done)
    })
}

/// A log without records has no clock.
fn told(clock: Timestamp) -> String {
    if clock == Timestamp::MIN { "none yet".to_owned() } else { clock.to_string() }
}

fn describe(repaired: &PartitionRepair) {
    say(&format!("partition {}  clock {}", repaired.partition.0, told(repaired.clock)));
    if let Some((from, until)) = repaired.forgotten {
        say(&format!(
            "  event ids from {from} to {until} stay forgotten: what is sent again of that time counts again"
        ));
    }
    if repaired.refused_too_old > 0 {
        let count = grouped(repaired.refused_too_old);
        say(&format!("  {count} events were set aside as too old: replay them from GET /v1/quarantine once it serves"));
    }
    if repaired.counted_ahead > 0 {
        let count = grouped(repaired.counted_ahead);
        say(&format!("  {count} events were counted at times that have not come, which stay as they are"));
    }
}
