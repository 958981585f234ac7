//! The workspace that local commands work in, and keys that are made without a key.

use crate::credential;
use crate::domain::control::command::Command;
use crate::domain::control::outcome::Outcome;
use crate::domain::control::resource::{ApiKey, Role};
use crate::domain::id::{KeyId, Mode, Tenant, WorkspaceId};
use crate::runtime::clock;
use crate::runtime::control::Asking;
use crate::runtime::data::Data;
use anyhow::bail;
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;

/// The name of the workspace that is made where nobody gives one.
pub(super) const DEFAULT_NAME: &str = "default";

/// Finds the workspace: the named one (by id or name), else the only one, else makes one.
pub(super) async fn find_or_create(data: &Data, wanted: Option<&str>) -> anyhow::Result<WorkspaceId> {
    let known: Vec<(WorkspaceId, String)> = {
        let state = data.control.state();
        state.workspaces().map(|workspace| (workspace.id, workspace.name.clone())).collect()
    };
    let fits = |(id, name): &&(WorkspaceId, String)| wanted.is_none_or(|w| *w == *name || *w == id.to_string());
    let mut fitting = known.iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some((id, _)), None) => return Ok(*id),
        (Some(_), Some(_)) => bail!("there are several workspaces; name one with --workspace"),
        (None, _) => {}
    }
    if wanted.is_some_and(|wanted| wanted.starts_with(WorkspaceId::PREFIX)) {
        bail!("there is no workspace {}", wanted.unwrap_or_default());
    }
    let id = WorkspaceId(clock::ulid());
    let name = wanted.unwrap_or(DEFAULT_NAME).to_owned();
    submit(data, live(id), Command::CreateWorkspace { id, name }).await?;
    Ok(id)
}

/// The live side of a workspace.
pub(super) const fn live(workspace: WorkspaceId) -> Tenant {
    Tenant { workspace, mode: Mode::Live }
}

/// Makes an owner key; only its hash is kept.
pub(super) async fn create_owner_key(
    data: &Data,
    tenant: Tenant,
    name: &str,
    rate_limit: Option<u32>,
) -> anyhow::Result<SecretString> {
    let key = credential::generate(tenant.mode, clock::random());
    let text = key.expose_secret();
    let id = KeyId(clock::ulid());
    let record = ApiKey {
        id,
        lookup: credential::parse(text)?.lookup,
        hash: credential::hash(text),
        workspace: tenant.workspace,
        mode: tenant.mode,
        lineage: id,
        name: name.to_owned(),
        scopes: Role::Owner.scopes(),
        projects: Vec::new(),
        hint: credential::hint(text),
        expires_at: None,
        rate_limit,
        role: Some(Role::Owner),
        allowed_ips: Vec::new(),
        metadata: BTreeMap::new(),
    };
    submit(data, tenant, Command::CreateKey { key: record }).await?;
    Ok(key)
}

/// Submits a command of the command line.
pub(super) async fn submit(data: &Data, tenant: Tenant, command: Command) -> anyhow::Result<()> {
    let (_, applied) = data.control.submit(Asking::by_command_line(tenant), command).await?;
    match applied.outcome {
        Outcome::Created(_) | Outcome::Done(_) | Outcome::Deleted => Ok(()),
        Outcome::Refused(why) => Err(why.into()),
    }
}
