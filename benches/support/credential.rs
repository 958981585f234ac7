//! A workspace with an owner's key.

use highwater::credential;
use highwater::domain::control::command::Command;
use highwater::domain::control::resource::{ApiKey, Role};
use highwater::domain::id::{KeyId, Mode, Tenant, WorkspaceId};
use highwater::runtime::clock;
use highwater::runtime::control::Asking;
use highwater::runtime::data::Data;
use secrecy::ExposeSecret;

/// Makes both; returns the key.
pub(crate) async fn owner_key(data: &Data) -> String {
    let tenant = Tenant { workspace: WorkspaceId(clock::ulid()), mode: Mode::Live };
    let create = Command::CreateWorkspace { id: tenant.workspace, name: "bench".to_owned() };
    data.control.submit(Asking::by_command_line(tenant), create).await.expect("a workspace");
    let key = credential::generate(Mode::Live, clock::random());
    let text = key.expose_secret().to_owned();
    let id = KeyId(clock::ulid());
    let record = ApiKey {
        id,
        lookup: credential::parse(&text).expect("a key").lookup,
        hash: credential::hash(&text),
        workspace: tenant.workspace,
        mode: tenant.mode,
        lineage: id,
        name: "bench".to_owned(),
        scopes: Role::Owner.scopes(),
        projects: Vec::new(),
        hint: credential::hint(&text),
        expires_at: None,
        rate_limit: None,
        role: Some(Role::Owner),
        allowed_ips: Vec::new(),
        metadata: std::collections::BTreeMap::new(),
    };
    let create = Command::CreateKey { key: record };
    data.control.submit(Asking::by_command_line(tenant), create).await.expect("a key");
    text
}
