//! How many files, connections included, the process may have open at once.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one, and returns what holds.
///
/// Shells and service managers give processes a low soft limit for the sake of programs that use `select`.
pub fn raise() -> usize {
    let given = getrlimit(Resource::Nofile);
    if given.current != given.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: given.maximum, ..given })
    {
        tracing::warn!(error = %error, limit = given.current, "the limit of open files could not be raised");
    }
    let holds = getrlimit(Resource::Nofile).current;
    // No limit is none.
    holds.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}
