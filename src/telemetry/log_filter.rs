//! Reads what is logged (`--log`) strictly: a slip is an error, and never a server that says nothing.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{Directive, LevelFilter};

/// What holds for everything that no directive names.
const OTHERWISE: &str = "info";
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
/// What every message ends with.
const EXPECTED: &str =
    "expected error, warn, info, debug, trace or off, or directives with one of them such as info,highwater::api=debug";

/// Why a filter of the log is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogFilterError {
    /// There is a directive without any text.
    #[error("{filter:?} has an empty directive; {EXPECTED}")]
    Empty {
        /// The whole filter.
        filter: String,
    },
    /// A word stands where a level must.
    #[error("{word:?} is not a level{}; {EXPECTED}", suggestion(*nearest))]
    Level {
        /// The word.
        word: String,
        /// The level that was probably meant.
        nearest: Option<&'static str>,
    },
    /// A directive has a level, and something else is wrong with it.
    #[error("{directive:?} is not a directive ({detail}); {EXPECTED}")]
    Directive {
        /// The directive.
        directive: String,
        /// What is wrong with it.
        detail: String,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!(", did you mean {nearest}?")).unwrap_or_default()
}

/// Reads a filter: levels, and directives that end with one. `info` holds for what none of them names.
///
/// The library takes a word that it does not know for the name of a module, so that `verbose` would log nothing at all.
///
/// # Errors
/// Where a word is neither.
pub(super) fn parse(filter: &str) -> Result<EnvFilter, LogFilterError> {
    let mut directives = Vec::new();
    for text in filter.split(',').map(str::trim) {
        check(filter, text)?;
        directives.push(text);
    }
    if !directives.iter().any(|text| is_level(text)) {
        directives.insert(0, OTHERWISE);
    }
    let text = directives.join(",");
    EnvFilter::try_new(&text)
        .map_err(|error| LogFilterError::Directive { directive: filter.to_owned(), detail: error.to_string() })
}

/// Tells whether a directive is a level, which then holds for everything that no other one names.
fn is_level(text: &str) -> bool {
    // The library reads nothing as `error`.
    !text.is_empty() && text.parse::<LevelFilter>().is_ok()
}

fn check(filter: &str, text: &str) -> Result<(), LogFilterError> {
    if text.is_empty() {
        return Err(LogFilterError::Empty { filter: filter.to_owned() });
    }
    let unreadable = |detail: &str| LogFilterError::Directive { directive: text.to_owned(), detail: detail.to_owned() };
    let level = match text.rsplit_once('=') {
        Some((target, _)) if target.trim().is_empty() => return Err(unreadable("nothing stands before =")),
        Some((_, level)) => level,
        None => text,
    };
    if !is_level(level) {
        let near = |known: &&&str| strsim::levenshtein(known, &level.to_ascii_lowercase()) <= 2;
        let nearest = LEVELS.iter().filter(near).min_by_key(|known| strsim::levenshtein(known, level)).copied();
        return Err(LogFilterError::Level { word: level.to_owned(), nearest });
    }
    text.parse::<Directive>().map(drop).map_err(|error| unreadable(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_level_is_refused_with_what_is() {
        let check = |filter: &str, says: &str| match parse(filter) {
            Ok(read) => assert!(says.is_empty(), "{filter:?} was taken as {read}"),
            Err(error) => {
                let said = error.to_string();
                assert!(
                    !says.is_empty() && said.starts_with(says) && said.contains("debug, trace"),
                    "{filter:?}: {said}"
                );
            }
        };
        for taken in [
            "info",
            "WARN",
            "off",
            "0",
            "info,highwater::api=debug",
            "highwater::api=debug",
            "info, hyper=warn",
            "[request{status=503}]=debug",
        ] {
            check(taken, "");
        }
        check("verbose", "\"verbose\" is not a level;");
        check("inof", "\"inof\" is not a level, did you mean info?;");
        check("warning", "\"warning\" is not a level");
        check("info,verbose", "\"verbose\" is not a level;");
        check("highwater::api", "\"highwater::api\" is not a level;");
        check("highwater::api=loud", "\"loud\" is not a level;");
        check("highwater::api=", "\"\" is not a level;");
        check("[request{status=503}]", "\"503}]\" is not a level;");
        check("=debug", "\"=debug\" is not a directive (nothing stands before =);");
        check("", "\"\" has an empty directive;");
        check("info,", "\"info,\" has an empty directive;");
        check("6", "\"6\" is not a level;");
    }

    #[test]
    fn what_no_directive_names_is_logged_all_the_same() {
        assert_eq!(parse("highwater::api=debug").unwrap().max_level_hint(), Some(LevelFilter::DEBUG));
        assert_eq!(parse("highwater::apy=warn").unwrap().max_level_hint(), Some(LevelFilter::INFO));
        assert_eq!(parse("error").unwrap().max_level_hint(), Some(LevelFilter::ERROR));
        assert_eq!(parse("off").unwrap().max_level_hint(), Some(LevelFilter::OFF));
    }
}
