//! `bootstrap`: the first credential. There are no default ones; `/v1` answers 401 until this ran.

use super::exit::Code;
use super::terminal::{complain, say};
use super::{DataArguments, workspace};
use crate::domain::id::{Mode, Tenant};
use crate::domain::limits::RATE_LIMIT_MAX;
use secrecy::ExposeSecret;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    data: DataArguments,
    /// The workspace, by name or ws_ id; made where there is none of that name [default: the only one]
    #[arg(long)]
    workspace: Option<String>,
    /// Make a key for the sandbox (pk_test_) instead of live data
    #[arg(long)]
    sandbox: bool,
    /// Make one more owner key though there is one: for when the first is lost
    #[arg(long)]
    another: bool,
    /// Give the key a rate limit of its own, in requests a minute; 0 is no limit [default: that of `serve`]
    #[arg(long, value_name = "REQUESTS", value_parser = clap::value_parser!(u32).range(..=i64::from(RATE_LIMIT_MAX)))]
    rate_limit: Option<u32>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Code> {
    super::multi_threaded()?.block_on(async {
        let data = super::open(&arguments.data.places()?).await?;
        let id = workspace::find_or_create(&data, arguments.workspace.as_deref()).await?;
        let mode = if arguments.sandbox { Mode::Sandbox } else { Mode::Live };
        let taken = data.control.state().keys(id).any(|record| record.key.mode == mode);
        if taken && !arguments.another {
            complain(&format!("highwater: {id} has a key already, and keys are shown once; --another makes one more"));
            return Ok(Code::Bootstrapped);
        }
        let key =
            workspace::create_owner_key(&data, Tenant { workspace: id, mode }, "owner", arguments.rate_limit).await?;
        say(key.expose_secret());
        Ok(Code::Done)
    })
}
