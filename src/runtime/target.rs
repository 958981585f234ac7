//! Where a channel leads, as it is sealed in the control log.

use crate::domain::control::resource::Channel;
use crate::domain::id::ChannelId;
use crate::vault::{Vault, VaultError};
use secrecy::ExposeSecret;
use std::fmt;

/// What a sealed channel target holds. Its `Debug` form hides what is secret.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Target {
    /// A signed webhook.
    Webhook {
        /// Where to.
        url: String,
        /// What signs, the newest first.
        secrets: Vec<String>,
    },
    /// Slack's incoming webhook.
    SlackWebhook {
        /// Where to.
        url: String,
    },
    /// Slack's Web API.
    SlackBot {
        /// The bot's token.
        token: String,
        /// The channel's id or name.
        channel: String,
        /// Another base than Slack's own.
        api: Option<String>,
    },
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Webhook { .. } => "Webhook(…)",
            Self::SlackWebhook { .. } => "SlackWebhook(…)",
            Self::SlackBot { .. } => "SlackBot(…)",
        })
    }
}

impl Target {
    /// Seals the target for the control log.
    ///
    /// # Errors
    /// Where the vault cannot seal.
    pub fn seal(&self, vault: &Vault, channel: ChannelId) -> Result<String, VaultError> {
        let json = serde_json::to_vec(self).unwrap_or_default();
        vault.seal(&context(channel), &json)
    }

    /// Opens a channel's target.
    ///
    /// # Errors
    /// Where the master key is another one, or the text is damaged.
    pub fn open(vault: &Vault, channel: &Channel) -> Result<Self, String> {
        let opened = vault.open(&context(channel.id), &channel.sealed).map_err(|error| error.to_string())?;
        serde_json::from_slice(opened.expose_secret()).map_err(|error| error.to_string())
    }
}

fn context(channel: ChannelId) -> String {
    format!("channel:{channel}")
}
