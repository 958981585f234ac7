//! How many connections a node takes: what its operator says, within what the limit of open files leaves room for.

use super::server::ListenerLimits;
use crate::domain::limits::{CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX, DESCRIPTORS_KEPT};

/// How many connections an operator asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionsAsked {
    /// In all.
    pub all: Option<usize>,
    /// Of one address.
    pub per_address: Option<usize>,
}

/// More connections are asked for than there can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "connections: {asked} are more than the {room} for which the limit of {files} open files leaves room; \
     ask for fewer, or raise the limit (ulimit -n, LimitNOFILE)"
)]
pub struct TooManyConnections {
    asked: usize,
    room: usize,
    files: usize,
}

impl ListenerLimits {
    /// Bounds connections by the number of files that the process may have open.
    ///
    /// # Errors
    /// Where more are asked for.
    pub fn within(self, files: usize, asked: ConnectionsAsked) -> Result<Self, TooManyConnections> {
        let room = files - DESCRIPTORS_KEPT.min(files / 2);
        let connections = match asked.all {
            Some(asked) if asked > room => return Err(TooManyConnections { asked, room, files }),
            Some(asked) => asked,
            None => CONNECTIONS_MAX.min(room),
        };
        let share = CONNECTIONS_PER_ADDRESS_MAX.min(connections.div_ceil(4));
        let per_address = asked.per_address.unwrap_or(share).min(connections);
        Ok(Self { connections, per_address, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_leave_room_for_connections_and_what_is_asked_for_is_held_to_it() {
        let asked = |all, per_address| ConnectionsAsked { all, per_address };
        let check = |files, asked, expected| {
            let limits = ListenerLimits::default().within(files, asked);
            assert_eq!(
                limits.map(|limits| (limits.connections, limits.per_address)).ok(),
                expected,
                "{files} {asked:?}"
            );
        };
        check(1_048_576, asked(None, None), Some((4_096, 1_024)));
        check(65_536, asked(Some(60_000), None), Some((60_000, 1_024)));
        check(65_536, asked(Some(60_000), Some(8_000)), Some((60_000, 8_000)));
        check(65_536, asked(Some(65_536), None), None);
        check(1_024, asked(None, None), Some((512, 128)));
        check(256, asked(None, None), Some((128, 32)));
        check(256, asked(Some(129), None), None);
        check(256, asked(None, Some(1_000)), Some((128, 128)));
    }
}
