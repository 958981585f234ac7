//! API requests by project: counted in memory, and taken in as ordinary events of the system's own workspace.
//!
//! That workspace has no keys, so nobody sends to it, and its accounts are nobody's: no list, alert or quota of people
//! meets them. What is counted and not yet flushed is lost with a process that is killed, and flushed by one that stops.

use super::clock;
use super::ingest::{IdSource, Ingest, Sender};
use crate::domain::event::UsageEvent;
use crate::domain::id::{AccountId, Epoch, MetricName, Mode, ProjectId, Tenant, WorkspaceId};
use crate::domain::limits::{COUNTED_PROJECTS_MAX, REQUESTS_FLUSH_EVERY};
use crate::domain::quantity::Quantity;
use crate::domain::time::{Millis, Timestamp, WINDOW};
use crate::store::{Store, StoreError, WindowQuery};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Where the system counts for itself.
pub const SYSTEM_WORKSPACE: WorkspaceId = WorkspaceId(0);
const METRIC: &str = "highwater.api_requests";

/// Requests that are not flushed yet; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Requests(Arc<Mutex<BTreeMap<(Mode, ProjectId), u64>>>);

impl Requests {
    /// Counts one request of a project.
    pub fn count(&self, mode: Mode, project: ProjectId) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() < COUNTED_PROJECTS_MAX || open.contains_key(&(mode, project)) {
            *open.entry((mode, project)).or_default() += 1;
        } else {
            crate::telemetry::counter("highwater_requests_uncounted_total", &[], 1);
        }
    }

    fn take(&self) -> BTreeMap<(Mode, ProjectId), u64> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Returns how many requests a project had in the 24 hours before `now`, by whole 5-minute windows.
///
/// # Errors
/// Where the store is away.
pub async fn requests_24h(
    store: &Store,
    mode: Mode,
    project: ProjectId,
    now: Timestamp,
) -> Result<Quantity, StoreError> {
    let names = (AccountId::new(&project.to_string()), MetricName::new(METRIC));
    let (Ok(account), Ok(metric)) = names else { return Ok(Quantity::ZERO) };
    let query = WindowQuery {
        tenant: tenant(mode),
        epoch: Epoch::default(),
        account,
        metric: Some(metric),
        from: now.minus(Millis::hours(24)).round_up(WINDOW),
        to: now.plus(WINDOW),
        width: WINDOW,
        groups: false,
    };
    Ok(store.total(query).await?.sum)
}

const fn tenant(mode: Mode) -> Tenant {
    Tenant { workspace: SYSTEM_WORKSPACE, mode }
}

/// Counts that are on their way into the journal, under ids that stay the same at every try.
#[derive(Debug)]
struct Sealed {
    counts: Vec<((Mode, ProjectId), u64)>,
    /// Tells this one from all others of all processes.
    id: String,
    at: Timestamp,
}

/// Flushes what is counted, until `stop` says so; then once more.
pub(super) async fn run(requests: Requests, ingest: Ingest, mut stop: watch::Receiver<bool>) {
    let pause = Duration::from_millis(u64::try_from(REQUESTS_FLUSH_EVERY.0).unwrap_or(0));
    let mut under_way = None;
    while !*stop.borrow() {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.changed() => {}
        }
        // What could not be appended may be in all the same, so it is tried again as it was, before what came since.
        for _ in 0..2 {
            let sealed = under_way.take().or_else(|| seal(&requests));
            let Some(sealed) = sealed else { break };
            if !append(&ingest, &sealed).await {
                under_way = Some(sealed);
                break;
            }
        }
    }
}

fn seal(requests: &Requests) -> Option<Sealed> {
    let counts: Vec<_> = requests.take().into_iter().collect();
    (!counts.is_empty()).then(|| Sealed { counts, id: ulid::Ulid(clock::ulid()).to_string(), at: clock::now() })
}

/// Tells whether the counts are durable.
async fn append(ingest: &Ingest, sealed: &Sealed) -> bool {
    let mut prepared = super::ingest::Prepared::default();
    for mode in [Mode::Live, Mode::Sandbox] {
        let sender = Sender { tenant: tenant(mode), ids: IdSource::Fresh, backfill: false };
        let mut batch = ingest.batch(&sender);
        for ((_, project), count) in sealed.counts.iter().filter(|((of, _), _)| *of == mode) {
            let event = UsageEvent {
                account_id: Cow::Owned(project.to_string()),
                metric: Cow::Borrowed(METRIC),
                value: Quantity::whole(i64::try_from(*count).unwrap_or(i64::MAX)),
                id: None,
                source: None,
                timestamp: Some(sealed.at),
                project_id: Some(*project),
                dimensions: Vec::new(),
                reduction: None,
            };
            if let Err(refusal) = batch.push_as(&event, &sealed.id, sealed.at) {
                tracing::error!(project.id = %project, detail = refusal.detail, "requests of a project are not counted");
            }
        }
        prepared.absorb(batch.finish());
    }
    match ingest.append(prepared).await {
        Ok(_) => true,
        Err(error) => {
            tracing::warn!(error = %error, "counts of requests wait for the journal");
            false
        }
    }
}
