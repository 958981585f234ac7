//! An entry of the audit log as it is exported, and how entries are chained: the hash of each is that of its own line without
//! the hash, and the line has the hash of the entry before it. Whoever has the lines needs nothing else to check them.

use super::audit::{AuditRecord, Link, ResourceDigest};
use crate::domain::id::Mode;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// What the audit log calls those who need no key: the command line on the data's own machine.
const COMMAND_LINE: &str = "command_line";
/// And those whose credential did not work.
const UNKNOWN: &str = "unknown";

/// The members of a line, in their order; it never changes, for lines are hashed.
#[derive(Serialize)]
struct Line<'a> {
    id: String,
    at: String,
    mode: &'static str,
    actor: String,
    action: &'a str,
    target_type: &'static str,
    target: String,
    request_id: &'a str,
    ip: Option<String>,
    outcome: &'static str,
    code: Option<&'a str>,
    before: Option<String>,
    after: Option<String>,
    previous_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
}

impl AuditRecord {
    /// Who did it, as the API writes it.
    pub fn actor_text(&self) -> String {
        // The command line has no address.
        let nobody = if self.ip.is_some() { UNKNOWN } else { COMMAND_LINE };
        self.actor.map_or_else(|| nobody.to_owned(), |key| key.to_string())
    }

    /// What came of it, as the API writes it.
    pub const fn outcome_text(&self) -> &'static str {
        if self.refused.is_some() { "refused" } else { "accepted" }
    }

    /// Returns the entry as one line of JSON, without a line break. Its last member is the hash of the line without it:
    /// SHA-256 of the text up to `,"hash":`, and a closing brace.
    pub fn line(&self, mode: Mode) -> String {
        self.written(mode, self.link.map(|link| link.previous), self.link.map(|link| link.hash))
    }

    /// Chains the entry to the one before it.
    pub(super) fn chained(self, mode: Mode, previous: ResourceDigest) -> Self {
        let hash = Sha256::digest(self.written(mode, Some(previous), None).as_bytes()).into();
        Self { link: Some(Link { previous, hash }), ..self }
    }

    fn written(&self, mode: Mode, previous: Option<ResourceDigest>, hash: Option<ResourceDigest>) -> String {
        let hex = |digest: ResourceDigest| hex(&digest);
        let line = Line {
            id: self.id.to_string(),
            at: self.at.to_string(),
            mode: mode.name(),
            actor: self.actor_text(),
            action: &self.action,
            target_type: self.target.kind(),
            target: self.target.id(),
            request_id: &self.request_id,
            ip: self.ip.map(|ip| ip.to_string()),
            outcome: self.outcome_text(),
            code: self.refused.as_deref(),
            before: self.before.map(hex),
            after: self.after.map(hex),
            previous_hash: previous.map(hex),
            hash: hash.map(hex),
        };
        // Texts alone always have a JSON form.
        serde_json::to_string(&line).unwrap_or_default()
    }
}

/// A digest as the API writes it.
pub fn hex(digest: &ResourceDigest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
