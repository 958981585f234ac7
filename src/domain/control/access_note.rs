//! What belongs in the audit log though it changes nothing: who read a secret, was refused an escalation, got a token, or
//! presented a credential in vain. Nodes note it of their own accord, and seldom: once for each address, reason and hour.

use super::audit::Target;
use serde::{Deserialize, Serialize};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessKind {
    /// A secret was shown again.
    SecretRead,
    /// A credential would have handed on more than it has, or touched one that has more.
    EscalationRefused,
    /// A client got an access token.
    TokenIssued,
    /// A credential did not work.
    CredentialRefused,
}

impl AccessKind {
    /// The action as the audit log writes it.
    pub const fn action(self) -> &'static str {
        match self {
            Self::SecretRead => "secret.read",
            Self::EscalationRefused => "credential.escalate",
            Self::TokenIssued => "oauth_token.issue",
            Self::CredentialRefused => "credential.present",
        }
    }
}

/// The first of its kind in an hour, on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessNote {
    /// What happened.
    pub kind: AccessKind,
    /// To what.
    pub target: Target,
    /// Why it was refused, where it was.
    pub refused: Option<String>,
}
