//! How an API key is shown. The key itself is in the answer that made it, and nowhere else.

use super::answer;
use super::app::{App, Caller};
use super::change::Changed;
use super::problem::Problem;
use super::shown_once::Aside;
use crate::credential;
use crate::domain::control::fold::Control;
use crate::domain::control::last_uses::LastUse;
use crate::domain::control::outcome::Resource;
use crate::domain::control::resource::{KeyRecord, Scope};
use crate::domain::id::{KeyId, ProjectId, Tenant};
use crate::domain::time::Timestamp;
use axum::response::Response;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// An API key.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeyView {
    pub(super) id: String,
    /// The same as `id`.
    key_id: String,
    object: &'static str,
    mode: &'static str,
    version: u64,
    name: String,
    /// The key itself; in the answer that made it alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// `pk_live_` or `pk_test_`.
    prefix: &'static str,
    /// What tells the key apart, without its secret.
    hint: String,
    /// `active`, `rotating` (replaced, works until `expires_at`), `revoked` or `expired`.
    status: &'static str,
    scope: Vec<&'static str>,
    role: Option<&'static str>,
    /// The projects that it is narrowed to; all where empty.
    project_ids: Vec<String>,
    /// The environment of its projects, where they share one.
    env: Option<String>,
    /// The networks that it may be used from; all where empty.
    allowed_ips: Vec<String>,
    metadata: BTreeMap<String, String>,
    expires_at: Option<String>,
    /// To a minute, as the answering node saw it since it started.
    last_used_at: Option<String>,
    last_used_ip: Option<String>,
    created_by: Option<String>,
    /// The key that took its place.
    replaced_by: Option<String>,
    revoked_at: Option<String>,
    created_at: String,
    updated_at: String,
}

/// Shows a key as it stands at an instant.
pub(super) fn view(record: &KeyRecord, aside: Aside, now: Timestamp) -> KeyView {
    let key = &record.key;
    KeyView {
        id: key.id.to_string(),
        key_id: key.id.to_string(),
        object: "api_key",
        mode: key.mode.name(),
        version: record.life.version,
        name: key.name.clone(),
        key: aside.secret,
        prefix: credential::prefix(key.mode),
        hint: key.hint.clone(),
        status: record.status(now).name(),
        scope: key.scopes.iter().map(|scope| Scope::text(*scope)).collect(),
        role: key.role.map(|role| role.text()),
        project_ids: key.projects.iter().map(ProjectId::to_string).collect(),
        env: aside.env,
        allowed_ips: key.allowed_ips.iter().map(network).collect(),
        metadata: key.metadata.clone(),
        expires_at: key.expires_at.map(|at| at.to_string()),
        last_used_at: aside.last_used_at,
        last_used_ip: aside.last_used_ip,
        created_by: record.created_by.map(|id| id.to_string()),
        replaced_by: record.replaced_by.map(|id| id.to_string()),
        revoked_at: record.revoked_at.map(|at| at.to_string()),
        created_at: record.life.created_at.to_string(),
        updated_at: record.life.updated_at.to_string(),
    }
}

/// One address is written without its length.
fn network(network: &ipnet::IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() { network.addr().to_string() } else { network.to_string() }
}

/// The environment that projects share.
pub(super) fn environment(state: &Control, tenant: Tenant, projects: &[ProjectId]) -> Option<String> {
    let mut environments = projects.iter().map(|id| state.project(tenant, *id).map(|project| project.env));
    let first = environments.next()??;
    environments.all(|other| other == Some(first)).then(|| first.name().to_owned())
}

/// What is shown beside a key.
pub(super) fn aside(app: &App, state: &Control, record: &KeyRecord) -> Aside {
    let key = &record.key;
    let tenant = Tenant { workspace: key.workspace, mode: key.mode };
    Aside { env: environment(state, tenant, &key.projects), ..used(app, state, key.id) }
}

/// The last use of a credential: as this node saw it, or as another one noted since.
pub(super) fn last_use(app: &App, state: &Control, id: KeyId) -> Option<LastUse> {
    [app.node.last_uses.of(id), state.last_use(id)].into_iter().flatten().max_by_key(|last| last.at)
}

/// When a credential was used last.
pub(super) fn used(app: &App, state: &Control, id: KeyId) -> Aside {
    let last = last_use(app, state, id);
    Aside {
        last_used_at: last.map(|last| last.at.to_string()),
        last_used_ip: last.map(|last| last.address.to_string()),
        ..Aside::default()
    }
}

/// Answers to a change of a key.
///
/// # Errors
/// 500 where a repeated answer cannot be opened.
pub(super) fn answered(app: &App, caller: &Caller, changed: &Changed, aside: Aside) -> Result<Response, Problem> {
    let Resource::Key(record) = &changed.resource else { return Ok(answer::gone()) };
    let aside = aside.of(app, caller, changed)?;
    // As it stood right behind the change, on every repetition.
    let shown = view(record, aside, record.life.updated_at);
    Ok(answer::changed(changed, &shown, record.life.version, &format!("/v1/api-keys/{}", record.key.id)))
}
