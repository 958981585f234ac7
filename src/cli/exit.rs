//! The named exit codes, and which error leads to which.

use crate::api::{ServeError, TlsError, TooManyConnections};
use crate::config::ConfigError;
use crate::folder::FolderError;
use crate::journal::{AppendError, OpenError, ReadError};
use crate::runtime::control::FoldError as ControlFoldError;
use crate::runtime::data::StartError;
use crate::runtime::offline::OfflineError;
use crate::runtime::ownership::OwnershipError;
use crate::runtime::partitions::TakeError;
use crate::runtime::processor::FoldError;
use crate::runtime::repair::RepairError;
use crate::store::StoreError;
use std::process::ExitCode;

/// What the help says of them.
pub(super) const CODES: &str = "\
Exit codes: 0 done · 1 failed · 2 wrong arguments or configuration · 3 the data is in use ·
  4 the data is damaged, of a later release, or the journal is not the newest one · 5 verify found drift ·
  6 import refused some lines · 7 an address is taken · 8 refused: there is an owner key already ·
  9 refused: another node or store keeps the rows of this journal ·
  10 there was nothing to compare, to replay or to repair: the journal is empty, or the store is missing";

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    Done = 0,
    Failed = 1,
    Usage = 2,
    InUse = 3,
    Damaged = 4,
    Drift = 5,
    LinesRefused = 6,
    AddressTaken = 7,
    Bootstrapped = 8,
    OtherKeeper = 9,
    NothingThere = 10,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// The code that an error ends in: that of the innermost cause that has one.
pub(super) fn code_of(error: &anyhow::Error) -> Code {
    error.chain().filter_map(code_of_cause).last().unwrap_or(Code::Failed)
}

fn code_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Code> {
    if cause.is::<ConfigError>() || cause.is::<TlsError>() || cause.is::<TooManyConnections>() {
        return Some(Code::Usage);
    }
    if cause.is::<ServeError>() {
        return Some(Code::AddressTaken);
    }
    match cause.downcast_ref() {
        Some(FolderError::InUse { .. }) => return Some(Code::InUse),
        Some(FolderError::MasterKey { .. }) => return Some(Code::Damaged),
        Some(FolderError::Io { .. }) | None => {}
    }
    // A transparent error stands for its cause, and is the only one of the two in the chain.
    match cause.downcast_ref() {
        Some(StartError::Folder(inner)) => return code_of_cause(inner),
        Some(StartError::Control(inner)) => return code_of_cause(inner),
        Some(StartError::JournalBehind(_)) => return Some(Code::Damaged),
        Some(StartError::OtherKeeper { .. }) => return Some(Code::OtherKeeper),
        Some(StartError::Ownership(OwnershipError::Take(inner))) => return code_of_cause(inner),
        Some(_) | None => {}
    }
    match cause.downcast_ref() {
        Some(OfflineError::Start(inner)) => return code_of_cause(inner),
        Some(OfflineError::Fold(inner)) => return code_of_cause(inner),
        Some(OfflineError::Read(inner)) => return code_of_cause(inner),
        Some(OfflineError::Store(inner)) => return code_of_cause(inner),
        Some(OfflineError::Control(inner)) => return code_of_cause(inner),
        Some(_) | None => {}
    }
    if let Some(RepairError::Offline(inner)) = cause.downcast_ref() {
        return code_of_cause(inner);
    }
    is_damage(cause).then_some(Code::Damaged)
}

/// Tells damage from a storage that does not answer.
fn is_damage(cause: &(dyn std::error::Error + 'static)) -> bool {
    let read = match cause.downcast_ref() {
        Some(OpenError::Read(inner)) => Some(inner),
        Some(_) | None => cause.downcast_ref(),
    };
    read.is_some_and(|error| match error {
        ReadError::Damaged { .. } | ReadError::Gap { .. } | ReadError::CutBack { .. } => true,
        ReadError::Storage { .. } => false,
    }) || matches!(cause.downcast_ref(), Some(OpenError::Damaged { .. }))
        || matches!(cause.downcast_ref(), Some(AppendError::Damaged { .. }))
        || matches!(cause.downcast_ref(), Some(StoreError::Damaged { .. }))
        || matches!(cause.downcast_ref(), Some(FoldError::Fact { .. } | FoldError::TooNew { .. }))
        || matches!(cause.downcast_ref(), Some(ControlFoldError::Entry { .. } | ControlFoldError::TooNew { .. }))
        || matches!(cause.downcast_ref(), Some(TakeError::JournalBehind(_)))
}
