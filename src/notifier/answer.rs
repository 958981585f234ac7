//! What a receiver answered: as much of it as is kept, and nothing of somebody's own network.

use super::backoff;
use super::guard::Guard;
use crate::domain::limits::{RESPONSE_BYTES_KEPT, SLACK_WORD_BYTES_MAX};
use crate::domain::time::{Millis, Timestamp};
use reqwest::Response;
use reqwest::header::RETRY_AFTER;

/// Returns how long the receiver asks us to wait, from `now` on.
pub(super) fn retry_after(answer: &Response, now: Timestamp) -> Option<Millis> {
    backoff::asked(answer.headers().get(RETRY_AFTER)?.to_str().ok()?, now)
}

/// Reads what of an answer is kept and shown to people; nothing where it comes from inside of a network.
pub(super) async fn shown(answer: Response, guard: &Guard) -> String {
    let peer = answer.remote_addr().map(|address| address.ip());
    if guard.is_inside(answer.url(), peer) {
        return String::new();
    }
    beginning(answer, RESPONSE_BYTES_KEPT).await
}

/// As [`shown`], and Slack's word for the fault where the answer begins with one, wherever it comes from: such a word is
/// only compared, and shown to nobody.
pub(super) async fn word_and_shown(answer: Response, guard: &Guard) -> (String, String) {
    let peer = answer.remote_addr().map(|address| address.ip());
    let is_inside = guard.is_inside(answer.url(), peer);
    let text = beginning(answer, RESPONSE_BYTES_KEPT).await;
    let word: String = text.trim_start().chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
    (word, if is_inside { String::new() } else { text })
}

/// Reads the beginning of an answer; what is behind it is never read.
pub(super) async fn beginning(mut answer: Response, bytes_max: usize) -> String {
    let mut kept = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        let room = bytes_max.saturating_sub(kept.len());
        kept.extend_from_slice(chunk.get(..room.min(chunk.len())).unwrap_or_default());
        if kept.len() >= bytes_max {
            break;
        }
    }
    let mut text = String::from_utf8_lossy(&kept).into_owned();
    // What is no UTF-8 grows when it is replaced.
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

/// Tells whether a text has the form of Slack's words for faults, and is no page of somebody's network.
pub(super) fn is_word(text: &str) -> bool {
    text.len() <= SLACK_WORD_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_shown_of_what_an_innocent_name_of_a_private_address_answers() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inside = axum::Router::new().fallback(async || (axum::http::StatusCode::FORBIDDEN, "root:x:0:0"));
        let serving = tokio::spawn(async move { axum::serve(listener, inside).await });
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = reqwest::Client::builder().no_proxy().resolve("hooks.corp.example", address).build().unwrap();
        let url = format!("http://hooks.corp.example:{}/", address.port());
        let ask = async || client.get(&url).send().await.unwrap();
        assert_eq!(beginning(ask().await, 4).await, "root");
        for allow_hosts in [vec![], vec!["hooks.corp.example".to_owned()]] {
            let guard = Guard { allow_hosts, ..Guard::default() };
            assert_eq!(shown(ask().await, &guard).await, "");
        }
        serving.abort();
    }

    #[test]
    fn only_a_word_is_taken_for_one_of_slacks() {
        assert!(is_word("channel_not_found"));
        for text in ["root:x:0:0", "two words", "Capital", &"a".repeat(SLACK_WORD_BYTES_MAX + 1)] {
            assert!(!is_word(text), "{text}");
        }
    }
}
