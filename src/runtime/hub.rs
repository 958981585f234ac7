//! What this node folds, told to whoever follows it at the moment.

use crate::domain::id::{PartitionId, Position};
use crate::domain::partition::effect::{Effects, TransitionRow, WindowRow};
use std::sync::Arc;
use tokio::sync::broadcast;

/// Batches that wait for a follower before it is cut off.
const WAITING_MAX: usize = 1_024;

/// What a batch of records changed.
#[derive(Debug)]
pub struct Folded {
    /// Whose records.
    pub partition: PartitionId,
    /// The last record before them.
    pub after: Position,
    /// The last of them.
    pub through: Position,
    /// Window parts that changed.
    pub windows: Vec<WindowRow>,
    /// What happened to alert instances.
    pub transitions: Vec<TransitionRow>,
}

/// Where batches are told; cheap to clone.
#[derive(Clone, Debug)]
pub struct Hub {
    sender: broadcast::Sender<Arc<Folded>>,
}

impl Default for Hub {
    fn default() -> Self {
        Self { sender: broadcast::channel(WAITING_MAX).0 }
    }
}

impl Hub {
    /// Follows from here on.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Folded>> {
        self.sender.subscribe()
    }

    /// Tells a batch, where anybody follows.
    pub fn tell(&self, partition: PartitionId, (after, through): (Position, Position), effects: &Effects) {
        if self.sender.receiver_count() == 0 {
            return;
        }
        let (windows, transitions) = (effects.windows.clone(), effects.transitions.clone());
        let folded = Folded { partition, after, through, windows, transitions };
        // Who followed may be gone by now.
        drop(self.sender.send(Arc::new(folded)));
    }
}
