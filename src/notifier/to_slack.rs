//! Sending to Slack: by an incoming webhook, or as a bot. Where Slack does not take a message's blocks it is sent again at
//! once without them, so that no page is lost to a rule of their layout.

use super::client::{Failure, Notifier, Outgoing, Sent};
use super::{answer, digest, slack};
use crate::domain::limits::RESPONSE_BYTES_MAX;
use crate::domain::time::Timestamp;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

impl Notifier {
    pub(super) async fn slack_webhook(
        &self,
        url: &SecretString,
        message: Outgoing<'_>,
        now: Timestamp,
    ) -> Result<Sent, Failure> {
        let url = self.vetted(url.expose_secret())?;
        let body = self.slack_message(message).to_string();
        match self.post_to_slack(url.clone(), body, now).await {
            Err(SlackFailure { refuses_blocks: true, .. }) => {
                let body = self.slack_plain(message).to_string();
                self.post_to_slack(url, body, now).await.map_err(|failed| failed.failure)
            }
            result => result.map_err(|failed| failed.failure),
        }
    }

    async fn post_to_slack(&self, url: Url, body: String, now: Timestamp) -> Result<Sent, SlackFailure> {
        let answer = self.perform(self.client.post(url).body(body)).await.map_err(SlackFailure::from)?;
        let status = answer.status().as_u16();
        if answer.status().is_success() {
            return Ok(Sent { status, thread: None });
        }
        let retry_after = answer::retry_after(&answer, now);
        let (word, body) = answer::word_and_shown(answer, &self.guard).await;
        let refuses_blocks = status == 400 && refuses_blocks(&word);
        Err(SlackFailure { refuses_blocks, failure: Failure::Status { code: status, retry_after, body, slack: true } })
    }

    pub(super) async fn slack_bot(
        &self,
        (token, channel, api): (&SecretString, &str, Option<&Url>),
        message: Outgoing<'_>,
        now: Timestamp,
    ) -> Result<Sent, Failure> {
        let base = api.map_or("https://slack.com/api/", Url::as_str);
        let url = self.vetted(&format!("{}/chat.postMessage", base.trim_end_matches('/')))?;
        match self.post_as_bot(&url, (token, channel), (self.slack_message(message), message), now).await {
            Err(Failure::Slack { error, .. }) if refuses_blocks(&error) => {
                self.post_as_bot(&url, (token, channel), (self.slack_plain(message), message), now).await
            }
            result => result,
        }
    }

    async fn post_as_bot(
        &self,
        url: &Url,
        (token, channel): (&SecretString, &str),
        (mut body, message): (serde_json::Value, Outgoing<'_>),
        now: Timestamp,
    ) -> Result<Sent, Failure> {
        body["channel"] = channel.into();
        if let Outgoing::One(_, Some(thread)) = message {
            body["thread_ts"] = thread.into();
        }
        let request = self.client.post(url.clone()).bearer_auth(token.expose_secret()).body(body.to_string());
        let answer = self.perform(request).await?;
        let (status, retry_after) = (answer.status(), answer::retry_after(&answer, now));
        if !status.is_success() {
            let body = answer::shown(answer, &self.guard).await;
            return Err(Failure::Status { code: status.as_u16(), retry_after, body, slack: true });
        }
        let text = answer::beginning(answer, RESPONSE_BYTES_MAX).await;
        #[derive(serde::Deserialize)]
        struct Answer {
            ok: bool,
            error: Option<String>,
            ts: Option<String>,
        }
        match serde_json::from_str(&text) {
            Ok(Answer { ok: true, ts, .. }) => Ok(Sent { status: status.as_u16(), thread: ts }),
            Ok(Answer { error, .. }) => {
                let error = error.filter(|word| answer::is_word(word));
                Err(Failure::Slack { error: error.unwrap_or_else(|| "no reason".to_owned()), retry_after })
            }
            Err(_) => Err(Failure::Slack { error: "internal_error".to_owned(), retry_after }),
        }
    }

    pub(super) fn slack_message(&self, message: Outgoing<'_>) -> serde_json::Value {
        match message {
            Outgoing::One(notification, _) => slack::message(notification, &self.base_url),
            Outgoing::Digest(notifications) => digest::digest(notifications, &self.base_url),
        }
    }

    fn slack_plain(&self, message: Outgoing<'_>) -> serde_json::Value {
        match message {
            Outgoing::One(notification, _) => slack::plain(notification, &self.base_url),
            Outgoing::Digest(notifications) => digest::plain(notifications, &self.base_url),
        }
    }
}

/// Why Slack did not take a message, and whether it would take one without blocks.
struct SlackFailure {
    refuses_blocks: bool,
    failure: Failure,
}

impl From<Failure> for SlackFailure {
    fn from(failure: Failure) -> Self {
        Self { refuses_blocks: false, failure }
    }
}

/// Tells whether Slack's word for a fault is about the layout of a message, and not about where it goes.
fn refuses_blocks(word: &str) -> bool {
    matches!(word, "invalid_blocks" | "invalid_blocks_format" | "msg_blocks_too_long" | "invalid_attachments")
}
