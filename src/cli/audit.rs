//! `audit`: prints an audit log as lines of JSON, beside a server that writes.

use super::DataArguments;
use super::exit::Code;
use super::terminal::say;
use crate::domain::id::{Mode, Tenant, WorkspaceId};
use crate::runtime::access_notes::NO_TENANT;
use crate::runtime::reader::DataReader;
use anyhow::Context;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    data: DataArguments,
    /// Of which workspace; left out, credentials that did not work and are known to be nobody's
    #[arg(long, value_name = "WORKSPACE_ID")]
    workspace: Option<WorkspaceId>,
    /// That of the workspace's sandbox
    #[arg(long, requires = "workspace")]
    sandbox: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Code> {
    super::multi_threaded()?.block_on(async {
        let places = arguments.data.existing()?;
        let data = DataReader::open(&places).await.with_context(|| format!("read {}", places.folder.display()))?;
        let mode = if arguments.sandbox { Mode::Sandbox } else { Mode::Live };
        let tenant = arguments.workspace.map_or(NO_TENANT, |workspace| Tenant { workspace, mode });
        let control = data.control.state();
        control.audit(tenant).for_each(|record| say(&record.line(tenant.mode)));
        Ok(Code::Done)
    })
}
