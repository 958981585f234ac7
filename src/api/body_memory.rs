//! The bytes that request bodies hold, of all requests together: one budget, of which a workspace gets a share, and all who
//! present no credential a small one.

use super::problem::Problem;
use crate::domain::id::WorkspaceId;
use crate::domain::limits::{ANONYMOUS_BODY_MEMORY, BODY_MEMORY_WAIT};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// The budget; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct BodyMemory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    held: Mutex<Held>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    anonymous: usize,
    /// Those that hold something.
    workspaces: HashMap<WorkspaceId, usize>,
}

/// Bytes that a request holds, until this is dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    memory: BodyMemory,
    /// Whose they are; nobody's without a credential.
    workspace: Option<WorkspaceId>,
    bytes: usize,
}

impl BodyMemory {
    /// A budget of so many bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self(Arc::new(Shared { limit, held: Mutex::default(), freed: Notify::new() }))
    }

    /// The bytes that are held at present.
    pub(super) fn held(&self) -> usize {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner).all
    }

    /// The budget in bytes.
    pub(super) fn limit(&self) -> usize {
        self.0.limit
    }

    /// Reserves nothing yet.
    pub(super) fn begin(&self, workspace: Option<WorkspaceId>) -> Reserved {
        Reserved { memory: self.clone(), workspace, bytes: 0 }
    }
}

impl Held {
    /// Takes bytes where the budget and the share of who asks have room. Whoever holds nothing gets what they need as long as
    /// the budget has room, however small their share is.
    fn take(&mut self, limit: usize, workspace: Option<WorkspaceId>, bytes: usize) -> bool {
        if self.all.saturating_add(bytes) > limit {
            return false;
        }
        let (held, share) = match workspace {
            Some(workspace) => (self.workspaces.get(&workspace).copied().unwrap_or_default(), limit / 2),
            None => (self.anonymous, ANONYMOUS_BODY_MEMORY.min(limit / 2)),
        };
        if held > 0 && held.saturating_add(bytes) > share {
            return false;
        }
        self.all += bytes;
        match workspace {
            Some(workspace) => *self.workspaces.entry(workspace).or_default() += bytes,
            None => self.anonymous += bytes,
        }
        true
    }

    fn give_back(&mut self, workspace: Option<WorkspaceId>, bytes: usize) {
        self.all = self.all.saturating_sub(bytes);
        let Some(workspace) = workspace else {
            self.anonymous = self.anonymous.saturating_sub(bytes);
            return;
        };
        if let Some(held) = self.workspaces.get_mut(&workspace) {
            *held = held.saturating_sub(bytes);
            if *held == 0 {
                self.workspaces.remove(&workspace);
            }
        }
    }
}

impl Reserved {
    /// Reserves more bytes; waits a moment for others to be done.
    ///
    /// # Errors
    /// 503 `overloaded` where there is no room.
    pub(super) async fn add(&mut self, bytes: usize) -> Result<(), Problem> {
        let shared = Arc::clone(&self.memory.0);
        let take =
            || shared.held.lock().unwrap_or_else(PoisonError::into_inner).take(shared.limit, self.workspace, bytes);
        if bytes == 0 || take() {
            self.bytes += bytes;
            return Ok(());
        }
        let wait = Duration::from_millis(u64::try_from(BODY_MEMORY_WAIT.0).unwrap_or(0));
        let has_room = tokio::time::timeout(wait, async {
            loop {
                let freed = shared.freed.notified();
                if take() {
                    return;
                }
                freed.await;
            }
        });
        if has_room.await.is_ok() {
            self.bytes += bytes;
            return Ok(());
        }
        let credential = if self.workspace.is_some() { "present" } else { "none" };
        crate::telemetry::counter("highwater_bodies_refused_total", &[("credential", credential)], 1);
        Err(Problem::unavailable("overloaded", "too many bytes of request bodies are under way; try again"))
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.bytes > 0 {
            let shared = &self.memory.0;
            let mut held = shared.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.give_back(self.workspace, self.bytes);
            drop(held);
            shared.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Option<WorkspaceId> = Some(WorkspaceId(1));
    const OTHER: Option<WorkspaceId> = Some(WorkspaceId(2));

    #[tokio::test]
    async fn nobody_gets_more_than_their_share_and_all_no_more_than_the_budget() {
        let memory = BodyMemory::new(8 << 20);
        let mut own = memory.begin(ONE);
        own.add(4 << 20).await.unwrap();
        assert_eq!(own.add(1).await.unwrap_err().code, "overloaded");
        let mut anonymous = memory.begin(None);
        anonymous.add(ANONYMOUS_BODY_MEMORY).await.unwrap();
        assert_eq!(memory.begin(None).add(1).await.unwrap_err().code, "overloaded");
        let mut other = memory.begin(OTHER);
        other.add(3 << 20).await.unwrap();
        assert_eq!(memory.held(), memory.limit());
        assert_eq!(memory.begin(Some(WorkspaceId(3))).add(1).await.unwrap_err().code, "overloaded");
        drop((own, anonymous, other));
        assert_eq!(memory.held(), 0);
        // What is larger than a share is let in alone.
        let mut large = memory.begin(ONE);
        large.add(6 << 20).await.unwrap();
        assert_eq!(memory.begin(ONE).add(1).await.unwrap_err().code, "overloaded");
        memory.begin(OTHER).add(2 << 20).await.unwrap();
    }

    #[tokio::test]
    async fn who_waits_gets_what_others_give_back() {
        let memory = BodyMemory::new(1 << 20);
        let mut first = memory.begin(ONE);
        first.add(1 << 20).await.unwrap();
        let waiting = tokio::spawn({
            let mut second = memory.begin(OTHER);
            async move { second.add(1 << 20).await.map(|()| second) }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        drop(first);
        let second = waiting.await.unwrap().unwrap();
        assert_eq!(memory.held(), 1 << 20);
        drop(second);
        assert_eq!(memory.held(), 0);
    }
}
