//! `openapi`: prints the description of the API, as `/v1/openapi.json` serves it.

use super::exit::Code;
use super::terminal::say;

pub(super) fn run() -> anyhow::Result<Code> {
    say(&crate::api::openapi().to_pretty_json()?);
    Ok(Code::Done)
}
