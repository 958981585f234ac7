//! `GET /v1/stream`: server-sent events of what the folds derive. An event's id is a list of log positions, behind which a
//! client that comes back goes on.

use super::app::{App, Caller};
use super::docs::Problems;
use super::input::Query;
use super::problem::Problem;
use super::receipt::Receipt;
use super::stream_rows::{Filter, Line};
use crate::credential::Principal;
use crate::domain::control::resource::Scope;
use crate::domain::id::{KeyId, Log, PartitionId, Position};
use crate::domain::limits::{STREAM_PAGE_ROWS, STREAMS_PER_KEY_MAX};
use crate::runtime::control::ControlPlane;
use crate::runtime::hub::Folded;
use crate::store::ChangeQuery;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, RawQuery, State};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::response::Response;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, broadcast, mpsc, watch};

/// How often a stream says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often what other nodes fold is looked for, and whether the node goes down.
const ROUND: Duration = Duration::from_secs(1);
/// How often it is looked whether the key has expired; whatever else ends it is in the control log, whose every entry is looked at.
const STANDING_ROUND: Duration = Duration::from_millis(500);
/// How long a client may take for a piece before it is cut off.
const READER_PATIENCE: Duration = Duration::from_secs(10);
/// How long the store may take to hold what was folded before a stream ends, to be asked for again.
const STORE_PATIENCE: Duration = Duration::from_secs(30);
/// Pieces that wait for the client.
const PIECES_WAITING: usize = 64;

/// How many streams each key follows.
pub(super) type Followers = Arc<Mutex<HashMap<KeyId, usize>>>;

/// Cuts a request off, where its client takes nothing any more: with its connection, or alone where others share that.
#[derive(Clone, Debug, Default)]
pub(super) struct Hangup(pub(super) Arc<Notify>);

/// One stream of a key; the count goes down when it ends.
struct Place {
    followers: Followers,
    key: KeyId,
}

impl Place {
    fn take(followers: &Followers, key: KeyId) -> Result<Self, Problem> {
        let mut all = followers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(key).or_default();
        if *count >= STREAMS_PER_KEY_MAX {
            let detail = format!("this key follows {STREAMS_PER_KEY_MAX} streams already; close one");
            let problem = Problem::too_often("rate_limited", "streams", detail, 1);
            return Err(problem.with("limit", STREAMS_PER_KEY_MAX));
        }
        *count += 1;
        Ok(Self { followers: Arc::clone(followers), key })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                all.remove(&self.key);
            }
        }
    }
}

/// Follows alert states (`alert.state`) and usage windows (`usage.window`), as the key's scopes allow.
///
/// A window is told as a part with all that was counted in it so far; parts of one window add up. `Last-Event-ID` goes on
/// behind the event that it names, without loss; the last change may come twice.
#[utoipa::path(
    get, path = "/v1/stream", tag = "stream", operation_id = "stream",
    params(("account_id" = Option<Vec<String>>, Query), ("Last-Event-ID" = Option<String>, Header)),
    responses((status = 200, description = "Server-sent events", body = String, content_type = "text/event-stream"),
              (status = 429, description = "The key follows 5 streams already", body = super::problem::ProblemBody,
               content_type = "application/problem+json"), Problems),
    security(("key" = ["read:usage"]), ("key" = ["read:alerts"]))
)]
pub(super) async fn follow(
    State(app): State<App>,
    caller: Caller,
    hangup: Option<Extension<Hangup>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let (usage, alerts) = (caller.principal.may(Scope::ReadUsage), caller.principal.may(Scope::ReadAlerts));
    if !alerts {
        caller.require(Scope::ReadUsage)?;
    }
    let query = Query::read(query.as_deref(), &["account_id"])?;
    let accounts = query.read_all("account_id", crate::domain::id::AccountId::EXPECTED, |text| {
        crate::domain::id::AccountId::new(text).ok()
    })?;
    let wrong = || Problem::bad_request("invalid_header", "Last-Event-ID is no id of an event of this stream");
    let resumed = match headers.get("last-event-id").filter(|value| !value.is_empty()) {
        None => None,
        Some(value) => Some(value.to_str().ok().and_then(Receipt::parse).ok_or_else(wrong)?),
    };
    let place = Place::take(&app.followers, caller.principal.lineage)?;
    let batches = app.node.hub.follow();
    let covered = covered(&app, resumed).await?;
    let (pieces, waiting) = mpsc::channel(PIECES_WAITING);
    let (tenant, control) = (caller.principal.tenant, app.node.data.control.clone());
    let filter = Filter { tenant, usage, alerts, accounts, projects: caller.principal.projects.clone(), control };
    let standing =
        Standing { control: app.node.data.control.clone(), principal: caller.principal, from: caller.address };
    let follower = Follower { app, filter, covered, pieces };
    let (over, is_over) = watch::channel(false);
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = follower.run(batches) => ended,
            () = standing.ends() => {
                // What waits for the client is not told any more.
                over.send_replace(true);
                Err(End::Over)
            }
        };
        let reader_left = ended.is_err_and(|end| matches!(end, End::Slow));
        if reader_left && let Some(Extension(Hangup(hangup))) = hangup {
            hangup.notify_one();
        }
        drop(place);
    });
    let body = futures::stream::unfold((waiting, is_over), |(mut waiting, mut is_over)| async {
        let piece: Bytes = tokio::select! {
            biased;
            true = told_over(&mut is_over) => return None,
            piece = waiting.recv() => piece?,
        };
        Some((Ok::<_, Infallible>(piece), (waiting, is_over)))
    });
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// Behind which positions the stream begins: where the client left, else here.
async fn covered(app: &App, resumed: Option<Receipt>) -> Result<BTreeMap<PartitionId, Position>, Problem> {
    let stored = app.node.data.store.progress_all().await.map_err(super::receipt::store_away)?;
    let mut covered: BTreeMap<PartitionId, Position> = (0..app.node.data.journal.partitions())
        .map(PartitionId)
        .map(|partition| (partition, stored.get(&partition).map_or(Position::START, |progress| progress.position)))
        .collect();
    for held in app.node.partitions.held() {
        let position = Position(held.processor.gauges.position.load(Ordering::Acquire));
        covered.insert(held.processor.partition, position);
    }
    for (log, position) in resumed.map(|receipt| receipt.0).unwrap_or_default() {
        if let Log::Partition(partition) = log
            && let Some(known) = covered.get_mut(&partition)
        {
            // One that is ahead of everything is none of ours, or of a journal that was set back.
            *known = position.min(*known);
        }
    }
    Ok(covered)
}

/// Why a stream ends.
enum End {
    /// The client went.
    Gone,
    /// It took nothing for too long.
    Slow,
    /// The node goes down, the key ended, or the store is away: the client comes back.
    Over,
}

/// Whose stream it is, and from where.
struct Standing {
    control: ControlPlane,
    principal: Principal,
    from: IpAddr,
}

impl Standing {
    /// Waits until the key or token would not be let in any more from there. It waits for nothing else, so that no slow client and
    /// no slow store puts the end off.
    async fn ends(&self) {
        let mut position = self.control.watch();
        loop {
            let now = crate::runtime::clock::now();
            if !self.principal.still_stands(&self.control.state(), self.from, now) {
                return;
            }
            let _changed_or_late = tokio::time::timeout(STANDING_ROUND, position.changed()).await;
        }
    }
}

/// Waits until a stream is over; false where it ends by itself.
async fn told_over(is_over: &mut watch::Receiver<bool>) -> bool {
    is_over.wait_for(|over| *over).await.is_ok()
}

struct Follower {
    app: App,
    filter: Filter,
    /// Up to where everything was told, by partition.
    covered: BTreeMap<PartitionId, Position>,
    pieces: mpsc::Sender<Bytes>,
}

impl Follower {
    async fn run(mut self, mut batches: broadcast::Receiver<Arc<Folded>>) -> Result<(), End> {
        self.send(format!("retry: 1000\n: following\nid: {}\n\n", self.id())).await?;
        self.catch_up(true).await?;
        let mut round = tokio::time::interval(ROUND);
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.reset();
        loop {
            tokio::select! {
                batch = batches.recv() => match batch {
                    Ok(batch) => self.take(&batch).await?,
                    Err(broadcast::error::RecvError::Lagged(_)) => return Err(End::Slow),
                    Err(broadcast::error::RecvError::Closed) => return Err(End::Over),
                },
                _ = round.tick() => {
                    if self.app.draining.load(Ordering::Relaxed) {
                        return Err(End::Over);
                    }
                    self.catch_up(false).await?;
                }
                _ = heartbeat.tick() => {
                    self.send(format!(": heartbeat\nid: {}\n\n", self.id())).await?;
                }
                () = self.pieces.closed() => return Err(End::Gone),
            }
        }
    }

    /// Tells a batch of this node's own folds.
    async fn take(&mut self, batch: &Folded) -> Result<(), End> {
        let known = self.covered.get(&batch.partition).copied().unwrap_or_default();
        if batch.through <= known {
            return Ok(());
        }
        if batch.after > known {
            // Records lie between that this node did not fold before our eyes.
            return self.read_store(BTreeMap::from([(batch.partition, batch.through)])).await;
        }
        let lines = self.filter.lines(&batch.transitions, &batch.windows, |position| position > known);
        self.covered.insert(batch.partition, batch.through);
        self.tell(lines).await
    }

    /// Tells what the store holds of partitions that are folded elsewhere, and at first of all.
    async fn catch_up(&mut self, all: bool) -> Result<(), End> {
        let mut wanted = BTreeMap::new();
        let held = self.app.node.partitions.held();
        for held in &held {
            let position = Position(held.processor.gauges.position.load(Ordering::Acquire));
            wanted.insert(held.processor.partition, position);
        }
        let is_whole = held.len() == self.covered.len();
        if is_whole && !all {
            return Ok(());
        }
        if !is_whole {
            let stored = self.app.node.data.store.progress_all().await.map_err(|_| End::Over)?;
            for (partition, progress) in stored {
                if !wanted.contains_key(&partition) || !all {
                    wanted.insert(partition, progress.position);
                }
            }
            if !all {
                let ours = |partition: &PartitionId| held.iter().any(|held| held.processor.partition == *partition);
                wanted.retain(|partition, _| !ours(partition));
            }
        }
        self.read_store(wanted).await
    }

    /// Tells what the store holds up to these positions and was not told yet.
    async fn read_store(&mut self, mut wanted: BTreeMap<PartitionId, Position>) -> Result<(), End> {
        wanted.retain(|partition, position| self.covered.get(partition).is_some_and(|known| *known < *position));
        let Some(mut behind) = wanted.keys().filter_map(|partition| self.covered.get(partition)).min().copied() else {
            return Ok(());
        };
        for (partition, position) in &wanted {
            let waiting = self.app.node.data.store.wait_for(*partition, *position);
            tokio::time::timeout(STORE_PATIENCE, waiting).await.map_err(|_| End::Over)?;
        }
        let last = wanted.values().max().copied().unwrap_or_default();
        let partitions = self.app.node.data.journal.partitions();
        loop {
            let query = ChangeQuery { tenant: self.filter.tenant, behind, limit: STREAM_PAGE_ROWS };
            let page = self.app.node.data.store.changes(query).await.map_err(|_| End::Over)?;
            // A page that is full may end within a record, whose rest comes with the next one.
            let reach = page.reach.unwrap_or(last);
            let lines = {
                let (covered, workspace) = (&self.covered, self.filter.tenant.workspace);
                let is_new = |account: &crate::domain::id::AccountId, position: Position| {
                    let partition = crate::domain::routing::partition_of(workspace, account, partitions);
                    let known = covered.get(&partition).copied().unwrap_or_default();
                    wanted.contains_key(&partition) && position > known && position <= reach
                };
                self.filter.lines_of(&page, is_new)
            };
            for (partition, position) in &wanted {
                let known = self.covered.entry(*partition).or_default();
                *known = reach.min(*position).max(*known);
            }
            self.tell(lines).await?;
            if page.reach.is_none() || reach >= last {
                return Ok(());
            }
            behind = reach;
        }
    }

    /// Tells lines; only behind the last of them does a client go on behind them all.
    async fn tell(&self, lines: Vec<Line>) -> Result<(), End> {
        let count = lines.len();
        let mut piece = String::new();
        for (at, line) in lines.into_iter().enumerate() {
            piece.push_str(&format!("event: {}\n", line.event));
            if at + 1 == count {
                piece.push_str(&format!("id: {}\n", self.id()));
            }
            piece.push_str(&format!("data: {}\n\n", line.data));
            if piece.len() > 32 * 1024 {
                self.send(std::mem::take(&mut piece)).await?;
            }
        }
        if piece.is_empty() { Ok(()) } else { self.send(piece).await }
    }

    async fn send(&self, piece: String) -> Result<(), End> {
        match self.pieces.send_timeout(Bytes::from(piece), READER_PATIENCE).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(End::Slow),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(End::Gone),
        }
    }

    fn id(&self) -> Receipt {
        Receipt(self.covered.iter().map(|(partition, position)| (Log::Partition(*partition), *position)).collect())
    }
}
