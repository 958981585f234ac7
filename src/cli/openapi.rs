//! `openapi`: prints the description of the API, as `/v1/openapi.json` serves it.

use super::exit::Code;
use super::terminal::say;

pub(super) fn run() -> anyhow::Result<Code> {
    say(&format!("{:#}", crate::api::openapi()));
    Ok(Code::Done)
}
