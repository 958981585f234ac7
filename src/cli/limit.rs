//! `limit`: gives a key that exists a rate limit of its own, or takes it back.

use super::exit::Code;
use super::terminal::say;
use super::{DataArguments, workspace};
use crate::domain::control::command::Command;
use crate::domain::id::{KeyId, Tenant};
use crate::domain::limits::RATE_LIMIT_MAX;
use anyhow::Context;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    data: DataArguments,
    /// The key, by its key_ id; its lineage (what it replaced, what replaced it) shares the limit
    #[arg(value_name = "KEY_ID")]
    key: KeyId,
    /// Requests a minute; 0 is no limit
    #[arg(long, value_name = "REQUESTS", value_parser = clap::value_parser!(u32).range(..=i64::from(RATE_LIMIT_MAX)))]
    #[arg(required_unless_present = "default")]
    requests: Option<u32>,
    /// Take the limit back: that of `serve` holds again
    #[arg(long, conflicts_with = "requests")]
    default: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Code> {
    super::multi_threaded()?.block_on(async {
        let data = super::open(&arguments.data.existing()?).await?;
        let id = arguments.key;
        let tenant = {
            let control = data.control.state();
            let key = &control.key(id).with_context(|| format!("there is no API key {id}"))?.key;
            Tenant { workspace: key.workspace, mode: key.mode }
        };
        workspace::submit(&data, tenant, Command::LimitKey { id, rate_limit: arguments.requests }).await?;
        say(&match arguments.requests {
            None => format!("{id}: the limit of `serve`"),
            Some(0) => format!("{id}: no limit"),
            Some(requests) => format!("{id}: {requests} requests a minute"),
        });
        Ok(Code::Done)
    })
}
