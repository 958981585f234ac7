//! What an answer shows beside the resource, for this once: a secret, and what may be another by the next time. It is
//! sealed with the master key where it is kept for repetitions.

use super::app::{App, Caller};
use super::change::Changed;
use super::problem::Problem;
use crate::domain::control::audit::Target;
use crate::domain::control::outcome::Resource;
use axum::http::StatusCode;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

/// What is shown beside a key or an OAuth client.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Aside {
    /// The secret, where it was just made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The environment of the projects.
    pub env: Option<String>,
    /// When it was used last.
    pub last_used_at: Option<String>,
    /// From where.
    pub last_used_ip: Option<String>,
}

impl std::fmt::Debug for Aside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Aside")
    }
}

fn context(caller: &Caller) -> String {
    format!("answer {} {}", caller.principal.tenant.workspace, caller.principal.tenant.mode.name())
}

impl Aside {
    /// Seals it for the record of the request.
    ///
    /// # Errors
    /// 500 where there are no random bytes.
    pub(super) fn seal(&self, app: &App, caller: &Caller) -> Result<String, Problem> {
        let bytes = serde_json::to_vec(self).map_err(|error| Problem::internal(&error))?;
        app.node.data.vault.seal(&context(caller), &bytes).map_err(|error| Problem::internal(&error))
    }

    /// What the answer to a change shows: this, or what the first answer showed.
    ///
    /// # Errors
    /// 500 where the first answer cannot be opened.
    pub(super) fn of(self, app: &App, caller: &Caller, changed: &Changed) -> Result<Self, Problem> {
        if !changed.replayed {
            return Ok(self);
        }
        let unreadable = || {
            let detail = "the first answer cannot be opened";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", detail)
        };
        let sealed = changed.beside.as_deref().ok_or_else(unreadable)?;
        let opened = app.node.data.vault.open(&context(caller), sealed).map_err(|error| Problem::internal(&error))?;
        let shown: Self = serde_json::from_slice(opened.expose_secret()).map_err(|_| unreadable())?;
        if shown.secret.is_some() {
            if let Resource::Key(record) = &changed.resource {
                app.note_secret(caller, Target::ApiKey(record.key.id));
            }
            if let Resource::Client(record) = &changed.resource {
                app.note_secret(caller, Target::OauthClient(record.client.id));
            }
        }
        Ok(shown)
    }
}
