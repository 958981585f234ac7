//! Receipts: an opaque list of log positions that a 202 hands out.

use super::app::App;
use super::problem::Problem;
use crate::domain::id::{Log, PartitionId, Position};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use std::time::Duration;

/// How long `after=` waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// The newest position in each log that a request's events went to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Receipt(pub Vec<(Log, Position)>);

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: Vec<String> = self
            .0
            .iter()
            .filter_map(|(log, position)| match log {
                Log::Partition(partition) => Some(format!("{}.{position}", partition.0)),
                Log::Control => None,
            })
            .collect();
        write!(f, "rcp_{}", URL_SAFE_NO_PAD.encode(places.join("-")))
    }
}

impl Receipt {
    /// Reads a receipt.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix("rcp_")?).ok()?;
        let places = String::from_utf8(bytes).ok()?;
        let place = |place: &str| {
            let (partition, position) = place.split_once('.')?;
            Some((Log::Partition(PartitionId(partition.parse().ok()?)), Position(position.parse().ok()?)))
        };
        let places: Option<Vec<_>> = places.split('-').map(place).collect();
        places.map(Self).filter(|receipt| !receipt.0.is_empty())
    }

    fn partitions(&self) -> impl Iterator<Item = (PartitionId, Position)> {
        self.0.iter().filter_map(|(log, position)| match log {
            Log::Partition(partition) => Some((*partition, *position)),
            Log::Control => None,
        })
    }

    /// Tells whether the store holds everything.
    ///
    /// # Errors
    /// 404 where it speaks of records that do not exist, 503 where the store is away.
    pub(super) async fn is_applied(&self, app: &App) -> Result<bool, Problem> {
        for (partition, position) in self.partitions() {
            if position > end_of(app, partition, position).await? {
                return Err(Problem::not_found("receipt"));
            }
        }
        let stored = app.node.data.store.progress_all().await.map_err(store_away)?;
        let holds = |(partition, position): (PartitionId, Position)| {
            stored.get(&partition).is_some_and(|progress| progress.position >= position)
        };
        Ok(self.partitions().all(holds))
    }

    /// Waits until the store holds everything.
    ///
    /// # Errors
    /// As [`Self::is_applied`]; 503 `not_yet_applied` behind ten seconds.
    pub(super) async fn wait(&self, app: &App) -> Result<(), Problem> {
        if self.is_applied(app).await? {
            return Ok(());
        }
        let all = async {
            for (partition, position) in self.partitions() {
                app.node.data.store.wait_for(partition, position).await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.map_err(|_| {
            Problem::unavailable(
                "not_yet_applied",
                "the events of this receipt are durable but not counted yet; ask again",
            )
        })
    }
}

/// Where a partition's log ends: as this node knows it, or as the storage does where that is not far enough.
async fn end_of(app: &App, partition: PartitionId, at_least: Position) -> Result<Position, Problem> {
    let (journal, log) = (app.node.data.journal.clone(), Log::Partition(partition));
    let known = journal.end(log);
    if known >= at_least || !journal.is_shared() || partition.0 >= journal.partitions() {
        return Ok(known);
    }
    let asked = tokio::task::spawn_blocking(move || journal.end_now(log)).await;
    let asked = asked.map_err(|error| Problem::internal(&error))?;
    asked.map_err(|error| super::second_look::unconfirmed(&error))
}

/// 503: the read models are away; nothing is lost.
pub(super) fn store_away(error: crate::store::StoreError) -> Problem {
    tracing::warn!(error = %error, "the store did not answer");
    Problem::unavailable("not_ready", "the read models are not available; events are taken all the same")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_round_trip_and_nothing_else_does() {
        let receipt = Receipt(vec![
            (Log::Partition(PartitionId(0)), Position(7)),
            (Log::Partition(PartitionId(3)), Position(99)),
        ]);
        assert_eq!(Receipt::parse(&receipt.to_string()), Some(receipt));
        for bad in ["", "rcp_", "rcp_!!", "rcp_AAAA", "7.1"] {
            assert_eq!(Receipt::parse(bad), None, "{bad}");
        }
    }
}
