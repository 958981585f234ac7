//! Which partitions this node folds: all of them where the journal is its own, those that the group gives it where others
//! have a share.

use super::partitions::{Partitions, TakeError};
use crate::domain::id::PartitionId;
use crate::journal::Journal;

/// What decides which partitions are held; it ends with [`Ownership::end`].
#[derive(Debug)]
pub enum Ownership {
    /// All of them.
    All,
    /// None of them.
    Nothing,
    /// What the consumer group gives.
    #[cfg(feature = "kafka")]
    Shared(shared::Shared),
}

/// Why the partitions cannot be owned.
#[derive(Debug, thiserror::Error)]
pub enum OwnershipError {
    /// One cannot be folded.
    #[error(transparent)]
    Take(#[from] TakeError),
    /// The group cannot be joined.
    #[error("join the group of owners: {detail}")]
    Group {
        /// What the client said.
        detail: String,
    },
}

impl Ownership {
    /// Begins to take partitions, as a node that folds up to an engine version.
    ///
    /// # Errors
    /// Where they cannot be taken, or the group cannot be joined.
    pub async fn begin(
        journal: &Journal,
        partitions: &Partitions,
        engine_version: u32,
    ) -> Result<Self, OwnershipError> {
        match journal {
            Journal::Memory(_) | Journal::Sqlite(_) => {
                for partition in (0..journal.partitions()).map(PartitionId) {
                    partitions.take(partition).await?;
                }
                Ok(Self::All)
            }
            #[cfg(feature = "kafka")]
            Journal::Kafka(journal) => {
                shared::Shared::join(journal.settings(), engine_version, partitions.clone()).map(Self::Shared)
            }
        }
    }

    /// Gives everything back, in order.
    pub async fn end(self, partitions: &Partitions) {
        match self {
            Self::All | Self::Nothing => {}
            #[cfg(feature = "kafka")]
            Self::Shared(shared) => shared.leave().await,
        }
        partitions.end_all().await;
    }
}

#[cfg(feature = "kafka")]
mod shared {
    use super::{OwnershipError, Partitions};
    use crate::domain::id::PartitionId;
    use crate::journal::{Assignment, KafkaSettings, Membership};
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex, PoisonError};
    use tokio::runtime::Handle;
    use tokio::task::JoinHandle;

    /// A share of the partitions.
    #[derive(Debug)]
    pub struct Shared {
        membership: Membership,
    }

    /// Partitions that are being taken; one that is lost meanwhile is not taken any more.
    type Taking = Arc<Mutex<BTreeMap<PartitionId, JoinHandle<()>>>>;

    impl Shared {
        pub(super) fn join(
            settings: &KafkaSettings,
            engine_version: u32,
            partitions: Partitions,
        ) -> Result<Self, OwnershipError> {
            let runtime = Handle::current();
            let taking = Taking::default();
            let handle = move |assignment: Assignment| match assignment {
                Assignment::Taken(taken) => {
                    for partition in taken {
                        let partitions = partitions.clone();
                        let task = runtime.spawn(async move { partitions.take_at_last(partition).await });
                        taking.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, task);
                    }
                }
                Assignment::Lost(lost) => runtime.block_on(async {
                    let give_back = async |partition| {
                        let task = taking.lock().unwrap_or_else(PoisonError::into_inner).remove(&partition);
                        if let Some(task) = task {
                            task.abort();
                            // It ended, or was ended: either way it takes nothing any more.
                            drop(task.await);
                        }
                        partitions.release(partition).await;
                    };
                    futures::future::join_all(lost.into_iter().map(give_back)).await;
                }),
            };
            let joined = Membership::join(settings, engine_version, handle);
            joined
                .map(|membership| Self { membership })
                .map_err(|error| OwnershipError::Group { detail: error.to_string() })
        }

        pub(super) async fn leave(self) {
            let left = tokio::task::spawn_blocking(move || self.membership.leave()).await;
            if let Err(error) = left {
                tracing::error!(error = %error, "the group could not be left in order");
            }
        }
    }
}
