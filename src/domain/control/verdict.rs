//! What a command meets and what it may come to, before it is told: shared by the nouns of the fold.

use super::outcome::{Change, Outcome, Refused, Resource};
use crate::domain::id::{KeyId, Position, Tenant};
use crate::domain::time::Timestamp;

/// Where a command stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    /// Its place in the control log.
    pub(super) position: Position,
    /// The log's clock, which never goes back.
    pub(super) now: Timestamp,
    /// The time in the tenant's world before the command: a sandbox's clock may be ahead. Up to engine version 2 the same
    /// as `now`.
    pub(super) in_world: Timestamp,
    /// The workspace and mode that it acts on.
    pub(super) tenant: Tenant,
    /// The key that sent it.
    pub(super) actor: Option<KeyId>,
    /// The version that the caller expects.
    pub(super) if_match: Option<u64>,
    /// How the log asks to be folded, before the command.
    pub(super) engine_version: u32,
}

impl Context {
    /// Holds the caller to the version that they expect; 0 is the version of what has no record.
    pub(super) fn expect_version(&self, current: u64) -> Result<(), Refused> {
        match self.if_match {
            Some(expected) if expected != current => Err(Refused::VersionMismatch { expected, current }),
            Some(_) | None => Ok(()),
        }
    }
}

/// What an accepted command did.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    /// What the caller is told.
    pub(super) outcome: Outcome,
    /// What the partitions must learn, in order.
    pub(super) changes: Vec<Change>,
}

/// A command either does all that it asks for, or nothing.
pub(super) type Verdict = Result<Accepted, Refused>;

impl Accepted {
    pub(super) const fn created(resource: Resource) -> Self {
        Self { outcome: Outcome::Created(resource), changes: Vec::new() }
    }

    pub(super) const fn done(resource: Resource) -> Self {
        Self { outcome: Outcome::Done(resource), changes: Vec::new() }
    }

    pub(super) const fn deleted() -> Self {
        Self { outcome: Outcome::Deleted, changes: Vec::new() }
    }

    /// Tells the partitions.
    pub(super) fn telling(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }
}

/// Refuses for want of a thing.
pub(super) fn not_found(kind: &str, id: impl ToString) -> Refused {
    Refused::NotFound { kind: kind.to_owned(), id: id.to_string() }
}

/// Refuses because an id is taken.
pub(super) fn exists_already(kind: &str, id: impl ToString) -> Refused {
    Refused::Conflict { detail: format!("{kind} {} exists already", id.to_string()) }
}

/// Refuses one more where `count` is at the limit.
pub(super) fn room_for_one(count: usize, limit: usize, what: &str) -> Result<(), Refused> {
    if count < limit { Ok(()) } else { Err(Refused::LimitReached { what: what.to_owned(), limit }) }
}
